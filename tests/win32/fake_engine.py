"""An engine without a processor: memory in byte arrays, and guest functions that are Python's."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from virtus.personalities.win32 import virtual_memory
from virtus.personalities.win32.guest import AccessViolation, Memory, Registers
from virtus.personalities.win32.modules import Modules
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.process_blocks import LONGEST_STRING, PARAMETERS_DIRECTORY, PEB_PARAMETERS
from virtus.personalities.win32.table import FUNCTIONS, cut
from virtus.vcpus.program_state import CpuContext

PAGE = 4096
READ, WRITE = 1, 2
PEB_SIZE, TEB_SIZE = 0x1000, 0x2000


class FakeMemory:
    """An address space: mappings of whole pages, with Linux's rights by page."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._rights: dict[int, int] = {}
        self._views: dict[int, tuple[int, int]] = {}
        self._next = 0x1000_0000
        self.lock = threading.RLock()

    def map(self, address: int, size: int, protection: int) -> int:
        with self.lock:
            size = (size + PAGE - 1) & ~(PAGE - 1)
            if not address:
                address = self._next
                self._next += (size + 0x1FFFF) & ~0xFFFF
            pages = range(address // PAGE, (address + size) // PAGE)
            if any(page in self._rights for page in pages):
                raise FileExistsError(17, "something is there")
            self._rights.update(dict.fromkeys(pages, protection))
            return address

    def map_file(self, address: int, size: int, protection: int, fd: int, offset: int, *, private: bool) -> int:
        address = self.map(address, size, READ | WRITE)
        self.write(address, os.pread(fd, size, offset))
        self.protect(address, size, protection)
        if not private:  # the file gets what was stored when the view goes
            self._views[address // PAGE] = os.dup(fd), offset
        return address

    def receive(self, fd: int, address: int, size: int, offset: int | None) -> int:
        data = os.read(fd, size) if offset is None else os.pread(fd, size, offset)
        self.write(address, data)
        return len(data)

    def load_file(self, address: int, size: int, fd: int, offset: int) -> int:
        data = os.pread(fd, size, offset)
        self.write(address, data)
        return len(data)

    def protect(self, address: int, size: int, protection: int) -> None:
        pages = range(address // PAGE, (address + size + PAGE - 1) // PAGE)
        if not all(page in self._rights for page in pages):
            raise OSError(12, "nothing is there")
        self._rights.update(dict.fromkeys(pages, protection))

    def unmap(self, address: int, size: int) -> None:
        if address // PAGE in self._views:
            fd, offset = self._views.pop(address // PAGE)
            os.pwrite(fd, self.read(address, size)[: os.fstat(fd).st_size - offset], offset)
            os.close(fd)
        for page in range(address // PAGE, (address + size + PAGE - 1) // PAGE):
            self._rights.pop(page, None)
            self._pages.pop(page, None)

    def _page(self, address: int, right: int) -> bytearray:
        number = address // PAGE
        if not self._rights.get(number, 0) & right:
            raise AccessViolation(address, write=right == WRITE)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = bytearray(PAGE)
        return page

    def read(self, address: int, size: int) -> bytes:
        parts = []
        while size:
            offset = address % PAGE
            part = self._page(address, READ)[offset : offset + size]
            parts.append(bytes(part))
            address, size = address + len(part), size - len(part)
        return b"".join(parts)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)
        while data:
            offset = address % PAGE
            room = PAGE - offset
            page = self._page(address, WRITE)
            page[offset : offset + len(data[:room])] = data[:room]
            address, data = address + room, data[room:]

    def _number(self, address: int, size: int) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def u16(self, address: int) -> int:
        return self._number(address, 2)

    def u32(self, address: int) -> int:
        return self._number(address, 4)

    def u64(self, address: int) -> int:
        return self._number(address, 8)

    def set_u16(self, address: int, value: int) -> None:
        self.write(address, (value & 0xFFFF).to_bytes(2, "little"))

    def set_u32(self, address: int, value: int) -> None:
        self.write(address, (value & 0xFFFF_FFFF).to_bytes(4, "little"))

    def set_u64(self, address: int, value: int) -> None:
        self.write(address, (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little"))

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> int:
        with self.lock:
            before = self._number(address, size)
            if before == expected:
                self.write(address, new.to_bytes(size, "little"))
            return before

    def string(self, address: int) -> bytes:
        found = bytearray()
        while byte := self.read(address + len(found), 1):
            if byte == b"\0":
                break
            found += byte
        return bytes(found)

    def wide(self, address: int) -> str:
        found = bytearray()
        while (unit := self.read(address + len(found), 2)) != b"\0\0":
            found += unit
        return found.decode("utf-16-le", "surrogatepass")


class Ended(BaseException):
    """The process has ended."""


class ThreadEnded(BaseException):
    """A guest thread has ended."""


class FakeEngine:
    """Guest functions are Python callables at made-up addresses; threads are the host's."""

    def __init__(self, *, cooperative: bool = False) -> None:
        self.memory: Memory = FakeMemory()
        self.cooperative = cooperative
        self.condition = threading.Condition(threading.RLock())
        self.functions: dict[int, Callable[..., int]] = {}
        self.names: dict[str, int] = {}
        self.current = threading.local()
        self.threads: list[threading.Thread] = []
        self.status: int | None = None
        self.return_place = self.memory.map(0, PAGE, READ | WRITE)
        """The stack of whoever calls: where the return address is."""

    def function(self, body: Callable[..., int]) -> int:
        """A guest address that, called, runs `body`."""
        address = 0x7000_0000 + 16 * len(self.functions)
        self.functions[address] = body
        return address

    def resolve(self, dll: str, name: str) -> int | None:
        if name not in FUNCTIONS:
            return None
        if name not in self.names:

            def body(*arguments: int) -> int:
                return int(call(self.current.thread, name, *arguments) or 0)

            self.names[name] = self.function(body)
        return self.names[name]

    def call(self, address: int, *arguments: int) -> int:
        return self.functions[address](*arguments)

    def start_thread(self, body: Callable[[], None], stack_size: int) -> None:
        def run() -> None:
            try:
                body()
            except ThreadEnded:
                pass

        host = threading.Thread(target=run, daemon=True)
        self.threads.append(host)
        host.start()

    def stack(self) -> tuple[int, int]:
        return 0x10000, 0x20000

    def end_thread(self) -> NoReturn:
        raise ThreadEnded

    def set_teb(self, teb: int) -> None:
        self.current.teb = teb

    def wait(self, ready: Callable[[], bool], deadline_ns: int | None) -> bool:
        with self.condition:
            while not ready():
                left = None if deadline_ns is None else (deadline_ns - time.monotonic_ns()) / 1e9
                if left is not None and left <= 0:
                    return False
                self.condition.wait(left)
            return True

    def call_on(self, stack: int, address: int, *arguments: int) -> int:
        return self.functions[address](*arguments)

    def context(self) -> Registers:
        return CpuContext([0, 0, 0, 0, self.return_place, *[0] * 13], bytes(256), 0)

    def continue_at(self, general: list[int], vectors: bytes, mxcsr: int) -> NoReturn:
        raise NotImplementedError("no registers here")

    def wake(self) -> None:
        with self.condition:
            self.condition.notify_all()

    def outer(self, general: list[int], vectors: bytes) -> None:
        return None

    def exit(self, status: int) -> None:
        self.status = status
        raise Ended(status)


def new_thread(engine: FakeEngine | None = None) -> Thread:
    """The first thread of a new process."""
    engine = engine or FakeEngine()
    process = Process(engine)
    process.modules = Modules(engine, lambda dll, name: 0, virtual_memory.regions(process))
    process.peb = engine.memory.map(0, PEB_SIZE, READ | WRITE)
    parameters = engine.memory.map(0, PEB_SIZE, READ | WRITE)
    engine.memory.set_u64(process.peb + PEB_PARAMETERS, parameters)
    engine.memory.set_u64(parameters + PARAMETERS_DIRECTORY + 8, engine.memory.map(0, LONGEST_STRING, READ | WRITE))
    teb = engine.memory.map(0, TEB_SIZE, READ | WRITE)
    thread = Thread(process, teb, process.new_ident())
    engine.current.thread = thread
    process.current = thread
    return thread


def room(thread: Thread, data: bytes | int) -> int:
    """Guest memory with contents, or of a size."""
    content = bytes(data)
    address = thread.memory.map(0, max(1, len(content)), READ | WRITE)
    thread.memory.write(address, content)
    return address


def wide(thread: Thread, text: str) -> int:
    """A wide string in guest memory."""
    return room(thread, text.encode("utf-16-le", "surrogatepass") + b"\0\0")


def call(thread: Thread, name: str, *arguments: int | float) -> Any:
    """A function of the table, its arguments as a processor passes them."""
    function = FUNCTIONS[name]
    assert len(arguments) == len(function.parameters) or function.variadic, name
    converted = [
        cut(parameter.type, int(argument)) if not parameter.type.floating else argument
        for parameter, argument in zip(function.parameters, arguments, strict=False)
    ]
    result = function.implementation(thread, *converted)
    if function.result.size == 0 or function.result.floating:
        return result
    return cut(function.result, int(result or 0))

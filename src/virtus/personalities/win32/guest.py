"""What the personality win32 needs of whoever runs a Windows program: its memory, calls into it, and its threads.

There are two: the program's own instructions in a process of its own (`vcpus/inprocess`), and emulated ones
(`vcpus/emulated_x86`). The personality is the same for both, and knows only these protocols.
"""

from collections.abc import Callable
from typing import NoReturn, Protocol


class Memory(Protocol):
    """The guest's address space. A bad address raises `AccessViolation`, which becomes the guest's own exception."""

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes."""
        ...

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store bytes."""
        ...

    def u16(self, address: int) -> int:
        """An unsigned 16-bit word."""
        ...

    def u32(self, address: int) -> int:
        """An unsigned 32-bit word."""
        ...

    def u64(self, address: int) -> int:
        """An unsigned 64-bit word."""
        ...

    def set_u16(self, address: int, value: int) -> None:
        """Store the low 16 bits."""
        ...

    def set_u32(self, address: int, value: int) -> None:
        """Store the low 32 bits."""
        ...

    def set_u64(self, address: int, value: int) -> None:
        """Store the low 64 bits."""
        ...

    def compare_exchange(self, address: int, size: int, expected: int, new: int) -> int:
        """Store an aligned unsigned number of 4 or 8 bytes if `expected` is there; give what was there.

        One step for all threads of the guest, whether they are in machine code or here.
        """
        ...

    def string(self, address: int) -> bytes:
        """The bytes up to the first zero byte."""
        ...

    def wide(self, address: int) -> str:
        """A UTF-16 string up to its zero; unpaired surrogates stay as they are."""
        ...

    def map(self, address: int, size: int, protection: int) -> int:
        """Fresh zeroed pages of Linux's PROT_* rights, at `address` or, for 0, anywhere aligned to 64 KiB.

        Returns the address. Raises OSError(EEXIST) where something is, OSError(ENOMEM).
        """
        ...

    def map_file(self, address: int, size: int, protection: int, fd: int, offset: int, *, private: bool) -> int:
        """The same with a file's contents; a shared mapping's stores reach the file."""
        ...

    def receive(self, fd: int, address: int, size: int, offset: int | None) -> int:
        """read(2) or, with an offset, pread(2) straight to the guest: how many bytes. Raises OSError too."""
        ...

    def load_file(self, address: int, size: int, fd: int, offset: int) -> int:
        """Put a file's bytes into writable fresh pages that are mapped already; how many there were.

        As a private copy, or as pages that the host reads when they are first used.
        """
        ...

    def protect(self, address: int, size: int, protection: int) -> None:
        """Change rights; code may have been stored there before. Raises OSError."""
        ...

    def unmap(self, address: int, size: int) -> None:
        """Give pages back."""
        ...


class AccessViolation(Exception):
    """The guest handed us an address that cannot be read or written."""

    def __init__(self, address: int, *, write: bool) -> None:
        super().__init__(f"cannot {'write' if write else 'read'} {address:#x}")
        self.address, self.write = address, write


class Registers(Protocol):
    """A thread's registers: `general` by the processor's numbers, RIP and the flags; sixteen `vectors` in a row."""

    general: list[int]
    vectors: bytes
    mxcsr: int


class Engine(Protocol):
    """Who runs the instructions of one Windows process."""

    @property
    def memory(self) -> Memory:
        """Its address space."""
        ...

    cooperative: bool
    """Whether guest threads take turns on one thread of the host: then whoever waits calls `wait`, never the host."""

    def resolve(self, dll: str, name: str) -> int | None:
        """The guest address of one of our functions, to be stored into import tables; None where there is none."""
        ...

    def call(self, address: int, *arguments: int) -> int:
        """Run a guest function to its return on the current thread, and give its result (RAX)."""
        ...

    def call_on(self, stack: int, address: int, *arguments: int) -> int:
        """The same with the stack from there downwards, below what is in use."""
        ...

    def start_thread(self, body: Callable[[], None], stack_size: int) -> None:
        """A new guest thread that runs `body`, which sets its stack and TEB and calls its start address."""
        ...

    def stack(self) -> tuple[int, int]:
        """The current guest thread's stack: its lowest address, and the one behind its highest."""
        ...

    def end_thread(self) -> NoReturn:
        """Leave the body of the current guest thread at once, through all calls in it, ours and the guest's."""
        ...

    def set_teb(self, teb: int) -> None:
        """GS of the current guest thread."""
        ...

    def wait(self, ready: Callable[[], bool], deadline_ns: int | None) -> bool:
        """Until `ready` or the deadline (monotonic clock) has passed; whether it was `ready`. Others run meanwhile."""
        ...

    def wake(self) -> None:
        """What somebody waits for may have become true; may be called from any thread."""
        ...

    def context(self) -> Registers:
        """The registers of the current guest thread, where it called the function that asks."""
        ...

    def continue_at(self, general: list[int], vectors: bytes, mxcsr: int) -> NoReturn:
        """Go on with these registers and never return: our frames between here and there on the stack are unwound."""
        ...

    def outer(self, general: list[int], vectors: bytes) -> Registers | None:
        """If these are the registers after the return of a function that `call` called: those of the guest outside.

        They are as after the return of our function that made the call, or as the fault left them that it served.
        None anywhere else, and where nothing of the guest is outside.
        """
        ...

    def exit(self, status: int) -> None:
        """End the process at once with a Windows exit code. Does not return."""
        ...

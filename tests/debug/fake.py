"""A process to debug that is not there: registers and memory of a test's own."""

import os

from virtus.machine.debug.commands import Answer, Commands
from virtus.machine.debug.debuggee import Stop
from virtus.machine.debug.files import Files
from virtus.vcpus.translator import float_state, layout

START, SIZE = 0x1000, 0x100


class FakeDebuggee:
    """See `virtus.machine.debug.debuggee.Debuggee`. Thread 3 is inside a system call."""

    def __init__(self) -> None:
        self.words = {thread: memoryview(bytearray(8 * 96)).cast("Q") for thread in (2, 3)}
        for words in self.words.values():
            words[layout.MXCSR] = float_state.INITIAL
        self.memory = bytearray(range(256))
        self.breakpoints: frozenset[int] = frozenset()
        self.watchpoints: frozenset[tuple[str, int, int]] = frozenset()
        self.passed: frozenset[int] = frozenset()

    def threads(self) -> list[int]:
        return list(self.words)

    def registers(self, thread: int) -> "memoryview[int]":
        return self.words[thread]

    def may_change(self, thread: int) -> bool:
        return thread != 3

    def describe(self, thread: int) -> str:
        return f"number {thread}"

    def read(self, address: int, size: int) -> bytes:
        offset = address - START
        return bytes(self.memory[offset : offset + size]) if 0 <= offset < SIZE else b""

    def write(self, address: int, data: bytes) -> None:
        offset = address - START
        if not 0 <= offset <= SIZE - len(data):
            raise OSError(14, "")
        self.memory[offset : offset + len(data)] = data

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        self.breakpoints = addresses

    def set_watchpoints(self, watchpoints: frozenset[tuple[str, int, int]]) -> None:
        self.watchpoints = watchpoints

    def pass_signals(self, numbers: frozenset[int]) -> None:
        self.passed = numbers

    def executable(self) -> str:
        return "/bin/guest"

    def auxiliary(self) -> bytes:
        return b"\x06\0\0\0\0\0\0\0*#$}"

    def signal_information(self, thread: int) -> bytes:
        return bytes(128)

    def figures(self) -> dict[str, int]:
        return {"instructions": 1234}


def open_host(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def session() -> tuple[FakeDebuggee, Commands, Files]:
    debuggee, files = FakeDebuggee(), Files(open_host)
    return debuggee, Commands(debuggee, files, Stop(2, 5)), files


def ask(commands: Commands, *requests: bytes) -> Answer:
    """The answer to the last one."""
    answer: Answer = b""
    for request in requests:
        answer = commands.handle(request)
    return answer

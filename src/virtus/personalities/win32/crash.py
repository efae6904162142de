"""What a user is told when a program ends otherwise than by its own will, and the exit status that a shell sees."""

import contextlib
import os
from typing import Final

from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Process

STATUS_ACCESS_VIOLATION: Final = 0xC0000005
CODES: Final = {
    0: 0xC0000094, 1: 0x80000004, 3: 0x80000003, 4: 0xC0000095, 5: 0xC000008C, 6: 0xC000001D, 13: 0xC0000096,
    12: 0xC00000FD, 0x29: 0xC0000409, 0x2C: 0xC0000420, 16: 0xC0000090, 17: 0x80000002, 19: 0xC000008E,
}  # fmt: skip
"""Windows' codes of the processor's exceptions (ntstatus.h), by vector."""
SIGNALS: Final = {
    0xC0000005: 11, 0xC000001D: 4, 0xC0000094: 8, 0xC0000095: 8, 0x80000003: 5, 0xC00000FD: 11, 0xC0000409: 6,
    0xC0000096: 11, 0xC000013A: 2, 0xC000008E: 8, 0x40000015: 6,
}  # fmt: skip
"""Exit codes of programs that ended through an exception, as the signal that ends a Linux program so."""
NAMES: Final = ("RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", *(f"R{n}" for n in range(8, 16)), "RIP")
RIP: Final = 16


def tell(text: str) -> None:
    """Write to error output; where nobody reads it any more, the program ends all the same."""
    with contextlib.suppress(OSError):
        os.write(2, text.encode(errors="replace"))


def code(vector: int) -> int:
    """The exception's code; a vector below 0 is memory that may not be used."""
    return CODES.get(vector, STATUS_ACCESS_VIOLATION)


def shell_status(status: int) -> int:
    """A Windows exit code as a shell shows it: 128 and a signal for an exception, else its low byte."""
    status &= 0xFFFF_FFFF
    if status in SIGNALS:
        return 128 + SIGNALS[status]
    return status & 0xFF if status & 0xFF or not status else 1


def place(process: Process, address: int) -> str:
    """An address as module and offset."""
    module = process.modules.at(address)
    return f"{module.name}+{address - module.base:#x}" if module is not None else f"{address:#x}"


def exception_words(process: Process, code: int, parameters: tuple[int, ...], general: list[int]) -> str:
    """A report on an exception that nobody took: what, where, and the registers."""
    what = f"exception {code:#010x}"
    if code == STATUS_ACCESS_VIOLATION and len(parameters) >= 2:
        access = {0: "reading", 1: "writing"}.get(parameters[0], "executing")
        what += f" ({access} {parameters[1]:#x})"
    lines = [f"virtus: the program ended with {what} at {place(process, general[RIP])}"]
    for first in range(0, len(NAMES), 4):
        named = zip(NAMES[first : first + 4], general[first : first + 4], strict=False)
        lines.append("  " + "  ".join(f"{name:3} {value:016x}" for name, value in named))
    lines.append("  called from " + ", ".join(callers(process, general[4])))
    return "\n".join(lines) + "\n"


def callers(process: Process, stack: int, most: int = 8) -> list[str]:
    """What looks like return addresses on the stack: words that lie in the code of a module."""
    found: list[str] = []
    try:
        for index in range(256):
            module = process.modules.at(value := process.memory.u64(stack + 8 * index))
            if module is not None and module.image is not None and value != module.base and len(found) < most:
                found.append(place(process, value))
    except AccessViolation:
        pass  # the end of the stack
    return found


def unimplemented(process: Process, dll: str, name: str, frame: int) -> str:
    """A report on a call of a function that is not there. `frame` is where its arguments lie."""
    arguments = ", ".join(f"{process.memory.u64(frame + 8 * index):#x}" for index in range(4))
    caller = place(process, process.memory.u64(frame - 8))
    return f"virtus: the program called {name} of {dll}, which is not there; from {caller}, with {arguments}, ...\n"


def whole(error: BaseException) -> str:
    """A mistake of our own with where it came from."""
    import traceback  # nobody needs it otherwise

    return "".join(traceback.format_exception(error))

"""The process that a Windows program runs in: engine, personality and program, started inside the box as its guest.

`python -m virtus.techniques.windows_process ENGINE PROGRAM ARGUMENTS...`. Whatever the program does, it does as this
process, which the box confines as it does any Linux program; so nothing here guards the host.
"""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Final, Never

from virtus.errors import VirtusError
from virtus.personalities.win32 import crash, exceptions
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Process, ProcessEnd
from virtus.vcpus.program_state import FAST_FAIL, FETCH, WRITE, CpuContext, CpuFault

BROKEN_STATUS: Final = 70
"""EX_SOFTWARE: a mistake of our own."""
UNIMPLEMENTED_STATUS: Final = 98
"""The exit status of a program that has called a function which is not there."""


READ_ACCESS, WRITE_ACCESS, FETCH_ACCESS = 0, 1, 8
"""What an access violation's first parameter says (Microsoft: EXCEPTION_RECORD)."""
IN_PROCESS: Final = "inprocess"
"""The engine that is the processor itself, as `windows.IN_PROCESS`."""
TRACE: Final = "VIRTUS_API_TRACE"
"""Names a file that is told of every call, for whoever looks into a program."""


def end(process: Process, status: int) -> Never:
    """End this process as the Windows process ends. Does not return."""
    for action in process.at_exit:
        action()
    if process.tell_exit is not None:
        process.tell_exit(status)
    with contextlib.suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(crash.shell_status(status))


def deliver(process: Process, fault: CpuFault, context: CpuContext) -> CpuContext:
    """Give the program a fault of its own as the exception that Windows makes of it. Does not return, or raises."""
    code = crash.code(fault.vector)
    if fault.vector == FAST_FAIL:
        crash.tell(crash.exception_words(process, code, (), context.general))
        raise ProcessEnd(code)
    access = {WRITE: WRITE_ACCESS, FETCH: FETCH_ACCESS}.get(fault.kind, READ_ACCESS)
    parameters = (access, fault.page) if fault.vector < 0 else ()
    exceptions.dispatch(process.current, code, 0, parameters, context.general, context.vectors, context.mxcsr)


def deliver_bad_access(process: Process, error: AccessViolation) -> Never:
    """The same for bad memory that a function of ours met on the program's behalf."""
    access = WRITE_ACCESS if error.write else READ_ACCESS
    exceptions.raise_here(process.current, crash.STATUS_ACCESS_VIOLATION, 0, (access, error.address))
    raise AssertionError from error


def unimplemented(process: Process, dll: str, name: str, frame: int) -> Never:
    """The program has called a function that is not there: say which, and end it."""
    crash.tell(crash.unimplemented(process, dll, name, frame))
    end(process, UNIMPLEMENTED_STATUS)


def failed(error: BaseException, ended: Callable[[int], object]) -> Never:
    """A guest thread has ended otherwise than by its return or by ExitThread: so does the process, by `ended` where
    that was the program's wish."""
    try:
        if isinstance(error, ProcessEnd):
            ended(error.status)
        if isinstance(error, VirtusError):
            crash.tell(f"virtus: {error}\n")
            os._exit(error.exit_status)
        crash.tell(crash.whole(error))  # a mistake of our own
    finally:
        os._exit(BROKEN_STATUS)


def main(words: list[str]) -> None:
    """See above. Errors of the user's are one line."""
    trace = None
    named = os.environ.pop(TRACE, None)
    if named == "-":
        trace = sys.stderr.write
    elif named is not None:
        trace = open(named, "a", buffering=1, encoding="utf-8", errors="replace").write
    try:
        if words[0] == IN_PROCESS:
            from virtus.techniques import windows_inprocess

            windows_inprocess.run(words[1], words[2:], trace)
        from virtus.techniques import windows_emulated

        windows_emulated.run(words[1], words[2:], trace)
    except VirtusError as error:
        crash.tell(f"virtus: {error}\n")
        os._exit(error.exit_status)


if __name__ == "__main__":
    main(sys.argv[1:])

"""The process that a Windows program runs in: engine, personality and program, started inside the box as its guest.

`python -m virtus.techniques.windows_process ENGINE PROGRAM ARGUMENTS...`. Whatever the program does, it does as this
process, which the box confines as it does any Linux program; so nothing here guards the host.
"""

import contextlib
import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable
from typing import Final

from virtus.errors import VirtusError
from virtus.personalities import win32
from virtus.personalities.win32 import crash, exceptions, marshalling, startup
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Process, ProcessEnd
from virtus.personalities.win32.table import FUNCTIONS

FAST_FAIL: Final = 0x29
"""The vector of __fastfail (Microsoft: __fastfail): the end, and nobody is asked."""
BROKEN_STATUS: Final = 70
"""EX_SOFTWARE: a mistake of our own."""
UNIMPLEMENTED_STATUS: Final = 98
"""The exit status of a program that has called a function which is not there."""


IN_PROCESS: Final = "inprocess"
"""The engine that is the processor itself, as `windows.IN_PROCESS`."""
TRACE: Final = "VIRTUS_API_TRACE"
"""Names a file that is told of every call, for whoever looks into a program."""


def load_functions() -> None:
    """Have every module of the personality enter its functions into the table."""
    for module in pkgutil.iter_modules(win32.__path__):
        importlib.import_module(f"{win32.__name__}.{module.name}")


def end(process: Process, status: int) -> None:
    """End this process as the Windows process ends. Does not return."""
    for action in process.at_exit:
        action()
    if process.tell_exit is not None:
        process.tell_exit(status)
    with contextlib.suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(crash.shell_status(status))


def run_emulated(program: str, arguments: list[str], trace: Callable[[str], object] | None = None) -> None:
    """Run a program on the emulated processor; `trace` is told of its calls. Does not return."""
    from virtus.vcpus.emulated_x86.callbacks import MEMORY_FETCH, MEMORY_WRITE
    from virtus.vcpus.emulated_x86.engine import CpuContext, CpuFault, EmulatedX86, Entry

    def lookup(dll: str, name: str) -> Entry | None:
        function = FUNCTIONS.get(name)
        if function is None:
            return None
        call = marshalling.entry(function, engine.memory, lambda: process.current, engine)
        return guarded(call if trace is None else marshalling.traced(function, engine.memory, call, trace))

    def guarded(call: Callable[[int], int]) -> Callable[[int], int]:
        def guard(frame: int) -> int:
            try:
                return call(frame)
            except AccessViolation as bad:
                exceptions.raise_here(process.current, crash.STATUS_ACCESS_VIOLATION, 0, (int(bad.write), bad.address))
                raise AssertionError from bad

        return guard

    def fault(fault: CpuFault, context: CpuContext) -> CpuContext:
        code = crash.code(fault.vector)
        if fault.vector == FAST_FAIL:
            crash.tell(crash.exception_words(process, code, (), context.general))
            raise ProcessEnd(code)
        access = {MEMORY_WRITE: 1, MEMORY_FETCH: 8}.get(fault.kind, 0)
        parameters = (access, fault.page) if fault.vector < 0 else ()
        exceptions.dispatch(process.current, code, 0, parameters, context.general, context.vectors, context.mxcsr)

    def failed(error: BaseException) -> None:
        if isinstance(error, ProcessEnd):
            end(process, error.status)
        traceback.print_exception(error)
        end(process, BROKEN_STATUS)

    def missing(dll: str, name: str) -> int:
        def called(frame: int) -> int:
            crash.tell(crash.unimplemented(process, dll, name, frame))
            end(process, UNIMPLEMENTED_STATUS)
            raise AssertionError

        return engine.entry_point(called)

    engine = EmulatedX86(
        lambda address, write: AccessViolation(address, write=write), lookup, fault,
        lambda status: end(process, status), failed, every_call=trace is not None,
    )  # fmt: skip
    process = Process(engine)
    load_functions()
    main = startup.prepare(process, program, arguments, os.environ, startup.EMULATED_FEATURES, missing)
    assert main.image is not None
    engine.make_stack(main.image.stack_reserve)
    startup.adopt(process, engine.stack())
    try:
        status = startup.run(process, main)
    except ProcessEnd as ended:
        status = ended.status
    end(process, status)


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
        run_emulated(words[1], words[2:], trace)
    except VirtusError as error:
        crash.tell(f"virtus: {error}\n")
        os._exit(error.exit_status)


if __name__ == "__main__":
    main(sys.argv[1:])

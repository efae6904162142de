"""The process that a Windows program runs in: engine, personality and program, started inside the box as its guest.

`python -m virtus.techniques.windows_process ENGINE PROGRAM ARGUMENTS...`. Whatever the program does, it does as this
process, which the box confines as it does any Linux program; so nothing here guards the host.
"""

import importlib
import os
import pkgutil
import sys
from typing import Final

from virtus.errors import VirtusError
from virtus.personalities import win32
from virtus.personalities.win32 import crash, marshalling, startup
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Process, ProcessEnd
from virtus.personalities.win32.table import FUNCTIONS

UNIMPLEMENTED_STATUS: Final = 98
"""The exit status of a program that has called a function which is not there."""


def load_functions() -> None:
    """Have every module of the personality enter its functions into the table."""
    for module in pkgutil.iter_modules(win32.__path__):
        importlib.import_module(f"{win32.__name__}.{module.name}")


def end(process: Process, status: int) -> None:
    """End this process as the Windows process ends. Does not return."""
    for action in process.at_exit:
        action()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(crash.shell_status(status))


def run_emulated(program: str, arguments: list[str]) -> None:
    """Run a program on the emulated processor. Does not return."""
    from virtus.vcpus.emulated_x86.engine import CpuContext, CpuFault, EmulatedX86, Entry

    def lookup(dll: str, name: str) -> Entry | None:
        function = FUNCTIONS.get(name)
        return None if function is None else marshalling.entry(function, engine.memory, lambda: process.current, engine)

    def fault(fault: CpuFault, context: CpuContext) -> CpuContext:
        words = crash.words(process, fault.vector, fault.page, fault.kind, context.general)
        sys.stderr.write(words)
        end(process, crash.code(fault.vector))
        raise AssertionError

    def missing(dll: str, name: str) -> int:
        def called(frame: int) -> int:
            sys.stderr.write(crash.unimplemented(process, dll, name, frame))
            end(process, UNIMPLEMENTED_STATUS)
            raise AssertionError

        return engine.entry_point(called)

    engine = EmulatedX86(
        lambda address, write: AccessViolation(address, write=write), lookup, fault, lambda status: end(process, status)
    )
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
    try:
        run_emulated(words[1], words[2:])
    except VirtusError as error:
        sys.stderr.write(f"virtus: {error}\n")
        os._exit(error.exit_status)


if __name__ == "__main__":
    main(sys.argv[1:])

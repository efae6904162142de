"""The process that a Windows program runs in: engine, personality and program, started inside the box as its guest.

`python -m virtus.techniques.windows_process ENGINE PROGRAM ARGUMENTS...`. Whatever the program does, it does as this
process, which the box confines as it does any Linux program; so nothing here guards the host.
"""

import contextlib
import os
import sys
from typing import Final

from virtus.errors import VirtusError
from virtus.personalities.win32 import crash
from virtus.personalities.win32.process import Process

BROKEN_STATUS: Final = 70
"""EX_SOFTWARE: a mistake of our own."""
UNIMPLEMENTED_STATUS: Final = 98
"""The exit status of a program that has called a function which is not there."""


IN_PROCESS: Final = "inprocess"
"""The engine that is the processor itself, as `windows.IN_PROCESS`."""
TRACE: Final = "VIRTUS_API_TRACE"
"""Names a file that is told of every call, for whoever looks into a program."""


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

"""Calls functions of files, pipes, consoles and jobs with whatever a guest could pass.

usage: python -m tests.win32.hostile_calls SEED, inside a box: what it calls changes files with random names.
"""

import os
import random
import sys
import tempfile
from pathlib import Path

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import (
    change_notifications,
    completion,
    console,
    console_control,
    console_input,
    directories,
    file_changes,
    file_information,
    file_locks,
    file_transfer,
    files,
    handle_functions,
    jobs,
    mappings,
    moving,
    nt_files,
    nt_volumes,
    pipes,
    volumes,
)  # fmt: skip
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.paths import to_windows
from virtus.personalities.win32.table import FUNCTIONS

MODULES = {
    module.__name__
    for module in (
        change_notifications, completion, console, console_control, console_input, directories, file_changes,
        file_information, file_locks, file_transfer, files, handle_functions, jobs, mappings, moving, nt_files,
        nt_volumes, pipes, volumes,
    )
}  # fmt: skip
WAITING = {
    "ConnectNamedPipe", "GetOverlappedResult", "GetOverlappedResultEx", "GetQueuedCompletionStatus",
    "GetQueuedCompletionStatusEx", "LockFileEx", "NtLockFile", "ReadDirectoryChangesW", "WaitNamedPipeA",
    "WaitNamedPipeW", "GenerateConsoleCtrlEvent",
}  # fmt: skip
"""Functions that rightly wait for what never comes here, or would end the tests."""
INVALID = (1 << 64) - 1
NUMBERS = (0, 1, 2, 3, 5, 9, 18, 0x1000, 0x7FFF_FFFF, INVALID, 1 << 63)
CALLS = 120


def main(seed: int, place: Path) -> None:
    os.chdir(place)
    (place / "file").write_text("hello")
    (place / "sub").mkdir()
    chance, thread = random.Random(seed), new_thread()
    thread.process.directory = to_windows(str(place))
    handles = [
        call(thread, "CreateFileW", wide(thread, name), access, 7, 0, 3, flags, 0)
        for name, access, flags in (
            ("file", 0xC000_0000, 0),
            ("file", 0x8000_0000, 0x4000_0000),
            ("sub", 0, 0x0200_0000),
        )
    ]
    handles += [
        call(thread, "CreateFileMappingW", INVALID, 0, 4, 0, 8192, 0),
        call(thread, "CreateIoCompletionPort", INVALID, 0, 0, 0),
        call(thread, "CreateJobObjectW", 0, 0),
    ]
    memory = [room(thread, bytes(chance.choice((0, 1, 255, chance.randrange(256))) for _ in range(512))) for _ in "123"]
    names = [wide(thread, name) for name in ("file", "sub", "new", "sub\\x", "*", "\\\\.\\pipe\\a")]
    values = (*NUMBERS, *handles, *handles, *memory, *memory, *names)
    functions = sorted(
        name for name, function in FUNCTIONS.items()
        if function.implementation.__module__ in MODULES and name not in WAITING
    )  # fmt: skip
    for _ in range(CALLS):
        name = chance.choice(functions)
        arguments = [chance.choice((*values, chance.randrange(1 << 64))) for _ in FUNCTIONS[name].parameters]
        try:
            call(thread, name, *arguments)
        except AccessViolation:
            continue
    for handle in range(0x40, 0x400, 4):
        call(thread, "CloseHandle", handle)
    assert os.path.isdir(place)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(int(sys.argv[1]), Path(directory))
        os.chdir("/")
    print("all answered")

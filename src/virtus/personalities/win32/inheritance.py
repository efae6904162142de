"""What a process of ours has from the process that started it, told through a descriptor: streams and handles under
their numbers, environment, command line, directory; and what it tells back, the whole of its exit code.

Both sides are processes of the same box. What a parent hands on is no more than it has itself.
"""

import os
import struct
from collections.abc import Mapping
from typing import Any, Final

from virtus.personalities.win32 import state
from virtus.personalities.win32.process import Process

VARIABLE: Final = "VIRTUS_WIN32_PARENT"
"""Names the descriptor to the host's process; guests never see it."""
LONGEST: Final = 1 << 26


class Given:
    """What the program may ask of how it was started."""

    def __init__(self) -> None:
        self.reserved = b""
        """lpReserved2 of STARTUPINFO, where C runtimes keep the files that children get."""
        self.flags = self.show = 0
        self.title = ""


def describe(found: Any) -> dict[str, Any] | None:
    """An object as another process can be told of it; None for one that is its process's own."""
    from virtus.personalities.win32.file_objects import File
    from virtus.personalities.win32.mappings import Section
    from virtus.personalities.win32.pipes import NamedPipe

    if isinstance(found, Section):
        return {"kind": "section", "fd": found.fd, "size": found.size, "protection": found.protection}
    if not isinstance(found, File) or found.fd < 0:
        return None
    words = {"kind": "file", "fd": found.fd, "path": found.path, "access": found.access, "append": found.append,
             "overlapped": found.overlapped, "messages": found.messages}  # fmt: skip
    if isinstance(found, NamedPipe):
        words |= {"kind": "pipe", "path": found.name, "server": found.server, "connected": found.connected}
    return words


def make(words: Mapping[str, Any]) -> Any:
    """The object that a description is of, on the same descriptor."""
    from virtus.personalities.win32.file_objects import File
    from virtus.personalities.win32.mappings import Section
    from virtus.personalities.win32.pipes import NamedPipe

    fd = int(words["fd"])
    os.set_inheritable(fd, False)
    if words["kind"] == "section":
        return Section(fd, int(words["size"]), int(words["protection"]))
    if words["kind"] == "pipe":
        pipe = NamedPipe(
            fd, str(words["path"]), server=bool(words["server"]), messages=bool(words["messages"]),
            overlapped=bool(words["overlapped"]), access=int(words["access"]),
        )  # fmt: skip
        pipe.connected = bool(words["connected"])
        return pipe
    file = File(fd, str(words["path"]), int(words["access"]), bool(words["append"]), bool(words["overlapped"]))
    file.messages = bool(words["messages"])
    return file


def adopt(process: Process) -> bool:
    """Take over what the parent has prepared, where there is one. Only before the program's blocks are made."""
    number = os.environ.pop(VARIABLE, None)
    if number is None:
        return False
    import json  # here and not above, since the first process of all needs none of them

    from virtus.personalities.win32 import paths
    from virtus.personalities.win32.console_control import Control
    from virtus.personalities.win32.pipes import Names

    with open(int(number), "rb") as stream:
        words = json.loads(stream.read(LONGEST))
    process.environment = dict(words["environment"])
    process.command_line = words["command_line"]
    process.directory = words["directory"]
    process.ident = os.getpid()
    os.chdir(paths.to_host(process, process.directory))
    for handle, description in words["handles"]:
        found = make(description)
        process.handles.place(int(handle), found)
        found.opened()
    streams = list(process.streams)
    for place, handle in enumerate(words["streams"]):
        if handle is not None:
            streams[place] = int(handle)
    process.streams = tuple(streams)
    given = state.of(process, Given)
    given.reserved, given.title = bytes.fromhex(words["reserved"]), words["title"]
    given.flags, given.show = int(words["flags"]), int(words["show"])
    state.of(process, Names).word = words["pipes"]
    state.of(process, Control).ignores = bool(words["ignores"])
    report = int(words["report"])
    os.set_inheritable(report, False)

    def tell(status: int) -> None:
        try:
            os.write(report, struct.pack("<I", status & 0xFFFF_FFFF))
        except OSError:
            return  # the parent has gone, or closed its handles: nobody asks

    process.tell_exit = tell
    go = words["go"]
    if go is not None:  # started suspended: until somebody resumes it
        os.read(int(go), 1)
        os.close(int(go))
    return True

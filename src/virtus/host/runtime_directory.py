"""Where a user's running machines find each other: a directory that is nobody else's, gone with the next start of the
host."""

import os
from pathlib import Path

from virtus.errors import HostLacks


def runtime_directory(kind: str) -> Path:
    """The directory for sockets of one kind; made when it is missing. Raises HostLacks where others may write."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/virtus-{os.geteuid()}")
    for path in (base, base / f"virtus-{kind}"):
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise HostLacks(f"looking for {kind}", f"{path} can be changed by others", "set XDG_RUNTIME_DIR")
    return base / f"virtus-{kind}"

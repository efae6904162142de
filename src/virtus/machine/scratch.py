"""Where throw-away changes go when no tmpfs can hold them: a directory that is removed with its machine.

An ordinary user's layers keep notes in extended attributes of users, which a tmpfs has since Linux 6.6. Before, the
changes of the guest's root lie in a directory on disk. Its lock shows that its machine lives: when everything was
killed before the directory could be removed, the next start finds it unlocked.
"""

import errno
import fcntl
import os
from typing import Final

from virtus.errors import HostLacks
from virtus.host import namespaces
from virtus.records import StrPath

PREFIX: Final = "virtus-changes-"
ATTRIBUTE: Final = "user.virtus"


def is_needed() -> bool:
    """Whether this user's changes cannot lie on a tmpfs; tried on a file of the same kind that has no name."""
    return not namespaces.is_host_root() and not _keeps_attributes(os.memfd_create("virtus", os.MFD_CLOEXEC))


def _keeps_attributes(fd: int) -> bool:
    """Whether the file system of `fd` has attributes of users; closes it."""
    try:
        os.setxattr(fd, ATTRIBUTE, b"")
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
        return False
    finally:
        os.close(fd)
    return True


def places() -> list[str]:
    """Where such directories are made, the best one first."""
    import tempfile  # late, as in this whole module: few hosts need it

    return [tempfile.gettempdir(), "/var/tmp", os.path.expanduser("~/.cache")]


class Directory:
    """A directory of the caller's, locked by this process and all that it forks until they execute something else."""

    def __init__(self) -> None:
        for place in places():
            if not os.access(place, os.W_OK | os.X_OK):
                continue
            remove_stale(place)
            self.path, self._lock = _make(place)
            if _keeps_attributes(os.dup(self._lock)):
                return
            self.remove()
        remedy = "Linux 6.6 or newer, --keep DIR on another file system, or TMPDIR on one"
        raise HostLacks("layering the guest's root", "no directory here has extended attributes of users", remedy)

    def remove(self) -> None:
        """Nothing of it is left, once its machine is gone. May be called twice."""
        if self._lock >= 0:
            _remove(self.path)
            os.close(self._lock)
            self._lock = -1


def _make(place: str) -> tuple[str, int]:
    """A new directory, and its lock."""
    import tempfile

    while True:
        path = tempfile.mkdtemp(prefix=PREFIX, dir=place)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path, lock
        os.close(lock)  # another start took it for a stale one before it was locked


def remove_stale(place: StrPath) -> None:
    """Remove what machines of this user left in `place` that were killed."""
    for name in os.listdir(place):
        if not name.startswith(PREFIX):
            continue
        path = os.path.join(place, name)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # somebody else's, or just removed
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(path)
        except BlockingIOError:
            pass  # its machine lives
        finally:
            os.close(lock)


def _remove(path: str) -> None:
    """Remove a tree of the caller's; overlayfs's work directories, and some guests', have no permissions."""
    import shutil

    for directory, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(directory, name)
            if not os.path.islink(inner):
                os.chmod(inner, 0o700)
    shutil.rmtree(path, ignore_errors=True)

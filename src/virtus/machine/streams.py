"""Standard streams that are files of the host's: the guest gets what was opened for it, and no more.

Whoever holds a descriptor may open its file again, by /proc/self/fd, with every access that the file's mount allows:
`guest < file` would give the guest write access to the file, and its mode. So a file that is open for reading is opened
again through a read-only mount of its own, and a directory is looked up again inside the guest's root.
"""

import fcntl
import os
import stat
from typing import Final

from virtus.host import mounts

STREAMS: Final = (0, 1, 2)


class Inherited:
    """The standard streams of this process, which its children are to have in their place."""

    def __init__(self) -> None:
        self._originals: dict[int, int] = {}  # by stream: the description that the caller shares
        self._directories: dict[int, str] = {}
        for fd in STREAMS:
            try:
                if stat.S_ISDIR(os.fstat(fd).st_mode):
                    self._directories[fd] = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue  # closed

    def protect(self) -> None:
        """Put read-only descriptions in the place of files and disks open for reading.

        In a mount namespace of its own, the host's tree still in sight.
        """
        for fd in STREAMS:
            try:
                self._protect(fd)
            except OSError:
                continue  # closed, deleted, or not the caller's to open: then the guest cannot open it either

    def _protect(self, fd: int) -> None:
        status = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if flags & os.O_ACCMODE != os.O_RDONLY or not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
            return
        tree = mounts.copy_tree(os.readlink(f"/proc/self/fd/{fd}"))
        try:
            found = os.fstat(tree)
            if (found.st_dev, found.st_ino) != (status.st_dev, status.st_ino):
                return  # another file has the name by now
            mounts.restrict_copy(tree, mounts.MOUNT_ATTR_RDONLY)
            own = os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC | flags & os.O_NONBLOCK)
            mounts.restrict_copy(tree, mounts.MOUNT_ATTR_NODEV)  # a disk is not to be opened again at all
        finally:
            os.close(tree)
        os.lseek(own, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
        self._originals[fd] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        os.dup2(own, fd)
        os.close(own)

    def enter(self) -> None:
        """In the guest's root: let go of what is the caller's, and find directories there by their names."""
        for original in self._originals.values():
            os.close(original)
        for fd, path in self._directories.items():
            try:
                own = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                own = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # not there
            os.dup2(own, fd)
            os.close(own)

    def give_back(self) -> None:
        """Whoever reads on after the guest does so where the guest has stopped."""
        for fd, original in self._originals.items():
            os.lseek(original, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)

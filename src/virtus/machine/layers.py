"""A guest's root made of layers: what is there already read-only below, the guest's changes above.

The lower layers are the host's own file systems (or those under `--root`), the upper one a tmpfs that vanishes with
the mount namespace, or the directory of `--keep`. Overlays are the host kernel's (overlayfs, unprivileged since 5.11).
"""

import errno
import os
from collections.abc import Iterable
from typing import Final

from virtus.errors import HostLacks, UsageError
from virtus.host import mounts, namespaces

REAL: Final = frozenset(
    (
        "ext2", "ext3", "ext4", "xfs", "btrfs", "overlay", "zfs", "f2fs", "vfat", "exfat", "ntfs3", "nfs", "nfs4",
        "cifs", "9p", "virtiofs", "fuseblk", "tmpfs", "ramfs", "squashfs", "erofs", "bcachefs", "jfs", "reiserfs",
    )
)  # fmt: skip
"""File systems that hold files of people's own, shown to the guest where the host has them mounted."""
OWN: Final = ("/dev", "/proc", "/sys", "/run")
"""What a guest gets anew, or not at all."""
EVERYBODYS: Final = ("/var/tmp",)
"""Below the top level; /tmp has a layer of its own anyway."""
SCRATCH_POINTS: Final = ("/mnt", "/media", "/srv", "/opt", "/var", "/tmp")
UPPER_OPTIONS: Final = "mode=755,size=20%"


def _escaped(path: str) -> str:
    """A path in overlayfs's options (Documentation/filesystems/overlayfs.rst)."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _flat(path: str) -> str:
    """A path as one name, different for different paths."""
    return path.replace("%", "%25").replace("/", "%2F")


def _overlaps(one: str, other: str) -> bool:
    """Whether one path is at or below the other."""
    return os.path.commonpath((one, other)) in (one, other)


def scratch_point(used: list[str], mounted: Iterable[str] = ()) -> str:
    """A directory of the host that may be covered by a mount of ours: none of the paths in use is at or below it.

    One with nothing `mounted` at or below it is preferred: what is there would be hidden from the guest.
    """
    free = [
        point
        for point in SCRATCH_POINTS
        if os.path.isdir(point) and not any(path != "/" and _overlaps(point, path) for path in used)
    ]
    for point in free:
        if not any(f"{path}/".startswith(f"{point}/") for path in mounted):
            return point
    if free:
        return free[0]
    raise HostLacks("layering the guest's root", "no directory is free as a mount point", f"create {SCRATCH_POINTS[0]}")


class Layers:
    """Builds the root at `self.root`; the mount namespace must be the guest's own already.

    Where the host's further mounts are locked onto its root (for ordinary users, user_namespaces(7)), the host refuses
    one layer for all; then the root is put together from its directories, each under a layer of its own, and a file
    that is renamed from one to another crosses file systems.
    """

    def __init__(self, root: str, changes: str | None) -> None:
        self.lower = root
        self._trusted = namespaces.is_host_root()
        there = mounts.mounts()
        base = scratch_point([self.lower, *([changes] if changes else [])], [entry.point for entry in there])
        mounts.mount("virtus", base, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, UPPER_OPTIONS)
        self._changes = changes if changes else base + "/changes"
        self.root = base + "/root"
        os.mkdir(self.root)
        prefix = self.lower.rstrip("/")
        self._mounted = {
            entry.point: entry.kind
            for entry in there
            if entry.point.startswith(prefix + "/")
            and entry.point != "/"
            and not f"{entry.point}/".startswith(f"{base}/")
        }
        try:
            self._overlay(self.lower, self.root, "root")
        except OSError as error:
            if error.errno != errno.EINVAL or not self._mounted:
                raise
            self._assemble(self.lower, self.root, "root")
            self._shared(prefix)
            return
        for point in self._mounted:
            self._submount(point, self.root + point[len(prefix) :])

    def _shared(self, prefix: str) -> None:
        """Layers of their own for directories that everybody may write: the host cannot copy up others' directories."""
        for directory in EVERYBODYS:
            if os.path.isdir(prefix + directory) and prefix + directory not in self._mounted:
                self._overlay(prefix + directory, self.root + directory, f"shared{_flat(directory)}")

    def _overlay(self, lower: str, target: str, name: str) -> None:
        upper, work = f"{self._changes}/{name}", f"{self._changes}/.{name}.work"
        try:
            os.makedirs(upper, exist_ok=True)
            os.makedirs(work, exist_ok=True)
        except OSError as error:
            what = "layering the guest's root"
            raise UsageError(what, f"{error.filename or upper}: {error.strerror}", "give --keep a directory") from error
        _like(lower, upper)
        # xino: directories are listed under the inode numbers that stat shows, whatever file systems the layers are on
        options = f"lowerdir={_escaped(lower)},upperdir={_escaped(upper)},workdir={_escaped(work)},xino=on"
        options = options if self._trusted else options + ",userxattr"
        mounts.mount("virtus", target, "overlay", mounts.MS_NODEV, options)

    def _submount(self, point: str, target: str) -> None:
        """Show one more of the host's file systems, where the guest is to see it."""
        kind = self._mounted[point]
        below = point[len(self.lower.rstrip("/")) :]
        if kind not in REAL or any(below == own or below.startswith(own + "/") for own in OWN):
            return
        if os.path.realpath(target) != target:
            return  # the guest whose changes were kept has put a link in its way
        try:
            if os.path.isdir(point):
                self._overlay(point, target, f"mount{_flat(below)}")
            elif os.path.isfile(point):
                mounts.attach(mounts.copy_tree(point), target)
                mounts.make_read_only(target)
        except OSError:
            return  # hidden below another mount, or not to be layered: the guest sees an empty directory

    def _assemble(self, lower: str, target: str, name: str) -> None:
        """One directory that has mounts below it: made anew, with what is in it shown one by one."""
        prefix = lower.rstrip("/")
        upper = f"{self._changes}/{name}"
        os.makedirs(upper, exist_ok=True)
        mounts.attach(mounts.copy_tree(upper), target)
        _like(lower, target)
        for entry in os.scandir(lower):
            point, shown, inner = f"{prefix}/{entry.name}", f"{target}/{entry.name}", f"{name}{_flat('/' + entry.name)}"
            below = point[len(self.lower.rstrip("/")) :]
            try:
                if entry.is_symlink():
                    if not os.path.lexists(shown):
                        os.symlink(os.readlink(point), shown)
                elif os.path.islink(shown):
                    continue  # what a guest put there whose changes were kept; followed now, it would lead outside
                elif entry.is_dir():
                    os.makedirs(shown, exist_ok=True)
                    if below in OWN:
                        continue
                    if point in self._mounted:
                        self._submount(point, shown)
                    elif any(other.startswith(point + "/") for other in self._mounted):
                        self._assemble(point, shown, inner)
                    else:
                        self._overlay(point, shown, inner)
                elif entry.is_file():
                    os.close(os.open(shown, os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
                    mounts.attach(mounts.copy_tree(point), shown)
                    mounts.make_read_only(shown)
            except OSError:
                continue  # not the caller's to read: not in the guest's root either


def _like(lower: str, upper: str) -> None:
    """Give a new directory the mode and owner of the one it stands for."""
    status = os.stat(lower)
    try:
        os.chmod(upper, status.st_mode & 0o7777)
        os.chown(upper, status.st_uid, status.st_gid)
    except OSError:
        return  # an owner that is not mapped here: the directory is the caller's

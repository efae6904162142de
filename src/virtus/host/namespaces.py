"""Namespaces of the host: unshare(2), user mappings, the host name and loopback of a new one."""

import ctypes
import fcntl
import os
import select
import signal
import struct
from typing import Final

from virtus.host import channel

CLONE_NEWNS: Final = 0x00020000  # include/uapi/linux/sched.h
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
SIOCGIFFLAGS: Final = 0x8913  # include/uapi/linux/sockios.h
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1
ALL_IDS: Final = 2**32 - 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, doing: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move this process into new namespaces (a new PID namespace is for its children)."""
    _check(_libc.unshare(flags), "unshare")


def die_with_parent(parent: int) -> None:
    """Have the host kill this process when its parent ends; ends at once when it has ended already."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(137)


def die_with(pidfd: int) -> None:
    """The same for a parent in another PID namespace, which has no number here, by its pidfd.

    A change of this process's user or group ends the bond: make it again then (prctl(2), PR_SET_PDEATHSIG).
    """
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    if waiting.poll(0):
        os._exit(137)


def map_users(pid: int, user: int, group: int) -> None:
    """Map users and groups of a process's new user namespace: all of them for root, else the caller alone.

    `user` and `group` are what the caller is to be inside, when it is the only one.
    """
    outside, outside_group = os.geteuid(), os.getegid()
    if is_host_root():
        users = groups = f"0 0 {ALL_IDS}"
    else:
        _write(pid, "setgroups", "deny")
        users, groups = f"{user} {outside} 1", f"{group} {outside_group} 1"
    _write(pid, "uid_map", users)
    _write(pid, "gid_map", groups)


def is_host_root() -> bool:
    """Whether this process is root in a namespace that has every user, as the host's first one has."""
    if os.geteuid():
        return False
    with open("/proc/self/uid_map") as stream:
        return sum(int(line.split()[2]) for line in stream) == ALL_IDS


def are_confined() -> bool:
    """Whether AppArmor takes away what ordinary users have in a user namespace, as Ubuntu 24.04 does."""
    try:
        with open("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") as stream:
            return stream.read().strip() == "1"
    except OSError:
        return False


def _write(pid: int, name: str, text: str) -> None:
    with open(f"/proc/{pid}/{name}", "w") as stream:
        stream.write(text)


def loopback_up() -> None:
    """Bring up `lo` in a new network namespace."""
    any_socket = channel.any_socket()
    try:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(any_socket.fileno(), SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket.fileno(), SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))
    finally:
        any_socket.close()

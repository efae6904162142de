"""Capabilities (capabilities(7)): which of them a guest's root keeps inside its own user namespace."""

import ctypes
import struct
from typing import Final

PR_SET_DUMPABLE: Final = 4  # include/uapi/linux/prctl.h
PR_CAPBSET_DROP: Final = 24  # include/uapi/linux/prctl.h
CAPABILITY_VERSION_3: Final = 0x20080522  # include/uapi/linux/capability.h
LAST_KNOWN: Final = 63
KEPT: Final = frozenset(
    {
        0,  # CAP_CHOWN
        1,  # CAP_DAC_OVERRIDE
        2,  # CAP_DAC_READ_SEARCH
        3,  # CAP_FOWNER
        4,  # CAP_FSETID
        5,  # CAP_KILL
        6,  # CAP_SETGID
        7,  # CAP_SETUID
        8,  # CAP_SETPCAP
        10,  # CAP_NET_BIND_SERVICE
        13,  # CAP_NET_RAW
        18,  # CAP_SYS_CHROOT
        23,  # CAP_SYS_NICE
        27,  # CAP_MKNOD: the namespace refuses device nodes by itself
        31,  # CAP_SETFCAP
    }
)
"""What root needs to be root over its own layers; nothing that mounts, traces or configures."""

OVER_FILES: Final = frozenset({0, 1, 2, 3, 4, 9, 27, 32})
"""What makes its holder exempt from the permissions of files (CAP_FS_MASK, include/linux/capability.h)."""

_libc = ctypes.CDLL(None, use_errno=True)


def drop(*, keep_root: bool) -> None:
    """Give up capabilities for good: all of them, or all but `KEPT` for a guest's root. Raises OSError."""
    kept = KEPT if keep_root else frozenset()
    for capability in range(LAST_KNOWN + 1):
        if capability not in kept:
            _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # EINVAL past the host's last one
    mask = sum(1 << capability for capability in kept)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    data = struct.pack("<6I", low, low, 0, high, high, 0)
    if _libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def give_up(capabilities: frozenset[int]) -> None:
    """Give up some capabilities for good and keep the others. Raises OSError."""
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)
    if _libc.capget(header, held):
        raise OSError(ctypes.get_errno(), "capget")
    sets = list(struct.unpack("<6I", held.raw))
    for capability in capabilities:
        for at in range(3):
            sets[at + 3 * (capability >> 5)] &= ~(1 << (capability & 31))
    if _libc.capset(header, struct.pack("<6I", *sets)):
        raise OSError(ctypes.get_errno(), "capset")


def forbid_attaching() -> None:
    """Let nobody without CAP_SYS_PTRACE look into this process's memory (/proc/PID/mem, ptrace)."""
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def allow_attaching() -> None:
    """Take `forbid_attaching` back, for this process alone."""
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)

"""Numbers that several parts of the interface share (xen.git: xen/include/public/xen.h and errno.h)."""

import struct
from typing import Final

EPERM, ENOENT, ESRCH, EIO, EFAULT, EBUSY, EEXIST, EINVAL, ENOSPC, ENOSYS = 1, 2, 3, 5, 14, 16, 17, 22, 28, 38
EACCES, E2BIG, ENOMEM, ENOTCONN, EOPNOTSUPP = 13, 7, 12, 107, 95

DOMID_SELF: Final = 0x7FF0
DOMID_XEN: Final = 0x7FF2
DOMID_NONE: Final = 0x7FF4  # DOMID_INVALID: free frames
DOMID_CONTROL: Final = 0  # the control domain: this process
MASK64: Final = (1 << 64) - 1

# struct shared_info: offsets
SHARED_VCPU_INFO_SIZE: Final = 64
SHARED_PENDING: Final = 2048
SHARED_MASK: Final = 2560
SHARED_WALL_CLOCK: Final = 3072
LEGACY_VCPUS: Final = 32
# struct vcpu_info
UPCALL_PENDING, UPCALL_MASK, PENDING_SELECTOR, FAULT_ADDRESS, TIME_INFO = 0, 1, 8, 16, 32

VIRQ_TIMER, VIRQ_DEBUG, VIRQ_CONSOLE = 0, 1, 2

QWORD: Final = struct.Struct("<Q")
DWORD: Final = struct.Struct("<I")


class Refused(Exception):
    """A hypercall fails with this error number of Xen's; nothing was changed that the guest may not see changed."""

    def __init__(self, error: int, why: str = "") -> None:
        self.error = error
        super().__init__(why or f"error {error}")


class DomainCrash(Exception):
    """The domain did what ends it, as under Xen; the text is its epitaph."""

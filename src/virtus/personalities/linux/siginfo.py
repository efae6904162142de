"""`siginfo_t` on x86-64: 128 bytes, built from what the kernel knows (include/uapi/asm-generic/siginfo.h)."""

import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

SIZE: Final = 128

SI_USER: Final = 0
SI_KERNEL: Final = 0x80
SI_QUEUE: Final = -1
SI_TIMER: Final = -2
SI_MESGQ: Final = -3
SI_TKILL: Final = -6

CLD_EXITED: Final = 1
CLD_KILLED: Final = 2
CLD_DUMPED: Final = 3
CLD_STOPPED: Final = 5
CLD_CONTINUED: Final = 6

SEGV_MAPERR: Final = 1
SEGV_ACCERR: Final = 2

_HEAD = struct.Struct("<iii4x")  # si_signo, si_errno, si_code; the union starts at byte 16
_SENDER = struct.Struct("<iii4xiI")  # ... si_pid, si_uid
_QUEUED = struct.Struct("<iii4xiIQ")  # ... si_pid, si_uid, si_value
_CHILD = struct.Struct("<iii4xiIi4xqq")  # ... si_pid, si_uid, si_status, si_utime, si_stime (clock ticks)
_TIMER = struct.Struct("<iii4xiiQ")  # ... si_timerid, si_overrun, si_value
_POLL = struct.Struct("<iii4xqi")  # ... si_band, si_fd
_FAULT = struct.Struct("<iii4xQ")  # ... si_addr


def _padded(start: bytes) -> bytes:
    return start.ljust(SIZE, b"\0")


def kernel(number: int) -> bytes:
    """A signal the kernel itself sends."""
    return _padded(_HEAD.pack(number, 0, SI_KERNEL))


def sent(number: int, sender: "Task", code: int = SI_USER) -> bytes:
    """kill(2), or tgkill(2) with SI_TKILL."""
    return _padded(_SENDER.pack(number, 0, code, sender.process.pid, sender.credentials.uid))


def queued(number: int, code: int, pid: int, uid: int, value: int) -> bytes:
    """sigqueue(3), message-queue notification."""
    return _padded(_QUEUED.pack(number, 0, code, pid, uid, value))


def child(number: int, code: int, pid: int, uid: int, status: int, user_ticks: int, system_ticks: int) -> bytes:
    """A child has changed its state; `status` is an exit code or a signal number, by `code` (CLD_*)."""
    return _padded(_CHILD.pack(number, 0, code, pid, uid, status, user_ticks, system_ticks))


def timer(number: int, ident: int, overrun: int, value: int) -> bytes:
    """A POSIX timer has expired."""
    return _padded(_TIMER.pack(number, 0, SI_TIMER, ident, overrun, value))


def poll(number: int, code: int, band: int, fd: int) -> bytes:
    """A descriptor with O_ASYNC is ready."""
    return _padded(_POLL.pack(number, 0, code, band, fd))


def fault(number: int, code: int, address: int) -> bytes:
    """A fault at `address`."""
    return _padded(_FAULT.pack(number, 0, code, address))


def code_of(info: bytes) -> int:
    """si_code."""
    code: int = _HEAD.unpack_from(info)[2]
    return code


def address_of(info: bytes) -> int:
    """si_addr of a fault."""
    address: int = _FAULT.unpack_from(info)[3]
    return address

"""x86-64: the host's own interface."""

import struct
from typing import Any, Final

from virtus.guests import elf
from virtus.isa.x86 import registers as r
from virtus.isa.x86.layout import STUB_START
from virtus.isa.x86.linux_calls import NAMES, NUMBERS
from virtus.personalities.linux.abi import frames_x86_64
from virtus.personalities.linux.abi.base import Abi

X32_BIT: Final = 0x40000000  # arch/x86/include/uapi/asm/unistd.h
SYSCALL_BYTES: Final = 2  # `syscall`
USER_CS, USER_SS, FLAGS = 0x33, 0x2B, 0x202  # arch/x86/include/asm/segment.h; interrupts on
AT_HWCAP, AT_HWCAP2, AT_MINSIGSTKSZ = 16, 26, 51
_PAIR = struct.Struct("<QQ")


def _host_auxiliary() -> dict[int, int]:
    with open("/proc/self/auxv", "rb") as stream:
        return dict(_PAIR.iter_unpack(stream.read()))


HOST_AUXILIARY: Final = _host_auxiliary()
"""What the host told this process of the processor (AT_HWCAP ...); read before any guest runs."""


class _X8664(Abi):
    machine = "x86_64"
    elf_machine = elf.EM_X86_64
    platform = b"x86_64"
    names, numbers = NAMES, NUMBERS
    arguments = r.SYSCALL_ARGUMENTS
    entry = (
        r.RCX,
        r.RIP,
    )  # SYSCALL keeps the return address in RCX (AMD64 manual volume 3), int 0x80 and sysenter do not
    result, original, counter, stack = r.RAX, r.ORIG_RAX, r.RIP, r.RSP
    user_end = STUB_START
    frames = frames_x86_64
    clone_backwards = False
    action = struct.Struct("<QQQQ")
    event = struct.Struct("<IQ")  # packed (EPOLL_PACKED, include/uapi/linux/eventpoll.h)
    semaphores = struct.Struct("<q8xq8xQ16x")  # arch/x86/include/uapi/asm/sembuf.h
    places = False

    def unknown(self, number: int) -> str:
        """See Abi."""
        plain = super().unknown(number & ~X32_BIT)
        return plain.replace("unknown", "x32") if number & X32_BIT else plain

    def again(self, regs: Any) -> None:
        """See Abi."""
        regs[r.RAX], regs[r.RIP] = regs[r.ORIG_RAX], regs[r.RIP] - SYSCALL_BYTES
        regs[r.ORIG_RAX] = r.NO_SYSCALL

    def start(self, regs: Any, entry: int, pointer: int) -> None:
        """See Abi."""
        for index in range(r.COUNT):
            regs[index] = 0
        regs[r.ORIG_RAX] = r.NO_SYSCALL
        regs[r.RIP], regs[r.RSP] = entry, pointer
        regs[r.CS], regs[r.SS], regs[r.EFLAGS] = USER_CS, USER_SS, FLAGS

    def set_thread_pointer(self, regs: Any, value: int) -> None:
        """See Abi."""
        regs[r.FS_BASE] = value

    def auxiliary(self) -> list[tuple[int, int]]:
        """See Abi."""
        keys = (AT_HWCAP, AT_HWCAP2, AT_MINSIGSTKSZ)
        return [(key, HOST_AUXILIARY[key]) for key in keys if key in HOST_AUXILIARY]


X86_64: Final = _X8664()

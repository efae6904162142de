"""riscv64: the generic interface of newer architectures (include/uapi/asm-generic), for an RV64GC processor."""

import mmap
import os
import struct
from typing import TYPE_CHECKING, Any, Final

from virtus.guests import elf
from virtus.isa.riscv64 import registers as r
from virtus.isa.riscv64.linux_calls import NAMES, NUMBERS
from virtus.isa.x86.linux_calls import NUMBERS as HOST_NUMBERS
from virtus.personalities.linux.abi import frames_riscv64
from virtus.personalities.linux.abi.base import Abi

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

SYSCALL_BYTES: Final = 4  # `ecall`
AT_HWCAP, AT_MINSIGSTKSZ = 16, 51
EXTENSIONS: Final = "IMAFDC"
ISA: Final = "rv64imafdc_zicsr_zifencei_zba_zbb_zbs"
PAGE: Final = 4096
_HOST_STATUS: Final = struct.Struct("<QQQIIIxxxxQqqq48s")
_STATUS: Final = struct.Struct("<QQIIIIQ8xqi4xq48s8x")
"""struct stat, include/uapi/asm-generic/stat.h; the times are as on x86-64."""


class _Riscv64(Abi):
    machine = "riscv64"
    elf_machine = elf.EM_RISCV
    platform = None
    names, numbers = NAMES, NUMBERS
    arguments = r.SYSCALL_ARGUMENTS
    entry = r.PC, r.PC  # there is no other than `ecall`
    result, original, counter, stack = r.A0, r.SYSCALL_NUMBER, r.PC, r.SP
    user_end = r.GUEST_END
    frames = frames_riscv64
    clone_backwards = True
    action = struct.Struct("<QQQ")  # no restorer: the kernel has a page to return through
    event = struct.Struct("<I4xQ")
    semaphores = struct.Struct("<qqQ16x")  # include/uapi/asm-generic/sembuf.h
    places = True

    def again(self, regs: Any) -> None:
        """See Abi."""
        regs[r.A0], regs[r.PC] = regs[r.SYSCALL_FIRST], regs[r.PC] - SYSCALL_BYTES
        regs[r.SYSCALL_NUMBER] = r.NO_SYSCALL

    def start(self, regs: Any, entry: int, pointer: int) -> None:
        """See Abi."""
        for index in range(r.PC):
            regs[index] = 0
        regs[r.SYSCALL_NUMBER] = r.NO_SYSCALL
        regs[r.PC], regs[r.SP] = entry, pointer

    def set_thread_pointer(self, regs: Any, value: int) -> None:
        """See Abi."""
        regs[r.TP] = value

    def status(self, host: Any) -> bytes:
        """See Abi."""
        device, inode, links, mode, user, group, special, size, block, blocks, times = _HOST_STATUS.unpack_from(host)
        return _STATUS.pack(device, inode, mode, links, user, group, special, size, block, blocks, times)

    def auxiliary(self) -> list[tuple[int, int]]:
        """See Abi. HWCAP has a bit for each letter (arch/riscv/include/uapi/asm/hwcap.h)."""
        features = sum(1 << ord(letter) - ord("A") for letter in EXTENSIONS)
        return [(AT_HWCAP, features), (AT_MINSIGSTKSZ, frames_riscv64.FRAME_SIZE)]

    def trampoline(self, task: "Task") -> None:
        """The page that handlers return through (the vDSO's __vdso_rt_sigreturn on real systems)."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10  # MAP_FIXED
        start, inject = frames_riscv64.TRAMPOLINE, task.context.inject
        if inject(HOST_NUMBERS["mmap"], start, PAGE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != start:
            raise OSError(12, "no place for the signal trampoline")
        task.write(start, frames_riscv64.TRAMPOLINE_CODE)
        inject(HOST_NUMBERS["mprotect"], start, PAGE, mmap.PROT_READ | mmap.PROT_EXEC)

    def cpu_information(self) -> bytes:
        """See Abi."""
        return b"".join(
            f"processor\t: {index}\nhart\t\t: {index}\nisa\t\t: {ISA}\nmmu\t\t: sv39\n\n".encode()
            for index in range(len(os.sched_getaffinity(0)))
        )


RISCV64: Final = _Riscv64()

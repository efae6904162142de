"""System calls that only riscv64 has (Documentation/arch/riscv/hwprobe.rst; arch/riscv/kernel/sys_riscv.c)."""

import errno
import struct
from typing import Final

from virtus.personalities.linux.table import Uint, Word, call
from virtus.personalities.linux.task import Task

_PAIR: Final = struct.Struct("<qQ")
MOST_PAIRS: Final = 1024
KEY_VENDOR, KEY_ARCHITECTURE, KEY_IMPLEMENTATION, KEY_BASE_BEHAVIOR, KEY_EXTENSIONS, KEY_MISALIGNED = range(6)
KEY_HIGHEST_ADDRESS: Final = 7
BASE_IMA: Final = 1
EXTENSIONS: Final = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5  # FD, C, Zba, Zbb, Zbs
MISALIGNED_FAST: Final = 3
ANSWERS: Final = {
    KEY_VENDOR: 0, KEY_ARCHITECTURE: 0, KEY_IMPLEMENTATION: 0,  # of no vendor (privileged architecture, 3.1.2 to 3.1.4)
    KEY_BASE_BEHAVIOR: BASE_IMA, KEY_EXTENSIONS: EXTENSIONS, KEY_MISALIGNED: MISALIGNED_FAST,
}  # fmt: skip
UNKNOWN: Final = -1
FLUSH_LOCAL: Final = 1  # SYS_RISCV_FLUSH_ICACHE_LOCAL


@call("riscv_hwprobe", note="processors are all alike: which ones are asked about makes no difference")
def riscv_hwprobe(task: Task, pairs: Word, count: Word, size: Word, processors: Word, flags: Uint) -> int:
    """riscv_hwprobe(2): what the processor can do, key by key; unknown keys become -1."""
    if flags or count > MOST_PAIRS:
        raise OSError(errno.EINVAL, "")
    answers = ANSWERS | {KEY_HIGHEST_ADDRESS: task.kernel.abi.user_end - 1}
    for at in range(pairs, pairs + count * _PAIR.size, _PAIR.size):
        key, _ = _PAIR.unpack(task.read(at, _PAIR.size))
        task.write(at, _PAIR.pack(key if key in answers else UNKNOWN, answers.get(key, 0)))
    return 0


@call("riscv_flush_icache")
def riscv_flush_icache(task: Task, start: Word, end: Word, flags: Word) -> int:
    """riscv_flush_icache(2): instructions fetched from now on are what memory holds. The range is a hint to Linux."""
    if flags & ~FLUSH_LOCAL:
        raise OSError(errno.EINVAL, "")
    task.context.flush_instructions(0, task.kernel.abi.user_end)
    return 0

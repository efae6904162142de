"""Where mappings go on processors whose address space is smaller than the host's: the kernel chooses, from above.

The same program gets the same addresses each time, so that what was translated from its code can be kept. On x86-64
the host chooses.
"""

import errno
import mmap
from typing import TYPE_CHECKING, Final

from virtus.isa.x86.linux_calls import NUMBERS

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

PAGE: Final = 4096
MAP_FIXED: Final = 0x10  # include/uapi/asm-generic/mman-common.h
MAP_FIXED_NOREPLACE: Final = 0x100000
MAP_NORESERVE: Final = 0x4000
PROT_NONE: Final = 0
STACK_GAP: Final = 512 << 20
"""Below the stack's top: mappings begin beneath it."""
LOWEST: Final = 1 << 30
"""What lies below is left to programs with fixed addresses, and their heaps."""
MOST_TRIES: Final = 4096


def map_memory(task: "Task", address: int, length: int, protection: int, flags: int, host: int, offset: int) -> int:
    """mmap(2) in the guest's address space: the address, or -errno."""
    context = task.context
    if not task.kernel.abi.places or flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
        return context.inject(NUMBERS["mmap"], address, length, protection, flags, host, offset)
    if length <= 0:
        return -errno.EINVAL
    size = -(-length // PAGE) * PAGE
    if address:
        wanted = address & -PAGE
        if wanted + size <= task.kernel.abi.user_end:
            found = context.inject(
                NUMBERS["mmap"], wanted, length, protection, flags | MAP_FIXED_NOREPLACE, host, offset
            )
            if found != -errno.EEXIST and found != -errno.EPERM:
                return found
    memory = task.memory
    cursor = memory.map_cursor or task.kernel.abi.user_end - STACK_GAP
    step = size
    for _ in range(MOST_TRIES):
        cursor -= step
        if cursor < LOWEST:
            if size > task.kernel.abi.user_end - STACK_GAP - LOWEST:
                return -errno.ENOMEM
            cursor = task.kernel.abi.user_end - STACK_GAP - size
        found = context.inject(NUMBERS["mmap"], cursor, length, protection, flags | MAP_FIXED_NOREPLACE, host, offset)
        if found != -errno.EEXIST:
            if found == cursor:
                memory.map_cursor = cursor
            return found
        step = max(step, PAGE)
    return -errno.ENOMEM


def move_memory(task: "Task", old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """mremap(2), the new place chosen as for `map_memory` where it may move and is not given."""
    context = task.context
    mremap = NUMBERS["mremap"]
    may_move, fixed = 1, 2  # MREMAP_MAYMOVE, MREMAP_FIXED: include/uapi/linux/mman.h
    if not task.kernel.abi.places or flags & fixed or not flags & may_move:
        return context.inject(mremap, old, old_size, new_size, flags, new)
    if flags == may_move:
        found = context.inject(mremap, old, old_size, new_size, 0, 0)
        if found != -errno.ENOMEM:
            return found
    reserve = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    place = map_memory(task, 0, new_size, PROT_NONE, reserve, -1, 0)
    if -4095 <= place < 0:
        return place
    found = context.inject(mremap, old, old_size, new_size, flags | fixed, place)
    if found != place:
        context.inject(NUMBERS["munmap"], place, new_size)
    return found

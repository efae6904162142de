"""Where mappings go on processors whose address space is smaller than the host's: the kernel chooses, from above.

The same program gets the same addresses each time, so that what was translated from its code can be kept. On x86-64
the host chooses.
"""

import errno
import mmap
from typing import TYPE_CHECKING, Final

from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux.proc.process_contents import guest_mappings

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

PAGE: Final = 4096
MAP_FIXED: Final = 0x10  # include/uapi/asm-generic/mman-common.h
MAP_FIXED_NOREPLACE: Final = 0x100000
MAP_NORESERVE: Final = 0x4000
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2  # include/uapi/linux/mman.h
PROT_NONE: Final = 0
RLIMIT_AS: Final = 9
INFINITY: Final = 2**64 - 1
STACK_GAP: Final = 512 << 20
"""Below the stack's top: mappings begin beneath it."""
LOWEST: Final = 1 << 30
"""What lies below is left to programs with fixed addresses, and their heaps."""
LOWEST_HINT: Final = 1 << 16
"""Hints below mean nothing (round_hint_to_min, mm/mmap.c; vm.mmap_min_addr)."""
_MMAP, _MUNMAP, _MREMAP = (NUMBERS[name] for name in ("mmap", "munmap", "mremap"))


def map_memory(task: "Task", address: int, length: int, protection: int, flags: int, host: int, offset: int) -> int:
    """mmap(2) in the guest's address space: the address, or -errno."""
    if task.kernel.abi.places:
        if not flags & MAP_FIXED and _beyond_limit(task, length):
            return -errno.ENOMEM
        if not flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            return _map_anywhere(task, address, length, protection, flags, host, offset)
    return task.context.inject(_MMAP, address, length, protection, flags, host, offset)


def _map_anywhere(task: "Task", hint: int, length: int, protection: int, flags: int, host: int, offset: int) -> int:
    """At the hint if there is room, else below what was mapped last, else in the highest gap that there is."""
    if not 0 < length <= task.kernel.abi.user_end:
        return -errno.ENOMEM if length else -errno.EINVAL
    size = -(-length // PAGE) * PAGE

    def at(place: int) -> int:
        flags_there = flags | MAP_FIXED_NOREPLACE
        return task.context.inject(_MMAP, place, length, protection, flags_there, host, offset)

    wanted = hint & -PAGE
    if wanted >= LOWEST_HINT and wanted + size <= task.kernel.abi.user_end:
        found = at(wanted)
        if found not in (-errno.EEXIST, -errno.EPERM):
            return found
    below = task.memory.map_cursor or task.kernel.abi.user_end - STACK_GAP
    place = below - size
    found = at(place) if place >= LOWEST else -errno.EEXIST
    if found == -errno.EEXIST:
        place = _gap(task, size, below)
        if place < 0:
            return -errno.ENOMEM
        found = at(place)
    if found == place:
        task.memory.map_cursor = place
    return found


def _gap(task: "Task", size: int, below: int) -> int:
    """Where `size` bytes are free: as high as possible below `below`, or else below the stack; -1 for nowhere."""
    top = task.kernel.abi.user_end - STACK_GAP
    gaps = []
    free = LOWEST
    for start, end in mapped(task):
        gaps.append((free, min(start, top)))
        free = max(free, end)
    gaps.append((free, top))
    for limit in (below, top):
        places = [min(end, limit) - size for start, end in gaps if min(end, limit) - size >= start]
        if places:
            return max(places)
    return -1


def mapped(task: "Task") -> list[tuple[int, int]]:
    """Start and end of each of the guest's mappings, in order."""
    return sorted({(start, end) for start, end, _ in guest_mappings(task.kernel, task, "maps")})


def _beyond_limit(task: "Task", more: int) -> bool:
    """Whether so much more is too much for RLIMIT_AS. The host cannot tell: the stub holds more than the guest's."""
    limit = task.limit(RLIMIT_AS)
    return limit != INFINITY and sum(end - start for start, end in mapped(task)) + more > limit


def move_memory(task: "Task", old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
    """mremap(2), the new place chosen as for `map_memory` where it may move and is not given."""
    context = task.context
    if not task.kernel.abi.places:
        return context.inject(_MREMAP, old, old_size, new_size, flags, new)
    if new_size > old_size and _beyond_limit(task, new_size - old_size):
        return -errno.ENOMEM
    if flags & MREMAP_FIXED or not flags & MREMAP_MAYMOVE:
        return context.inject(_MREMAP, old, old_size, new_size, flags, new)
    if flags == MREMAP_MAYMOVE and old + new_size <= task.kernel.abi.user_end:
        found = context.inject(_MREMAP, old, old_size, new_size, 0, 0)
        if found != -errno.ENOMEM:
            return found
    reserve = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    place = _map_anywhere(task, 0, new_size, PROT_NONE, reserve, -1, 0)
    if -4095 <= place < 0:
        return place
    found = context.inject(_MREMAP, old, old_size, new_size, flags | MREMAP_FIXED, place)
    if found != place:
        context.inject(_MUNMAP, place, new_size)
    return found

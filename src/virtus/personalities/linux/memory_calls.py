"""Address-space calls. The host keeps the mappings; the kernel checks, and injects the call into the guest's stub."""

import errno
import mmap
from typing import Final

from virtus.isa.x86.layout import PAGE
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import placement
from virtus.personalities.linux.table import Int, Long, Uint, Word, call
from virtus.personalities.linux.task import Task

MAP_FIXED: Final = 0x10  # include/uapi/asm-generic/mman-common.h
MAP_FIXED_NOREPLACE: Final = 0x100000
MAP_ANONYMOUS: Final = 0x20
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2  # include/uapi/linux/mman.h
MCL_ALL, MCL_ONFAULT = 7, 4  # include/uapi/asm-generic/mman.h
RLIMIT_DATA: Final = 2
MADV_ALLOWED: Final = frozenset({0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25})


def check_range(task: Task, address: int, length: int) -> None:
    """Guests own what lies below `user_end`; raises ENOMEM for a range beyond, as Linux past the end of user memory."""
    if address + length > task.kernel.abi.user_end:
        raise OSError(errno.ENOMEM, "")


def injected(task: Task, name: str, *arguments: int) -> int:
    """Have the host execute a call in the guest's address space; its result or error is the guest's."""
    return task.context.inject(NUMBERS[name], *arguments)


@call("mmap")
def mmap_(task: Task, address: Word, length: Word, protection: Int, flags: Int, fd: Int, offset: Word) -> int:
    """mmap(2): anonymous memory, and files through the kernel's own descriptor, which the stub shares."""
    host = -1
    if length > task.kernel.abi.user_end:
        raise OSError(errno.ENOMEM, "")
    if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
        check_range(task, address, length)
    if not flags & MAP_ANONYMOUS:
        file = task.descriptors.get(fd)
        if not file.readable:
            raise OSError(errno.EACCES, "")
        host = file.map(task)
    return placement.map_memory(task, address, length, protection, flags, host, offset)


@call("munmap")
def munmap(task: Task, address: Word, length: Word) -> int:
    """munmap(2)."""
    if address + length > task.kernel.abi.user_end:
        raise OSError(errno.EINVAL, "")
    return injected(task, "munmap", address, length)


@call("mprotect")
def mprotect(task: Task, address: Word, length: Word, protection: Int) -> int:
    """mprotect(2)."""
    check_range(task, address, length)
    return injected(task, "mprotect", address, length, protection)


@call("mremap")
def mremap(task: Task, old: Word, old_size: Word, new_size: Word, flags: Int, new: Word) -> int:
    """mremap(2)."""
    check_range(task, old, old_size)
    if old + new_size > task.kernel.abi.user_end and not flags & MREMAP_MAYMOVE:
        raise OSError(errno.ENOMEM, "")
    if flags & MREMAP_FIXED:
        check_range(task, new, new_size)
    return placement.move_memory(task, old, old_size, new_size, flags, new)


@call("msync")
def msync(task: Task, address: Word, length: Word, flags: Int) -> int:
    """msync(2)."""
    check_range(task, address, length)
    return injected(task, "msync", address, length, flags)


@call("mincore")
def mincore(task: Task, address: Word, length: Word, vector: Word) -> int:
    """mincore(2)."""
    check_range(task, address, length)
    check_range(task, vector, -(-length // PAGE))
    return injected(task, "mincore", address, length, vector)


@call("madvise", note="advice that concerns the whole host (hardware poisoning, memory merging) is ignored")
def madvise(task: Task, address: Word, length: Word, advice: Int) -> int:
    """madvise(2)."""
    check_range(task, address, length)
    if advice not in MADV_ALLOWED:
        raise OSError(errno.EINVAL, "")
    return injected(task, "madvise", address, length, advice)


@call("mlock")
def mlock(task: Task, address: Word, length: Word) -> int:
    """mlock(2)."""
    check_range(task, address, length)
    return injected(task, "mlock", address, length)


@call("mlock2")
def mlock2(task: Task, address: Word, length: Word, flags: Int) -> int:
    """mlock2(2)."""
    check_range(task, address, length)
    return injected(task, "mlock2", address, length, flags)


@call("munlock")
def munlock(task: Task, address: Word, length: Word) -> int:
    """munlock(2)."""
    check_range(task, address, length)
    return injected(task, "munlock", address, length)


@call("mlockall", note="memory of emulated programs stays pageable")
def mlockall(task: Task, flags: Int) -> int:
    """mlockall(2). Where the stub holds more than the guest's memory the host is not asked: it would lock that, too."""
    if task.kernel.abi.places:
        if not flags or flags & ~MCL_ALL or flags == MCL_ONFAULT:
            raise OSError(errno.EINVAL, "")
        return 0
    return injected(task, "mlockall", flags)


@call("munlockall")
def munlockall(task: Task) -> int:
    """munlockall(2)."""
    if task.kernel.abi.places:
        return 0
    return injected(task, "munlockall")


@call("brk")
def brk(task: Task, wanted: Word) -> int:
    """brk(2): the heap is an anonymous mapping that the kernel lets grow; the old break on failure."""
    memory = task.memory
    if wanted < memory.break_start or wanted > memory.break_start + (1 << 46):
        return memory.break_end
    old, new = -(-memory.break_end // PAGE) * PAGE, -(-wanted // PAGE) * PAGE
    soft = task.limit(RLIMIT_DATA)
    if wanted - memory.break_start > soft and soft != 2**64 - 1:
        return memory.break_end
    if new > old:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        if (
            new > task.kernel.abi.user_end
            or placement.map_memory(task, old, new - old, protection, flags, -1, 0) != old
        ):
            return memory.break_end
    elif new < old:
        injected(task, "munmap", new, old - new)
    memory.break_end = wanted
    return wanted


@call("remap_file_pages", note="ENOSYS: superseded by mmap since Linux 4.0")
def remap_file_pages(task: Task, address: Word, size: Word, protection: Int, offset: Word, flags: Int) -> int:
    """remap_file_pages(2)."""
    raise OSError(errno.ENOSYS, "")


@call("pkey_alloc", note="ENOSPC: no protection keys for guests, as on a processor without them")
def pkey_alloc(task: Task, flags: Uint, rights: Uint) -> int:
    """pkey_alloc(2)."""
    raise OSError(errno.ENOSPC, "")


@call("pkey_free", note="EINVAL: there are no protection keys")
def pkey_free(task: Task, key: Int) -> int:
    """pkey_free(2)."""
    raise OSError(errno.EINVAL, "")


@call("pkey_mprotect", note="only with the key -1, as on a processor without protection keys")
def pkey_mprotect(task: Task, address: Word, length: Word, protection: Int, key: Long) -> int:
    """pkey_mprotect(2)."""
    if key != -1:
        raise OSError(errno.EINVAL, "")
    return mprotect(task, address, length, protection)

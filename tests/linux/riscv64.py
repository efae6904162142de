"""The machine without a host's stubs for riscv64: contexts that remember what they were told, and what is mapped.

Their address space is a set of pages as mmap(2), munmap(2) and mremap(2) of the host would leave it.
"""

import errno
from typing import Any, Final

from tests.linux.fake import BASE, CODE, SIZE, FakeContext, FakeMachine
from virtus.isa.riscv64 import registers as r
from virtus.isa.x86.linux_calls import NUMBERS as HOST

PAGE: Final = 4096
WORDS: Final = 80
FLOATS_SIZE: Final = 264  # struct __riscv_d_ext_state
MAP_FIXED, MAP_FIXED_NOREPLACE = 0x10, 0x100000
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
ELSEWHERE: Final = 0x7F00_0000_0000
"""Where the host would map what nobody asked to have elsewhere."""


class RiscvContext(FakeContext):
    """See FakeContext."""

    def __init__(self, memory: bytearray | None = None) -> None:
        super().__init__(memory)
        self.regs = memoryview(bytearray(8 * WORDS)).cast("Q")
        self.regs[r.PC], self.regs[r.SP], self.regs[r.SYSCALL_NUMBER] = CODE, BASE + SIZE - 4096, r.NO_SYSCALL
        self.xstate = bytearray(FLOATS_SIZE)
        self.pages: set[int] = set()
        self.flushed: list[tuple[int, int]] = []
        self.precise = False

    def flush_instructions(self, start: int, size: int) -> None:
        self.flushed.append((start, size))

    def precise_faults(self) -> None:
        self.precise = True

    def inject(self, number: int, *arguments: int) -> int:
        self.injected.append((number, *arguments))
        if number == HOST["mmap"]:
            return self._map(arguments[0], arguments[1], arguments[3])
        if number == HOST["munmap"]:
            self.pages -= self._range(arguments[0], arguments[1])
        elif number == HOST["mremap"]:
            return self._move(*arguments)
        return 0

    @staticmethod
    def _range(address: int, length: int) -> set[int]:
        return set(range(address // PAGE, -(-(address + length) // PAGE)))

    def _map(self, address: int, length: int, flags: int) -> int:
        if not length or address % PAGE:
            return -errno.EINVAL
        if not flags & (MAP_FIXED | MAP_FIXED_NOREPLACE):
            return ELSEWHERE
        wanted = self._range(address, length)
        if flags & MAP_FIXED_NOREPLACE and wanted & self.pages:
            return -errno.EEXIST
        self.pages |= wanted
        return address

    def _move(self, old: int, old_size: int, new_size: int, flags: int, new: int) -> int:
        before = self._range(old, old_size)
        if not before <= self.pages:
            return -errno.EFAULT
        if flags & MREMAP_FIXED:
            self.pages = self.pages - before | self._range(new, new_size)
            return new
        after = self._range(old, new_size)
        if (after - before) & self.pages:
            return ELSEWHERE if flags & MREMAP_MAYMOVE else -errno.ENOMEM
        self.pages = self.pages - before | after
        return old

    def mapped(self) -> list[tuple[int, int]]:
        """Its mappings, page by page."""
        return [(page * PAGE, (page + 1) * PAGE) for page in sorted(self.pages)]


class RiscvMachine(FakeMachine):
    """See FakeMachine."""

    machine = "riscv64"
    context_class = RiscvContext

    @property
    def context(self) -> RiscvContext:
        """That of the first task."""
        context = self.task.context
        assert isinstance(context, RiscvContext)
        return context

    def entering(self, regs: Any) -> None:
        regs[r.SYSCALL_FIRST] = regs[r.A0]

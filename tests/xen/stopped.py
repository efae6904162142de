"""A domain that never runs: what the hypervisor answers can be tested without a processor."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from virtus.memory.guest_memory import FRAME_SHIFT, GuestMemory
from virtus.memory.pool import FramePool
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.machine import XenMachine, own_frames

MIB = 1 << 20


class StoppedContext:
    """The processor of a domain that does not run. It remembers which entries were changed since the last flush."""

    def __init__(self) -> None:
        self.kernel, self.has_syscall32, self.compatibility = True, True, False
        self.kernel_root = self.user_root = 0
        self.error_code = self.fault_address = 0
        self.code_selector, self.stack_selector = 0x33, 0x2B
        self.fs_base = self.gs_base = self.user_gs_base = 0
        self.regs = memoryview(bytearray(18 * 8)).cast("Q")
        self.changed: list[int] = []
        self.flushes = 0
        self.slept: tuple[list[int], int | None] | None = None
        self.wakes: list[int] = []
        self.gdt: list[int] = []
        self.parked = False
        self.ident = 0

    @property
    def running(self) -> bool:
        return self.slept is None

    def wake(self) -> None:
        self.slept = None

    @property
    def flush_pending(self) -> bool:
        return bool(self.changed)

    def entry_changed(self, address: int, old: int, new: int) -> None:
        if old & 1:
            self.changed.append(address)

    def page_overwritten(self, frame: int) -> None:
        self.changed.append(frame << FRAME_SHIFT)

    def flush(self) -> None:
        self.flushes += 1
        self.changed.clear()

    def table_returns(self) -> None:
        self.flush()

    def load_root(self) -> None:
        pass

    def start(self, root: int, entry: int, stack: int) -> None:
        self.kernel_root = root
        self.regs[16], self.regs[6] = entry, stack

    def switch(self) -> None:
        self.kernel = not self.kernel

    def set_gdt(self, frames: list[int]) -> None:
        self.gdt = frames

    def enter_at(self, stack: int, call: int, fault: int, info: int) -> None:
        self.entries = (stack, call, fault, info)

    def stack_at(self, stack: int) -> None:
        pass

    def load_user_gs(self, selector: int, descriptor: int) -> None:
        self.user_gs_base = descriptor

    def time_stamp(self) -> int:
        return 10**9

    def time_stamp_khz(self) -> int:
        return 2_600_000

    def wake_at(self, monotonic_ns: int) -> None:
        self.wakes.append(monotonic_ns)

    def sleep(self, descriptors: list[int], until_ns: int | None) -> None:
        self.slept = (descriptors, until_ns)


@contextmanager
def stopped_domains(count: int = 1, size: int = 2 * MIB) -> Iterator[tuple[XenMachine, list[Domain], list[str]]]:
    """A machine with domains 1 to `count`, their memory empty; and what they are noted for."""
    own = own_frames(count * size)
    memory = GuestMemory((own << FRAME_SHIFT) + count * size, "test")
    notes: list[str] = []
    machine = XenMachine(memory, FramePool(0, own), {}, notes.append)
    frames = size >> FRAME_SHIFT
    domains = []
    for number in range(count):
        context: Any = StoppedContext()
        domain = Domain(machine, number + 1, own + number * frames, frames, context)
        machine.domains[number + 1] = domain
        domains.append(domain)
    try:
        yield machine, domains, notes
    finally:
        memory.close()

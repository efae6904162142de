"""A domain: its memory, processor, event channels and grants, and whether it still lives."""

import os
import select
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from virtus.devices.console import Console
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.xen.abi import EINVAL, LEGACY_VCPUS, SHARED_VCPU_INFO_SIZE, UPCALL_MASK, Refused
from virtus.personalities.xen.access import GuestAccess
from virtus.personalities.xen.back_end import BackEnd
from virtus.personalities.xen.console import ConsoleRing
from virtus.personalities.xen.cpu import BLOCKED, Cpu
from virtus.personalities.xen.cpuid import CpuidPolicy
from virtus.personalities.xen.event_channels import EventChannels
from virtus.personalities.xen.frames import FrameTable
from virtus.personalities.xen.grants import FRAMES, STATUS_FRAMES, GrantTable
from virtus.personalities.xen.page_tables import PageTables
from virtus.personalities.xen.privileged import Privileged
from virtus.personalities.xen.pte_writes import PteWrites
from virtus.personalities.xen.xenstore import Store
from virtus.personalities.xen.xenstore_ring import StoreRing

if TYPE_CHECKING:
    from virtus.personalities.xen.machine import XenMachine

STATUS_OF_ESCAPE: Final = 130  # as a shell shows a program that was interrupted


class Shutdown(IntEnum):
    """SHUTDOWN_* of xen/include/public/sched.h."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4


class Service(Protocol):
    """Somebody who is to be looked at now and then, in the domain's thread."""

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to do."""
        ...

    def poll(self) -> None:
        """Do it, without waiting."""
        ...


class Domain:
    """One domain in a machine; `contexts` run its processors. `console` may be given later than the rest.

    `cpu` is the processor that is being answered.
    """

    def __init__(self, machine: "XenMachine", ident: int, first: int, frames: int, *contexts: Any) -> None:
        context = contexts[0]
        self.ident, self.first_frame = ident, first
        self.frame_count = self.most_frames = frames
        self.memory: GuestMemory = machine.memory
        self.frames: FrameTable = machine.frames
        self.peers = machine.domains
        self.translations = context
        self.uuid = os.urandom(16)
        self._note = machine.note
        self._m2p, self.m2p_range = machine.m2p_words, machine.m2p_range
        machine.frames.give(first, frames, ident)
        self.tables = PageTables(machine.memory, machine.frames, ident, context, machine.reserved)
        self.access = GuestAccess(machine.memory, self.tables)
        self.shared_frame = machine.share_new_frames(ident)
        self.cpus: list[Cpu] = []
        for number, one in enumerate(contexts):
            info = (self.shared_frame << 12) + SHARED_VCPU_INFO_SIZE * number
            self.cpus.append(Cpu(self, one, info, number))
            one.parked = number > 0
        self.cpu = self.cpus[0]
        self.events = EventChannels(self, self.shared_frame)
        table, status = machine.share_new_frames(ident, FRAMES), machine.share_new_frames(ident, STATUS_FRAMES)
        self.grants = GrantTable(self, machine.memory, table, status)
        self.cpuid = CpuidPolicy()
        self.privileged = Privileged(self)
        self.pte_writes = PteWrites(self)
        self.back_ends: list[BackEnd] = []
        self.services: list[Service] = []
        self.paused = False
        self.ended: str = ""
        self.status = 0
        page = machine.memory.frame(self.shared_frame)
        page[2560:3072] = b"\xff" * 512  # every event channel is masked
        for number in range(LEGACY_VCPUS):
            page[SHARED_VCPU_INFO_SIZE * number + UPCALL_MASK] = 1
        self.cpu.set_wall_clock(self.shared_frame << 12)

    def connect(self, store_frame: int, console_frame: int, store: Store, console: Console) -> None:
        """Begin to serve the two rings that every domain has from its start."""
        self._user = console
        self.store = StoreRing(self, store_frame, store)
        self.console = ConsoleRing(self, console_frame, console)

    def reconnect(self, store_port: int, console_port: int, frames: list[int], store: Store, console: Console) -> None:
        """The same for a domain that was saved, whose rings are in use."""
        self._user = console
        self.store = StoreRing(self, frames[0], store, store_port)
        self.console = ConsoleRing(self, frames[1], console, console_port)
        self.events.reconnect(store_port, self.store.notified)
        self.events.reconnect(console_port, self.console.notified)

    def switch_to(self, cpu: Cpu) -> None:
        """This processor has come out, and is the one to be answered."""
        self.cpu = cpu
        context = cpu.context
        self.access.root = context.kernel_root if context.kernel else context.user_root

    def note(self, line: str) -> None:
        """Remember something a user should know."""
        self._note(line)

    def set_m2p(self, frame: int, physical: int) -> None:
        """Which pseudo-physical frame a machine frame is, as its owner says."""
        if frame >= len(self._m2p):
            raise Refused(EINVAL)
        self._m2p[frame] = physical

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to do for the domain."""
        served: list[Service] = [*self.back_ends, *self.services]
        return self._user.descriptors() + [fd for one in served for fd in one.descriptors()]

    def poll(self) -> None:
        """Look at the console and the devices, and show the guest what time it is. Stays while the domain is paused."""
        self._serve()
        while self.paused and not self.ended:
            select.select(self.descriptors(), [], [])
            self._serve()
        self.cpu.update_time()

    def _serve(self) -> None:
        self.console.poll()
        for back_end in self.back_ends:
            back_end.poll()
        for service in self.services:
            service.poll()
        if self._user.escaped:
            self.ended, self.status = "destroyed by its user", STATUS_OF_ESCAPE

    def wait(self) -> None:
        """The guest's kernel has nothing to do before the next event."""
        if not self.cpu.event_waits:
            self.cpu.set_state(BLOCKED)
            until = None if self.cpu.deadline is None else self.cpu.monotonic(self.cpu.deadline)
            self.cpu.context.sleep(self.descriptors(), until)

    def end(self, reason: int) -> None:
        """The domain shuts itself down."""
        try:
            self.ended = Shutdown(reason).name.lower()
        except ValueError:
            self.ended = f"shutdown for the unknown reason {reason}"
        self.status = 0 if reason in (Shutdown.POWEROFF, Shutdown.REBOOT) else 1
        if reason:
            self.note(f"the domain ended: {self.ended}")

    def crash(self, why: str) -> None:
        """The hypervisor ends the domain."""
        self.ended, self.status = f"crashed: {why}", 1
        self.note(f"the domain {self.ended}")

"""A domain's virtual processor: what it has registered, its time, and how the hypervisor enters and leaves its kernel.

Nothing of this is done by hardware: an exception, a system call of a program, or an event becomes a frame on the guest
kernel's stack and a jump to the handler that it has registered; `iret` is a hypercall.
Sources: xen/include/public/arch-x86/xen.h, vcpu.h; xen/arch/x86/x86_64/entry.S (create_bounce_frame), do_iret.
"""

import struct
import time
from typing import TYPE_CHECKING, Any, Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.memory.x86_paging import is_canonical
from virtus.personalities.xen import descriptors
from virtus.personalities.xen.abi import (
    EBUSY,
    EINVAL,
    FAULT_ADDRESS,
    MASK64,
    SHARED_WALL_CLOCK,
    TIME_INFO,
    UPCALL_MASK,
    UPCALL_PENDING,
    VIRQ_TIMER,
    DomainCrash,
    Refused,
)
from virtus.personalities.xen.frames import Kind
from virtus.records import dataclass

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

RAX, RCX, RSP, R11, RIP, RFLAGS = 0, 2, 6, 11, 16, 17
TRAP_FLAG, INTERRUPT_FLAG, IO_LEVEL, NESTED_TASK, RESUME, VIRTUAL_8086, ALIGNMENT_CHECK = (
    1 << 8,
    1 << 9,
    3 << 12,
    1 << 14,
    1 << 16,
    1 << 17,
    1 << 18,
)
ENTRY_CLEARS: Final = TRAP_FLAG | IO_LEVEL | NESTED_TASK | RESUME | VIRTUAL_8086 | ALIGNMENT_CHECK
"""Flags that the guest's kernel begins without: at ring 3, it would be checked for alignment if its program was."""
KERNEL_CS, KERNEL_SS = 0xE030, 0xE02B  # as a frame shows them: Xen clears the ring in the kernel's
IN_SYSCALL: Final = 0x100  # VGCF_in_syscall
IRET_FRAME: Final = struct.Struct("<9Q")  # struct iret_context: rax r11 rcx flags rip cs rflags rsp ss
TIME: Final = struct.Struct("<IxxxxQQIbB2x")  # struct vcpu_time_info
RUNSTATE: Final = struct.Struct("<IxxxxQ4Q")  # struct vcpu_runstate_info
RUNNING, RUNNABLE, BLOCKED, OFFLINE = range(4)  # RUNSTATE_*
CALLBACK_EVENT, CALLBACK_FAILSAFE, CALLBACK_SYSCALL, CALLBACK_NMI, CALLBACK_SYSENTER, CALLBACK_SYSCALL32 = (
    0,
    1,
    2,
    4,
    5,
    7,
)
PROTECTION, PAGE_FAULT = 13, 14
SECOND: Final = 1_000_000_000
LOOK_AGAIN: Final = 20_000_000
"""A guest that computes is interrupted at least so often (nanoseconds), to look at the console and the like."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Where the guest's kernel wants to be entered; `mask` whether events are masked then."""

    address: int
    mask: bool
    ring: int = 0  # the least privileged ring that may ask for it by `int`


class Cpu:
    """A virtual processor of a domain; `context` is whoever runs it."""

    MOST_GDT_ENTRIES: Final = 14 * descriptors.PER_PAGE  # FIRST_RESERVED_GDT_ENTRY

    def __init__(self, domain: "Domain", context: Any, info_at: int, number: int = 0) -> None:
        self._domain, self.context, self.number = domain, context, number
        self.initialised = number == 0
        self.polled: frozenset[int] = frozenset()  # masked ports that it sleeps for
        self.info_at = info_at  # physical address of struct vcpu_info
        self._info_registered = False
        self._kernel_stack = 0
        self.traps: dict[int, Handler] = {}
        self.callbacks: dict[int, Handler] = {}
        self._gdt: list[int] = []
        self._kernel_root = self._user_root = -1  # frames
        self.debug_registers = dict.fromkeys(range(8), 0)
        self.shutdown: int | None = None
        self._bytes = domain.memory.bytes
        self._started = time.monotonic_ns()
        self.deadline: int | None = None  # system time, for VIRQ_TIMER
        self.period = 0
        self._time_updated = -SECOND
        self._version = 0
        self.runstate_at = 0  # virtual
        self._runstate = [0, 0, 0, 0]
        self._state, self._state_since = RUNNING, 0

    PLAIN: Final = (
        "initialised", "info_at", "_info_registered", "_kernel_stack", "_gdt", "_kernel_root", "_user_root", "shutdown",
        "deadline", "period", "_version", "runstate_at", "_runstate", "_state",
    )  # fmt: skip
    """Attributes that are saved as they are."""

    def save(self) -> dict[str, Any]:
        """All but the registers, as plain data."""

        def plain(handlers: dict[int, Handler]) -> list[list[int]]:
            return [[number, one.address, one.mask, one.ring] for number, one in handlers.items()]

        return {
            **{name: getattr(self, name) for name in self.PLAIN},
            "traps": plain(self.traps),
            "callbacks": plain(self.callbacks),
            "debug_registers": list(self.debug_registers.values()),
            "now": self.now(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """What `save` gave; system time goes on from where it was."""
        for name in self.PLAIN:
            setattr(self, name, saved[name])
        for name in ("traps", "callbacks"):
            handlers = {number: Handler(address, bool(mask), ring) for number, address, mask, ring in saved[name]}
            setattr(self, name, handlers)
        self.debug_registers = dict(enumerate(saved["debug_registers"]))
        self._started = time.monotonic_ns() - saved["now"]
        self._state_since, self._time_updated = saved["now"], saved["now"] - SECOND
        if self._gdt:
            self.context.set_gdt(self._gdt)
        self.entries_changed()
        if self._domain.cpu is self:
            self._domain.access.root = self.context.kernel_root if self.context.kernel else self.context.user_root
            self.set_wall_clock(self._domain.shared_frame << FRAME_SHIFT)

    # address spaces and descriptors

    def set_kernel_root(self, frame: int) -> None:
        """The guest kernel's L4 table; raises Refused."""
        tables = self._domain.tables
        tables.use_table(frame, Kind.L4)
        if self._kernel_root >= 0:
            tables.end_table(self._kernel_root)
        self._kernel_root = frame
        self.context.kernel_root = frame << FRAME_SHIFT
        if self.context.kernel:
            if self._domain.cpu is self:
                self._domain.access.root = frame << FRAME_SHIFT
            self.context.load_root()
        self.context.flush()

    def set_user_root(self, frame: int) -> None:
        """The L4 table that programs run in, 0 for none; raises Refused."""
        tables = self._domain.tables
        if frame:
            tables.use_table(frame, Kind.L4)
        if self._user_root > 0:
            tables.end_table(self._user_root)
        self._user_root = frame
        self.context.user_root = frame << FRAME_SHIFT
        self.context.flush()

    def set_gdt(self, frames: list[int]) -> None:
        """The guest's descriptors, each checked; the frames cannot be written to any more. Raises Refused."""
        taken = list[int]()
        try:
            for frame in frames:
                self._domain.frames.refer(frame, self._domain.ident)
                try:
                    self._domain.frames.use(frame, Kind.DESCRIPTORS, self._check_descriptors)
                except Refused:
                    self._domain.frames.release(frame)
                    raise
                taken.append(frame)
        except Refused:
            self._end_gdt(taken)
            raise
        before, self._gdt = self._gdt, frames
        self.context.set_gdt(frames)
        self._end_gdt(before)

    def _end_gdt(self, frames: list[int]) -> None:
        for frame in frames:
            self._domain.frames.end_use(frame)
            self._domain.frames.release(frame)

    def _check_descriptors(self, frame: int, before: int) -> None:
        if self.context.flush_pending:
            self.context.flush()
        page = self._domain.memory.entries(frame)
        fitted = [descriptors.check(descriptor) for descriptor in page]
        for at, descriptor in enumerate(fitted):
            if page[at] != descriptor:
                page[at] = descriptor
        self._domain.tables.stored_into(frame)

    def descriptor(self, selector: int) -> int:
        """What a selector of the guest's own GDT names; raises Refused."""
        index = selector >> 3
        if selector & 4 or index >= len(self._gdt) * descriptors.PER_PAGE:
            raise Refused(EINVAL, f"selector {selector:#x}")
        frame = self._gdt[index // descriptors.PER_PAGE]
        value: int = self._domain.memory.entries(frame)[index % descriptors.PER_PAGE]
        return value

    # its page of the shared information

    def register_info(self, frame: int, offset: int) -> None:
        """Move struct vcpu_info to a frame of the guest's; raises Refused. Once."""
        if self._info_registered:
            raise Refused(EBUSY)
        if offset > PAGE - 64 or offset & 7:
            raise Refused(EINVAL)
        self._domain.tables.use_writable(frame)  # for good
        to = (frame << FRAME_SHIFT) + offset
        self._bytes[to : to + 64] = bytes(self._bytes[self.info_at : self.info_at + 64])
        self.info_at = to
        self._info_registered = True
        self.entries_changed()

    @property
    def kernel_stack(self) -> int:
        """The stack on which the kernel is entered from programs."""
        return self._kernel_stack

    @kernel_stack.setter
    def kernel_stack(self, pointer: int) -> None:
        self._kernel_stack = pointer
        self.context.stack_at(pointer)

    def entries_changed(self) -> None:
        """A handler was registered, or the page of information: whoever runs the processor may enter by itself."""
        call, fault = self.callbacks.get(CALLBACK_SYSCALL), self.traps.get(PAGE_FAULT)
        self.context.enter_at(
            self._kernel_stack,
            call.address if call is not None and call.mask else 0,
            fault.address if fault is not None and fault.mask else 0,
            self.info_at,
        )

    @property
    def masked(self) -> bool:
        """Whether the guest wants no events now."""
        return bool(self._bytes[self.info_at + UPCALL_MASK])

    @masked.setter
    def masked(self, masked: bool) -> None:
        self._bytes[self.info_at + UPCALL_MASK] = masked

    @property
    def event_waits(self) -> bool:
        """Whether some event is pending and not masked at its port."""
        return bool(self._bytes[self.info_at + UPCALL_PENDING])

    # entering and leaving the guest's kernel

    def enter(self, handler: Handler, error: int | None = None) -> None:
        """Continue in the guest's kernel at a handler, with a frame that leads back; DomainCrash where none fits."""
        context, info = self.context, self.info_at
        regs = context.regs
        rip, flags, stack = regs[RIP], regs[RFLAGS], regs[RSP]
        masked = self._bytes[info + UPCALL_MASK]
        if context.kernel:
            code, data, pointer = KERNEL_CS, KERNEL_SS, stack & ~15
        else:
            code, data, pointer = context.code_selector, context.stack_selector, self.kernel_stack & ~15
            context.switch()
            self._domain.access.root = context.kernel_root
        shown = flags & ~(IO_LEVEL | INTERRUPT_FLAG) | (0 if masked else INTERRUPT_FLAG)
        frame = [regs[RCX], regs[R11], rip, code | masked << 32, shown, stack, data]
        if error is not None:
            frame.insert(2, error)
        pointer = pointer - 8 * len(frame) & MASK64
        try:
            self._domain.access.write(pointer, struct.pack(f"<{len(frame)}Q", *frame))
        except Refused as refusal:
            raise DomainCrash(f"no stack for its kernel: {refusal}; at {rip:#x}") from refusal
        if handler.mask:
            self._bytes[info + UPCALL_MASK] = 1
        regs[RSP], regs[RIP] = pointer, handler.address
        regs[RFLAGS] = flags & ~ENTRY_CLEARS

    def trap(self, vector: int, error: int | None = None) -> None:
        """Deliver an exception to the guest's kernel; DomainCrash without a handler."""
        handler = self.traps.get(vector)
        if handler is None:
            raise DomainCrash(
                f"exception {vector} (error code {error or 0:#x}) at {self.context.regs[RIP]:#x} without a handler"
            )
        self.enter(handler, error)

    def page_fault(self, error: int) -> None:
        """Deliver a page fault; the guest finds the address where a processor of its own would keep CR2."""
        address = self.context.fault_address
        struct.pack_into("<Q", self._bytes, self.info_at + FAULT_ADDRESS, address)
        self.trap(PAGE_FAULT, error & ~4 | (0 if self.context.kernel else 4))

    def deliver_event(self) -> None:
        """Enter the guest's event handler when something is pending and nothing masks it."""
        at = self.info_at
        if self._bytes[at + UPCALL_PENDING] and not self._bytes[at + UPCALL_MASK]:
            handler = self.callbacks.get(CALLBACK_EVENT)
            if handler is not None:
                self.enter(handler)

    def system_call(self) -> None:
        """A program's system call goes to the guest's kernel."""
        kind = CALLBACK_SYSCALL32 if self.context.compatibility else CALLBACK_SYSCALL
        handler = self.callbacks.get(kind)
        if handler is None:
            self.trap(6)
        else:
            self.context.regs[RFLAGS] |= INTERRUPT_FLAG
            self.enter(handler)

    def iret(self) -> None:
        """The iret hypercall: continue where a frame on the stack says; DomainCrash where it says nonsense."""
        context, regs = self.context, self.context.regs
        try:
            frame = IRET_FRAME.unpack(self._domain.access.read(regs[RSP], IRET_FRAME.size))
        except Refused as refusal:
            raise DomainCrash(f"iret from no frame: {refusal}") from refusal
        rax, r11, rcx, how, rip, code, flags, stack, data = frame
        if not is_canonical(rip) and code & 3 != 3:
            raise DomainCrash(f"iret to {rip:#x}, which is no address")
        if code & 3 == 3:
            if not context.user_root:
                raise DomainCrash("iret to a program without an address space")
            context.switch()
            self._domain.access.root = context.user_root
            context.code_selector, context.stack_selector = code & 0xFFFF, data & 0xFFFF
        regs[RAX], regs[RIP], regs[RSP] = rax, rip, stack
        regs[RFLAGS] = flags & ~(IO_LEVEL | NESTED_TASK | RESUME | VIRTUAL_8086)
        if how & IN_SYSCALL:
            regs[RCX], regs[R11] = rip, regs[RFLAGS]
        else:
            regs[RCX], regs[R11] = rcx, r11
        self._bytes[self.info_at + UPCALL_MASK] = not flags & INTERRUPT_FLAG
        if not is_canonical(rip):
            self.trap(PROTECTION, 0)  # what a program has put into a signal's frame is its own affair

    def wake(self) -> None:
        """Something has happened that it may be waiting for."""
        self.polled = frozenset()
        self.context.wake()

    # time

    def now(self) -> int:
        """System time: nanoseconds since the domain was made."""
        return time.monotonic_ns() - self._started

    def update_time(self) -> None:
        """Tell the guest how its time stamp counter and system time relate; again each second."""
        now = self.now()
        if now - self._time_updated < SECOND:
            return
        self._time_updated = now
        self._version += 2
        stamp, khz = self.context.time_stamp(), self.context.time_stamp_khz()
        multiplier, shift = scale(khz)
        TIME.pack_into(self._bytes, self.info_at + TIME_INFO, self._version, stamp, self.now(), multiplier, shift, 0)

    def set_wall_clock(self, shared_at: int) -> None:
        """The wall-clock time at which system time was 0, in the shared page."""
        seconds, rest = divmod(time.time_ns() - self.now(), SECOND)
        struct.pack_into(
            "<IIII", self._bytes, shared_at + SHARED_WALL_CLOCK, 2, seconds & 0xFFFFFFFF, rest, seconds >> 32
        )

    def set_deadline(self, deadline: int | None) -> None:
        """VIRQ_TIMER at this system time; None: not any more."""
        self.deadline = deadline

    def monotonic(self, system_time: int) -> int:
        """A system time by the host's monotonic clock."""
        return self._started + system_time

    def tick(self) -> None:
        """Raise the timer's interrupt when its time has come."""
        now = time.monotonic_ns() - self._started
        soon = now + LOOK_AGAIN
        if self.deadline is not None:
            if now >= self.deadline:
                self._domain.events.raise_virq(VIRQ_TIMER, self.number)
                self.deadline = now + self.period if self.period else None
            if self.deadline is not None and self.deadline < soon:
                soon = self.deadline
        self.context.wake_at(self._started + soon)

    # accounting

    def set_state(self, state: int) -> None:
        """The processor begins to run, or to be blocked: account the time before, and show it to the guest, in its
        kernel's address space: the one in use may be a program's, or another processor's."""
        if state == self._state:
            return
        now = self.now()
        self._runstate[self._state] += now - self._state_since
        self._state, self._state_since = state, now
        if self.runstate_at:
            access = self._domain.access
            used, access.root = access.root, self.context.kernel_root
            try:
                access.write(self.runstate_at, self.runstate())
            except Refused:
                self.runstate_at = 0
            finally:
                access.root = used

    def runstate(self) -> bytes:
        """struct vcpu_runstate_info."""
        return RUNSTATE.pack(self._state, self._state_since, *self._runstate)


def scale(khz: int) -> tuple[int, int]:
    """Multiplier and shift of struct vcpu_time_info: nanoseconds = (ticks << shift) * multiplier >> 32."""
    shift = 0
    while (SECOND // 1000 << 32) // (khz << shift) > 0xFFFFFFFF:
        shift += 1
    return (SECOND // 1000 << 32) // (khz << shift), shift

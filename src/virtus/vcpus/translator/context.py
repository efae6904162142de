"""A guest thread under translation: a stub process that runs translated code, and a state page with its registers."""

from typing import TYPE_CHECKING, Final

from virtus.isa.x86 import registers as r
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus import stub
from virtus.vcpus.foreign import NO_SYSCALL, ForeignContext, account
from virtus.vcpus.ptrace import StubContext
from virtus.vcpus.translator import float_state, layout
from virtus.vcpus.translator.space import AddressSpace

if TYPE_CHECKING:
    from virtus.vcpus.translator.vcpu import TranslatorVcpu

MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x4000
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MADV_DONTNEED: Final = 4
STACK_MARGIN: Final = 256 << 10
"""Bytes of host stack that translated code may use after its check."""
MXCSR_OFFSET: Final = 24
"""Of MXCSR in the XSAVE area (Intel SDM volume 1, table 13-1)."""
_MMAP, _MUNMAP, _MADVISE = NUMBERS["mmap"], NUMBERS["munmap"], NUMBERS["madvise"]


def shared_mapping(context: StubContext, address: int, size: int, protection: int, descriptor: int, at: int) -> None:
    """Map a part of a file of ours into a stub, at a fixed address."""
    _succeed(context.inject(_MMAP, address, size, protection, MAP_SHARED | MAP_FIXED, descriptor, at))


def private_mapping(context: StubContext, address: int, size: int) -> None:
    """Map memory of the stub's own, taken from the host only where it is touched."""
    flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE
    _succeed(context.inject(_MMAP, address, size, PROT_READ | PROT_WRITE, flags, -1, 0))


def _succeed(result: int) -> None:
    if -4095 <= result < 0:
        raise OSError(-result, "building the address space of a translated guest")


class TranslatedContext(ForeignContext):
    """See `virtus.exits.Context`; `regs` are the words of the state page, as `layout` names them.

    `slot` is where its state and stack lie in its address space, `page` which page of the machine's states it has.
    """

    def __init__(self, vcpu: "TranslatorVcpu", host: StubContext, space: AddressSpace) -> None:
        super().__init__(host)
        self.vcpu = vcpu
        self.space = space
        self.slot = self.page = -1
        self.astray = 0
        """How often it has run into what is no code of ours."""
        space.contexts.add(self)

    @property
    def running(self) -> bool:
        """See Context."""
        return self.host.running

    # What it runs on

    def settle(self, slot: int, page: int) -> None:
        """Take a state page and a host stack, both mapped in this address space at `slot`."""
        self.slot, self.page = slot, page
        regs = self.regs = self.vcpu.region.state(page)
        for word, value in self.vcpu.stubs.words.items():
            regs[word] = value
        regs[layout.STACK_TOP] = layout.STACKS + (slot + 1) * layout.STACK_BYTES - 64
        regs[layout.RESERVED_ADDRESS] = regs[layout.SYSCALL_NUMBER] = NO_SYSCALL
        regs[layout.MXCSR] = float_state.INITIAL
        self.quiet()

    def map_slot(self, slot: int, page: int) -> None:
        """Map a state page and a host stack at `slot`."""
        state = layout.STATES + slot * layout.STATE_BYTES
        descriptor = self.vcpu.region.states_descriptor
        shared_mapping(self.host, state, layout.STATE_BYTES, 3, descriptor, page * layout.STATE_BYTES)
        if slot not in self.space.mapped:
            stack = layout.STACKS + slot * layout.STACK_BYTES
            private_mapping(self.host, stack + layout.PAGE, layout.STACK_BYTES - layout.PAGE)  # below it: a guard
        self.space.mapped.add(slot)

    def quiet(self) -> None:
        """Nobody wants it out (any more)."""
        regs = self.regs
        regs[layout.INTERRUPT] = 0
        regs[layout.STACK_LIMIT] = regs[layout.STACK_TOP] - layout.STACK_BYTES + STACK_MARGIN

    def enter(self) -> None:
        """When it goes on, begin with an empty host stack at the guest's PC."""
        host = self.host.regs
        stub.zero_registers(host)
        host[r.RIP] = self.vcpu.stubs.enter
        host[r.RDI] = layout.STATES + self.slot * layout.STATE_BYTES
        host[r.RSP] = self.regs[layout.STACK_TOP]

    # What a personality does with it

    def resume(self) -> None:
        """See Context."""
        self.vcpu.go_on(self)

    def kick(self) -> None:
        """See Context. It comes out where it next looks."""
        if self.running:
            self.regs[layout.STACK_LIMIT] = NO_SYSCALL
            self.regs[layout.INTERRUPT] = 1
            self.host.vcpu.flush()

    def kill(self) -> None:
        """See Context. Its place is another's only when it has ended."""
        self.host.kill()

    def inject(self, number: int, *arguments: int) -> int:
        """See Context. Keeps account of what may be executed."""
        result = self.host.inject(number, *arguments)
        mapped = account(self.space.executable, number, arguments, result)
        if mapped is not None:
            for low, high in mapped.changed:
                self.flush_instructions(low, high - low)
            if mapped.executable and number == _MMAP and arguments[4] >= 0 and self.vcpu.optimiser is not None:
                self.vcpu.optimiser.mapped(self, *mapped.executable)
        return result

    def flush_instructions(self, start: int, size: int) -> None:
        """Guest code in a range may have changed: translations of what reads different now are taken back."""
        space = self.space
        pages = space.stale(self.ident, start, start + size)
        if pages:
            space.forget(self.ident, pages)

    def precise_faults(self) -> None:
        """From now on faults must leave exact registers: code optimised without them is taken back."""
        space = self.space
        if not space.precise:
            space.precise = True
            space.forget_optimised(self.ident)

    def fork(self, *, share_memory: bool) -> "TranslatedContext":
        """See Context."""
        return self.vcpu.fork(self, share_memory=share_memory)

    def fresh(self) -> "TranslatedContext":
        """See Context."""
        return self.vcpu.fresh()

    def empty(self) -> None:
        """See Context."""
        self.host.inject(_MUNMAP, 0, layout.GUEST_END)
        for table in (layout.TABLE, layout.FAST):
            self.host.inject(_MADVISE, table, layout.TABLE_BYTES, MADV_DONTNEED)
        self.space.clear()
        for register in range(64):
            self.regs[register] = 0
        self.regs[layout.MXCSR] = float_state.INITIAL
        self.regs[layout.ROUNDING] = 0
        self.regs[layout.RESERVED_ADDRESS] = NO_SYSCALL
        self.enter()

    def clear_fault(self) -> None:
        """The next fault is the host's to describe."""
        self._fault = None

    def save_control(self) -> None:
        """Where it was stopped in the middle of translated code: its floating-point flags are still the host's."""
        legacy = self.host.extended_state()
        self.regs[layout.MXCSR] = int.from_bytes(legacy[MXCSR_OFFSET : MXCSR_OFFSET + 4], "little")

"""A guest thread under translation: a stub process that runs translated code, and a state page with its registers."""

import errno
import struct
from typing import TYPE_CHECKING, Final

from virtus.isa.x86 import registers as r
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus import stub
from virtus.vcpus.ptrace import StubContext
from virtus.vcpus.translator import float_state, layout
from virtus.vcpus.translator.space import AddressSpace

if TYPE_CHECKING:
    from virtus.vcpus.translator.vcpu import TranslatorVcpu

MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 1, 2, 0x10, 0x20, 0x4000
PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MADV_DONTNEED: Final = 4
NO_SYSCALL: Final = 2**64 - 1
STACK_MARGIN: Final = 256 << 10
"""Bytes of host stack that translated code may use after its check."""
MXCSR_OFFSET: Final = 24
"""Of MXCSR in the XSAVE area (Intel SDM volume 1, table 13-1)."""
_MMAP, _MUNMAP, _MPROTECT, _MREMAP, _MADVISE = (
    NUMBERS[name] for name in ("mmap", "munmap", "mprotect", "mremap", "madvise")
)
_SIGINFO = struct.Struct("<iii4xQ")  # signo, errno, code, address (include/uapi/asm-generic/siginfo.h)
_FLOATS = struct.Struct("<32QQ")


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


class TranslatedContext:
    """See `virtus.exits.Context`; `regs` are the words of the state page, as `layout` names them.

    `slot` is where its state and stack lie in its address space, `page` which page of the machine's states it has.
    """

    def __init__(self, vcpu: "TranslatorVcpu", host: StubContext, space: AddressSpace) -> None:
        self.vcpu = vcpu
        self.host = host
        self.space = space
        self.slot = self.page = -1
        self.regs: memoryview[int] = memoryview(b"").cast("Q")
        self.astray = 0
        """How often it has run into what is no code of ours."""
        self._fault: bytes | None = None
        space.contexts.add(self)

    @property
    def ident(self) -> int:
        """See Context."""
        return self.host.ident

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

    def read(self, address: int, size: int) -> bytes:
        """See Context."""
        self._check(address, size)
        return self.host.read(address, size)

    def read_partial(self, address: int, size: int) -> bytes:
        """See Context."""
        if address >= layout.GUEST_END:
            return b""
        return self.host.read_partial(address, min(size, layout.GUEST_END - address))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """See Context."""
        self._check(address, len(data))
        self.host.write(address, data)

    @staticmethod
    def _check(address: int, size: int) -> None:
        if address + size > layout.GUEST_END:
            raise OSError(errno.EFAULT, "")  # the machine's own parts lie there

    def inject(self, number: int, *arguments: int) -> int:
        """See Context. Keeps account of what may be executed."""
        result = self.host.inject(number, *arguments)
        if number in (_MMAP, _MUNMAP, _MPROTECT, _MREMAP) and not -4095 <= result < 0:
            self._mapped(number, arguments, result)
        return result

    def _mapped(self, number: int, arguments: tuple[int, ...], result: int) -> None:
        executable = self.space.executable
        size = -(-arguments[1] // layout.PAGE) * layout.PAGE
        start = result if number == _MMAP else arguments[0]
        changed = [(start, start + size)]
        if number == _MREMAP:
            new = -(-arguments[2] // layout.PAGE) * layout.PAGE
            was = arguments[0] in executable
            executable.remove(start, start + size)
            changed.append((result, result + new))
            may = was
            start, size = result, new
        else:
            may = number != _MUNMAP and bool(arguments[2] & PROT_EXEC)
        (executable.add if may else executable.remove)(start, start + size)
        for low, high in changed:
            self.flush_instructions(low, high - low)
        if number == _MMAP and may and arguments[4] >= 0 and self.vcpu.optimiser is not None:
            self.vcpu.optimiser.mapped(self, start, start + size)

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
        self.host.inject(_MADVISE, layout.TABLE, layout.TABLE_BYTES, MADV_DONTNEED)
        self.space.clear()
        for register in range(64):
            self.regs[register] = 0
        self.regs[layout.MXCSR] = float_state.INITIAL
        self.regs[layout.ROUNDING] = 0
        self.regs[layout.RESERVED_ADDRESS] = NO_SYSCALL
        self.enter()

    def set_fault(self, number: int, code: int, address: int) -> None:
        """What `fault` is to say: signal number, si_code and si_addr."""
        self._fault = _SIGINFO.pack(number, 0, code, address).ljust(128, b"\0")

    def fault(self) -> bytes:
        """See Context."""
        if self._fault is not None:
            return self._fault
        return self.host.fault()

    def clear_fault(self) -> None:
        """The next fault is the host's to describe."""
        self._fault = None

    def save_control(self) -> None:
        """Where it was stopped in the middle of translated code: its floating-point flags are still the host's."""
        legacy = self.host.extended_state()
        self.regs[layout.MXCSR] = int.from_bytes(legacy[MXCSR_OFFSET : MXCSR_OFFSET + 4], "little")

    def extended_state(self) -> bytes:
        """The floating-point registers and fcsr, as RISC-V's `struct __riscv_d_ext_state` has them (264 bytes)."""
        regs = self.regs
        fcsr = float_state.flags(regs[layout.MXCSR]) | regs[layout.ROUNDING] << 5
        return _FLOATS.pack(*regs[32:64], fcsr)

    def set_extended_state(self, state: bytes) -> None:
        """Load what `extended_state` gave; raises OSError(EINVAL) for anything of another size."""
        if len(state) < _FLOATS.size - 4:
            raise OSError(errno.EINVAL, "")
        *floats, fcsr = _FLOATS.unpack(state.ljust(_FLOATS.size, b"\0")[: _FLOATS.size])
        regs = self.regs
        for index, value in enumerate(floats):
            regs[32 + index] = value
        regs[layout.ROUNDING] = fcsr >> 5 & 7
        regs[layout.MXCSR] = float_state.control(fcsr & 31, fcsr >> 5 & 7)

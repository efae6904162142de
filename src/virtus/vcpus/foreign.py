"""A guest thread of another processor on a stub process: what the interpreter and the translator have in common.

The stub lends its address space, and executes the calls that build it. The guest's registers are not the stub's: they
are the words of a state block, as `translator/layout.py` names them.
"""

import errno
import struct
from typing import Final

from virtus.isa.x86.linux_calls import NUMBERS
from virtus.records import dataclass
from virtus.vcpus.ptrace import StubContext
from virtus.vcpus.translator import float_state, layout
from virtus.vcpus.translator.intervals import Intervals

PROT_EXEC: Final = 4
KEPT_BY_FORK: Final = (
    *range(64), layout.PC, layout.SYSCALL_FIRST, layout.SYSCALL_NUMBER, layout.MXCSR, layout.ROUNDING,
)  # fmt: skip
"""The words of a thread that a copy of it begins with."""
NO_SYSCALL: Final = 2**64 - 1
_MMAP, _MUNMAP, _MPROTECT, _MREMAP = (NUMBERS[name] for name in ("mmap", "munmap", "mprotect", "mremap"))
_SIGINFO: Final = struct.Struct("<iii4xQ")  # signo, errno, code, address (include/uapi/asm-generic/siginfo.h)
_SIGINFO_BYTES: Final = 128
_FLOATS: Final = struct.Struct("<32QQ")


@dataclass(frozen=True, slots=True)
class CallConvention:
    """The registers of a system call: its number, and the argument whose place the result takes."""

    number: int
    first: int


class ForeignContext:
    """The parts of `virtus.exits.Context` that do not depend on who executes the guest's instructions."""

    def __init__(self, host: StubContext) -> None:
        self.host = host
        self.regs: memoryview[int] = memoryview(b"").cast("Q")
        self._fault: bytes | None = None

    @property
    def ident(self) -> int:
        """See Context."""
        return self.host.ident

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

    def set_fault(self, number: int, code: int, address: int) -> None:
        """What `fault` is to say: signal number, si_code and si_addr."""
        self._fault = _SIGINFO.pack(number, 0, code, address).ljust(_SIGINFO_BYTES, b"\0")

    def fault(self) -> bytes:
        """See Context."""
        if self._fault is not None:
            return self._fault
        return self.host.fault()

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


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a call of the host's has changed of an address space."""

    changed: tuple[tuple[int, int], ...]
    """Where other memory lies than before, as half-open intervals."""
    executable: tuple[int, int] | None
    """What may be executed from now on."""


def account(executable: Intervals, number: int, arguments: tuple[int, ...], result: int) -> Mapped | None:
    """Keep account in `executable` of what may be executed after this injected call; None: it maps nothing."""
    if number not in (_MMAP, _MUNMAP, _MPROTECT, _MREMAP) or -4095 <= result < 0:
        return None
    start = result if number == _MMAP else arguments[0]
    end = start + _pages(arguments[1])
    changed = [(start, end)]
    if number == _MREMAP:
        may = start in executable
        executable.remove(start, end)
        start, end = result, result + _pages(arguments[2])
        changed.append((start, end))
    else:
        may = number != _MUNMAP and bool(arguments[2] & PROT_EXEC)
    (executable.add if may else executable.remove)(start, end)
    return Mapped(tuple(changed), (start, end) if may else None)


def _pages(size: int) -> int:
    """A size as whole pages."""
    return -(-size // layout.PAGE) * layout.PAGE

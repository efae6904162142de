"""The guest's floating-point flags and rounding mode, kept as the host's own: in MXCSR (Intel SDM volume 1, 10.2.3).

So host instructions that translated code consists of accrue the guest's flags by themselves. RISC-V's fifth rounding
mode, to nearest with ties away, has none to stand for it; who meets it leaves the instruction to the interpreter.
"""

from typing import Final

_TO_GUEST: Final = ((0, 16), (2, 8), (3, 4), (4, 2), (5, 1))  # IE ZE OE UE PE; NV DZ OF UF NX
_MASKED: Final = 0x1F80
"""No exception traps."""
_CONTROL: Final = {0: 0, 1: 3, 2: 1, 3: 2}
"""MXCSR's RC for RISC-V's modes: nearest even, towards zero, down, up."""
_ALL_FLAGS: Final = 0x3F
_ROUNDING: Final = 3 << 13
INITIAL: Final = _MASKED
_ACCRUED: Final = tuple(sum(1 << bit for bit, guest in _TO_GUEST if fflags & guest) for fflags in range(32))


def flags(mxcsr: int) -> int:
    """The accrued flags in RISC-V's order (fflags)."""
    return sum(guest for bit, guest in _TO_GUEST if mxcsr >> bit & 1)


def control(fflags: int, rounding: int) -> int:
    """The MXCSR for these flags and this rounding mode."""
    return with_rounding(_MASKED | accrued(fflags), rounding)


def accrued(fflags: int) -> int:
    """MXCSR's bits for flags in RISC-V's order; higher bits are ignored."""
    return _ACCRUED[fflags & 31]


def with_flags(mxcsr: int, fflags: int) -> int:
    """The same control, with these flags."""
    return mxcsr & ~_ALL_FLAGS | accrued(fflags)


def with_rounding(mxcsr: int, rounding: int) -> int:
    """The same flags, with this rounding mode; to nearest even where the host lacks it."""
    return mxcsr & ~_ROUNDING | _CONTROL.get(rounding, 0) << 13


def is_native(rounding: int) -> bool:
    """Whether the host can round this way."""
    return rounding in _CONTROL

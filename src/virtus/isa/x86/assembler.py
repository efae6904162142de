"""A small x86-64 assembler: the instructions that a quick translator needs, as bytes appended to a buffer.

Registers are their numbers (RAX 0 ... R15 15), vector registers 0..15 likewise; memory operands are a base register and
a displacement. Places in the code are offsets; a jump can be made before its target is. Source: Intel SDM volume 2.
"""

import struct
from functools import lru_cache
from typing import Final

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)

# Condition codes (Intel SDM volume 1, appendix B)
OVERFLOW, BELOW, ABOVE_EQUAL, EQUAL, NOT_EQUAL, BELOW_EQUAL, ABOVE = 0, 2, 3, 4, 5, 6, 7
SIGN, PARITY, NO_PARITY, LESS, GREATER_EQUAL = 8, 10, 11, 12, 13

# Arithmetic in the order of its opcodes: the register form is 8 * n + 1, the immediate form 81 /n
ADD, OR, AND, SUB, XOR, CMP = 0, 1, 4, 5, 6, 7
# Shifts: the /n of C1 and D3
SHL, SHR, SAR = 4, 5, 7

_I32: Final = struct.Struct("<i")
_I64: Final = struct.Struct("<Q")


_BYTES: Final = [struct.pack("<b", value) for value in (*range(128), *range(-128, 0))]
"""By a signed number of 8 bits (Python's own way with negative indices)."""


def _memory(rex: int, opcode: bytes, register: int, base: int, displacement: int) -> bytes:
    """An instruction with a memory operand; `rex` holds W, prefixes before REX stand in `opcode` up to a bar."""
    if -128 <= displacement < 128:
        return _operand(rex, opcode, register, base, 0x40) + _BYTES[displacement]
    return _operand(rex, opcode, register, base, 0x80) + _I32.pack(displacement)


@lru_cache(maxsize=1 << 14)
def _operand(rex: int, opcode: bytes, register: int, base: int, mode: int) -> bytes:
    """All of it but the displacement, whose size `mode` tells."""
    prefix, _, rest = opcode.rpartition(b"|")
    rex |= 0x40 | (register >> 3) << 2 | base >> 3
    body = bytes((mode | (register & 7) << 3 | base & 7,)) + (b"\x24" if base & 7 == RSP else b"")
    return prefix + (bytes((rex,)) if rex != 0x40 else b"") + rest + body


@lru_cache(maxsize=1 << 14)
def _registers(rex: int, opcode: bytes, register: int, other: int) -> bytes:
    """An instruction of two registers: `register` in ModRM.reg, `other` in ModRM.rm."""
    prefix, _, rest = opcode.rpartition(b"|")
    rex |= 0x40 | (register >> 3) << 2 | other >> 3
    return prefix + (bytes((rex,)) if rex != 0x40 else b"") + rest + bytes((0xC0 | (register & 7) << 3 | other & 7,))


W: Final = 8
"""REX.W: 64-bit operands."""
_FAR: Final = [bytes((0x0F, 0x80 | condition, 0, 0, 0, 0)) for condition in range(16)]


def _short(distance: int) -> int:
    """A distance as a byte."""
    if not -128 <= distance < 128:
        raise ValueError(f"a short jump over {distance} bytes")
    return distance & 255


class Assembler:
    """Appends to `code`, which its user may read, cut and replace as well."""

    def __init__(self) -> None:
        self.code = bytearray()

    # Jumps

    def jump(self) -> int:
        """jmp to where `aim` will say; returns the position to tell it."""
        self.code += b"\xe9\0\0\0\0"
        return len(self.code) - 4

    def jump_if(self, condition: int) -> int:
        """jcc likewise."""
        self.code += _FAR[condition]
        return len(self.code) - 4

    def aim(self, position: int, target: int) -> None:
        """Have what left this position go to an offset in the code."""
        _I32.pack_into(self.code, position, target - position - 4)

    def skip(self) -> int:
        """jmp a short way ahead, to where `land` is called with what this returns."""
        self.code += b"\xeb\0"
        return len(self.code)

    def skip_if(self, condition: int) -> int:
        """jcc likewise."""
        self.code += bytes((0x70 | condition, 0))
        return len(self.code)

    def land(self, skipped: int) -> None:
        """Here a `skip` goes on; at most 127 bytes after it."""
        self.code[skipped - 1] = _short(len(self.code) - skipped)

    def back_if(self, condition: int, target: int) -> None:
        """jcc a short way back, to an offset in the code."""
        self.code += bytes((0x70 | condition, _short(target - len(self.code) - 2)))

    # Moves

    def load(self, register: int, base: int, displacement: int) -> None:
        """mov register, [base + displacement], 64 bits."""
        self.code += _memory(W, b"\x8b", register, base, displacement)

    def store(self, base: int, displacement: int, register: int) -> None:
        """mov [base + displacement], register, 64 bits."""
        self.code += _memory(W, b"\x89", register, base, displacement)

    def store_word(self, base: int, displacement: int, value: int) -> None:
        """mov qword [base + displacement], value (signed 32 bits)."""
        self.code += _memory(W, b"\xc7", 0, base, displacement)
        self.code += _I32.pack(value)

    def store_half(self, base: int, displacement: int, value: int) -> None:
        """mov dword [base + displacement], value (signed 32 bits)."""
        self.code += _memory(0, b"\xc7", 0, base, displacement)
        self.code += _I32.pack(value)

    def move(self, to: int, source: int) -> None:
        """mov to, source."""
        self.code += _registers(W, b"\x8b", to, source)

    def constant(self, register: int, value: int) -> None:
        """Load a 64-bit number; flags are kept."""
        value &= 0xFFFFFFFFFFFFFFFF
        if value < 1 << 32:
            self.code += (
                (b"\x41" if register > 7 else b"") + bytes((0xB8 | register & 7,)) + value.to_bytes(4, "little")
            )
        elif value >= 0xFFFFFFFF80000000:
            self.code += _registers(W, b"\xc7", 0, register) + _I32.pack(value - (1 << 64))
        else:
            self.code += bytes((0x49 if register > 7 else 0x48, 0xB8 | register & 7)) + _I64.pack(value)

    def load_sized(self, register: int, base: int, displacement: int, size: int, *, signed: bool) -> None:
        """Load 1, 2, 4 or 8 bytes, extended."""
        rex, opcode = _LOADS[size, signed]
        self.code += _memory(rex, opcode, register, base, displacement)

    def store_sized(self, base: int, displacement: int, register: int, size: int) -> None:
        """Store the low 1, 2, 4 or 8 bytes."""
        if size == 1 and 4 <= register < 8:  # without REX these numbers are AH ... BH
            self.code += b"\x40" if base < 8 else b""
        rex, opcode = _STORES[size]
        self.code += _memory(rex, opcode, register, base, displacement)

    def extend(self, to: int, source: int, bits: int, *, signed: bool) -> None:
        """Extend the low 8, 16 or 32 bits to 64."""
        rex, opcode = _EXTENDS[bits, signed]
        self.code += _registers(rex, opcode, to, source)

    def address(self, to: int, base: int, displacement: int) -> None:
        """lea to, [base + displacement]."""
        self.code += _memory(W, b"\x8d", to, base, displacement)

    def address_of_sum(self, to: int, one: int, other: int) -> None:
        """lea to, [one + other]; `other` must not be RSP."""
        rex = 0x48 | (to >> 3) << 2 | (other >> 3) << 1 | one >> 3
        sib = (other & 7) << 3 | one & 7
        if one & 7 == 5:
            self.code += bytes((rex, 0x8D, 0x44 | (to & 7) << 3, sib, 0))
        else:
            self.code += bytes((rex, 0x8D, 0x04 | (to & 7) << 3, sib))

    def address_of_code(self, to: int, target: int) -> None:
        """lea to, [rip + ...]: the address of an offset in the code."""
        self.code += bytes((0x4C if to > 7 else 0x48, 0x8D, 0x05 | (to & 7) << 3, 0, 0, 0, 0))
        self.aim(len(self.code) - 4, target)

    # Arithmetic

    def arithmetic(self, operation: int, to: int, source: int) -> None:
        """`to` op= `source`; flags are set."""
        self.code += _registers(W, bytes((8 * operation + 3,)), to, source)

    def arithmetic_immediate(self, operation: int, to: int, value: int) -> None:
        """`to` op= a signed 32-bit number."""
        if -128 <= value < 128:
            self.code += _registers(W, b"\x83", operation, to) + bytes((value & 255,))
        else:
            self.code += _registers(W, b"\x81", operation, to) + _I32.pack(value)

    def arithmetic_memory(self, operation: int, to: int, base: int, displacement: int) -> None:
        """`to` op= qword [base + displacement]."""
        self.code += _memory(W, bytes((8 * operation + 3,)), to, base, displacement)

    def compare_half(self, base: int, displacement: int, value: int) -> None:
        """cmp dword [base + displacement], a signed 8-bit number."""
        self.code += _memory(0, b"\x83", 7, base, displacement) + bytes((value & 255,))

    def test(self, one: int, other: int) -> None:
        """test one, other."""
        self.code += _registers(W, b"\x85", other, one)

    def test_immediate(self, register: int, value: int) -> None:
        """test register, a number of 31 bits."""
        self.code += _registers(0, b"\xf7", 0, register) + _I32.pack(value)

    def multiply(self, to: int, source: int) -> None:
        """imul to, source."""
        self.code += _registers(W, b"\x0f\xaf", to, source)

    def multiply_wide(self, source: int, *, signed: bool) -> None:
        """rdx:rax = rax * source."""
        self.code += _registers(W, b"\xf7", 5 if signed else 4, source)

    def divide(self, source: int, *, signed: bool) -> None:
        """rax, rdx = quotient and rest of rdx:rax by source."""
        self.code += _registers(W, b"\xf7", 7 if signed else 6, source)

    def spread_sign(self) -> None:
        """cqo: rdx becomes the sign of rax."""
        self.code += b"\x48\x99"

    def shift(self, kind: int, to: int, count: int) -> None:
        """Shift by a constant 0..63."""
        self.code += _registers(W, b"\xc1", kind, to) + bytes((count,))

    def shift_by_cl(self, kind: int, to: int) -> None:
        """Shift by CL."""
        self.code += _registers(W, b"\xd3", kind, to)

    def shift_by(self, kind: int, to: int, source: int, count: int) -> None:
        """shlx, shrx, sarx to, source, count (BMI2)."""
        prefix = {SHL: 1, SHR: 3, SAR: 2}[kind]
        self._vex(2, prefix, 0xF7, to, count, source, wide=True)

    def count(self, opcode: int, to: int, source: int, *, wide: bool) -> None:
        """popcnt (B8), tzcnt (BC), lzcnt (BD)."""
        self.code += _registers(W if wide else 0, b"\xf3|\x0f" + bytes((opcode,)), to, source)

    def swap_bytes(self, register: int) -> None:
        """bswap register."""
        self.code += bytes((0x49 if register > 7 else 0x48, 0x0F, 0xC8 | register & 7))

    def set_if(self, condition: int, register: int) -> None:
        """setcc; movzx to 64 bits."""
        rex = 0x41 if register > 7 else 0x40
        self.code += bytes((rex, 0x0F, 0x90 | condition, 0xC0 | register & 7))
        self.code += (
            _registers(0, b"\x0f\xb6", register, register)
            if register not in (4, 5, 6, 7)
            else bytes((0x40, 0x0F, 0xB6, 0xC0 | register << 3 | register))
        )

    def move_if(self, condition: int, to: int, source: int) -> None:
        """cmovcc to, source."""
        self.code += _registers(W, bytes((0x0F, 0x40 | condition)), to, source)

    def load_if(self, condition: int, to: int, base: int, displacement: int) -> None:
        """cmovcc to, [base + displacement]; the memory is read in any case."""
        self.code += _memory(W, bytes((0x0F, 0x40 | condition)), to, base, displacement)

    # Atomic

    def exchange(self, base: int, register: int, size: int) -> None:
        """xchg [base], register."""
        self.code += _memory(W if size == 8 else 0, b"\x87", register, base, 0)

    def exchange_add(self, base: int, register: int, size: int) -> None:
        """lock xadd [base], register."""
        self.code += b"\xf0" + _memory(W if size == 8 else 0, b"\x0f\xc1", register, base, 0)

    def compare_exchange(self, base: int, register: int, size: int) -> None:
        """lock cmpxchg [base], register: against RAX."""
        self.code += b"\xf0" + _memory(W if size == 8 else 0, b"\x0f\xb1", register, base, 0)

    def fence(self) -> None:
        """mfence."""
        self.code += b"\x0f\xae\xf0"

    # Control

    def decrement_counter(self, distance: int) -> None:
        """dec dword [rip + distance], the distance from the end of the instruction."""
        self.code += b"\xff\x0d" + _I32.pack(distance)

    def load_indexed_by_four(self, to: int, base: int, index: int) -> None:
        """mov to, [base + index * 4]."""
        rex = 0x48 | (to >> 3) << 2 | (index >> 3) << 1 | base >> 3
        self.code += bytes((rex, 0x8B, 0x04 | (to & 7) << 3, 0x80 | (index & 7) << 3 | base & 7))

    def jump_to(self, register: int) -> None:
        """jmp register."""
        self.code += _registers(0, b"\xff", 4, register)

    def jump_through(self, base: int, displacement: int) -> None:
        """jmp [base + displacement]."""
        self.code += _memory(0, b"\xff", 4, base, displacement)

    def call(self, register: int) -> None:
        """call register."""
        self.code += _registers(0, b"\xff", 2, register)

    def call_through(self, base: int, displacement: int) -> None:
        """call [base + displacement]."""
        self.code += _memory(0, b"\xff", 2, base, displacement)

    def push(self, register: int) -> None:
        """push register."""
        self.code += bytes((0x41, 0x50 | register & 7) if register > 7 else (0x50 | register,))

    def pop(self, register: int) -> None:
        """pop register."""
        self.code += bytes((0x41, 0x58 | register & 7) if register > 7 else (0x58 | register,))

    def back(self) -> None:
        """ret."""
        self.code.append(0xC3)

    # Scalar floating point

    def vector_load(self, register: int, base: int, displacement: int, *, double: bool) -> None:
        """movsd or movss register, [base + displacement]."""
        self.code += _memory(0, b"\xf2|\x0f\x10" if double else b"\xf3|\x0f\x10", register, base, displacement)

    def vector_store(self, base: int, displacement: int, register: int, *, double: bool) -> None:
        """movsd or movss [base + displacement], register."""
        self.code += _memory(0, b"\xf2|\x0f\x11" if double else b"\xf3|\x0f\x11", register, base, displacement)

    def vector_move(self, to: int, source: int) -> None:
        """movaps to, source."""
        self.code += _registers(0, b"\x0f\x28", to, source)

    def vector_zero(self, register: int) -> None:
        """xorps register, register."""
        self.code += _registers(0, b"\x0f\x57", register, register)

    def vector_scalar(self, opcode: int, to: int, source: int, *, double: bool) -> None:
        """An operation: 51 sqrt, 58 add, 59 mul, 5A convert to the other format, 5C sub, 5D min, 5E div, 5F max."""
        self.code += _registers(0, (b"\xf2|\x0f" if double else b"\xf3|\x0f") + bytes((opcode,)), to, source)

    def vector_logic(self, opcode: int, to: int, source: int) -> None:
        """andps (54), orps (56)."""
        self.code += _registers(0, b"\x0f" + bytes((opcode,)), to, source)

    def vector_compare(self, one: int, other: int, *, double: bool, signals: bool) -> None:
        """ucomis or, where a quiet NaN is to signal, comis."""
        opcode = b"\x0f\x2f" if signals else b"\x0f\x2e"
        self.code += _registers(0, b"\x66|" + opcode if double else opcode, one, other)

    def vector_from_integer(self, to: int, source: int, *, double: bool, wide: bool) -> None:
        """cvtsi2sd, cvtsi2ss."""
        self.code += _registers(W if wide else 0, b"\xf2|\x0f\x2a" if double else b"\xf3|\x0f\x2a", to, source)

    def vector_to_integer(self, to: int, source: int, *, double: bool, wide: bool, truncate: bool) -> None:
        """cvttsd2si, cvtsd2si and the like."""
        opcode = (b"\xf2|\x0f" if double else b"\xf3|\x0f") + (b"\x2c" if truncate else b"\x2d")
        self.code += _registers(W if wide else 0, opcode, to, source)

    def vector_round(self, to: int, source: int, mode: int, *, double: bool) -> None:
        """roundsd, roundss (SSE4.1): `mode` 0..3 as MXCSR's RC, or 4 for what that says; + 8 does not flag inexact."""
        self.code += _registers(0, b"\x66|\x0f\x3a\x0b" if double else b"\x66|\x0f\x3a\x0a", to, source)
        self.code.append(mode)

    def vector_from_bits(self, to: int, source: int) -> None:
        """movq to, source: the bits of a general register."""
        self.code += _registers(W, b"\x66|\x0f\x6e", to, source)

    def bits_of_vector(self, to: int, source: int, *, double: bool) -> None:
        """movq or movd to, source: into a general register, extended with zeros."""
        self.code += _registers(W if double else 0, b"\x66|\x0f\x7e", source, to)

    def store_control(self, base: int, displacement: int) -> None:
        """stmxcsr [base + displacement]."""
        self.code += _memory(0, b"\x0f\xae", 3, base, displacement)

    def load_control(self, base: int, displacement: int) -> None:
        """ldmxcsr [base + displacement]."""
        self.code += _memory(0, b"\x0f\xae", 2, base, displacement)

    def vector_fused(self, opcode: int, to: int, one: int, other: int, *, double: bool) -> None:
        """vfmadd213 (A9), vfmsub213 (AB), vfnmadd213 (AD), vfnmsub213 (AF): to = ±(one * to) ± other (FMA3)."""
        self._vex(2, 1, opcode, to, one, other, wide=double)

    def _vex(self, space: int, prefix: int, opcode: int, register: int, vector: int, other: int, *, wide: bool) -> None:
        first = (0x80 if register < 8 else 0) | 0x40 | (0x20 if other < 8 else 0) | space
        second = (0x80 if wide else 0) | (~vector & 15) << 3 | prefix
        self.code += bytes((0xC4, first, second, opcode, 0xC0 | (register & 7) << 3 | other & 7))


_LOADS: Final = {
    (1, False): (0, b"\x0f\xb6"), (1, True): (W, b"\x0f\xbe"), (2, False): (0, b"\x0f\xb7"),
    (2, True): (W, b"\x0f\xbf"), (4, False): (0, b"\x8b"), (4, True): (W, b"\x63"),
    (8, False): (W, b"\x8b"), (8, True): (W, b"\x8b"),
}  # fmt: skip
_STORES: Final = {1: (0, b"\x88"), 2: (0, b"\x66|\x89"), 4: (0, b"\x89"), 8: (W, b"\x89")}
_EXTENDS: Final = {
    (8, False): (W, b"\x0f\xb6"), (8, True): (W, b"\x0f\xbe"), (16, False): (W, b"\x0f\xb7"),
    (16, True): (W, b"\x0f\xbf"), (32, False): (0, b"\x8b"), (32, True): (W, b"\x63"),
}  # fmt: skip


def host_has(*names: str) -> bool:
    """Whether the host's processor has all of these features, as /proc/cpuinfo names them."""
    return _features().issuperset(names)


@lru_cache(maxsize=1)
def _features() -> frozenset[str]:
    with open("/proc/cpuinfo") as stream:
        for line in stream:
            if line.startswith("flags"):
                return frozenset(line.partition(":")[2].split())
    return frozenset()

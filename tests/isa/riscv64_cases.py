"""Small test cases for a riscv64 processor, made at random: single instructions with chosen operands, and sequences."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.isa.riscv64_encodings import ATOMICS, CONTROL, FLOATING, INTEGER, JUMPS, LOADS, RESERVATIONS, STORES, encode
from tests.isa.riscv64_harness import CODE, DATA, DATA_BYTES

ONES: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Case:
    """Code that lies at CODE, and the state to begin with; `x` and `f` have 32 registers each."""

    name: str
    code: bytes
    x: tuple[int, ...]
    f: tuple[int, ...]
    fcsr: int
    data: bytes

    def __str__(self) -> str:
        return f"{self.name} {self.code.hex(' ', 2)}"


WORDS: Final = (
    0, 1, 2, 3, 31, 32, 63, 64, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 2**31, 2**64 - 2**31 - 1, 2**64 - 2, ONES,
)  # fmt: skip
DOUBLES: Final = (
    0, 1, 2**52 - 1, 2**52, 2**52 + 1, 0x3FE0000000000000, 0x3FEFFFFFFFFFFFFF, 0x3FF0000000000000, 0x3FF8000000000000,
    0x4000000000000000, 0x41DFFFFFFFC00000, 0x41DFFFFFFFE00000, 0x41E0000000000000, 0x41EFFFFFFFF00000,
    0x43DFFFFFFFFFFFFF, 0x43E0000000000000, 0x43EFFFFFFFFFFFFF, 0x43F0000000000000, 0x47EFFFFFE0000000,
    0x47EFFFFFEFFFFFFF, 0x47EFFFFFF0000000, 0x380FFFFFFFFFFFFF, 0x36A0000000000000, 0x7FEFFFFFFFFFFFFF,
    0x7FF0000000000000, 0x7FF8000000000000, 0x7FF0000000000001, 0x7FFFFFFFFFFFFFFF,
)  # fmt: skip
"""Zero, least and greatest subnormal and normal, around one, at the ends of integers and of singles, infinity, NaN."""
SINGLES: Final = (
    0, 1, 2**23 - 1, 2**23, 2**23 + 1, 0x3F000000, 0x3F7FFFFF, 0x3F800000, 0x3FC00000, 0x40000000, 0x4EFFFFFF,
    0x4F000000, 0x4F7FFFFF, 0x4F800000, 0x5EFFFFFF, 0x5F000000, 0x5F7FFFFF, 0x5F800000, 0x7F7FFFFF, 0x7F800000,
    0x7FC00000, 0x7F800001, 0x7FFFFFFF,
)  # fmt: skip
WRONG_IN_QEMU: Final = "ctzw"
"""Up to version 7.2 it looks beyond the low 32 bits where these are all zero."""
FAR: Final = (0, 8, 1 << 37, 1 << 63, ONES - 7)
"""Addresses with nothing there."""
BOX: Final = 0xFFFFFFFF00000000


def word(random: Random) -> int:
    """An integer: one at an edge, near one, a small one, or any."""
    kind = random.randrange(4)
    if kind == 0:
        return random.choice(WORDS)
    if kind == 1:
        return random.choice(WORDS) + random.randrange(-3, 4) & ONES
    if kind == 2:
        return random.getrandbits(random.randrange(1, 65))
    return random.getrandbits(64)


def floating(random: Random, *, double: bool) -> int:
    """A register's bits: a special number, one near another's size, or any; a single is seldom not boxed."""
    width, fraction, known = (64, 52, DOUBLES) if double else (32, 23, SINGLES)
    kind = random.randrange(5)
    if kind == 0:
        bits = random.choice(known)
    elif kind == 1:
        bits = random.getrandbits(width - 1)
    elif kind == 2:  # few bits set: exact results, and ties
        bits = random.getrandbits(width - 1 - fraction) << fraction | 1 << random.randrange(fraction)
    else:  # about one or, seldom, the least, so that operands meet
        middle = (1 << width - 2 - fraction) - 1 if random.randrange(8) else 2
        distance = 2 if random.randrange(2) else fraction + 3
        exponent = max(0, middle + random.randrange(-distance, distance + 1))
        full = (1 << fraction) - 1
        fractions = (random.getrandbits(fraction), random.getrandbits(3) << fraction - 3, random.getrandbits(2))
        bits = exponent << fraction | random.choice((*fractions, full, full & ~random.getrandbits(2)))
    bits |= random.getrandbits(1) << width - 1
    if double:
        return bits
    return bits | (BOX if random.randrange(16) else random.getrandbits(32) << 32)


def cases(names: Iterable[str], *, count: int, seed: int) -> list[Case]:
    """So many cases of each instruction named (see riscv64_encodings), always the same ones for a seed."""
    random = Random(seed)
    return [case(name, random) for name in names for _ in range(count)]


def case(name: str, random: Random) -> Case:
    """One case: operands at random, addresses such that most accesses fall into the page of data."""
    x = [0, *(word(random) for _ in range(31))]
    doubles = [name.endswith(".d") or ".d." in name or name == "fsd"] * 32
    f = [floating(random, double=double) for double in doubles]
    fields: dict[str, int] = {}
    if random.randrange(32):
        fields["rm"] = random.choice((0, 1, 2, 3, 4, 4, 7, 7, 7))
    data = random.randbytes(64) * (DATA_BYTES // 64)
    if name in LOADS or name in STORES or name in ATOMICS or name in RESERVATIONS:
        fields["rs1"] = random.randrange(1, 32)
    code = encode(name, random, **fields)
    while name in JUMPS and _loops(name, code):
        code = encode(name, random, **fields)
    if "rs1" in fields:
        x[fields["rs1"]] = _address(name, code, random)
    elif name == "jalr" and code >> 15 & 31:
        near = (CODE - 1000 + random.randrange(1000), CODE + 2 + random.randrange(1000))
        target = random.choice(near * 2 + FAR)
        x[code >> 15 & 31] = target - ((code >> 20 ^ 0x800) - 0x800) & ONES  # anywhere but to itself
    if name == WRONG_IN_QEMU:
        x = [value | 1 << 31 for value in x]
        x[0] = 0
        code |= 1 << 15
    fcsr = random.choice((0, 0, 0, 1, 2, 3, 4, random.randrange(8))) << 5 | random.choice((0, 1, random.getrandbits(5)))
    return Case(name, code.to_bytes(4, "little"), tuple(x), tuple(f), fcsr, data)


def _loops(name: str, code: int) -> bool:
    """Whether it jumps to itself."""
    return (name == "jal" and not code >> 12) or (name.startswith("b") and not code & 0xFE000F80)


def _address(name: str, code: int, random: Random) -> int:
    """What rs1 must hold for the access to fall into the page of data, at its edges, or far from it."""
    offset = code >> 20 if name in LOADS else code >> 25 << 5 | code >> 7 & 31 if name in STORES else 0
    offset = (offset ^ 0x800) - 0x800
    kind = random.randrange(16)
    if kind == 0:
        target = DATA + random.choice((-8, -4, -1, DATA_BYTES - 8, DATA_BYTES - 4, DATA_BYTES - 1, DATA_BYTES))
    elif kind == 1:
        target = random.choice(FAR)
    else:
        target = DATA + random.randrange(DATA_BYTES - 8)
        if kind > 4 or name in RESERVATIONS:
            target &= ~7
    if name in RESERVATIONS and kind == 0:
        target &= ~7
    return target - offset & ONES


def sequences(count: int, *, seed: int, length: int = 40) -> list[Case]:
    """Cases of up to so many instructions: computing, memory, branches forwards, and a loop around a part of them."""
    random = Random(seed)
    return [_sequence(random, length) for _ in range(count)]


BASE_REGISTER, LOOP_REGISTER, ADDRESS_REGISTER = 3, 4, 5
"""What sequences keep: the middle of the page of data, the loop's count, an aligned address in the page."""
_COMPUTING: Final = tuple(name for name in (*INTEGER, *FLOATING, *CONTROL) if name != WRONG_IN_QEMU)
_PLAIN: Final = ("add", "addi", "sub", "and", "andi", "slli", "srli", "sltu", "addw", "mul", "lui", "auipc")
_FREE: Final[tuple[int, ...]] = (0, *range(6, 16))
_AIMED: Final = (*LOADS, *STORES)


def _sequence(random: Random, length: int) -> Case:
    def free() -> int:
        return random.choice(_FREE)

    def computing() -> list[int]:
        # rounding modes other than the dynamic one are rare in programs; here they are not
        mode = random.choice((0, 1, 2, 3, 4, 7, 7, 7, 7))
        name = random.choice(_COMPUTING if random.randrange(3) else _PLAIN)
        if name in CONTROL and "fflags" not in name and random.randrange(4):
            name = "csrrs fflags"  # seldom another rounding mode: invalid ones end a sequence
        return [encode(name, random, rd=free(), rs1=free(), rs2=free(), rs3=free(), rm=mode)]

    def memory() -> list[int]:
        return [encode(random.choice(_AIMED), random, rd=free(), rs1=BASE_REGISTER, rs2=free())]

    def atomic() -> list[int]:
        name = random.choice(tuple(ATOMICS))
        return [encode(name, random, rd=free(), rs1=ADDRESS_REGISTER, rs2=free())]

    def reserved() -> list[int]:
        width = random.choice((".w", ".d"))
        between = computing() if random.randrange(2) else []
        return [
            encode("lr" + width, random, rd=free(), rs1=ADDRESS_REGISTER),
            *between,
            encode("sc" + width, random, rd=free(), rs1=ADDRESS_REGISTER, rs2=free()),
        ]

    makers = (computing, computing, computing, computing, memory, memory, atomic, reserved)
    codes: list[int] = []
    while len(codes) < length:
        if random.randrange(8):
            codes += random.choice(makers)()
        else:
            skipped = [code for _ in range(random.randrange(3)) for code in computing()]
            codes += [_branch(random, free(), free(), 4 + 4 * len(skipped)), *skipped]
    start = random.randrange(len(codes))
    rest = codes[start:]
    if start and any(code & 0x7F == 0x63 for code in codes[max(0, start - 3) : start]):
        start, rest = 0, codes  # not into the middle of what a branch skips
    back = -4 * (len(rest) + 1)
    loop = [
        *rest,
        (-1 & 0xFFF) << 20 | LOOP_REGISTER << 15 | LOOP_REGISTER << 7 | 0x13,  # addi
        _branch_code(1, LOOP_REGISTER, 0, back),
    ]
    codes = codes[:start] + loop
    x = [0, *(word(random) for _ in range(31))]
    x[BASE_REGISTER], x[LOOP_REGISTER] = DATA + DATA_BYTES // 2, random.randrange(1, 5)
    x[ADDRESS_REGISTER] = DATA + 8 * random.randrange(DATA_BYTES // 8)
    f = tuple(floating(random, double=bool(random.randrange(2))) for _ in range(32))
    code = b"".join(code.to_bytes(4, "little") for code in codes)
    fcsr = random.randrange(5) << 5 | random.choice((0, 1))
    data = random.randbytes(64) * (DATA_BYTES // 64)
    return Case("sequence", code, tuple(x), f, fcsr, data)


def _branch(random: Random, rs1: int, rs2: int, offset: int) -> int:
    return _branch_code(random.choice((0, 1, 4, 5, 6, 7)), rs1, rs2, offset)


def _branch_code(funct3: int, rs1: int, rs2: int, offset: int) -> int:
    high = (offset >> 12 & 1) << 6 | offset >> 5 & 63
    low = offset >> 1 & 15
    return high << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | low << 8 | (offset >> 11 & 1) << 7 | 0x63

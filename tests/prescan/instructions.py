"""Generated i386 instructions for comparing evaluators, and which flags each leaves undefined.

Source of the table: Intel SDM volume 1, appendix A ("EFLAGS cross-reference") and the instructions' own pages.
"""

from hypothesis import strategies as st
from iced_x86 import Decoder, Instruction, Mnemonic

from tests.prescan.machine import DATA_AT
from virtus.vcpus.scanned.cpu_state import AF, CF, OF, PF, SF, ZF

M = Mnemonic
ALL = CF | PF | AF | ZF | SF | OF
UNDEFINED = {
    M.AND: AF, M.OR: AF, M.XOR: AF, M.TEST: AF,
    M.MUL: SF | ZF | AF | PF, M.IMUL: SF | ZF | AF | PF, M.DIV: ALL, M.IDIV: ALL,
    M.AAA: OF | SF | ZF | PF, M.AAS: OF | SF | ZF | PF, M.AAM: OF | AF | CF, M.AAD: OF | AF | CF,
    M.DAA: OF, M.DAS: OF,
    M.BSF: CF | OF | SF | AF | PF, M.BSR: CF | OF | SF | AF | PF,
    M.BT: OF | SF | AF | PF, M.BTS: OF | SF | AF | PF, M.BTR: OF | SF | AF | PF, M.BTC: OF | SF | AF | PF,
}  # fmt: skip
SHIFTS = frozenset({M.SHL, M.SAL, M.SHR, M.SAR})
ROTATES = frozenset({M.ROL, M.ROR, M.RCL, M.RCR})
BIT_TESTS = frozenset({M.BT, M.BTS, M.BTR, M.BTC})
DOUBLE_SHIFTS = frozenset({M.SHLD, M.SHRD})

# opcode bytes, whether ModR/M follows (its reg field, where that is part of the opcode), bytes of immediate (Z: 2 or 4)
Z = -1
ANY = None
WITH_MODRM: list[tuple[str, tuple[int, ...] | None, int]] = [
    *((f"{base + form:02x}", ANY, 0) for base in range(0, 0x40, 8) for form in range(4)),
    ("80", tuple(range(8)), 1), ("81", tuple(range(8)), Z), ("83", tuple(range(8)), 1),
    ("84", ANY, 0), ("85", ANY, 0), ("86", ANY, 0), ("87", ANY, 0), ("88", ANY, 0), ("89", ANY, 0), ("8a", ANY, 0),
    ("8b", ANY, 0), ("69", ANY, Z), ("6b", ANY, 1), ("c6", (0,), 1), ("c7", (0,), Z), ("8f", (0,), 0),
    *((opcode, tuple(range(8)), 1) for opcode in ("c0", "c1")),
    *((opcode, tuple(range(8)), 0) for opcode in ("d0", "d1", "d2", "d3")),
    ("f6", (0,), 1), ("f6", (2, 3, 4, 5, 6, 7), 0), ("f7", (0,), Z), ("f7", (2, 3, 4, 5, 6, 7), 0),
    ("fe", (0, 1), 0), ("ff", (0, 1, 6), 0), ("0faf", ANY, 0),
    *((f"0f{opcode:02x}", ANY, 0) for opcode in (0xA3, 0xAB, 0xB3, 0xBB, 0xB6, 0xB7, 0xBE, 0xBF, 0xBC, 0xBD)),
    *((f"0f{opcode:02x}", ANY, 0) for opcode in (0xB0, 0xB1, 0xC0, 0xC1, 0xA5, 0xAD)),
    ("0fa4", ANY, 1), ("0fac", ANY, 1), ("0fba", (4, 5, 6, 7), 1), ("0fc7", (1,), 0),
    *((f"0f{0x40 + condition:02x}", ANY, 0) for condition in range(16)),
    *((f"0f{0x90 + condition:02x}", ANY, 0) for condition in range(16)),
    ("8d", ANY, 0), ("c4", ANY, 0), ("62", ANY, 0),
]  # fmt: skip
PLAIN: list[tuple[str, int]] = [
    *((f"{base + form:02x}", 1 if form == 4 else Z) for base in range(0, 0x40, 8) for form in (4, 5)),
    *((f"{opcode:02x}", 0) for opcode in (*range(0x40, 0x60), 0x60, 0x61, *range(0x90, 0x9A), 0x9C)),
    ("27", 0), ("2f", 0), ("37", 0), ("3f", 0), ("d4", 1), ("d5", 1), ("d6", 0), ("9e", 0), ("9f", 0), ("d7", 0),
    ("68", Z), ("6a", 1), ("c9", 0), ("a8", 1), ("a9", Z), ("c3", 0), ("f5", 0), ("f8", 0), ("f9", 0), ("fc", 0),
    *((f"{opcode:02x}", 0) for opcode in (0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE, 0xAF)),
    *((f"{opcode:02x}", 1) for opcode in range(0xB0, 0xB8)), *((f"{opcode:02x}", Z) for opcode in range(0xB8, 0xC0)),
    *((f"0f{opcode:02x}", 0) for opcode in range(0xC8, 0xD0)),
    *((f"{opcode:02x}", 1) for opcode in (*range(0x70, 0x80), 0xE0, 0xE1, 0xE2, 0xE3, 0xEB)),
    *((f"0f{opcode:02x}", Z) for opcode in range(0x80, 0x90)), ("e8", Z), ("e9", Z),
]  # fmt: skip


@st.composite
def instructions(draw: st.DrawFn, bits: int) -> bytes:
    """Bytes of one instruction that touches registers, and memory about DATA_AT alone."""
    wide = bits == 32
    prefix = b""
    if draw(st.booleans()):
        prefix, wide = b"\x66", not wide
    scales = (0x33, 0x73, 0xB3, 0xF3) if bits == 32 else (0x33,)  # 1, 2, 4 and 8; segments of 64 KiB end soon
    long_address = bits == 32
    if draw(st.integers(0, 3)) == 0:
        prefix, long_address = prefix + b"\x67", not long_address
    if draw(st.integers(0, 3)) == 0:
        prefix += draw(st.sampled_from((b"\x26", b"\x36", b"\x3e", b"\x64", b"\x65")))
    if draw(st.booleans()):
        opcode, extensions, immediate = draw(st.sampled_from(WITH_MODRM))
        reg = draw(st.sampled_from(extensions) if extensions else st.integers(0, 7))
        memory = draw(st.booleans()) or opcode in ("8d", "0fc7", "c4", "62")
        if opcode == "c4":  # LES loads a segment; LEA stands for its form here
            opcode = "8d"
        if not memory:
            modrm = bytes([0xC0 | reg << 3 | draw(st.integers(0, 7))])
        elif long_address:
            displacement = draw(st.integers(0, 0x80)).to_bytes(4, "little")
            if draw(st.booleans()):
                modrm = bytes([0x83 | reg << 3]) + displacement  # [ebx + displacement]
            else:
                modrm = bytes([0x84 | reg << 3, draw(st.sampled_from(scales))]) + displacement
        else:
            modrm = bytes([0x87 | reg << 3]) + draw(st.integers(0, 0x80)).to_bytes(2, "little")  # [bx + displacement]
        body = bytes.fromhex(opcode) + modrm
    else:
        opcode, immediate = draw(st.sampled_from(PLAIN))
        body = bytes.fromhex(opcode)
        if opcode in ("a4", "a5", "aa", "ab", "ac", "ad", "a6", "a7", "ae", "af"):
            prefix += draw(st.sampled_from((b"", b"\xf3", b"\xf2")))
        if opcode in ("e8", "e9") or (opcode.startswith("0f8") and immediate):
            distance = draw(st.integers(-0x100, 0x100))
            return prefix + body + distance.to_bytes(4 if wide else 2, "little", signed=True)
    size = (4 if wide else 2) if immediate == Z else immediate
    return prefix + body + draw(st.binary(min_size=size, max_size=size))


@st.composite
def registers(draw: st.DrawFn, bits: int) -> list[int]:
    """Eight registers: EBX, ESI and EDI lead to data, ECX counts a few."""
    any32 = st.one_of(st.integers(0, 0xFFFFFFFF), st.sampled_from((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF)))
    found = [draw(any32) for _ in range(8)]
    found[1] = draw(st.one_of(any32.map(lambda value: value & 0xFFFFFF00), st.just(0))) | draw(st.integers(0, 40))
    found[3] = DATA_AT + 0x400
    found[4] = 0x7F00
    found[5] = 0x7E00 if draw(st.booleans()) else found[5] & 0x7FF0
    found[6], found[7] = DATA_AT + draw(st.integers(0, 0x40)), DATA_AT + 0x200 + draw(st.integers(0, 0x40))
    if draw(st.booleans()):
        found[6] = draw(st.integers(0, 0x100))  # an index
    return found


def decoded(code: bytes, bits: int) -> Instruction:
    """One instruction."""
    return Decoder(bits, code).decode()


def undefined_flags(instruction: Instruction, counter: int) -> int:
    """Which flags an instruction leaves undefined; `counter` is CL."""
    mnemonic = instruction.mnemonic
    if mnemonic in SHIFTS | ROTATES | DOUBLE_SHIFTS:
        last = instruction.op_count - 1
        kind = instruction.op_kind(last)
        count = (counter if kind == 0 else instruction.immediate(last)) & 31
        if not count:
            return 0
        found = 0 if mnemonic in ROTATES else AF
        if count != 1:
            found |= OF
        bits = 8 * _size(instruction)
        if mnemonic in DOUBLE_SHIFTS and count > bits:
            found |= ALL
        if mnemonic in (M.SHL, M.SAL, M.SHR) and count >= bits:
            found |= CF
        return found
    return UNDEFINED.get(mnemonic, 0)


def undefined_result(instruction: Instruction, counter: int) -> bool:
    """Whether the result itself is: a double shift of 16 bits by more than 16."""
    if instruction.mnemonic not in DOUBLE_SHIFTS or _size(instruction) == 4:
        return instruction.mnemonic == M.BSWAP and _size(instruction) == 2
    count = (counter if instruction.op_kind(2) == 0 else instruction.immediate(2)) & 31
    return count > 16


def _size(instruction: Instruction) -> int:
    from iced_x86 import MemorySizeExt, OpKind, RegisterExt

    if instruction.op_kind(0) == OpKind.REGISTER:
        return RegisterExt.size(instruction.op0_register)
    return MemorySizeExt.size(instruction.memory_size)

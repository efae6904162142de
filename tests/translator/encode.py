"""Encodings of a few RISC-V instructions, for guests of tests that are written by hand."""

import struct

ZERO, RA, SP, T0, T1, T2, S0, S1, A0, A1, A2, A7, S2 = 0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 17, 18
ECALL, EBREAK, RET, FENCE_I, ILLEGAL = 0x00000073, 0x00100073, 0x00008067, 0x0000100F, 0xFFFFFFFF


def addi(rd: int, rs1: int, immediate: int) -> int:
    """rd = rs1 + immediate (12 bits, signed)."""
    return (immediate & 0xFFF) << 20 | rs1 << 15 | rd << 7 | 0x13


def lui(rd: int, value: int) -> int:
    """rd = value, whose low 12 bits are dropped."""
    return value & 0xFFFFF000 | rd << 7 | 0x37


def add(rd: int, rs1: int, rs2: int) -> int:
    """rd = rs1 + rs2."""
    return rs2 << 20 | rs1 << 15 | rd << 7 | 0x33


def load(rd: int, base: int, offset: int = 0) -> int:
    """ld rd, offset(base)."""
    return (offset & 0xFFF) << 20 | base << 15 | 3 << 12 | rd << 7 | 0x03


def store(rs2: int, base: int, offset: int = 0, size: int = 8) -> int:
    """sd rs2, offset(base), or sw with size 4."""
    kind = {4: 2, 8: 3}[size]
    return (offset >> 5 & 0x7F) << 25 | rs2 << 20 | base << 15 | kind << 12 | (offset & 31) << 7 | 0x23


def branch(rs1: int, rs2: int, offset: int, kind: int = 1) -> int:
    """bne (or what `kind` says) to this instruction plus offset."""
    high = (offset >> 12 & 1) << 31 | (offset >> 5 & 63) << 25
    low = (offset >> 1 & 15) << 8 | (offset >> 11 & 1) << 7
    return high | rs2 << 20 | rs1 << 15 | kind << 12 | low | 0x63


def jal(rd: int, offset: int) -> int:
    """Jump to this instruction plus offset."""
    high = (offset >> 20 & 1) << 31 | (offset >> 1 & 1023) << 21
    return high | (offset >> 11 & 1) << 20 | (offset >> 12 & 255) << 12 | rd << 7 | 0x6F


def jalr(rd: int, rs1: int) -> int:
    """Jump to a register."""
    return rs1 << 15 | rd << 7 | 0x67


def code(*words: int) -> bytes:
    """Instructions in memory."""
    return struct.pack(f"<{len(words)}I", *words)

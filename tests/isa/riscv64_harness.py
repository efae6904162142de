"""A program for riscv64 Linux, made here by hand, that runs one small test case after the other and tells the outcome.

Every case ends in a signal: behind its code lie zeros, which are an illegal instruction wherever it may have jumped to.
The handler writes what it was called with (siginfo, and the registers in its ucontext) and the page of data to the
standard output, reads the next case to the same places from the standard input, and returns into it. So the program
itself saves and loads no register, and the kernel's, or the emulator's, way through a signal carries them all.
"""

import struct
from typing import Final

BASE: Final = 0x10000
CODE: Final = 0x600000
"""Where a case's code is put: in the middle of ZEROS."""
CODE_BYTES: Final = 256
ZEROS: Final = 0x400000
ZEROS_BYTES: Final = 0x400000
DATA: Final = 0x900000
"""A page of memory that is given with a case, and comes out after it; nothing is mapped on either side."""
DATA_BYTES: Final = 4096
SIGINFO: Final = struct.Struct("<iii4xQ")
MACHINE: Final = struct.Struct("<Q31Q32QQ")
"""PC, x1 to x31, f0 to f31, fcsr, as in struct sigcontext (arch/riscv/include/uapi/asm/sigcontext.h)."""
CASE_BYTES: Final = CODE_BYTES + MACHINE.size + DATA_BYTES
RESULT_BYTES: Final = SIGINFO.size + MACHINE.size + DATA_BYTES

_MACHINE_OFFSET: Final = 176
"""Of uc_mcontext in struct ucontext (arch/riscv/include/uapi/asm/ucontext.h)."""
_CODE_OFFSET: Final = 0x200
_VARIABLES: Final = BASE + 0x1000
_STACK: Final = 0x2A543000  # not where a stack pointer at random is likely to lie: it would be taken for this
_STACK_BYTES: Final = 0x10000
_READV, _WRITEV, _EXIT, _SIGALTSTACK, _SIGACTION = 65, 66, 93, 132, 134  # include/uapi/asm-generic/unistd.h
_SIGNALS: Final = (4, 5, 7, 11)  # SIGILL, SIGTRAP, SIGBUS, SIGSEGV
_SA_SIGINFO, _SA_ONSTACK, _SA_NODEFER = 4, 0x08000000, 0x40000000
_ZERO, _RA, _T0, _S0, _A0, _A1, _A2, _A3, _A7 = 0, 1, 5, 8, 10, 11, 12, 13, 17


def _li(rd: int, value: int) -> list[int]:
    """lui and addiw."""
    low = (value & 0xFFF ^ 0x800) - 0x800
    return [(value - low) & 0xFFFFF000 | rd << 7 | 0x37, low % 4096 << 20 | rd << 15 | rd << 7 | 0x1B]


def _addi(rd: int, rs1: int, value: int) -> list[int]:
    return [value % 4096 << 20 | rs1 << 15 | rd << 7 | 0x13]


def _sd(rs2: int, offset: int, rs1: int) -> list[int]:
    return [offset >> 5 << 25 | rs2 << 20 | rs1 << 15 | 3 << 12 | (offset & 31) << 7 | 0x23]


def _call(number: int, *arguments: int) -> list[int]:
    code: list[int] = []
    for register, argument in enumerate(arguments, _A0):
        code += _li(register, argument)
    return [*code, *_li(_A7, number), 0x73]


def program() -> bytes:
    """The ELF file."""
    action, stack, output, input = (_VARIABLES + offset for offset in (0, 32, 64, 128))
    start = _call(_SIGALTSTACK, stack, 0)
    for number in _SIGNALS:
        start += _call(_SIGACTION, number, action, 0, 8)
    start += [0x00100073]  # ebreak: into the handler
    handler = [
        *_addi(_S0, _A2, _MACHINE_OFFSET),
        *_li(_T0, _VARIABLES),
        *_sd(_A1, output - _VARIABLES, _T0),
        *_sd(_S0, output - _VARIABLES + 16, _T0),
        *_sd(_S0, input - _VARIABLES + 16, _T0),
        *_call(_WRITEV, 1, output, 3),
        *_call(_READV, 0, input, 3),
        0x00051663,  # bnez a0, .+12
        *_addi(_A7, _ZERO, _EXIT),
        0x73,
        *_li(_T0, _VARIABLES + 192),
        0x1802B02F,  # sc.d zero, zero, (t0): no reservation is left of the case before
        0x0000100F,  # fence.i
        0x00008067,  # ret
    ]
    code = struct.pack(f"<{len(start) + len(handler)}I", *start, *handler)
    variables = bytearray(256)
    flags = _SA_SIGINFO | _SA_ONSTACK | _SA_NODEFER
    struct.pack_into("<QQQ", variables, 0, BASE + _CODE_OFFSET + 4 * len(start), flags, 0)
    struct.pack_into("<QQQ", variables, 32, _STACK, 0, _STACK_BYTES)
    struct.pack_into("<QQQQQQ", variables, 64, 0, SIGINFO.size, 0, MACHINE.size, DATA, DATA_BYTES)
    struct.pack_into("<QQQQQQ", variables, 128, CODE, CODE_BYTES, 0, MACHINE.size, DATA, DATA_BYTES)
    return _elf(code, bytes(variables))


def _elf(code: bytes, variables: bytes) -> bytes:
    """An executable of four segments (ELF-64 Object File Format, 2 and 5), the first of which holds this file."""
    size = _VARIABLES - BASE + len(variables)
    segments = [
        (BASE, size, size),
        (_STACK, 0, _STACK_BYTES),
        (ZEROS, 0, ZEROS_BYTES),
        (DATA, 0, DATA_BYTES),
    ]
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    riscv, double_float_and_compressed = 243, 5
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH",
        2, riscv, 1, BASE + _CODE_OFFSET, 64, 0, double_float_and_compressed, 64, 56, len(segments), 0, 0, 0,
    )  # fmt: skip
    for address, filed, mapped in segments:
        header += struct.pack("<IIQQQQQQ", 1, 7, 0, address, address, filed, mapped, 0x1000)
    assert len(header) <= _CODE_OFFSET
    return (header.ljust(_CODE_OFFSET, b"\0") + code).ljust(_VARIABLES - BASE, b"\0") + variables

"""The cases of `tests/isa/differential.py`, run as the translating vCPU runs a guest, and longer ones of their kind."""

from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Final

from tests.isa.differential import Case, Result, floating, result, state, word
from tests.isa.riscv64_encodings import ATOMICS, CONTROL, FLOATING, INTEGER, LOADS, STORES, encode
from tests.isa.riscv64_harness import CODE, CODE_BYTES, DATA, DATA_BYTES, ZEROS, ZEROS_BYTES
from virtus.exits import Reason
from virtus.isa.riscv64 import RISCV64
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.translator import float_state, layout
from virtus.vcpus.translator.vcpu import CallConvention, TranslatorVcpu

EVERYTHING: Final = 7  # PROT_READ | PROT_WRITE | PROT_EXEC
ANONYMOUS_FIXED: Final = 0x32
BASES: Final = (30, 31)
"""Registers that point into the data of a long case; nothing sets them."""
FEW: Final = (0, 1, 5, 6, 7, 10)
"""What the rest of a long case uses, so that its instructions depend on each other."""
THERE_ARE: Final = CODE_BYTES // 4 - 1


def begun_natively(case: Case) -> Case:
    """The same case, rounding at its beginning as the host can: a program comes to what the host cannot by an
    instruction, and is interpreted from there on."""
    return case if float_state.is_native(case.fcsr >> 5) else replace(case, fcsr=case.fcsr & 0x7F)


class Guest:
    """A guest with the memory that cases expect, for one case after the other. To be closed."""

    def __init__(self) -> None:
        self.vcpu = TranslatorVcpu(RISCV64, CallConvention(number=17, first=10))
        self._context = self.vcpu.boot()
        for start, size in ((ZEROS, ZEROS_BYTES), (DATA, DATA_BYTES)):
            found = self._context.inject(NUMBERS["mmap"], start, size, EVERYTHING, ANONYMOUS_FIXED, -1, 0)
            assert found == start

    def close(self) -> None:
        """End it."""
        self.vcpu.close()

    def run(self, case: Case) -> Result:
        """How a case ends."""
        context = self._context
        context.write(CODE, case.code.ljust(CODE_BYTES, b"\0"))
        context.write(DATA, case.data)
        context.flush_instructions(CODE, CODE_BYTES)
        words = state(case)
        for number in (*range(64), layout.PC, layout.MXCSR, layout.ROUNDING, layout.RESERVED_ADDRESS):
            context.regs[number] = words[number]
        context.enter()
        context.resume()
        exit = self.vcpu.run()
        assert exit.reason is Reason.SIGNAL, exit.reason
        address = int.from_bytes(context.fault()[16:24], "little")
        return result(context.regs, exit.number, address, context.read(DATA, DATA_BYTES))


def run_translated(guest: Guest, cases: Iterable[Case]) -> list[Result]:
    """The results by translation."""
    return [guest.run(case) for case in cases]


def sequences(*, count: int, seed: int) -> list[Case]:
    """Cases of as many instructions as fit, without jumps; half of them with floating point."""
    random = Random(seed)
    return [_sequence(random, floats=bool(number & 1)) for number in range(count)]


def _sequence(random: Random, *, floats: bool) -> Case:
    x = [0, *(word(random) for _ in range(31))]
    for register in BASES:
        x[register] = DATA + 8 * random.randrange(256, 300)
    double = bool(random.randrange(2))
    names = [*INTEGER, *LOADS, *STORES, *ATOMICS]
    if floats:
        suffix, other = (".d", ".s") if double else (".s", ".d")
        names += [name for name in FLOATING if suffix in name or other not in name] + [*CONTROL]
    code = b"".join(_one(random.choice(names), random).to_bytes(4, "little") for _ in range(THERE_ARE))
    fcsr = random.choice((0, 0, 0, 1, 2, 3, 4)) << 5 | random.getrandbits(5)
    floating_point = tuple(floating(random, double=double) for _ in range(32))
    return Case("sequence", code, tuple(x), floating_point, fcsr, random.randbytes(64) * (DATA_BYTES // 64))


def _one(name: str, random: Random) -> int:
    """An instruction over few registers, its memory operand in the page of data; most round as the thread says."""
    fields = {field: random.choice(FEW) for field in ("rd", "rs1", "rs2", "rs3")}
    fields["rm"] = random.choice((0, 1, 2, 3, 4, 7, 7, 7, 7, 7, 7, 7))
    if name in LOADS or name in STORES or name in ATOMICS:
        fields["rs1"] = random.choice(BASES)
    if " frm" in name or " fcsr" in name:
        fields["rs1"] = random.choice(FEW[:3])
    return encode(name, random, **fields)

"""The cases of `tests/isa/differential.py`, run as the translating vCPU runs a guest."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from tests.isa.differential import Case, Result, result, state
from tests.isa.riscv64_harness import CODE, CODE_BYTES, DATA, DATA_BYTES, ZEROS, ZEROS_BYTES
from virtus.exits import Reason
from virtus.isa.riscv64 import RISCV64
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.translator import float_state, layout
from virtus.vcpus.translator.context import TranslatedContext
from virtus.vcpus.translator.vcpu import CallConvention, TranslatorVcpu

EVERYTHING: Final = 7  # PROT_READ | PROT_WRITE | PROT_EXEC
ANONYMOUS_FIXED: Final = 0x32


def begun_natively(case: Case) -> Case:
    """The same case, rounding at its beginning as the host can: a program comes to what the host cannot by an
    instruction, and is interpreted from there on."""
    return case if float_state.is_native(case.fcsr >> 5) else replace(case, fcsr=case.fcsr & 0x7F)


Prepare = Callable[[TranslatorVcpu, TranslatedContext], None]
"""Done before a case runs, when its code is in memory."""


class Guest:
    """A guest with the memory that cases expect, for one case after the other. To be closed."""

    def __init__(self, prepare: Prepare | None = None) -> None:
        self._prepare = prepare
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
        if self._prepare is not None:
            self._prepare(self.vcpu, context)
        context.enter()
        context.resume()
        exit = self.vcpu.run()
        assert exit.reason is Reason.SIGNAL, exit.reason
        address = int.from_bytes(context.fault()[16:24], "little")
        return result(context.regs, exit.number, address, context.read(DATA, DATA_BYTES))


def run_translated(guest: Guest, cases: Iterable[Case]) -> list[Result]:
    """The results by translation."""
    return [guest.run(case) for case in cases]

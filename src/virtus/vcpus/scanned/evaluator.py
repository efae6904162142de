"""Evaluates i386 instructions one at a time: decoded by iced-x86, then functions that are kept by the bytes.

Floating-point, MMX and SSE instructions are others' (NotEvaluated).
"""

from typing import Final

from iced_x86 import Decoder, Instruction, Mnemonic

from virtus.vcpus.scanned import (
    control,
    cpuid,
    decimals,
    delivery,
    faults,
    integers,
    selectors,
    shifts,
    stack,
    strings,
    system,
)
from virtus.vcpus.scanned.cpu_state import BIG, CS, MASK32, RF, TF, CpuState
from virtus.vcpus.scanned.execution import Execution
from virtus.vcpus.scanned.faults import GuestFault, NotEvaluated
from virtus.vcpus.scanned.memory_access import WINDOW, Devices, LinearMemory
from virtus.vcpus.scanned.operands import PREFIXES, Compile, Operands, Operation

KEPT: Final = 1 << 15
SINGLE_STEP: Final = 1 << 14  # DR6.BS

TABLE: Final[dict[int, Compile]] = {
    **integers.TABLE, **shifts.TABLE, **decimals.TABLE, **strings.TABLE,
    **stack.TABLE, **control.TABLE, **system.TABLE, **selectors.TABLE,
}  # fmt: skip
_SSE_NAMESAKES: Final = frozenset({Mnemonic.MOVSD, Mnemonic.CMPSD})


class Evaluator:
    """Evaluates on a state, a memory and ports. One processor, one evaluator."""

    def __init__(self, state: CpuState, memory: LinearMemory, ports: Devices) -> None:
        self.execution = Execution(state, memory, ports)
        self.execution.cpuid = cpuid.answer
        self.state, self.memory = state, memory
        self._fetch = memory.fetch
        self._code = state.segments[CS]
        self._kept: tuple[dict[bytes, tuple[Operation, int]], dict[bytes, tuple[Operation, int]]] = ({}, {})
        self.compiled = 0
        """How many instructions were decoded."""

    def step(self) -> None:
        """Evaluate the instruction at CS:EIP.

        A repeated string instruction may stay where it is after many rounds; evaluate it again then. Raises
        GuestFault (deliver it by `delivery.deliver_fault`), NotEvaluated, IoNeeded, and TripleFault of a software
        interrupt, all with EIP still at the instruction.
        """
        state, execution, code = self.state, self.execution, self._code
        eip = state.eip
        big = code.attributes & BIG != 0
        window = self._fetch(code.base + eip & MASK32, WINDOW)
        operation, length = self._kept[big].get(window) or self._decode(window, big)
        following = eip + length
        if following - 1 > code.limit:
            raise GuestFault(faults.GP, 0)
        execution.next_eip = following & MASK32
        shadow, traced = state.interrupt_shadow, state.eflags & (TF | RF)
        if shadow or traced:
            state.interrupt_shadow = execution.delivered = False
            try:
                operation()
            except BaseException:
                state.interrupt_shadow = shadow
                raise
        else:
            operation()
        state.eip = execution.next_eip
        if traced:
            self._after_traced(traced)

    def _after_traced(self, before: int) -> None:
        """A single step trap follows an instruction that began with TF set; RF is for one instruction."""
        state = self.state
        if before & RF:
            state.eflags &= ~RF
        if before & TF and not self.execution.delivered:
            state.debug[6] |= SINGLE_STEP
            delivery.deliver_fault(self.execution, GuestFault(faults.DB))

    def decode(self) -> Instruction:
        """The instruction at CS:EIP, for whoever wants to look at it; raises GuestFault."""
        window = self.memory.fetch(self.state.linear_eip(), WINDOW)
        return Decoder(self.state.code_bits, window, ip=self.state.eip).decode()

    def _decode(self, window: bytes, big: bool) -> tuple[Operation, int]:
        """Decode and compile; raises GuestFault(#UD), the page fault of a part that is missing, or NotEvaluated."""
        instruction = Decoder(32 if big else 16, window).decode()
        if instruction.is_invalid:
            if len(window) < WINDOW:
                state = self.state  # fetches the part that is missing, or finds it there and invalid
                self.memory.fetch(state.linear_eip() + len(window) & MASK32, 1)
            elif all(byte in PREFIXES for byte in window[:-1]):
                raise GuestFault(faults.GP, 0)  # longer than instructions may be
            raise GuestFault(faults.UD)
        compile_it = TABLE.get(instruction.mnemonic)
        if compile_it is None or (instruction.mnemonic in _SSE_NAMESAKES and not instruction.is_string_instruction):
            raise NotEvaluated(f"{instruction}")
        operands = Operands(instruction, self.execution, 32 if big else 16)
        operands.raw = window[: instruction.len]
        found = compile_it(operands), instruction.len
        self.compiled += 1
        kept = self._kept[big]
        if len(kept) >= KEPT:
            kept.clear()
        kept[window] = found
        return found

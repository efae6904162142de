"""What every i386 vCPU of ours does around the evaluator: exits for devices, faults, interrupts, single steps.

Its subclasses run the guest's other instructions, each its own way: all by Unicorn, or most directly.
"""

from abc import ABC, abstractmethod
from collections import Counter
from typing import Final

from virtus.exits import Exit, Reason
from virtus.vcpus.scanned import delivery, faults
from virtus.vcpus.scanned.cpu_state import IF, MASK32, CpuState
from virtus.vcpus.scanned.evaluator import SINGLE_STEP, Evaluator
from virtus.vcpus.scanned.faults import GuestFault, IoNeeded, NotEvaluated, TripleFault
from virtus.vcpus.scanned.interrupts import Interrupts, NoInterrupts
from virtus.vcpus.scanned.memory_access import PagedMemory
from virtus.vcpus.scanned.realmode import EmulatedCpu, Why
from virtus.vcpus.scanned.replay import Replay, ReplayDevices

SLICE: Final = 200_000
"""Instructions emulated between two looks around: some milliseconds."""
STI: Final = 0xFB


class EvaluatingVcpu(ABC):
    """The evaluator, the devices that it asks for by exits, and the interrupts of one i386 processor."""

    def __init__(self, state: CpuState, memory: PagedMemory, replay: Replay, interrupts: Interrupts | None) -> None:
        """`memory` asks its devices through `replay`."""
        self.state = state
        self.interrupts: Interrupts = interrupts or NoInterrupts()
        self._replay = replay
        ports = ReplayDevices(replay, port=True)
        self.evaluator = Evaluator(state, memory, ports)
        self.evaluator.execution.progress = replay.finish
        self.evaluator.execution.repeat_port = ports.repeat
        self._memory = memory
        self._exit = Exit()
        self._exit.context = self
        self._kicked = self._ended = False
        self._input_size = 0  # of an IN that was emulated and waits for its result
        self._evaluate = False  # the instruction at EIP is the evaluator's
        self.evaluated = 0
        """How many instructions were the evaluator's."""
        self.faults: Counter[str] = Counter()
        """Exceptions delivered, by name."""

    @abstractmethod
    def _not_evaluated(self) -> None:
        """The evaluator does not know the instruction at EIP: somebody else does it."""

    @abstractmethod
    def _emulator(self) -> EmulatedCpu:
        """Who emulates what the evaluator does not know."""

    def _leave(self, reason: Reason) -> Exit:
        self._exit.reason, self._exit.number, self._exit.count = reason, 0, 1
        return self._exit

    def _complete(self) -> None:
        """Take what the personality has left for the last exit."""
        if self._input_size:
            mask = (1 << 8 * self._input_size) - 1
            self.state.registers[0] = self.state.registers[0] & ~mask & MASK32 | self._exit.value & mask
            self._input_size = 0
        elif self._replay.wanted is not None:
            self._replay.answer(self._exit.value)

    def _evaluate_one(self) -> bool:
        """Have the evaluator do the instruction at EIP; False with an exit where a device must be asked first."""
        self._replay.begin()
        self.evaluated += 1
        try:
            self.evaluator.step()
        except IoNeeded:
            assert self._replay.wanted is not None
            port, number, size, write, value = self._replay.wanted
            found = self._leave(Reason.PORT_IO if port else Reason.MEMORY_IO)
            found.number, found.size, found.write, found.value = number, size, write, value
            found.count = self._replay.count
            return False
        except GuestFault as fault:
            self._fault(fault)
        except NotEvaluated:
            self._not_evaluated()
        except TripleFault:
            self._ended = True
        self._replay.finish()
        self._evaluate = False
        if self._ended:
            self._leave(Reason.ENDED)
        return not self._ended

    def _fault(self, fault: GuestFault) -> None:
        self.faults[faults.NAMES.get(fault.vector, str(fault.vector))] += 1
        try:
            delivery.deliver_fault(self.evaluator.execution, fault)
        except TripleFault:
            self._ended = True

    def _interrupt(self) -> bool:
        """Enter the handler of the interrupt that waits; False with an exit where that is the end."""
        self._replay.forget()
        try:
            delivery.deliver_interrupt(self.evaluator.execution, self.interrupts.acknowledge())
        except TripleFault:
            self._ended = True
            self._leave(Reason.ENDED)
        return not self._ended

    def _emulate_one(self) -> None:
        """Unicorn does one instruction, or has said why not."""
        emulated = self._emulator()
        fault = emulated.fault
        if fault is None and emulated.run(self.state, 1) is Why.EVALUATE:
            # a device as a floating-point operand, which nobody has: as if nothing answered
            fault = emulated.fault or GuestFault(faults.GP, 0)
        emulated.fault = None
        if fault is not None:
            self._fault(fault)

    def _emulated(self, emulated: EmulatedCpu, why: Why) -> bool:
        """Go on where a batch of emulated instructions ended; False with an exit for a port."""
        if why is Why.EVALUATE:
            self._evaluate = True
        elif why is Why.WINDOW:
            self._evaluate = self._after_sti()
        elif why is Why.TRAP:
            self.state.debug[6] |= SINGLE_STEP
            self._fault(GuestFault(faults.DB))
        elif why in (Why.OUTPUT, Why.INPUT):
            found = self._leave(Reason.PORT_IO)
            found.number, found.size, found.write = emulated.port, emulated.port_size, why is Why.OUTPUT
            found.value = emulated.port_value if found.write else 0
            self._input_size = 0 if found.write else emulated.port_size
            return False
        return True

    def _after_sti(self) -> bool:
        """Whether interrupts were just turned on by STI, so that one more instruction comes first."""
        try:
            before = self._memory.fetch(self.state.linear_eip() - 1 & MASK32, 1)[0]
        except GuestFault:
            return False
        return self.state.eflags & IF != 0 and before == STI

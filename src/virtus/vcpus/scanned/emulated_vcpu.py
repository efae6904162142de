"""vCPU "emulated i386": a whole guest without direct execution, by Unicorn in batches and the evaluator in between.

It runs whatever a PC runs from its BIOS on, and is what a monitor falls back to for what it cannot run directly.
"""

from typing import Final, Protocol

from virtus.exits import Exit, Reason
from virtus.vcpus.scanned import delivery, faults
from virtus.vcpus.scanned.cpu_state import IF, MASK32, TF, CpuState
from virtus.vcpus.scanned.evaluator import SINGLE_STEP, Evaluator
from virtus.vcpus.scanned.faults import GuestFault, IoNeeded, NotEvaluated, TripleFault
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace
from virtus.vcpus.scanned.realmode import EmulatedCpu, Why
from virtus.vcpus.scanned.replay import Replay, ReplayDevices

SLICE: Final = 200_000
"""Instructions between two looks at interrupts: some milliseconds."""
ROUNDS: Final = 1000
"""Or so many entries into Unicorn and the evaluator."""
STI: Final = 0xFB


class Interrupts(Protocol):
    """The interrupt controller as its processor sees it."""

    def pending(self) -> bool:
        """Whether an interrupt waits."""
        ...

    def acknowledge(self) -> int:
        """Its vector; it is then in service (the 8259's INTA cycle)."""
        ...


class NoInterrupts:
    """No controller."""

    def pending(self) -> bool:
        """Never."""
        return False

    def acknowledge(self) -> int:
        """Nothing to acknowledge."""
        raise LookupError("no interrupt is pending")


class EmulatedVcpu:
    """One i386 processor, as after a reset. `interrupts` may be set before the first `run`.

    Exits: PORT_IO, MEMORY_IO (for reads, the personality leaves `value`), HALT (call `run` again when an interrupt
    pends), EVENT (after a slice of instructions, or a kick), ENDED (a triple fault; `state` is what was found).
    """

    def __init__(self, space: PhysicalSpace, interrupts: Interrupts | None = None) -> None:
        """Raises HostLacks without Unicorn. Read-only memories must have been added to `space`."""
        self.state = CpuState()
        self.interrupts: Interrupts = interrupts or NoInterrupts()
        self._replay = Replay()
        self.memory = PagedMemory(self.state, space, ReplayDevices(self._replay, port=False))
        self.evaluator = Evaluator(self.state, self.memory, ReplayDevices(self._replay, port=True))
        self.evaluator.execution.progress = self._replay.finish
        self.cpu = EmulatedCpu(space, self.memory)
        self._exit = Exit()
        self._exit.context = self
        self._kicked = self._ended = False
        self._input_size = 0  # of an IN that waits for its result
        self._evaluate = False  # the instruction at EIP is the evaluator's
        self.evaluated = 0
        """How many instructions were the evaluator's."""

    def kick(self) -> None:
        """Have `run` return soon with Reason.EVENT; from any thread."""
        self._kicked = True
        self.cpu.kick()

    def flush_instructions(self, start: int, size: int) -> None:
        """Physical memory was changed by a device: code there must be looked at anew."""
        self.cpu.written(start, size)

    def close(self) -> None:
        """End the processor. May be called twice."""
        self.cpu.close()

    def run(self) -> Exit:
        """See Vcpu."""
        found = self._exit
        self._complete()
        slices, rounds = 1, ROUNDS
        while True:
            rounds -= 1
            if self._ended:
                return self._leave(Reason.ENDED)
            if self._kicked:
                self._kicked = False
                return self._leave(Reason.EVENT)
            if self._evaluate:
                if not self._evaluate_one():
                    return found
                continue
            waiting = self.interrupts.pending()
            if waiting and self.state.interruptible:
                if not self._interrupt():
                    return found
                continue
            if self.state.halted:
                return self._leave(Reason.HALT)
            if not slices or rounds < 0:
                return self._leave(Reason.EVENT)
            if self.state.interrupt_shadow or self.state.eflags & TF:
                self._evaluate = True
                continue
            why = self.cpu.run(self.state, SLICE, window=waiting)
            if why is Why.BUDGET:
                slices -= 1
            elif why is Why.WINDOW:
                self._evaluate = self._after_sti()
            elif why is Why.EVALUATE:
                self._evaluate = True
            elif why is Why.TRAP:
                self.state.debug[6] |= SINGLE_STEP
                self._fault(GuestFault(faults.DB))
            elif why is Why.OUTPUT:
                return self._port_exit(write=True, value=self.cpu.port_value)
            elif why is Why.INPUT:
                self._input_size = self.cpu.port_size
                return self._port_exit(write=False, value=0)

    def _leave(self, reason: Reason) -> Exit:
        self._exit.reason, self._exit.number = reason, 0
        return self._exit

    def _port_exit(self, *, write: bool, value: int) -> Exit:
        found = self._leave(Reason.PORT_IO)
        found.number, found.size, found.write, found.value = self.cpu.port, self.cpu.port_size, write, value
        return found

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
            return False
        except GuestFault as fault:
            self._fault(fault)
        except NotEvaluated:
            self._emulate_one()
        except TripleFault:
            self._ended = True
        self._replay.finish()
        self._evaluate = False
        if self._ended:
            self._leave(Reason.ENDED)
        return not self._ended

    def _fault(self, fault: GuestFault) -> None:
        try:
            delivery.deliver_fault(self.evaluator.execution, fault)
        except TripleFault:
            self._ended = True

    def _emulate_one(self) -> None:
        """The evaluator does not know the instruction: Unicorn does it, or has said why not."""
        fault = self.cpu.fault
        if fault is None and self.cpu.run(self.state, 1) is Why.EVALUATE:
            # a device as a floating-point operand, which nobody has: as if nothing answered
            fault = self.cpu.fault or GuestFault(faults.GP, 0)
        self.cpu.fault = None
        if fault is not None:
            self._fault(fault)

    def _interrupt(self) -> bool:
        self._replay.forget()
        try:
            delivery.deliver_interrupt(self.evaluator.execution, self.interrupts.acknowledge())
        except TripleFault:
            self._ended = True
            self._leave(Reason.ENDED)
        return not self._ended

    def _after_sti(self) -> bool:
        """Whether interrupts were just turned on by STI, so that one more instruction comes first."""
        try:
            return bool(self.state.eflags & IF) and self.memory.fetch(self.state.linear_eip() - 1 & MASK32, 1)[0] == STI
        except GuestFault:
            return False

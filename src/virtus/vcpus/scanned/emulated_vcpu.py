"""vCPU "emulated i386": a whole guest without direct execution, by Unicorn in batches and the evaluator in between.

It runs whatever a PC runs from its BIOS on, and is what a monitor falls back to for what it cannot run directly.
"""

from typing import Final

from virtus.exits import Exit, Reason
from virtus.vcpus.scanned import evaluating
from virtus.vcpus.scanned.cpu_state import TF, CpuState
from virtus.vcpus.scanned.evaluating import EvaluatingVcpu
from virtus.vcpus.scanned.interrupts import Interrupts
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace
from virtus.vcpus.scanned.realmode import EmulatedCpu, Why
from virtus.vcpus.scanned.replay import Replay, ReplayDevices

ROUNDS: Final = 1000
"""Entries into Unicorn and the evaluator between two looks around, if a slice of instructions does not end before."""


class EmulatedVcpu(EvaluatingVcpu):
    """One i386 processor, as after a reset. `interrupts` may be set before the first `run`.

    Exits: PORT_IO, MEMORY_IO (for reads, the personality leaves `value`), HALT (call `run` again when an interrupt
    pends), EVENT (after a slice of instructions, or a kick), ENDED (a triple fault; `state` is what was found).
    """

    def __init__(self, space: PhysicalSpace, interrupts: Interrupts | None = None) -> None:
        """Raises HostLacks without Unicorn. Read-only memories must have been added to `space`."""
        state, replay = CpuState(), Replay()
        self.memory = PagedMemory(state, space, ReplayDevices(replay, port=False))
        super().__init__(state, self.memory, replay, interrupts)
        self.cpu = EmulatedCpu(space, self.memory)

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
            why = self.cpu.run(self.state, evaluating.SLICE, window=waiting)
            if why is Why.BUDGET:
                slices -= 1
            elif not self._emulated(self.cpu, why):
                return found

    def _emulator(self) -> EmulatedCpu:
        return self.cpu

    def _not_evaluated(self) -> None:
        self._emulate_one()

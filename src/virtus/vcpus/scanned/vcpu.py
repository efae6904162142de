"""vCPU "scanned": an i386 guest with its system, run directly in ordinary processes after its code was scanned.

What traps is evaluated; what cannot run directly (real mode, segments that are not flat, virtual-8086 mode, levels 1
and 2) is emulated until it can again.
"""

from collections import Counter
from time import perf_counter_ns
from typing import Final, Protocol

from iced_x86 import CpuidFeature, Decoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register

from virtus.exits import Exit, Reason
from virtus.host.protection_keys import can_hide_code
from virtus.memory.guest_memory import PAGE
from virtus.vcpus.placement import Placement
from virtus.vcpus.scanned import delivery, faults
from virtus.vcpus.scanned.breakpoints import CodePages
from virtus.vcpus.scanned.cpu_state import MASK32, TF, CpuState
from virtus.vcpus.scanned.evaluator import SINGLE_STEP, Evaluator
from virtus.vcpus.scanned.faults import GuestFault, IoNeeded, NotEvaluated, TripleFault
from virtus.vcpus.scanned.memory_access import PhysicalSpace
from virtus.vcpus.scanned.monitored_memory import MonitoredMemory
from virtus.vcpus.scanned.patches import AREA
from virtus.vcpus.scanned.realmode import EmulatedCpu, Why
from virtus.vcpus.scanned.replay import Replay, ReplayDevices
from virtus.vcpus.scanned.scanner import DEFAULT_DEPTH
from virtus.vcpus.scanned.vmm import Monitor, Stop

SLICE: Final = 200_000
"""Instructions emulated between two looks around."""
STI: Final = 0xFB
NAMES: Final = {value: name for name, value in vars(Mnemonic).items() if isinstance(value, int)}
_WRITES: Final = {OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE}


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


class ScannedVcpu:
    """One i386 processor, as after a reset. `interrupts` may be set before the first `run`.

    Exits: PORT_IO, MEMORY_IO (for reads, the personality leaves `value`), HALT (call `run` again when an interrupt
    pends), EVENT (some milliseconds went by, or a kick), ENDED (a triple fault; `state` is what was found).
    """

    def __init__(
        self, space: PhysicalSpace, interrupts: Interrupts | None = None, *, depth: int = DEFAULT_DEPTH
    ) -> None:
        """Raises HostLacks where children cannot be traced. Read-only memories must have been added to `space`."""
        self.state = CpuState()
        self.interrupts: Interrupts = interrupts or NoInterrupts()
        self._placement = Placement()
        self._space = space
        self._replay = Replay()
        self.codes = CodePages(space.memory, AREA)
        self.memory = MonitoredMemory(self.state, space, ReplayDevices(self._replay, port=False), self.codes)
        self.evaluator = Evaluator(self.state, self.memory, ReplayDevices(self._replay, port=True))
        self.evaluator.execution.progress = self._replay.finish
        self.monitor = Monitor(self.state, space, self.memory, self.codes, depth=depth, hidden=can_hide_code())
        self.monitor.pending = lambda: self.interrupts.pending()
        self._emulated: EmulatedCpu | None = None
        self._information = InstructionInfoFactory()
        self._exit = Exit()
        self._exit.context = self
        self._kicked = self._ended = False
        self._input_size = 0  # of an IN that was emulated and waits for its result
        self._evaluate = False  # the instruction at EIP is the evaluator's
        self._address = 0
        self.faults: Counter[str] = Counter()
        """Exceptions delivered, by name."""
        self.trapped: Counter[int] = Counter()
        """Breakpoints hit, by linear address."""
        self.evaluated = 0
        self.emulated_ns = 0

    def kick(self) -> None:
        """Have `run` return soon with Reason.EVENT; from any thread."""
        self._kicked = True
        self.monitor.kick()
        if self._emulated is not None:
            self._emulated.kick()

    def flush_instructions(self, start: int, size: int) -> None:
        """Physical memory was changed by a device: code there must be looked at anew."""
        self.monitor.written(start, size)
        if self._emulated is not None:
            self._emulated.written(start, size)

    def show_device_memory(self, window: range) -> None:
        """Have the guest reach `GuestMemory.devices` at these physical addresses, of whole pages, without an exit."""
        self.monitor.shadow.move_devices(range(window.start // PAGE, window.stop // PAGE))

    def close(self) -> None:
        """End the processor. May be called twice."""
        if self._emulated is not None:
            self._emulated.close()
            self._emulated = None
        self.monitor.close()
        self.codes.close()

    def run(self) -> Exit:
        """See Vcpu."""
        found = self._exit
        if self._ended:
            return self._leave(Reason.ENDED)
        self._complete()
        state = self.state
        while True:
            if self._ended:
                return self._leave(Reason.ENDED)
            if self._kicked:
                self._kicked = False
                return self._leave(Reason.EVENT)
            if self._evaluate:
                if not self._evaluate_one():
                    return found
                continue
            if state.interruptible and self.interrupts.pending():
                if not self._interrupt():
                    return found
                continue
            if state.halted:
                return self._leave(Reason.HALT)
            if state.interrupt_shadow or state.eflags & TF or self._at_site():  # single steps are the evaluator's
                self._evaluate = True
                continue
            if self.monitor.can_run():
                stop = self.monitor.run()
                if stop is Stop.EVALUATE:
                    self.trapped[state.eip] += 1
                    self._evaluate = not self.monitor.count_trap(state.eip)
                    continue
                if stop is Stop.FAULT:
                    assert self.monitor.fault is not None
                    self._fault(self.monitor.fault)
                    if self._ended:
                        return self._leave(Reason.ENDED)
                    continue
                if stop is Stop.TICK:
                    self._kicked = False
                    return self._leave(Reason.EVENT)
            if not self._emulate():
                return found

    def _at_site(self) -> bool:
        return self.monitor.can_run() and self.monitor.is_site()

    def _leave(self, reason: Reason) -> Exit:
        self._exit.reason, self._exit.number = reason, 0
        return self._exit

    def _complete(self) -> None:
        """Take what the personality has left for the last exit."""
        if self._input_size:
            mask = (1 << 8 * self._input_size) - 1
            self.state.registers[0] = self.state.registers[0] & ~mask & MASK32 | self._exit.value & mask
            self._input_size = 0
        elif self._replay.wanted is not None:
            self._replay.answer(self._exit.value)

    def hits(self) -> Counter[str]:
        """Breakpoints hit by the mnemonic of the instruction that is there now."""
        found: Counter[str] = Counter()
        for linear, count in self.trapped.items():
            physical = self.monitor.shadow.peek(linear, user=False)
            if physical is None:
                found["no longer there"] += count
                continue
            decoded = Decoder(32, bytes(self._space.memory.bytes[physical : physical + 15])).decode()
            found[NAMES[decoded.mnemonic]] += count
        return found

    # evaluation

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
        self._replay.forget()
        try:
            delivery.deliver_interrupt(self.evaluator.execution, self.interrupts.acknowledge())
        except TripleFault:
            self._ended = True
            self._leave(Reason.ENDED)
        return not self._ended

    def _not_evaluated(self) -> None:
        """A floating-point or vector instruction stopped: find its fault, or have it write where it may not alone."""
        if not self.monitor.can_run():
            self._emulate_one()
            return
        if self.monitor.uncover():
            return
        try:
            fault = self._fault_of_access()
        except GuestFault as found:
            fault = found
        if fault is not None:
            self._fault(fault)

    def _fault_of_access(self) -> GuestFault | None:
        """Why an instruction that runs natively did not; raises GuestFault(#PF)."""
        instruction = self.evaluator.decode()
        registers = self.state.registers
        segments = self.state.segments

        def value_of(register: int) -> int:
            if Register.EAX <= register <= Register.EDI:
                return registers[register - Register.EAX]
            if Register.ES <= register <= Register.GS:
                return segments[register - Register.ES].base
            return 0

        used = self._information.info(instruction).used_memory()
        for access in used:
            address = 0
            for register, scale in ((access.base, 1), (access.index, access.scale), (access.segment, 1)):
                if register != Register.NONE:
                    address += value_of(register) * scale
            address = address + access.displacement & MASK32
            write = access.access in _WRITES
            if write:
                self.memory.check_write(address, 1)
                if self.codes.is_code(self.monitor.frame_of(address)):
                    return None if self.monitor.step_natively(address) else GuestFault(faults.GP, 0)
            else:
                self.memory.fetch(address, 1)
        if self.monitor.numeric_error:
            return GuestFault(faults.MF if _is_x87(instruction) else faults.XM)
        return GuestFault(faults.GP, 0)

    # emulation

    def _emulator(self) -> EmulatedCpu:
        if self._emulated is None:
            self._emulated = EmulatedCpu(self._space, self.memory)
        return self._emulated

    def _emulate(self) -> bool:
        """Emulate a batch; False with an exit."""
        emulated = self._emulator()
        before = perf_counter_ns()
        why = emulated.run(self.state, SLICE, window=self.interrupts.pending())
        self.emulated_ns += perf_counter_ns() - before
        self.monitor.after_emulation()
        if why is Why.EVALUATE:
            self._evaluate = True
        elif why is Why.WINDOW:
            self._evaluate = self._after_sti()
        elif why is Why.TRAP:
            self.state.debug[6] |= SINGLE_STEP
            self._fault(GuestFault(faults.DB))
        elif why in (Why.BUDGET, Why.KICKED):
            self._leave(Reason.EVENT)
            return False
        elif why in (Why.OUTPUT, Why.INPUT):
            found = self._leave(Reason.PORT_IO)
            found.number, found.size = emulated.port, emulated.port_size
            found.write, found.value = why is Why.OUTPUT, emulated.port_value if why is Why.OUTPUT else 0
            self._input_size = 0 if why is Why.OUTPUT else emulated.port_size
            return False
        return True

    def _after_sti(self) -> bool:
        """Whether interrupts were just turned on by STI, so that one more instruction comes first."""
        try:
            return self.memory.fetch(self.state.linear_eip() - 1 & MASK32, 1)[0] == STI
        except GuestFault:
            return False

    def _emulate_one(self) -> None:
        """The evaluator does not know the instruction: Unicorn does it, or has said why not."""
        emulated = self._emulator()
        fault = emulated.fault
        if fault is None and emulated.run(self.state, 1) is Why.EVALUATE:
            fault = emulated.fault or GuestFault(faults.GP, 0)  # a device as a floating-point operand
        emulated.fault = None
        self.monitor.after_emulation()
        if fault is not None:
            self._fault(fault)


def _is_x87(instruction: Instruction) -> bool:
    return any(CpuidFeature.FPU <= feature <= CpuidFeature.FPU287 for feature in instruction.cpuid_features()) or (
        CpuidFeature.FPU387 in instruction.cpuid_features()
    )

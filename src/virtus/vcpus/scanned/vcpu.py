"""vCPU "scanned": an i386 guest with its system, run directly in ordinary processes after its code was scanned.

What traps is evaluated; what cannot run directly (real mode, segments that are not flat, virtual-8086 mode, levels 1
and 2) is emulated until it can again.
"""

from collections import Counter, deque
from time import perf_counter_ns
from typing import Final

from iced_x86 import CpuidFeature, Decoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, Register

from virtus.exits import Exit, Reason
from virtus.host.protection_keys import can_hide_code
from virtus.memory.guest_memory import PAGE
from virtus.vcpus.placement import Placement
from virtus.vcpus.scanned import evaluating, faults
from virtus.vcpus.scanned.breakpoints import CodePages
from virtus.vcpus.scanned.cpu_state import MASK32, TF, CpuState
from virtus.vcpus.scanned.evaluating import EvaluatingVcpu
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.interrupts import Interrupts
from virtus.vcpus.scanned.memory_access import PhysicalSpace
from virtus.vcpus.scanned.monitored_memory import MonitoredMemory
from virtus.vcpus.scanned.patches import AREA
from virtus.vcpus.scanned.realmode import EmulatedCpu, Why
from virtus.vcpus.scanned.replay import Replay, ReplayDevices
from virtus.vcpus.scanned.scanner import DEFAULT_DEPTH
from virtus.vcpus.scanned.vmm import Monitor, Stop

LOOK_EVERY_NS: Final = 4_000_000
"""Emulated code comes out this often at least, as directly executed code does by its tick."""
NAMES: Final = {value: name for name, value in vars(Mnemonic).items() if isinstance(value, int)}
MOST_AHEAD: Final = 8
"""Instructions evaluated in a row because another breakpoint is near."""
_WRITES: Final = {OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE}


class ScannedVcpu(EvaluatingVcpu):
    """One i386 processor, as after a reset. `interrupts` may be set before the first `run`.

    Exits: PORT_IO, MEMORY_IO (for reads, the personality leaves `value`), HALT (call `run` again when an interrupt
    pends), EVENT (some milliseconds went by, or a kick), ENDED (a triple fault; `state` is what was found).
    """

    def __init__(
        self, space: PhysicalSpace, interrupts: Interrupts | None = None, *, depth: int = DEFAULT_DEPTH
    ) -> None:
        """Raises HostLacks where children cannot be traced. Read-only memories must have been added to `space`."""
        state, replay = CpuState(), Replay()
        self.codes = CodePages(space.memory, AREA)
        self.memory = MonitoredMemory(state, space, ReplayDevices(replay, port=False), self.codes)
        super().__init__(state, self.memory, replay, interrupts)
        self._placement = Placement()
        self._space = space
        self.monitor = Monitor(state, space, self.memory, self.codes, depth=depth, hidden=can_hide_code())
        self.monitor.pending = lambda: self.interrupts.pending()
        self.evaluator.execution.time_changed = self.monitor.time_changed
        self.cells = self.monitor.cells
        self._posted: deque[tuple[int, int]] = deque()
        self._unicorn: EmulatedCpu | None = None
        self._information = InstructionInfoFactory()
        self.trapped: Counter[int] = Counter()
        """Breakpoints hit, by linear address."""
        self.emulated_ns = 0
        self._look_at = 0

    def kick(self) -> None:
        """Have `run` return soon with Reason.EVENT; from any thread."""
        self._kicked = True
        self.monitor.kick()
        if self._unicorn is not None:
            self._unicorn.kick()

    def flush_instructions(self, start: int, size: int) -> None:
        """Physical memory was changed by a device: code there must be looked at anew."""
        self.monitor.written(start, size)
        if self._unicorn is not None:
            self._unicorn.written(start, size)

    def show_device_memory(self, window: range) -> None:
        """Have the guest reach `GuestMemory.devices` at these physical addresses, of whole pages, without an exit."""
        self.monitor.shadow.move_devices(range(window.start // PAGE, window.stop // PAGE))

    def set_port(self, port: int, *, posted: bool, value: int | None) -> None:
        """From now on writes of a byte to a port may come out late, in order, and what reads of a byte give is known
        (None: it is not), which is what was written last where that is posted. Nobody else may answer for that port
        meanwhile."""
        self.cells.ports.set(port, posted=posted, value=value)

    def close(self) -> None:
        """End the processor. May be called twice."""
        if self._unicorn is not None:
            self._unicorn.close()
            self._unicorn = None
        self.monitor.close()
        self.codes.close()

    def run(self) -> Exit:
        """See Vcpu."""
        found = self._exit
        self._complete()
        state = self.state
        ahead = 0
        while True:
            if self._posted:
                return self._post()
            if self._ended:
                return self._leave(Reason.ENDED)
            if self._kicked:
                self._kicked = False
                return self._leave(Reason.EVENT)
            if self._evaluate:
                if not self._evaluate_one():
                    return found
                ahead += 1
                continue
            if state.interruptible and self.interrupts.pending():
                if not self._interrupt():
                    return found
                continue
            if state.halted:
                return self._leave(Reason.HALT)
            if state.interrupt_shadow or state.eflags & TF:  # single steps are the evaluator's
                self._evaluate = True
                continue
            if self.monitor.can_run():
                if self.monitor.is_site():
                    self._evaluate = not self.monitor.count_trap(state.eip)
                    continue
                if 0 < ahead < MOST_AHEAD and self.monitor.site_is_near():  # a stop costs as much as some evaluations
                    self._evaluate = True
                    continue
                ahead = 0
                stop = self.monitor.run()
                if self.cells.ports.waiting:
                    self._posted.extend(self.cells.ports.take())
                if stop is Stop.POSTED:
                    continue
                if stop is Stop.EVALUATE:
                    self.trapped[state.eip] += 1
                    self._evaluate = not self.monitor.count_trap(state.eip)
                    continue
                if stop is Stop.FAULT:
                    assert self.monitor.fault is not None
                    self._fault(self.monitor.fault)
                    continue
                if stop is Stop.TICK:
                    self._kicked = True  # EVENT, once what was posted has come out
                    continue
            if not self._emulate():
                return found

    def _post(self) -> Exit:
        """A write that was posted comes out."""
        found = self._leave(Reason.PORT_IO)
        found.number, found.value = self._posted.popleft()
        found.size, found.write = 1, True
        return found

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

    def _fault(self, fault: GuestFault) -> None:
        self.monitor.lacks(fault)
        super()._fault(fault)

    # what the evaluator does not know

    def _not_evaluated(self) -> None:
        """A floating-point or vector instruction stopped: find its fault, or have it write where it may not alone."""
        if not self.monitor.can_run():
            self.monitor.before_emulation()
            self._emulate_one()
            self.monitor.after_emulation()
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
        if self._unicorn is None:
            self._unicorn = EmulatedCpu(self._space, self.memory)
        return self._unicorn

    def _emulate(self) -> bool:
        """Emulate a batch; False with an exit."""
        emulated = self._emulator()
        self.monitor.before_emulation()
        before = perf_counter_ns()
        why = emulated.run(self.state, evaluating.SLICE, window=self.interrupts.pending())
        now = perf_counter_ns()
        self.emulated_ns += now - before
        if now >= self._look_at:  # code that is full of what the evaluator does never uses up its budget
            self._look_at = now + LOOK_EVERY_NS
            self._kicked = True
        self.monitor.after_emulation()
        if why in (Why.BUDGET, Why.KICKED):
            self._leave(Reason.EVENT)
            return False
        return self._emulated(emulated, why)


def _is_x87(instruction: Instruction) -> bool:
    return any(CpuidFeature.FPU <= feature <= CpuidFeature.FPU287 for feature in instruction.cpuid_features()) or (
        CpuidFeature.FPU387 in instruction.cpuid_features()
    )

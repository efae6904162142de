"""Runs an i386 guest in Unicorn, in batches: real mode, and whatever else cannot run on the processor itself.

Unicorn does what touches registers and memory alone. Everything else comes out with the state exactly at an
instruction: ports, addresses of devices, interrupts and exceptions, HLT. It is QEMU's emulation: limits and rights of
data segments are not checked there, as they are by the evaluator.
"""

import ctypes
import struct
from enum import Enum
from typing import Final

from virtus.host.machine_code import MachineCode
from virtus.memory.guest_memory import PAGE
from virtus.vcpus.scanned import cpuid, faults, unicorn_engine
from virtus.vcpus.scanned.cpu_state import CR0_PE, EAX, EBX, ECX, EDX, ESI, VM, CpuState
from virtus.vcpus.scanned.memory_access import PagedMemory, PhysicalSpace
from virtus.vcpus.scanned.system import read_tsc
from virtus.vcpus.scanned.unicorn_engine import Engine
from virtus.vcpus.scanned.unicorn_state import UnicornState

CELL: Final = struct.Struct("<q4B4xQQQ")
"""What the machine code below works on: instructions left; window wanted, kicked, stopped, unused; EFLAGS; the
functions to read a register and to stop."""
WINDOW_AT, KICKED_AT, STOPPED_AT = 8, 9, 10
INT_N, INT3, INTO = 0xCD, 0xCC, 0xCE

SENTRY: Final = bytes.fromhex(
    "48ff09"  # dec qword [rcx]
    "7827"  # js stop
    "6683790800"  # cmp word [rcx + WINDOW_AT], 0: neither is wanted
    "7501"  # jne wanted
    "c3"  # ret
    "80790900"  # wanted: cmp byte [rcx + KICKED_AT], 0
    "7519"  # jne stop
    "535157"  # push rbx, rcx, rdi
    "488d5110"  # lea rdx, [rcx + 16]
    "be{eflags}"  # mov esi, the name of EFLAGS
    "ff5118"  # call [rcx + 24]
    "5f595b"  # pop rdi, rcx, rbx
    "f6411102"  # test byte [rcx + 17], 2: the interrupt flag
    "7501"  # jne stop
    "c3"  # ret
    "c6410a01"  # stop: mov byte [rcx + STOPPED_AT], 1
    "ff6120".format(eflags=struct.pack("<I", unicorn_engine.EFLAGS).hex())  # jmp [rcx + 32]
)
"""Called before every instruction: void (*)(uc, address, size, cell)."""

UNDONE: Final = (unicorn_engine.EIP, *(unicorn_engine.GENERAL[number] for number in (EAX, ECX, ESI)))
"""What IN and OUTS change, and SYSENTER, which Unicorn skips."""


class Why(Enum):
    """Why a batch is over."""

    BUDGET = "as many instructions as were asked for"
    KICKED = "somebody asked"
    WINDOW = "interrupts are on"
    HALT = "HLT"
    INPUT = "a port is read: the instruction is done but for its result"
    OUTPUT = "a port was written"
    EVALUATE = "the instruction is for the evaluator"
    TRAP = "a single step: to be delivered behind the instruction that is done"


class EmulatedCpu:
    """A processor in Unicorn over a machine's memory. It holds the floating-point state; all else is a CpuState's."""

    def __init__(self, space: PhysicalSpace, memory: PagedMemory) -> None:
        """`memory` is what the evaluator uses: the two tell each other what they change."""
        self._memory = memory
        self._ram = space.memory
        engine = self._engine = Engine()
        _map(engine, space)
        self._state = UnicornState(engine)
        functions = engine.address_of("uc_reg_read"), engine.address_of("uc_emu_stop")
        self._cell = bytearray(CELL.pack(0, 0, 0, 0, 0, 0, *functions))
        self._sentry = MachineCode(SENTRY)
        self._cell_pin = ctypes.c_char.from_buffer(self._cell)
        engine.hook_machine_code(self._sentry.address, ctypes.addressof(self._cell_pin))
        engine.hook_ports(self._on_in, self._on_out)
        engine.hook_query(unicorn_engine.INS_CPUID, self._on_cpuid)
        engine.hook_query(unicorn_engine.INS_RDTSC, self._on_rdtsc)
        engine.hook_query(unicorn_engine.INS_SYSENTER, self._on_evaluated)
        engine.hook_query(unicorn_engine.INS_SYSCALL, self._on_evaluated)
        engine.hook_interrupts(self._on_interrupt)
        self._tsc_offset = 0
        self._read_undone = engine.reader(UNDONE)
        self._port: tuple[bool, int, int, int] | None = None
        self._before: tuple[int, ...] | None = None  # what a callback found in UNDONE
        self._vector = -1
        self._flushes = -1
        self.port = self.port_size = self.port_value = 0
        """Of INPUT and OUTPUT."""
        self.fault: faults.GuestFault | None = None
        """Of EVALUATE: the exception that Unicorn found, if the evaluator does not know the instruction."""
        self.instructions = 0
        """How many were emulated, all batches together."""

    def kick(self) -> None:
        """Have a running batch end soon; from any thread. Forgotten when no batch runs."""
        self._cell[KICKED_AT] = 1

    def run(self, state: CpuState, budget: int, *, window: bool = False) -> Why:
        """Run up to `budget` instructions; with `window`, until interrupts are on. `state` is exact afterwards."""
        memory, cell = self._memory, self._cell
        self._tell_of_writes()
        self._state.put(state, flush=memory.flushes != self._flushes)
        self._flushes = memory.flushes
        struct.pack_into("<q4B", cell, 0, budget, window, 0, 0, 0)
        self._port, self._before, self._vector, self.fault = None, None, -1, None
        self._tsc_offset = state.tsc_offset
        error = self._engine.run(state.eip)
        self._state.get(state)
        memory.forget()
        state.interrupt_shadow = False
        left, _, kicked, stopped, _ = struct.unpack_from("<q4B", cell)
        self.instructions += budget - max(left, 0)
        if self._port is not None:
            return self._after_port(state)
        if self._before is not None:
            return self._undo(state)
        if self._vector >= 0:
            return self._after_exception(state)
        if error != unicorn_engine.OK:
            if error == unicorn_engine.ERROR_INVALID_INSTRUCTION:
                self.fault = faults.GuestFault(faults.UD)
            return Why.EVALUATE
        if not stopped:
            state.halted = True
            return Why.HALT
        if left < 0:
            return Why.BUDGET
        return Why.KICKED if kicked else Why.WINDOW

    def written(self, start: int, size: int) -> None:
        """Physical memory was changed by others: what was made of its code must go."""
        self._memory.written.update(range(start // PAGE, -(-min(start + size, self._ram.size) // PAGE)))

    def _tell_of_writes(self) -> None:
        """Pages that the evaluator has written may hold code that Unicorn has translated."""
        written = self._memory.written
        if written:
            self._state.address_physically()
            for frame in written:
                self._engine.forget_code(frame * PAGE, PAGE)
            written.clear()

    def _after_port(self, state: CpuState) -> Why:
        """IN and OUT are done, but INS is not: what it stored is stored again.

        Where the task state segment decides, which Unicorn does not look at, nothing of it is done.
        """
        assert self._port is not None and self._before is not None
        write, self.port, self.port_size, self.port_value = self._port
        if state.cr0 & CR0_PE and (state.eflags & VM or state.cpl > state.iopl):
            return self._undo(state)
        if write:
            return Why.OUTPUT
        return Why.EVALUATE if state.eip == self._before[0] else Why.INPUT

    def _undo(self, state: CpuState) -> Why:
        """Back to the instruction that called back, which is for the evaluator."""
        assert self._before is not None
        state.eip, state.registers[EAX], state.registers[ECX], state.registers[ESI] = self._before
        return Why.EVALUATE

    def _after_exception(self, state: CpuState) -> Why:
        """EIP is at the instruction, but behind a software interrupt, which is done again by the evaluator."""
        vector = self._vector
        code, software = self._state.exception()
        if software:
            state.eip = _start_of_interrupt(self._memory, state, vector)
        elif vector == faults.DB:
            return Why.TRAP
        elif vector == faults.PF:
            self.fault = faults.GuestFault(vector, code, state.cr2)
        else:
            self.fault = faults.GuestFault(vector, code if vector in faults.WITH_ERROR_CODE else None)
        return Why.EVALUATE

    def _on_in(self, port: int, size: int) -> None:
        self._port = False, port, size, 0
        self._on_evaluated()

    def _on_out(self, port: int, size: int, value: int) -> None:
        self._port = True, port, size, value & (1 << 8 * size) - 1
        self._on_evaluated()

    def _on_evaluated(self) -> None:
        """Stop, and keep what the instruction changes."""
        self._before = self._read_undone()
        self._engine.stop()

    def _on_interrupt(self, vector: int) -> None:
        self._vector = vector
        self._engine.stop()

    def _on_cpuid(self) -> None:
        registers, engine = unicorn_engine.GENERAL, self._engine
        values = cpuid.answer(engine.read(registers[EAX]), engine.read(registers[ECX]))
        for number, value in zip((EAX, EBX, ECX, EDX), values, strict=True):
            engine.write(registers[number], value)

    def _on_rdtsc(self) -> None:
        value = read_tsc(self._tsc_offset)
        self._engine.write(unicorn_engine.GENERAL[EAX], value & 0xFFFF_FFFF)
        self._engine.write(unicorn_engine.GENERAL[EDX], value >> 32)

    def close(self) -> None:
        """End the processor. May be called twice."""
        self._engine.close()


def _map(engine: Engine, space: PhysicalSpace) -> None:
    """Show Unicorn the memory where it is; holes stay unmapped, so that uses of devices come out."""
    ram, start = space.memory, 0
    for hole in sorted(space.holes, key=lambda found: found.start):
        _map_part(engine, start, min(hole.start, ram.size), ram.address)
        start = -(-hole.stop // PAGE) * PAGE
    _map_part(engine, start, ram.size, ram.address)
    for address, rom in space.roms:
        engine.map_host(address, rom.size, rom.address, unicorn_engine.PROT_READ | unicorn_engine.PROT_EXEC)


def _map_part(engine: Engine, start: int, end: int, base: int) -> None:
    if start < end:
        engine.map_host(start, end - start, base + start)


def _start_of_interrupt(memory: PagedMemory, state: CpuState, vector: int) -> int:
    """Where the INT, INT3 or INTO in front of EIP begins, but for prefixes, which do not matter to it."""
    before = state.linear_eip() - 1
    single = {faults.BP: INT3, faults.OF: INTO}.get(vector)
    if single is not None and memory.fetch(before & 0xFFFF_FFFF, 1)[0] == single:
        return state.eip - 1
    return state.eip - 2

"""System instructions: control and debug registers, MSRs, ports, the interrupt flag, halting.

Intel SDM volume 3A, 2.8, and the instructions' pages in volume 2.
"""

from typing import Final

from iced_x86 import Mnemonic, Register

from virtus.host import timestamp
from virtus.vcpus.scanned import descriptors, faults
from virtus.vcpus.scanned.cpu_state import (
    CR0_CD,
    CR0_DEFINED,
    CR0_EM,
    CR0_ET,
    CR0_MP,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR0_WP,
    CR4_DE,
    CR4_MCE,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_PCE,
    CR4_PGE,
    CR4_PSE,
    CR4_TSD,
    EAX,
    EBX,
    ECX,
    EDX,
    IF,
    IOPL,
    IOPL_SHIFT,
    MASK32,
    SS,
    CpuState,
)
from virtus.vcpus.scanned.execution import Execution
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.integers import mov
from virtus.vcpus.scanned.operands import SEGMENTS, Compile, Operands, Operation

CR4_ALLOWED: Final = (
    CR4_TSD | CR4_DE | CR4_PSE | CR4_MCE | CR4_PGE | CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT
)  # without VME, PVI and PAE, which CPUID does not promise either
FLUSHING_CR0: Final = CR0_PG | CR0_WP | CR0_PE
FLUSHING_CR4: Final = CR4_PSE | CR4_PGE

# model-specific registers (Intel SDM volume 4, table 2-2)
MSR_TSC, MSR_APIC_BASE, MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP = 0x10, 0x1B, 0x174, 0x175, 0x176
MSR_TSC_ADJUST: Final = 0x3B
MSR_BIOS_UPDATE, MSR_MTRR_CAP, MSR_PAT = 0x8B, 0xFE, 0x277
CONSTANT_MSRS: Final = {MSR_BIOS_UPDATE: 0, MSR_MTRR_CAP: 0}

CONTROL: Final[dict[int, int]] = {Register.CR0: 0, Register.CR2: 2, Register.CR3: 3, Register.CR4: 4}
DEBUG: Final[dict[int, int]] = {Register.DR0 + number: number for number in range(8)}
DR6_FIXED, DR7_FIXED = 0xFFFF_0FF0, 0x400
DR7_GENERAL_DETECT: Final = 0x2000


def read_tsc(offset: int) -> int:
    """The guest's time stamp counter: the host's (`host/timestamp.py`) and CpuState's `offset`."""
    return timestamp.counter()() + offset & 0xFFFF_FFFF_FFFF_FFFF


def move(ops: Operands) -> Operation:
    """MOV in all its forms."""
    for index in (0, 1):
        register = ops.register(index)
        if register in SEGMENTS:
            return _load_segment(ops) if index == 0 else _store_segment(ops)
        if register in CONTROL:
            return _write_control(ops) if index == 0 else _read_control(ops)
        if register in DEBUG:
            return _write_debug(ops) if index == 0 else _read_debug(ops)
    return mov(ops)


def _load_segment(ops: Operands) -> Operation:
    execution, number, read = ops.execution, SEGMENTS[ops.register(0)], ops.reader(1, 2)

    def operation() -> None:
        descriptors.load(execution, number, read() & 0xFFFF)
        if number == SS:
            execution.state.interrupt_shadow = True

    return operation


def _store_segment(ops: Operands) -> Operation:
    """Into memory 16 bits, into a register as many as it has."""
    segment = ops.execution.segments[SEGMENTS[ops.register(1)]]
    write = ops.writer(0, 2 if ops.is_memory(0) else ops.size(0))
    return lambda: write(segment.selector)


def _read_control(ops: Operands) -> Operation:
    execution, number, write = ops.execution, CONTROL[ops.register(1)], ops.writer(0, 4)
    state = execution.state

    def operation() -> None:
        execution.demand_privilege()
        write((state.cr0, 0, state.cr2, state.cr3, state.cr4)[number])

    return operation


def _write_control(ops: Operands) -> Operation:
    execution, number, read = ops.execution, CONTROL[ops.register(0)], ops.reader(1, 4)
    state = execution.state

    def operation() -> None:
        execution.demand_privilege()
        value = read()
        if number == 0:
            write_cr0(execution, value)
        elif number == 2:
            state.cr2 = value
        elif number == 3:
            state.cr3 = value
            execution.memory.flush()
        else:
            if value & ~CR4_ALLOWED:
                raise GuestFault(faults.GP, 0)
            changed, state.cr4 = state.cr4 ^ value, value
            if changed & FLUSHING_CR4:
                execution.memory.flush()
            if changed & CR4_TSD:
                execution.time_changed()

    return operation


def write_cr0(execution: Execution, value: int) -> None:
    """Change CR0; #GP(0) for paging without protection, and for NW without CD (Intel SDM volume 3A, 2.5)."""
    state = execution.state
    value = value & CR0_DEFINED | CR0_ET
    if value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        raise GuestFault(faults.GP, 0)
    changed, state.cr0 = state.cr0 ^ value, value
    if changed & FLUSHING_CR0:
        execution.memory.flush()


def _debug_number(execution: Execution, number: int) -> int:
    """DR4 and DR5 are DR6 and DR7 unless CR4.DE; #DB where DR7.GD protects them."""
    state = execution.state
    if number in (4, 5):
        if state.cr4 & CR4_DE:
            raise GuestFault(faults.UD)
        number += 2
    execution.demand_privilege()
    if state.debug[7] & DR7_GENERAL_DETECT:
        state.debug[6] |= DR7_GENERAL_DETECT
        state.debug[7] &= ~DR7_GENERAL_DETECT
        raise GuestFault(faults.DB)
    return number


def _read_debug(ops: Operands) -> Operation:
    execution, named, write = ops.execution, DEBUG[ops.register(1)], ops.writer(0, 4)
    return lambda: write(execution.state.debug[_debug_number(execution, named)])


def _write_debug(ops: Operands) -> Operation:
    execution, named, read = ops.execution, DEBUG[ops.register(0)], ops.reader(1, 4)

    def operation() -> None:
        number, value = _debug_number(execution, named), read()
        if number == 6:
            value = value & ~0x1000 | DR6_FIXED
        elif number == 7:
            value = value & ~0xC000 | DR7_FIXED
        execution.state.debug[number] = value

    return operation


def lmsw(ops: Operands) -> Operation:
    """LMSW: the lower four bits of CR0; it cannot clear PE."""
    execution, read = ops.execution, ops.reader(0, 2)

    def operation() -> None:
        execution.demand_privilege()
        value, old = read(), execution.state.cr0
        changing = CR0_MP | CR0_EM | CR0_TS
        write_cr0(execution, old & ~changing | value & (changing | CR0_PE))

    return operation


def smsw(ops: Operands) -> Operation:
    """SMSW."""
    state = ops.execution.state
    size = 2 if ops.is_memory(0) else ops.size(0)
    write, mask = ops.writer(0, size), (1 << 8 * size) - 1
    return lambda: write(state.cr0 & mask)


def clts(ops: Operands) -> Operation:
    """CLTS."""
    execution = ops.execution

    def operation() -> None:
        execution.demand_privilege()
        execution.state.cr0 &= ~CR0_TS

    return operation


def invlpg(ops: Operands) -> Operation:
    """INVLPG: no limits are checked."""
    execution, offset = ops.execution, ops.offset()
    segment = execution.segments[ops.segment]

    def operation() -> None:
        execution.demand_privilege()
        execution.memory.flush_page(segment.base + offset() & MASK32)

    return operation


def privileged_nothing(ops: Operands) -> Operation:
    """WBINVD and INVD: there are no caches to see."""
    return ops.execution.demand_privilege


def rdmsr(ops: Operands) -> Operation:
    """RDMSR: #GP(0) for registers that there are not."""
    execution = ops.execution
    state, registers = execution.state, execution.registers

    def operation() -> None:
        execution.demand_privilege()
        value = read_msr(state, registers[ECX])
        registers[EAX], registers[EDX] = value & MASK32, value >> 32

    return operation


def read_msr(state: CpuState, number: int) -> int:
    """A model-specific register; raises #GP(0)."""
    if number == MSR_TSC:
        return read_tsc(state.tsc_offset)
    if number == MSR_TSC_ADJUST:
        return state.tsc_offset & 0xFFFF_FFFF_FFFF_FFFF
    if number == MSR_SYSENTER_CS:
        return state.sysenter_cs
    if number == MSR_SYSENTER_ESP:
        return state.sysenter_esp
    if number == MSR_SYSENTER_EIP:
        return state.sysenter_eip
    if number in CONSTANT_MSRS:
        return CONSTANT_MSRS[number]
    raise GuestFault(faults.GP, 0)


def wrmsr(ops: Operands) -> Operation:
    """WRMSR: #GP(0) for registers that there are not."""
    execution = ops.execution
    state, registers = execution.state, execution.registers

    def operation() -> None:
        execution.demand_privilege()
        number, value = registers[ECX], registers[EAX]
        if number == MSR_TSC:
            state.tsc_offset = (registers[EDX] << 32 | value) - timestamp.counter()()
            execution.time_changed()
        elif number == MSR_TSC_ADJUST:
            state.tsc_offset = registers[EDX] << 32 | value
            execution.time_changed()
        elif number == MSR_SYSENTER_CS:
            state.sysenter_cs = value & 0xFFFF
        elif number == MSR_SYSENTER_ESP:
            state.sysenter_esp = value
        elif number == MSR_SYSENTER_EIP:
            state.sysenter_eip = value
        elif number not in CONSTANT_MSRS:
            raise GuestFault(faults.GP, 0)

    return operation


def rdtsc(ops: Operands) -> Operation:
    """RDTSC."""
    state, registers = ops.execution.state, ops.execution.registers

    def operation() -> None:
        if state.cr4 & CR4_TSD and state.cpl:
            raise GuestFault(faults.GP, 0)
        value = read_tsc(state.tsc_offset)
        registers[EAX], registers[EDX] = value & MASK32, value >> 32

    return operation


def cpuid(ops: Operands) -> Operation:
    """CPUID: what the execution's owner answers."""
    execution = ops.execution
    registers = execution.registers

    def operation() -> None:
        answer = execution.cpuid(registers[EAX], registers[ECX])
        registers[EAX], registers[EBX], registers[ECX], registers[EDX] = answer

    return operation


def hlt(ops: Operands) -> Operation:
    """HLT."""
    execution = ops.execution

    def operation() -> None:
        execution.demand_privilege()
        execution.state.halted = True

    return operation


def _demand_interrupt_privilege(state: CpuState) -> None:
    if state.cpl > (state.eflags & IOPL) >> IOPL_SHIFT:
        raise GuestFault(faults.GP, 0)


def cli(ops: Operands) -> Operation:
    """CLI."""
    state = ops.execution.state

    def operation() -> None:
        _demand_interrupt_privilege(state)
        state.eflags &= ~IF

    return operation


def sti(ops: Operands) -> Operation:
    """STI: interrupts come only after the next instruction, where they were off."""
    state = ops.execution.state

    def operation() -> None:
        _demand_interrupt_privilege(state)
        if not state.eflags & IF:
            state.eflags |= IF
            state.interrupt_shadow = True

    return operation


def in_(ops: Operands) -> Operation:
    """IN."""
    execution, size = ops.execution, ops.size(0)
    port, write = ops.reader(1, 2 if ops.register(1) else 1), ops.writer(0, size)
    mask = (1 << 8 * size) - 1

    def operation() -> None:
        number = port()
        execution.demand_port(number, size)
        write(execution.ports.read(number, size) & mask)

    return operation


def out(ops: Operands) -> Operation:
    """OUT."""
    execution, size = ops.execution, ops.size(1)
    port, read = ops.reader(0, 2 if ops.register(0) else 1), ops.reader(1, size)

    def operation() -> None:
        number = port()
        execution.demand_port(number, size)
        execution.ports.write(number, size, read())

    return operation


def not_promised(ops: Operands) -> Operation:
    """What CPUID does not promise: #UD, whatever the host's processor has."""

    def operation() -> None:
        raise GuestFault(faults.UD)

    return operation


M = Mnemonic
NOT_PROMISED: Final = frozenset({
    M.RDTSCP, M.XGETBV, M.XSETBV, M.RDFSBASE, M.RDGSBASE, M.WRFSBASE, M.WRGSBASE, M.RDPID, M.RDPKRU, M.WRPKRU,
    M.XBEGIN, M.SYSCALL, M.SYSRET, M.RSM, M.MONITOR, M.MWAIT, M.XSAVE, M.XSAVEOPT, M.XSAVEC, M.XSAVES,
    M.XRSTOR, M.XRSTORS,
})  # fmt: skip
"""Instructions that would tell of the host, or that change what hides code from the guest (XRSTOR loads PKRU, too)."""
TABLE: Final[dict[int, Compile]] = {
    M.MOV: move, M.LMSW: lmsw, M.SMSW: smsw, M.CLTS: clts,
    M.INVLPG: invlpg, M.WBINVD: privileged_nothing, M.INVD: privileged_nothing,
    M.RDMSR: rdmsr, M.WRMSR: wrmsr, M.RDTSC: rdtsc, M.CPUID: cpuid,
    M.HLT: hlt, M.CLI: cli, M.STI: sti, M.IN: in_, M.OUT: out,
    **dict.fromkeys(NOT_PROMISED, not_promised),
}  # fmt: skip

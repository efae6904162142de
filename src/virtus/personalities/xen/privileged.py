"""Instructions that a paravirtual kernel executes although it may not: the hypervisor does what they mean for it.

Most of the kernel asks by hypercall; what is left comes here as a general protection fault, as under Xen
(xen/arch/x86/pv/emul-priv-op.c). There are no devices behind any port: inputs read as ones, outputs go nowhere.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.memory.x86_paging import is_canonical
from virtus.personalities.xen.abi import FAULT_ADDRESS, QWORD, Refused
from virtus.personalities.xen.cpuid import STATE_X87
from virtus.personalities.xen.instructions import LONGEST, UNKNOWN, Instruction, decode

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

RAX, RBX, RCX, RDX, RIP = 0, 1, 2, 3, 16
FORCED_EMULATION: Final = b"\x0f\x0bxen"
"""XEN_EMULATE_PREFIX (arch-x86/xen.h): ud2, "xen", then the instruction to be done for the guest."""
CPUID: Final = b"\x0f\xa2"
PIT_CHANNEL_2: Final = 0x42  # reads as 0, or a kernel that calibrates by it never ends
MSR_TSC, MSR_APIC_BASE, MSR_MISC_ENABLE, MSR_PAT = 0x10, 0x1B, 0x1A0, 0x277
MSR_EFER, MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE = 0xC0000080, 0xC0000100, 0xC0000101, 0xC0000102
FIXED_MSRS: Final = {
    MSR_EFER: 0xD01, MSR_APIC_BASE: 0xFEE00900, MSR_MISC_ENABLE: 1, MSR_PAT: 0x0007_0106_0007_0106,
}  # fmt: skip
CR0, CR4 = 0x8005_0033, 0x6A0


class Privileged:
    """Executes privileged instructions for one domain's kernel."""

    def __init__(self, domain: "Domain") -> None:
        self._domain = domain
        self._control = {0: CR0, 4: CR4, 8: 0}
        self._done: dict[int, Callable[[Instruction], int]] = {
            0x0F01: self._extended_control, 0x0F06: self._nothing, 0x0F08: self._nothing, 0x0F09: self._nothing,
            0x0F20: self._read_control, 0x0F22: self._write_control,
            0x0F21: self._read_debug, 0x0F23: self._write_debug,
            0x0F30: self._write_msr, 0x0F32: self._read_msr, 0x0FA2: self._cpuid,
            0xE4: self._input, 0xE5: self._input, 0xEC: self._input, 0xED: self._input,
            0xE6: self._output, 0xE7: self._output, 0xEE: self._output, 0xEF: self._output,
            0xFA: self._mask_events, 0xFB: self._unmask_events, 0xF4: self._halt,
        }  # fmt: skip

    @property
    def _regs(self) -> Any:
        return self._domain.cpu.context.regs

    def save(self) -> dict[str, int]:
        """The control registers as the guest has set them, by number."""
        return {str(number): value for number, value in self._control.items()}

    def load(self, saved: dict[str, int]) -> None:
        """What `save` gave."""
        self._control = {int(number): value for number, value in saved.items()}

    def execute(self) -> bool:
        """Execute the instruction that faulted, if it is one of these; whether it was."""
        try:
            code = self._code(self._regs[RIP], LONGEST)
            instruction = decode(code)
            does = self._done.get(instruction.opcode)
            if does is None:
                return False
            self._regs[RIP] += does(instruction)
        except Refused:
            return False
        return True

    def forced(self) -> bool:
        """CPUID behind the prefix that asks for it; whether that is what faulted."""
        try:
            code = self._code(self._regs[RIP], 7)
        except Refused:
            return False
        if code != FORCED_EMULATION + CPUID:
            return False
        self._cpuid(decode(CPUID))
        self._regs[RIP] += len(code)
        return True

    def _code(self, address: int, size: int) -> bytes:
        left = 4096 - address % 4096
        access = self._domain.access
        try:
            return access.read(address, size)
        except Refused:
            return access.read(address, min(size, left))

    def _nothing(self, one: Instruction) -> int:
        """Clts, invd, wbinvd."""
        return one.at

    def _cpuid(self, one: Instruction) -> int:
        leaf, index = self._regs[RAX] & 0xFFFFFFFF, self._regs[RCX] & 0xFFFFFFFF
        self._regs[RAX], self._regs[RBX], self._regs[RCX], self._regs[RDX] = self._domain.cpuid.answer(leaf, index)
        return one.at

    def _extended_control(self, one: Instruction) -> int:
        what, policy = one.byte(), self._domain.cpuid
        if what == 0xD0:  # xgetbv
            self._regs[RAX], self._regs[RDX] = policy.xcr0 & 0xFFFFFFFF, policy.xcr0 >> 32
        elif what == 0xD1:  # xsetbv
            chosen = self._regs[RAX] & 0xFFFFFFFF | (self._regs[RDX] & 0xFFFFFFFF) << 32
            if self._regs[RCX] & 0xFFFFFFFF or chosen & ~policy.states or not chosen & STATE_X87:
                raise Refused(UNKNOWN, "no such state")
            policy.xcr0 = chosen
        else:
            raise Refused(UNKNOWN)
        return one.at + 1

    def _read_control(self, one: Instruction) -> int:
        number, cpu = one.byte() >> 3 & 7 | (one.rex & 4) << 1, self._domain.cpu
        if number == 2:
            value = QWORD.unpack_from(self._domain.memory.bytes, cpu.info_at + FAULT_ADDRESS)[0]
        elif number == 3:
            value = self._domain.cpu.context.kernel_root
        else:
            value = self._known(self._control, number)
        self._regs[one.base] = value
        return one.at + 1

    def _write_control(self, one: Instruction) -> int:
        number = one.byte() >> 3 & 7 | (one.rex & 4) << 1
        value = self._regs[one.base]
        if number == 3:
            self._domain.cpu.set_kernel_root(value >> FRAME_SHIFT)
        else:
            self._known(self._control, number)
            self._control[number] = value  # nothing of it is real: the hypervisor's registers are its own
        return one.at + 1

    def _read_debug(self, one: Instruction) -> int:
        self._regs[one.base] = self._known(self._domain.cpu.debug_registers, one.extension)
        return one.at + 1

    def _write_debug(self, one: Instruction) -> int:
        self._domain.cpu.debug_registers[one.extension] = self._regs[one.base]
        return one.at + 1

    @staticmethod
    def _known(table: dict[int, int], number: int) -> int:
        if number not in table:
            raise Refused(UNKNOWN, f"no register {number}")
        return table[number]

    def _read_msr(self, one: Instruction) -> int:
        number, context = self._regs[RCX] & 0xFFFFFFFF, self._domain.cpu.context
        if number == MSR_FS_BASE:
            value = context.fs_base
        elif number == MSR_GS_BASE:
            value = context.gs_base
        elif number == MSR_KERNEL_GS_BASE:
            value = context.user_gs_base
        elif number == MSR_TSC:
            value = context.time_stamp()
        else:
            value = self._known(FIXED_MSRS, number)
        self._regs[RAX], self._regs[RDX] = value & 0xFFFFFFFF, value >> 32
        return one.at

    def _write_msr(self, one: Instruction) -> int:
        number = self._regs[RCX] & 0xFFFFFFFF
        value = self._regs[RAX] & 0xFFFFFFFF | (self._regs[RDX] & 0xFFFFFFFF) << 32
        if number in (MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE):
            if not is_canonical(value):
                raise Refused(UNKNOWN, f"{value:#x} is no address")
            name = {MSR_FS_BASE: "fs_base", MSR_GS_BASE: "gs_base", MSR_KERNEL_GS_BASE: "user_gs_base"}[number]
            setattr(self._domain.cpu.context, name, value)
        else:
            self._domain.note(f"wrmsr {number:#x} ignored")
        return one.at

    def _input(self, one: Instruction) -> int:
        immediate = one.opcode in (0xE4, 0xE5)
        port = one.byte() if immediate else self._regs[RDX] & 0xFFFF
        size = 1 if one.opcode in (0xE4, 0xEC) else min(one.size, 4)
        ones = (1 << 8 * size) - 1
        value = 0 if port == PIT_CHANNEL_2 else ones
        kept = self._regs[RAX] & ~ones if size < 4 else 0
        self._regs[RAX] = kept & (1 << 64) - 1 | value
        return one.at + immediate

    def _output(self, one: Instruction) -> int:
        return one.at + (one.opcode in (0xE6, 0xE7))

    def _mask_events(self, one: Instruction) -> int:
        self._domain.cpu.masked = True
        return one.at

    def _unmask_events(self, one: Instruction) -> int:
        self._domain.cpu.masked = False
        return one.at

    def _halt(self, one: Instruction) -> int:
        self._domain.wait()
        return one.at

"""The KVM API by number: include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h, Documentation/virt/kvm/api.rst.

Requests go through `fcntl.ioctl`; what a running vCPU shares with us (struct kvm_run) is a mapping whose fields are
`memoryview` casts, so that reading a register after an exit costs no host call (KVM_CAP_SYNC_REGS).
"""

import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Collection
from typing import Final

API_VERSION: Final = 12

KVM_GET_API_VERSION: Final = 0xAE00
KVM_CREATE_VM: Final = 0xAE01
KVM_CHECK_EXTENSION: Final = 0xAE03
KVM_GET_VCPU_MMAP_SIZE: Final = 0xAE04
KVM_GET_SUPPORTED_CPUID: Final = 0xC008AE05
KVM_CREATE_VCPU: Final = 0xAE41
KVM_SET_USER_MEMORY_REGION: Final = 0x4020AE46
KVM_RUN: Final = 0xAE80
KVM_SET_REGS: Final = 0x4090AE82
KVM_GET_SREGS: Final = 0x8138AE83
KVM_SET_SREGS: Final = 0x4138AE84
KVM_GET_MSRS: Final = 0xC008AE88
KVM_SET_MSRS: Final = 0x4008AE89
KVM_SET_SIGNAL_MASK: Final = 0x4004AE8B
KVM_SET_CPUID2: Final = 0x4008AE90
KVM_GET_TSC_KHZ: Final = 0xAEA3
KVM_GET_XSAVE: Final = 0x9000AEA4
KVM_SET_XCRS: Final = 0x4188AEA7
KVM_SET_XSAVE: Final = 0x5000AEA5
XSAVE_SIZE: Final = 4096  # struct kvm_xsave
XCRS: Final = struct.Struct("<IIIIQ368x")  # struct kvm_xcrs with one register: how many, flags; number, reserved, value

KVM_CAP_SYNC_REGS: Final = 74
SYNC_REGS, SYNC_SREGS, SYNC_EVENTS = 1, 2, 4  # KVM_SYNC_X86_*

EXIT_UNKNOWN, EXIT_IO, EXIT_HLT, EXIT_MMIO, EXIT_SHUTDOWN, EXIT_FAIL_ENTRY, EXIT_INTR = 0, 2, 5, 6, 8, 9, 10
EXIT_INTERNAL_ERROR: Final = 17
EXIT_NAMES: Final = {
    EXIT_UNKNOWN: "unknown", EXIT_IO: "port", EXIT_HLT: "halt", EXIT_MMIO: "no memory there",
    EXIT_SHUTDOWN: "triple fault", EXIT_FAIL_ENTRY: "entry failed", EXIT_INTR: "interrupted",
    EXIT_INTERNAL_ERROR: "internal error of KVM",
}  # fmt: skip

# struct kvm_run: offsets
RUN_IMMEDIATE_EXIT: Final = 1
RUN_EXIT_REASON: Final = 8
RUN_IO_DIRECTION: Final = 32  # of the union: kvm_run.io
RUN_IO_PORT: Final = 34
RUN_VALID_REGS: Final = 288
RUN_REGS: Final = 304
RUN_SREGS: Final = 448
RUN_EVENTS: Final = 760

REGISTER_NAMES: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rflags",
)  # fmt: skip
"""struct kvm_regs."""
SREGS_SIZE: Final = 312
SEGMENT: Final = struct.Struct("<QIH10B")  # struct kvm_segment
DESCRIPTOR_TABLE: Final = struct.Struct("<QH6x")  # struct kvm_dtable
# struct kvm_sregs: byte offsets of the segments, then numbers of 64-bit words
CS_AT, DS_AT, ES_AT, FS_AT, GS_AT, SS_AT, TR_AT, LDT_AT = (24 * at for at in range(8))
GDT_AT, IDT_AT, CONTROL_AT = 192, 208, 224
CR0_WORD, CR2_WORD, CR3_WORD, CR4_WORD, EFER_WORD = 28, 29, 30, 31, 33
FS_BASE_WORD, GS_BASE_WORD = FS_AT // 8, GS_AT // 8

CPUID_ENTRY: Final = struct.Struct("<IIIIIII12x")  # struct kvm_cpuid_entry2: function, index, flags, eax..edx
CPUID_SIGNIFICANT_INDEX: Final = 1
MSR_ENTRY: Final = struct.Struct("<IIQ")


class Vm:
    """One virtual machine: its memory slots, and who makes its vCPUs. Raises OSError where the host refuses."""

    def __init__(self) -> None:
        self.system = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self.fd = -1
        try:
            if fcntl.ioctl(self.system, KVM_GET_API_VERSION, 0) != API_VERSION:
                raise OSError(0, "a KVM API of another version")
            if not fcntl.ioctl(self.system, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS):
                raise OSError(0, "no KVM_CAP_SYNC_REGS (Linux 4.17)")
            self.fd = fcntl.ioctl(self.system, KVM_CREATE_VM, 0)
        except OSError:
            self.close()
            raise

    def set_memory(self, slot: int, guest_physical: int, size: int, address: int) -> None:
        """Show `size` bytes of our memory at `address` to the guest; all are multiples of the page size."""
        region = struct.pack("<IIQQQ", slot, 0, guest_physical, size, address)
        fcntl.ioctl(self.fd, KVM_SET_USER_MEMORY_REGION, region)

    def close(self) -> None:
        """Let go of the machine. May be called twice."""
        for fd in (self.fd, self.system):
            if fd >= 0:
                os.close(fd)
        self.fd = self.system = -1


class VirtualProcessor:
    """One vCPU: run it, and see its registers without a host call.

    `regs` are the 18 words of struct kvm_regs and `sregs` the bytes of struct kvm_sregs as of the last exit, also as
    64-bit words in `sregs_words`. They count in the next run when SYNC_REGS and SYNC_SREGS are in `dirty[0]`.
    """

    def __init__(self, vm: Vm, number: int = 0) -> None:
        self.fd = fcntl.ioctl(vm.fd, KVM_CREATE_VCPU, number)
        size = fcntl.ioctl(vm.system, KVM_GET_VCPU_MMAP_SIZE, 0)
        self._mapping = mmap.mmap(self.fd, size)
        self.shared = memoryview(self._mapping)
        self.exit_reason = self.shared[RUN_EXIT_REASON : RUN_EXIT_REASON + 4].cast("I")
        self.io_port = self.shared[RUN_IO_PORT : RUN_IO_PORT + 2].cast("H")
        self.valid = self.shared[RUN_VALID_REGS : RUN_VALID_REGS + 8].cast("Q")
        self.dirty = self.shared[RUN_VALID_REGS + 8 : RUN_VALID_REGS + 16].cast("Q")
        self.regs_bytes = self.shared[RUN_REGS : RUN_REGS + 8 * len(REGISTER_NAMES)]
        self.regs = self.regs_bytes.cast("Q")
        self.sregs = self.shared[RUN_SREGS : RUN_SREGS + SREGS_SIZE]
        self.sregs_words = self.sregs.cast("Q")
        self.events = self.shared[RUN_EVENTS : RUN_EVENTS + 8]
        self.valid[0] = SYNC_REGS | SYNC_SREGS | SYNC_EVENTS

    def get_sregs(self) -> bytearray:
        """struct kvm_sregs by a host call."""
        sregs = bytearray(SREGS_SIZE)
        fcntl.ioctl(self.fd, KVM_GET_SREGS, sregs)
        return sregs

    def set_sregs(self, sregs: bytes | bytearray) -> None:
        """Set struct kvm_sregs by a host call; raises OSError(EINVAL) for what no processor could hold."""
        fcntl.ioctl(self.fd, KVM_SET_SREGS, bytes(sregs))

    def set_registers(self, regs: bytes) -> None:
        """Set struct kvm_regs by a host call."""
        fcntl.ioctl(self.fd, KVM_SET_REGS, regs)

    def get_msr(self, index: int) -> int:
        """A model-specific register."""
        request = bytearray(struct.pack("<II", 1, 0) + MSR_ENTRY.pack(index, 0, 0))
        if fcntl.ioctl(self.fd, KVM_GET_MSRS, request) != 1:
            raise OSError(0, f"KVM has no MSR {index:#x}")
        value: int = MSR_ENTRY.unpack_from(request, 8)[2]
        return value

    def set_msrs(self, values: dict[int, int]) -> None:
        """Set model-specific registers."""
        entries = b"".join(MSR_ENTRY.pack(index, 0, value) for index, value in values.items())
        request = bytearray(struct.pack("<II", len(values), 0) + entries)  # for immutable bytes, ioctl gives bytes back
        if fcntl.ioctl(self.fd, KVM_SET_MSRS, request) != len(values):
            raise OSError(0, "KVM lacks one of the MSRs " + ", ".join(map(hex, values)))

    def set_cpuid(self, leaves: dict[tuple[int, int], tuple[int, int, int, int]], indexed: frozenset[int]) -> None:
        """What CPUID answers, by leaf and subleaf; the leaves in `indexed` depend on the subleaf."""
        entries = b"".join(
            CPUID_ENTRY.pack(leaf, index, CPUID_SIGNIFICANT_INDEX if leaf in indexed else 0, *values)
            for (leaf, index), values in leaves.items()
        )
        fcntl.ioctl(self.fd, KVM_SET_CPUID2, bytearray(struct.pack("<II", len(leaves), 0) + entries))

    def get_xsave(self) -> bytes:
        """The guest's floating-point and vector state in the XSAVE layout."""
        state = bytearray(XSAVE_SIZE)
        fcntl.ioctl(self.fd, KVM_GET_XSAVE, state)
        return bytes(state)

    def set_xsave(self, state: bytes) -> None:
        """Load what `get_xsave` gave; raises OSError(EINVAL) for a state that the processor refuses."""
        if len(state) != XSAVE_SIZE:
            raise OSError(22, "no struct kvm_xsave")
        fcntl.ioctl(self.fd, KVM_SET_XSAVE, bytearray(state))

    def set_xcr0(self, states: int) -> None:
        """Which states programs may use and XSAVE keeps; raises OSError(EINVAL) for others than CPUID offers."""
        fcntl.ioctl(self.fd, KVM_SET_XCRS, XCRS.pack(1, 0, 0, 0, states))

    def tsc_khz(self) -> int:
        """The rate of the guest's time stamp counter."""
        return fcntl.ioctl(self.fd, KVM_GET_TSC_KHZ, 0)

    def admit_signals(self, numbers: Collection[int]) -> None:
        """The only signals, blocked in this thread, that end `run` (which raises InterruptedError)."""
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        mask = sum(1 << (one - 1) for one in blocked if one not in numbers)
        fcntl.ioctl(self.fd, KVM_SET_SIGNAL_MASK, struct.pack("<IQ", 8, mask))

    def close(self) -> None:
        """Let go of the vCPU. May be called twice."""
        if self.fd < 0:
            return
        for view in (
            self.exit_reason, self.io_port, self.valid, self.dirty, self.regs, self.regs_bytes, self.sregs_words,
            self.sregs, self.events, self.shared,
        ):  # fmt: skip
            view.release()
        self._mapping.close()
        os.close(self.fd)
        self.fd = -1

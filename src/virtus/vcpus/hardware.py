"""vCPU "kvm": processors that run a guest at all its rings, under VMX or SVM; one thread of the host each.

Interrupt controllers and the timer are in the host's kernel, which also takes care of halted processors. What comes out
is what devices must answer: ports, and memory where there is none.
"""

import fcntl
import signal
import struct
import threading
from collections.abc import Mapping
from typing import Any, Final

from virtus.errors import HostLacks, MachineBroken
from virtus.exits import Exit, Reason
from virtus.host import kvm, kvm_devices, kvm_state
from virtus.memory.guest_memory import GuestMemory

KICK: Final = signal.SIGRTMIN
RUN_UNION: Final = 32
IO_EXIT: Final = struct.Struct("<BBHIQ")  # kvm_run.io: direction, size, port, count, offset of the data
MEMORY_EXIT: Final = struct.Struct("<Q8sIB")  # kvm_run.mmio: address, data, length, is_write
DATA_AT: Final = RUN_UNION + 8
OUT: Final = 1
# CPUID: Intel SDM volume 2, "CPUID"
HYPERVISOR, DEADLINE_TIMER = 1 << 31, 1 << 24  # leaf 1, ECX: kept for the monitor to set
FLAT_CODE: Final = kvm.SEGMENT.pack(0, 0xFFFFFFFF, 8, 11, 1, 0, 1, 1, 0, 1, 0, 0, 0)
FLAT_DATA: Final = kvm.SEGMENT.pack(0, 0xFFFFFFFF, 16, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
TASK: Final = kvm.SEGMENT.pack(0, 0x67, 32, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0)
PROTECTED: Final = 0x11  # CR0: PE, ET
PAGING, EXTENSION, LONG_ACTIVE = 1 << 31, 1 << 5, 0x500  # CR0.PG; CR4.PAE; EFER.LME and LMA
LONG_CODE: Final = kvm.SEGMENT.pack(0, 0xFFFFFFFF, 16, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
LONG_DATA: Final = kvm.SEGMENT.pack(0, 0xFFFFFFFF, 24, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
RBX, RSI, RSP, RIP, RFLAGS = 1, 4, 6, 16, 17
RESERVED_FLAG: Final = 2


class HardwareMachine:
    """Memory and `count` processors, the first of which is to be started. Raises HostLacks."""

    def __init__(self, memory: GuestMemory, count: int) -> None:
        doing = "starting a virtual machine"
        self.memory = memory
        try:
            self.vm = kvm.Vm()
        except OSError as error:
            raise HostLacks(doing, f"/dev/kvm: {error.strerror}", "see `virtus doctor`") from error
        self.vcpus: list[HardwareVcpu] = []
        try:
            for slot, (start, size) in enumerate(memory.ranges):
                self.vm.set_memory(slot, start, size, memory.address + memory.place(start, size))
            kvm_devices.make_interrupt_controllers(self.vm)
            supported = kvm_devices.supported_cpuid(self.vm)
            self.vcpus.extend(HardwareVcpu(self, number, count, supported) for number in range(count))
        except OSError as error:
            self.close()
            raise HostLacks(doing, f"KVM: {error.strerror or error}") from error

    def save(self) -> dict[str, Any]:
        """All of its state but the memory, as plain data. No processor runs, and each has `settled`. Raises OSError."""
        return {
            "machine": _as_text(kvm_state.get_machine(self.vm)),
            "processors": [_as_text(kvm_state.get_processor(self.vm, vcpu.processor)) for vcpu in self.vcpus],
            "features": _features(kvm_devices.supported_cpuid(self.vm)),
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """What `save` gave; raises NotRestored where this host has other processors, OSError, KeyError, ValueError."""
        for name, words in dict(saved["features"]).items():
            here = _features(kvm_devices.supported_cpuid(self.vm)).get(name, [0] * len(words))
            if any(int(word) & ~own for word, own in zip(words, here, strict=True)):
                raise kvm_state.NotRestored(f"it has features of CPUID leaf {name} that are missing here")
        for vcpu, state in zip(self.vcpus, saved["processors"], strict=True):
            kvm_state.set_processor(self.vm, vcpu.processor, _as_bytes(state))
        kvm_state.set_machine(self.vm, _as_bytes(saved["machine"]))

    def close(self) -> None:
        """Give it back, when no processor runs any more. May be called twice."""
        for vcpu in self.vcpus:
            vcpu.close()
        self.vm.close()


class HardwareVcpu:
    """One processor. See Vcpu; `begin` is called in the thread that will run it."""

    def __init__(self, machine: HardwareMachine, number: int, count: int, supported: list[list[int]]) -> None:
        self.number = number
        self.processor = kvm.VirtualProcessor(machine.vm, number)
        self.processor.valid[0] = 0  # no registers at every exit
        self._shared = self.processor.shared
        self._exit = Exit()
        self._exit.context = self
        self._ident = 0
        self._reading: tuple[int, int] | None = None  # where the answer goes, and its size
        self._more: list[tuple[int, int]] = []  # further pieces of a string instruction
        self.counters = kvm_devices.Counters(self.processor.fd)
        kvm_devices.set_cpuid(self.processor, _cpuid(supported, number, count))

    def start(self, entry: int, argument: int) -> None:
        """Begin in 32-bit protected mode, flat and without paging, with `argument` in EBX: the PVH entry."""
        processor = self.processor
        sregs = processor.get_sregs()
        sregs[kvm.CS_AT : kvm.CS_AT + 24] = FLAT_CODE
        for at in (kvm.DS_AT, kvm.ES_AT, kvm.FS_AT, kvm.GS_AT, kvm.SS_AT):
            sregs[at : at + 24] = FLAT_DATA
        sregs[kvm.TR_AT : kvm.TR_AT + 24] = TASK
        struct.pack_into("<QQQQQQ", sregs, kvm.CONTROL_AT, PROTECTED, 0, 0, 0, 0, 0)
        processor.set_sregs(sregs)
        regs = [0] * len(kvm.REGISTER_NAMES)
        regs[RBX], regs[RIP], regs[RFLAGS] = argument, entry, RESERVED_FLAG
        processor.set_registers(struct.pack(f"<{len(regs)}Q", *regs))

    def start_long(self, entry: int, argument: int, tables: int, descriptors: int, stack: int) -> None:
        """Begin in 64-bit mode with the page tables and descriptors that lie in memory there: `argument` in RSI."""
        processor = self.processor
        sregs = processor.get_sregs()
        sregs[kvm.CS_AT : kvm.CS_AT + 24] = LONG_CODE
        for at in (kvm.DS_AT, kvm.ES_AT, kvm.FS_AT, kvm.GS_AT, kvm.SS_AT):
            sregs[at : at + 24] = LONG_DATA
        sregs[kvm.TR_AT : kvm.TR_AT + 24] = TASK
        kvm.DESCRIPTOR_TABLE.pack_into(sregs, kvm.GDT_AT, descriptors, 31)
        struct.pack_into("<QQQQQQ", sregs, kvm.CONTROL_AT, PROTECTED | PAGING, 0, tables, EXTENSION, 0, LONG_ACTIVE)
        processor.set_sregs(sregs)
        regs = [0] * len(kvm.REGISTER_NAMES)
        regs[RSI], regs[RSP], regs[RIP], regs[RFLAGS] = argument, stack, entry, RESERVED_FLAG
        processor.set_registers(struct.pack(f"<{len(regs)}Q", *regs))

    def begin(self) -> None:
        """This thread runs it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {KICK})
        self.processor.admit_signals({KICK})
        self._ident = threading.get_ident()

    def settle(self) -> None:
        """Have the next `run` only finish what the last exit began, and come out, with Reason.EVENT if that is all."""
        self._shared[kvm.RUN_IMMEDIATE_EXIT] = 1

    def kick(self) -> None:
        """Have it come out soon, with Reason.EVENT. Any thread may ask."""
        self._shared[kvm.RUN_IMMEDIATE_EXIT] = 1
        if self._ident:
            signal.pthread_kill(self._ident, KICK)

    def run(self) -> Exit:
        """See Vcpu. The exits are PORT_IO, MEMORY_IO, EVENT and ENDED."""
        exit, shared = self._exit, self._shared
        if self._reading is not None:
            at, size = self._reading
            shared[at : at + size] = (exit.value & (1 << 8 * size) - 1).to_bytes(size, "little")
            self._reading = None
        if self._more:
            return self._next_piece()
        try:
            fcntl.ioctl(self.processor.fd, kvm.KVM_RUN, 0)
        except (InterruptedError, BlockingIOError):  # the second is of a processor that has not been brought up
            signal.sigtimedwait({KICK}, 0)
            shared[kvm.RUN_IMMEDIATE_EXIT] = 0
            exit.reason, exit.number = Reason.EVENT, 0
            return exit
        except OSError as error:
            raise MachineBroken("running the guest", f"KVM_RUN: {error.strerror}") from error
        reason = self.processor.exit_reason[0]
        if reason == kvm.EXIT_IO:
            direction, size, port, count, offset = IO_EXIT.unpack_from(shared, RUN_UNION)
            exit.reason, exit.number, exit.size, exit.write = Reason.PORT_IO, port, size, direction == OUT
            self._more = [(offset + size * number, size) for number in range(count)]
            return self._next_piece()
        if reason == kvm.EXIT_MMIO:
            address, data, size, write = MEMORY_EXIT.unpack_from(shared, RUN_UNION)
            exit.reason, exit.number, exit.size, exit.write = Reason.MEMORY_IO, address, size, bool(write)
            exit.value = int.from_bytes(data[:size], "little") if write else 0
            if not write:
                self._reading = (DATA_AT, size)
            return exit
        exit.reason, exit.number = Reason.ENDED, reason
        return exit

    def _next_piece(self) -> Exit:
        exit, (at, size) = self._exit, self._more.pop(0)
        if exit.write:
            exit.value = int.from_bytes(self._shared[at : at + size], "little")
        else:
            exit.value, self._reading = 0, (at, size)
        return exit

    def close(self) -> None:
        """See Vcpu."""
        self.counters.close()
        self.processor.close()


FEATURES: Final = {"1": (5, 6), "7": (4, 5, 6), "13": (3,), "2147483649": (5, 6)}
"""CPUID leaves that say what a processor can do, and which words of an entry: EAX is the fourth."""


def _features(supported: list[list[int]]) -> dict[str, list[int]]:
    """What this host's processors can do for a guest."""
    return {str(entry[0]): [entry[at] for at in FEATURES[str(entry[0])]]
            for entry in supported if str(entry[0]) in FEATURES and not entry[1]}  # fmt: skip


def _as_text(state: Mapping[str, bytes]) -> dict[str, str]:
    return {name: data.hex() for name, data in state.items()}


def _as_bytes(state: Mapping[str, Any]) -> dict[str, bytes]:
    return {name: bytes.fromhex(data) for name, data in dict(state).items()}


def _cpuid(supported: list[list[int]], number: int, count: int) -> list[list[int]]:
    """What CPUID answers on processor `number` of `count`: what the host supports, and who it is."""
    entries = []
    for leaf, index, flags, eax, ebx, ecx, edx in supported:
        if leaf == 1:
            ecx |= HYPERVISOR | DEADLINE_TIMER
            ebx = ebx & 0xFFFF | count << 16 | number << 24
            edx = edx | 1 << 28 if count > 1 else edx & ~(1 << 28)
        elif leaf in (0xB, 0x1F):  # extended topology: every processor is a core of one package
            bits = (count - 1).bit_length()
            eax, ebx, ecx = ((0, 1, 1 << 8), (bits, count, 2 << 8 | 1))[index] if index < 2 else (0, 0, index)
            edx = number
        elif leaf == 4:
            eax = eax & 0x03FFFFFF & ~(0xFFF << 14) | max(count - 1, 0) << 26
        entries.append([leaf, index, flags, eax, ebx, ecx, edx])
    return entries

"""The whole state of a virtual machine in the host's kernel, read and set: processors, controllers, timer, clock.

Structures are kept as the bytes that KVM gives. Source: Documentation/virt/kvm/api.rst; the order in which parts of a
processor are set is that of QEMU (target/i386/kvm/kvm.c, kvm_arch_put_registers).
"""

import fcntl
import struct
from typing import Final

from virtus.host.kvm import (
    KVM_GET_MSRS,
    KVM_GET_SREGS,
    KVM_GET_TSC_KHZ,
    KVM_GET_XSAVE,
    KVM_SET_MSRS,
    KVM_SET_REGS,
    KVM_SET_SREGS,
    KVM_SET_XSAVE,
    MSR_ENTRY,
    SREGS_SIZE,
    XSAVE_SIZE,
    VirtualProcessor,
    Vm,
)

KVM_GET_MSR_INDEX_LIST: Final = 0xC004AE02
KVM_SET_TSC_KHZ: Final = 0xAEA2
KVM_GET_IRQCHIP, KVM_SET_IRQCHIP = 0xC208AE62, 0x8208AE63
KVM_GET_PIT2, KVM_SET_PIT2 = 0x8070AE9F, 0x4070AEA0
KVM_GET_CLOCK, KVM_SET_CLOCK = 0x8030AE7C, 0x4030AE7B
IRQCHIPS: Final = (0, 1, 2)  # both 8259s, the I/O APIC
IRQCHIP_SIZE, PIT_SIZE, CLOCK_SIZE = 520, 112, 48
CLOCK_FLAGS_AT: Final = 8
MOST_MSRS: Final = 1024
TSC_DEADLINE: Final = 0x6E0
"""An MSR that means something once the local APIC's timer is in the mode for it."""
PARTS: Final = {
    "special": (KVM_GET_SREGS, KVM_SET_SREGS, SREGS_SIZE),
    "general": (0x8090AE81, KVM_SET_REGS, 144),  # KVM_GET_REGS
    "extended": (KVM_GET_XSAVE, KVM_SET_XSAVE, XSAVE_SIZE),
    "control": (0x8188AEA6, 0x4188AEA7, 392),  # KVM_GET_XCRS
    "local apic": (0x8400AE8E, 0x4400AE8F, 1024),  # KVM_GET_LAPIC
    "events": (0x8040AE9F, 0x4040AEA0, 64),  # KVM_GET_VCPU_EVENTS
    "running": (0x8004AE98, 0x4004AE99, 4),  # KVM_GET_MP_STATE
    "debug": (0x8080AEA1, 0x4080AEA2, 128),  # KVM_GET_DEBUGREGS
}
"""Of a processor, in the order in which they are set: the request to get it, that to set it, and how many bytes."""


class NotRestored(Exception):
    """This host's processor cannot hold what another one held."""


def _get(fd: int, request: int, size: int, head: bytes = b"") -> bytes:
    data = bytearray(head.ljust(size, b"\0"))
    fcntl.ioctl(fd, request, data)
    return bytes(data)


def get_processor(vm: Vm, processor: VirtualProcessor) -> dict[str, bytes]:
    """Everything of a processor that does not run. Raises OSError."""
    state = {name: _get(processor.fd, get, size) for name, (get, _, size) in PARTS.items()}
    state["registers"] = b"".join(
        MSR_ENTRY.pack(index, 0, value) for index, value in _get_msrs(processor, _msr_numbers(vm)).items()
    )
    state["rate"] = struct.pack("<I", fcntl.ioctl(processor.fd, KVM_GET_TSC_KHZ, 0))
    return state


def set_processor(vm: Vm, processor: VirtualProcessor, state: dict[str, bytes]) -> None:
    """What `get_processor` gave. Raises NotRestored, and OSError, KeyError or struct.error for what never was one."""
    for name, (_, _, size) in PARTS.items():
        if len(state[name]) != size:
            raise ValueError(f"{len(state[name])} bytes of {name}")
    (rate,) = struct.unpack("<I", state["rate"])
    if rate != fcntl.ioctl(processor.fd, KVM_GET_TSC_KHZ, 0):
        try:
            fcntl.ioctl(processor.fd, KVM_SET_TSC_KHZ, rate)
        except OSError as error:
            raise NotRestored(f"its time stamp counter ran at {rate} kHz") from error
    msrs = {index: value for index, _, value in MSR_ENTRY.iter_unpack(state["registers"])}
    deadline = msrs.pop(TSC_DEADLINE, 0)
    for name, (_, put, _) in PARTS.items():
        if name == "local apic":  # its base is a special register, its mode depends on the deadline register
            _set_msrs(processor, msrs)
        fcntl.ioctl(processor.fd, put, bytearray(state[name]))
    if deadline:
        _set_msrs(processor, {TSC_DEADLINE: deadline})


def _msr_numbers(vm: Vm) -> list[int]:
    data = bytearray(4 + 4 * MOST_MSRS)
    struct.pack_into("<I", data, 0, MOST_MSRS)
    fcntl.ioctl(vm.system, KVM_GET_MSR_INDEX_LIST, data)
    (count,) = struct.unpack_from("<I", data)
    return list(struct.unpack_from(f"<{min(count, MOST_MSRS)}I", data, 4))


def _get_msrs(processor: VirtualProcessor, numbers: list[int]) -> dict[int, int]:
    """Those of the registers that this processor has."""
    found: dict[int, int] = {}
    while numbers:
        some = numbers[:MOST_MSRS]
        request = bytearray(struct.pack("<II", len(some), 0) + b"".join(MSR_ENTRY.pack(one, 0, 0) for one in some))
        done = fcntl.ioctl(processor.fd, KVM_GET_MSRS, request)
        for index, _, value in MSR_ENTRY.iter_unpack(bytes(request[8 : 8 + MSR_ENTRY.size * done])):
            found[index] = value
        numbers = numbers[done + 1 :] if done < len(some) else numbers[done:]  # where it stops is one it has not
    return found


def _set_msrs(processor: VirtualProcessor, values: dict[int, int]) -> None:
    """Set them; one that cannot be set must have its value already. Raises NotRestored."""
    left = list(values.items())
    while left:
        entries = b"".join(MSR_ENTRY.pack(index, 0, value) for index, value in left)
        done = fcntl.ioctl(processor.fd, KVM_SET_MSRS, bytearray(struct.pack("<II", len(left), 0) + entries))
        if done < len(left):
            index, value = left[done]
            if _get_msrs(processor, [index]).get(index, 0) != value:
                raise NotRestored(f"its register {index:#x} held {value:#x}")
            done += 1
        left = left[done:]


def get_machine(vm: Vm) -> dict[str, bytes]:
    """What the processors share. Raises OSError."""
    state = {
        f"controller {number}": _get(vm.fd, KVM_GET_IRQCHIP, IRQCHIP_SIZE, struct.pack("<I", number))
        for number in IRQCHIPS
    }
    return state | {"timer": _get(vm.fd, KVM_GET_PIT2, PIT_SIZE), "clock": _get(vm.fd, KVM_GET_CLOCK, CLOCK_SIZE)}


def set_machine(vm: Vm, state: dict[str, bytes]) -> None:
    """What `get_machine` gave; the clock goes on from where it was. Raises OSError, KeyError or ValueError."""
    for number in IRQCHIPS:
        data = state[f"controller {number}"]
        if len(data) != IRQCHIP_SIZE or struct.unpack_from("<I", data) != (number,):
            raise ValueError("no interrupt controller")
        fcntl.ioctl(vm.fd, KVM_SET_IRQCHIP, bytearray(data))
    if len(state["timer"]) != PIT_SIZE or len(state["clock"]) != CLOCK_SIZE:
        raise ValueError("no timer, or no clock")
    fcntl.ioctl(vm.fd, KVM_SET_PIT2, bytearray(state["timer"]))
    clock = bytearray(state["clock"])
    struct.pack_into("<I", clock, CLOCK_FLAGS_AT, 0)  # not corrected by the time that has passed since
    fcntl.ioctl(vm.fd, KVM_SET_CLOCK, clock)

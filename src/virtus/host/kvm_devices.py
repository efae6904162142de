"""The host's KVM, beyond processors: interrupt controllers in the kernel, lines and doorbells as descriptors, counters.

Source: Documentation/virt/kvm/api.rst.
"""

import ctypes
import fcntl
import os
import struct
from typing import Final

from virtus.host.kvm import KVM_SET_CPUID2, VirtualProcessor, Vm

KVM_SET_TSS_ADDR: Final = 0xAE47
KVM_CREATE_IRQCHIP: Final = 0xAE60
KVM_CREATE_PIT2: Final = 0x4040AE77
KVM_IRQFD: Final = 0x4020AE76
KVM_IOEVENTFD: Final = 0x4040AE79
KVM_GET_STATS_FD: Final = 0xAECE
KVM_GET_SUPPORTED_CPUID: Final = 0xC008AE05
IOEVENTFD_DATAMATCH: Final = 1
CPUID_ENTRY: Final = struct.Struct("<7I12x")
MOST_CPUID: Final = 256
STATS_HEADER: Final = struct.Struct("<6I")
STATS_DESCRIPTOR: Final = struct.Struct("<IhHII")
STATS_TYPE, STATS_HISTOGRAM = 0xF, 3  # KVM_STATS_TYPE_MASK; linear and logarithmic histograms are 3 and 4


def make_interrupt_controllers(vm: Vm) -> None:
    """Local APICs, I/O APIC, 8259s and the timer 8254 in the kernel; before the first processor. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)  # fcntl.ioctl takes no address above 2 GiB
    if libc.ioctl(vm.fd, ctypes.c_ulong(KVM_SET_TSS_ADDR), ctypes.c_ulong(0xFFFBD000)):
        raise OSError(ctypes.get_errno(), "KVM_SET_TSS_ADDR")
    fcntl.ioctl(vm.fd, KVM_CREATE_IRQCHIP, 0)
    fcntl.ioctl(vm.fd, KVM_CREATE_PIT2, bytes(64))


def interrupt_line(vm: Vm, number: int) -> int:
    """An eventfd that raises an interrupt line (edge-triggered) when it is written to."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    fcntl.ioctl(vm.fd, KVM_IRQFD, struct.pack("<IIII16x", fd, number, 0, 0))
    return fd


def doorbell(vm: Vm, address: int, value: int) -> int:
    """An eventfd that becomes readable when the guest writes this 32-bit value to an address; no exit is made."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    fcntl.ioctl(vm.fd, KVM_IOEVENTFD, struct.pack("<QQIiI36x", value, address, 4, fd, IOEVENTFD_DATAMATCH))
    return fd


def supported_cpuid(vm: Vm) -> list[list[int]]:
    """What CPUID can answer: leaf, subleaf, flags, EAX, EBX, ECX, EDX each."""
    data = bytearray(8 + CPUID_ENTRY.size * MOST_CPUID)
    struct.pack_into("<I", data, 0, MOST_CPUID)
    fcntl.ioctl(vm.system, KVM_GET_SUPPORTED_CPUID, data)
    count = struct.unpack_from("<I", data)[0]
    return [list(CPUID_ENTRY.unpack_from(data, 8 + CPUID_ENTRY.size * at)) for at in range(count)]


def set_cpuid(processor: VirtualProcessor, entries: list[list[int]]) -> None:
    """What CPUID answers on one processor: entries as `supported_cpuid` gives them."""
    data = b"".join(CPUID_ENTRY.pack(*entry) for entry in entries)
    fcntl.ioctl(processor.fd, KVM_SET_CPUID2, bytearray(struct.pack("<II", len(entries), 0) + data))


class Counters:
    """The host's counters of a machine or a processor, by name (binary statistics); {} where the host has none."""

    def __init__(self, fd: int) -> None:
        try:
            self._fd = fcntl.ioctl(fd, KVM_GET_STATS_FD, 0)
        except OSError:
            self._fd = -1
            self._places: dict[str, int] = {}
            return
        _, name_size, count, _, descriptors, data = STATS_HEADER.unpack(os.pread(self._fd, STATS_HEADER.size, 0))
        self._places = {}
        for number in range(count):
            size = STATS_DESCRIPTOR.size + name_size
            one = os.pread(self._fd, size, descriptors + number * size)
            flags, _, values, offset, _ = STATS_DESCRIPTOR.unpack_from(one)
            if flags & STATS_TYPE < STATS_HISTOGRAM and values == 1:
                self._places[one[STATS_DESCRIPTOR.size :].split(b"\0")[0].decode()] = data + offset

    def read(self) -> dict[str, int]:
        """All counters, now."""
        return {name: int.from_bytes(os.pread(self._fd, 8, place), "little") for name, place in self._places.items()}

    def close(self) -> None:
        """Let go of them. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._places = {}

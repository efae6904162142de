"""The VMDriver of scan before execution: owns what the monitor (VMM) needs of the host.

VMware Workstation has three parts (Sugerman, Venkitachalam and Lim, USENIX 2001): the VMM runs the guest, the VMDriver
holds the host's resources for it, and the VMApp is what the user sees and does the input and output. Here they are
`vcpus/scanned`, this module, and a technique with its board. The VMM knows no device and the VMApp no page table.
"""

from typing import Final

from virtus.errors import UsageError
from virtus.machine.machine_spec import MIB, MachineSpec
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.vcpus.scanned.interrupts import Interrupts
from virtus.vcpus.scanned.memory_access import PhysicalSpace
from virtus.vcpus.scanned.scanner import DEFAULT_DEPTH
from virtus.vcpus.scanned.vcpu import ScannedVcpu

MOST_MEMORY: Final = 3 << 30
"""Bytes of an i386 guest's memory: the upper part of 4 GiB is the devices'."""
MOST_DEPTH: Final = 1000
MOST_NAMED: Final = 12
"""Instructions that the meter shows by name."""


class VmDriver:
    """What one guest holds of the host: physical memory, read-only memories, and the monitor's processes.

    Closing it gives everything back; so does the end of this process, however it comes.
    """

    def __init__(self, spec: MachineSpec, holes: tuple[range, ...] = (), *, device_memory: int = 0) -> None:
        """`holes` are where devices are instead of memory, `device_memory` how many bytes devices have that the guest
        may be shown. Raises UsageError, and HostLacks where memory is short."""
        if spec.memory > MOST_MEMORY:
            raise UsageError("reading --memory", f"{spec.memory // MIB}M", f"an i386 guest has {MOST_MEMORY // MIB}M")
        if spec.cpus != 1:
            raise UsageError("reading --cpus", f"{spec.cpus} processors", "scan before execution has one")
        self.depth = scan_depth(spec)
        self.memory = GuestMemory(spec.memory, devices=device_memory)
        self.space = PhysicalSpace(self.memory, holes)
        self._roms: list[GuestMemory] = []
        self._vcpu: ScannedVcpu | None = None

    def add_rom(self, address: int, image: bytes) -> None:
        """Put a read-only memory at a physical address, before the processor starts."""
        rom = GuestMemory(-(-len(image) // PAGE) * PAGE, "rom")
        rom.bytes[: len(image)] = image
        self._roms.append(rom)
        self.space.add_rom(address, rom)

    def start(self, interrupts: Interrupts) -> ScannedVcpu:
        """Start the monitor; its processor is as after a reset. Raises HostLacks."""
        self._vcpu = ScannedVcpu(self.space, interrupts, depth=self.depth)
        return self._vcpu

    def wrote(self, start: int, size: int) -> None:
        """A device has written to physical memory: code there is looked at anew."""
        if self._vcpu is not None and size:
            self._vcpu.flush_instructions(start, size)

    def show_device_memory(self, window: range) -> None:
        """A device has its memory at these physical addresses now: the guest is shown it there."""
        if self._vcpu is not None:
            self._vcpu.show_device_memory(window)

    def figures(self) -> dict[str, int]:
        """What `--meter` shows of the monitor; times in microseconds."""
        return {} if self._vcpu is None else figures(self._vcpu)

    def close(self) -> None:
        """Give everything back. May be called twice."""
        if self._vcpu is not None:
            self._vcpu.close()
        for memory in (*self._roms, self.memory):
            memory.close()


def scan_depth(spec: MachineSpec) -> int:
    """The option --depth; raises UsageError."""
    word = spec.extra.get("depth", str(DEFAULT_DEPTH))
    if not word.isdecimal() or not 1 <= int(word) <= MOST_DEPTH:
        raise UsageError("reading --depth", f"{word!r} is not between 1 and {MOST_DEPTH}")
    return int(word)


def figures(vcpu: ScannedVcpu) -> dict[str, int]:
    """The monitor's counters by name."""
    monitor, codes = vcpu.monitor, vcpu.codes
    scanner, shadow = monitor.scanner, monitor.shadow
    found = {
        "instructions scanned": scanner.instructions,
        "scans": scanner.scans,
        "deepest scan": scanner.deepest,
        "breakpoints planted": scanner.planted,
        "code pages made": codes.made,
        "code pages dropped": codes.dropped,
        "patches": monitor.patches.made,
        "instructions evaluated": vcpu.evaluated,
        "shadow fills": shadow.fills,
        "shadow pages filled": shadow.pages_filled,
        "shadow pages kept at CR3 loads": shadow.kept,
        "direct execution us": monitor.direct_ns // 1000,
        "emulation us": vcpu.emulated_ns // 1000,
        "processes": monitor.spaces.children.made,
    }
    found |= dict(sorted(monitor.counts.items()))
    found |= {f"exception {name}": count for name, count in sorted(vcpu.faults.items())}
    return found | {f"breakpoint hit: {name}": count for name, count in vcpu.hits().most_common(MOST_NAMED)}

"""The I/O ports of a PC, and memory as a device with bus mastership sees it."""

from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

NOTHING: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}
"""What a bus reads where nobody answers, by the size of the access."""
PORTS: Final = 0x10000

Line = Callable[[bool], None]
"""A wire to an interrupt controller: its level."""
Clock = Callable[[], int]
"""Nanoseconds that only ever go forward."""


class PortDevice(Protocol):
    """A chip with registers. Offsets count from where it was attached; no access raises, whatever a guest does."""

    def read(self, offset: int, size: int) -> int:
        """What the guest reads from a register."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes a register."""
        ...


@runtime_checkable
class BlockDevice(Protocol):
    """A chip with a register that strings of data go through; for its other registers None and False."""

    def read_block(self, offset: int, size: int) -> bytes | None:
        """So many bytes, as repeated reads give them."""
        ...

    def write_block(self, offset: int, data: bytes) -> bool:
        """What repeated writes give it."""
        ...


class PortBus:
    """Ports and who answers at them. Wider accesses than a chip's are split as by the ISA bus, lowest byte first."""

    def __init__(self) -> None:
        self._at: dict[int, tuple[PortDevice, int, int]] = {}
        self._windows: list[tuple[range, PortDevice]] = []
        self.unknown: set[int] = set()
        """Ports that the guest used and nobody has."""

    def attach(self, ports: range, device: PortDevice, width: int = 1) -> None:
        """Have a chip answer at fixed ports; `width` is its widest access, in bytes."""
        for port in ports:
            self._at[port] = device, port - ports.start, width

    def set_windows(self, windows: list[tuple[range, PortDevice]]) -> None:
        """What PCI functions answer at now; they take any width, and fixed ports go first."""
        self._windows = windows

    def _find(self, port: int) -> tuple[PortDevice, int, int] | None:
        found = self._at.get(port)
        if found is None:
            for window, device in self._windows:
                if port in window:
                    return device, port - window.start, 4
        return found

    def read(self, port: int, size: int) -> int:
        """A guest's IN."""
        found = self._find(port)
        if found is not None and size <= found[2]:
            return found[0].read(found[1], size) & NOTHING[size]
        if size > 1:
            half = size // 2
            return self.read(port, half) | self.read(port + half & PORTS - 1, half) << 8 * half
        self.unknown.add(port)
        return NOTHING[1]

    def write(self, port: int, size: int, value: int) -> None:
        """A guest's OUT."""
        found = self._find(port)
        if found is not None and size <= found[2]:
            found[0].write(found[1], size, value & NOTHING[size])
        elif size > 1:
            half = size // 2
            self.write(port, half, value & NOTHING[half])
            self.write(port + half & PORTS - 1, half, value >> 8 * half)
        else:
            self.unknown.add(port)

    def repeat(self, port: int, size: int, count: int, write: bool, value: int) -> int:
        """A guest's REP INS or REP OUTS: the values behind each other, the first lowest."""
        found = self._find(port)
        if found is not None and size <= found[2] and isinstance(found[0], BlockDevice):
            if write:
                if found[0].write_block(found[1], value.to_bytes(size * count, "little")):
                    return 0
            else:
                data = found[0].read_block(found[1], size * count)
                if data is not None:
                    return int.from_bytes(data, "little")
        bits, result = 8 * size, 0
        for shift in range(0, count * bits, bits):
            if write:
                self.write(port, size, value >> shift & (1 << bits) - 1)
            else:
                result |= self.read(port, size) << shift
        return result


class DmaMemory:
    """Memory for devices: what lies outside reads as ones and takes no writes, as on a bus, and is counted."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.outside = 0
        """How many transfers went outside of memory."""
        self.written: Callable[[int, int], None] = lambda address, size: None
        """Told of each write: whoever translates or caches code must look again."""

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes."""
        data = bytes(self._memory[address : address + size]) if address < len(self._memory) else b""
        if len(data) < size:
            self.outside += 1
            data += b"\xff" * (size - len(data))
        return data

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store as much as there is memory for."""
        fits = max(0, min(len(data), len(self._memory) - address))
        if fits < len(data):
            self.outside += 1
        if fits:
            self._memory[address : address + fits] = data[:fits]
            self.written(address, fits)

"""The PCI bus: configuration mechanism 1 (PCI Local Bus 2.1, 3.7.4.1), a host bridge 440FX and a south bridge PIIX3.

Sources: Intel 82441FX data sheet (290549), 82371SB PIIX3 (290550).
"""

from collections.abc import Callable
from typing import Final, Protocol

from virtus.devices.pc.bus import NOTHING, PortDevice

COMMAND, STATUS, HEADER, BARS, SUBSYSTEM, LINE, PIN = 4, 6, 0x0E, 0x10, 0x2C, 0x3C, 0x3D
IO_ENABLE, MEMORY_ENABLE, MASTER_ENABLE = 1, 2, 4
IO_BAR: Final = 1
CONFIG_ENABLE: Final = 0x8000_0000
SIZE: Final = 256
RESET_CONTROL: Final = 0xCF9 - 0xCF8
HARD_RESET: Final = 4
PIRQ_AT: Final = 0x60
PIRQ_OFF: Final = 0x80
# what QEMU's machine says of itself, by which SeaBIOS knows that firmware configuration is there
QEMU_SUBSYSTEM: Final = 0x1100_1AF4


class MemoryDevice(Protocol):
    """Somebody at physical addresses; offsets count from its base."""

    def read_memory(self, offset: int, size: int) -> int:
        """What the guest reads."""
        ...

    def write_memory(self, offset: int, size: int, value: int) -> None:
        """The guest writes."""
        ...


class PciFunction:
    """Configuration space of one function. Registers that nobody made writable keep their value."""

    def __init__(self, vendor: int, device: int, class_code: int, *, subsystem: int = 0, multi: bool = False) -> None:
        self.config = bytearray(SIZE)
        self.writable = bytearray(SIZE)
        self.config[0:4] = (vendor | device << 16).to_bytes(4, "little")
        self.config[8:12] = (class_code << 8).to_bytes(4, "little")
        self.config[HEADER] = 0x80 if multi else 0
        self.config[SUBSYSTEM : SUBSYSTEM + 4] = subsystem.to_bytes(4, "little")
        self.allow(COMMAND, b"\x07\x01")
        self.allow(LINE, b"\xff")
        self.port_bars: dict[int, tuple[int, PortDevice]] = {}
        self.memory_bars: dict[int, tuple[int, MemoryDevice]] = {}
        self.changed: Callable[[int], None] = lambda offset: None
        """Called after each write, with the offset."""

    def allow(self, offset: int, mask: bytes) -> None:
        """The guest may write these bits."""
        self.writable[offset : offset + len(mask)] = mask

    def add_port_bar(self, index: int, size: int, device: PortDevice) -> None:
        """A base address register for ports; the size is a power of 2 from 4 on."""
        self.port_bars[index] = size, device
        self.config[BARS + 4 * index] = IO_BAR
        self.allow(BARS + 4 * index, (-size & 0xFFFF_FFFC).to_bytes(4, "little"))

    def add_memory_bar(self, index: int, size: int, device: MemoryDevice) -> None:
        """A base address register for memory addresses, prefetchable."""
        self.memory_bars[index] = size, device
        self.config[BARS + 4 * index] = 8
        self.allow(BARS + 4 * index, (-size & 0xFFFF_FFF0).to_bytes(4, "little"))

    def interrupt_pin(self) -> None:
        """It uses INTA#."""
        self.config[PIN] = 1

    @property
    def command(self) -> int:
        """The command register."""
        return self.config[COMMAND] | self.config[COMMAND + 1] << 8

    def base(self, index: int) -> int:
        """The address in a base address register."""
        value = int.from_bytes(self.config[BARS + 4 * index : BARS + 4 * index + 4], "little")
        return value & (0xFFFC if value & IO_BAR else 0xFFFF_FFF0)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """The guest writes configuration space."""
        for at in range(offset, min(offset + size, SIZE)):
            mask = self.writable[at]
            self.config[at] = self.config[at] & ~mask | value & mask
            value >>= 8
        self.changed(offset)


class PciBus:
    """Ports CF8h to CFFh, and one bus of functions. `moved` is called when addresses have changed."""

    def __init__(self, reset: Callable[[], None]) -> None:
        self._reset = reset
        self._address = 0
        self.functions: dict[tuple[int, int], PciFunction] = {}
        self.moved: Callable[[], None] = lambda: None

    def add(self, slot: int, function: int, what: PciFunction) -> None:
        """Plug a function in."""
        self.functions[slot, function] = what

    def windows(self) -> list[tuple[range, PortDevice]]:
        """Ports that functions answer at now."""
        return [
            (range(function.base(index), function.base(index) + size), device)
            for function in self.functions.values()
            if function.command & IO_ENABLE
            for index, (size, device) in function.port_bars.items()
            if function.base(index)
        ]

    def memory_windows(self) -> list[tuple[range, MemoryDevice]]:
        """Physical addresses that functions answer at now."""
        return [
            (range(function.base(index), function.base(index) + size), device)
            for function in self.functions.values()
            if function.command & MEMORY_ENABLE
            for index, (size, device) in function.memory_bars.items()
            if function.base(index)
        ]

    def _target(self, offset: int) -> tuple[PciFunction | None, int]:
        address = self._address
        if not address & CONFIG_ENABLE or address >> 16 & 0xFF:
            return None, 0
        return self.functions.get((address >> 11 & 31, address >> 8 & 7)), address & 0xFC | offset & 3

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset < 4:
            return self._address >> 8 * offset & NOTHING[size] if size < 4 else self._address
        function, at = self._target(offset)
        return NOTHING[size] if function is None else int.from_bytes(function.config[at : at + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset == 0 and size == 4:
            self._address = value
        elif offset == RESET_CONTROL and size == 1:
            if value & HARD_RESET:
                self._reset()
        elif offset >= 4:
            function, at = self._target(offset)
            if function is not None:
                function.write_config(at, size, value)
                if at < BARS + 24:
                    self.moved()


def host_bridge() -> PciFunction:
    """The 82441FX. Its PAM registers (59h to 5Fh) can be written and protect nothing: there is memory always."""
    bridge = PciFunction(0x8086, 0x1237, 0x060000, subsystem=QEMU_SUBSYSTEM)
    bridge.allow(0x59, b"\xff" * 7)
    bridge.allow(0x72, b"\x7f")
    return bridge


class SouthBridge:
    """The PIIX3's ISA bridge: which interrupt line each of the four PCI interrupts comes out at."""

    def __init__(self, set_line: Callable[[int, bool], None]) -> None:
        self._set_line = set_line
        self._wanting: dict[int, set[int]] = {line: set() for line in range(16)}
        self._levels: dict[int, bool] = {}
        self.function = PciFunction(0x8086, 0x7000, 0x060100, subsystem=QEMU_SUBSYSTEM, multi=True)
        self.function.allow(PIRQ_AT, b"\xff" * 4)
        self.function.allow(0x4C, b"\xff" * 4)
        self.function.config[PIRQ_AT : PIRQ_AT + 4] = bytes((PIRQ_OFF,)) * 4
        self.function.changed = self._changed

    def wire(self, slot: int) -> Callable[[bool], None]:
        """The INTA# wire of a slot; slots are wired to the four interrupts in turn, as on QEMU's machine."""
        pirq = slot - 1 & 3

        def line(level: bool) -> None:
            self._levels[slot] = level
            self._route(slot, pirq)

        return line

    def _route(self, slot: int, pirq: int) -> None:
        route = self.function.config[PIRQ_AT + pirq]
        for line, wanting in self._wanting.items():
            wants = self._levels.get(slot, False) and not route & PIRQ_OFF and line == route & 15
            if wants != (slot in wanting):
                (wanting.add if wants else wanting.discard)(slot)
                self._set_line(line, bool(wanting))

    def _changed(self, offset: int) -> None:
        if PIRQ_AT - 4 < offset < PIRQ_AT + 4:
            for slot in self._levels:
                self._route(slot, slot - 1 & 3)

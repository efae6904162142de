"""Power management of the PIIX4 (Intel 82371AB, 7.2): fixed registers of ACPI, the timer, soft off, and the SMI port.

ACPI 2.0, 4.7: PM1 event and control blocks, the PM timer of 3.579545 MHz, a block of general-purpose events.
"""

from collections.abc import Callable
from typing import Final

from virtus.devices.pc.bus import Clock, Line
from virtus.devices.pc.pci import QEMU_SUBSYSTEM, PciFunction

TIMER_FREQUENCY: Final = 3_579_545
SECOND: Final = 1_000_000_000
STATUS, ENABLE, CONTROL, TIMER = 0, 2, 4, 8
POWER_BUTTON: Final = 0x100
SCI_ENABLE, SLEEP_ENABLE, SLEEP_TYPE_SHIFT = 1, 1 << 13, 10
OFF_TYPES: Final = (0, 5)
"""SLP_TYP of S5: what SeaBIOS's own tables say, and what others write."""
BASE_AT, BASE_ENABLE_AT, DEVACTB_AT = 0x40, 0x80, 0x58
REVISION_AT, REVISION = 8, 3  # from revision 3 on the PM timer is read right at once (82371AB specification update)
APMC_ENABLE: Final = 1 << 25
"""Set: the SMI port is in use, so SeaBIOS sets up no system management mode, which nobody has here."""
ACPI_ON, ACPI_OFF = 0xF1, 0xF0
SIZE: Final = 64


class PowerManagement:
    """Function 3 of the south bridge. `off` is called at soft off; `line` is the SCI, interrupt 9."""

    def __init__(self, clock: Clock, line: Line, off: Callable[[], None]) -> None:
        self._clock, self._line, self._off = clock, line, off
        self._status = self._enabled = self._control = 0
        self.function = PciFunction(0x8086, 0x7113, 0x068000, subsystem=QEMU_SUBSYSTEM)
        self.function.config[DEVACTB_AT : DEVACTB_AT + 4] = APMC_ENABLE.to_bytes(4, "little")
        self.function.config[REVISION_AT] = REVISION
        self.function.config[BASE_AT] = 1
        self.function.config[0x90] = 1
        self.function.config[0x3D] = 1
        self.function.allow(BASE_AT, b"\xc0\xff")
        self.function.allow(BASE_ENABLE_AT, b"\x01")
        self.function.allow(DEVACTB_AT, b"\xff" * 4)
        self.function.allow(0x90, b"\xf0\xff")
        self.function.allow(0xD2, b"\xff")

    def window(self) -> range:
        """Ports of the fixed registers now; empty when they are off."""
        base = int.from_bytes(self.function.config[BASE_AT : BASE_AT + 2], "little") & 0xFFC0
        return range(base, base + SIZE) if self.function.config[BASE_ENABLE_AT] & 1 else range(0)

    def press_power_button(self) -> None:
        """What a guest with ACPI answers by shutting down."""
        self._status |= POWER_BUTTON
        self._update()

    def _update(self) -> None:
        self._line(bool(self._status & self._enabled) and bool(self._control & SCI_ENABLE))

    def command(self, value: int) -> None:
        """The guest writes the SMI port, B2h."""
        if value == ACPI_ON:
            self._control |= SCI_ENABLE
        elif value == ACPI_OFF:
            self._control &= ~SCI_ENABLE
        self._update()

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        words = {STATUS: self._status, ENABLE: self._enabled, CONTROL: self._control}
        if TIMER <= offset < TIMER + 4:
            ticks = self._clock() * TIMER_FREQUENCY // SECOND & 0xFF_FFFF
            return ticks >> 8 * (offset - TIMER)
        value = words.get(offset & ~1, 0) | words.get((offset & ~1) + 2, 0) << 16
        return value >> 8 * (offset & 1)

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        value <<= 8 * (offset & 1)
        if offset & ~1 == STATUS:
            self._status &= ~value
            if size == 4:
                self._enabled = value >> 16 & 0xFFFF
        elif offset & ~1 == ENABLE:
            self._enabled = value & 0xFFFF
        elif offset & ~1 == CONTROL:
            self._control = value & 0xFFFF & ~SLEEP_ENABLE
            if value & SLEEP_ENABLE and value >> SLEEP_TYPE_SHIFT & 7 in OFF_TYPES:
                self._off()
        self._update()


class SmiPort:
    """Ports B2h and B3h: a command for firmware, and a scratch register."""

    def __init__(self, command: Callable[[int], None]) -> None:
        self._command = command
        self._registers = [0, 0]

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self._registers[offset & 1]

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice. The status port is cleared: the command has been carried out."""
        self._registers[offset & 1] = value
        if offset == 0:
            self._command(value)


class GeneralEvents:
    """Ports AFE0h to AFE3h: general-purpose events, of which none happens."""

    def __init__(self) -> None:
        self._enabled = bytearray(4)

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self._enabled[offset & 3] if offset >= 2 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset >= 2:
            self._enabled[offset & 3] = value


class ShutdownPort:
    """Port 8900h: firmware without ACPI writes a word there to turn the machine off (SeaBIOS, src/apm.c)."""

    WORD: Final = b"Shutdown"

    def __init__(self, off: Callable[[], None]) -> None:
        self._off = off
        self._said = b""

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._said = (self._said + bytes((value & 0xFF,)))[-len(self.WORD) :]
        if self._said == self.WORD:
            self._off()

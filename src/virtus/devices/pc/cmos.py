"""The clock with its battery-backed memory (Motorola MC146818 data sheet), with the places where a PC's BIOS looks."""

from collections.abc import Callable
from time import gmtime, time
from typing import Final

from virtus.devices.pc.bus import Clock, Line

SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0, 2, 4, 6, 7, 8, 9
ALARMS: Final = (1, 3, 5)
REG_A, REG_B, REG_C, REG_D, CENTURY = 10, 11, 12, 13, 0x32
SET, PERIODIC, ALARM, UPDATE, BINARY, HOURS_24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02  # of register B
RAISED, VALID_RAM = 0x80, 0x80
DIVIDER_ON: Final = 0x20
FLOPPY, EQUIPMENT, BASE_LOW, EXTENDED_LOW, EXTENDED_AGAIN, ABOVE_16M = 0x10, 0x14, 0x15, 0x17, 0x30, 0x34
BOOT_FLAGS, BOOT_ORDER, PROCESSORS = 0x38, 0x3D, 0x5F  # as SeaBIOS reads them (src/hw/rtc.h)
SIZE: Final = 128
SECOND: Final = 1_000_000_000
DONT_CARE: Final = 0xC0
LEAST_RATE: Final = 6  # 1024 Hz: faster ones are given at this rate


class Cmos:
    """Ports 70h and 71h. `line` is wired to interrupt 8. The time is the host's, in UTC: a guest that sets
    it reads back what it set while SET stands, and the host's time again afterwards."""

    def __init__(self, clock: Clock, line: Line, wall: Callable[[], float] = time) -> None:
        self._clock, self._line, self._wall = clock, line, wall
        self._index = 0
        self.memory = bytearray(SIZE)
        self.memory[REG_A], self.memory[REG_B] = 0x26, HOURS_24
        self._held: list[int] | None = None
        self._periodic_at: int | None = None
        self._second_at: int | None = None

    def describe(self, memory: int, floppy_type: int) -> None:
        """Tell the BIOS the size of memory, in bytes, and the type of the floppy drive (0: none, 4: 1.44 MB)."""
        words = {
            BASE_LOW: 640,
            EXTENDED_LOW: min((memory >> 10) - 1024, 0xFFFF),
            EXTENDED_AGAIN: min((memory >> 10) - 1024, 0xFFFF),
            ABOVE_16M: min(max(memory - (16 << 20), 0) >> 16, 0xFFFF),
        }
        for at, value in words.items():
            self.memory[at : at + 2] = max(value, 0).to_bytes(2, "little")
        self.memory[FLOPPY] = floppy_type << 4
        self.memory[EQUIPMENT] = 0x06 | (1 if floppy_type else 0)

    def _now(self) -> list[int]:
        """Seconds, minutes, hours, weekday, day, month, year, century, in the guest's notation."""
        now = gmtime(self._wall())
        weekday = (now.tm_wday + 1) % 7 + 1
        hour = now.tm_hour
        afternoon = 0
        if not self.memory[REG_B] & HOURS_24:
            afternoon = 0x80 if hour >= 12 else 0
            hour = hour % 12 or 12
        fields = [now.tm_sec, now.tm_min, hour, weekday, now.tm_mday, now.tm_mon, now.tm_year % 100, now.tm_year // 100]
        if not self.memory[REG_B] & BINARY:
            fields = [field // 10 << 4 | field % 10 for field in fields]
        fields[2] |= afternoon
        return fields

    @property
    def deadline_ns(self) -> int | None:
        """When it has to raise its line next."""
        times = [at for at in (self._periodic_at, self._second_at) if at is not None]
        return min(times, default=None)

    def _rearm(self) -> None:
        now, control = self._clock(), self.memory[REG_B]
        rate = self.memory[REG_A] & 15
        if not control & PERIODIC or not rate:
            self._periodic_at = None
        elif self._periodic_at is None:
            self._periodic_at = now + self._period()
        wants = control & (ALARM | UPDATE) and not control & SET
        self._second_at = (self._second_at or now + SECOND) if wants else None

    def _period(self) -> int:
        rate = self.memory[REG_A] & 15
        return SECOND * (1 << max(rate + 7 if rate < 3 else rate, LEAST_RATE) - 1) // 32768

    def advance(self) -> None:
        """Raise the line if it is time."""
        now, reasons = self._clock(), 0
        if self._periodic_at is not None and now >= self._periodic_at:
            reasons |= PERIODIC
            self._periodic_at = now + self._period()
        if self._second_at is not None and now >= self._second_at:
            reasons |= UPDATE | (ALARM if self._alarm() else 0)
            self._second_at = now + SECOND
        if reasons:
            self.memory[REG_C] |= reasons
            if self.memory[REG_B] & reasons:
                self.memory[REG_C] |= RAISED
                self._line(True)

    def _alarm(self) -> bool:
        now = self._now()
        return all(self.memory[at] >= DONT_CARE or self.memory[at] == now[field] for field, at in enumerate(ALARMS))

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset == 0:
            return 0xFF
        index = self._index
        if index in (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY):
            if self._held is not None:
                return self._held[_field(index)]
            return self._now()[_field(index)]
        if index == REG_C:
            value, self.memory[REG_C] = self.memory[REG_C], 0
            self._line(False)
            return value
        if index == REG_D:
            return VALID_RAM
        return self.memory[index]

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice. Bit 7 of the index, the mask of NMI, has nothing to mask."""
        index = self._index
        if offset == 0:
            self._index = value & 0x7F
        elif index in (SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY):
            if self._held is not None:
                self._held[_field(index)] = value
        elif index == REG_A:
            self.memory[REG_A] = value & 0x7F
            self._periodic_at = None
            self._rearm()
        elif index == REG_B:
            # the host's time goes on: what was set while SET stood is taken back with it
            self._held = (self._held or self._now()) if value & SET else None
            self.memory[REG_B] = value
            self._rearm()
        elif index not in (REG_C, REG_D):
            self.memory[index] = value


def _field(index: int) -> int:
    return {SECONDS: 0, MINUTES: 1, HOURS: 2, WEEKDAY: 3, DAY: 4, MONTH: 5, YEAR: 6, CENTURY: 7}[index]

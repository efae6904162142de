"""The interval timer (Intel 8254 data sheet): three counters of 1.193182 MHz, and port 61h that gates the third."""

from typing import Final

from virtus.devices.pc.bus import Clock, Line

FREQUENCY: Final = 1_193_182  # Hz: 14.31818 MHz / 12
SECOND: Final = 1_000_000_000
READ_BACK: Final = 3
LOW, HIGH, BOTH = 1, 2, 3
SPEAKER_GATE, SPEAKER_DATA, REFRESH, OUT2 = 1, 2, 0x10, 0x20
SHORTEST_NS: Final = 100_000
"""Ticks come no faster: nobody gets anything done between faster ones. Counters can be read exactly all the same."""


class Counter:
    """One counter: all six modes can be programmed and read; binary and BCD."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.mode, self.access, self.bcd = 0, BOTH, False
        self.count = 0x10000
        self.started = clock()
        self.gate = True
        self._latched: list[int] = []
        self._status: int | None = None
        self._low: int | None = None
        self._read_high = False
        self._loaded = False

    def control(self, value: int) -> None:
        """A control word for this counter."""
        access = value >> 4 & 3
        if access == 0:
            self.latch()
            return
        self.access, self.mode, self.bcd = access, (value >> 1 & 7), bool(value & 1)
        if self.mode > 5:
            self.mode -= 4  # bit 2 of modes 2 and 3 does not matter
        self._low, self._read_high, self._latched, self._loaded = None, False, [], False

    def latch(self) -> None:
        """Keep the count of now until it is read."""
        if not self._latched:
            value = self.value()
            parts = {LOW: [value & 0xFF], HIGH: [value >> 8], BOTH: [value & 0xFF, value >> 8]}
            self._latched = parts[self.access]

    def latch_status(self) -> None:
        """Keep the status of now until it is read (read-back command)."""
        if self._status is None:
            null = 0 if self._loaded else 0x40
            self._status = self.output() << 7 | null | self.access << 4 | self.mode << 1 | self.bcd

    def elapsed(self) -> int:
        """Ticks since the count was loaded."""
        return (self._clock() - self.started) * FREQUENCY // SECOND

    def value(self) -> int:
        """The counting element: 16 bits, in BCD where that was asked for."""
        ticks = self.elapsed()
        if self.mode in (2, 3):
            ticks = ticks * (2 if self.mode == 3 else 1) % self.count
        whole = 10000 if self.bcd else 0x10000
        left = (self.count - ticks) % whole
        return int(str(left), 16) if self.bcd else left & 0xFFFF

    def output(self) -> int:
        """The OUT pin."""
        if not self._loaded:
            return int(self.mode != 0)
        ticks = self.elapsed()
        if self.mode in (0, 1):
            return int(ticks >= self.count)
        if self.mode == 2:
            return int(ticks % self.count != self.count - 1)
        if self.mode == 3:
            return int(ticks % self.count < (self.count + 1) // 2)
        return int(ticks != self.count)

    def set_gate(self, level: bool) -> None:
        """The GATE pin; a rising edge starts modes 1, 2, 3 and 5 anew."""
        if level and not self.gate and self.mode in (1, 2, 3, 5):
            self.started = self._clock()
        self.gate = level

    def write(self, value: int) -> bool:
        """A byte of the count; True when it is complete and counting starts."""
        if self.access == BOTH and self._low is None:
            self._low = value
            return False
        count = value << 8 | (self._low or 0) if self.access != LOW else value
        self._low = None
        if self.bcd:
            count = sum(min(count >> 4 * digit & 15, 9) * 10**digit for digit in range(4))
        self.count = count or (10000 if self.bcd else 0x10000)
        self.started, self._loaded = self._clock(), True
        return True

    def read(self) -> int:
        """A byte of the status or the count."""
        if self._status is not None:
            status, self._status = self._status, None
            return status
        if self._latched:
            return self._latched.pop(0)
        value = self.value()
        high = self.access == HIGH or (self.access == BOTH and self._read_high)
        if self.access == BOTH:
            self._read_high = not self._read_high
        return value >> 8 if high else value & 0xFF


class Pit8254:
    """Ports 40h to 43h. `line` is wired to counter 0. See `deadline_ns`."""

    def __init__(self, clock: Clock, line: Line) -> None:
        self._clock, self._line = clock, line
        self.counters = [Counter(clock) for _ in range(3)]
        self.counters[2].gate = False
        self._next: int | None = None

    @property
    def deadline_ns(self) -> int | None:
        """When counter 0 ticks next, by the clock; None: never."""
        return self._next

    def advance(self) -> None:
        """Tick if it is time. Ticks that nobody saw are lost, as on the wire."""
        now = self._clock()
        if self._next is None or now < self._next:
            return
        self._line(False)
        self._line(True)
        self._next = self._following(now)

    def _following(self, now: int) -> int | None:
        counter = self.counters[0]
        if counter.mode not in (2, 3):
            return None
        period = max(counter.count * SECOND // FREQUENCY, SHORTEST_NS)
        return now + period - (now - counter.started) % period

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset < 3:
            if self.counters[offset].write(value) and offset == 0:
                self._rearm()
        elif value >> 6 != READ_BACK:
            self.counters[value >> 6].control(value)
            if value >> 6 == 0 and value & 0x30:
                self._next = None
                self._line(self.counters[0].mode != 0)
        else:
            for number, counter in enumerate(self.counters):
                if value >> number + 1 & 1:
                    if not value & 0x20:
                        counter.latch()
                    if not value & 0x10:
                        counter.latch_status()

    def _rearm(self) -> None:
        counter = self.counters[0]
        self._line(counter.mode not in (0, 1))
        once = counter.started + max(counter.count * SECOND // FREQUENCY, 1)
        self._next = self._following(counter.started) if counter.mode in (2, 3) else once

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self.counters[offset].read() if offset < 3 else 0xFF


class SystemControl:
    """Port 61h: the gate and the output of counter 2, and a bit that toggles with memory refresh."""

    def __init__(self, pit: Pit8254) -> None:
        self._counter = pit.counters[2]
        self._bits = 0
        self._refresh = 0

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        self._refresh ^= REFRESH
        return self._bits | self._refresh | (OUT2 if self._counter.output() else 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._bits = value & (SPEAKER_GATE | SPEAKER_DATA)
        self._counter.set_gate(bool(value & SPEAKER_GATE))

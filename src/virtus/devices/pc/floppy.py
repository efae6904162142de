"""A floppy drive controller with one drive (Intel 82077AA data sheet), for images of 160 KB to 2.88 MB.

A command is carried out when its last byte is written, by DMA channel 2; formatting fills tracks of an image.
"""

from collections import deque
from typing import Final

from virtus.devices.disk import SECTOR, Disk
from virtus.devices.pc.bus import Line
from virtus.devices.pc.dma8237 import Dma8237

GEOMETRIES: Final = {
    163840: (40, 1, 8),
    184320: (40, 1, 9),
    327680: (40, 2, 8),
    368640: (40, 2, 9),
    737280: (80, 2, 9),
    1228800: (80, 2, 15),
    1474560: (80, 2, 18),
    2949120: (80, 2, 36),
}
"""Size of an image: cylinders, heads, sectors a track."""
CMOS_TYPE: Final = {40: 1, 9: 3, 15: 2, 18: 4, 36: 5}
"""The drive's type for the BIOS, by sectors a track (or by 40 cylinders)."""
CHANNEL: Final = 2
READY, TO_HOST, BUSY = 0x80, 0x40, 0x10
NOT_RESET, DMA_ENABLE, MOTOR = 4, 8, 0x10
ABNORMAL, INVALID, SEEK_END, NOT_READY = 0x40, 0x80, 0x20, 0x08  # status register 0
NO_DATA, NOT_WRITABLE, END_OF_CYLINDER = 0x04, 0x02, 0x80  # status register 1
LENGTHS: Final = {
    0x02: 9,
    0x03: 3,
    0x04: 2,
    0x05: 9,
    0x06: 9,
    0x07: 2,
    0x08: 1,
    0x0A: 2,
    0x0C: 9,
    0x0D: 6,
    0x0E: 1,
    0x0F: 3,
    0x10: 1,
    0x12: 2,
    0x13: 4,
    0x14: 1,
}
"""Bytes of each command, by its five lower bits."""


def geometry(size: int) -> tuple[int, int, int] | None:
    """Cylinders, heads and sectors of an image of this size; None where no drive has it."""
    return GEOMETRIES.get(size)


class Floppy:
    """Attach at 3F0h to 3F5h, and 3F7h (offset 7)."""

    def __init__(self, disk: Disk | None, dma: Dma8237, line: Line) -> None:
        self._disk, self._dma, self._line = disk, dma, line
        self.shape = (None if disk is None else geometry(disk.size)) or (80, 2, 18)
        self._output = NOT_RESET | DMA_ENABLE
        self._command = bytearray()
        self._answer: deque[int] = deque()
        self._cylinders = [0, 0, 0, 0]
        self._senses: deque[int] = deque()
        self._changed = disk is not None
        self._lock = 0
        self._configured = [0, 0]
        self._rate = 0

    @property
    def cmos_type(self) -> int:
        """What the BIOS finds in CMOS memory; 0: no drive."""
        cylinders, _, sectors = self.shape
        return 0 if self._disk is None else CMOS_TYPE.get(cylinders) or CMOS_TYPE.get(sectors, 4)

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset == 2:
            return self._output
        if offset == 4:
            return READY | (TO_HOST | BUSY if self._answer else BUSY if self._command else 0)
        if offset == 5:
            value = self._answer.popleft() if self._answer else 0
            self._line(False)
            return value
        if offset == 7:
            return 0x80 if self._changed or self._disk is None else 0
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset == 2:
            if value & NOT_RESET and not self._output & NOT_RESET:
                self._reset()
            self._output = value
        elif offset == 4 and value & 0x80:
            self._reset()
        elif offset in (4, 7):
            self._rate = value & 3
        elif offset == 5 and not self._answer and self._output & NOT_RESET:
            self._command.append(value)
            length = LENGTHS.get(self._command[0] & 0x1F, 1)
            if self._command[0] == 0x94:
                length = 1
            if len(self._command) >= length:
                command, self._command = bytes(self._command), bytearray()
                self._carry_out(command)

    def _reset(self) -> None:
        self._command.clear()
        self._answer.clear()
        self._senses = deque(0xC0 | drive for drive in range(4))
        self._line(True)

    def _interrupt(self) -> None:
        self._line(False)
        if self._output & DMA_ENABLE:
            self._line(True)

    def _carry_out(self, command: bytes) -> None:
        code = command[0] & 0x1F
        if code in (0x05, 0x06, 0x0C):
            self._transfer(command, write=code == 0x05)
        elif code in (0x07, 0x0F):
            drive, to = command[1] & 3, command[2] if code == 0x0F else 0
            self._cylinders[drive] = to
            if drive == 0:
                self._changed = False
            fault = 0 if drive == 0 or code == 0x0F else ABNORMAL | 0x10
            self._sense(SEEK_END | fault | command[1] & 7)
        elif code == 0x08:
            if self._senses:
                status = self._senses.popleft()
                self._answer.extend((status, self._cylinders[status & 3]))
            else:
                self._answer.append(INVALID)
            self._line(False)
        elif code == 0x04:
            writable = self._disk is not None and not self._disk.read_only
            self._answer.append(0x28 | command[1] & 7 | (0 if writable else 0x40) | (not self._cylinders[0]) << 4)
        elif code == 0x0A:
            present = self._disk is not None and command[1] & 3 == 0
            self._result(command[1] & 7 | (0 if present else ABNORMAL), 0 if present else 1, 0, command[1] >> 2 & 1, 1)
        elif code == 0x0D:
            self._format(command)
        elif code == 0x10:
            self._answer.append(0x90)
        elif code == 0x14:
            self._lock = command[0] >> 7
            self._answer.append(self._lock << 4)
        elif code == 0x13:
            self._configured = [command[2], command[3]]
        elif code == 0x0E:
            self._answer.extend((*self._cylinders, 0, 0, self.shape[2], self._lock << 7, *self._configured))
        elif code not in (0x03, 0x12):
            self._answer.append(INVALID)

    def _sense(self, status: int) -> None:
        if len(self._senses) < 8:
            self._senses.append(status)
        self._interrupt()

    def _result(self, status0: int, status1: int, status2: int, head: int, sector: int, size: int = 2) -> None:
        self._answer.extend((status0, status1, status2, self._cylinders[0], head, sector, size))
        self._interrupt()

    def _transfer(self, command: bytes, *, write: bool) -> None:
        """READ, WRITE: sector by sector until DMA is at its end, or the track (of both sides) is."""
        both_sides = bool(command[0] & 0x80)
        cylinder, head, sector, last = command[2], command[3] & 1, command[4], command[6]
        cylinders, heads, sectors = self.shape
        unit = command[1] & 7
        if self._disk is None or unit & 3:
            self._result(ABNORMAL | NOT_READY | unit, 0, 0, head, sector)
            return
        if write and self._disk.read_only:
            self._result(ABNORMAL | unit, NOT_WRITABLE, 0, head, sector)
            return
        self._cylinders[0] = min(cylinder, 255)
        status1 = 0
        while True:
            if cylinder >= cylinders or head >= heads or not 1 <= sector <= sectors or command[5] != 2:
                status1 = NO_DATA
                break
            more = self._sector(self._disk, ((cylinder * heads + head) * sectors + sector - 1) * SECTOR, write)
            if more is None:
                status1 = NO_DATA
                break
            sector += 1
            if sector > last:
                if not both_sides or head == 1:
                    sector, cylinder, head = 1, cylinder + 1, 0 if both_sides else head
                    if more:
                        status1 = END_OF_CYLINDER
                    break
                sector, head = 1, 1
            if not more:
                break
        self._answer.extend(
            (unit & 3 | head << 2 | (ABNORMAL if status1 else 0), status1, 0, cylinder, head, sector, 2)
        )
        self._interrupt()

    def _sector(self, disk: Disk, at: int, write: bool) -> bool | None:
        """Move one sector; whether DMA wants more, None for a failure of the image."""
        channel = self._dma.channels[CHANNEL]
        try:
            if write:
                data = self._dma.from_memory(CHANNEL, SECTOR)
                if data:
                    disk.write(at, [memoryview(data.ljust(SECTOR, b"\0"))])
                return len(data) == SECTOR and not channel.done
            block = bytearray(SECTOR)
            disk.read(at, [memoryview(block)])
            return self._dma.to_memory(CHANNEL, bytes(block)) == SECTOR and not channel.done
        except OSError:
            return None

    def _format(self, command: bytes) -> None:
        cylinders, heads, sectors = self.shape
        unit, head, cylinder = command[1] & 7, command[1] >> 2 & 1, self._cylinders[0]
        self._dma.from_memory(CHANNEL, 4 * command[3])
        if self._disk is None or self._disk.read_only or cylinder >= cylinders or head >= heads:
            self._result(ABNORMAL | unit, NOT_WRITABLE, 0, head, 1)
            return
        try:
            filler = memoryview(bytes((command[5],)) * (SECTOR * sectors))
            self._disk.write((cylinder * heads + head) * sectors * SECTOR, [filler])
        except OSError:
            self._result(ABNORMAL | unit, NO_DATA, 0, head, 1)
            return
        self._result(unit, 0, 0, head, 1)

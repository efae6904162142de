"""An ATA disk over an image (ATA/ATAPI-6): 28 and 48-bit addresses, CHS, programmed I/O and DMA."""

import struct
from typing import Final

from virtus.devices.disk import SECTOR, Disk
from virtus.devices.pc.ide import (
    ABORTED,
    COUNT,
    DATA_REQUEST,
    DEVICE,
    ERROR,
    FEATURES,
    LBA_HIGH,
    LBA_LOW,
    LBA_MIDDLE,
    READY,
    TaskFile,
)

LBA: Final = 0x40
ID_NOT_FOUND, UNCORRECTABLE = 0x10, 0x40
HEADS, SECTORS = 16, 63
MOST_CYLINDERS: Final = 16383
MOST_28: Final = (1 << 28) - 1
MULTIPLE: Final = 16
READS: Final = {0x20, 0x21, 0x24, 0xC4, 0x29, 0xC8, 0xC9, 0x25}
WRITES: Final = {0x30, 0x31, 0x34, 0x3C, 0xC5, 0x39, 0xCA, 0xCB, 0x35}
VERIFIES: Final = {0x40, 0x41, 0x42}
EXTENDED: Final = {0x24, 0x29, 0x25, 0x34, 0x39, 0x35, 0x42}
BY_DMA: Final = {0xC8, 0xC9, 0x25, 0xCA, 0xCB, 0x35}
MULTIPLES: Final = {0xC4, 0x29, 0xC5, 0x39}
NOTHING_TO_DO: Final = {*range(0x10, 0x20), *range(0x70, 0x80), 0x91, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6, 0xE8}
MODES: Final = {0x02, 0x82, 0xAA, 0x55, 0x03, 0x05, 0x85, 0xCC, 0x66}
"""Subcommands of SET FEATURES that are accepted."""


class AtaDisk:
    """See Drive. Failures of the image are uncorrectable errors to the guest."""

    def __init__(self, disk: Disk, serial: str) -> None:
        self._disk, self._serial = disk, serial
        self.sectors = disk.size // SECTOR
        self.task = TaskFile()
        self.incoming, self.expected, self.block, self.dma = bytearray(), 0, SECTOR, False
        self._multiple = MULTIPLE
        self._heads, self._per_track = HEADS, SECTORS
        self._address = 0
        self._mode = 0x0020
        self.signature()

    def signature(self) -> None:
        """See Drive: no packet device."""
        self.task.values[COUNT : LBA_HIGH + 1] = [1, 1, 0, 0]

    def _fail(self, error: int) -> bool:
        self.task.status = READY | ERROR
        self.task.error = error
        return True

    def command(self, code: int) -> bool:
        """See Drive."""
        if code in READS or code in WRITES or code in VERIFIES:
            return self._transfer(code)
        values = self.task.values
        if code == 0xEC:
            self.incoming, self.block = bytearray(self.identity()), SECTOR
            self.task.status |= DATA_REQUEST
        elif code == 0xC6:
            if values[COUNT] > MULTIPLE or values[COUNT] & (values[COUNT] - 1):
                return self._fail(ABORTED)
            self._multiple = values[COUNT]
        elif code == 0x91:
            self._per_track, self._heads = max(values[COUNT], 1), (values[DEVICE] & 15) + 1
        elif code in (0xE7, 0xEA):
            try:
                self._disk.flush()
            except OSError:
                return self._fail(ABORTED)
        elif code == 0xE5:
            values[COUNT] = 0xFF
        elif code == 0xEF:
            return self._features()
        elif code in (0xF8, 0x27):
            self._put_address(self.sectors - 1, extended=code == 0x27)
        elif code not in NOTHING_TO_DO:
            return self._fail(ABORTED)
        return True

    def _features(self) -> bool:
        feature = self.task.values[FEATURES]
        if feature == 3 and self.task.values[COUNT] >> 3 in (4, 8):
            self._mode = self.task.values[COUNT]
        return True if feature in MODES else self._fail(ABORTED)

    def _span(self, extended: bool) -> tuple[int, int]:
        """First sector and count, from the task file."""
        now, before = self.task.values, self.task.previous
        if extended:
            address = sum(now[LBA_LOW + at] << 8 * at | before[LBA_LOW + at] << 24 + 8 * at for at in range(3))
            return address, (now[COUNT] | before[COUNT] << 8) or 65536
        count = now[COUNT] or 256
        if now[DEVICE] & LBA:
            return now[LBA_LOW] | now[LBA_MIDDLE] << 8 | now[LBA_HIGH] << 16 | (now[DEVICE] & 15) << 24, count
        cylinder = now[LBA_MIDDLE] | now[LBA_HIGH] << 8
        return (cylinder * self._heads + (now[DEVICE] & 15)) * self._per_track + now[LBA_LOW] - 1, count

    def _put_address(self, address: int, *, extended: bool) -> None:
        now, before = self.task.values, self.task.previous
        shown = address if extended else min(address, MOST_28)
        for at in range(3):
            now[LBA_LOW + at], before[LBA_LOW + at] = shown >> 8 * at & 0xFF, shown >> 24 + 8 * at & 0xFF
        if not extended:
            now[DEVICE] = now[DEVICE] & 0xF0 | shown >> 24 & 15

    def _transfer(self, code: int) -> bool:
        address, count = self._span(code in EXTENDED)
        if address < 0 or address + count > self.sectors:
            return self._fail(ID_NOT_FOUND)
        if code in MULTIPLES and not self._multiple:
            return self._fail(ABORTED)
        self.block = SECTOR * (self._multiple if code in MULTIPLES else 1)
        self.dma = code in BY_DMA
        if code in VERIFIES:
            return True
        self.task.status |= DATA_REQUEST
        if code in WRITES:
            if self._disk.read_only:
                self.dma = False
                return self._fail(ABORTED)
            self._address, self.expected = address, count * SECTOR
            return False
        data = bytearray(count * SECTOR)
        try:
            self._disk.read(address * SECTOR, [memoryview(data)])
        except OSError:
            self.dma = False
            return self._fail(UNCORRECTABLE)
        self.incoming = data
        return not self.dma

    def received(self, data: bytes) -> bool:
        """See Drive."""
        if not data:
            return False
        try:
            self._disk.write(self._address * SECTOR, [memoryview(data)])
        except OSError:
            return self._fail(ABORTED)
        return True

    def identity(self) -> bytes:
        """The answer to IDENTIFY DEVICE (ATA/ATAPI-6, 8.15)."""
        words = [0] * 256
        cylinders = min(self.sectors // (HEADS * SECTORS), MOST_CYLINDERS)
        words[0], words[1], words[3], words[6] = 0x0040, cylinders, HEADS, SECTORS
        words[10:20] = text_words(self._serial, 20)
        words[23:27] = text_words("1", 8)
        words[27:47] = text_words("VIRTUS DISK", 40)
        words[47], words[48], words[49] = 0x8000 | MULTIPLE, 1, 0x0F00
        words[51] = words[52] = 0x0200
        words[53], words[54], words[55], words[56] = 7, cylinders, HEADS, SECTORS
        old = cylinders * HEADS * SECTORS
        words[57], words[58], words[59] = old & 0xFFFF, old >> 16, 0x100 | self._multiple
        short = min(self.sectors, MOST_28)
        words[60], words[61], words[63] = short & 0xFFFF, short >> 16, 0x0007
        words[64] = 3
        words[65:69] = [120] * 4
        words[80], words[82], words[83], words[84] = 0x7E, 0x4000, 0x7400, 0x4000
        words[85], words[86], words[87] = 0x4000, 0x3400, 0x4000
        words[88] = 0x003F | (1 << 8 + (self._mode & 7) if self._mode >> 3 == 8 else 0)
        words[93] = 0x6001
        words[100:104] = [self.sectors >> 16 * at & 0xFFFF for at in range(4)]
        return struct.pack("<256H", *words)


def text_words(text: str, size: int) -> list[int]:
    """Characters, two a word, the first in the upper byte."""
    data = text.encode().ljust(size)[:size]
    return [data[at] << 8 | data[at + 1] for at in range(0, size, 2)]

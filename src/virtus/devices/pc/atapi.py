"""A CD drive with packets over IDE (ATA/ATAPI-6, 9.8; MMC-3), over an ISO image; the tray may be empty."""

import struct
from typing import Final

from virtus.devices.disk import Disk
from virtus.devices.pc.ata_disk import text_words
from virtus.devices.pc.ide import (
    ABORTED,
    COUNT,
    DATA_REQUEST,
    ERROR,
    FEATURES,
    LBA_HIGH,
    LBA_MIDDLE,
    READY,
    SEEK_DONE,
    TaskFile,
)

BLOCK: Final = 2048
PACKET: Final = 12
NO_SENSE, NOT_READY, ILLEGAL = 0, 2, 5
NO_MEDIUM, BAD_COMMAND, BAD_FIELD, OUT_OF_RANGE = 0x3A00, 0x2000, 0x2400, 0x2100
MEDIUM_CHANGED: Final = 0x2800
ATTENTION: Final = 6
LEAD_OUT: Final = 0xAA
COMMAND_PHASE, TO_HOST, DONE = 1, 2, 3  # interrupt reason, in the sector count register
MOST_BLOCKS: Final = 16384


class AtapiCd:
    """See Drive."""

    def __init__(self, disk: Disk | None) -> None:
        self._disk = disk
        self.task = TaskFile()
        self.incoming, self.expected, self.block, self.dma = bytearray(), 0, BLOCK, False
        self._sense = (ATTENTION, MEDIUM_CHANGED)
        self._dma_wanted = self._in_packet = False
        self._left = b""
        self._locked = False
        self.signature()

    @property
    def blocks(self) -> int:
        """How many blocks the medium has."""
        return 0 if self._disk is None else self._disk.size // BLOCK

    def signature(self) -> None:
        """See Drive: a packet device."""
        self.task.values[COUNT : LBA_HIGH + 1] = [1, 1, 0x14, 0xEB]

    def command(self, code: int) -> bool:
        """See Drive."""
        self._left, self._in_packet = b"", False
        if code == 0xA0:
            self._dma_wanted = bool(self.task.values[FEATURES] & 1)
            self.expected, self.block, self._in_packet = PACKET, PACKET, True
            self.task.status |= DATA_REQUEST
            self.task.values[COUNT] = COMMAND_PHASE
            return False
        if code == 0xA1:
            self.incoming, self.block = bytearray(self.identity()), 512
            self.task.status |= DATA_REQUEST
            return True
        if code == 0x08:
            self.signature()
            self.task.status = 0
            return False
        if code in (0xEF, 0xE0, 0xE1, 0xE2, 0xE3, 0xE6, 0xE7):
            return True
        if code == 0xE5:
            self.task.values[COUNT] = 0xFF
            return True
        if code == 0xEC:
            self.signature()
        self.task.status, self.task.error = READY | SEEK_DONE | ERROR, ABORTED
        return True

    def received(self, data: bytes) -> bool:
        """See Drive: a packet, or the guest has read all there was."""
        if self._in_packet and data:
            self._in_packet = False
            return self._packet(data)
        if not data and self._left:
            return self._send_next()
        if self.task.values[COUNT] != TO_HOST:
            return False  # IDENTIFY PACKET DEVICE ends without an interrupt
        self.task.values[COUNT] = DONE
        return True

    def _fail(self, key: int, code: int) -> bool:
        self._sense = key, code
        self.task.status, self.task.error = READY | SEEK_DONE | ERROR, key << 4
        self.task.values[COUNT] = DONE
        return True

    def _send(self, data: bytes, allowed: int) -> bool:
        data = data[:allowed]
        self._sense = NO_SENSE, 0
        if not data:
            self.task.values[COUNT] = DONE
            return True
        self._left = data
        return self._send_next()

    def _send_next(self) -> bool:
        """As much as the guest has said it takes between two interrupts; by DMA everything."""
        limit = (self.task.values[LBA_MIDDLE] | self.task.values[LBA_HIGH] << 8) & ~1 or 0xFFFE
        size = len(self._left) if self._dma_wanted else min(len(self._left), limit)
        self.incoming, self._left = bytearray(self._left[:size]), self._left[size:]
        self.block = size + 1  # no interrupt within
        self.dma = self._dma_wanted
        self.task.status |= DATA_REQUEST
        self.task.values[COUNT] = TO_HOST
        if not self.dma:
            self.task.values[LBA_MIDDLE], self.task.values[LBA_HIGH] = size & 0xFF, size >> 8
        return not self.dma

    def _packet(self, packet: bytes) -> bool:
        code = packet[0]
        if code == 0x03:
            key, sense = self._sense
            data = bytes((0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, sense >> 8, sense & 0xFF, 0, 0, 0, 0))
            return self._send(data, packet[4])
        if code == 0x12:
            data = bytes((5, 0x80, 0, 0x21, 31, 0, 0, 0)) + b"VIRTUS  " + b"CD-ROM".ljust(16) + b"1   "
            return self._send(data, packet[4])
        if self._sense[0] == ATTENTION and code not in (0x46, 0x4A):
            found, self._sense = self._sense, (NO_SENSE, 0)
            return self._fail(*found)
        if code in (0x1B, 0x1E, 0xBB):
            return self._send(b"", 0)
        if code == 0x4A:
            return self._send(bytes((0, 6, 4, 0x54, 0, 2 if self._disk is not None else 0, 0, 0)), _word(packet, 7))
        if code == 0x46:
            return self._send(struct.pack(">IHH", 4, 0, 8 if self._disk is not None else 0), _word(packet, 7))
        if code in (0x1A, 0x5A):
            return self._mode(packet, code)
        if code == 0xBD:
            return self._send(bytes((0, 0, 0, 0, 0, 1, 0, 0)), _word(packet, 8))
        if self._disk is None:
            return self._fail(NOT_READY, NO_MEDIUM)
        return self._medium(self._disk, packet, code)

    def _mode(self, packet: bytes, code: int) -> bool:
        page = bytes((0x2A, 0x12, 0, 0, 0x71, 0x60, 0x29, 0, 0, 0xB0, 0, 2, 2, 0, 0, 0xB0, 0, 0, 0, 0))
        if packet[2] & 0x3F not in (0x2A, 0x3F):
            return self._fail(ILLEGAL, BAD_FIELD)
        if code == 0x1A:
            return self._send(bytes((3 + len(page), 0, 0, 0)) + page, packet[4])
        return self._send(struct.pack(">HBB4x", 6 + len(page), 0, 0) + page, _word(packet, 7))

    def _medium(self, disk: Disk, packet: bytes, code: int) -> bool:
        if code in (0x00, 0x2B):
            return self._send(b"", 0)
        if code == 0x25:
            return self._send(struct.pack(">II", self.blocks - 1 & 0xFFFF_FFFF, BLOCK), 8)
        if code in (0x28, 0xA8, 0xBE):
            address = int.from_bytes(packet[2:6], "big")
            count = {0x28: _word(packet, 7), 0xA8: int.from_bytes(packet[6:10], "big")}.get(
                code, int.from_bytes(packet[6:9], "big")
            )
            if code == 0xBE and packet[9] & 0xF8 not in (0x10, 0):
                return self._fail(ILLEGAL, BAD_FIELD)
            if count > MOST_BLOCKS or address + count > self.blocks:
                return self._fail(ILLEGAL, OUT_OF_RANGE)
            data = bytearray(count * BLOCK)
            try:
                disk.read(address * BLOCK, [memoryview(data)])
            except OSError:
                return self._fail(3, 0x1100)  # medium error, unrecovered read error
            return self._send(bytes(data), len(data))
        if code == 0x43:
            return self._contents(packet)
        if code == 0x51:
            return self._send(struct.pack(">HBBBBBB26x", 32, 0x0E, 1, 1, 1, 1, 0), _word(packet, 7))
        if code == 0x42:
            return self._send(bytes((0, 0x15, 0, 0)), _word(packet, 7))
        return self._fail(ILLEGAL, BAD_COMMAND)

    def _contents(self, packet: bytes) -> bool:
        """READ TOC: one session with one data track."""
        minutes, kind = bool(packet[1] & 2), packet[2] & 15 or packet[9] >> 6
        if kind == 1:
            return self._send(struct.pack(">HBBBBBBI", 10, 1, 1, 0, 0x14, 1, 0, 0), _word(packet, 7))
        if kind:
            return self._fail(ILLEGAL, BAD_FIELD)
        tracks = [(1, 0), (LEAD_OUT, self.blocks)]
        entries = b"".join(
            struct.pack(">BBBBI", 0, 0x14, number, 0, _minutes(at) if minutes else at)
            for number, at in tracks
            if number >= packet[6]
        )
        return self._send(struct.pack(">HBB", 2 + len(entries), 1, 1) + entries, _word(packet, 7))

    def identity(self) -> bytes:
        """The answer to IDENTIFY PACKET DEVICE (ATA/ATAPI-6, 8.16)."""
        words = [0] * 256
        words[0] = 0x85C0  # removable CD drive, packets of 12 bytes
        words[10:20] = text_words("VCD1", 20)
        words[23:27] = text_words("1", 8)
        words[27:47] = text_words("VIRTUS CD-ROM", 40)
        words[49], words[53], words[63], words[64] = 0x0F00, 7, 7, 3
        words[65:69] = [120] * 4
        words[80], words[82], words[83], words[84], words[85], words[87] = 0x7E, 0x4210, 0x4000, 0x4000, 0x4010, 0x4000
        words[88] = 0x003F
        return struct.pack("<256H", *words)


def _word(packet: bytes, at: int) -> int:
    return packet[at] << 8 | packet[at + 1]


def _minutes(block: int) -> int:
    """An address as minute, second, frame: 75 frames a second, and two seconds before block 0."""
    seconds, frame = divmod(block + 150, 75)
    return seconds // 60 << 16 | seconds % 60 << 8 | frame

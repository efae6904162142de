"""The two IDE channels of a PIIX3: task file, programmed I/O, bus-master DMA (Intel 82371SB, 2.3; ATA/ATAPI-6).

What a drive does is its own affair: `ata_disk` and `atapi`. A command is carried out when it is written; whoever asks
finds the drive ready.
"""

from typing import Final, Protocol

from virtus.devices.pc.bus import DmaMemory, Line
from virtus.devices.pc.pci import PciFunction

BUSY, READY, FAULT, SEEK_DONE, DATA_REQUEST, ERROR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
ABORTED: Final = 0x04
DATA, FEATURES, COUNT, LBA_LOW, LBA_MIDDLE, LBA_HIGH, DEVICE, COMMAND = range(8)
SECOND_DRIVE: Final = 0x10
NO_INTERRUPT, SOFT_RESET, HIGH_ORDER = 2, 4, 0x80
DIAGNOSTIC: Final = 0x90
# the bus master, by channel
BM_COMMAND, BM_STATUS, BM_TABLE = 0, 2, 4
BM_START, BM_TO_MEMORY = 1, 8
BM_ACTIVE, BM_ERROR, BM_INTERRUPT, BM_CAPABLE = 1, 2, 4, 0x60
MOST_DESCRIPTORS: Final = 8192
END_OF_TABLE: Final = 0x8000_0000


class TaskFile:
    """Registers that both sides see; `previous` are the high-order bytes of 48-bit commands."""

    def __init__(self) -> None:
        self.values = [0] * 8
        self.previous = [0] * 8
        self.status, self.error = READY | SEEK_DONE, 1


class Drive(Protocol):
    """A drive on a cable. It changes its task file; results are one of the three below."""

    task: TaskFile
    incoming: bytearray
    """What the guest will read; cut into blocks by `block`."""
    expected: int
    """How many bytes the guest must write before `received` is called."""
    block: int
    """Bytes between two interrupts."""
    dma: bool
    """Whether the transfer is by DMA."""

    def signature(self) -> None:
        """What it is, in its task file, after a reset."""
        ...

    def command(self, code: int) -> bool:
        """Carry out a command; whether it interrupts when that is done."""
        ...

    def received(self, data: bytes) -> bool:
        """All that was expected has come; whether it interrupts."""
        ...


class IdeChannel:
    """One cable with up to two drives. Attach `read`/`write` at its eight ports, `Control` at the other one."""

    def __init__(self, drives: list[Drive | None], line: Line, memory: DmaMemory) -> None:
        self.drives, self._line, self._memory = drives, line, memory
        self._select = 0
        self._control = 0
        self._at = 0
        self._sent = bytearray()
        self._wanted = False
        self.bm_command = self.bm_status = self.bm_table = 0

    @property
    def _drive(self) -> Drive | None:
        return self.drives[1 if self._select & SECOND_DRIVE else 0]

    def _interrupt(self, level: bool) -> None:
        self._wanted = level
        if level:
            self.bm_status |= BM_INTERRUPT
        self._line(level and not self._control & NO_INTERRUPT)

    def read(self, offset: int, size: int) -> int:
        """See PortDevice; the data register takes accesses of 2 and 4 bytes."""
        drive = self._drive
        if drive is None:
            return 0
        task = drive.task
        if offset == DATA:
            return self._read_data(drive, size)
        if offset == COMMAND:
            self._interrupt(False)
            return task.status
        if offset == FEATURES:
            return task.error
        if offset == DEVICE:
            return self._select | 0xA0
        return task.previous[offset] if self._control & HIGH_ORDER else task.values[offset]

    def status(self) -> int:
        """The status register without its side effect."""
        drive = self._drive
        return 0 if drive is None else drive.task.status

    def read_block(self, offset: int, size: int) -> bytes | None:
        """See BlockDevice."""
        drive = self._drive
        if offset != DATA or drive is None:
            return None
        found = bytearray()
        while len(found) < size and not drive.dma and drive.incoming:
            fits = min(size - len(found), drive.block - self._at % drive.block)
            found += self._read_data(drive, fits).to_bytes(fits, "little")
        return bytes(found.ljust(size, b"\0"))

    def _read_data(self, drive: Drive, size: int) -> int:
        if drive.dma or not drive.incoming:
            return 0
        value = int.from_bytes(drive.incoming[self._at : self._at + size], "little")
        self._at += size
        if self._at >= len(drive.incoming):
            drive.incoming, self._at = bytearray(), 0
            drive.task.status &= ~DATA_REQUEST
            self._after_reading(drive)
        elif self._at % drive.block == 0:
            self._interrupt(True)
        return value

    def _after_reading(self, drive: Drive) -> None:
        if drive.received(b""):
            self._interrupt(True)

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset == DATA:
            self._write_data(value, size)
        elif offset == COMMAND:
            self._command(value)
        else:
            if offset == DEVICE:
                self._select = value
            self._control &= ~HIGH_ORDER
            for drive in self.drives:
                if drive is not None:
                    drive.task.previous[offset] = drive.task.values[offset]
                    drive.task.values[offset] = value

    def write_block(self, offset: int, data: bytes) -> bool:
        """See BlockDevice."""
        drive = self._drive
        if offset != DATA or drive is None:
            return False
        while data and not drive.dma and drive.expected:
            fits = min(len(data), drive.expected - len(self._sent), drive.block - len(self._sent) % drive.block)
            self._write_data(int.from_bytes(data[:fits], "little"), fits)
            data = data[fits:]
        return True

    def _write_data(self, value: int, size: int) -> None:
        drive = self._drive
        if drive is None or drive.dma or not drive.expected:
            return
        self._sent += (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        if len(self._sent) >= drive.expected:
            data, self._sent = bytes(self._sent[: drive.expected]), bytearray()
            drive.expected = 0
            drive.task.status &= ~DATA_REQUEST
            if drive.received(data):
                self._interrupt(True)
        elif len(self._sent) % drive.block == 0:
            self._interrupt(True)

    def _command(self, code: int) -> None:
        self._interrupt(False)
        if code == DIAGNOSTIC:
            self.reset()
            self._interrupt(True)
            return
        drive = self._drive
        if drive is None:
            return
        self._stop(drive)
        drive.task.status, drive.task.error = READY | SEEK_DONE, 0
        if drive.command(code):
            self._interrupt(True)
        if drive.dma:
            self._transfer()

    def _stop(self, drive: Drive) -> None:
        drive.incoming, drive.expected, drive.dma = bytearray(), 0, False
        self._at, self._sent = 0, bytearray()

    def reset(self) -> None:
        """Both drives are as when they were turned on; the first is selected."""
        self._select = 0
        for drive in self.drives:
            if drive is not None:
                self._stop(drive)
                drive.task.status, drive.task.error = READY | SEEK_DONE, 1
                drive.signature()

    def control(self, value: int) -> None:
        """The guest writes the device control register."""
        if self._control & SOFT_RESET and not value & SOFT_RESET:
            self.reset()
        self._control = value
        self._line(self._wanted and not value & NO_INTERRUPT)

    # bus master

    def bm_write(self, register: int, size: int, value: int) -> None:
        """The guest writes a register of the bus master."""
        if register == BM_COMMAND:
            started = value & BM_START and not self.bm_command & BM_START
            self.bm_command = value & (BM_START | BM_TO_MEMORY)
            if started:
                self.bm_status |= BM_ACTIVE
                self._transfer()
            elif not value & BM_START:
                self.bm_status &= ~BM_ACTIVE
        elif register == BM_STATUS:
            self.bm_status = self.bm_status & ~(value & (BM_ERROR | BM_INTERRUPT)) & ~BM_CAPABLE | value & BM_CAPABLE
        elif register >= BM_TABLE:
            shift, mask = 8 * (register - BM_TABLE), (1 << 8 * size) - 1
            self.bm_table = (self.bm_table & ~(mask << shift) | (value & mask) << shift) & 0xFFFF_FFFC

    def bm_read(self, register: int) -> int:
        """The guest reads a register of the bus master."""
        if register == BM_COMMAND:
            return self.bm_command
        if register == BM_STATUS:
            return self.bm_status
        return self.bm_table >> 8 * (register - BM_TABLE) if register >= BM_TABLE else 0

    def _pieces(self, wanted: int) -> list[tuple[int, int]]:
        """Where in memory, from the table of physical region descriptors: address, size."""
        pieces, at = list[tuple[int, int]](), self.bm_table
        for _ in range(MOST_DESCRIPTORS):
            entry = int.from_bytes(self._memory.read(at, 8), "little")
            size = min((entry >> 32 & 0xFFFE) or 0x10000, wanted)
            pieces.append((entry & 0xFFFF_FFFE, size))
            wanted -= size
            at += 8
            if not wanted or entry >> 32 & END_OF_TABLE:
                break
        return pieces

    def _transfer(self) -> None:
        """Once the drive and the bus master both are ready."""
        drive = self._drive
        if drive is None or not drive.dma or not self.bm_status & BM_ACTIVE:
            return
        if self.bm_command & BM_TO_MEMORY and drive.incoming:
            data, at = drive.incoming, 0
            for address, size in self._pieces(len(data)):
                self._memory.write(address, data[at : at + size])
                at += size
            drive.incoming = bytearray()
        elif not self.bm_command & BM_TO_MEMORY and drive.expected:
            parts = [self._memory.read(address, size) for address, size in self._pieces(drive.expected)]
            wanted, drive.expected = drive.expected, 0
            drive.received(b"".join(parts).ljust(wanted, b"\0"))
        else:
            return
        drive.dma = False
        drive.task.status &= ~DATA_REQUEST
        self.bm_status &= ~BM_ACTIVE
        drive.received(b"")
        self._interrupt(True)


class Control:
    """The other port of a channel: alternate status, and device control."""

    def __init__(self, channel: IdeChannel) -> None:
        self._channel = channel

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self._channel.status()

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._channel.control(value)


class BusMaster:
    """The sixteen ports of both bus masters."""

    def __init__(self, channels: list[IdeChannel]) -> None:
        self._channels = channels

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self._channels[offset >> 3 & 1].bm_read(offset & 7)

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._channels[offset >> 3 & 1].bm_write(offset & 7, size, value)


def controller(channels: list[IdeChannel]) -> PciFunction:
    """Function 1 of the PIIX3: both channels at their old ports, decoded always."""
    function = PciFunction(0x8086, 0x7010, 0x010180)
    function.add_port_bar(4, 16, BusMaster(channels))
    function.allow(0x40, b"\xff" * 4)
    function.config[0x40:0x44] = b"\x00\x80\x00\x80"
    return function

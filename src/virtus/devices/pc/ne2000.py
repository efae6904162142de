"""A network card NE2000 on PCI, as Realtek made it (National DP8390D data sheet; RTL8029AS, 5)."""

import contextlib
from typing import Final

from virtus.devices.network import Link
from virtus.devices.pc.bus import Line
from virtus.devices.pc.pci import PciFunction

PORTS: Final = 32
BUFFER: Final = range(0x4000, 0xC000)
DATA_PORT, RESET_PORT = 0x10, 0x18  # the latter up to 1Fh
STOP, START, TRANSMIT = 1, 2, 4
RECEIVED, SENT, OVERFLOW, COUNTERS, DMA_DONE, IN_RESET = 1, 2, 0x10, 0x20, 0x40, 0x80
ACCEPT_BROADCAST, ACCEPT_MULTICAST, PROMISCUOUS, MONITOR = 4, 8, 16, 32
LOOPBACK: Final = 6
LEAST, MOST = 60, 1514
PAGE: Final = 256
MOST_AT_ONCE: Final = 32


class Ne2000:
    """The card. `link` is what it is plugged into; None: no cable. Attach at 32 ports."""

    def __init__(self, address: bytes, link: Link | None, line: Line) -> None:
        self._link, self._line = link, line
        self._buffer = bytearray(0xC000)
        self._buffer[0:32] = b"".join(bytes((byte, byte)) for byte in address + b"\0" * 8 + b"WW")
        self._physical = bytearray(address)
        self._multicast = bytearray(8)
        self._command = STOP
        self._status, self._mask = IN_RESET, 0
        self._start = self._stop = self._boundary = self._current = 0x40
        self._transmit_page = self._transmit_count = self._transmit_status = 0
        self._remote_at = self._remote_left = 0
        self._receive_mode = self._transmit_mode = self._data_mode = self._receive_status = 0
        self.packets = self.dropped = 0

    def function(self) -> PciFunction:
        """Its configuration space."""
        function = PciFunction(0x10EC, 0x8029, 0x020000)
        function.add_port_bar(0, PORTS, self)
        function.interrupt_pin()
        return function

    def descriptors(self) -> list[int]:
        """What becomes readable when `poll` has something to do."""
        return [] if self._link is None or not self._takes else [self._link.fileno()]

    @property
    def _takes(self) -> bool:
        """Whether a frame of full size has a place in the ring."""
        if self._command & STOP or self._stop <= self._start:
            return False
        room = self._boundary - self._current
        if room <= 0:
            room += self._stop - self._start
        return room * PAGE > MOST + 8 + PAGE

    def poll(self) -> None:
        """Take frames that have come, as far as there is room."""
        for _ in range(MOST_AT_ONCE):
            if self._link is None or not self._takes:
                return
            frame = self._link.receive()
            if frame is None:
                return
            self.receive(frame)

    def _wanted(self, frame: bytes) -> bool:
        if self._receive_mode & PROMISCUOUS:
            return True
        if frame[:6] == b"\xff" * 6:
            return bool(self._receive_mode & ACCEPT_BROADCAST)
        if frame[0] & 1:
            return bool(self._receive_mode & ACCEPT_MULTICAST) and self._in_hash(frame[:6])
        return frame[:6] == self._physical

    def _in_hash(self, address: bytes) -> bool:
        register = 0xFFFF_FFFF
        for byte in address:
            for bit in range(8):
                carry = register >> 31 ^ byte >> bit & 1
                register = register << 1 & 0xFFFF_FFFF ^ (0x04C11DB7 if carry else 0)
        index = register >> 26
        return bool(self._multicast[index >> 3] >> (index & 7) & 1)

    def receive(self, frame: bytes) -> None:
        """A frame from the cable goes into the ring, behind a header of four bytes."""
        if not 14 <= len(frame) <= MOST or not self._takes or not self._wanted(frame) or self._receive_mode & MONITOR:
            self.dropped += 1
            return
        frame = frame.ljust(LEAST, b"\0")
        total = len(frame) + 4
        pages = -(-(total + 4) // PAGE)
        following = self._current + pages
        if following >= self._stop:
            following -= self._stop - self._start
        status = 1 | (0x20 if frame[0] & 1 else 0)
        data = bytes((status, following & 0xFF, total & 0xFF, total >> 8)) + frame
        at = self._current * PAGE
        first = min(len(data), self._stop * PAGE - at)
        self._store(at, data[:first])
        self._store(self._start * PAGE, data[first:])
        self._current, self._receive_status = following & 0xFF, status
        self.packets += 1
        self._raise(RECEIVED)

    def _store(self, at: int, data: bytes) -> None:
        """What lies outside of the card's memory is lost."""
        for offset, byte in enumerate(data, at):
            if offset in BUFFER:
                self._buffer[offset] = byte

    def _raise(self, bits: int) -> None:
        self._status |= bits
        self._line(bool(self._status & self._mask & 0x7F))

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset >= RESET_PORT:
            self._reset()
            return 0
        if offset >= DATA_PORT:
            return self._read_remote(size)
        if offset == 0:
            return self._command
        page = self._command >> 6
        if page == 1:
            return self._page_1(offset)
        if page == 2:
            values = {1: self._start, 2: self._stop, 4: self._transmit_page}
            values |= {12: self._receive_mode, 13: self._transmit_mode, 14: self._data_mode, 15: self._mask}
            return values.get(offset, 0)
        if page == 3:
            return 0
        values = {3: self._boundary, 4: self._transmit_status, 7: self._status, 8: self._remote_at & 0xFF}
        values |= {9: self._remote_at >> 8, 10: 0x50, 11: 0x43, 12: self._receive_status}
        return values.get(offset, 0)

    def _page_1(self, offset: int) -> int:
        if offset < 7:
            return self._physical[offset - 1]
        return self._current if offset == 7 else self._multicast[offset - 8]

    def _reset(self) -> None:
        self._command, self._status, self._mask = STOP, IN_RESET, 0
        self._raise(0)

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset >= RESET_PORT:
            self._reset()
        elif offset >= DATA_PORT:
            self._write_remote(size, value)
        elif offset == 0:
            self._order(value & 0xFF)
        elif self._command >> 6 == 1:
            self._set_page_1(offset, value & 0xFF)
        elif self._command >> 6 == 0:
            self._set_page_0(offset, value & 0xFF)

    def _set_page_1(self, offset: int, value: int) -> None:
        if offset < 7:
            self._physical[offset - 1] = value
        elif offset == 7:
            self._current = value
        else:
            self._multicast[offset - 8] = value

    def _set_page_0(self, offset: int, value: int) -> None:
        if offset == 1:
            self._start = value
        elif offset == 2:
            self._stop = value
        elif offset == 3:
            self._boundary = value
        elif offset == 4:
            self._transmit_page = value
        elif offset == 5:
            self._transmit_count = self._transmit_count & 0xFF00 | value
        elif offset == 6:
            self._transmit_count = self._transmit_count & 0xFF | value << 8
        elif offset == 7:
            self._status &= ~(value & 0x7F)
            self._raise(0)
        elif offset == 8:
            self._remote_at = self._remote_at & 0xFF00 | value
        elif offset == 9:
            self._remote_at = self._remote_at & 0xFF | value << 8
        elif offset == 10:
            self._remote_left = self._remote_left & 0xFF00 | value
        elif offset == 11:
            self._remote_left = self._remote_left & 0xFF | value << 8
        elif offset == 12:
            self._receive_mode = value
        elif offset == 13:
            self._transmit_mode = value
        elif offset == 14:
            self._data_mode = value
        elif offset == 15:
            self._mask = value
            self._raise(0)

    def _order(self, value: int) -> None:
        """The command register."""
        self._command = value
        if value & STOP:
            self._status |= IN_RESET
            return
        self._status &= ~IN_RESET
        if value & 0x18 and not self._remote_left:
            self._raise(DMA_DONE)
        if value & TRANSMIT:
            self._transmit()
            self._command &= ~TRANSMIT

    def _transmit(self) -> None:
        at, size = self._transmit_page * PAGE, min(self._transmit_count, MOST)
        frame = bytes(self._buffer[at : at + size]) if BUFFER.start <= at and at + size <= BUFFER.stop else b""
        if frame and self._transmit_mode & LOOPBACK:
            pass  # looped back on the card: nothing leaves, and drivers look at the status alone
        elif frame and self._link is not None:
            with contextlib.suppress(OSError):
                self._link.send(frame.ljust(LEAST, b"\0"))
        self._transmit_status = 1
        self._raise(SENT)

    def _advance(self, size: int) -> None:
        self._remote_at += size
        if self._remote_at >= self._stop * PAGE and self._remote_at - size < self._stop * PAGE:
            self._remote_at = self._start * PAGE
        self._remote_at &= 0xFFFF
        self._remote_left = max(self._remote_left - size, 0)
        if not self._remote_left:
            self._raise(DMA_DONE)

    def _unit(self, size: int) -> int:
        """Bytes that an access of the data port moves: in word mode an access of a byte moves a word too."""
        return size if size == 4 else 1 + (self._data_mode & 1)

    def _read_remote(self, size: int) -> int:
        """The data port: bytes, words or double words from the card's memory. Above its end, ones are read."""
        data = self._buffer[self._remote_at : self._remote_at + self._unit(size)]
        value = int.from_bytes(data.ljust(size, b"\xff")[:size], "little")
        self._advance(self._unit(size))
        return value

    def _write_remote(self, size: int, value: int) -> None:
        if self._remote_left:
            unit = self._unit(size)
            self._store(self._remote_at, (value & (1 << 8 * unit) - 1).to_bytes(unit, "little"))
            self._advance(unit)

"""The DMA controllers (Intel 8237A data sheet) with the page registers of a PC: channels of 8 and of 16 bits.

Only single transfers that a device asks for, which is how floppy drives use them; no memory to memory.
"""

from typing import Final

from virtus.devices.pc.bus import DmaMemory

PAGES: Final = {1: 2, 2: 3, 3: 1, 7: 0, 9: 6, 10: 7, 11: 5}
"""Page register, by offset from 80h: its channel."""
TO_MEMORY, FROM_MEMORY = 1, 2
AUTO: Final = 0x10
MOST: Final = 0x20000


class Channel:
    """One channel: what it was programmed with, and where it is."""

    def __init__(self) -> None:
        self.mode = self.page = 0
        self.base_address = self.base_count = self.address = self.count = 0
        self.masked = True
        self.done = False


class Dma8237:
    """Both controllers. Attach `first`, `second` and `pages` where they belong."""

    def __init__(self, memory: DmaMemory) -> None:
        self._memory = memory
        self.channels = [Channel() for _ in range(8)]
        self.first, self.second = Controller(self.channels[:4], 1), Controller(self.channels[4:], 2)
        self.pages = Pages(self.channels)

    def _span(self, number: int, size: int) -> tuple[int, int]:
        """Address and size of what may be moved now."""
        channel, unit = self.channels[number], 2 if number >= 4 else 1
        if channel.masked:
            return 0, 0
        page = channel.page & 0xFE if unit == 2 else channel.page
        return page << 16 | channel.address * unit & 0x1FFFF, min(size, (channel.count + 1) * unit)

    def _moved(self, number: int, size: int) -> None:
        channel, unit = self.channels[number], 2 if number >= 4 else 1
        units = size // unit
        channel.address = channel.address + units & 0xFFFF
        if units > channel.count:
            channel.done = True
            channel.address, channel.count = channel.base_address, channel.base_count
            channel.masked = not channel.mode & AUTO
            if channel.masked:
                channel.count = 0xFFFF
        else:
            channel.count -= units

    def to_memory(self, number: int, data: bytes) -> int:
        """A device hands over bytes; how many the channel took. Fewer: terminal count was reached."""
        address, size = self._span(number, len(data))
        if size:
            if self.channels[number].mode >> 2 & 3 == TO_MEMORY:
                self._memory.write(address, data[:size])
            self._moved(number, size)
        return size

    def from_memory(self, number: int, wanted: int) -> bytes:
        """A device takes bytes; fewer than wanted: terminal count was reached."""
        address, size = self._span(number, min(wanted, MOST))
        data = self._memory.read(address, size) if size else b""
        if size:
            self._moved(number, size)
        return data


class Controller:
    """The sixteen registers of one 8237; those of the second lie at even ports."""

    def __init__(self, channels: list[Channel], stride: int) -> None:
        self._channels, self._stride = channels, stride
        self._high = False

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        register = offset // self._stride
        if register < 8:
            channel = self._channels[register >> 1]
            value = channel.count if register & 1 else channel.address
            self._high = not self._high
            return value & 0xFF if self._high else value >> 8
        if register == 8:
            status = sum(1 << number for number, channel in enumerate(self._channels) if channel.done)
            for channel in self._channels:
                channel.done = False
            return status
        return 0xFF if register != 13 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        register = offset // self._stride
        if register < 8:
            self._program(self._channels[register >> 1], bool(register & 1), value)
        elif register == 10:
            self._channels[value & 3].masked = bool(value & 4)
        elif register == 11:
            self._channels[value & 3].mode = value
        elif register == 12:
            self._high = False
        elif register == 13:
            self._high = False
            for channel in self._channels:
                channel.masked, channel.done = True, False
        elif register in (14, 15):
            for number, channel in enumerate(self._channels):
                channel.masked = register == 15 and bool(value >> number & 1)

    def _program(self, channel: Channel, count: bool, value: int) -> None:
        old = channel.base_count if count else channel.base_address
        new = old & 0x00FF | value << 8 if self._high else old & 0xFF00 | value
        self._high = not self._high
        if count:
            channel.base_count = channel.count = new
        else:
            channel.base_address = channel.address = new


class Pages:
    """Ports 80h to 8Fh: the upper address bits of each channel. 80h itself is where BIOSes show their progress."""

    def __init__(self, channels: list[Channel]) -> None:
        self._channels = channels
        self._others = bytearray(16)

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self._channels[PAGES[offset]].page if offset in PAGES else self._others[offset & 15]

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        if offset in PAGES:
            self._channels[PAGES[offset]].page = value
        else:
            self._others[offset & 15] = value

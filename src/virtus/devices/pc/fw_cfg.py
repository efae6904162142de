"""Firmware configuration as SeaBIOS expects it of its machine (QEMU, docs/specs/fw_cfg.rst), and its debug port."""

import struct
from collections.abc import Callable
from typing import Final

from virtus.devices.pc.bus import DmaMemory

SELECTOR, DATA = 0, 1
DMA_HIGH, DMA_LOW = 4, 8
SIGNATURE, IDENTITY, DIRECTORY, FIRST_FILE = 0x00, 0x01, 0x19, 0x20
HAS_DMA: Final = 3  # bit 0: the traditional interface, bit 1: DMA
DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 1, 2, 4, 8, 16
DMA_SIGNATURE: Final = 0x51454D5520434647  # "QEMU CFG"
MOST_AT_ONCE: Final = 16 << 20
E820: Final = struct.Struct("<QQI")
DEBUG_PRESENT: Final = 0xE9


def e820(entries: list[tuple[int, int, int]]) -> bytes:
    """The file etc/e820: address, size and type (1 memory, 2 reserved) of each range."""
    return b"".join(E820.pack(*entry) for entry in entries)


class FirmwareConfiguration:
    """Ports 510h to 51Bh. Files are given when the machine is made and only read."""

    def __init__(self, memory: DmaMemory, files: dict[str, bytes]) -> None:
        self._memory = memory
        self._items: dict[int, bytes] = {SIGNATURE: b"QEMU", IDENTITY: HAS_DMA.to_bytes(4, "little")}
        directory = len(files).to_bytes(4, "big")
        for number, (name, data) in enumerate(sorted(files.items())):
            key = FIRST_FILE + number
            directory += struct.pack(">IHH56s", len(data), key, 0, name.encode())
            self._items[key] = data
        self._items[DIRECTORY] = directory
        self._item, self._at, self._address = b"", 0, 0

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset == DATA and size == 1:
            self._at += 1
            return self._item[self._at - 1] if self._at <= len(self._item) else 0
        if offset >= DMA_HIGH and offset + size <= DMA_LOW + 4:
            inside = offset - DMA_HIGH
            return int.from_bytes(DMA_SIGNATURE.to_bytes(8, "big")[inside : inside + size], "little")
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice. Addresses are big-endian."""
        if offset == SELECTOR and size == 2:
            self._select(value)
        elif offset == DMA_HIGH and size == 4:
            self._address = int.from_bytes(value.to_bytes(4, "little"), "big") << 32
        elif offset == DMA_LOW and size == 4:
            address = self._address | int.from_bytes(value.to_bytes(4, "little"), "big")
            self._address = 0
            self._transfer(address)

    def _select(self, key: int) -> None:
        self._item, self._at = self._items.get(key, b""), 0

    def _transfer(self, at: int) -> None:
        control, length, address = struct.unpack(">IIQ", self._memory.read(at, 16))
        failed = 0
        if control & DMA_SELECT:
            self._select(control >> 16)
        if control & DMA_READ:
            length = min(length, MOST_AT_ONCE)
            data = self._item[self._at : self._at + length]
            self._memory.write(address, data + bytes(length - len(data)))
            self._at += length
        elif control & DMA_SKIP:
            self._at += length
        elif control & DMA_WRITE:
            failed = DMA_ERROR  # no file can be written
        self._memory.write(at, failed.to_bytes(4, "big"))


class DebugPort:
    """Port 402h: what SeaBIOS says of its progress goes to `say`, a byte at a time."""

    def __init__(self, say: Callable[[bytes], None]) -> None:
        self._say = say

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return DEBUG_PRESENT

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._say(bytes((value,)))

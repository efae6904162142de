"""Boards for tests: time that stands still until it is moved, and a console that nobody reads."""

from pathlib import Path

from virtus.devices.console import Console
from virtus.devices.pc.bus import DmaMemory
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.pc.board import Board, Media
from virtus.personalities.pc.front import Front

MIB = 1 << 20


class Time:
    """A clock of nanoseconds."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def pass_ns(self, duration: int) -> None:
        self.now += duration


class Wire:
    """An interrupt line that remembers how often it rose."""

    def __init__(self) -> None:
        self.level = False
        self.rises = 0

    def __call__(self, level: bool) -> None:
        self.rises += level and not self.level
        self.level = level


def little_memory(size: int = 1 << 16) -> tuple[bytearray, DmaMemory]:
    """Memory for a device that stands alone."""
    data = bytearray(size)
    return data, DmaMemory(memoryview(data))


def board(media: Media | None = None, memory: GuestMemory | None = None) -> tuple[Board, Time, GuestMemory]:
    """A whole board with 16 MiB."""
    ram = memory or GuestMemory(16 * MIB)
    time = Time()
    return Board(ram, Console(-1, -1), media or Media(), front=Front.SCREEN, clock=time), time, ram


def image(path: Path, size: int) -> Path:
    """A file of so many bytes, each sector of which begins with its number."""
    data = bytearray(size)
    for sector in range(size // 512):
        data[512 * sector : 512 * sector + 4] = sector.to_bytes(4, "little")
    path.write_bytes(data)
    return path

"""A balloon (virtio 1.2, 5.5): memory that the guest gives goes to the host at once, and is zero when it returns.

Meanwhile no device may reach it, if the driver has agreed to tell before it uses such memory again (MUST_TELL_HOST).
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

from virtus.devices.virtio.device import Device
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory

INFLATE, DEFLATE = 0, 1
MUST_TELL_HOST: Final = 1 << 0  # VIRTIO_BALLOON_F_MUST_TELL_HOST
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h
MOST_FRAMES: Final = 256
"""Numbers in one request, as Linux's driver has it (VIRTIO_BALLOON_ARRAY_PFNS_MAX)."""


class Balloon(Device):
    """`target` frames are what the guest is asked to give; `actual` what it has given."""

    kind, name, queue_count = 5, "balloon", 2

    def __init__(self, memory: GuestMemory) -> None:
        self.given: set[int] = set()  # frames in the balloon that no device may reach
        super().__init__(memory)
        self._guest = memory
        self.target = self.actual = 0
        self.features |= MUST_TELL_HOST
        self._libc = ctypes.CDLL(None, use_errno=True)

    def config(self) -> bytes:
        """See Device."""
        return struct.pack("<II", self.target, self.actual)

    def configure(self, offset: int, value: bytes) -> None:
        """See Device: the guest says how much it has given."""
        if offset == 4 and len(value) == 4:
            self.actual = int.from_bytes(value, "little")

    def reset(self) -> None:
        """See Device: a driver that begins anew knows of nothing in the balloon."""
        super().reset()
        for frame in self.given:
            self.memory.shared.admit(frame << FRAME_SHIFT, PAGE)
        self.given = set()

    def give(self, frame: int) -> None:
        """The frame is in the balloon: devices do not reach it."""
        self.given.add(frame)
        self.memory.shared.exclude(frame << FRAME_SHIFT, PAGE)

    def serve(self, number: int) -> bool:
        """See Device."""
        queue, served = self.queues[number], False
        for chain in queue:
            data = chain.read()[: 4 * MOST_FRAMES]
            for (frame,) in struct.iter_unpack("<I", data[: len(data) & ~3]):
                if number == INFLATE:
                    self._give_back(frame)
                elif frame in self.given:
                    self.given.discard(frame)
                    self.memory.shared.admit(frame << FRAME_SHIFT, PAGE)
            queue.give(chain, 0)
            self.requests += 1
            served = True
        return served

    def save(self) -> dict[str, Any]:
        """See Device."""
        return {"target": self.target, "actual": self.actual, "given": runs(self.given)}

    def load(self, saved: Mapping[str, Any]) -> None:
        """See Device."""
        self.target, self.actual = int(saved["target"]), int(saved["actual"])
        for first, count in saved["given"]:
            for frame in range(int(first), min(int(first) + int(count), 1 << 32)):
                try:
                    self.give(frame)
                except IndexError:
                    raise ValueError(f"frame {frame:#x} in the balloon") from None

    def _give_back(self, frame: int) -> None:
        try:
            place = ctypes.c_long(self._guest.place(frame << FRAME_SHIFT, PAGE))
        except IndexError:
            return
        if self.accepted & MUST_TELL_HOST:
            self.give(frame)
        mode = ctypes.c_int(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
        if self._libc.fallocate(self._guest.fd, mode, place, ctypes.c_long(PAGE)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.bytes += PAGE


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The numbers as ranges: each first one, and how many follow each other."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return found

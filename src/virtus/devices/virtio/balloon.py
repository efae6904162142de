"""A balloon (virtio 1.2, 5.5): memory that the guest gives goes to the host at once, and is zero when it returns."""

import ctypes
import os
import struct
from typing import Final

from virtus.devices.virtio.device import Device
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory

INFLATE, DEFLATE = 0, 1
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h
MOST_FRAMES: Final = 256
"""Numbers in one request, as Linux's driver has it (VIRTIO_BALLOON_ARRAY_PFNS_MAX)."""


class Balloon(Device):
    """`target` frames are what the guest is asked to give; `actual` what it has given."""

    kind, name, queue_count = 5, "balloon", 2

    def __init__(self, memory: GuestMemory) -> None:
        super().__init__(memory)
        self._guest = memory
        self.target = self.actual = 0
        self._libc = ctypes.CDLL(None, use_errno=True)

    def config(self) -> bytes:
        """See Device."""
        return struct.pack("<II", self.target, self.actual)

    def configure(self, offset: int, value: bytes) -> None:
        """See Device: the guest says how much it has given."""
        if offset == 4 and len(value) == 4:
            self.actual = int.from_bytes(value, "little")

    def serve(self, number: int) -> bool:
        """See Device."""
        queue, served = self.queues[number], False
        for chain in queue:
            if number == INFLATE:
                data = chain.read()[: 4 * MOST_FRAMES]
                for (frame,) in struct.iter_unpack("<I", data[: len(data) & ~3]):
                    self._give_back(frame)
            queue.give(chain, 0)
            self.requests += 1
            served = True
        return served

    def _give_back(self, frame: int) -> None:
        if frame >= self._guest.frames:
            return
        mode = ctypes.c_int(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
        place = ctypes.c_long(frame << FRAME_SHIFT)
        if self._libc.fallocate(self._guest.fd, mode, place, ctypes.c_long(PAGE)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self.bytes += PAGE

"""The driver's side of a virtqueue, by hand, and a link whose other end is a test."""

import struct
from collections import deque

from virtus.devices.virtio.device import Device
from virtus.devices.virtio.queue import DESCRIPTOR, NEXT, USED, WRITE
from virtus.memory.guest_memory import GuestMemory

TABLE, AVAILABLE, USED_AT, DATA = 0x1000, 0x2000, 0x3000, 0x10000
SIZE = 8


class Driver:
    """One queue of a device; `request` puts buffers there and has them served."""

    def __init__(self, memory: GuestMemory, device: Device, number: int = 0) -> None:
        self.memory, self.device, self.number = memory, device, number
        base = number * 0x4000
        self._table, self._available, self._used = TABLE + base, AVAILABLE + base, USED_AT + base
        for place in (self._table, self._available, self._used):
            memory.bytes[place : place + 0x1000] = bytes(0x1000)
        queue = device.queues[number]
        queue.size, queue.descriptors, queue.available, queue.used = SIZE, self._table, self._available, self._used
        queue.start()
        self._produced = self._consumed = self._next = 0
        self._place = DATA + number * 0x100000

    def offer(self, *buffers: bytes | int) -> list[int]:
        """Make a request available: bytes are to be read, numbers are room to write; where each lies."""
        places = []
        first = self._next
        for at, buffer in enumerate(buffers):
            size = buffer if isinstance(buffer, int) else len(buffer)
            place, self._place = self._place, self._place + (size + 4095 & ~4095)
            if isinstance(buffer, bytes):
                self.memory.bytes[place : place + size] = buffer
            flags = (WRITE if isinstance(buffer, int) else 0) | (NEXT if at + 1 < len(buffers) else 0)
            here = (first + at) % SIZE
            DESCRIPTOR.pack_into(
                self.memory.bytes, self._table + 16 * here, place, size, flags, (here + 1) % SIZE if flags & NEXT else 0
            )
            places.append(place)
        self._next = (first + len(buffers)) % SIZE
        struct.pack_into("<H", self.memory.bytes, self._available + 4 + 2 * (self._produced % SIZE), first)
        self._produced += 1
        struct.pack_into("<H", self.memory.bytes, self._available + 2, self._produced & 0xFFFF)
        return places

    def used(self) -> list[tuple[int, int]]:
        """What has been used since the last time: descriptor and bytes written."""
        (done,) = struct.unpack_from("<H", self.memory.bytes, self._used + 2)
        found = [
            USED.unpack_from(self.memory.bytes, self._used + 4 + 8 * (at % SIZE)) for at in range(self._consumed, done)
        ]
        self._consumed = done
        return found

    def request(self, *buffers: bytes | int) -> list[bytes]:
        """Have a request served; what is in the room to write."""
        places = self.offer(*buffers)
        self.device.notified(self.number)
        ((_, written),) = self.used()
        rooms = [(place, size) for place, size in zip(places, buffers, strict=True) if isinstance(size, int)]
        assert written <= sum(size for _, size in rooms)
        return [bytes(self.memory.bytes[place : place + size]) for place, size in rooms]


class Wire:
    """See Link."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes]] = []
        self.coming: deque[tuple[bytes, bytes]] = deque()

    def fileno(self) -> int:
        return 0

    def receive(self) -> bytes | None:
        return self.coming.popleft()[1] if self.coming else None

    def receive_unfinished(self) -> tuple[bytes, bytes] | None:
        return self.coming.popleft() if self.coming else None

    def send(self, frame: bytes | bytearray | memoryview) -> bool:
        raise NotImplementedError

    def send_unfinished(self, header: bytes, frame: bytes | bytearray | memoryview) -> bool:
        self.sent.append((bytes(header), bytes(frame)))
        return True

    def close(self) -> None:
        pass

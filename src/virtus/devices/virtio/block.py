"""A disk (virtio 1.2, 5.2)."""

import struct
from typing import Final

from virtus.devices.disk import Disk
from virtus.devices.virtio.device import Device
from virtus.devices.virtio.queue import Chain
from virtus.memory.guest_memory import GuestMemory

READ, WRITE, FLUSH, IDENTITY = 0, 1, 4, 8  # VIRTIO_BLK_T_*
OKAY, FAILED, UNSUPPORTED = 0, 1, 2  # VIRTIO_BLK_S_*
MOST_SEGMENTS, READ_ONLY, FLUSHES = 1 << 2, 1 << 5, 1 << 9  # VIRTIO_BLK_F_*
HEADER: Final = struct.Struct("<IIQ")
SECTOR: Final = 512
IDENTITY_BYTES: Final = 20
SEGMENTS: Final = 128
MOST_FAILURES: Final = 20


class Block(Device):
    """`disk` as a virtio disk."""

    kind, name = 2, "block"

    def __init__(self, memory: GuestMemory, disk: Disk) -> None:
        super().__init__(memory)
        self._disk = disk
        self.features |= MOST_SEGMENTS | FLUSHES | (READ_ONLY if disk.read_only else 0)

    def config(self) -> bytes:
        """See Device: capacity in sectors, largest segment (not offered), most segments."""
        return struct.pack("<QII", self._disk.size // SECTOR, 0, SEGMENTS).ljust(64, b"\0")

    def serve(self, number: int) -> bool:
        """See Device."""
        queue, served = self.queues[number], False
        for chain in queue:
            queue.give(chain, self._serve(chain))
            served = True
        return served

    def _serve(self, chain: Chain) -> int:
        """Serve one request; how many bytes were written, its status included."""
        self.requests += 1
        if not chain.writable or not chain.writable[-1]:
            return 0  # there is no place for an answer
        status, answer = chain.writable[-1][-1:], [*chain.writable[:-1], chain.writable[-1][:-1]]
        head = b"".join(piece[: HEADER.size] for piece in chain.readable[: HEADER.size])[: HEADER.size]
        done = 0
        try:
            if len(head) < HEADER.size:
                raise OSError("a request without a head")
            kind, _, sector = HEADER.unpack(head)
            done = self._transfer(kind, sector, chain.readable, answer)
            status[0] = OKAY if done >= 0 else UNSUPPORTED
        except OSError as error:
            status[0] = FAILED
            if len(self.failures) < MOST_FAILURES:
                self.failures.add(f"{self._disk.path.name}: a request failed: {error.strerror or error}")
        return max(done, 0) + 1

    def _transfer(self, kind: int, sector: int, readable: list[memoryview], writable: list[memoryview]) -> int:
        """Bytes written to the guest, -1 for what is not known; raises OSError."""
        if kind == READ:
            size = sum(map(len, writable))
            self._check(sector, size)
            self._disk.read(sector * SECTOR, [piece for piece in writable if piece])
            self.bytes += size
            return size
        if kind == WRITE:
            data = _behind(readable, HEADER.size)
            size = sum(map(len, data))
            self._check(sector, size)
            if self._disk.read_only:
                raise OSError("a write to a read-only disk")
            self._disk.write(sector * SECTOR, data)
            self.bytes += size
            return 0
        if kind == FLUSH:
            self._disk.flush()
            return 0
        if kind == IDENTITY:
            name, done = b"virtus".ljust(IDENTITY_BYTES, b"\0"), 0
            for piece in writable:
                count = min(len(piece), len(name) - done)
                piece[:count] = name[done : done + count]
                done += count
            return done
        return -1

    def _check(self, sector: int, size: int) -> None:
        if size % SECTOR or sector * SECTOR + size > self._disk.size:
            raise OSError("beyond the end of the disk")

    def flush(self) -> None:
        """See Device."""
        self._disk.flush()


def _behind(pieces: list[memoryview], skipped: int) -> list[memoryview]:
    """The pieces without their first bytes."""
    left = []
    for piece in pieces:
        cut = min(skipped, len(piece))
        skipped -= cut
        if len(piece) > cut:
            left.append(piece[cut:])
    return left

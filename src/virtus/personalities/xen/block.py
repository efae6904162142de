"""The block back end: a domain's xen-blkfront, served from a disk of ours (xen/include/public/io/blkif.h).

Requests come in a ring that the front end grants, their data in frames
that it grants for each request. Data goes between the file and those frames without a copy in between.
"""

import struct
from typing import TYPE_CHECKING, Any, Final

from virtus.devices.disk import Disk
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.personalities.xen.abi import DOMID_CONTROL
from virtus.personalities.xen.back_end import BackEnd
from virtus.personalities.xen.grants import NotGranted
from virtus.personalities.xen.xenstore import Store

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

READ, WRITE, BARRIER, FLUSH, DISCARD, INDIRECT = 0, 1, 2, 3, 5, 6  # BLKIF_OP_*
OKAY, FAILED, UNSUPPORTED = 0, -1, -2  # BLKIF_RSP_*
SECTOR: Final = 512
SLOT: Final = 112  # sizeof (union blkif_sring_entry) for 64-bit guests
SLOTS_AT: Final = 64
SLOTS: Final = 32  # in one page
REQUEST: Final = struct.Struct("<BBHxxxxQQ")  # operation, segments, handle, id, sector
INDIRECT_REQUEST: Final = struct.Struct("<BBHxxxxQQHxx8I")  # operation, what, segments, id, sector, handle, grants
SEGMENT: Final = struct.Struct("<IBBxx")  # grant, first and last sector
RESPONSE: Final = struct.Struct("<QBxh")  # id, operation, status
SEGMENTS_AT: Final = 24
MOST_SEGMENTS, MOST_INDIRECT = 11, 256
PER_INDIRECT_PAGE: Final = PAGE // SEGMENT.size
MASK32: Final = 0xFFFFFFFF
MAJOR: Final = 202 << 8  # xvda is 51712; each disk has 16 minor numbers


class BadRequest(Exception):
    """A request that cannot be served; only it fails."""


class BlockBackEnd(BackEnd):
    """One disk of one domain: xvda is number 0."""

    kind = b"vbd"

    def __init__(
        self, domain: "Domain", store: Store, disk: Disk, number: int, saved: dict[str, Any] | None = None
    ) -> None:
        device = MAJOR + 16 * number
        super().__init__(domain, store, device, saved)
        self._disk = disk
        self._served = 0
        front = {b"virtual-device": b"%d" % device, b"device-type": b"disk"}
        back = {
            b"mode": b"r" if disk.read_only else b"w", b"info": b"4" if disk.read_only else b"0",
            b"sectors": b"%d" % (disk.size // SECTOR), b"sector-size": b"%d" % SECTOR,
            b"feature-flush-cache": b"1", b"feature-barrier": b"1",
            b"feature-max-indirect-segments": b"%d" % MOST_INDIRECT, b"max-ring-page-order": b"0",
        }  # fmt: skip
        self.announce(front, back)

    def ring_names(self) -> list[bytes]:
        """See BackEnd."""
        return [b"ring-ref"]

    def begin(self, rings: list[int]) -> None:
        """See BackEnd."""
        (self._ring,) = rings
        self._served = 0

    def flush(self) -> None:
        """See BackEnd."""
        self._disk.flush()

    def indices(self) -> list[int]:
        """See BackEnd."""
        return [self._served]

    def set_indices(self, indices: list[int]) -> None:
        """See BackEnd."""
        (self._served,) = indices

    def notified(self) -> None:
        """Serve every request in the ring."""
        page = self.domain.memory.frame(self._ring)
        before = self._served
        while True:
            produced = struct.unpack_from("<I", page, 0)[0]
            waiting = produced - self._served & MASK32
            if not waiting:
                break
            if waiting > SLOTS:
                self.domain.note("block ring: indices beyond the ring")
                break
            slot = SLOTS_AT + SLOT * (self._served % SLOTS)
            request = bytes(page[slot : slot + SLOT])  # read once: the guest may change it meanwhile
            RESPONSE.pack_into(page, slot, *self._serve(request))  # answers come in the order of the requests
            self._served = self._served + 1 & MASK32
            struct.pack_into("<II", page, 4, self._served + 1 & MASK32, self._served)  # req_event, rsp_prod
        if self._served != before:
            self.domain.tables.stored_into(self._ring)
            self.domain.events.raise_event(self.port)

    def _serve(self, request: bytes) -> tuple[int, int, int]:
        """Serve one request: its identity, its operation, and how it ended."""
        operation, count, _, identity, sector = REQUEST.unpack_from(request)
        self.requests += 1
        try:
            if operation == INDIRECT:
                _, operation, count, identity, sector, _, *pages = INDIRECT_REQUEST.unpack_from(request)
                if operation not in (READ, WRITE) or not 0 < count <= MOST_INDIRECT:
                    raise BadRequest(f"an indirect request {operation} of {count} segments")
                self._transfer(operation, sector, self._indirect_segments(pages, count))
                return identity, operation, OKAY  # the one that was done indirectly
            if operation in (READ, WRITE, BARRIER, FLUSH):
                if count > MOST_SEGMENTS:
                    raise BadRequest(f"{count} segments")
                segments = [SEGMENT.unpack_from(request, SEGMENTS_AT + SEGMENT.size * at) for at in range(count)]
                if operation in (BARRIER, FLUSH):
                    self._disk.flush()
                if segments:
                    self._transfer(READ if operation == READ else WRITE, sector, segments)
                if operation == BARRIER:
                    self._disk.flush()
                return identity, operation, OKAY
            return identity, operation, UNSUPPORTED
        except (BadRequest, NotGranted, OSError) as error:
            self.domain.note(f"block request failed: {error}")
            return identity, operation, FAILED

    def _indirect_segments(self, pages: list[int], count: int) -> list[tuple[int, int, int]]:
        segments, grants = list[tuple[int, int, int]](), self.domain.grants
        for reference in pages[: -(-count // PER_INDIRECT_PAGE)]:
            frame = grants.borrow(reference, DOMID_CONTROL, write=False)
            segments += SEGMENT.iter_unpack(bytes(self.domain.memory.frame(frame)))
        return segments[:count]

    def _transfer(self, operation: int, sector: int, segments: list[tuple[int, int, int]]) -> None:
        """Move data between the disk and granted frames; raises BadRequest, NotGranted, or the file's OSError."""
        reading, grants, memory = operation == READ, self.domain.grants, self.domain.memory.bytes
        if not reading and self._disk.read_only:
            raise BadRequest("a write to a read-only disk")
        pieces, size = list[memoryview](), 0
        for reference, first, last in segments:
            if last < first or last >= PAGE // SECTOR:
                raise BadRequest("a segment beyond its page")
            start = (grants.borrow(reference, DOMID_CONTROL, write=reading) << FRAME_SHIFT) + SECTOR * first
            count = SECTOR * (last + 1 - first)
            pieces.append(memory[start : start + count])
            size += count
        if sector * SECTOR + size > self._disk.size:
            raise BadRequest("beyond the end of the disk")
        if reading:
            self._disk.read(sector * SECTOR, pieces)
        else:
            self._disk.write(sector * SECTOR, pieces)
        self.bytes += size

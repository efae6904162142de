"""The block back end and its disks: what a front end may ask for, what it may not, and what is in the file then."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xen.stopped import stopped_domains
from virtus.devices.disk import CLUSTER, Disk
from virtus.memory.guest_memory import PAGE
from virtus.personalities.xen import block
from virtus.personalities.xen.block import BlockBackEnd
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.event_channels import Port, Status

SIZE = 256 << 10
FRONT = b"/local/domain/1/device/vbd/51712"
BACK = b"/local/domain/0/backend/vbd/1/51712"
RING_PFN, DATA_PFN = 0, 1


class FrontEnd:
    """What a guest's driver does, by hand."""

    def __init__(self, domain: Domain, back_end: BlockBackEnd, machine_store: object, notes: list[str]) -> None:
        self.domain, self.back_end, self.notes = domain, back_end, notes
        self.ring = domain.memory.frame(domain.first_frame + RING_PFN)
        self.produced = self.consumed = 0

    def data(self, page: int = 0) -> memoryview:
        return self.domain.memory.frame(self.domain.first_frame + DATA_PFN + page)

    def grant(self, reference: int, pfn: int, flags: int = 1) -> None:
        table = self.domain.memory.frame(self.domain.grants.first)
        struct.pack_into("<HHI", table, 8 * reference, flags, 0, self.domain.first_frame + pfn)

    def submit(self, request: bytes) -> tuple[int, int, int]:
        """Put a request into the ring, have it served; the response: identity, operation, status."""
        slot = 64 + 112 * (self.produced % 32)
        self.ring[slot : slot + 112] = request.ljust(112, b"\0")
        self.produced += 1
        struct.pack_into("<I", self.ring, 0, self.produced)
        self.back_end.notified()
        answered = struct.unpack_from("<I", self.ring, 8)[0]
        assert answered == self.produced
        return block.RESPONSE.unpack_from(self.ring, slot)

    def transfer(self, operation: int, sector: int, segments: list[tuple[int, int, int]]) -> int:
        request = block.REQUEST.pack(operation, len(segments), 0, 42, sector)
        request += b"".join(block.SEGMENT.pack(*segment) for segment in segments)
        identity, answered, status = self.submit(request)
        assert (identity, answered) == (42, operation)
        return status


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(SIZE))
    return path


def connected(disk: Disk) -> Iterator[FrontEnd]:
    with stopped_domains() as (machine, (domain,), notes):
        back_end = BlockBackEnd(domain, machine.store, disk, 0)
        front = FrontEnd(domain, back_end, machine.store, notes)
        front.grant(8, RING_PFN)
        port = domain.events.allocate(Port(Status.UNBOUND, 0))
        for name, value in ((b"ring-ref", b"8"), (b"event-channel", b"%d" % port), (b"state", b"3")):
            machine.store.write(1, FRONT + b"/" + name, value)
        assert machine.store.read(1, BACK + b"/state") == b"4", notes
        yield front
        machine.store.write(1, FRONT + b"/state", b"6")
        assert domain.frames.references[domain.first_frame] == 1  # the ring is the guest's own again


@pytest.fixture
def front(image: Path) -> Iterator[FrontEnd]:
    disk = Disk(image)
    yield from connected(disk)
    disk.close()


def test_sectors_are_read_and_written(front: FrontEnd, image: Path) -> None:
    before = image.read_bytes()
    front.grant(9, DATA_PFN)
    front.grant(10, DATA_PFN + 1)
    assert front.transfer(block.READ, 8, [(9, 0, 7), (10, 2, 3)]) == block.OKAY
    assert bytes(front.data()) == before[4096:8192]
    assert bytes(front.data(1)[1024:2048]) == before[8192:9216]
    front.data()[:512] = b"w" * 512
    assert front.transfer(block.WRITE, 3, [(9, 0, 0)]) == block.OKAY
    assert front.transfer(block.FLUSH, 0, []) == block.OKAY
    assert image.read_bytes() == before[:1536] + b"w" * 512 + before[2048:]
    assert front.back_end.bytes == 4096 + 1024 + 512


def test_an_indirect_request(front: FrontEnd, image: Path) -> None:
    front.grant(9, DATA_PFN)
    front.grant(20, DATA_PFN + 2)
    front.data(2)[: 12 * 8] = b"".join(block.SEGMENT.pack(9, at % 8, at % 8) for at in range(12))
    request = block.INDIRECT_REQUEST.pack(block.INDIRECT, block.READ, 12, 5, 0, 0, 20, *[0] * 7)
    assert front.submit(request) == (5, block.READ, block.OKAY)
    assert bytes(front.data()[:512]) == image.read_bytes()[8 * 512 : 9 * 512]


@pytest.mark.parametrize(
    ("operation", "sector", "segments"),
    [
        (block.READ, SIZE // 512, [(9, 0, 0)]),
        (block.WRITE, (1 << 63) // 512, [(9, 0, 0)]),
        (block.READ, SIZE // 512 - 1, [(9, 0, 1)]),
        (block.READ, 0, [(9, 3, 2)]),
        (block.READ, 0, [(9, 0, 8)]),
        (block.READ, 0, [(99, 0, 0)]),  # nothing granted
        (block.READ, 0, [(1 << 31, 0, 0)]),
        (block.READ, 0, [(11, 0, 0)]),  # granted read-only
        (block.READ, 0, [(12, 0, 0)]),  # a frame of the hypervisor's
    ],
)
def test_what_cannot_be_served_fails_alone(
    front: FrontEnd, image: Path, operation: int, sector: int, segments: list[tuple[int, int, int]]
) -> None:
    before = image.read_bytes()
    front.grant(9, DATA_PFN)
    front.grant(11, DATA_PFN + 1, flags=1 | 4)
    front.grant(12, -front.domain.first_frame)
    assert front.transfer(operation, sector, segments) == block.FAILED
    assert front.transfer(block.READ, 0, [(9, 0, 0)]) == block.OKAY
    assert image.read_bytes() == before
    assert front.domain.frames.references[front.domain.first_frame + DATA_PFN] == 1


def test_a_page_table_is_no_place_to_read_into(front: FrontEnd) -> None:
    front.domain.tables.pin(front.domain.first_frame + DATA_PFN, 1)
    front.grant(9, DATA_PFN)
    assert front.transfer(block.READ, 0, [(9, 0, 7)]) == block.FAILED
    assert bytes(front.data()) == bytes(PAGE)


def test_an_unknown_operation_is_unsupported(front: FrontEnd) -> None:
    assert front.transfer(77, 0, []) == block.UNSUPPORTED


def test_more_requests_than_the_ring_has_are_not_served(front: FrontEnd) -> None:
    struct.pack_into("<I", front.ring, 0, 1000)
    front.back_end.notified()
    assert struct.unpack_from("<I", front.ring, 8)[0] == 0
    assert "block ring: indices beyond the ring" in front.notes


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(st.binary(min_size=112, max_size=112), max_size=6))
def test_no_request_breaks_the_back_end(tmp_path_factory: pytest.TempPathFactory, requests: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("disks") / "disk.img"
    path.write_bytes(bytes(SIZE))
    disk = Disk(path)
    for front in connected(disk):
        front.grant(9, DATA_PFN)
        for request in requests:
            front.submit(request)
        assert front.transfer(block.READ, 0, [(9, 0, 0)]) == block.OKAY
    disk.close()
    assert path.stat().st_size == SIZE


@pytest.mark.parametrize(
    ("ring", "port"), [(b"99", b"1"), (b"nonsense", b"1"), (b"8", b"999"), (b"8", b""), (b"-1", b"1")]
)
def test_a_front_end_that_names_nonsense_is_closed(image: Path, ring: bytes, port: bytes) -> None:
    disk = Disk(image)
    with stopped_domains() as (machine, (domain,), notes):
        back_end = BlockBackEnd(domain, machine.store, disk, 0)
        FrontEnd(domain, back_end, machine.store, notes).grant(8, RING_PFN)
        for name, value in ((b"ring-ref", ring), (b"event-channel", port), (b"state", b"3")):
            machine.store.write(1, FRONT + b"/" + name, value)
        assert machine.store.read(1, BACK + b"/state") == b"5"
        assert domain.frames.references[domain.first_frame] == 1
    disk.close()


def test_a_read_only_disk_is_not_written(image: Path) -> None:
    before = image.read_bytes()
    disk = Disk(image, read_only=True)
    for front in connected(disk):
        front.grant(9, DATA_PFN)
        assert front.transfer(block.WRITE, 0, [(9, 0, 0)]) == block.FAILED
        assert front.transfer(block.READ, 0, [(9, 0, 0)]) == block.OKAY
    disk.close()
    assert image.read_bytes() == before


writes = st.lists(st.tuples(st.integers(0, SIZE // 512 - 1), st.integers(1, 160), st.integers(1, 255)), max_size=12)


@pytest.mark.slow
@settings(max_examples=50)
@given(writes)
def test_a_snapshot_reads_as_written_and_leaves_the_image_alone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("disks") / "disk.img"
    image = os.urandom(SIZE)
    path.write_bytes(image)
    disk, model = Disk(path, snapshot=True), bytearray(image)
    for sector, count, byte in steps:
        data = bytes([byte]) * min(512 * count, SIZE - 512 * sector)
        disk.write(512 * sector, [memoryview(data)[:512], memoryview(data)[512:]])
        model[512 * sector : 512 * sector + len(data)] = data
    read = bytearray(SIZE)
    disk.read(0, [memoryview(read)[: CLUSTER + 512], memoryview(read)[CLUSTER + 512 :]])
    disk.flush()
    disk.close()
    assert read == model
    assert path.read_bytes() == image


def test_a_disk_that_is_truncated_meanwhile_fails_the_request(front: FrontEnd, image: Path) -> None:
    os.truncate(image, 512)
    front.grant(9, DATA_PFN)
    assert front.transfer(block.READ, 8, [(9, 0, 0)]) == block.FAILED
    assert any("ends too early" in note for note in front.notes)


def test_a_directory_is_no_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Disk(tmp_path, read_only=True)

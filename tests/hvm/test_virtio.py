"""Virtio: what devices do for a driver, and that nothing a driver writes does more than break its own device."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hvm.driver import AVAILABLE, SIZE, TABLE, USED_AT, Driver, Wire
from virtus.devices import offload
from virtus.devices.disk import Disk
from virtus.devices.virtio import block, mmio, network
from virtus.devices.virtio.balloon import DEFLATE, INFLATE, MUST_TELL_HOST, Balloon
from virtus.devices.virtio.block import Block
from virtus.devices.virtio.console import MOST_TYPED, RECEIVE, SEND, VirtioConsole
from virtus.devices.virtio.device import VERSION_1
from virtus.devices.virtio.exclusion import DeviceMemory, Excluded
from virtus.devices.virtio.mmio import Transport
from virtus.devices.virtio.network import Network
from virtus.devices.virtio.queue import DESCRIPTOR, NEXT, BadRing, Chain, Queue
from virtus.devices.virtio.rng import Entropy
from virtus.memory.guest_memory import PAGE, GuestMemory

MIB = 1 << 20
BYTES = 64 << 10


@pytest.fixture(scope="module")
def memory() -> Iterator[GuestMemory]:
    made = GuestMemory(4 * MIB, "test")
    yield made
    made.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(BYTES))
    return path


# A disk


def test_sectors_are_read_and_written(memory: GuestMemory, image: Path) -> None:
    before = image.read_bytes()
    disk = Disk(image)
    driver = Driver(memory, Block(memory, disk))
    data, status = driver.request(block.HEADER.pack(block.READ, 0, 3), 1024, 1)
    assert (data, status) == (before[1536:2560], b"\0")
    assert driver.request(block.HEADER.pack(block.WRITE, 0, 1), b"w" * 512, 1) == [b"\0"]
    assert driver.request(block.HEADER.pack(block.FLUSH, 0, 0), 1) == [b"\0"]
    assert image.read_bytes() == before[:512] + b"w" * 512 + before[1024:]
    assert driver.request(block.HEADER.pack(block.IDENTITY, 0, 0), 20, 1) == [b"virtus".ljust(20, b"\0"), b"\0"]
    assert driver.request(block.HEADER.pack(77, 0, 0), 1) == [bytes((block.UNSUPPORTED,))]
    disk.close()


@pytest.mark.parametrize(
    "request_", [(block.READ, BYTES // 512, 512), (block.READ, 2**60, 512), (block.READ, 0, 100), (block.WRITE, 0, 512)]
)
def test_what_cannot_be_done_fails(memory: GuestMemory, image: Path, request_: tuple[int, int, int]) -> None:
    kind, sector, size = request_
    before = image.read_bytes()
    disk = Disk(image, read_only=True)
    driver = Driver(memory, Block(memory, disk))
    head = block.HEADER.pack(kind, 0, sector)
    answer = driver.request(head, bytes(size), 1) if kind == block.WRITE else driver.request(head, size, 1)
    assert answer[-1] == bytes((block.FAILED,))
    assert image.read_bytes() == before
    disk.close()


def test_a_disk_that_is_truncated_meanwhile_fails_the_request_and_says_why(memory: GuestMemory, image: Path) -> None:
    disk = Disk(image)
    device = Block(memory, disk)
    driver = Driver(memory, device)
    os.truncate(image, 1024)
    for sector in (1, 2, 8):
        answer = driver.request(block.HEADER.pack(block.READ, 0, sector), 512, 1)
        assert answer[-1] == bytes((block.OKAY if sector < 2 else block.FAILED,))
    assert device.failures == {"disk: a request failed: the disk image ends too early"}
    assert not device.broken
    disk.close()


def test_frames_that_are_not_the_device_s_are_never_touched(memory: GuestMemory, image: Path) -> None:
    disk = Disk(image)
    device = Block(memory, disk)
    driver = Driver(memory, device)
    head, room, _ = driver.offer(block.HEADER.pack(block.READ, 0, 0), 512, 1)
    device.memory.exclude(room >> 12)
    memory.bytes[room : room + 512] = b"k" * 512
    assert not head & 4095
    assert device.notified(0)  # it needs a reset, and says so
    assert bytes(memory.bytes[room : room + 512]) == b"k" * 512
    assert "not the device's" in device.broken
    assert device.memory.violations == 1
    assert not device.notified(0)
    device.reset()
    device.memory.admit(room >> 12)
    driver = Driver(memory, device)
    assert driver.request(block.HEADER.pack(block.READ, 0, 0), 512, 1)[-1] == b"\0"
    disk.close()


@given(st.integers(-2, 2**64), st.integers(-2, 2**40), st.sets(st.integers(0, 15), max_size=6))
def test_a_view_is_within_memory_and_what_is_allowed(address: int, size: int, excluded: set[int]) -> None:
    small = GuestMemory(16 * PAGE, "test")
    view = DeviceMemory(small)
    for frame in excluded:
        view.exclude(frame)
    try:
        found = view.view(address, size)
        touched = set(range(address // PAGE, (address + size - 1) // PAGE + 1)) if size else set()
        assert len(found) == size
        assert not touched & excluded
        assert touched <= set(range(16))
        found.release()
    except Excluded:
        assert view.violations == 1
    finally:
        small.close()


# A network card


def card(memory: GuestMemory, accepted: int) -> tuple[Wire, Network]:
    wire = Wire()
    device = Network(memory, wire, b"\x52\x54\0\1\2\3")
    device.accepted = accepted
    return wire, device


def test_frames_are_sent_with_what_is_left_to_do(memory: GuestMemory) -> None:
    wire, device = card(memory, 0)
    header = offload.HEADER.pack(1, 1, 54, 1448, 34, 16)
    Driver(memory, device, network.SEND).request(header + b"\0\0", b"f" * 3000)
    assert wire.sent == [(header, b"f" * 3000)]
    assert device.config()[:6] == b"\x52\x54\0\1\2\3"


def test_a_long_frame_takes_several_buffers(memory: GuestMemory) -> None:
    wire, device = card(memory, device_features())
    driver = Driver(memory, device, network.RECEIVE)
    frame = os.urandom(3000)
    wire.coming.append((offload.NOTHING, frame))
    driver.offer(1536)
    device.notified(network.RECEIVE)
    assert driver.used() == []
    rooms = driver.offer(1536) + driver.offer(1536)
    device.notified(network.RECEIVE)
    found = driver.used()
    assert [size for _, size in found] == [1536, 1476]
    assert struct.unpack_from("<H", memory.bytes, rooms[0] - PAGE + 10) == (2,)
    assert bytes(memory.bytes[rooms[0] : rooms[0] + 1476]) == frame[1524:]
    assert device.bytes == 3000


def test_without_room_a_frame_waits_and_without_merging_it_is_lost(memory: GuestMemory) -> None:
    wire, device = card(memory, 0)
    driver = Driver(memory, device, network.RECEIVE)
    wire.coming.extend([(offload.NOTHING, bytes(3000)), (offload.NOTHING, b"x" * 60)])
    assert not device.poll()
    assert device.descriptors() == []
    driver.offer(1536)
    driver.offer(1536)
    assert device.poll()
    assert [size for _, size in driver.used()] == [72]
    assert device.dropped == 1


def device_features() -> int:
    return network.GUEST_CHECKSUM | network.GUEST_TCP4 | network.GUEST_TCP6 | network.MERGEABLE


# Others


def test_random_bytes(memory: GuestMemory) -> None:
    (data,) = Driver(memory, Entropy(memory)).request(64)
    assert len(set(data)) > 8


def test_memory_that_is_given_back_is_the_host_s(memory: GuestMemory) -> None:
    device = Balloon(memory)
    memory.frame(900)[:] = b"g" * PAGE
    Driver(memory, device, INFLATE).request(struct.pack("<3I", 900, 901, 1 << 30))
    assert bytes(memory.frame(900)) == bytes(PAGE)
    assert device.bytes == 2 * PAGE
    Driver(memory, device, DEFLATE).request(struct.pack("<I", 900))
    device.target = 7
    device.configure(4, (5).to_bytes(4, "little"))
    assert device.config() == struct.pack("<II", 7, 5)


# Hostile drivers


def test_rings_that_are_none(memory: GuestMemory) -> None:
    queue = Queue(DeviceMemory(memory))
    for size in (0, 3, 512):
        queue.size = size
        with pytest.raises(BadRing):
            queue.start()
    queue.size, queue.used = 8, 4 * MIB - 4
    with pytest.raises(BadRing, match="beyond memory"):
        queue.start()


def test_a_device_says_from_where_on_it_wants_to_be_told(memory: GuestMemory) -> None:
    device = Entropy(memory)
    driver, queue = Driver(memory, device), device.queues[0]
    queue.event_index = True
    asked = USED_AT + 4 + 8 * SIZE  # avail_event
    for number in range(1, 2 * SIZE):
        driver.request(16)
        assert struct.unpack_from("<H", memory.bytes, asked) == (number,)


@given(st.integers(0, 0xFFFF), st.lists(st.tuples(st.integers(1, SIZE), st.integers(-SIZE, 2 * SIZE)), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_a_driver_is_told_when_what_it_waits_for_is_passed(
    memory: GuestMemory, first: int, rounds: list[tuple[int, int]]
) -> None:
    """By the text of the standard (2.7.7.2): when the index moves past used_event; here number by number."""
    device = Entropy(memory)
    Driver(memory, device)
    queue = device.queues[0]
    queue.event_index = True
    queue._done = queue._told = first
    for count, wanted in rounds:
        event = queue._done + wanted & 0xFFFF
        struct.pack_into("<H", memory.bytes, AVAILABLE + 4 + 2 * SIZE, event)
        passed = [queue._done + at & 0xFFFF for at in range(count)]
        for _ in range(count):
            queue.give(Chain(0, [], []), 0)
        assert queue.wants_interrupt() == (event in passed)
        assert not queue.wants_interrupt()


def test_descriptors_in_a_circle(memory: GuestMemory) -> None:
    device = Entropy(memory)
    driver = Driver(memory, device)
    for at in range(SIZE):
        DESCRIPTOR.pack_into(memory.bytes, 0x1000 + 16 * at, 0, 1, NEXT, (at + 1) % SIZE)
    struct.pack_into("<HH", memory.bytes, 0x2002, 1, 0)
    device.notified(0)
    assert device.broken == "descriptors in a circle"
    assert driver.used() == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=128, max_size=128), st.binary(min_size=24, max_size=24), st.integers(0, 3))
def test_any_rings_are_served_or_break_the_device(
    memory: GuestMemory, image: Path, table: bytes, available: bytes, which: int
) -> None:
    disk = Disk(image)
    wire, net = card(memory, device_features())
    wire.coming.extend([(offload.NOTHING, bytes(2000))] * 3)
    device = (Block(memory, disk), net, Entropy(memory), Balloon(memory))[which]
    for number in range(len(device.queues)):
        Driver(memory, device, number)
        base = 0x4000 * number
        memory.bytes[0x1000 + base : 0x1000 + base + 128] = table
        memory.bytes[0x2000 + base : 0x2000 + base + 24] = available
        device.notified(number)
    device.poll()
    device.reset()
    disk.close()


REGISTERS = st.one_of(st.integers(0, 0x48).map(lambda word: 4 * word), st.sampled_from([0x3F, 0xFFC]))
VALUES = st.one_of(st.integers(0, 15), st.integers(0, 2**32 - 1), st.sampled_from([0x1000, 0x2000, 0x3000, 8]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(REGISTERS, st.one_of(st.none(), VALUES)), max_size=40))
def test_any_accesses_are_answered(memory: GuestMemory, accesses: list[tuple[int, int | None]]) -> None:
    raised: list[None] = []
    transport = Transport(Entropy(memory), 0xD0000000, lambda: raised.append(None))
    for offset, value in accesses:
        if value is None:
            assert 0 <= transport.read(offset, 4) < 1 << 32
        else:
            transport.write(offset, 4, value)
    transport.poll()


def test_a_driver_s_way_to_a_working_device(memory: GuestMemory) -> None:
    raised: list[None] = []
    device = Entropy(memory)
    transport = Transport(device, 0xD0000000, lambda: raised.append(None))
    assert transport.read(mmio.MAGIC_VALUE, 4) == mmio.MAGIC
    assert transport.read(mmio.DEVICE_ID, 4) == 4
    transport.write(mmio.DEVICE_FEATURES_SELECT, 4, 1)
    assert transport.read(mmio.DEVICE_FEATURES, 4) == VERSION_1 >> 32
    transport.write(mmio.DRIVER_FEATURES_SELECT, 4, 0)
    transport.write(mmio.DRIVER_FEATURES, 4, 1)  # was not offered
    transport.write(mmio.STATUS, 4, 11)
    assert not transport.read(mmio.STATUS, 4) & mmio.FEATURES_OK
    transport.write(mmio.DRIVER_FEATURES, 4, 0)
    transport.write(mmio.STATUS, 4, 11)
    assert transport.read(mmio.STATUS, 4) == 11
    for register, value in ((mmio.QUEUE_SIZE, 8), (mmio.DESCRIPTORS_LOW, 0x1000), (mmio.DRIVER_LOW, 0x2000),
                            (mmio.DEVICE_LOW, 0x3000), (mmio.QUEUE_READY, 1), (mmio.STATUS, 15)):  # fmt: skip
        transport.write(register, 4, value)
    assert transport.read(mmio.QUEUE_READY, 4) == 1
    saved = transport.save()
    driver = Driver(memory, device)
    driver.offer(32)
    transport.write(mmio.QUEUE_NOTIFY, 4, 0)
    assert len(raised) == 1
    assert transport.read(mmio.INTERRUPT_STATUS, 4) == mmio.USED_BUFFER
    transport.write(mmio.INTERRUPT_ACKNOWLEDGE, 4, 1)
    assert transport.read(mmio.INTERRUPT_STATUS, 4) == 0
    again = Transport(Entropy(memory), 0xD0000000, lambda: None)
    again.load(saved)
    assert again.save() == saved


# A console


def test_what_is_sent_is_shown_and_what_is_typed_waits_for_room(memory: GuestMemory) -> None:
    shown = bytearray()
    device = VirtioConsole(memory, shown.extend, lambda: (80, 25))
    assert device.config()[:4] == struct.pack("<HH", 80, 25)
    sending = Driver(memory, device, SEND)
    sending.request(b"hello ", b"there")
    assert shown == b"hello there"
    device.type(b"typed by somebody")
    assert not device.poll()  # no room yet
    receiving = Driver(memory, device, RECEIVE)
    places = [receiving.offer(5)[0], receiving.offer(100)[0]]
    assert device.poll()
    used = receiving.used()
    assert [size for _, size in used] == [5, 12]
    assert b"".join(bytes(memory.bytes[at : at + n]) for at, (_, n) in zip(places, used, strict=True)) == (
        b"typed by somebody"
    )
    assert not device.poll()


def test_a_console_takes_only_so_much_and_survives_buffers_without_room(memory: GuestMemory) -> None:
    device = VirtioConsole(memory, lambda data: None, lambda: (0, 0))
    assert not device.features & 1  # there is no size to tell
    assert device.wants_more
    device.type(bytes(MOST_TYPED))
    assert not device.wants_more
    receiving = Driver(memory, device, RECEIVE)
    receiving.offer(b"not to be written to")
    assert device.poll()
    assert device.wants_more


def test_a_terminal_s_new_size_is_told(memory: GuestMemory) -> None:
    sizes = [(80, 25), (80, 25), (132, 50)]
    device = VirtioConsole(memory, lambda data: None, lambda: sizes.pop(0))
    assert not device.resized()
    assert device.resized()
    assert device.config()[:4] == struct.pack("<HH", 132, 50)


# What no device may reach


def test_rings_belong_to_their_device_alone(memory: GuestMemory) -> None:
    first, second = Entropy(memory), Entropy(memory)
    second.memory.shared = first.memory.shared
    driver = Driver(memory, first)
    queue = first.queues[0]
    for address in (queue.descriptors, queue.available, queue.used):
        with pytest.raises(Excluded, match="not the device's"):
            second.memory.view(address, 8)
        assert len(first.memory.view(address, 8)) == 8
    end = queue.descriptors + DESCRIPTOR.size * SIZE
    assert len(second.memory.view(end, PAGE - DESCRIPTOR.size * SIZE)) > 0  # the rest of the page is not the ring's
    with pytest.raises(Excluded):
        second.memory.view(end - 1, 2)
    assert len(driver.request(16)[0]) == 16
    first.reset()
    assert len(second.memory.view(queue.descriptors or TABLE, 8)) == 8
    Driver(memory, second)  # at the same place, which is free now
    assert first.memory.violations == 0


def test_two_devices_cannot_share_a_ring(memory: GuestMemory) -> None:
    first, second = Entropy(memory), Entropy(memory)
    second.memory.shared = first.memory.shared
    Driver(memory, first)
    with pytest.raises(BadRing, match="not the device's"):
        Driver(memory, second)


def test_what_the_balloon_has_is_nobody_s_until_it_is_taken_back(memory: GuestMemory) -> None:
    balloon, entropy = Balloon(memory), Entropy(memory)
    entropy.memory.shared = balloon.memory.shared
    balloon.accepted = MUST_TELL_HOST
    blowing, letting = Driver(memory, balloon, INFLATE), Driver(memory, balloon, DEFLATE)
    blowing.request(struct.pack("<2I", 700, 701))
    for address in (700 * PAGE, 701 * PAGE + 5):
        with pytest.raises(Excluded):
            entropy.memory.view(address, 8)
    saved = balloon.save()
    assert saved["given"] == [(700, 2)]
    letting.request(struct.pack("<I", 700))
    assert len(entropy.memory.view(700 * PAGE, PAGE)) == PAGE
    balloon.reset()
    assert len(entropy.memory.view(701 * PAGE, PAGE)) == PAGE
    balloon.load(saved)
    with pytest.raises(Excluded):
        entropy.memory.view(700 * PAGE, 1)
    balloon.reset()


def test_a_driver_that_does_not_tell_keeps_its_memory_reachable(memory: GuestMemory) -> None:
    balloon = Balloon(memory)
    Driver(memory, balloon, INFLATE).request(struct.pack("<I", 700))
    assert len(balloon.memory.view(700 * PAGE, PAGE)) == PAGE


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 4), st.integers(-2, 20 * PAGE), st.integers(-1, 3 * PAGE))
def test_memory_has_one_place_for_each_address_and_none_in_the_hole(
    pages: int, hole_at: int, hole: int, address: int, size: int
) -> None:
    made = GuestMemory(pages * PAGE, "test", hole=(hole_at * PAGE, (hole_at + hole) * PAGE))
    try:
        there = {at for start, length in made.ranges for at in range(start // PAGE, (start + length) // PAGE)}
        assert len(there) == pages
        assert not there & set(range(hole_at, hole_at + hole)) or pages <= hole_at
        touched = set(range(address // PAGE, (address + max(size, 1) - 1) // PAGE + 1))
        try:
            place = made.place(address, size)
        except IndexError:
            assert size <= 0 or not touched <= there or not hole or (touched & {hole_at - 1} and touched & {hole_at})
        else:
            assert place + size <= made.size
            assert size == 0 or touched <= there
    finally:
        made.close()

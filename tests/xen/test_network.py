"""The network back end: what a front end may send and receive, what it may not, and two real domains on one switch."""

import hashlib
import os
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.devices.test_offload import frame as tcp_frame
from tests.xen import kernels
from tests.xen.stopped import stopped_domains
from virtus.devices import offload
from virtus.memory.guest_memory import PAGE
from virtus.personalities.xen import network
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.event_channels import Port, Status
from virtus.personalities.xen.network import NetworkBackEnd
from virtus.personalities.xen.xenstore import Store

FRONT, BACK = b"/local/domain/1/device/vif/0", b"/local/domain/0/backend/vif/1/0"
SEND_PFN, RECEIVE_PFN, DATA_PFN, DATA_PAGES = 0, 1, 2, 20
FIRST_GRANT = 10
ADDRESS = bytes.fromhex("00163e010203")


class Wire:
    """A link whose other end is the test. See Link."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, bytes]] = []
        self.coming: deque[tuple[bytes, bytes]] = deque()

    def fileno(self) -> int:
        return 0

    def receive(self) -> bytes | None:
        raise NotImplementedError

    def send(self, frame: bytes | bytearray | memoryview) -> bool:
        raise NotImplementedError

    def receive_unfinished(self) -> tuple[bytes, bytes] | None:
        return self.coming.popleft() if self.coming else None

    def send_unfinished(self, header: bytes, frame: bytes | bytearray | memoryview) -> bool:
        self.sent.append((header, bytes(frame)))
        return True

    def close(self) -> None:
        pass


class FrontEnd:
    """What a guest's driver does, by hand. Page n of the data is granted as FIRST_GRANT + n."""

    def __init__(self, domain: Domain, store: Store, notes: list[str]) -> None:
        self.domain, self.notes = domain, notes
        self.wire = Wire()
        self.back_end = NetworkBackEnd(domain, store, self.wire, 0, ADDRESS)
        self.grant(8, SEND_PFN)
        self.grant(9, RECEIVE_PFN)
        for page in range(DATA_PAGES):
            self.grant(FIRST_GRANT + page, DATA_PFN + page)
        port = domain.events.allocate(Port(Status.UNBOUND, 0))
        for name, value in {
            b"tx-ring-ref": b"8", b"rx-ring-ref": b"9", b"event-channel": b"%d" % port, b"request-rx-copy": b"1",
            b"feature-sg": b"1", b"feature-gso-tcpv4": b"1", b"state": b"4",
        }.items():  # fmt: skip
            store.write(1, FRONT + b"/" + name, value)
        assert store.read(1, BACK + b"/state") == b"4", notes
        self.sent = self.offered = 0

    def frame(self, pfn: int) -> memoryview:
        return self.domain.memory.frame(self.domain.first_frame + pfn)

    def grant(self, reference: int, pfn: int, flags: int = 1) -> None:
        table = self.domain.memory.frame(self.domain.grants.first)
        struct.pack_into("<HHI", table, 8 * reference, flags, 0, self.domain.first_frame + pfn)

    def slots(self, pfn: int, first: int, slots: list[bytes], size: int) -> None:
        for at, slot in enumerate(slots):
            place = 64 + size * ((first + at) % 256)
            self.frame(pfn)[place : place + len(slot)] = slot
        struct.pack_into("<I", self.frame(pfn), 0, first + len(slots))

    def send(self, *slots: bytes) -> list[tuple[int, int]]:
        """Put slots into the ring, have them served; the responses: id and status."""
        self.slots(SEND_PFN, self.sent, list(slots), 12)
        first, self.sent = self.sent, self.sent + len(slots)
        self.back_end.notified()
        page = self.frame(SEND_PFN)
        answered = struct.unpack_from("<I", page, 8)[0]
        return [network.SEND_RESPONSE.unpack_from(page, 64 + 12 * (at % 256)) for at in range(first, answered)]

    def offer(self, *pages: int) -> None:
        slots = [network.RECEIVE_REQUEST.pack(100 + page, FIRST_GRANT + page) for page in pages]
        self.slots(RECEIVE_PFN, self.offered, slots, 8)
        self.offered += len(slots)

    def received(self) -> list[bytes]:
        page = self.frame(RECEIVE_PFN)
        return [bytes(page[64 + 8 * at : 72 + 8 * at]) for at in range(struct.unpack_from("<I", page, 8)[0])]


@pytest.fixture
def front() -> Iterator[FrontEnd]:
    with stopped_domains() as (machine, (domain,), notes):
        made = FrontEnd(domain, machine.store, notes)
        yield made
        machine.store.write(1, FRONT + b"/state", b"6")
        for pfn in range(DATA_PFN + DATA_PAGES):  # all is the guest's own again
            assert domain.frames.references[domain.first_frame + pfn] == 1


def request(page: int, offset: int, flags: int, identity: int, size: int) -> bytes:
    return network.SEND_REQUEST.pack(FIRST_GRANT + page, offset, flags, identity, size)


def test_a_packet_is_sent(front: FrontEnd) -> None:
    front.frame(DATA_PFN)[100:160] = packet = os.urandom(60)
    assert front.send(request(0, 100, 0, 7, 60)) == [(7, network.OKAY)]
    assert front.wire.sent == [(offload.NOTHING, packet)]


def test_a_long_packet_in_pieces_is_to_be_cut(front: FrontEnd) -> None:
    packet = tcp_frame(os.urandom(9000))
    for page in range(3):
        piece = packet[PAGE * page : PAGE * (page + 1)]
        front.frame(DATA_PFN + page)[: len(piece)] = piece
    answers = front.send(
        request(0, 0, network.CHECKSUM_BLANK | network.SEND_MORE | network.EXTRA_INFO, 1, len(packet)),
        network.EXTRA.pack(network.EXTRA_SEGMENTS, 0, 1448, network.SEGMENTS_TCP4, 0, 0),
        request(1, 0, network.SEND_MORE, 2, PAGE),
        request(2, 0, 0, 3, len(packet) - 2 * PAGE),
    )
    assert answers == [(1, network.OKAY), (0, network.NULL), (2, network.OKAY), (3, network.OKAY)]
    ((header, sent),) = front.wire.sent
    assert sent == packet
    assert header == offload.wanted(packet, 1448)
    assert len(offload.finished(header, sent)) == 7


@pytest.mark.parametrize(
    "slots",
    [
        [request(0, 4000, 0, 5, 200)],
        [request(0, 0, network.SEND_MORE, 5, 60)],
        [request(0, 0, network.EXTRA_INFO, 5, 60)],
        [request(0, 0, network.SEND_MORE, 5, 60), request(1, 0, 0, 6, 61)],
        [network.SEND_REQUEST.pack(999999, 0, 0, 5, 60)],
        [network.SEND_REQUEST.pack(2, 0, 0, 5, 60)],
    ],
)
def test_what_is_no_packet_fails_alone(front: FrontEnd, slots: list[bytes]) -> None:
    answers = front.send(*slots)
    assert len(answers) == len(slots)
    assert answers[0] == (5, network.FAILED)
    assert not front.wire.sent
    assert front.send(request(0, 0, 0, 9, 60))[-1] == (9, network.OKAY)


def test_a_packet_is_received_when_there_is_room(front: FrontEnd) -> None:
    packet = os.urandom(PAGE + 500)
    front.wire.coming.append((offload.NOTHING, packet))
    front.back_end.poll()
    front.offer(0)
    front.back_end.notified()
    assert front.received() == []  # it needs two
    front.offer(1)
    front.back_end.notified()
    answers = [network.RECEIVE_RESPONSE.unpack(answer) for answer in front.received()]
    assert answers == [(100, 0, network.RECEIVED_MORE, PAGE), (101, 0, 0, 500)]
    assert bytes(front.frame(DATA_PFN)) + bytes(front.frame(DATA_PFN + 1)[:500]) == packet


def test_a_segment_to_be_cut_is_handed_on(front: FrontEnd) -> None:
    packet = tcp_frame(os.urandom(3000))
    front.wire.coming.append((offload.wanted(packet, 1000), packet))
    front.offer(0, 1)
    front.back_end.poll()
    first, second = front.received()
    said = network.RECEIVED_BLANK | network.RECEIVED_VALID | network.EXTRA_INFO
    assert network.RECEIVE_RESPONSE.unpack(first) == (100, 0, said, len(packet))
    assert network.EXTRA.unpack(second) == (network.EXTRA_SEGMENTS, 0, 1000, network.SEGMENTS_TCP4, 0, 0)


def test_a_segment_that_the_guest_cannot_cut_is_cut_here(front: FrontEnd) -> None:
    packet = tcp_frame(os.urandom(3000), kind=offload.IPV6)
    front.wire.coming.append((offload.wanted(packet, 1000), packet))
    front.offer(0, 1, 2, 3)
    front.back_end.poll()
    assert len(front.received()) == 3


def test_a_page_table_is_no_place_to_receive_into(front: FrontEnd) -> None:
    front.domain.tables.pin(front.domain.first_frame + DATA_PFN, 1)
    front.wire.coming.append((offload.NOTHING, bytes(60)))
    front.offer(0)
    front.back_end.poll()
    assert network.RECEIVE_RESPONSE.unpack(front.received()[0])[3] == network.FAILED
    front.domain.tables.unpin(front.domain.first_frame + DATA_PFN)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=12, max_size=12), max_size=20), st.integers(0, 2**32 - 1), st.binary(max_size=160))
def test_nothing_in_a_ring_ends_the_back_end(slots: list[bytes], produced: int, buffers: bytes) -> None:
    with stopped_domains() as (machine, (domain,), notes):
        front = FrontEnd(domain, machine.store, notes)
        front.send(*slots)
        front.frame(RECEIVE_PFN)[64 : 64 + len(buffers)] = buffers
        struct.pack_into("<I", front.frame(RECEIVE_PFN), 0, len(buffers) // 8)
        front.wire.coming.append((offload.NOTHING, bytes(9000)))
        front.back_end.notified()
        for pfn in (SEND_PFN, RECEIVE_PFN):
            struct.pack_into("<I", front.frame(pfn), 0, produced)
        front.back_end.notified()
        front.back_end.disconnect()


SERVER = """
ip link set lo up; ip addr add 10.7.0.1/24 dev eth0; ip link set eth0 up
mkdir /www; dd if=/dev/urandom of=/www/data bs=1M count=3 2>/dev/null; md5sum </www/data
httpd -h /www
read word </dev/console; poweroff -f
"""
CLIENT = """
ip addr add 10.7.0.2/24 dev eth0; ip link set eth0 up
until ping -c 1 -W 1 10.7.0.1 >/dev/null; do :; done; echo reached
until wget -q -O /data http://10.7.0.1/data; do :; done; md5sum </data
poweroff -f
"""


VICTIM = """
ip addr add 10.7.0.3/24 dev eth0; ip link set eth0 up
until ping -c 1 -W 1 10.7.0.1 >/dev/null; do :; done; echo reached
while :; do dd if=/dev/urandom of=/dev/xvda bs=64k count=64 conv=fsync 2>/dev/null; done &
while :; do wget -q -O /data http://10.7.0.1/data && echo once more; done
"""


def domain(place: Path, name: str, script: str, *more: str, drivers: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """A domain on the switch `lab`, its console as the process's streams; skips where it has no network."""
    kernel = kernels.kernel()
    driver = kernel / "xen-netfront.ko"
    if not driver.exists():
        pytest.skip("Debian's kernel has no module xen-netfront")
    ramdisk = kernels.ramdisk(script, place / name, driver, *(kernel / each for each in drivers))
    words = ["run", "--with", "paravirt", "--net", "switch:lab", *more, "--initrd", str(ramdisk), "--append", "quiet"]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "virtus", *words, str(kernel / "vmlinuz")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "XDG_RUNTIME_DIR": str(place)},
    )  # fmt: skip


def digests(shown: bytes) -> set[bytes]:
    """What md5sum has said."""
    return {line.split()[0] for line in shown.split(b"\n") if line.rstrip().endswith(b"  -")}


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_two_domains_talk_through_a_switch(tmp_path: Path) -> None:
    server, client = domain(tmp_path, "server", SERVER), domain(tmp_path, "client", CLIENT)
    shown, errors = client.communicate(timeout=100)
    assert b"reached" in shown, (shown, errors)
    served, _ = server.communicate(b"enough\n", timeout=30)
    sums = digests(shown + served)
    assert len(sums) == 1, (shown, served)
    assert len(next(iter(sums))) == len(hashlib.md5(b"").hexdigest())
    assert not list((tmp_path / "virtus-switches/lab").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_back_ends_killed_amid_requests_harm_no_other_domain(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as stream:
        stream.truncate(8 << 20)
    server = domain(tmp_path, "server", SERVER)
    victim = domain(tmp_path, "victim", VICTIM, "--name", "one", "--disk", str(disk), drivers=("xen-blkfront.ko",))
    assert victim.stdout is not None
    for line in victim.stdout:
        if line.startswith(b"once more"):
            break
    victim.kill()  # the back ends of its disk and network, amid the next
    victim.communicate(timeout=30)
    again = domain(tmp_path, "again", CLIENT, "--name", "one")  # by the same name, on the same switch
    shown, errors = again.communicate(timeout=100)
    assert again.returncode == 0, (shown, errors)
    served, errors = server.communicate(b"enough\n", timeout=30)
    assert server.returncode == 0, (served, errors)
    assert len(digests(shown + served)) == 1, (shown, served)
    assert not list((tmp_path / "virtus-switches/lab").iterdir())

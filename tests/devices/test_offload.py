"""Frames that others finish: check sums and cut segments, as the receiving end of a real TCP would check them."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.devices.offload import (
    CHECKSUM_AT,
    HEADER,
    IPV4,
    IPV6,
    NOTHING,
    TCP,
    UDP,
    checksum,
    finished,
    transport,
    wanted,
)

FIN, PUSH, ACKNOWLEDGE = 1, 8, 16


def frame(data: bytes, *, kind: int = IPV4, protocol: int = TCP, flags: int = ACKNOWLEDGE, vlan: bool = False) -> bytes:
    """A frame whose transport check sum holds that of the pseudo header alone, as cards are given them."""
    if protocol == TCP:
        segment = struct.pack(">HHIIBBHHH", 1000, 2000, 0xFFFFFF00, 7, 5 << 4, flags, 512, 0, 0) + data
    else:
        segment = struct.pack(">HHHH", 1000, 2000, 8 + len(data), 0) + data
    size = 4 if kind == IPV4 else 16
    addresses = bytes(range(size)) + bytes(range(1, size + 1))
    begun = checksum(addresses + struct.pack(">HH", protocol, len(segment) & 0xFFFF))
    at = CHECKSUM_AT[protocol]
    segment = segment[:at] + struct.pack(">H", begun) + segment[at + 2 :]
    if kind == IPV4:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment) & 0xFFFF, 99, 0x4000, 64, protocol, 0) + addresses
        head = head[:10] + struct.pack(">H", ~checksum(head) & 0xFFFF) + head[12:]
    else:
        head = struct.pack(">IHBB", 6 << 28, len(segment) & 0xFFFF, protocol, 64) + addresses
    tag = b"\x81\x00\x00\x05" if vlan else b""
    return b"\x02" * 6 + b"\x04" * 6 + tag + struct.pack(">H", kind) + head + segment


def right(whole: bytes) -> int:
    """Where the transport's header begins in a frame whose lengths and sums are right."""
    found = transport(whole)
    assert found is not None
    kind, protocol, network, start = found
    length = len(whole) - start
    if kind == IPV4:
        assert checksum(whole[network:start]) == 0xFFFF
        assert int.from_bytes(whole[network + 2 : network + 4], "big") == len(whole) - network
        addresses = whole[network + 12 : network + 20]
    else:
        assert int.from_bytes(whole[network + 4 : network + 6], "big") == length
        addresses = whole[network + 8 : network + 40]
    assert checksum(addresses + struct.pack(">HH", protocol, length) + whole[start:]) == 0xFFFF
    return start


def payload(whole: bytes) -> tuple[int, int, bytes]:
    """Sequence number, flags and data of a TCP frame."""
    start = right(whole)
    return int.from_bytes(whole[start + 4 : start + 8], "big"), whole[start + 13], whole[start + 20 :]


@given(st.binary(max_size=300))
def test_a_sum_is_that_of_the_words(data: bytes) -> None:
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data.ljust((len(data) + 1) // 2 * 2, b"\0")))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == total


@given(st.binary(max_size=200), st.sampled_from([IPV4, IPV6]), st.sampled_from([TCP, UDP]), st.booleans())
def test_a_check_sum_is_finished(data: bytes, kind: int, protocol: int, vlan: bool) -> None:
    made = frame(data, kind=kind, protocol=protocol, vlan=vlan)
    (whole,) = finished(wanted(made), made)
    right(whole)


@given(st.binary(min_size=1, max_size=9000), st.integers(8, 1500), st.sampled_from([IPV4, IPV6]))
def test_a_long_segment_is_cut(data: bytes, size: int, kind: int) -> None:
    made = frame(data, kind=kind, flags=ACKNOWLEDGE | PUSH | FIN)
    pieces = [payload(piece) for piece in finished(wanted(made, size), made)]
    assert b"".join(piece for _, _, piece in pieces) == data
    at = 0xFFFFFF00
    for number, (sequence, flags, piece) in enumerate(pieces):
        assert sequence == at & 0xFFFFFFFF
        assert len(piece) <= size
        assert flags == ACKNOWLEDGE | (PUSH | FIN if number == len(pieces) - 1 else 0)
        at += len(piece)


@pytest.mark.parametrize("other", [b"", bytes(60), b"\x02" * 12 + b"\x08\x06" + bytes(46)])
def test_other_frames_go_as_they_are(other: bytes) -> None:
    assert wanted(other) == NOTHING
    assert finished(NOTHING, other) == [other]


@given(st.binary(min_size=HEADER.size, max_size=HEADER.size), st.binary(max_size=200))
def test_any_header_is_obeyed_or_the_frame_dropped(header: bytes, data: bytes) -> None:
    finished(header, data)
    finished(header, frame(data))

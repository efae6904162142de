"""Frames of GDB's remote protocol: what is sent arrives, however it is cut to pieces; what is damaged is noticed."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.machine.debug.packets import (
    MOST_BYTES,
    BadPacket,
    Control,
    Decoder,
    binary,
    encode,
    escape,
    number,
    unescape,
)

HEXADECIMAL = set(b"0123456789abcdefABCDEF")


def decoded(pieces: Iterable[bytes]) -> list[bytes | Control]:
    decoder = Decoder()
    return [found for piece in pieces for found in decoder.feed(piece)]


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


@pytest.mark.slow
@given(st.lists(st.one_of(st.binary(max_size=50), st.sampled_from(list(Control)[:3]))), st.lists(st.integers(0, 999)))
def test_what_is_sent_arrives(sent: list[bytes | Control], cuts: list[int]) -> None:
    data = b"".join(encode(item) if isinstance(item, bytes) else item.value.encode() for item in sent)
    assert decoded(pieces(data, cuts)) == sent


@pytest.mark.slow
@given(st.binary())
def test_escapes_are_undone(data: bytes) -> None:
    escaped = escape(data)
    assert unescape(escaped) == data
    assert not set(escaped) & set(b"$#*")


@pytest.mark.slow
@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_any_bytes_are_read(data: bytes, cuts: list[int]) -> None:
    assert all(isinstance(found, bytes | Control) for found in decoded(pieces(data, cuts)))


def test_the_manual_s_frames() -> None:
    assert encode(b"OK") == b"$OK#9a"
    assert decoded([b"+$qSupported#37$g#67\x03-"]) == [
        Control.ACKNOWLEDGED, b"qSupported", b"g", Control.INTERRUPT, Control.REFUSED
    ]  # fmt: skip


def test_a_wrong_checksum_is_damage() -> None:
    assert decoded([b"$g#68", b"$g#zz", b"$g#67"]) == [Control.DAMAGED, Control.DAMAGED, b"g"]


def test_a_packet_without_end_is_none() -> None:
    with pytest.raises(BadPacket):
        decoded([b"$" + bytes(MOST_BYTES)] * 3)


@given(st.binary(max_size=20))
def test_numbers_are_hexadecimal_and_nothing_else(digits: bytes) -> None:
    if 0 < len(digits) <= 16 and set(digits) <= HEXADECIMAL:
        assert number(digits) == int(digits, 16)
    else:
        with pytest.raises(ValueError):
            number(digits)


@given(st.binary(max_size=20))
def test_pairs_of_digits(data: bytes) -> None:
    assert binary(data.hex().encode()) == data
    for bad in (b"0", b"0 0 ", b"zz", b"+1"):
        with pytest.raises(ValueError):
            binary(bad)

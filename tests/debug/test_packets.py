"""Frames of GDB's remote protocol: what is sent can be read, however it arrives; what is damaged is told."""

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


@given(st.binary(max_size=300))
def test_what_is_escaped_comes_back(data: bytes) -> None:
    escaped = escape(data)
    assert unescape(escaped) == data
    assert not set(escaped) & set(b"$#*")


@given(st.binary(max_size=300))
def test_unescaping_takes_any_bytes(data: bytes) -> None:
    assert len(unescape(data)) <= len(data)


@given(st.lists(st.binary(max_size=60), max_size=6), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_packets_arrive_however_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"+".join(encode(payload) for payload in payloads)
    decoder, found, at = Decoder(), list[bytes | Control](), 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        found += decoder.feed(stream[at : at + size])
        at += size
    assert [item for item in found if isinstance(item, bytes)] == payloads
    assert found.count(Control.ACKNOWLEDGED) == max(0, len(payloads) - 1)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_taken(data: bytes, size: int) -> None:
    """And in pieces they mean what they mean at once."""
    pieces, whole = Decoder(), Decoder()
    found = [item for at in range(0, len(data), size) for item in pieces.feed(data[at : at + size])]
    assert found == list(whole.feed(data))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"$OK#9a", [b"OK"]),
        (b"$OK#9A", [b"OK"]),
        (b"$OK#9b", [Control.DAMAGED]),
        (b"$OK#zz", [Control.DAMAGED]),
        (b"+-\x03", [Control.ACKNOWLEDGED, Control.REFUSED, Control.INTERRUPT]),
        (b"noise$#00", [b""]),
        (b"$}\x03#80", [b"#"]),
        (b"$m0,4#", []),
    ],
)
def test_a_stream(data: bytes, expected: list[bytes | Control]) -> None:
    assert list(Decoder().feed(data)) == expected


def test_a_packet_without_an_end_is_not_waited_for_forever() -> None:
    decoder = Decoder()
    assert list(decoder.feed(b"$" + b"a" * MOST_BYTES)) == []
    with pytest.raises(BadPacket):
        list(decoder.feed(b"a" * 2 * MOST_BYTES))


def test_the_checksum_is_that_of_the_escaped_payload() -> None:
    assert encode(b"OK") == b"$OK#9a"
    assert encode(b"#") == b"$}\x03#80"


@given(st.integers(0, 2**64 - 1))
def test_a_number_is_read(value: int) -> None:
    assert number(b"%x" % value) == number(b"%X" % value) == value


@pytest.mark.parametrize("word", [b"", b"0x10", b"-1", b" 1", b"1_0", b"1" * 17, b"g", "\u0661".encode()])
def test_what_is_no_number_is_refused(word: bytes) -> None:
    with pytest.raises(ValueError):
        number(word)


@given(st.binary(max_size=40))
def test_bytes_are_read(data: bytes) -> None:
    assert binary(data.hex().encode()) == data


@pytest.mark.parametrize("word", [b"0", b"zz", b"00 00", b"0x", b"\xff\xff"])
def test_what_are_no_bytes_is_refused(word: bytes) -> None:
    with pytest.raises(ValueError):
        binary(word)

"""Digests tell what differs."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from virtus.vcpus.translator.digest import SIZE, checksum, digest


def test_a_digest_is_blake2() -> None:
    assert digest(b"guest") == hashlib.blake2b(b"guest", digest_size=SIZE).digest()


@given(st.lists(st.binary(max_size=80), max_size=4), st.lists(st.binary(max_size=80), max_size=4))
def test_a_checksum_tells_pieces_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (checksum(one) == checksum(other)) == (one == other)


@given(st.integers(0, 200_000), st.integers(1, 255))
def test_a_changed_byte_changes_it(at: int, by: int) -> None:
    data = bytearray(200_001)
    before = checksum([bytes(data)])
    data[at] ^= by
    assert checksum([bytes(data)]) != before
    assert len(before) == SIZE

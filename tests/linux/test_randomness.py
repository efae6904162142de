"""Random numbers and identifiers."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from virtus.personalities.linux import randomness


@given(st.integers(1, 128))
def test_as_many_bits_as_asked_for(count: int) -> None:
    assert 0 <= randomness.bits(count) < 1 << count


def test_an_identifier_is_what_the_standard_says() -> None:
    read = uuid.UUID(randomness.identifier())
    assert read.version == 4
    assert read.variant == uuid.RFC_4122
    assert randomness.identifier() != str(read)

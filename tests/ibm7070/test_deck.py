"""Object decks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.errors import GuestNotRunnable
from virtus.guests import ibm7070_deck as deck
from virtus.guests.ibm7070_deck import Program
from virtus.isa.ibm7070 import word as words

WORDS = st.builds(
    lambda sign, digits: sign | digits, st.sampled_from([0, words.MINUS, words.ALPHA]), st.integers(0, 10**10 - 1)
)
PROGRAMS = st.builds(
    Program, st.dictionaries(st.integers(0, 9989), WORDS, max_size=30), st.integers(0, 9989), st.lists(st.just("DATA"))
)


@given(PROGRAMS)
def test_a_deck_is_read_as_it_was_written(program: Program) -> None:
    text = deck.write(program)
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert deck.is_deck(lines[0])
    assert deck.read(lines) == program


@given(WORDS)
def test_ten_columns_are_a_word(word: int) -> None:
    assert deck.unpunch(deck.punch(word)) == word


@given(st.lists(st.text(alphabet="0123456789ABCR?! ", max_size=82), max_size=5))
def test_any_lines_are_loaded_or_refused(lines: list[str]) -> None:
    try:
        program = deck.read(lines)
    except GuestNotRunnable as error:
        assert "loading deck" in str(error)
    else:
        assert all(words.valid(word) and location < 9990 for location, word in program.words.items())


def test_what_is_wrong_is_said() -> None:
    good = deck.write(Program({500: words.parse("-0000000000"), 501: 0}, 500)).splitlines()
    for lines, found in (
        ([], "no transfer card"),
        (good[:1], "no transfer card"),
        (["", *good], "a blank card"),
        ([good[1]], "it is card 2"),
        (["0305000001".replace("1", "A"), good[1]], "0 words, and 3"),
        (["hello", *good], "is no word"),
        (["0099990001", good[1]], "no sign"),
        (["01999000A".rjust(10, "0"), good[1]], "words"),
    ):
        with pytest.raises(GuestNotRunnable, match=found):
            deck.read(lines)
    with pytest.raises(GuestNotRunnable, match="not in storage"):
        deck.read([deck.punch(1 * 10**8 + 9990 * 10**4 + 1) + deck.punch(0)])


def test_what_is_no_deck() -> None:
    for line in ("", "     START     B    START", "#!/bin/sh", "\x7fELF", "01050000011300090200"):
        assert not deck.is_deck(line)

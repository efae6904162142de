"""Cards, printer, typewriter and reels of tape, by themselves."""

import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtus.devices.card_punch import CardPunch
from virtus.devices.card_reader import BadCard, CardReader
from virtus.devices.line_printer import FORM_FEED, LinePrinter
from virtus.devices.tape import MOST, Found, Reel
from virtus.devices.typewriter import Typewriter
from virtus.errors import GuestNotRunnable
from virtus.isa.ibm7070 import word as words
from virtus.personalities.ibm7070 import tape_code
from virtus.personalities.ibm7070.tape_code import FormatError

FEW = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NUMBERS = st.builds(words.number, st.integers(-(10**10) + 1, 10**10 - 1))
TEXTS = st.text("ABC 019.", min_size=5, max_size=5).map(words.alpha)
WORDS = st.one_of(NUMBERS, TEXTS)


def test_cards_have_eighty_columns() -> None:
    reader = CardReader(["AB\n", "\n", "X" * 81 + "\n", "C" + " " * 90, "D"])
    assert reader.read() == "AB".ljust(80)
    assert reader.read() == " " * 80
    with pytest.raises(BadCard, match="81 columns"):
        reader.read()
    assert reader.read() == "C".ljust(80)
    assert reader.read() == "D".ljust(80)
    assert reader.read() is None
    assert reader.cards == 5


def test_a_punch() -> None:
    stream = io.StringIO()
    punch = CardPunch(stream)
    punch.punch("AB  " + " " * 76 + "lost")
    punch.punch("X" * 80)
    assert stream.getvalue() == "AB\n" + "X" * 80 + "\n"
    assert punch.cards == 2


def test_a_printer_has_pages() -> None:
    stream = io.StringIO()
    printer = LinePrinter(stream, lines_a_page=3)
    assert [printer.print(f"{number}  ") for number in range(7)] == [False, False, True, False, False, True, False]
    assert stream.getvalue() == f"0\n1\n2\n{FORM_FEED}3\n4\n5\n{FORM_FEED}6\n"
    assert (printer.lines, printer.pages) == (7, 3)


def test_a_typewriter() -> None:
    paper = io.StringIO()
    typewriter = Typewriter(paper, ["YES\n", "NO"])
    typewriter.type("READY?   ")
    assert typewriter.has_line
    assert [typewriter.read(), typewriter.read(), typewriter.read()] == ["YES", "NO", None]
    assert paper.getvalue() == "READY?\n"


# Reels


@FEW
@given(st.lists(st.one_of(st.none(), st.binary(min_size=1, max_size=9)), max_size=6))
def test_what_is_written_is_read(tmp_path: Path, records: list[bytes | None]) -> None:
    path = tmp_path / "reel.tap"
    path.unlink(missing_ok=True)
    reel = Reel(path)
    for record in records:
        if record is None:
            reel.mark()
        else:
            reel.write(record)
    reel.rewind()
    expected = [(Found.MARK, b"") if record is None else (Found.RECORD, record) for record in records]
    assert [reel.read() for _ in records] == expected
    assert reel.read() == (Found.NOTHING, b"")
    assert [reel.back() for _ in records] == [found for found, _ in reversed(expected)]
    assert reel.back() is Found.BEGINNING
    reel.close()


@FEW
@given(st.binary(max_size=60))
def test_any_file_is_a_reel_of_something(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "reel.tap"
    path.write_bytes(content)
    reel = Reel(path)
    seen = 0
    while reel.position < len(content):
        found, data = reel.read()
        assert len(data) <= len(content)
        if found in (Found.NOTHING, Found.BAD):
            break
        seen += 1
    for _ in range(seen + 1):
        reel.back()
    assert 0 <= reel.position <= len(content)
    reel.close()


def test_gaps_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "reel.tap"
    gap, length = b"\xfe\xff\xff\xff", b"\3\0\0\0"
    bad = b"\3\0\0\x80"
    path.write_bytes(gap + length + b"abc\0" + length + gap + bad + b"xyz\0" + bad + b"\xff\xff\xff\xff")
    reel = Reel(path)
    assert reel.read() == (Found.RECORD, b"abc")
    assert reel.read() == (Found.BAD, b"xyz")
    assert reel.read() == (Found.NOTHING, b"")
    reel.close()


def test_writing_loses_what_was_behind(tmp_path: Path) -> None:
    reel = Reel(tmp_path / "reel.tap")
    for record in (b"one", b"two", b"three"):
        reel.write(record)
    reel.rewind()
    reel.read()
    reel.write(b"2")
    reel.rewind()
    assert [reel.read()[1] for _ in range(3)] == [b"one", b"2", b""]
    with pytest.raises(ValueError, match="0 bytes"):
        reel.write(b"")
    assert MOST == 2**24 - 1
    reel.close()


def test_a_reel_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(GuestNotRunnable, match="mounting tape"):
        Reel(tmp_path / "none" / "reel.tap")
    with pytest.raises(GuestNotRunnable):
        Reel(tmp_path / "reel.tap", writable=False)


# Words on tape


@given(st.lists(WORDS, min_size=1, max_size=8), st.booleans())
def test_words_are_read_as_they_were_written(record: list[int], compress: bool) -> None:
    data = tape_code.encode(record, compress=compress)
    assert all(byte.bit_count() % 2 == 0 and byte < 128 for byte in data)
    assert list(tape_code.decode(data)) == [(word, True) for word in record]


def test_zeros_are_left_out() -> None:
    assert len(tape_code.encode([12, 1234567, 10**10 - 1], compress=True)) == 1 + 5 + 7 + 10
    assert len(tape_code.encode([12, 1234567, 10**10 - 1])) == 1 + 30


@given(st.binary(max_size=30), st.booleans())
def test_any_bytes_are_words_or_refused(data: bytes, alpha_only: bool) -> None:
    try:
        assert all(words.valid(word) for word, _ in tape_code.decode(data, alpha_only=alpha_only))
    except FormatError:
        pass


def test_a_record_that_ends_within_a_word() -> None:
    data = tape_code.encode([words.alpha("ABCDE")])[:3]
    ((word, whole),) = tape_code.decode(data)
    assert not whole
    assert words.show(word) == "@6162630000"

"""The machine around the processor: unit record, tapes, priority, switches, console; from source to what is printed."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from virtus.devices.tape import Found, Reel
from virtus.errors import GuestNotFound, GuestNotRunnable, UsageError
from virtus.guests.autocoder import assemble
from virtus.isa.ibm7070 import word as words
from virtus.machine.meter import Report
from virtus.personalities.ibm7070 import tape_code
from virtus.techniques.ibm7070 import DeckSpec, is_program, run_deck


class Run:
    """A program run both ways, which must agree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.printed = self.console = ""
        self.report = Report("", 0)

    def __call__(self, *lines: str, **options: object) -> "Run":
        source = self.path / "test.7070"
        source.write_text("\n".join(["     ORIGIN    CNTRL1000", *lines, "     END       CNTRLSTART"]) + "\n")
        return self.file(DeckSpec(str(source), **options))  # type: ignore[arg-type] # the options' own types

    def file(self, spec: DeckSpec) -> "Run":
        found = []
        for interpret in (True, False):
            out, console = io.StringIO(), io.StringIO()
            report = run_deck(replace(spec, interpret=interpret), out=out, console=console)
            found.append((out.getvalue(), console.getvalue(), report.status, report.details["cycles"]))
            self.report = report
        assert found[0] == found[1]
        self.printed, self.console = found[0][:2]
        return self


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def line(label: str, operation: str, operand: str = "") -> str:
    return f"     {label:10}{operation:5}{operand}"


HALT = line("", "HP")


def test_a_halt_shows_where_and_the_registers(run: Run) -> None:
    run(line("START", "ZA1", "-12"), line("", "ZA2", "@AB@"), line("", "HB", "START"))
    assert run.report.status == 0
    assert run.console == (
        "halt at 1002: +0000001000  HB 1000\n"
        "accumulators  1 -0000000012  2 @6162000000  3 +0000000000\n"
        "overflow none; compared -; 16 cycles of 6 µs (0.000 s)\n"
    )


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([line("START", "DC", "+9900000000")], "an invalid instruction at 1000: +9900000000"),
        ([line("START", "DC", "@ABCDE@")], "an invalid instruction at 1000"),
        ([line("START", "D", "+0")], "improper division at 1000: -5300091001  D 1001"),
        (
            [line("START", "ZA1", "+100"), line("", "ST1", "5(8,9)")],
            "field overflow at 1001: +1200890005  ST1 0005(8,9)",
        ),
        ([line("START", "B", "9989"), line("ORIGIN", "CNTRL", "9989"), line("", "NOP")], "an address that no storage"),
        ([line("START", "XL", "X1,@A@"), line("", "B", "0+X1")], "an alpha index word at 1001"),
        ([line("START", "UR", "1,5")], "unit 1 is not ready: no cards (--cards FILE) at 1000"),
        ([line("START", "UW", "2,5")], "unit 2 is not ready: nothing is there (--punch FILE)"),
        ([line("START", "UR", "2,5")], "unit 2 is not ready: no such reader"),
        ([line("START", "TR", "12,5")], "tape unit 12 is not ready: no reel is mounted (--tape 12=FILE)"),
        ([line("START", "QR", "2,5")], "inquiry station 2 is not attached"),
        ([line("START", "UW", "3,9989")], "no storage has location 9990"),
        ([line("START", "DC", "-6100090000")], "an invalid instruction"),
    ],
)
def test_a_stop_says_why_and_where(run: Run, lines: list[str], why: str) -> None:
    run(*lines)
    assert run.report.status == 1
    assert run.console.startswith(why)
    assert "accumulators  1 " in run.console


CARDS = [
    line("START", "UR", "1,CARD"),
    line("", "B", "BAD"),
    line("", "B", "LAST"),
    line("", "UW", "3,CARD"),
    line("", "HP"),
    line("", "NOP"),
    line("", "B", "START"),
    line("BAD", "TYP", "BADMSG"),
    line("", "NOP"),
    line("", "B", "START"),
    line("LAST", "HB", "START"),
    line("BADMSG", "DC", "RDW,@BAD CARD@"),
    line("CARD", "DA", "1,RDW"),
    line("", "", "00,159"),
]


def test_cards_to_the_printer(run: Run, tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    cards.write_text("FIRST\nsecond & more\n" + "X" * 81 + "\nü\n\n")
    run(*CARDS, cards=str(cards))
    assert run.printed == "FIRST\nSECOND & MORE\n\n"
    assert run.console.startswith("BAD CARD\nBAD CARD\nhalt")
    assert run.report.details["cards read"] == 5
    assert run.report.details["lines printed"] == 3


def test_the_scientific_arrangement(run: Run, tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    cards.write_text("A&B (50%) #1 @ '5'\n")
    assert run(*CARDS, cards=str(cards)).printed == "A&B %50%⌑ #1 @ @5@\n"
    assert run(*CARDS, cards=str(cards), characters="scientific").printed == "A+B (50() =1 ' '5'\n"


def test_cards_behind_a_deck(run: Run, tmp_path: Path) -> None:
    deck = tmp_path / "deck.7070"
    source = "\n".join([line("ORIGIN", "CNTRL", "1000"), *CARDS, line("END", "CNTRL", "START")])
    deck.write_text(assemble(source).deck + "DATA ONE\nDATA TWO\n")
    run.file(DeckSpec(str(deck)))
    assert run.printed == "DATA ONE\nDATA TWO\n"


def test_the_punch_and_numbers(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "punched"
    run(
        line("START", "UW", "2,LIST"),
        line("", "HP"),
        line("", "NOP"),
        HALT,
        line("LIST", "DC", "RDW,+123,-1234567890,@ABC@"),
        punch=str(out),
    )
    assert out.read_text() == "0000000123123456789!ABC\n"


def test_a_unit_that_is_busy_is_waited_for(run: Run, tmp_path: Path) -> None:
    """The second line is printed when the first is: at 150 lines a minute after 400 ms."""
    lines = [line("START", "UW", "3,LIST"), line("", "HP"), line("", "NOP")]
    more = [line("", "UW", "3,LIST"), line("", "HP"), line("", "NOP")]
    tail = [HALT, line("LIST", "DC", "RDW,@ABC@")]
    one = run(*lines, *tail).report.details["cycles"]
    two = run(*lines, *more, *tail).report.details["cycles"]
    assert one < 100
    assert 66_667 <= two < 66_800


def test_channel_9_is_the_end_of_a_page(run: Run) -> None:
    run(
        line("START", "UW", "3,LIST"),
        line("", "HP"),
        line("", "B", "NINE"),
        line("", "B", "START"),
        line("NINE", "UW", "3,LIST"),
        line("", "HP"),
        line("", "HP"),
        HALT,
        line("LIST", "DC", "RDW,@L@"),
    )
    assert run.printed == "L\n" * 57 + "\fL\n"


def test_digits_that_are_no_characters(run: Run) -> None:
    lines = [line("LIST", "DC", "RDW,@ @"), line("START", "ZA1", "+1"), line("", "STD1", "LIST+1(1)")]
    run(*lines, line("", "UW", "3,LIST"), HALT, line("", "NOP"), line("", "HB", "1"))
    assert run.console.startswith("halt at 1005")
    run(*lines, line("", "UWIV", "3,LIST"), line("", "TYP", "LIST"), HALT)
    assert run.printed == "\n"


def test_alteration_switches(run: Run) -> None:
    lines = [line("START", "BAS", "3,ON"), line("", "HB", "1"), line("ON", "HB", "2")]
    assert "HB 0001" in run(*lines).console
    assert "HB 0002" in run(*lines, switches=frozenset({3})).console
    with pytest.raises(UsageError, match="no switch 5"):
        run(*lines, switches=frozenset({5}))


def test_inquiries(run: Run, tmp_path: Path) -> None:
    keyboard = tmp_path / "typed"
    keyboard.write_text("balance 42\nbye\n")
    run(
        line("START", "BQL", "1,ASKED"),
        HALT,
        line("ASKED", "QLF", "1"),
        line("", "QR", "1,LIST"),
        line("", "QW", "1,LIST"),
        line("", "B", "START"),
        line("LIST", "DC", "RDW,@          @"),
        keyboard=str(keyboard),
    )
    assert run.console.startswith("BALANCE 42\nBYE\nhalt")


# Tapes


def write_reel(path: Path, *records: list[int] | None) -> None:
    reel = Reel(path)
    for record in records:
        if record is None:
            reel.mark()
        else:
            reel.write(tape_code.encode(record))
    reel.close()


def read_reel(path: Path) -> list[list[int] | None]:
    reel = Reel(path, writable=False)
    found: list[list[int] | None] = []
    while True:
        what, data = reel.read()
        if what is Found.MARK:
            found.append(None)
        elif what is Found.RECORD:
            found.append([word for word, _ in tape_code.decode(data)])
        else:
            break
    reel.close()
    return found


MIXED = [words.alpha("HELLO"), words.number(-42), words.number(10**10 - 1), words.alpha("A 1")]


def test_writing_and_reading_tape(run: Run, tmp_path: Path) -> None:
    reel = tmp_path / "reel.tap"
    run(
        line("START", "TRW", "12"),
        line("", "TW", "12,LIST"),
        line("", "TWZ", "12,LIST"),
        line("", "TM", "12"),
        line("", "TRB", "12"),
        line("", "TRB", "12"),
        line("", "TR", "12,INTO"),
        line("", "TYP", "INTO"),
        line("", "NOP"),
        line("", "ZA1", "112"),
        HALT,
        line("LIST", "DC", "RDW,@HELLO@,-42,+9999999999"),
        line("INTO", "DA", "1,RDW"),
        line("", "", "00,29"),
        tapes={12: str(reel)},
    )
    assert run.console.startswith("HELLO-0000000042+9999999999\n")
    assert "1 +02" in run.console
    assert read_reel(reel) == [MIXED[:3], MIXED[:3], None]


@pytest.mark.parametrize(
    ("record", "condition", "after"),
    [
        (MIXED[:3], 2, 3),
        (MIXED[:2], 3, 2),
        (MIXED, 4, 3),
        (None, 5, 0),
        ("PART", 7, 3),
        (b"\x61\x61\x00", 0, 0),
    ],
)
def test_the_final_status_word(
    run: Run, tmp_path: Path, record: list[int] | bytes | str | None, condition: int, after: int
) -> None:
    path = tmp_path / "reel.tap"
    if isinstance(record, bytes | str):
        reel = Reel(path)
        whole = tape_code.encode([words.alpha("HELLO"), words.alpha("THERE"), words.alpha("PART ")])
        reel.write(record if isinstance(record, bytes) else whole[:13])
        reel.close()
    else:
        write_reel(path, record)
    run(
        line("START", "TR", "10,LIST"),
        line("", "ZA1", "110"),
        line("", "BTL", "10,LATCHED"),
        HALT,
        line("LATCHED", "HB", "1"),
        line("LIST", "DC", "-0020002002"),
        tapes={10: str(path)},
    )
    where = 2000 + after if condition != 5 else 0
    following = 1006 if condition != 5 else 1005
    assert f"1 +0{condition}{where:04d}{following:04d}" in run.console
    assert ("HB 0001" in run.console) == (condition != 2)


def test_reading_what_was_never_written(run: Run, tmp_path: Path) -> None:
    run(line("START", "TR", "10,5"), line("", "ZA1", "110"), HALT, tapes={10: str(tmp_path / "new.tap")})
    assert "1 +01" in run.console


def test_record_marks_end_areas(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "reel.tap"
    write_reel(path, [words.alpha("ONE |"), words.alpha("TWO"), words.alpha("THRE|"), words.alpha("FOUR")])
    run(
        line("START", "TRR", "10,LIST"),
        line("", "TYP", "SHOW"),
        line("", "NOP"),
        HALT,
        line("LIST", "DC", "+0020002009,+0020102019,-0020202029"),
        line("SHOW", "DC", "+0020002000,+0020102011,-0020202020"),
        tapes={10: str(path)},
    )
    assert run.console.startswith("ONE |TWO  THRE|FOUR")


def test_segments(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "reel.tap"
    run(
        line("START", "TRW", "10"),
        line("", "TW", "10,A"),
        line("", "TSM", "10"),
        line("", "TW", "10,B"),
        line("", "TRW", "10"),
        line("", "TSF", "10,A"),
        line("", "TR", "10,INTO"),
        line("", "TYP", "INTO"),
        line("", "NOP"),
        line("", "TSB", "10,A"),
        line("", "TRB", "10"),
        line("", "TR", "10,INTO"),
        line("", "TYP", "INTO"),
        line("", "NOP"),
        HALT,
        line("A", "DC", "RDW,@FIRST@"),
        line("B", "DC", "RDW,@LAST @"),
        line("INTO", "DC", "RDW,+0"),
        tapes={10: str(path)},
    )
    assert run.console.startswith("LAST\nFIRST\n")


def test_a_reel_without_its_ring(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "reel.tap"
    write_reel(path, MIXED)
    lines = [line("START", "TW", "10,LIST"), HALT, line("LIST", "DC", "RDW,+1")]
    run(*lines, tapes={10: str(path)}, read_only_tapes=frozenset({10}))
    assert "may not be written" in run.console
    assert read_reel(path) == [MIXED]


def test_tape_while_the_program_goes_on(run: Run, tmp_path: Path) -> None:
    """With priority the program counts while the record is written, and is interrupted when that is done."""
    run(
        line("START", "PC", "MASK"),
        line("", "PTW", "10,LIST"),
        line("LOOP", "ZA1", "+1"),
        line("", "AS1", "COUNT"),
        line("", "BCB", "1,BUSY"),
        line("", "B", "LOOP"),
        line("BUSY", "ESN", "1"),
        line("", "B", "LOOP"),
        line("LIST", "DC", "RDW,@ABCDE@"),
        line("COUNT", "DC", "+0"),
        line("MASK", "DC", "+1111111011"),
        line("ORIGIN", "CNTRL", "152"),
        line("", "XU", "X97,400"),
        line("", "XU", "X99,401"),
        line("", "ZA2", "COUNT"),
        line("", "ZA3", "101"),
        HALT,
        tapes={10: str(tmp_path / "reel.tap")},
    )
    assert run.console.startswith("halt at 0156")
    count = int(run.console.split("2 +")[1][:10])
    assert 40 < count < 70  # 10.8 ms and some characters, at 40 cycles a round
    assert "3 +1000000000" in run.console


def test_a_priority_routine_comes_back_where_it_interrupted(run: Run, tmp_path: Path) -> None:
    """The comparison made before the interruption is still there after it."""
    run(
        line("START", "PC", "MASK"),
        line("", "PTW", "10,LIST"),
        line("", "ZA1", "+5"),
        line("LOOP", "C1", "+4"),
        line("", "BH", "STILL"),
        HALT,
        line("STILL", "BES", "1,DONE"),
        line("", "B", "LOOP"),
        line("DONE", "ZA2", "100"),
        line("", "HB", "5"),
        line("LIST", "DC", "RDW,@ABCDE@"),
        line("MASK", "DC", "+0000000000"),
        line("ORIGIN", "CNTRL", "152"),
        line("", "C1", "+9"),
        line("", "ESN", "1"),
        line("", "PR", "97"),
        tapes={10: str(tmp_path / "reel.tap")},
    )
    assert "HB 0005" in run.console
    assert "2 +0000" in run.console


def test_one_priority_routine_after_the_other(run: Run, tmp_path: Path) -> None:
    cards = tmp_path / "cards"
    cards.write_text("A\nB\n")
    run(
        line("START", "ULN", "1"),
        line("", "ULN", "2"),
        line("", "BAL", "*+2"),
        HALT,
        line("", "PC", "NOMASK"),
        line("", "NOP"),
        line("", "HB", "7"),
        line("NOMASK", "DC", "+0"),
        line("COUNT", "DC", "+0"),
        line("ORIGIN", "CNTRL", "104"),
        line("", "B", "A"),
        line("", "B", "B"),
        line("ORIGIN", "CNTRL", "300"),
        line("A", "ZA1", "+1"),
        line("", "AS1", "COUNT"),
        line("", "ZA3", "COUNT"),
        line("", "PR", "97"),
        line("B", "ZA1", "+10"),
        line("", "AS1", "COUNT"),
        line("", "ZA3", "COUNT"),
        line("", "PR", "97"),
        cards=str(cards),
    )
    assert "HB 0007" in run.console
    assert "3 +0000000011" in run.console


def test_a_latch_that_is_masked_waits(run: Run) -> None:
    run(
        line("START", "ULN", "1"),
        line("", "BUL", "1,ON"),
        HALT,
        line("ON", "ULF", "1"),
        line("", "BUL", "1,1"),
        line("", "HB", "3"),
    )
    assert "HB 0003" in run.console


def test_priority_release_outside_of_a_routine_does_nothing(run: Run) -> None:
    assert "HB 0004" in run(line("START", "PR", "97"), line("", "HB", "4")).console


# The technique


def test_a_trace(run: Run, tmp_path: Path) -> None:
    run(line("START", "ZA1", "+1"), line("", "HB", "START"))
    trace = io.StringIO()
    spec = DeckSpec(str(tmp_path / "test.7070"), trace=True)
    run_deck(spec, out=io.StringIO(), console=io.StringIO(), trace=trace)
    assert trace.getvalue() == "1000  ZA1 1002\n1001  HB 1000\n"


def test_files_that_are_no_program(tmp_path: Path) -> None:
    with pytest.raises(GuestNotFound):
        run_deck(DeckSpec(str(tmp_path / "none")))
    path = tmp_path / "text"
    for content in (b"hello\n", b"", b"\xff\xfe", b"#!/bin/sh\n"):
        path.write_bytes(content)
        with pytest.raises(GuestNotRunnable):
            run_deck(DeckSpec(str(path)))
        assert not is_program(content)
    assert is_program(b"     * PAYROLL\n     START     ZA1  5\n")


def test_files_that_cannot_be_opened(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opening cards"):
        run(line("START", "HP"), cards=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no unit 50"):
        run(line("START", "HP"), tapes={50: "x"})
    assert run(line("START", "HP")).report.status == 0  # everything was given back

"""The assembler."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.guests.autocoder import AssemblyFailed, assemble, is_source
from virtus.guests.autocoder.source import columns_of, operand_of, parts_of, statement
from virtus.guests.ibm7070_deck import read
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.decode import decode_word, show_instruction
from virtus.isa.ibm7070.operations import OPERATIONS, Form


def card(label: str, operation: str, operand: str = "") -> str:
    return f"     {label:10}{operation:5}{operand}"


def source(*lines: tuple[str, ...]) -> str:
    return "\n".join([card("ORIGIN", "CNTRL", "1000"), *(card(*line) for line in lines), card("END", "CNTRL", "1000")])


def one(operation: str, operand: str = "", *more: tuple[str, ...]) -> str:
    program = assemble(source(("", operation, operand), *more)).program
    return words.show(program.words[1000])


@pytest.mark.parametrize(
    ("operation", "operand", "expected"),
    [
        ("ZA1", "0200", "+1300090200"),
        ("ZA3", "200(2,5)", "+3300250200"),
        ("ZA1", "200(4)+X12", "+1312440200"),
        ("ZA1", "200+X12(4)", "+1312440200"),
        ("S2", "*+3", "-2400091003"),
        ("STD1", "*-1(6,9)", "-1200690999"),
        ("HB", "500", "+0000000500"),
        ("HP", "", "-0000000000"),
        ("NOP", "", "-0100000000"),
        ("BLX", "X94,700", "+0200940700"),
        ("CD", "200(3),7", "+0300730200"),
        ("CSM", "200", "-0300600200"),
        ("MSP", "200", "-0300910200"),
        ("SMSC", "", "-0300020000"),
        ("BSC", "300", "-0300040300"),
        ("BFV", "300", "+4100000300"),
        ("SMFV", "", "+4100010000"),
        ("BIX", "X1,600", "+4900010600"),
        ("XS", "7,600+X3", "-4703070600"),
        ("SR1", "3", "+5000001003"),
        ("SRR2", "3", "+5000002103"),
        ("SL3", "0+X5", "+5005003200"),
        ("SLC1", "X5", "+5000051300"),
        ("SR", "12", "-5000000012"),
        ("SLC", "X5", "-5000050300"),
        ("SRS", "2(4)", "-5000004402"),
        ("SRS", "2(14)", "-5000004602"),
        ("SLS", "2(4)", "-5000004502"),
        ("BAS", "2,600", "+5100200600"),
        ("BCB", "1,600", "+5100110600"),
        ("QR", "1,600", "+5400100600"),
        ("QW", "1,600", "+5400110600"),
        ("PC", "600", "+5500000600"),
        ("ENB", "X21,600", "+5700210600"),
        ("BAL", "600", "+6000000600"),
        ("BUL", "2,600", "+6000020600"),
        ("BQL", "1,600", "+6000030600"),
        ("BTL", "13,600", "+6000130600"),
        ("ULF", "1", "-6200010000"),
        ("QLN", "2", "-6100040000"),
        ("TLF", "40", "-6200400000"),
        ("BES", "13,600", "+6200020600"),
        ("ESN", "1", "+6100100000"),
        ("BSF", "30,600", "+6300490600"),
        ("RS", "X7,600", "+6500070600"),
        ("LE", "600(0,4)", "+6700040600"),
        ("UR", "1,600", "+6900110600"),
        ("UW", "3,600", "+6900320600"),
        ("US", "3", "+6900300000"),
        ("TYP", "600", "+6900040600"),
        ("FM", "600", "+7300000600"),
        ("FR", "", "+7100000000"),
        ("TR", "10,600", "-8100010600"),
        ("PTW", "23,600", "+8200330600"),
        ("TRW", "41", "-8400100002"),
        ("PTM", "10", "+8100000001"),
    ],
)
def test_instructions(operation: str, operand: str, expected: str) -> None:
    assert one(operation, operand) == expected
    shown = show_instruction(decode_word(words.parse(expected)))
    assert shown.split()[0] == operation
    name, _, again = shown.partition(" ")
    assert one(name, again) == expected


def test_every_operation_can_be_written_and_is_decoded() -> None:
    operands = {
        Form.NONE: "", Form.ADDRESS: "600", Form.FIELD: "600(1,2)", Form.DIGIT: "600(1),2", Form.INDEX: "X3,600",
        Form.SHIFT: "4", Form.SPLIT: "4(5)", Form.COUNT: "X3", Form.NUMBER: "1,600", Form.UNIT: "1",
        Form.SWITCH: "3,600", Form.SWITCH_ONLY: "3", Form.LATCH: "1", Form.TAPE: "12,600", Form.TAPE_CONTROL: "12",
        Form.TAPE_LATCH: "12", Form.TAPE_BRANCH: "12,600",
    }  # fmt: skip
    for operation in OPERATIONS:
        word = words.parse(one(operation.name, operands[operation.form]))
        assert decode_word(word).name == operation.name


def test_symbols_fields_and_literals() -> None:
    text = source(
        ("START", "ZA1", "RATE"),
        ("", "A1", "+12"),
        ("", "A1", "12+RATE"),
        ("", "ZA1", "@ABCDEFG@"),
        ("", "A1", "+12(8,9)"),
        ("", "B", "START+X1"),
        ("COUNT", "EQU", "X7"),
        ("", "BIX", "COUNT,START"),
        ("", "ZA1", "0+COUNT"),
        ("RECORD", "DA", "2,RDW"),
        ("NAME", "", "A00,09"),
        ("RATE", "", "12,15"),
        ("LONG", "", "16,35"),
        ("LIST", "DRDW", "RECORD"),
        ("MORE", "DRDW", "+NAME,RATE"),
        ("TABLE", "DC", "RDW,+1,-2"),
        ("", "", "@HELLO WORLD@"),
        ("FLOAT", "", "+3.14159,-2E3"),
    )
    made = assemble(text)
    at = {name: symbol.value for name, symbol in made.symbols.items()}
    shown = {location: words.show(word) for location, word in made.program.words.items()}
    assert at["RECORD"] == 1008
    assert at["NAME"] == 1010
    assert (made.symbols["RATE"].first, made.symbols["RATE"].last) == (2, 5)
    assert shown[1000] == f"+130025{at['RATE']:04d}"
    assert shown[1002] == f"+140025{at['RATE'] + 12:04d}"
    literal = int(shown[1001][-4:])
    assert shown[literal] == "+0000000012"
    assert shown[1004] == f"+140089{literal:04d}"
    text_at = int(shown[1003][-4:])
    assert [shown[text_at], shown[text_at + 1]] == ["@6162636465", "@6667000000"]
    assert shown[1005] == "+0101001000"
    assert shown[1006] == "+4900071000"
    assert shown[1007] == "+1307090000"
    assert [shown[1008], shown[1009]] == ["+0010101013", "-0010141017"]
    assert shown[at["LIST"]] == "-0010081017"
    assert shown[at["MORE"]] == f"+00{at['NAME']:04d}{at['RATE']:04d}"
    table = at["TABLE"]
    assert [shown[table + offset] for offset in range(3)] == [
        f"-00{table + 1:04d}{table + 7:04d}",
        "+0000000001",
        "-0000000002",
    ]
    assert [shown[at["FLOAT"]], shown[at["FLOAT"] + 1]] == ["+5131415900", "-5420000000"]


def test_fields_reached_by_an_index_word() -> None:
    made = assemble(source(("", "ZA1", "PAY"), ("MEN", "DA", "10,0+X5"), ("", "", "00,09"), ("PAY", "", "10,14")))
    assert words.show(made.program.words[1000]) == "+1305040001"


def test_the_deck_is_the_program() -> None:
    made = assemble(source(("", "ZA1", "+5"), ("", "HB", "1000")))
    assert read(made.deck.splitlines()) == made.program


def test_the_listing_shows_source_and_words() -> None:
    listing = assemble(source(("START", "ZA1", "+5"), ("TAB", "DC", "+1,+2"))).listing
    assert "1000  +1300091003      2       START     ZA1  +5" in listing
    assert "1002  +0000000002" in listing
    assert "LITERALS\n1003  +0000000005" in listing


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("", "ZA9", "5")], "ZA9 is no operation"),
        ([("", "ZA1", "NOWHERE")], "NOWHERE is not defined"),
        ([("A", "NOP"), ("A", "NOP")], "A is defined in line 2 already"),
        ([("X5", "NOP")], "no label"),
        ([("", "ZA1", "5(7,3)")], "ends before it begins"),
        ([("", "ZA1", "10000")], "addresses are 0 to 9999"),
        ([("", "ZA1", "*-1001")], "is -1"),
        ([("", "ZA1", "5+X1+X2")], "one index word"),
        ([("", "ZA1", "")], "is written ZA1"),
        ([("", "ZA1", "5,6")], "is written ZA1"),
        ([("", "BLX", "X0,5")], "index words are 1 to 99"),
        ([("", "SR1", "11")], "10 places at most"),
        ([("", "TR", "50,5")], "no tape unit"),
        ([("", "BES", "31,5")], "1 to 30"),
        ([("", "ZA1", "@ü@")], "no character"),
        ([("", "ZA1", "+12345678901")], "no constant|no address"),
        ([("", "DC", "+9E99")], "exponent"),
        ([("", "", "05,06")], "neither DA nor DC"),
        ([("A", "DA", "1"), ("B", "", "07,03")], "ends before it begins"),
        ([("A", "DA", "0")], "1 to 999"),
        ([("A", "DA", "1,WHAT")], "RDW and 0"),
        ([("", "CNTRL", "5")], "ORIGIN, LITORIGIN or END"),
        ([("ORIGIN", "CNTRL", "1000"), ("", "NOP")], "used twice"),
        ([("ORIGIN", "CNTRL", "9989"), ("", "NOP"), ("", "NOP")], "beyond storage"),
        ([("N", "EQU", "M"), ("M", "EQU", "5")], "M is not defined"),
        ([("", "DRDW", "1,2,3")], "first and a last"),
    ],
)
def test_what_is_wrong_is_said(lines: list[tuple[str, ...]], message: str) -> None:
    text = source(*(lines if lines[0][0] != "ORIGIN" else [("", "NOP"), *lines]))
    with pytest.raises(AssemblyFailed, match=message):
        assemble(text)


def test_all_errors_are_told_with_their_lines() -> None:
    with pytest.raises(AssemblyFailed) as raised:
        assemble(source(("", "ZA1", "A"), ("", "NOP"), ("", "ZA1", "B")))
    assert [problem.line for problem in raised.value.problems] == [2, 4]


def test_without_an_end() -> None:
    with pytest.raises(AssemblyFailed, match="END CNTRL"):
        assemble(card("", "NOP"))
    with pytest.raises(AssemblyFailed, match="END CNTRL"):
        assemble("")


def test_columns() -> None:
    found = statement("01 02START     ZA1  RATE+1     REMARKS (AND MORE)", 7)
    assert (found.label, found.operation, found.operand) == ("START", "ZA1", "RATE+1")
    assert statement("     * A COMMENT", 1).is_comment
    assert statement("", 1).is_comment
    assert operand_of("@A  B@,5  REMARK") == "@A  B@,5"
    assert parts_of("@A,B@,C(1,2),D") == ["@A,B@", "C(1,2)", "D"]
    assert columns_of("start\tza1\trate\tremark")[5:26].split() == ["START", "ZA1", "RATE"]
    assert columns_of("\tb\tstart")[15:25].split() == ["B", "START"]


def test_what_is_source() -> None:
    assert is_source("     * COMMENT\n\n     START     ZA1  5")
    assert is_source(card("ORIGIN", "CNTRL", "5"))
    assert is_source("     * NOTHING BUT\n     * COMMENTS")
    for text in ("", "#!/bin/sh\necho", "hello", "     START     WHAT 5", "{}"):
        assert not is_source(text)


LINES = st.text(alphabet="     ABXZ019+-*@(),\t$.RDWCEQU", max_size=40)
OPERATIONS_OF_LINES = st.sampled_from(["ZA1", "DC", "DA", "DRDW", "EQU", "CNTRL", "B", "BLX", "SLC", "TR", "", "SRS"])


@given(st.lists(st.builds(card, st.text("ABX19", max_size=3), OPERATIONS_OF_LINES, LINES) | LINES, max_size=6))
@settings(deadline=None)
def test_any_source_is_assembled_or_refused(lines: list[str]) -> None:
    try:
        made = assemble("\n".join([*lines, card("END", "CNTRL", "500")]))
    except AssemblyFailed:
        return
    assert all(words.valid(word) for word in made.program.words.values())


def test_the_manual_page_has_every_operation() -> None:
    """docs/ibm7070.md writes `ST#` for ST1, ST2 and ST3."""
    page = (Path(__file__).parents[2] / "docs" / "ibm7070.md").read_text()
    known = set(re.findall(r"[A-Z]+#?", page))
    missing = {operation.name for operation in OPERATIONS} - known
    assert {name for name in missing if f"{name[:-1]}#" not in known} == set()

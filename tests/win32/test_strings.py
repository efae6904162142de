"""Code pages, case, order, command lines, texts of errors, dates and numbers."""

import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import characters, code_pages, command_line, errors, locale_formats, message_texts
from virtus.personalities.win32 import environment as _environment
from virtus.personalities.win32 import locale as _locale
from virtus.personalities.win32 import messages as _messages
from virtus.personalities.win32 import strings as _strings
from virtus.personalities.win32.file_time import SystemTime
from virtus.personalities.win32.process import Thread

UTF8, ANY_TEXT = 65001, st.text(st.characters())
UNITS = st.binary(max_size=40).map(lambda data: data[: len(data) & ~1])
USED = (_environment, _locale, _messages, _strings)


@pytest.fixture
def thread() -> Thread:
    return new_thread()


@given(UNITS)
def test_utf_16_comes_back_whatever_it_is(data: bytes) -> None:
    assert code_pages.utf16(code_pages.from_utf16(data)) == data


@given(st.binary(max_size=30), st.sampled_from([437, 850, 1252, 28591, 932, 936, 65001, 20127, 54936]))
def test_any_bytes_are_characters(data: bytes, number: int) -> None:
    page = code_pages.code_page(number)
    assert page is not None
    text = code_pages.decode(page, data)
    if page.single:
        assert len(text) == len(data)
        assert code_pages.encode(page, text) == (data, False)


@given(UNITS.map(code_pages.from_utf16), st.sampled_from([437, 1252, 932, 65001]), st.booleans())
def test_any_characters_are_bytes(text: str, number: int, best_fit: bool) -> None:
    page = code_pages.code_page(number)
    assert page is not None
    data, used = code_pages.encode(page, text, best_fit=best_fit)
    if not used and not best_fit and "\ufffd" not in code_pages.decode(page, data):
        assert code_pages.decode(page, data) == text


def test_bytes_become_wide(thread: Thread) -> None:
    source, buffer = room(thread, "naïve €".encode() + b"\0"), room(thread, 64)
    assert call(thread, "MultiByteToWideChar", UTF8, 0, source, -1, 0, 0) == 8
    assert call(thread, "MultiByteToWideChar", UTF8, 0, source, -1, buffer, 32) == 8
    assert thread.memory.wide(buffer) == "naïve €"
    assert call(thread, "MultiByteToWideChar", UTF8, 0, source, 3, buffer, 2) == 0
    assert thread.last_error == errors.ERROR_INSUFFICIENT_BUFFER
    bad = room(thread, b"a\xff")
    assert call(thread, "MultiByteToWideChar", UTF8, 0, bad, 2, buffer, 32) == 2
    assert thread.memory.read(buffer, 4) == "a\ufffd".encode("utf-16-le")
    assert call(thread, "MultiByteToWideChar", UTF8, 8, bad, 2, buffer, 32) == 0
    assert thread.last_error == errors.ERROR_NO_UNICODE_TRANSLATION
    assert call(thread, "MultiByteToWideChar", 12345, 0, bad, 2, buffer, 32) == 0
    assert thread.last_error == errors.ERROR_INVALID_PARAMETER


def test_wide_becomes_bytes(thread: Thread) -> None:
    source, buffer, used = wide(thread, "ā€\u4e00"), room(thread, 64), room(thread, 4)
    assert call(thread, "WideCharToMultiByte", 1252, 0, source, -1, buffer, 64, 0, used) == 4
    assert (thread.memory.string(buffer), thread.memory.u32(used)) == (b"a\x80?", 1)
    default = room(thread, b"#\0")
    assert call(thread, "WideCharToMultiByte", 1252, 0x400, source, 3, buffer, 64, default, used) == 3
    assert thread.memory.read(buffer, 3) == b"#\x80#"
    assert call(thread, "WideCharToMultiByte", UTF8, 0, source, 3, buffer, 64, default, 0) == 0
    assert thread.last_error == errors.ERROR_INVALID_PARAMETER
    lone = room(thread, struct.pack("<H", 0xD800))
    assert call(thread, "WideCharToMultiByte", UTF8, 0, lone, 1, buffer, 64, 0, 0) == 3
    assert thread.memory.read(buffer, 3) == b"\xef\xbf\xbd"
    assert call(thread, "WideCharToMultiByte", UTF8, 0x80, lone, 1, buffer, 64, 0, 0) == 0
    assert thread.last_error == errors.ERROR_NO_UNICODE_TRANSLATION


@given(st.characters())
def test_case_keeps_its_length(character: str) -> None:
    for made in (characters.to_upper(character), characters.to_lower(character)):
        assert len(made.encode("utf-16", "surrogatepass")) == len(character.encode("utf-16", "surrogatepass"))
    assert characters.to_upper(characters.to_upper(character)) == characters.to_upper(character)


@pytest.mark.parametrize(
    ("pair", "flags", "expected"),
    [
        (("a", "A"), 0, -1), (("a", "A"), 1, 0), (("a", "b"), 0, -1), (("Z", "a"), 0, 1), (("co-op", "coop"), 0, 1),
        (("coop", "co-op"), 0x1000, 1), (("é", "e"), 0, 1), (("é", "e"), 2, 0), (("eb", "éa"), 0, 1),
        (("1", "a"), 0, -1), (("_", "1"), 0, -1), (("2", "10"), 8, -1), (("2", "10"), 0, 1), (("", "a"), 0, -1),
        (("\u30a2", "\u3042"), 0x10000, 0), (("\uff21", "A"), 0x20000, 0),
    ],
)  # fmt: skip
def test_the_order_of_words(pair: tuple[str, str], flags: int, expected: int) -> None:
    assert characters.compare(*pair, flags) == expected


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, st.sampled_from([0, 1, 3, 0x1001]))
def test_the_order_is_one(one: str, two: str, three: str, flags: int) -> None:
    ordered = sorted([one, two, three], key=lambda text: characters.sort_key(text, flags))
    assert characters.compare(ordered[0], ordered[2], flags) <= 0
    assert characters.compare(one, two, flags) == -characters.compare(two, one, flags)
    first, second = (_strings.pack_sort_key(characters.sort_key(text, flags)) for text in (one, two))
    assert (first > second) - (first < second) == characters.compare(one, two, flags)


def test_ordinal_comparison(thread: Thread) -> None:
    one, two = wide(thread, "straße"), wide(thread, "STRASSE")
    assert call(thread, "CompareStringOrdinal", one, -1, one, 6, 1) == 2
    assert call(thread, "CompareStringOrdinal", one, -1, two, -1, 1) == 3
    assert call(thread, "CompareStringOrdinal", one, -1, two, -1, 0) == 3
    assert call(thread, "CompareStringOrdinal", 0, -1, two, -1, 0) == 0


def test_classes_of_characters(thread: Thread) -> None:
    source, result = wide(thread, "aZ9 _\t\u00e9\u4e00"), room(thread, 32)
    assert call(thread, "GetStringTypeW", 1, source, 8, result) == 1
    classes = struct.unpack("<8H", thread.memory.read(result, 16))
    assert classes == (0x382, 0x301, 0x284, 0x248, 0x210, 0x268, 0x302, 0x300)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=5))
def test_arguments_survive_a_command_line(arguments: list[str]) -> None:
    line = command_line.join(["prog", *arguments])
    assert command_line.split(line) == ["prog", *arguments]
    assert command_line.split(subprocess.list2cmdline(["prog", *arguments])) == ["prog", *arguments]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r'p "a\\b c" d', ["p", r"a\\b c", "d"]),
        (r'p a\\\b d"e f"g h', ["p", r"a\\\b", "de fg", "h"]),
        (r"p a\\\"b c d", ["p", r"a\"b", "c", "d"]),
        (r'p a\\\\"b c" d e', ["p", r"a\\b c", "d", "e"]),
        (r'p a"b"" c d', ["p", 'ab"', "c", "d"]),
        (r'"C:\a b\c.exe" x', [r"C:\a b\c.exe", "x"]),
        ("  x", ["", "x"]),
        ("", [""]),
        ('p ""', ["p", ""]),
    ],
)
def test_command_lines_are_taken_apart(line: str, expected: list[str]) -> None:
    assert command_line.split(line) == expected


def message(thread: Thread, flags: int, source: int, number: int, arguments: int = 0) -> str | None:
    buffer = room(thread, 2048)
    count = call(thread, "FormatMessageW", flags, source, number, 0, buffer, 1000, arguments)
    return thread.memory.read(buffer, 2 * count).decode("utf-16-le") if count else None


def test_texts_of_errors(thread: Thread) -> None:
    assert message(thread, 0x1200, 0, 2) == "The system cannot find the file specified.\r\n"
    assert message(thread, 0x12FF, 0, 2) == "The system cannot find the file specified. "
    assert message(thread, 0x1200, 0, 0x80070005) == "Access is denied.\r\n"
    assert message(thread, 0x1200, 0, 0x12345678) is None
    assert thread.last_error == errors.ERROR_MR_MID_NOT_FOUND
    assert all(text == text.strip() for text in message_texts.TEXTS.values())


def test_inserts(thread: Thread) -> None:
    one, array = wide(thread, "one"), 0
    array = room(thread, struct.pack("<QQQ", one, 42, one))
    for template, made in (
        ("%1 %2!u!%%%n%!", "one 42%\r\n!"), ("[%2!5d!] [%2!-5x!] %3", "[   42] [2a   ] one"), ("%1%0 not this", "one"),
        ("%1!.2s!", "on"), ("100%", "100"), ("%2!I64d!", "42"),
    ):  # fmt: skip
        assert message(thread, 0x2400, wide(thread, template), 0, array) == made
    assert message(thread, 0x600, wide(thread, "%1"), 0) == "%1"
    assert message(thread, 0x400, wide(thread, "%1"), 0) is None
    pointer = room(thread, 8)
    assert call(thread, "FormatMessageW", 0x1300, 0, 5, 0, pointer, 0, 0) == 19
    assert thread.memory.wide(thread.memory.u64(pointer)) == "Access is denied.\r\n"
    assert call(thread, "LocalFree", thread.memory.u64(pointer)) == 0


@given(st.text(max_size=12))
def test_any_template_is_expanded_or_refused(template: str) -> None:
    thread = new_thread()
    array = room(thread, struct.pack("<3Q", *[wide(thread, "x")] * 3) + bytes(8 * 100))
    clean = template.replace("\0", "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    message(thread, 0x2400, wide(thread, clean), 0, array)


def test_the_environment(thread: Thread) -> None:
    thread.process.environment.update({"Path": "x", "TEMP": "t", "=Z:": "Z:\\here"})
    buffer = room(thread, 100)
    assert call(thread, "GetEnvironmentVariableW", wide(thread, "PATH"), buffer, 50) == 1
    assert thread.memory.wide(buffer) == "x"
    assert call(thread, "GetEnvironmentVariableW", wide(thread, "PATH"), buffer, 1) == 2
    assert call(thread, "SetEnvironmentVariableW", wide(thread, "path"), wide(thread, "longer")) == 1
    assert thread.process.environment == {"Path": "longer", "TEMP": "t", "=Z:": "Z:\\here"}
    assert call(thread, "SetEnvironmentVariableW", wide(thread, "TEMP"), 0) == 1
    assert call(thread, "GetEnvironmentVariableA", room(thread, b"TEMP\0"), buffer, 50) == 0
    assert thread.last_error == errors.ERROR_ENVVAR_NOT_FOUND
    assert call(thread, "SetEnvironmentVariableW", wide(thread, "a=b"), buffer) == 0
    strings = call(thread, "GetEnvironmentStringsW")
    text = "=Z:=Z:\\here\0Path=longer\0\0"
    assert thread.memory.read(strings, 2 * len(text)).decode("utf-16-le") == text
    assert call(thread, "FreeEnvironmentStringsW", strings) == 1
    assert call(thread, "ExpandEnvironmentStringsW", wide(thread, "%path%;%none%"), buffer, 50) == 14
    assert thread.memory.wide(buffer) == "longer;%none%"


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0="), min_size=1, max_size=5), st.text(
    st.characters(exclude_characters="\0"), max_size=5), max_size=5))  # fmt: skip
def test_an_environment_block_comes_back(variables: dict[str, str]) -> None:
    thread = new_thread()
    thread.process.environment.update(variables)
    assert _environment.parse_block(_environment.block(thread.process)) == variables


MOMENT = SystemTime(2024, 3, 5, 1, 15, 4, 9, 0)


@pytest.mark.parametrize(
    ("picture", "made"),
    [
        ("M/d/yyyy", "3/1/2024"), ("dddd, MMMM d, yyyy", "Friday, March 1, 2024"), ("ddd dd MMM yy", "Fri 01 Mar 24"),
        ("'d' d ''M", "d 1 '3"), ("yyyy-MM-dd", "2024-03-01"),
    ],
)  # fmt: skip
def test_dates(picture: str, made: str) -> None:
    assert locale_formats.date(MOMENT, picture) == made


def test_times_of_day() -> None:
    assert locale_formats.time(MOMENT, "h:mm:ss tt") == "3:04:09 PM"
    assert locale_formats.time(MOMENT, "HH'h'm") == "15h4"


@pytest.mark.parametrize(
    ("number", "made"),
    [("1234567.891", "1,234,567.89"), ("-0.005", "-0.01"), ("0", "0.00"), ("999.995", "1,000.00"), ("-0", "0.00")],
)
def test_numbers(number: str, made: str) -> None:
    assert locale_formats.number(number) == made


def test_numbers_of_other_shapes() -> None:
    assert locale_formats.number("1234567", digits=0, grouping=32) == "12,34,567"
    assert locale_formats.number("0.5", leading_zero=False) == ".50"
    assert locale_formats.number("-1", negative=0) == "(1.00)"
    for wrong in ("", "1e5", "--1", "1.2.3", " 1", "1 "):
        with pytest.raises(locale_formats.BadNumber):
            locale_formats.number(wrong)


def test_locales(thread: Thread) -> None:
    buffer = room(thread, 200)
    assert call(thread, "GetLocaleInfoEx", 0, 0x5C, buffer, 90) == 6
    assert thread.memory.wide(buffer) == "en-US"
    assert call(thread, "GetLocaleInfoW", 0x400, 0x20001004, buffer, 2) == 2
    assert thread.memory.u32(buffer) == 65001
    assert call(thread, "GetLocaleInfoEx", wide(thread, "xx-YY"), 0x5C, buffer, 90) == 0
    assert thread.last_error == errors.ERROR_INVALID_PARAMETER
    assert call(thread, "LocaleNameToLCID", wide(thread, "EN-us"), 0) == 0x409
    fields = room(thread, MOMENT.pack())
    assert call(thread, "GetDateFormatW", 0x400, 2, fields, 0, buffer, 90) == 22
    assert thread.memory.wide(buffer) == "Friday, March 1, 2024"
    assert call(thread, "GetTimeFormatEx", 0, 8 | 2, fields, 0, buffer, 90) == 6
    assert thread.memory.wide(buffer) == "15:04"

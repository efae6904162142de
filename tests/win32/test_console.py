"""The console on a terminal of the host: modes, colours, cursor, input as text and as keys."""

import os
import pty
import select
import struct
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import FakeEngine, call, new_thread, room, wide
from virtus.personalities.win32 import console, console_control, console_input, handle_functions, state  # noqa: F401
from virtus.personalities.win32.console_input import RECORD, records_of
from virtus.personalities.win32.file_objects import File

INVALID = (1 << 64) - 1


class Terminal:
    """A program's console, and who sits before it."""

    def __init__(self) -> None:
        self.thread = new_thread()
        self.master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[1] &= ~termios.OPOST  # what the program writes is looked at as it is
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        termios.tcsetwinsize(slave, (30, 100))
        handles = []
        for name in ("CONIN$", "CONOUT$", "CONOUT$"):
            file = File(os.dup(slave), name)
            file.opened()
            handles.append(self.thread.process.handles.add(file))
        os.close(slave)
        self.thread.process.streams = tuple(handles)
        self.input, self.output, _ = handles

    def shown(self, count: int) -> str:
        """What comes next, of that many bytes: a terminal hands them over a little later, and in parts."""
        data = b""
        while len(data) < count and select.select([self.master], [], [], 5)[0]:
            data += os.read(self.master, count - len(data))
        return data.decode()

    def type(self, text: bytes) -> None:
        os.write(self.master, text)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    for handle in made.thread.process.streams:
        call(made.thread, "CloseHandle", handle)
    os.close(made.master)


def write(terminal: Terminal, text: str) -> None:
    thread, words = terminal.thread, wide(terminal.thread, text)
    count = len(text.encode("utf-16-le", "surrogatepass")) // 2
    written = room(thread, 4)
    assert call(thread, "WriteConsoleW", terminal.output, words, count, written, 0)
    assert thread.memory.u32(written) == count


def test_what_is_no_terminal_is_no_console() -> None:
    thread = new_thread()
    reader, writer = os.pipe()
    handle = thread.process.handles.add(File(reader, handles=1))
    os.close(writer)
    assert not call(thread, "GetConsoleMode", handle, room(thread, 4)) and thread.last_error == 6
    assert not call(thread, "WriteConsoleW", handle, wide(thread, "x"), 1, 0, 0) and thread.last_error == 6
    call(thread, "CloseHandle", handle)


def test_text_and_its_halves(terminal: Terminal) -> None:
    write(terminal, "grüß 日本 \U0001f600")
    assert terminal.shown(len("grüß 日本 \U0001f600".encode())) == "grüß 日本 \U0001f600"
    write(terminal, "a\ud83d")
    write(terminal, "\ude00b")
    assert terminal.shown(len("a\U0001f600b".encode())) == "a\U0001f600b"
    write(terminal, "\ude00!")
    assert terminal.shown(len("\ufffd!".encode())) == "\ufffd!"


def test_modes_are_the_terminals(terminal: Terminal) -> None:
    thread, mode = terminal.thread, room(terminal.thread, 4)
    assert call(thread, "GetConsoleMode", terminal.output, mode) and thread.memory.u32(mode) == 3
    assert call(thread, "SetConsoleMode", terminal.output, 7)
    assert call(thread, "GetConsoleMode", terminal.output, mode) and thread.memory.u32(mode) == 7
    fd = thread.process.handles.get(terminal.input).fd
    assert termios.tcgetattr(fd)[3] & termios.ICANON
    assert call(thread, "SetConsoleMode", terminal.input, 1)
    flags = termios.tcgetattr(fd)[3]
    assert flags & termios.ISIG and not flags & (termios.ICANON | termios.ECHO)
    assert not call(thread, "SetConsoleMode", terminal.input, 4) and thread.last_error == 87
    console.restore(thread.process)
    assert termios.tcgetattr(fd)[3] & termios.ICANON, "left as it was found"


@pytest.mark.parametrize(
    ("attribute", "sequence"),
    [(7, "\x1b[0m"), (12, "\x1b[0;91m"), (2, "\x1b[0;32m"), (0x1F, "\x1b[0;97;44m"), (0x4007, "\x1b[0;7m")],
)
def test_colours(terminal: Terminal, attribute: int, sequence: str) -> None:
    assert call(terminal.thread, "SetConsoleTextAttribute", terminal.output, attribute)
    assert terminal.shown(len(sequence.encode())) == sequence
    info = room(terminal.thread, 22)
    assert call(terminal.thread, "GetConsoleScreenBufferInfo", terminal.output, info)
    words = struct.unpack("<4hH6h", terminal.thread.memory.read(info, 22))
    assert words[:2] == (100, 30) and words[4] == attribute and words[5:] == (0, 0, 99, 29, 100, 30)


def test_cursor_and_filling(terminal: Terminal) -> None:
    thread, written = terminal.thread, room(terminal.thread, 4)
    assert call(thread, "SetConsoleCursorPosition", terminal.output, 4 | 2 << 16)
    assert terminal.shown(len(b"\x1b[3;5H")) == "\x1b[3;5H"
    assert not call(thread, "SetConsoleCursorPosition", terminal.output, 100) and thread.last_error == 87
    assert call(thread, "FillConsoleOutputCharacterW", terminal.output, ord("x"), 3, 1, written)
    assert terminal.shown(len(b"\x1b7\x1b[1;2Hxxx\x1b8")) == "\x1b7\x1b[1;2Hxxx\x1b8"
    assert call(thread, "FillConsoleOutputCharacterA", terminal.output, 32, 100 * 30, 0, written)
    assert (
        terminal.shown(len(b"\x1b7\x1b[1;1H\x1b[J\x1b8")) == "\x1b7\x1b[1;1H\x1b[J\x1b8"
        and thread.memory.u32(written) == 3000
    )


def read_line(terminal: Terminal, size: int = 100) -> str:
    thread, buffer, count = terminal.thread, room(terminal.thread, 2 * size), room(terminal.thread, 4)
    assert call(thread, "ReadConsoleW", terminal.input, buffer, size, count, 0)
    return thread.memory.read(buffer, 2 * thread.memory.u32(count)).decode("utf-16-le")


def test_lines(terminal: Terminal) -> None:
    terminal.type("grüß dich\n".encode())
    assert read_line(terminal, 4) == "grüß"
    assert read_line(terminal) == " dich\r\n"
    terminal.type(b"\x04")
    assert read_line(terminal) == ""


def keys(data: bytes) -> list[tuple[int, int]]:
    records, _ = records_of(data)
    found = []
    for down, up in zip(records[::2], records[1::2], strict=True):
        kind, pressed, repeat, key, _, unit, _ = RECORD.unpack(down)
        assert (kind, pressed, repeat) == (1, 1, 1) and RECORD.unpack(up)[1] == 0 and down[8:] == up[8:]
        found.append((key, unit))
    return found


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a", [(0x41, 0x61)]),
        (b"\r", [(0x0D, 13)]),
        (b"\x7f", [(0x08, 8)]),
        (b"\x1b[A\x1b[3~", [(0x26, 0), (0x2E, 0)]),
        (b"\x1bOP", [(0x70, 0)]),
        (b"\x1b", [(0x1B, 0x1B)]),
        (b"\x1bx", [(0x58, 0x78)]),
        (b"\x03", [(0x43, 3)]),
        ("ü".encode(), [(0, 0xFC)]),
        ("\U0001f600".encode(), [(0, 0xD83D), (0, 0xDE00)]),
    ],
)
def test_keys(data: bytes, expected: list[tuple[int, int]]) -> None:
    assert keys(data) == expected


@given(st.binary(max_size=40))
def test_any_input_is_keys_and_the_start_of_a_character(data: bytes) -> None:
    records, rest = records_of(data)
    assert all(len(record) == RECORD.size for record in records) and len(records) % 2 == 0 and len(rest) < 4
    assert data.endswith(rest)


def test_records_are_peeked_and_taken(terminal: Terminal) -> None:
    thread, buffer, count = terminal.thread, room(terminal.thread, 200), room(terminal.thread, 4)
    assert call(thread, "PeekConsoleInputW", terminal.input, buffer, 10, count) and thread.memory.u32(count) == 0
    terminal.type(b"ab")
    assert call(thread, "GetNumberOfConsoleInputEvents", terminal.input, count)
    for function in ("PeekConsoleInputW", "ReadConsoleInputW"):
        assert call(thread, function, terminal.input, buffer, 3, count) and thread.memory.u32(count) == 3
    assert call(thread, "ReadConsoleInputW", terminal.input, buffer, 3, count) and thread.memory.u32(count) == 1
    assert call(thread, "FlushConsoleInputBuffer", terminal.input)
    console.restore(thread.process)


def test_control_handlers_are_asked_last_first() -> None:
    engine = FakeEngine()
    thread, asked = new_thread(engine), list[tuple[int, int]]()

    def handler(number: int, answer: int) -> int:
        def body(event: int) -> int:
            asked.append((number, event))
            return answer

        return engine.function(body)

    for number, answer in ((1, 1), (2, 0)):
        routine = handler(number, answer)
        assert call(thread, "SetConsoleCtrlHandler", routine, 1)
    console_control.handle(thread, 0)
    assert asked == [(2, 0), (1, 0)]
    assert call(thread, "SetConsoleCtrlHandler", routine, 0)
    assert not call(thread, "SetConsoleCtrlHandler", routine, 0) and thread.last_error == 87
    console_control.handle(thread, 1)
    assert asked[2:] == [(1, 1)]


def test_titles_and_code_pages(terminal: Terminal) -> None:
    thread, buffer = terminal.thread, room(terminal.thread, 40)
    assert (
        call(thread, "SetConsoleTitleW", wide(thread, "a\x1b\x07title"))
        and terminal.shown(len(b"\x1b]2;atitle\x07")) == "\x1b]2;atitle\x07"
    )
    assert call(thread, "GetConsoleTitleW", buffer, 5) and thread.memory.wide(buffer) == "a\x1b\x07t"
    assert call(thread, "GetConsoleOutputCP") == 65001
    assert call(thread, "SetConsoleOutputCP", 437) and call(thread, "GetConsoleOutputCP") == 437
    assert (
        call(thread, "WriteConsoleA", terminal.output, room(thread, b"\x81"), 1, 0, 0)
        and terminal.shown(len("ü".encode())) == "ü"
    )
    assert not call(thread, "SetConsoleOutputCP", 99999) and thread.last_error == 87

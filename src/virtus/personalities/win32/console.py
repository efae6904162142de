"""The console: a terminal of the host, its modes, colours and cursor as a Windows program sets them.

What a program asks for by function is written to the terminal as the control sequences of ECMA-48 that mean the same;
sequences that a program writes itself (ENABLE_VIRTUAL_TERMINAL_PROCESSING) reach it as they are. (Microsoft: Console
Functions; Console Virtual Terminal Sequences.) A handle is a console's where it is of a terminal, so a program whose
streams are redirected sees files and pipes, as on Windows.
"""

import fcntl
import os
import select
import struct
import termios
import threading
import time
from typing import Any, Final

from virtus.personalities.win32 import code_pages, errors, file_objects, state
from virtus.personalities.win32.file_objects import File
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

# Microsoft: SetConsoleMode, input
PROCESSED_INPUT, LINE_INPUT, ECHO_INPUT, WINDOW_INPUT, MOUSE_INPUT, INSERT_MODE = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20
QUICK_EDIT_MODE, EXTENDED_FLAGS, VIRTUAL_TERMINAL_INPUT = 0x40, 0x80, 0x200
INPUT_MODES: Final = 0x3FF
DEFAULT_INPUT_MODE: Final = PROCESSED_INPUT | LINE_INPUT | ECHO_INPUT | INSERT_MODE | QUICK_EDIT_MODE | EXTENDED_FLAGS
# and output
PROCESSED_OUTPUT, WRAP_AT_EOL, VIRTUAL_TERMINAL = 0x1, 0x2, 0x4
OUTPUT_MODES: Final = 0x1F
DEFAULT_OUTPUT_MODE: Final = PROCESSED_OUTPUT | WRAP_AT_EOL

DEFAULT_ATTRIBUTE: Final = 7
"""White on black: what a terminal's own colours stand for."""
INTENSITY, REVERSE, UNDERSCORE = 8, 0x4000, 0x8000
COLUMNS, ROWS = 80, 25
CURSOR_SIZE: Final = 25
"""Percent of a cell that the cursor fills."""
REPORT_TIMEOUT_S: Final = 0.2
LONGEST_REPORT: Final = 32
CHARACTERS_AT_ONCE: Final = 0x1_0000


class Console:
    """What is set for the process's console."""

    def __init__(self) -> None:
        self.modes: dict[int, int] = {}  # by descriptor's terminal and direction
        self.attribute = DEFAULT_ATTRIBUTE
        self.cursor_visible = True
        self.title = ""
        self.input_page = self.output_page = code_pages.CP_UTF8
        self.saved: dict[int, Any] = {}
        self.high_surrogate = b""
        self.typed = b""
        """Input that has been taken from the terminal, and that nobody has asked for yet."""
        self.lock = threading.RLock()


def of(process: Process) -> Console:
    """The process's console."""
    return state.of(process, Console)


def terminal(thread: Thread, handle: int) -> File | None:
    """The file of a handle where it is a terminal; None with ERROR_INVALID_HANDLE set."""
    found = file_objects.of(thread, handle)
    if found is None or not found.is_console:
        thread.fail(errors.ERROR_INVALID_HANDLE)
        return None
    return found


def is_input(thread: Thread, handle: int, found: File) -> bool:
    """Whether a handle is of the console's input rather than of its screen.

    A terminal is one file of the host; so what it was opened as decides: standard input, or CONIN$.
    """
    if found.path:
        return found.path.upper() == "CONIN$"
    return handle == thread.process.streams[0] or found.fd == 0


def emit(found: File, text: str) -> None:
    """Write to a terminal; one that has gone says nothing."""
    data = text.encode("utf-8", "replace")
    try:
        while data:
            data = data[os.write(found.fd, data) :]
    except OSError:
        pass  # hung up: as on Windows, where output to a console that closes is lost


def screen(found: File) -> tuple[int, int]:
    """Columns and rows of a terminal; what Windows opens where it says none."""
    try:
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(found.fd, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return COLUMNS, ROWS
    return columns or COLUMNS, rows or ROWS


def cursor(thread: Thread, found: File) -> tuple[int, int]:
    """Where the cursor is, as the terminal reports it (ECMA-48 8.3.14 CPR); (0, 0) where it reports nothing.

    The report comes as input, so the terminal of standard input must be the same, and what was typed before is kept.
    """
    console = of(thread.process)
    with console.lock:
        try:
            if not os.isatty(0) or os.ttyname(0) != os.ttyname(found.fd):
                return 0, 0
            before = termios.tcgetattr(0)
            raw = termios.tcgetattr(0)
            raw[3] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(0, termios.TCSADRAIN, raw)
        except (OSError, termios.error):
            return 0, 0
        try:
            emit(found, "\x1b[6n")
            return _report(console)
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


def _report(console: Console) -> tuple[int, int]:
    answer, limit = b"", time.monotonic() + REPORT_TIMEOUT_S
    while (left := limit - time.monotonic()) > 0 and len(answer) < CHARACTERS_AT_ONCE:
        if not select.select([0], [], [], left)[0]:
            break
        try:
            answer += os.read(0, LONGEST_REPORT)
        except OSError:
            break
        head, escape, tail = answer.rpartition(b"\x1b[")
        numbers, ended, rest = tail.partition(b"R")
        row, _, column = numbers.partition(b";")
        if escape and ended and row.isdigit() and column.isdigit():
            console.typed += head + rest
            return max(0, min(int(column), 0x7FFF) - 1), max(0, min(int(row), 0x7FFF) - 1)
    console.typed += answer
    return 0, 0


def sequence(attribute: int) -> str:
    """A character attribute as Select Graphic Rendition (ECMA-48 8.3.117)."""
    words = ["0"]
    if attribute & REVERSE:
        words.append("7")
    if attribute & UNDERSCORE:
        words.append("4")
    front, back = attribute & 15, attribute >> 4 & 15
    if front != DEFAULT_ATTRIBUTE:
        words.append(str((90 if front & INTENSITY else 30) + _colour(front)))
    if back:
        words.append(str((100 if back & INTENSITY else 40) + _colour(back)))
    return f"\x1b[{';'.join(words)}m"


def _colour(bits: int) -> int:
    """Windows' order of the primary colours is blue, green, red; ECMA-48's is red, green, blue."""
    return (bits & 4) >> 2 | bits & 2 | (bits & 1) << 2


def set_terminal_mode(console: Console, fd: int, mode: int) -> None:
    """Give a terminal the input mode: lines, echo, and whether Ctrl-C is a signal; raises termios.error."""
    words = termios.tcgetattr(fd)
    console.saved.setdefault(fd, [*words[:6], list(words[6])])
    for flag, bits in (
        (LINE_INPUT, termios.ICANON), (ECHO_INPUT, termios.ECHO), (PROCESSED_INPUT, termios.ISIG | termios.IEXTEN),
    ):  # fmt: skip
        words[3] = words[3] | bits if mode & flag else words[3] & ~bits
    # A program that reads keys gets the return key as CR, as it is on Windows; in lines it ends the line.
    words[0] = words[0] | termios.ICRNL if mode & LINE_INPUT else words[0] & ~termios.ICRNL
    words[6][termios.VMIN], words[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSADRAIN, words)


def restore(process: Process) -> None:
    """Leave terminals as they were found."""
    console = of(process)
    for fd, words in console.saved.items():
        try:
            termios.tcsetattr(fd, termios.TCSADRAIN, words)
        except (OSError, termios.error):
            continue  # closed or hung up: nothing is left to restore
    console.saved.clear()


def mode_of(thread: Thread, handle: int, found: File) -> int:
    """The mode that is set for a console's input or screen."""
    incoming = is_input(thread, handle, found)
    return of(thread.process).modes.get(incoming, DEFAULT_INPUT_MODE if incoming else DEFAULT_OUTPUT_MODE)


@api("BOOL GetConsoleMode(HANDLE console, DWORD* mode)", "kernel32", "kernelbase")
def get_console_mode(thread: Thread, console: int, mode: int) -> int:
    """Fails for what is no console: how programs find out."""
    found = terminal(thread, console)
    if found is None:
        return 0
    thread.memory.set_u32(mode, mode_of(thread, console, found))
    return 1


@api("BOOL SetConsoleMode(HANDLE console, DWORD mode)", "kernel32", "kernelbase",
     note="control sequences are obeyed whatever the mode says")  # fmt: skip
def set_console_mode(thread: Thread, console: int, mode: int) -> int:
    """ERROR_INVALID_PARAMETER for modes that are none, and for echo without lines."""
    found = terminal(thread, console)
    if found is None:
        return 0
    incoming = is_input(thread, console, found)
    if mode & ~(INPUT_MODES if incoming else OUTPUT_MODES) or (incoming and mode & (ECHO_INPUT | LINE_INPUT) == 4):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    shared = of(thread.process)
    with shared.lock:
        if incoming:
            if not shared.saved:
                thread.process.at_exit.append(lambda: restore(thread.process))
            try:
                set_terminal_mode(shared, found.fd, mode)
            except (OSError, termios.error):
                return thread.fail(errors.ERROR_INVALID_HANDLE)
        shared.modes[incoming] = mode
    return 1


def _write(thread: Thread, text: Text, handle: int, buffer: int, count: int, written: int) -> int:
    found = terminal(thread, handle)
    if found is None:
        return 0
    console = of(thread.process)
    data = thread.memory.read(buffer, count * text.unit)
    with console.lock:
        if text.unit == 2:
            data = console.high_surrogate + data
            # The second half of a character may come with the next call.
            split = len(data) >= 2 and 0xD8 <= data[-1] <= 0xDB
            console.high_surrogate = data[-2:] if split else b""
            words = (data[:-2] if split else data).decode("utf-16-le", "replace")
        else:
            page = code_pages.code_page(console.output_page)
            words = code_pages.decode(page, data) if page is not None else code_pages.system_decode(data)
    encoded = words.encode("utf-8", "replace")
    error = file_objects.write(thread, found, encoded, None)
    if error:
        return thread.fail(error)
    if written:
        thread.memory.set_u32(written, count)
    return 1


@api("BOOL WriteConsoleW(HANDLE console, LPVOID buffer, DWORD count, DWORD* written, LPVOID reserved)", "kernel32",
     "kernelbase")  # fmt: skip
def write_console_w(thread: Thread, console: int, buffer: int, count: int, written: int, reserved: int) -> int:
    """Characters to the screen."""
    return _write(thread, WIDE, console, buffer, count, written)


@api("BOOL WriteConsoleA(HANDLE console, LPVOID buffer, DWORD count, DWORD* written, LPVOID reserved)", "kernel32",
     "kernelbase")  # fmt: skip
def write_console_a(thread: Thread, console: int, buffer: int, count: int, written: int, reserved: int) -> int:
    """Characters of the output code page to the screen."""
    return _write(thread, ANSI, console, buffer, count, written)


@api("BOOL SetConsoleTextAttribute(HANDLE console, WORD attribute)", "kernel32", "kernelbase")
def set_console_text_attribute(thread: Thread, console: int, attribute: int) -> int:
    """The colours of what is written from now on."""
    found = terminal(thread, console)
    if found is None:
        return 0
    of(thread.process).attribute = attribute
    emit(found, sequence(attribute))
    return 1


def _buffer_info(thread: Thread, found: File) -> bytes:
    """CONSOLE_SCREEN_BUFFER_INFO: the buffer is what the terminal shows."""
    columns, rows = screen(found)
    column, row = cursor(thread, found)
    attribute = of(thread.process).attribute
    return struct.pack(
        "<4hH6h", columns, rows, min(column, columns - 1), min(row, rows - 1), attribute, 0, 0, columns - 1, rows - 1,
        columns, rows,
    )  # fmt: skip


@api("BOOL GetConsoleScreenBufferInfo(HANDLE console, LPVOID info)", "kernel32", "kernelbase")
def get_console_screen_buffer_info(thread: Thread, console: int, info: int) -> int:
    """Size, cursor, colours, window."""
    found = terminal(thread, console)
    if found is None:
        return 0
    if is_input(thread, console, found) and console == thread.process.streams[0]:
        return thread.fail(errors.ERROR_INVALID_HANDLE)  # input is no screen
    thread.memory.write(info, _buffer_info(thread, found))
    return 1


PALETTE: Final = (
    0x000000, 0x800000, 0x008000, 0x808000, 0x000080, 0x800080, 0x008080, 0xC0C0C0,
    0x808080, 0xFF0000, 0x00FF00, 0xFFFF00, 0x0000FF, 0xFF00FF, 0x00FFFF, 0xFFFFFF,
)  # fmt: skip
"""The sixteen colours as COLORREF, where nobody has changed them."""
EXTENDED_INFO_SIZE: Final = 96


@api("BOOL GetConsoleScreenBufferInfoEx(HANDLE console, LPVOID info)", "kernel32", "kernelbase")
def get_console_screen_buffer_info_ex(thread: Thread, console: int, info: int) -> int:
    """The same with the palette; the structure says its size."""
    found = terminal(thread, console)
    if found is None:
        return 0
    if thread.memory.u32(info) != EXTENDED_INFO_SIZE:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    plain = _buffer_info(thread, found)
    thread.memory.write(info + 4, plain + struct.pack("<Hi16I", DEFAULT_ATTRIBUTE, 0, *PALETTE))
    return 1


@api("COORD GetLargestConsoleWindowSize(HANDLE console)", "kernel32", "kernelbase")
def get_largest_console_window_size(thread: Thread, console: int) -> int:
    """What it has."""
    found = terminal(thread, console)
    if found is None:
        return 0
    columns, rows = screen(found)
    return columns | rows << 16


def place(coordinates: int) -> tuple[int, int]:
    """Column and row of a COORD."""
    column, row = coordinates & 0xFFFF, coordinates >> 16 & 0xFFFF
    return column - (column >> 15 << 16), row - (row >> 15 << 16)


@api("BOOL SetConsoleCursorPosition(HANDLE console, COORD position)", "kernel32", "kernelbase")
def set_console_cursor_position(thread: Thread, console: int, position: int) -> int:
    """Within the screen, else ERROR_INVALID_PARAMETER."""
    found = terminal(thread, console)
    if found is None:
        return 0
    (column, row), (columns, rows) = place(position), screen(found)
    if not (0 <= column < columns and 0 <= row < rows):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    emit(found, f"\x1b[{row + 1};{column + 1}H")
    return 1


@api("BOOL GetConsoleCursorInfo(HANDLE console, LPVOID info)", "kernel32", "kernelbase")
def get_console_cursor_info(thread: Thread, console: int, info: int) -> int:
    """Size and whether it is shown."""
    if terminal(thread, console) is None:
        return 0
    thread.memory.write(info, struct.pack("<II", CURSOR_SIZE, of(thread.process).cursor_visible))
    return 1


@api("BOOL SetConsoleCursorInfo(HANDLE console, LPVOID info)", "kernel32", "kernelbase",
     note="its size is the terminal's affair")  # fmt: skip
def set_console_cursor_info(thread: Thread, console: int, info: int) -> int:
    """Show or hide it; a size that is none is refused."""
    found = terminal(thread, console)
    if found is None:
        return 0
    size, visible = struct.unpack("<II", thread.memory.read(info, 8))
    if not 1 <= size <= 100:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    of(thread.process).cursor_visible = bool(visible)
    emit(found, "\x1b[?25h" if visible else "\x1b[?25l")
    return 1


def _fill(thread: Thread, handle: int, character: str, length: int, position: int, written: int) -> int:
    """Cells from a place on, as far as the screen goes; the cursor stays."""
    found = terminal(thread, handle)
    if found is None:
        return 0
    (column, row), (columns, rows) = place(position), screen(found)
    if not (0 <= column < columns and 0 <= row < rows):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    length = min(length, columns * rows - row * columns - column)
    blank = character == " "
    if blank and length == columns * rows - row * columns - column:
        emit(found, f"\x1b7\x1b[{row + 1};{column + 1}H\x1b[J\x1b8")
    else:
        emit(found, f"\x1b7\x1b[{row + 1};{column + 1}H{character * length}\x1b8")
    if written:
        thread.memory.set_u32(written, length)
    return 1


@api("BOOL FillConsoleOutputCharacterW(HANDLE console, WCHAR character, DWORD length, COORD position, DWORD* written)",
     "kernel32", "kernelbase")  # fmt: skip
def fill_console_output_character_w(
    thread: Thread, console: int, character: int, length: int, position: int, written: int
) -> int:
    """One character again and again."""
    text = chr(character) if character >= 32 and not 0xD800 <= character < 0xE000 else " "
    return _fill(thread, console, text, length, position, written)


@api("BOOL FillConsoleOutputCharacterA(HANDLE console, CHAR character, DWORD length, COORD position, DWORD* written)",
     "kernel32", "kernelbase")  # fmt: skip
def fill_console_output_character_a(
    thread: Thread, console: int, character: int, length: int, position: int, written: int
) -> int:
    """One character again and again."""
    return _fill(thread, console, chr(character) if 32 <= character < 127 else " ", length, position, written)


@api("BOOL FillConsoleOutputAttribute(HANDLE console, WORD attribute, DWORD length, COORD position, DWORD* written)",
     "kernel32", "kernelbase", note="what stands on the screen keeps its colours")  # fmt: skip
def fill_console_output_attribute(
    thread: Thread, console: int, attribute: int, length: int, position: int, written: int
) -> int:
    """A terminal gives colours to what is written, not to cells; so only the count is answered."""
    found = terminal(thread, console)
    if found is None:
        return 0
    (column, row), (columns, rows) = place(position), screen(found)
    if not (0 <= column < columns and 0 <= row < rows):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if written:
        thread.memory.set_u32(written, min(length, columns * rows - row * columns - column))
    return 1

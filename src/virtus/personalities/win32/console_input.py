"""The console's input: lines, characters, and keys as records.

A terminal of the host sends bytes. A program that reads lines or characters gets them as text; one that reads records
gets a key pressed and a key released for each character, and for each control sequence of a function key. (Microsoft:
ReadConsole, ReadConsoleInput, INPUT_RECORD; xterm: Control Sequences, "PC-Style Function Keys".)
"""

import fcntl
import os
import struct
import termios
from typing import Final

from virtus.personalities.win32 import code_pages, console, errors, file_objects, state
from virtus.personalities.win32.console import ECHO_INPUT, LINE_INPUT, Console
from virtus.personalities.win32.file_objects import File
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

RECORD: Final = struct.Struct("<H2xiHHHHI")
"""INPUT_RECORD with a KEY_EVENT_RECORD: down, repeat count, virtual key, scan code, character, control keys."""
KEY_EVENT: Final = 1
SHIFT, LEFT_ALT, LEFT_CONTROL, ENHANCED = 0x10, 0x2, 0x8, 0x100
# Microsoft: Virtual-Key Codes
VK_BACK, VK_TAB, VK_RETURN, VK_ESCAPE, VK_SPACE = 0x08, 0x09, 0x0D, 0x1B, 0x20
SEQUENCES: Final = {
    b"[A": 0x26, b"[B": 0x28, b"[C": 0x27, b"[D": 0x25, b"[H": 0x24, b"[F": 0x23, b"OA": 0x26, b"OB": 0x28,
    b"OC": 0x27, b"OD": 0x25, b"OH": 0x24, b"OF": 0x23, b"[1~": 0x24, b"[2~": 0x2D, b"[3~": 0x2E, b"[4~": 0x23,
    b"[5~": 0x21, b"[6~": 0x22, b"OP": 0x70, b"OQ": 0x71, b"OR": 0x72, b"OS": 0x73, b"[15~": 0x74, b"[17~": 0x75,
    b"[18~": 0x76, b"[19~": 0x77, b"[20~": 0x78, b"[21~": 0x79, b"[23~": 0x7A, b"[24~": 0x7B,
}  # fmt: skip
"""What follows the escape character, and the key that it is."""
LONGEST_SEQUENCE: Final = 5
SHIFTED_DIGITS: Final = ")!@#$%^&*("
OEM_KEYS: Final = {";:": 0xBA, "=+": 0xBB, ",<": 0xBC, "-_": 0xBD, ".>": 0xBE, "/?": 0xBF, "`~": 0xC0, "[{": 0xDB,
                   "\\|": 0xDC, "]}": 0xDD, "'\"": 0xDE}  # fmt: skip
CHUNK: Final = 4096
MOST_RECORDS: Final = 1 << 16


class Records:
    """Input records that are there already: of keys, and what the program itself has put there."""

    def __init__(self) -> None:
        self.queue: list[bytes] = []


def key_of(character: str) -> tuple[int, int]:
    """Virtual key and control keys that give a character on an American keyboard; 0 for one that has no key."""
    if "a" <= character <= "z":
        return ord(character) - 32, 0
    if "A" <= character <= "Z":
        return ord(character), SHIFT
    if character in "0123456789" and character:
        return ord(character), 0
    if character in SHIFTED_DIGITS:
        return 0x30 + SHIFTED_DIGITS.index(character), SHIFT
    for pair, key in OEM_KEYS.items():
        if character in pair:
            return key, SHIFT if character == pair[1] else 0
    control = {"\x7f": VK_BACK, "\b": VK_BACK, "\t": VK_TAB, "\r": VK_RETURN, "\n": VK_RETURN, "\x1b": VK_ESCAPE,
               " ": VK_SPACE}  # fmt: skip
    if character in control:
        return control[character], 0
    return (ord(character) + 0x40, LEFT_CONTROL) if character < " " else (0, 0)


def _pressed(key: int, unit: int, controls: int) -> list[bytes]:
    return [RECORD.pack(KEY_EVENT, down, 1, key, 0, unit, controls) for down in (1, 0)]


def records_of(data: bytes) -> tuple[list[bytes], bytes]:
    """Input records of bytes from a terminal, and the bytes of a character that is not complete yet."""
    records: list[bytes] = []
    while data:
        if data[0] == 0x1B:
            for size in range(LONGEST_SEQUENCE, 1, -1):
                key = SEQUENCES.get(data[1 : 1 + size])
                if key is not None:
                    records += _pressed(key, 0, ENHANCED if key < 0x70 else 0)
                    data = data[1 + size :]
                    break
            else:
                if len(data) > 1 and data[1] >= 0x20 and data[1] not in b"[O":
                    following = chr(data[1]) if data[1] < 0x80 else ""
                    if following:  # Alt and a key
                        records += _pressed(key_of(following)[0], ord(following), LEFT_ALT | key_of(following)[1])
                        data = data[2:]
                        continue
                records += _pressed(VK_ESCAPE, 0x1B, 0)
                data = data[1:]
            continue
        size = 1 if data[0] < 0xC0 else 2 if data[0] < 0xE0 else 3 if data[0] < 0xF0 else 4
        if len(data) < size:
            return records, data
        character = data[:size].decode("utf-8", "replace")[0]
        data = data[size:]
        character = {"\x7f": "\b", "\n": "\r"}.get(character, character)
        key, controls = key_of(character)
        units = code_pages.utf16(character)
        for place in range(0, len(units), 2):
            records += _pressed(key, int.from_bytes(units[place : place + 2], "little"), controls)
    return records, b""


def _input(thread: Thread, handle: int) -> File | None:
    found = console.terminal(thread, handle)
    if found is not None and not console.is_input(thread, handle, found):
        thread.fail(errors.ERROR_INVALID_HANDLE)
        return None
    return found


def _take(thread: Thread, shared: Console, found: File) -> bytes | int:
    """What has been typed, waiting for it where there is nothing; b"" at the end, or Windows' error."""
    if shared.typed:
        data, shared.typed = shared.typed, b""
        return data
    return file_objects.read(thread, found, CHUNK, None)


def _raw(shared: Console, found: File) -> None:
    """A program that reads records reads keys, not lines, whatever the mode says."""
    try:
        if termios.tcgetattr(found.fd)[3] & termios.ICANON:
            console.set_terminal_mode(shared, found.fd, shared.modes.get(True, 0) & ~(LINE_INPUT | ECHO_INPUT) | 1)
    except (OSError, termios.error):
        return  # it has gone: reading will say so


def _read(thread: Thread, text: Text, handle: int, buffer: int, count: int, read: int) -> int:
    found = _input(thread, handle)
    if found is None:
        return 0
    thread.memory.set_u32(read, 0)
    if not count:
        return 1
    shared = console.of(thread.process)
    data = _take(thread, shared, found)
    if isinstance(data, int):
        return thread.fail(data)
    lines = console.mode_of(thread, handle, found) & LINE_INPUT
    if lines and b"\r\n" not in data:
        data = data.replace(b"\n", b"\r\n")
    page = code_pages.code_page(shared.input_page)
    words = data.decode("utf-8", "replace")
    if text.unit == 2 or page is None:
        encoded = text.encode(words)
    else:
        encoded = code_pages.encode(page, words)[0]
    given = encoded[: count * text.unit]
    rest = encoded[len(given) :]
    shared.typed = (code_pages.from_utf16(rest).encode("utf-8", "replace") if text.unit == 2 else rest) + shared.typed
    thread.memory.write(buffer, given)
    thread.memory.set_u32(read, len(given) // text.unit)
    return 1


@api("BOOL ReadConsoleW(HANDLE console, LPVOID buffer, DWORD count, DWORD* read, LPVOID control)", "kernel32",
     "kernelbase")  # fmt: skip
def read_console_w(thread: Thread, console: int, buffer: int, count: int, read: int, control: int) -> int:
    """A line with its CR and LF, or what has been typed where lines are off; nothing at the end of input."""
    return _read(thread, WIDE, console, buffer, count, read)


@api("BOOL ReadConsoleA(HANDLE console, LPVOID buffer, DWORD count, DWORD* read, LPVOID control)", "kernel32",
     "kernelbase")  # fmt: skip
def read_console_a(thread: Thread, console: int, buffer: int, count: int, read: int, control: int) -> int:
    """The same in the input code page."""
    return _read(thread, ANSI, console, buffer, count, read)


def _records(thread: Thread, handle: int, buffer: int, room: int, count: int, *, take: bool) -> int:
    found = _input(thread, handle)
    if found is None:
        return 0
    shared, kept = console.of(thread.process), state.of(thread.process, Records)
    _raw(shared, found)
    while not kept.queue and room:
        if not take and not shared.typed and not file_objects.ready(found.fd, write=False):
            break
        data = _take(thread, shared, found)
        if isinstance(data, int):
            return thread.fail(data)
        if not data:
            return thread.fail(errors.ERROR_INVALID_HANDLE)  # the terminal has hung up
        made, shared.typed = records_of(data)
        kept.queue += made
        if not made and not take:
            break
        if not made:
            more = file_objects.read(thread, found, 1, None)
            if not isinstance(more, bytes) or not more:
                return thread.fail(more if isinstance(more, int) else errors.ERROR_INVALID_HANDLE)
            shared.typed += more
    given = kept.queue[:room]
    if take:
        del kept.queue[: len(given)]
    thread.memory.write(buffer, b"".join(given))
    thread.memory.set_u32(count, len(given))
    return 1


@api("BOOL ReadConsoleInputW(HANDLE console, LPVOID buffer, DWORD room, DWORD* count)", "kernel32", "kernelbase",
     note="keys; no mouse, no window sizes")  # fmt: skip
def read_console_input_w(thread: Thread, console: int, buffer: int, room: int, count: int) -> int:
    """At least one record, waiting for it."""
    return _records(thread, console, buffer, room, count, take=True)


@api("BOOL ReadConsoleInputA(HANDLE console, LPVOID buffer, DWORD room, DWORD* count)", "kernel32", "kernelbase",
     note="keys; no mouse, no window sizes")  # fmt: skip
def read_console_input_a(thread: Thread, console: int, buffer: int, room: int, count: int) -> int:
    """The same; characters beyond ASCII keep their UTF-16 number."""
    return _records(thread, console, buffer, room, count, take=True)


@api("BOOL PeekConsoleInputW(HANDLE console, LPVOID buffer, DWORD room, DWORD* count)", "kernel32", "kernelbase")
def peek_console_input_w(thread: Thread, console: int, buffer: int, room: int, count: int) -> int:
    """What is there, which stays there."""
    return _records(thread, console, buffer, room, count, take=False)


@api("BOOL PeekConsoleInputA(HANDLE console, LPVOID buffer, DWORD room, DWORD* count)", "kernel32", "kernelbase")
def peek_console_input_a(thread: Thread, console: int, buffer: int, room: int, count: int) -> int:
    """What is there, which stays there."""
    return _records(thread, console, buffer, room, count, take=False)


@api("BOOL GetNumberOfConsoleInputEvents(HANDLE console, DWORD* count)", "kernel32", "kernelbase")
def get_number_of_console_input_events(thread: Thread, console: int, count: int) -> int:
    """Records that are there; of what has been typed since, two for a byte."""
    found = _input(thread, console)
    if found is None:
        return 0
    try:
        waiting = struct.unpack("i", fcntl.ioctl(found.fd, termios.FIONREAD, bytes(4)))[0]
    except OSError:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    kept = state.of(thread.process, Records)
    typed = len(_shared(thread.process).typed)
    thread.memory.set_u32(count, len(kept.queue) + 2 * (waiting + typed))
    return 1


def _shared(process: Process) -> Console:
    return console.of(process)


@api("BOOL FlushConsoleInputBuffer(HANDLE console)", "kernel32", "kernelbase")
def flush_console_input_buffer(thread: Thread, console: int) -> int:
    """Forget what has been typed."""
    found = _input(thread, console)
    if found is None:
        return 0
    state.of(thread.process, Records).queue.clear()
    _shared(thread.process).typed = b""
    try:
        termios.tcflush(found.fd, termios.TCIFLUSH)
    except (OSError, termios.error):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    return 1


@api("BOOL WriteConsoleInputW(HANDLE console, LPVOID records, DWORD count, DWORD* written)", "kernel32", "kernelbase")
def write_console_input_w(thread: Thread, console: int, records: int, count: int, written: int) -> int:
    """Put records there as if typed."""
    found, kept = _input(thread, console), state.of(thread.process, Records)
    if found is None:
        return 0
    if len(kept.queue) + count > MOST_RECORDS:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)
    data = thread.memory.read(records, RECORD.size * count)
    kept.queue += [data[place : place + RECORD.size] for place in range(0, len(data), RECORD.size)]
    thread.memory.set_u32(written, count)
    thread.engine.wake()
    return 1


def terminal_of_process() -> int:
    """A descriptor of the controlling terminal, for CONIN$ and CONOUT$ of a redirected program; raises OSError."""
    return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)

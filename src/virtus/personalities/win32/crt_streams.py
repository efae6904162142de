"""The C runtime's streams, for where no other runtime is installed: files, standard streams, printf and its relatives.

Streams are not buffered: what a program writes is written. Text streams have "\\r\\n" outside and "\\n" inside.
"""

import os
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import crt_format, file_objects, heaps, paths, state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api

FILE_SIZE: Final = 48
EOF: Final = -1
LARGEST: Final = 1 << 30
BLOCK: Final = 1 << 16
SEEK_ENDS: Final = (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)
MODES: Final = {"r": os.O_RDONLY, "w": os.O_CREAT | os.O_TRUNC, "a": os.O_CREAT | os.O_APPEND}
RUNTIME: Final = ("msvcrt", "ucrtbase")


class Stream:
    """A stream over a file of the process, or over a descriptor of its own."""

    def __init__(self, *, text: bool, fd: int = -1, handle: int = 0) -> None:
        self.text, self.fd, self.handle = text, fd, handle
        self.ahead = b""
        self.ended = self.failed = False

    def write(self, thread: Thread, data: bytes) -> bool:
        """Whether all could be written."""
        if self.text:
            data = data.replace(b"\n", b"\r\n")
        try:
            if self.fd >= 0:
                while data:
                    data = data[os.write(self.fd, data) :]
            else:
                found = file_objects.of(thread, self.handle)
                self.failed |= found is None or bool(file_objects.write(thread, found, data, None))
        except OSError:
            self.failed = True
        return not self.failed

    def read(self, thread: Thread, size: int) -> bytes:
        """Up to `size` bytes, none at the end."""
        if not self.ahead:
            self.ahead = self._fill(thread)
        data, self.ahead = self.ahead[:size], self.ahead[size:]
        return data

    def _fill(self, thread: Thread) -> bytes:
        try:
            if self.fd >= 0:
                data = os.read(self.fd, BLOCK)
            else:
                found = file_objects.of(thread, self.handle)
                got = file_objects.read(thread, found, BLOCK, None) if found is not None else b""
                data = got if isinstance(got, bytes) else b""
        except OSError:
            self.failed, data = True, b""
        self.ended |= not data
        return data.replace(b"\r\n", b"\n") if self.text else data


class Streams:
    """The streams of a process by the address of their FILE."""

    def __init__(self) -> None:
        self.base = 0
        self.open: dict[int, Stream] = {}


def streams(process: Process) -> Streams:
    """The process's streams, the standard ones first."""
    found = state.of(process, Streams)
    if not found.base:
        found.base = heaps.allocate(process, bytes(3 * FILE_SIZE))
        for index, handle in enumerate(process.streams):
            found.open[found.base + FILE_SIZE * index] = Stream(text=True, handle=handle)
    return found


def _stream(thread: Thread, file: int) -> Stream | None:
    return streams(thread.process).open.get(file)


@api("LPVOID __iob_func(void)", "msvcrt")
def iob_func(thread: Thread) -> int:
    """The standard streams, side by side."""
    return streams(thread.process).base


@api("LPVOID __acrt_iob_func(UINT index)", *RUNTIME)
def acrt_iob_func(thread: Thread, index: int) -> int:
    """One of them."""
    return streams(thread.process).base + FILE_SIZE * (index % 3)


@api("LPVOID fopen(LPCSTR name, LPCSTR mode)", *RUNTIME)
def fopen(thread: Thread, name: int, mode: int) -> int:
    """0 where it cannot be opened."""
    words = thread.memory.string(mode).decode("latin-1")
    flags = MODES.get(words[:1])
    if flags is None:
        return 0
    flags |= os.O_RDWR if "+" in words else os.O_WRONLY if words[0] != "r" else os.O_RDONLY
    try:
        host = paths.to_host(thread.process, thread.memory.string(name).decode("utf-8", "replace"))
        fd = os.open(host, flags | os.O_CLOEXEC, 0o666)
    except (OSError, paths.BadPath):
        return 0
    file = heaps.allocate(thread.process, bytes(FILE_SIZE))
    streams(thread.process).open[file] = Stream(text="b" not in words, fd=fd)
    return file


@api("int fclose(LPVOID file)", *RUNTIME)
def fclose(thread: Thread, file: int) -> int:
    """EOF for what is no stream."""
    found = streams(thread.process).open.pop(file, None)
    if found is None:
        return EOF
    if found.fd >= 0:
        os.close(found.fd)
        heaps.free(thread.process, file)
    return EOF if found.failed else 0


@api("int fflush(LPVOID file)", *RUNTIME)
def fflush(thread: Thread, file: int) -> int:
    """What was written is written."""
    return 0


@api("int setvbuf(LPVOID file, LPSTR buffer, int mode, size_t size)", *RUNTIME)
def setvbuf(thread: Thread, file: int, buffer: int, mode: int, size: int) -> int:
    """Streams stay as they are."""
    return 0


def _put(thread: Thread, file: int, data: bytes) -> int:
    """Bytes put, or EOF."""
    found = _stream(thread, file)
    return len(data) if found is not None and found.write(thread, data) else EOF


@api("size_t fwrite(LPCVOID data, size_t size, size_t count, LPVOID file)", *RUNTIME)
def fwrite(thread: Thread, data: int, size: int, count: int, file: int) -> int:
    """How many were written."""
    if not 0 < size * count <= LARGEST:
        return 0
    return count if _put(thread, file, thread.memory.read(data, size * count)) >= 0 else 0


@api("size_t fread(LPVOID buffer, size_t size, size_t count, LPVOID file)", *RUNTIME)
def fread(thread: Thread, buffer: int, size: int, count: int, file: int) -> int:
    """How many were read whole."""
    found, done = _stream(thread, file), 0
    if found is None or not 0 < size * count <= LARGEST:
        return 0
    while done < size * count and (part := found.read(thread, size * count - done)):
        thread.memory.write(buffer + done, part)
        done += len(part)
    return done // size


@api("int fputc(int character, LPVOID file)", *RUNTIME)
def fputc(thread: Thread, character: int, file: int) -> int:
    """The character, or EOF."""
    return character & 0xFF if _put(thread, file, bytes([character & 0xFF])) >= 0 else EOF


@api("int fputs(LPCSTR text, LPVOID file)", *RUNTIME)
def fputs(thread: Thread, text: int, file: int) -> int:
    """EOF for an error."""
    return min(0, _put(thread, file, thread.memory.string(text)))


@api("int puts(LPCSTR text)", *RUNTIME)
def puts(thread: Thread, text: int) -> int:
    """With a line end."""
    return min(0, _put(thread, streams(thread.process).base + FILE_SIZE, thread.memory.string(text) + b"\n"))


@api("int putchar(int character)", *RUNTIME)
def putchar(thread: Thread, character: int) -> int:
    """The character, or EOF."""
    return fputc(thread, character, streams(thread.process).base + FILE_SIZE)


@api("int fgetc(LPVOID file)", *RUNTIME)
def fgetc(thread: Thread, file: int) -> int:
    """The next character, or EOF."""
    found = _stream(thread, file)
    data = found.read(thread, 1) if found is not None else b""
    return data[0] if data else EOF


@api("int getchar(void)", *RUNTIME)
def getchar(thread: Thread) -> int:
    """Of standard input."""
    return fgetc(thread, streams(thread.process).base)


@api("int ungetc(int character, LPVOID file)", *RUNTIME)
def ungetc(thread: Thread, character: int, file: int) -> int:
    """Put a character back."""
    found = _stream(thread, file)
    if found is None or character == EOF:
        return EOF
    found.ahead, found.ended = bytes([character & 0xFF]) + found.ahead, False
    return character & 0xFF


@api("LPSTR fgets(LPSTR buffer, int capacity, LPVOID file)", *RUNTIME)
def fgets(thread: Thread, buffer: int, capacity: int, file: int) -> int:
    """A line with its end, 0 at the end."""
    found, line = _stream(thread, file), bytearray()
    while found is not None and len(line) < capacity - 1 and not line.endswith(b"\n"):
        byte = found.read(thread, 1)
        if not byte:
            break
        line += byte
    if not line:
        return 0
    thread.memory.write(buffer, bytes(line) + b"\0")
    return buffer


@api("int feof(LPVOID file)", *RUNTIME)
def feof(thread: Thread, file: int) -> int:
    """Whether a read came to the end."""
    found = _stream(thread, file)
    return int(found is not None and found.ended and not found.ahead)


@api("int ferror(LPVOID file)", *RUNTIME)
def ferror(thread: Thread, file: int) -> int:
    """Whether something failed."""
    found = _stream(thread, file)
    return int(found is None or found.failed)


@api("int fseek(LPVOID file, LONG offset, int end)", *RUNTIME)
def fseek(thread: Thread, file: int, offset: int, end: int) -> int:
    """0, or -1."""
    found = _stream(thread, file)
    if found is None or found.fd < 0 or end not in SEEK_ENDS:
        return -1
    try:
        os.lseek(found.fd, offset - (len(found.ahead) if end == os.SEEK_CUR else 0), end)
    except OSError:
        return -1
    found.ahead, found.ended = b"", False
    return 0


@api("LONG ftell(LPVOID file)", *RUNTIME)
def ftell(thread: Thread, file: int) -> int:
    """Of a text stream as exact as the lines that were read have no carriage returns."""
    found = _stream(thread, file)
    try:
        return -1 if found is None or found.fd < 0 else os.lseek(found.fd, 0, os.SEEK_CUR) - len(found.ahead)
    except OSError:
        return -1


def _row(thread: Thread, arguments: int) -> Callable[[], int]:
    """Arguments in a row, as a va_list has them."""

    def take() -> int:
        nonlocal arguments
        arguments += 8
        return thread.memory.u64(arguments - 8)

    return take


def _print(thread: Thread, file: int, template: int, take: Callable[[], int]) -> int:
    return _put(thread, file, crt_format.format(thread.memory, thread.memory.string(template), take))


@api("int printf(LPCSTR template, ...)", *RUNTIME)
def printf(thread: Thread, template: int, take: Callable[[], int]) -> int:
    """To standard output."""
    return _print(thread, streams(thread.process).base + FILE_SIZE, template, take)


@api("int fprintf(LPVOID file, LPCSTR template, ...)", *RUNTIME)
def fprintf(thread: Thread, file: int, template: int, take: Callable[[], int]) -> int:
    """To a stream."""
    return _print(thread, file, template, take)


@api("int vfprintf(LPVOID file, LPCSTR template, LPVOID arguments)", *RUNTIME)
def vfprintf(thread: Thread, file: int, template: int, arguments: int) -> int:
    """To a stream."""
    return _print(thread, file, template, _row(thread, arguments))


@api("int vprintf(LPCSTR template, LPVOID arguments)", *RUNTIME)
def vprintf(thread: Thread, template: int, arguments: int) -> int:
    """To standard output."""
    return _print(thread, streams(thread.process).base + FILE_SIZE, template, _row(thread, arguments))


def _store(thread: Thread, buffer: int, template: int, take: Callable[[], int]) -> int:
    data = crt_format.format(thread.memory, thread.memory.string(template), take)
    thread.memory.write(buffer, data + b"\0")
    return len(data)


@api("int sprintf(LPSTR buffer, LPCSTR template, ...)", *RUNTIME)
def sprintf(thread: Thread, buffer: int, template: int, take: Callable[[], int]) -> int:
    """Into a buffer, whose size only the caller knows."""
    return _store(thread, buffer, template, take)


@api("int vsprintf(LPSTR buffer, LPCSTR template, LPVOID arguments)", *RUNTIME)
def vsprintf(thread: Thread, buffer: int, template: int, arguments: int) -> int:
    """Into a buffer, whose size only the caller knows."""
    return _store(thread, buffer, template, _row(thread, arguments))


@api("int _snprintf(LPSTR buffer, size_t capacity, LPCSTR template, ...)", *RUNTIME)
def snprintf(thread: Thread, buffer: int, capacity: int, template: int, take: Callable[[], int]) -> int:
    """-1 where it does not fit; a zero only where there is room for it."""
    data = crt_format.format(thread.memory, thread.memory.string(template), take)
    thread.memory.write(buffer, (data + b"\0")[:capacity])
    return len(data) if len(data) <= capacity else -1

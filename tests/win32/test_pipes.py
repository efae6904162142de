"""Pipes, overlapped operations and completion ports."""

import os
import struct
import threading
from collections.abc import Iterator

import pytest

from tests.win32.fake_engine import FakeEngine, call, new_thread, room, wide
from virtus.personalities.win32 import (  # noqa: F401  # their functions enter the table
    completion,
    file_transfer,
    files,
    handle_functions,
    nt_files,
    pipes,
    synchronisation,
    waiting,
)
from virtus.personalities.win32.process import Thread

INVALID = (1 << 64) - 1
READ, WRITE, OVERLAPPED = 0x8000_0000, 0x4000_0000, 0x4000_0000
DUPLEX, MESSAGES = 3, 6
PENDING, ABORTED, BROKEN = 997, 995, 109


@pytest.fixture(params=[False, True], ids=["parallel", "in turns"])
def thread(request: pytest.FixtureRequest) -> Iterator[Thread]:
    made = new_thread(FakeEngine(cooperative=request.param))
    yield made
    for handle in range(0x40, 0x400, 4):
        call(made, "CloseHandle", handle)


def server(thread: Thread, name: str = "one", mode: int = DUPLEX, kind: int = 0, limit: int = 255) -> int:
    path = wide(thread, rf"\\.\pipe\{name}")
    return int(call(thread, "CreateNamedPipeW", path, mode, kind, limit, 0, 0, 0, 0))


def client(thread: Thread, name: str = "one", flags: int = 0) -> int:
    return int(call(thread, "CreateFileW", wide(thread, rf"\\.\pipe\{name}"), READ | WRITE, 0, 0, 3, flags, 0))


def write(thread: Thread, handle: int, data: bytes, overlapped: int = 0) -> int:
    return int(call(thread, "WriteFile", handle, room(thread, data), len(data), 0, overlapped))


def read(thread: Thread, handle: int, size: int) -> tuple[bytes, int]:
    """What comes, and the last error where reading failed."""
    buffer, count = room(thread, size), room(thread, 4)
    done = call(thread, "ReadFile", handle, buffer, size, count, 0)
    return thread.memory.read(buffer, thread.memory.u32(count)), 0 if done else thread.last_error


def overlap(thread: Thread, event: int = 0) -> int:
    return room(thread, struct.pack("<QQQQ", 0, 0, 0, event))


def test_anonymous_pipes(thread: Thread) -> None:
    reader, writer = room(thread, 8), room(thread, 8)
    assert call(thread, "CreatePipe", reader, writer, 0, 0)
    one, two = thread.memory.u64(reader), thread.memory.u64(writer)
    assert write(thread, two, b"hello") and read(thread, one, 3) == (b"hel", 0)
    available, buffer, count = room(thread, 4), room(thread, 8), room(thread, 4)
    assert call(thread, "PeekNamedPipe", one, buffer, 8, count, available, 0)
    assert (thread.memory.read(buffer, 2), thread.memory.u32(count), thread.memory.u32(available)) == (b"lo", 2, 2)
    assert read(thread, one, 8) == (b"lo", 0)
    assert call(thread, "PeekNamedPipe", one, 0, 0, 0, available, 0) and thread.memory.u32(available) == 0
    assert not write(thread, one, b"x") and thread.last_error == 5
    call(thread, "CloseHandle", two)
    assert read(thread, one, 8) == (b"", BROKEN)
    assert not call(thread, "PeekNamedPipe", one, 0, 0, 0, available, 0) and thread.last_error == BROKEN


def test_named_pipes_and_their_errors(thread: Thread) -> None:
    assert client(thread) == INVALID and thread.last_error == 2
    assert not call(thread, "WaitNamedPipeW", wide(thread, r"\\.\pipe\one"), 1) and thread.last_error == 2
    end = server(thread)
    assert call(thread, "WaitNamedPipeW", wide(thread, r"\\.\pipe\ONE"), 1)
    other = client(thread, "ONE")
    assert other != INVALID
    assert client(thread) == INVALID and thread.last_error == 231
    assert not call(thread, "ConnectNamedPipe", end, 0) and thread.last_error == 535
    assert client(thread) == INVALID and thread.last_error == 231
    assert not call(thread, "WaitNamedPipeW", wide(thread, r"\\.\pipe\one"), 1) and thread.last_error == 121
    assert write(thread, end, b"to client") and read(thread, other, 99) == (b"to client", 0)
    assert write(thread, other, b"to server") and read(thread, end, 99) == (b"to server", 0)
    second = server(thread)
    assert second != INVALID and client(thread) != INVALID
    call(thread, "CloseHandle", other)
    assert read(thread, end, 9) == (b"", BROKEN)
    assert call(thread, "DisconnectNamedPipe", end)
    assert server(thread, mode=DUPLEX | 0x8_0000) == INVALID and thread.last_error == 5
    for handle in (end, second):
        call(thread, "CloseHandle", handle)
    assert client(thread) == INVALID and thread.last_error == 2
    assert server(thread, limit=1) != INVALID and server(thread, limit=1) == INVALID and thread.last_error == 231


def test_a_server_without_a_client_listens(thread: Thread) -> None:
    end = server(thread, kind=1)
    assert not call(thread, "ConnectNamedPipe", end, 0) and thread.last_error == 536
    call(thread, "CloseHandle", end)
    end = server(thread)
    late = threading.Timer(0.02, lambda: client(new_child(thread)))
    late.start()
    assert call(thread, "ConnectNamedPipe", end, 0)
    late.join()


def new_child(thread: Thread) -> Thread:
    """Another guest thread of the process."""
    made = Thread(thread.process, thread.memory.map(0, 0x2000, 3), 12)
    thread.process.threads[12] = made
    return made


def test_messages_stay_apart(thread: Thread) -> None:
    end = server(thread, kind=MESSAGES)
    other = client(thread)
    assert write(thread, other, b"first") and write(thread, other, b"second")
    assert read(thread, end, 99) == (b"first", 0)
    assert read(thread, end, 3) == (b"sec", 234)
    assert read(thread, end, 99) == (b"ond", 0)


def test_overlapped_reading_goes_on_and_signals_its_event(thread: Thread) -> None:
    end = server(thread, mode=DUPLEX | OVERLAPPED)
    event = call(thread, "CreateEventW", 0, 1, 1, 0)
    overlapped, buffer, count = overlap(thread, event), room(thread, 16), room(thread, 4)
    assert not call(thread, "ConnectNamedPipe", end, overlapped) and thread.last_error == PENDING
    assert call(thread, "WaitForSingleObject", event, 0) == 258
    other = client(thread)
    assert call(thread, "WaitForSingleObject", event, 5000) == 0
    assert not call(thread, "ReadFile", end, buffer, 16, 0, overlapped) and thread.last_error == PENDING
    assert not call(thread, "GetOverlappedResult", end, overlapped, count, 0) and thread.last_error == 996
    assert write(thread, other, b"data")
    assert call(thread, "GetOverlappedResult", end, overlapped, count, 1)
    assert thread.memory.read(buffer, thread.memory.u32(count)) == b"data"
    assert not call(thread, "ReadFile", end, buffer, 16, 0, overlapped) and thread.last_error == PENDING
    assert call(thread, "CancelIoEx", end, overlapped)
    assert not call(thread, "GetOverlappedResult", end, overlapped, count, 1) and thread.last_error == ABORTED
    assert not call(thread, "CancelIoEx", end, overlapped) and thread.last_error == 1168
    assert not call(thread, "ReadFile", end, buffer, 16, 0, overlapped) and thread.last_error == PENDING
    call(thread, "CloseHandle", other)
    assert not call(thread, "GetOverlappedResult", end, overlapped, count, 1) and thread.last_error == BROKEN
    assert thread.memory.u64(overlapped) == 0xC000_014B


def test_completion_ports(thread: Thread) -> None:
    end = server(thread, mode=DUPLEX | OVERLAPPED)
    other = client(thread)
    port = call(thread, "CreateIoCompletionPort", INVALID, 0, 0, 0)
    assert call(thread, "CreateIoCompletionPort", end, port, 77, 0) == port
    assert not call(thread, "CreateIoCompletionPort", other, port, 1, 0) and thread.last_error == 87
    overlapped, buffer = overlap(thread), room(thread, 16)
    entries, count = room(thread, 32 * 4), room(thread, 4)
    assert not call(thread, "ReadFile", end, buffer, 16, 0, overlapped) and thread.last_error == PENDING
    assert not call(thread, "GetQueuedCompletionStatusEx", port, entries, 4, count, 0, 0) and thread.last_error == 258
    assert write(thread, other, b"12345")
    assert call(thread, "GetQueuedCompletionStatusEx", port, entries, 4, count, 5000, 0)
    assert thread.memory.u32(count) == 1
    assert struct.unpack("<QQQI", thread.memory.read(entries, 28)) == (77, overlapped, 0, 5)
    silent = overlap(thread, call(thread, "CreateEventW", 0, 1, 0, 0) | 1)
    assert write(thread, end, b"x", silent), "an event with its lowest bit set keeps the port from being told"
    assert write(thread, end, b"x", overlapped), "what ends at once is told too"
    assert call(thread, "SetFileCompletionNotificationModes", end, 1)
    assert write(thread, end, b"x", overlap(thread)), "unless that is not wanted"
    assert call(thread, "PostQueuedCompletionStatus", port, 3, 4, 5)
    key, which = room(thread, 8), room(thread, 8)
    found = []
    while call(thread, "GetQueuedCompletionStatus", port, count, key, which, 0):
        found.append((thread.memory.u32(count), thread.memory.u64(key), thread.memory.u64(which)))
    assert found == [(1, 77, overlapped), (3, 4, 5)]
    assert thread.last_error == 258 and thread.memory.u64(which) == 0


def test_procedures_run_in_alertable_waits(thread: Thread) -> None:
    end = server(thread, mode=DUPLEX | OVERLAPPED)
    other = client(thread)
    engine, called = thread.engine, list[tuple[int, ...]]()
    assert isinstance(engine, FakeEngine)

    def told(*words: int) -> int:
        called.append(words)
        return 0

    routine = engine.function(told)
    buffer, overlapped = room(thread, 8), overlap(thread)
    assert call(thread, "ReadFileEx", end, buffer, 8, overlapped, routine) and thread.last_error == 0
    assert write(thread, other, b"abc")
    assert call(thread, "SleepEx", 0, 0) == 0 and not called
    assert call(thread, "SleepEx", 5000, 1) == 0xC0 and called == [(0, 3, overlapped)]


def test_what_is_cancelled_or_broken_leaves_nothing_waiting(thread: Thread) -> None:
    end = server(thread, mode=DUPLEX | OVERLAPPED)
    client(thread)
    overlapped = overlap(thread)
    assert not call(thread, "ReadFile", end, room(thread, 8), 8, 0, overlapped) and thread.last_error == PENDING
    call(thread, "CloseHandle", end)
    assert thread.memory.u64(overlapped) == 0xC000_0120


def test_pipes_of_native_functions(thread: Thread) -> None:
    """As Rust's standard library makes a child's streams: a pipe without a name, opened through its server's end."""
    result, block, timeout = room(thread, 8), room(thread, 16), room(thread, struct.pack("<q", -500_000))

    def attributes(root: int, name: str) -> int:
        encoded = name.encode("utf-16-le")
        text = room(thread, struct.pack("<HHIQ", len(encoded), len(encoded), 0, room(thread, encoded or 1)))
        return room(thread, struct.pack("<IIQQIIQQ", 48, 0, root, text, 0, 0, 0, 0))

    assert call(thread, "NtOpenFile", result, 0x12_0089, attributes(0, "\\Device\\NamedPipe\\"), block, 3, 0x20) == 0
    root = thread.memory.u64(result)
    made = call(
        thread, "NtCreateNamedPipeFile", result, 0x12_019F, attributes(root, ""), block, 3, 2, 0, 0, 0, 0, 1, 0, 0,
        timeout,
    )  # fmt: skip
    end = thread.memory.u64(result)
    assert made == 0
    assert call(thread, "NtOpenFile", result, 0x12_019F, attributes(end, ""), block, 3, 0x20) == 0
    other = thread.memory.u64(result)
    assert write(thread, other, b"hi")
    buffer = room(thread, 8)
    status = call(thread, "NtReadFile", end, 0, 0, 0, block, buffer, 8, 0, 0)
    assert status in (0, 0x103) and call(thread, "WaitForSingleObject", end, 5000) == 0
    assert struct.unpack("<QQ", thread.memory.read(block, 16)) == (0, 2) and thread.memory.read(buffer, 2) == b"hi"


def test_no_descriptor_is_left(thread: Thread) -> None:
    def rounds() -> int:
        for _ in range(3):
            end = server(thread)
            other = client(thread)
            write(thread, other, b"x")
            read(thread, end, 1)
            for handle in (end, other):
                call(thread, "CloseHandle", handle)
        return len(os.listdir("/proc/self/fd"))

    assert rounds() == rounds()

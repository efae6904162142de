"""What a program reads of itself without a call: the blocks of its threads and of the process, and the page that
Windows shares with all.

Sources: Microsoft, winternl.h (TEB, PEB, RTL_USER_PROCESS_PARAMETERS) and ntddk.h (KUSER_SHARED_DATA).
"""

import os
import struct
import threading
import time
from typing import Final

from virtus.personalities.win32 import commit_journal, quick_files
from virtus.personalities.win32.code_pages import CP_UTF8
from virtus.personalities.win32.file_time import from_unix_ns
from virtus.personalities.win32.guest import AccessViolation, Memory
from virtus.personalities.win32.handles import WORDS_SIZE

READ, WRITE = 1, 2
PAGE: Final = 4096
TEB_SIZE: Final = 0x4000
TEB_STACK_BASE, TEB_STACK_LIMIT, TEB_SELF, TEB_PROCESS, TEB_THREAD = 0x08, 0x10, 0x30, 0x40, 0x48
TEB_TLS, TEB_PEB, TEB_LOCALE, TEB_STACK_ALLOCATION = 0x58, 0x60, 0x108, 0x1478
PEB_SIZE: Final = 0x1000
PEB_LOCK, PEB_LOADER_LOCK = 0x38, 0x110  # FastPebLock, LoaderLock: critical sections
PEB_SECTIONS, SECTION_SIZE, SECTION_COUNT = 0x900, 0x40, 8  # behind what is documented of the PEB
PEB_PAGES, PEB_HANDLES, PEB_COMMITS, PEB_FILES = 0xA00, 0xA10, 0xA18, 0xA20
"""The console's code pages of input and output, where the words of handles are (`handles`), the journal of pages that
machine code commits (`commit_journal`), and what it opens files by (`quick_files`): also behind it."""
PEB_IMAGE, PEB_LOADER, PEB_PARAMETERS, PEB_HEAP, PEB_PROCESSORS = 0x10, 0x18, 0x20, 0x30, 0xB8
PEB_VERSION, PEB_SUBSYSTEM = 0x118, 0x128
WINDOWS_MAJOR, WINDOWS_MINOR, WINDOWS_BUILD, PLATFORM_NT = 10, 0, 19045, 2
SUBSYSTEM_CONSOLE: Final = 3
PARAMETERS_NORMALIZED: Final = 1
PARAMETERS_STREAMS, PARAMETERS_DIRECTORY, PARAMETERS_IMAGE, PARAMETERS_COMMAND = 0x20, 0x38, 0x60, 0x70
PARAMETERS_ENVIRONMENT, PARAMETERS_ENVIRONMENT_SIZE, PARAMETERS_SIZE = 0x80, 0x3F0, 0x410
LONGEST_STRING: Final = 0x1_0000
"""Bytes that a UNICODE_STRING can have."""
LOADER_SIZE, LOADER_LISTS = 0x58, (0x10, 0x20, 0x30)
SHARED_DATA: Final = 0x7FFE0000
SHARED_INTERRUPT_TIME, SHARED_SYSTEM_TIME, SHARED_ROOT, SHARED_BUILD = 0x08, 0x14, 0x30, 0x260
SHARED_VERSION, SHARED_FEATURES, SHARED_TICKS, SHARED_PROCESSORS = 0x26C, 0x274, 0x320, 0x3C0
SHARED_ARCHITECTURE, ARCHITECTURE_AMD64, PRODUCT_WORKSTATION = 0x26A, 9, 1
TICK_S: Final = 1 / 64
"""How often Windows brings them up to date (Microsoft: GetSystemTimeAdjustment, 15.625 ms)."""
TICK_MULTIPLIER: Final = 0x0FA0_0000  # a tick is a millisecond
ALWAYS_THERE: Final = (2, 3, 6, 8, 9, 10, 12, 13, 14, 17, 23, 25)
"""PF_*: compare-exchange, MMX, SSE, time stamps, NX, SSE2, SSE3, 16-byte exchange, fast fail: any x86-64 has them."""
SSSE3, SSE41, SSE42, AVX, AVX2 = 36, 37, 38, 39, 40


def make_teb(memory: Memory, peb: int, stack: tuple[int, int], process: int, thread: int) -> int:
    """A thread's block; its TLS comes later."""
    teb = memory.map(0, TEB_SIZE, READ | WRITE)
    low, high = stack
    for place, value in (
        (TEB_STACK_BASE, high), (TEB_STACK_LIMIT, low), (TEB_SELF, teb), (TEB_PROCESS, process), (TEB_THREAD, thread),
        (TEB_PEB, peb), (TEB_STACK_ALLOCATION, low),
    ):  # fmt: skip
        memory.set_u64(teb + place, value)
    memory.set_u32(teb + TEB_LOCALE, 0x409)
    return teb


def make_peb(
    memory: Memory, image: int, path: str, command_line: str, directory: str, environment: str, streams: tuple[int, ...]
) -> int:
    """The process's block and its parameters. `environment` is a block as functions give it."""
    peb = memory.map(0, PEB_SIZE, READ | WRITE)
    encoded = environment.encode("utf-16-le", "surrogatepass")
    texts = {PARAMETERS_IMAGE: path, PARAMETERS_COMMAND: command_line}
    size = PARAMETERS_SIZE + 2 * 0x8000 + sum(2 * len(text) + 16 for text in texts.values()) + len(encoded)
    parameters = memory.map(0, -(-size // PAGE) * PAGE, READ | WRITE)
    memory.write(parameters, struct.pack("<III", size, size, PARAMETERS_NORMALIZED))
    for index, handle in enumerate(streams):
        memory.set_u64(parameters + PARAMETERS_STREAMS + 8 * index, handle)
    place = parameters + PARAMETERS_SIZE
    for where, text in texts.items():
        data = text.encode("utf-16-le", "surrogatepass")
        memory.write(place, data + b"\0\0")
        memory.write(parameters + where, struct.pack("<HHIQ", len(data), len(data) + 2, 0, place))
        place += -(-(len(data) + 2) // 16) * 16
    memory.set_u64(parameters + PARAMETERS_DIRECTORY + 8, memory.map(0, LONGEST_STRING, READ | WRITE))
    memory.write(place, encoded)
    memory.set_u64(parameters + PARAMETERS_ENVIRONMENT, place)
    memory.set_u64(parameters + PARAMETERS_ENVIRONMENT_SIZE, len(encoded))
    loader = memory.map(0, PAGE, READ | WRITE)
    memory.write(loader, struct.pack("<II", LOADER_SIZE, 1))
    for where in LOADER_LISTS:  # empty lists: programs that walk them find nobody
        memory.write(loader + where, struct.pack("<QQ", loader + where, loader + where))
    for where, value in ((PEB_IMAGE, image), (PEB_LOADER, loader), (PEB_PARAMETERS, parameters)):
        memory.set_u64(peb + where, value)
    for index, where in enumerate((PEB_LOCK, PEB_LOADER_LOCK)):
        section = peb + PEB_SECTIONS + SECTION_SIZE * index
        memory.set_u32(section + SECTION_COUNT, 0xFFFF_FFFF)  # free
        memory.set_u64(peb + where, section)
    set_directory(memory, peb, directory)
    memory.write(peb + PEB_PAGES, struct.pack("<II", CP_UTF8, CP_UTF8))
    memory.set_u64(peb + PEB_HANDLES, memory.map(0, WORDS_SIZE, READ | WRITE))
    memory.set_u64(peb + PEB_COMMITS, memory.map(0, commit_journal.SIZE, READ | WRITE))
    memory.set_u64(peb + PEB_FILES, memory.map(0, quick_files.SIZE, READ | WRITE))
    memory.set_u32(peb + PEB_PROCESSORS, len(os.sched_getaffinity(0)))
    version = struct.pack("<IIHHI", WINDOWS_MAJOR, WINDOWS_MINOR, WINDOWS_BUILD, 0, PLATFORM_NT)
    memory.write(peb + PEB_VERSION, version + struct.pack("<III", SUBSYSTEM_CONSOLE, 6, 0))
    return peb


def set_directory(memory: Memory, peb: int, directory: str) -> None:
    """The current directory, as the process's parameters have it."""
    parameters = memory.u64(peb + PEB_PARAMETERS)
    data = (directory.rstrip("\\") + "\\").encode("utf-16-le", "surrogatepass")[: LONGEST_STRING - 2]
    memory.write(memory.u64(parameters + PARAMETERS_DIRECTORY + 8), data + b"\0\0")
    memory.write(parameters + PARAMETERS_DIRECTORY, struct.pack("<HH", len(data), LONGEST_STRING - 2))


def make_shared_data(memory: Memory, features: tuple[int, ...] = ()) -> None:
    """The page at SHARED_DATA. `features` are of the PF_* that not every x86-64 processor has."""
    memory.map(SHARED_DATA, PAGE, READ | WRITE)
    memory.set_u32(SHARED_DATA + 4, TICK_MULTIPLIER)
    memory.write(SHARED_DATA + SHARED_ROOT, "C:\\Windows".encode("utf-16-le"))
    memory.write(SHARED_DATA + SHARED_BUILD, struct.pack("<IIB", WINDOWS_BUILD, PRODUCT_WORKSTATION, 1))
    memory.set_u16(SHARED_DATA + SHARED_ARCHITECTURE, ARCHITECTURE_AMD64)
    memory.write(SHARED_DATA + SHARED_VERSION, struct.pack("<II", WINDOWS_MAJOR, WINDOWS_MINOR))
    for feature in (*ALWAYS_THERE, *features):
        memory.write(SHARED_DATA + SHARED_FEATURES + feature, b"\1")
    memory.set_u32(SHARED_DATA + SHARED_PROCESSORS, len(os.sched_getaffinity(0)))
    update_shared_data(memory)


def update_shared_data(memory: Memory) -> None:
    """The times of the shared page: 100 ns since the start and since 1601, and milliseconds since the start."""
    now = time.monotonic_ns()
    for place, value in ((SHARED_INTERRUPT_TIME, now // 100), (SHARED_SYSTEM_TIME, from_unix_ns(time.time_ns()))):
        high = value >> 32  # High2, then Low, then High1: readers look at both to find a value that is whole
        memory.write(SHARED_DATA + place + 8, struct.pack("<I", high))
        memory.write(SHARED_DATA + place, struct.pack("<II", value & 0xFFFF_FFFF, high))
    memory.set_u64(SHARED_DATA + SHARED_TICKS, now // 1_000_000)


def keep_time(memory: Memory) -> None:
    """Have the times of the shared page go on, by a host thread of its own. (Go reads them, and not a clock.)"""

    def keep() -> None:
        while True:
            time.sleep(TICK_S)
            try:
                update_shared_data(memory)
            except AccessViolation:
                return  # the program has taken the page away

    threading.Thread(target=keep, daemon=True).start()


def make_tls(memory: Memory, teb: int, templates: list[tuple[int, int, int]]) -> None:
    """A thread's static TLS: for each module with some, in the order of their indices, a copy of its template.

    A template is the guest addresses of its start and end, and how many zeros follow.
    """
    if not templates:
        return
    memory.set_u64(teb + TEB_TLS, memory.map(0, -(-8 * len(templates) // PAGE) * PAGE, READ | WRITE))
    for index, template in enumerate(templates):
        add_tls(memory, teb, index, template)


def add_tls(memory: Memory, teb: int, index: int, template: tuple[int, int, int]) -> None:
    """One module's copy for one thread."""
    start, end, zeros = template
    array = memory.u64(teb + TEB_TLS)
    if not array:
        array = memory.map(0, PAGE, READ | WRITE)
        memory.set_u64(teb + TEB_TLS, array)
    block = memory.map(0, max(end - start + zeros, 1), READ | WRITE)
    if end > start:
        memory.write(block, memory.read(start, end - start))
    memory.set_u64(array + 8 * index, block)

"""Resources of images: what FindResource and its relatives find in the guest's memory ([PE/COFF] .rsrc section)."""

import struct
from typing import Final

from virtus.personalities.win32 import errors
from virtus.personalities.win32.code_pages import from_utf16
from virtus.personalities.win32.modules import Module
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

RESOURCE: Final = 2
"""The directory's place in the optional header."""
HIGH_BIT: Final = 0x8000_0000
NUMBER_LIMIT: Final = 0x1_0000
MOST_ENTRIES: Final = 0x1_0000
RT_STRING: Final = 6
STRINGS_IN_BLOCK: Final = 16

Name = int | str


class NoResource(Exception):
    """There is none; `error` says what was missing: the section, the type, the name or the language."""

    def __init__(self, error: int) -> None:
        super().__init__(str(error))
        self.error = error


def _module(thread: Thread, handle: int) -> Module:
    modules = thread.process.modules
    found = modules.program if not handle else modules.by_base(handle & ~3)
    if found is None or found.image is None:
        raise NoResource(errors.ERROR_RESOURCE_DATA_NOT_FOUND)
    return found


def _entries(thread: Thread, root: int, directory: int) -> list[tuple[Name, int]]:
    """A directory's entries: names or numbers, and offsets with the mark of another directory."""
    named, numbered = struct.unpack("<HH", thread.memory.read(root + directory + 12, 4))
    count = min(named + numbered, MOST_ENTRIES)
    rows = struct.iter_unpack("<II", thread.memory.read(root + directory + 16, 8 * count))
    made: list[tuple[Name, int]] = []
    for name, offset in rows:
        if name & HIGH_BIT:
            place = root + (name & ~HIGH_BIT)
            made.append((from_utf16(thread.memory.read(place + 2, 2 * thread.memory.u16(place))).upper(), offset))
        else:
            made.append((name, offset))
    return made


def _step(thread: Thread, root: int, directory: int, wanted: Name, error: int) -> int:
    for name, offset in _entries(thread, root, directory):
        if name == wanted:
            return offset
    raise NoResource(error)


def find(thread: Thread, module: Module, kind: Name, name: Name, language: int = 0) -> int:
    """The address of a resource's data entry; raises NoResource. Of several languages the first, if none is wanted."""
    assert module.image is not None
    place, size = module.image.directories[RESOURCE]
    if not place or not size:
        raise NoResource(errors.ERROR_RESOURCE_DATA_NOT_FOUND)
    root = module.base + place
    names = _step(thread, root, 0, kind, errors.ERROR_RESOURCE_TYPE_NOT_FOUND)
    languages = _step(thread, root, names & ~HIGH_BIT, name, errors.ERROR_RESOURCE_NAME_NOT_FOUND)
    if not languages & HIGH_BIT:
        return root + languages
    entries = _entries(thread, root, languages & ~HIGH_BIT)
    if not entries:
        raise NoResource(errors.ERROR_RESOURCE_LANG_NOT_FOUND)
    chosen = next((offset for number, offset in entries if number == language), entries[0][1])
    return root + (chosen & ~HIGH_BIT)


def _name(thread: Thread, text: Text, value: int) -> Name:
    """A name or number as functions take it: a number below 65,536, "#12", or a text."""
    if value < NUMBER_LIMIT:
        return value
    word = text.read(thread.memory, value)
    return int(word[1:]) if word.startswith("#") and word[1:].isdecimal() else word.upper()


def _find(thread: Thread, text: Text, module: int, kind: int, name: int, language: int) -> int:
    try:
        return find(
            thread, _module(thread, module), _name(thread, text, kind), _name(thread, text, name), language
        )  # fmt: skip
    except NoResource as none:
        return thread.fail(none.error)


@api("HRSRC FindResourceW(HMODULE module, LPCWSTR name, LPCWSTR kind)", "kernel32", "kernelbase")
def find_resource_w(thread: Thread, module: int, name: int, kind: int) -> int:
    """The address of the entry."""
    return _find(thread, WIDE, module, kind, name, 0)


@api("HRSRC FindResourceA(HMODULE module, LPCSTR name, LPCSTR kind)", "kernel32")
def find_resource_a(thread: Thread, module: int, name: int, kind: int) -> int:
    """The address of the entry."""
    return _find(thread, ANSI, module, kind, name, 0)


@api("HRSRC FindResourceExW(HMODULE module, LPCWSTR kind, LPCWSTR name, WORD language)", "kernel32", "kernelbase")
def find_resource_ex_w(thread: Thread, module: int, kind: int, name: int, language: int) -> int:
    """In a language, if there is that one."""
    return _find(thread, WIDE, module, kind, name, language)


@api("HGLOBAL LoadResource(HMODULE module, HRSRC entry)", "kernel32", "kernelbase")
def load_resource(thread: Thread, module: int, entry: int) -> int:
    """The address of the data."""
    try:
        return _module(thread, module).base + thread.memory.u32(entry) if entry else 0
    except NoResource as none:
        return thread.fail(none.error)


@api("LPVOID LockResource(HGLOBAL data)", "kernel32", "kernelbase")
def lock_resource(thread: Thread, data: int) -> int:
    """The address, which is the handle."""
    return data


@api("BOOL FreeResource(HGLOBAL data)", "kernel32", "kernelbase")
def free_resource(thread: Thread, data: int) -> int:
    """Nothing to free: false."""
    return 0


@api("DWORD SizeofResource(HMODULE module, HRSRC entry)", "kernel32", "kernelbase")
def sizeof_resource(thread: Thread, module: int, entry: int) -> int:
    """Bytes."""
    return thread.memory.u32(entry + 4) if entry else 0


@api("int LoadStringW(HINSTANCE module, UINT number, LPWSTR buffer, int capacity)", "user32", "kernelbase")
def load_string_w(thread: Thread, module: int, number: int, buffer: int, capacity: int) -> int:
    """A text of a module's table, cut to the buffer; for a capacity of 0 its address at `buffer`."""
    try:
        owner = _module(thread, module)
        entry = find(thread, owner, RT_STRING, number // STRINGS_IN_BLOCK + 1)
    except NoResource as none:
        return thread.fail(none.error)
    place = owner.base + thread.memory.u32(entry)
    for _ in range(number % STRINGS_IN_BLOCK):
        place += 2 + 2 * thread.memory.u16(place)
    count = thread.memory.u16(place)
    if capacity == 0:
        thread.memory.set_u64(buffer, place + 2)
        return count
    count = min(count, max(0, capacity - 1))
    thread.memory.write(buffer, thread.memory.read(place + 2, 2 * count) + b"\0\0")
    return count

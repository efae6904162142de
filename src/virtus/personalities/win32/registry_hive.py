"""The registry's contents: a tree of keys with typed values, kept in a text file of Windows' own format.

The file is what regedit exports ("Windows Registry Editor Version 5.00"), in UTF-8. It holds what programs have set;
what every system has comes from `registry_defaults.py` and stands below it.
"""

import fcntl
import os
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from virtus.personalities.win32.code_pages import from_utf16, utf16
from virtus.records import dataclass, field

REG_NONE, REG_SZ, REG_EXPAND_SZ, REG_BINARY, REG_DWORD = 0, 1, 2, 3, 4
REG_DWORD_BIG_ENDIAN, REG_LINK, REG_MULTI_SZ, REG_QWORD = 5, 6, 7, 11
STRINGS: Final = frozenset({REG_SZ, REG_EXPAND_SZ, REG_MULTI_SZ})
HEADER: Final = "Windows Registry Editor Version 5.00"
LONGEST_KEY_NAME, LONGEST_VALUE_NAME = 255, 16_383
LARGEST_FILE: Final = 64 << 20
PLAIN: Final = re.compile(r"[^\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]*")
VALUE_LINE: Final = re.compile(r'(@|"(?:[^"\\]|\\.)*")\s*=\s*(.*)', re.DOTALL)
HEX: Final = re.compile(r"hex(?:\(([0-9a-fA-F]{1,8})\))?:([0-9a-fA-F,\s]*)")


class BadRegistry(ValueError):
    """A line of a registry file that is none."""


@dataclass(slots=True)
class Value:
    """A value: its name as it was set, its type, and its bytes (strings are UTF-16 with their zero)."""

    name: str
    kind: int
    data: bytes


@dataclass(slots=True)
class Key:
    """A key. Names are found whatever their case; `order` of subkeys and values is that of their making."""

    name: str
    keys: "dict[str, Key]" = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    written: int = 0

    def find(self, path: Iterable[str]) -> "Key | None":
        """The key at the end of a path, None where there is none."""
        key: Key | None = self
        for name in path:
            key = key.keys.get(name.upper()) if key is not None else None
        return key

    def make(self, path: Iterable[str]) -> "tuple[Key, bool]":
        """The key at the end of a path, and whether it is new."""
        key, new = self, False
        for name in path:
            found = key.keys.get(name.upper())
            new = found is None
            if found is None:
                found = key.keys[name.upper()] = Key(name)
            key = found
        return key, new

    def set(self, name: str, kind: int, data: bytes) -> None:
        """Set a value."""
        self.values[name.upper()] = Value(name, kind, data)


def string(text: str) -> bytes:
    """A REG_SZ's bytes."""
    return utf16(text) + b"\0\0"


def strings(texts: Iterable[str]) -> bytes:
    """A REG_MULTI_SZ's bytes."""
    return b"".join(map(string, texts)) + b"\0\0"


def dword(value: int) -> bytes:
    """A REG_DWORD's bytes."""
    return struct.pack("<I", value)


def split(path: str) -> list[str]:
    """The names of a path of keys."""
    return [name for name in path.split("\\") if name]


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _hex(data: bytes) -> str:
    return ",".join(f"{byte:02x}" for byte in data)


def parse(text: str) -> Key:
    """The tree of a registry file; raises BadRegistry."""
    lines = text.lstrip("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].strip() != HEADER:
        raise BadRegistry(f"no {HEADER!r} at the start")
    root = Key("")
    key: Key | None = None
    pending = ""
    for line in lines[1:]:
        line = pending + line.strip()
        pending = ""
        if line.endswith("\\") and "hex" in line:
            pending = line[:-1]
            continue
        if not line or line.startswith(";"):
            continue
        if line.startswith("["):
            if not line.endswith("]"):
                raise BadRegistry(line)
            key, _ = root.make(split(line[1:-1]))
            continue
        match = VALUE_LINE.fullmatch(line)
        if match is None or key is None:
            raise BadRegistry(line)
        name = "" if match[1] == "@" else _unescape(match[1][1:-1])
        key.set(name, *_parse_data(match[2]))
    return root


def _parse_data(text: str) -> tuple[int, bytes]:
    if len(text) >= 2 and text.startswith('"') and text.endswith('"'):
        return REG_SZ, string(_unescape(text[1:-1]))
    if text.startswith("dword:") and re.fullmatch("[0-9a-fA-F]{1,8}", text[6:]):
        return REG_DWORD, dword(int(text[6:], 16))
    match = HEX.fullmatch(text)
    if match is None:
        raise BadRegistry(text)
    kind = REG_BINARY if match[1] is None else int(match[1], 16)
    try:
        data = bytes(int(number, 16) for number in match[2].replace(" ", "").split(",") if number)
    except ValueError:
        raise BadRegistry(text) from None
    return kind, data


def render(root: Key) -> str:
    """A tree as a registry file."""
    lines = [HEADER, ""]
    for path, key in _walk(root, ""):
        if key.values or not key.keys:
            lines.append(f"[{path}]")
            lines += (_render_value(value) for value in key.values.values())
            lines.append("")
    return "\n".join(lines)


def _walk(key: Key, path: str) -> Iterator[tuple[str, Key]]:
    for inner in key.keys.values():
        where = f"{path}\\{inner.name}" if path else inner.name
        yield where, inner
        yield from _walk(inner, where)


def _render_value(value: Value) -> str:
    name = f'"{_escape(value.name)}"' if value.name else "@"
    if value.kind == REG_SZ and value.data[-2:] == b"\0\0" and len(value.data) % 2 == 0:
        text = from_utf16(value.data[:-2])
        if PLAIN.fullmatch(text):
            return f'{name}="{_escape(text)}"'
    if value.kind == REG_DWORD and len(value.data) == 4:
        return f"{name}=dword:{int.from_bytes(value.data, 'little'):08x}"
    kind = "" if value.kind == REG_BINARY else f"({value.kind:x})"
    return f"{name}=hex{kind}:{_hex(value.data)}"


class Hive:
    """What programs have set, read from its file again when another process has changed it.

    A file that cannot be read or written is none: then everything is kept for this process alone.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.root = Key("")
        self.deleted: set[str] = set()
        self._seen: tuple[int, int] | None = None

    def load(self) -> None:
        """Read the file if it has changed."""
        if self.path is None:
            return
        try:
            status = self.path.stat()
            stamp = status.st_mtime_ns, status.st_ino
            if stamp == self._seen or status.st_size > LARGEST_FILE:
                return
            self.root = parse(self.path.read_text(encoding="utf-8", errors="replace"))
            self._seen = stamp
        except (OSError, BadRegistry):
            return

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(directory, fcntl.LOCK_EX)
                fresh = self.path.with_suffix(".new")
                fresh.write_text(render(self.root), encoding="utf-8")
                os.replace(fresh, self.path)
            finally:
                os.close(directory)
            status = self.path.stat()
            self._seen = status.st_mtime_ns, status.st_ino
        except OSError:
            self.path = None

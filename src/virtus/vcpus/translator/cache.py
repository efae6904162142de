"""Translations on disk, so that a program starts warm the second time.

Up to three files for each executable mapping, what is optimised, what is quick, and what was hot and could not be made
in time, named by a hash of its content and address, of the instruction set's and the translator's versions and of the
host's processor: what does not fit is simply not found. A file is a checksum of the rest and the rest: for optimised
code an index (JSON) and the code, for quick code what `quick_image` says; it is written beside and renamed, and read
whole. A file that is damaged, or that somebody else could have written, is not used. All together they take at most
`MOST_BYTES`; the longest unused go first.
"""

import fcntl
import json
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from virtus.isa.instruction_set import InstructionSet
from virtus.records import StrPath
from virtus.vcpus.translator import quick_image
from virtus.vcpus.translator.digest import SIZE, checksum, digest
from virtus.vcpus.translator.llvm.request import VERSION, Optimised
from virtus.vcpus.translator.quick_image import QuickImage

MOST_BYTES: Final = 512 << 20
LARGEST_FILE: Final = 128 << 20
SUFFIX: Final = ".translated"
QUICK: Final = "quick "
"""Before an image's name, where its quick code is meant."""
WISHES: Final = "wishes "
"""Likewise, where entries are meant whose code is still to be made."""
MOST_WISHES: Final = 256
_LENGTH: Final = 8
_SOURCES: Final = ("vcpus/translator", "isa", "isa/x86")
"""What quick code is made by, below the package, besides the instruction set's own."""


def directory(environment: "os._Environ[str] | dict[str, str]") -> str:
    """Where translations are kept: VIRTUS_CACHE, or below the user's cache directory."""
    named = environment.get("VIRTUS_CACHE")
    if named:
        return named
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME") or "/", ".cache")
    return os.path.join(base, "virtus", "translations")


def processor() -> str:
    """The host's processor and its features: code for one may not run on another."""
    with open("/proc/cpuinfo") as stream:
        lines = [line for line in stream if line.startswith(("model name", "flags"))]
    return os.uname().machine + "".join(sorted(set(lines)))


def sources(isa: InstructionSet) -> str:
    """The state of the translator's sources: quick code is for just these. (A version would be forgotten some day.)"""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = []
    for place in (*_SOURCES, f"isa/{isa.name}"):
        with suppress(OSError), os.scandir(os.path.join(package, place)) as entries:
            states = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".py")]
            found += [f"{place}/{name} {state.st_mtime_ns} {state.st_size}" for name, state in sorted(states)]
    return "\n".join(found)


class Cache:
    """The translations of one instruction set on this host; opened before the guest's root is entered.

    Where there is no directory to be had, nothing is kept, and nothing found.
    """

    def __init__(self, isa: InstructionSet, place: StrPath) -> None:
        self._fd = _open(place)
        salt = f"{isa.name} {isa.version} {VERSION} {processor()}"
        self._salt = digest(salt.encode())
        self._quick_salt = digest(self._salt + sources(isa).encode())

    @property
    def usable(self) -> bool:
        """Whether there is a place to keep anything."""
        return self._fd >= 0

    def _name(self, image: str) -> str:
        salt = self._quick_salt if image.startswith(QUICK) else self._salt
        return digest(salt + image.encode()).hex() + SUFFIX

    def load(self, image: str) -> list[Optimised]:
        """All optimised code that is kept for an image, possibly none."""
        try:
            return unpack(self._content(image))
        except (OSError, ValueError):
            self._drop(image)
            return []

    def load_quick(self, image: str) -> QuickImage | None:
        """The quick code that is kept for an image, if any."""
        try:
            return quick_image.unpack(self._content(QUICK + image))
        except (OSError, ValueError):
            self._drop(QUICK + image)
            return None

    def alone(self) -> bool:
        """Whether no other process has asked this before and lives; if so, this one is it until its end."""
        if self._fd < 0:
            return False
        lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held until the process ends
        except OSError:
            os.close(lock)
            return False
        return True

    def drop_quick(self, image: str) -> None:
        """Remove what is kept of quick code for an image."""
        self._drop(QUICK + image)

    def load_wishes(self, image: str) -> list[int]:
        """Guest addresses in an image whose code was hot in a former run, and had not been made at its end."""
        try:
            content = self._content(WISHES + image)
            return memoryview(content).cast("Q").tolist()
        except (OSError, ValueError, TypeError):
            self._drop(WISHES + image)
            return []

    def _content(self, image: str) -> bytes:
        """What a file has behind its checksum. Raises OSError where there is none, ValueError for a damaged one."""
        if self._fd < 0:
            raise FileNotFoundError(image)
        name = self._name(image)
        content = unsealed(self._read(name))
        with suppress(OSError):
            os.utime(name, dir_fd=self._fd)  # when it was last used
        return content

    def _drop(self, image: str) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.unlink(self._name(image), dir_fd=self._fd)

    def _read(self, name: str) -> bytes:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._fd)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise ValueError("not a file that only this user writes")
            if status.st_size > LARGEST_FILE:
                raise ValueError("too large")
            return stream.read()

    def store(self, units: dict[str, list[Optimised]]) -> None:
        """Add translations to what is kept for their images; the newest of an entry is kept. Never fails loudly."""
        for image, made in units.items():
            kept = {(tuple(unit.entries), unit.precise): unit for unit in [*self.load(image), *made]}
            self._keep(image, pack(kept.values()))
        self._tidy()

    def store_quick(self, made: dict[str, QuickImage]) -> None:
        """Add quick code to what is kept for its images. Never fails loudly."""
        for image, new in made.items():
            kept = self.load_quick(image)
            joined = new if kept is None else kept.joined(new)
            if len(joined.blob) <= quick_image.LARGEST:
                self._keep(QUICK + image, joined.pack())
        self._tidy()

    def store_wishes(self, entries: dict[str, list[int]]) -> None:
        """Keep such addresses in place of former ones. Never fails loudly."""
        for image, wished in entries.items():
            if wished:
                self._keep(WISHES + image, struct.pack(f"<{len(wished[:MOST_WISHES])}Q", *wished[:MOST_WISHES]))
            else:
                self._drop(WISHES + image)

    def _keep(self, image: str, content: bytes) -> None:
        if self._fd >= 0 and len(content) <= LARGEST_FILE:
            with suppress(OSError):
                self._write(self._name(image), sealed(content))

    def _write(self, name: str, data: bytes) -> None:
        beside = f".{os.getpid()}.{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._fd)
        descriptor = os.open(beside, flags, 0o600, dir_fd=self._fd)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
            os.rename(beside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError:
            with suppress(OSError):
                os.unlink(beside, dir_fd=self._fd)
            raise

    def _tidy(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                self._remove_longest_unused()

    def _remove_longest_unused(self) -> None:
        """Down to the limit; and what a killed process left half written."""
        files = []
        for name in os.listdir(self._fd):
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            if name.endswith(SUFFIX):
                files.append((status.st_mtime_ns, status.st_size, name))
        total = sum(size for _, size, _ in files)
        for _, size, name in sorted(files):
            if total <= MOST_BYTES and not name.startswith("."):
                continue
            if name.startswith(".") and os.path.exists(f"/proc/{name.split('.')[1]}"):
                continue
            os.unlink(name, dir_fd=self._fd)
            total -= size

    def close(self) -> None:
        """Give back the directory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(place: StrPath) -> int:
    """The directory, made where it is missing; -1 where it cannot be, or where others may write to it."""
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        os.close(descriptor)
        return -1
    return descriptor


def sealed(content: bytes) -> bytes:
    """A file's content behind its checksum."""
    return checksum([content]) + content


def unsealed(data: bytes) -> bytes:
    """What `sealed` was given; raises ValueError for anything else."""
    content = data[SIZE:]
    if len(data) < SIZE or checksum([content]) != data[:SIZE]:
        raise ValueError("not what was written")
    return content


def pack(units: Iterable[Optimised]) -> bytes:
    """Optimised code as a file has it."""
    index, blobs, at = [], [], 0
    for unit in units:
        parts = [unit.blob, *unit.code]
        index.append(
            {
                "at": at,
                "sizes": [len(part) for part in parts],
                "entries": [[pc, offset] for pc, offset in unit.entries.items()],
                "covers": [list(piece) for piece in unit.covers],
                "fast": [[pc, offset] for pc, offset in unit.fast.items()],
                "precise": unit.precise,
            }
        )
        blobs += parts
        at += sum(map(len, parts))
    head = json.dumps(index).encode()
    return len(head).to_bytes(_LENGTH, "little") + head + b"".join(blobs)


def unpack(data: bytes) -> list[Optimised]:
    """What `pack` made; raises ValueError for what cannot be."""
    length = int.from_bytes(data[:_LENGTH], "little")
    start = _LENGTH + length
    index: list[dict[str, Any]] = json.loads(data[_LENGTH:start])
    return [_unit(data, start, row) for row in index]


def _unit(data: bytes, start: int, row: dict[str, Any]) -> Optimised:
    at, parts = start + row["at"], []
    for size in row["sizes"]:
        parts.append(data[at : at + size])
        at += size
    blob, *code = parts
    entries = {int(pc): int(offset) for pc, offset in row["entries"]}
    covers = tuple((int(low), int(high)) for low, high in row["covers"])
    fast = {int(pc): int(offset) for pc, offset in row["fast"]}
    return Optimised(blob, entries, covers, tuple(code), bool(row["precise"]), fast)

"""The start image: the code of the modules that starts import, in one file of the user's cache.

For each module Python asks the host some ten times before it has read a file; where it may write no bytecode, it
compiles them all anew. Here a module costs one stat(2): an entry is used while its source has the time and the size
that it had, as Python does with bytecode. Whatever is wrong with the image, Python imports as ever. `image_writer`
makes it.
"""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than a start may
if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping
    from types import CodeType, ModuleType
    from typing import Any, Final

MAGIC: Final = b"virtus start 1\n\0"
LENGTH: Final = 8
"""Bytes of the number behind MAGIC: the index's length."""
OTHERS: Final = frozenset({"virtus", "click"})
"""What is taken besides Python's own library."""
LARGEST: Final = 32 << 20

Source = tuple[str, int, int]
"""A file's path, time in ns and size."""
Entry = tuple[bool, str, int, int, int, int]
"""Whether it is a package; its source's path, time in ns and size; and where its code is: offset and length."""


def directory(environment: Mapping[str, str]) -> str:
    """Where images are."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME") or "/", ".cache")
    return os.path.join(base, "virtus", "start")


def identity() -> str:
    """What an image is good for."""
    return f"{sys.version} {sys.prefix} {sys.flags.optimize} {os.path.dirname(os.path.dirname(__file__))}"


def image_name() -> str:
    """The file of this installation's."""
    place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return f"{sys.implementation.cache_tag}{place.replace('/', '%')[-180:]}.image"


def source(path: str) -> Source | None:
    """A file's state; None where there is none."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return path, state.st_mtime_ns, state.st_size


def opened(path: str) -> tuple[int, int] | None:
    """A descriptor and the size of a file of the user's own; None where there is none or others could have written
    it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    state = os.fstat(fd)
    if state.st_uid == os.geteuid() and not state.st_mode & 0o022:
        return fd, state.st_size
    os.close(fd)
    return None


class StartImage:
    """Finds modules in an image, in `sys.meta_path`; of damaged images nothing."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data: bytes | mmap.mmap = b""
        self._entries: dict[str, Entry] | None = {}
        self._take(data)

    @property
    def index(self) -> dict[str, Entry]:
        """What it has."""
        if self._entries is None:
            self._entries = {}  # for what opening it imports
            self._take(_opened(os.path.join(directory(os.environ), image_name())))
        return self._entries or {}

    @property
    def read(self) -> bool:
        """Whether its file has been looked at, as the first import does."""
        return self._entries is not None

    def open(self) -> None:
        """Have modules be found in the user's image from now on."""
        self._entries = None
        sys.meta_path.insert(0, self)

    def close(self) -> None:
        """Hold no file any more, and have nothing found."""
        data = self._data
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        self._take(b"")
        if not isinstance(data, bytes):
            data.close()

    def _take(self, data: bytes | mmap.mmap) -> None:
        self._data, self._entries = data, {}
        start = len(MAGIC) + LENGTH
        length = int.from_bytes(data[len(MAGIC) : start], "little")
        if data[: len(MAGIC)] == MAGIC and start + length <= len(data):
            try:
                made_for, index = marshal.loads(data[start : start + length])
                whole = start + length + sum(entry[5] for entry in index.values()) == len(data)
            except (ValueError, EOFError, TypeError, AttributeError, IndexError):
                return  # not the marshalled pair of an identity and entries
            if whole and made_for == identity():
                self._base, self._entries = start + length, index

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> Any:
        """See importlib.abc.MetaPathFinder."""
        entry = self.index.get(name)
        if entry is None or not self.is_current(entry):
            return None
        kind: Any = type(__spec__)  # importlib.machinery.ModuleSpec, without importing that
        spec = kind(name, self, origin=entry[1], is_package=entry[0])
        spec.has_location = True
        if entry[0]:
            spec.submodule_search_locations = [os.path.dirname(entry[1])]
        return spec

    @staticmethod
    def is_current(entry: Entry) -> bool:
        """Whether a module's source is what it was."""
        return source(entry[1]) == entry[1:4]

    def create_module(self, spec: Any) -> None:
        """See importlib.abc.Loader: as modules are made otherwise."""

    def exec_module(self, module: ModuleType) -> None:
        """See importlib.abc.Loader."""
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """See importlib.abc.InspectLoader."""
        return self._code(self.index[name])

    def _code(self, entry: Entry) -> CodeType:
        start = self._base + entry[4]
        code: CodeType = marshal.loads(self._data[start : start + entry[5]])
        return code

    def kept(self) -> dict[str, tuple[Entry, bytes]]:
        """What is still current, with its code."""
        found = {}
        for name, entry in self.index.items():
            if self.is_current(entry):
                start = self._base + entry[4]
                found[name] = entry, self._data[start : start + entry[5]]
        return found


def _opened(path: str) -> bytes | mmap.mmap:
    """An image's bytes; none where there is none or others could have written it."""
    own = opened(path)
    if own is None:
        return b""
    fd, size = own
    try:
        if not 0 < size <= LARGEST:
            return b""
        import mmap

        return mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return b""
    finally:
        os.close(fd)


def missing(image: StartImage, before: int = 0) -> list[str]:
    """The modules that this run has imported and the image does not have as they are; the first `before` are not looked
    at, nor are they touched, which would cost a copy of each one's page."""
    names = []
    latest = reversed(sys.modules)
    for name in [next(latest) for _ in range(before, len(sys.modules))]:
        module = sys.modules[name]
        top = name.partition(".")[0]
        path = getattr(getattr(getattr(module, "__spec__", None), "loader", None), "path", None)  # not from the image
        if path is None or not path.endswith(".py") or not (top in OTHERS or top in sys.stdlib_module_names):
            continue
        entry = image.index.get(name)
        if name != "__main__" and (entry is None or entry[1] != path or not image.is_current(entry)):
            names.append(name)
    return names

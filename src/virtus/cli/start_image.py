"""The start image: the code of the modules that starts import, in one file of the user's cache.

For each module Python asks the host some ten times before it has read a file; where it may write no bytecode, it
compiles them all anew. Here a module costs one stat(2): an entry is used while its source has the time and the size
that it had, as Python does with bytecode. Whatever is wrong with the image, Python imports as ever. A run that has
imported what the image does not have writes it anew at its end: as a whole, under another name first, so that readers
never see half of it.
"""

import marshal
import mmap
import os
import sys
from collections.abc import Mapping
from types import CodeType, ModuleType
from typing import Any, Final

MAGIC: Final = b"virtus start 1\n\0"
LENGTH: Final = 8
"""Bytes of the number behind MAGIC: the index's length."""
LARGEST: Final = 32 << 20
MOST_IMAGES: Final = 8
"""Of other versions and other places; the oldest go."""
STALE_S: Final = 60
"""A half-written image of this age is nobody's work any more."""
OTHERS: Final = frozenset({"virtus", "click"})
"""What is taken besides Python's own library."""
MOSTLY: Final = 20
"""A package of virtus of which so many modules are there is taken whole: guests' processes import the others."""

Entry = tuple[bool, str, int, int, int, int]
"""Whether it is a package; its source's path, time in ns and size; and where its code is: offset and length."""


def directory(environment: Mapping[str, str]) -> str:
    """Where images are."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME") or "/", ".cache")
    return os.path.join(base, "virtus", "start")


def _identity() -> str:
    """What an image is good for."""
    return f"{sys.version} {sys.prefix} {sys.flags.optimize} {os.path.dirname(os.path.dirname(__file__))}"


def _name() -> str:
    place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return f"{sys.implementation.cache_tag}{place.replace('/', '%')[-180:]}.image"


class StartImage:
    """Finds modules in an image, in `sys.meta_path`; of damaged images nothing."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self._data = data
        self.index: dict[str, Entry] = {}
        start = len(MAGIC) + LENGTH
        length = int.from_bytes(data[len(MAGIC) : start], "little")
        if data[: len(MAGIC)] == MAGIC and start + length <= len(data):
            try:
                identity, index = marshal.loads(data[start : start + length])
            except (ValueError, EOFError, TypeError):
                return
            if identity == _identity() and start + length + sum(entry[5] for entry in index.values()) == len(data):
                self._base, self.index = start + length, index

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
        try:
            state = os.stat(entry[1])
        except OSError:
            return False
        return (state.st_mtime_ns, state.st_size) == entry[2:4]

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


def _opened(path: str) -> StartImage:
    """The image, without contents where there is none or others could have written it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return StartImage(b"")
    try:
        state = os.fstat(fd)
        if state.st_uid != os.geteuid() or state.st_mode & 0o022 or not 0 < state.st_size <= LARGEST:
            return StartImage(b"")
        return StartImage(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError):
        return StartImage(b"")
    finally:
        os.close(fd)


def install() -> StartImage:
    """Have modules be found in the user's image from now on."""
    image = _opened(os.path.join(directory(os.environ), _name()))
    sys.meta_path.insert(0, image)
    return image


def missing(image: StartImage) -> list[str]:
    """The modules that this run has imported and the image does not have as they are."""
    names = []
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        path = getattr(getattr(getattr(module, "__spec__", None), "loader", None), "path", None)  # not from the image
        if path is None or not path.endswith(".py") or not (top in OTHERS or top in sys.stdlib_module_names):
            continue
        entry = image.index.get(name)
        if name != "__main__" and (entry is None or entry[1] != path or not image.is_current(entry)):
            names.append(name)
    return names


def _whole(names: list[str]) -> list[str]:
    """The other modules of packages of which most are among the names."""
    packages: dict[str, int] = {}
    for name in names:
        package = name.rpartition(".")[0]
        packages[package] = packages.get(package, 0) + 1
    others = []
    for package, count in packages.items():
        if package.startswith("virtus.") and count >= MOSTLY and package in sys.modules:
            place = os.path.dirname(str(sys.modules[package].__file__))
            files = [file[:-3] for file in os.listdir(place) if file.endswith(".py") and file != "__init__.py"]
            others += [f"{package}.{file}" for file in files]
    return [name for name in others if name not in sys.modules]


def _code_of(name: str) -> tuple[Entry, bytes] | None:
    """A module as Python would import it: its entry, not placed yet, and its code; None for what has no source."""
    from importlib.util import find_spec

    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else find_spec(name)
    path = getattr(getattr(spec, "loader", None), "path", None)
    if spec is None or spec.loader is None or path is None or not path.endswith(".py"):
        return None
    state = os.stat(path)
    code = marshal.dumps(spec.loader.get_code(name))  # type: ignore[attr-defined]
    return (spec.submodule_search_locations is not None, path, state.st_mtime_ns, state.st_size, 0, 0), code


def write(image: StartImage) -> None:
    """Write the image anew where this run has imported what it lacks. Nothing is said where that is not possible."""
    names = missing(image)
    if not names:
        return
    place = directory(os.environ)
    path = os.path.join(place, _name())
    half = f"{path}.half"
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)
        fd = _claimed(half)
        if fd is None:
            return
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(_file(_collected(image, names)))
            os.replace(half, path)
        except BaseException:
            os.unlink(half)
            raise
        _prune(place)
    except Exception:
        pass  # a full or read-only disk, a source that has just changed: no reason to spoil a run that has succeeded


def _collected(image: StartImage, names: list[str]) -> dict[str, tuple[Entry, bytes]]:
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not image]
    found = image.kept()
    for name in [*names, *_whole([*names, *found])]:
        made = _code_of(name)
        if made is not None:
            found[name] = made
    return found


def _claimed(half: str) -> int | None:
    """The file to write, None while another run writes it."""
    try:
        return os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        import time

        if time.time() - os.stat(half).st_mtime > STALE_S:
            os.unlink(half)
        return None


def _file(found: dict[str, tuple[Entry, bytes]]) -> bytes:
    index, codes, offset = {}, [], 0
    for name, (entry, code) in found.items():
        index[name] = (*entry[:4], offset, len(code))
        codes.append(code)
        offset += len(code)
    head = marshal.dumps((_identity(), index))
    if offset + len(head) > LARGEST - 64:
        raise ValueError("too much")
    return b"".join([MAGIC, len(head).to_bytes(LENGTH, "little"), head, *codes])


def _prune(place: str) -> None:
    """Leave the newest images."""
    images = [entry for entry in os.scandir(place) if entry.name.endswith(".image")]
    for entry in sorted(images, key=lambda entry: entry.stat().st_mtime)[:-MOST_IMAGES]:
        os.unlink(entry.path)

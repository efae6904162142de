"""Writes the start image: see `start_image`.

A run that has imported what the image does not have writes it anew at its end, as a whole, under another name first: so
readers never see half of it. Where several runs end at once, one writes.
"""

import marshal
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from virtus.cli import start_image
from virtus.cli.start_image import Entry, StartImage

MOST_IMAGES: Final = 8
"""Of other versions and other places; the oldest go."""
STALE_S: Final = 60
"""A half-written image of this age is nobody's work any more."""
MOSTLY: Final = 20
"""A package of virtus of which so many modules are there is taken whole: guests' processes import the others."""


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


def write(image: StartImage, names: list[str]) -> None:
    """Write the image anew, with these modules. Nothing is said where that is not possible."""
    place = start_image.directory(os.environ)
    path = os.path.join(place, start_image.image_name())
    try:
        with whole(path, MOST_IMAGES) as half:
            if half is not None:
                with open(half, "wb") as stream:
                    stream.write(_file(_collected(image, names)))
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


@contextmanager
def whole(path: str, most: int) -> Iterator[str | None]:
    """The name of an empty file to fill, which has the name `path` once the block ends well; None while another run
    writes it. Of files with the same suffix there, the `most` newest are left."""
    place, half = os.path.dirname(path), f"{path}.half"
    os.makedirs(place, mode=0o700, exist_ok=True)
    if not _claimed(half):
        yield None
        return
    try:
        yield half
        os.replace(half, path)
    except BaseException:
        os.unlink(half)
        raise
    _prune(place, os.path.splitext(path)[1], most)


def _claimed(half: str) -> bool:
    """Make a file to write; False while another run writes it."""
    try:
        os.close(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    except FileExistsError:
        import time

        if time.time() - os.stat(half).st_mtime > STALE_S:
            os.unlink(half)
        return False
    return True


def _file(found: dict[str, tuple[Entry, bytes]]) -> bytes:
    index, codes, offset = {}, [], 0
    for name, (entry, code) in found.items():
        index[name] = (*entry[:4], offset, len(code))
        codes.append(code)
        offset += len(code)
    head = marshal.dumps((start_image.identity(), index))
    if offset + len(head) > start_image.LARGEST - 64:
        raise ValueError("too much")
    return b"".join([start_image.MAGIC, len(head).to_bytes(start_image.LENGTH, "little"), head, *codes])


def _prune(place: str, suffix: str, most: int) -> None:
    """Leave the newest."""
    found = [entry for entry in os.scandir(place) if entry.name.endswith(suffix)]
    for entry in sorted(found, key=lambda entry: entry.stat().st_mtime)[:-most]:
        os.unlink(entry.path)

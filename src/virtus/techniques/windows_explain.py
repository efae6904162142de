"""What a Windows program needs, and whether it is there, told before anything runs: `virtus run --explain`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from virtus.errors import GuestNotRunnable
from virtus.guests import pe
from virtus.personalities.win32 import catalogue, modules
from virtus.personalities.win32.ordinals import named
from virtus.records import dataclass, field

MOST_LIBRARIES: Final = 500


@dataclass(slots=True)
class Need:
    """What is imported from one library, and where that comes from; `missing` is what nobody has."""

    library: str
    source: str  # "virtus", "beside the program", "Wine's C runtime", or "nowhere"
    count: int = 0
    missing: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Explanation:
    """All of it. `obstacle` is why the program cannot start at all, "" where it can."""

    program: str
    obstacle: str = ""
    remedy: str = ""
    needs: dict[str, Need] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """How many functions nobody has."""
        return sum(len(need.missing) for need in self.needs.values())

    def verdict(self) -> str:
        """What follows, in a line."""
        if self.obstacle:
            return f"cannot run: {self.obstacle}" + (f"; {self.remedy}" if self.remedy else "")
        if not self.missing:
            return "every function that it imports is there: run it"
        words = f"{self.missing} imported functions are not there"
        return f"{words}; it runs until it calls one of them, and ends with that one's name; wine may have them"

    def lines(self) -> Iterator[str]:
        """For a person."""
        yield f"{self.program}: a Windows program for x86-64"
        for need in sorted(self.needs.values(), key=lambda need: need.library):
            there = need.count - len(need.missing)
            yield f"  {need.library:28} {there:4} of {need.count:<4} functions there, from {need.source}"
            for name in need.missing:
                yield f"      missing: {name}"
        yield self.verdict()


def explain(path: Path) -> Explanation:
    """Look at a program and, by their imports, at the libraries that lie beside it."""
    found = Explanation(str(path))
    waiting, seen = [path], {path.name.lower()}
    while waiting and len(seen) < MOST_LIBRARIES:
        current = waiting.pop()
        try:
            image = pe.parse(current.read_bytes(), current.name)
            imports = [*image.imports(), *image.delay_imports()]
        except GuestNotRunnable as error:
            found.obstacle, found.remedy = error.found, error.remedy
            return found
        except OSError as error:
            found.obstacle = f"{current}: {error.strerror}"
            return found
        if current is path:
            found.obstacle, found.remedy = modules.obstacle(image)
        for wanted in imports:
            library = _library(found, path.parent, wanted.dll)
            need = found.needs[library]
            need.count += 1
            name = named(library.removesuffix(".dll"), wanted.name)
            if need.source == "nowhere" or (need.source == "virtus" and not catalogue.exists(name)):
                need.missing.append(wanted.name)
            if need.source == "beside the program" and library not in seen:
                seen.add(library)
                waiting.append(_beside(path.parent, library) or path)
    return found


def _library(found: Explanation, directory: Path, dll: str) -> str:
    library = modules.real_name(dll)
    if library not in found.needs:
        found.needs[library] = Need(library, _source(directory, library))
    return library


def _beside(directory: Path, library: str) -> Path | None:
    return next((directory / name for name in os.listdir(directory) if name.lower() == library), None)


def _source(directory: Path, library: str) -> str:
    runtime = library in modules.RUNTIMES
    if library.removesuffix(".dll") in catalogue.dlls() and not runtime:
        return "virtus"
    if _beside(directory, library) is not None:
        return "beside the program"
    if runtime and any(os.path.isfile(os.path.join(place, library)) for place in modules.WINE_LIBRARIES):
        return "Wine's C runtime"
    return "virtus" if library.removesuffix(".dll") in catalogue.dlls() else "nowhere"

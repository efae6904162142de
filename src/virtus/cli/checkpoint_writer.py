"""Makes the checkpoint that later starts go on in: see `start_checkpoint`.

A process of its own, of low priority: imports what the start image has, forks, and writes the child down, under another
name first, and tries it. Where several starts ask for one at once, one writes.
"""

import _signal  # type: ignore[import-not-found]  # see start_checkpoint
import codecs
import gc
import importlib
import os
import sys
import time
from types import ModuleType
from typing import Any, Final

from virtus import records
from virtus.cli import IMAGE, image_writer, start_checkpoint, start_image
from virtus.host.checkpoint import NotPossible, Parking, mappings, write
from virtus.techniques import user_mode_kernel

MOST: Final = 6
"""Checkpoints, of different environments; those go that have not been used for longest."""
SETTLED_NS: Final = 2_000_000_000
"""A source that is younger may still be written."""
LEFT_OUT: Final = frozenset({"ssl", "_ssl", "secrets", "uuid"})
"""What has random state or secrets of its own when it has been imported."""
TRY_S: Final = 10
MOST_DESCRIPTORS: Final = 1 << 16
"""Below here are those that the run that asked has from its parent."""
NICE: Final = 10
"""How much lower its priority is (nice(2))."""


class _TooEarly(Exception):
    """A source may still be written: a later start may ask again."""


class _Blocker:
    """Keeps libraries out that not every start needs: a module that imports one is left out, too."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> None:
        """See importlib.abc.MetaPathFinder."""
        top = name.partition(".")[0]
        known = top in start_image.OTHERS or top in sys.stdlib_module_names
        if name in LEFT_OUT or not known:
            raise ImportError(name)


def _import(names: list[str]) -> None:
    blocker = _Blocker()
    sys.meta_path.insert(0, blocker)
    for name in names:
        if not name.endswith("__main__"):
            try:
                importlib.import_module(name)
            except ImportError:
                pass  # it needs what is left out
    sys.meta_path.remove(blocker)


def _sources(since: int) -> list[start_image.Source]:
    """The files that all of this was made from; Python's own are as old as the interpreter. Raises _TooEarly where one
    has just been written."""
    specs = [getattr(module, "__spec__", None) for module in list(sys.modules.values())]
    paths = {spec.origin for spec in specs if spec is not None and spec.name.partition(".")[0] in start_image.OTHERS}
    paths.discard(None)  # a namespace's
    paths |= {line.name for line in mappings(os.getpid()) if line.name.startswith("/")} | {sys.executable}
    found = [start_image.source(path) for path in sorted(paths)]
    kept = [each for each in found if each is not None]
    if len(kept) != len(found) or any(each[1] > since - SETTLED_NS for each in kept):
        raise _TooEarly
    return kept


def _prepare() -> None:
    """What modules put off until it is needed, as few starts need it."""
    records.prepare()
    codecs.lookup("utf-16-le")
    user_mode_kernel.prepare()


def _parked() -> tuple[int, Parking]:
    """A child that stands where later starts go on."""
    _prepare()
    gc.collect()
    gc.freeze()
    parking = Parking()
    child = os.fork()
    if not child:
        try:
            for number in range(1, _signal.NSIG):
                usual = _signal.getsignal(number) in (_signal.SIG_DFL, None)
                if not usual and number not in start_checkpoint.BY_PYTHON:
                    _signal.signal(number, _signal.SIG_DFL)
            address = parking.park()
            if address:
                start_checkpoint.restored(address)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise NotPossible(f"the child ended: {status}")
    return child, parking


def _works(path: str) -> bool:
    """Whether a checkpoint goes on."""
    told = {**os.environ, start_checkpoint.TOLD: start_checkpoint.CHECK}
    try:
        tried = os.posix_spawn(path, [path], told)
    except OSError:
        return False  # in a file system without execution, for one
    until = time.monotonic() + TRY_S
    while time.monotonic() < until:
        done, status = os.waitpid(tried, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == start_checkpoint.CHECKED
        time.sleep(0.005)
    os.kill(tried, _signal.SIGKILL)
    os.waitpid(tried, 0)
    return False


def _write(half: str, made_for: str) -> None:
    """Fill the file; raises NotPossible, _TooEarly."""
    since = time.time_ns()
    IMAGE.open()
    start_checkpoint.START.asked = frozenset(IMAGE.index)
    _import(list(IMAGE.index))
    sources = _sources(since)
    IMAGE.close()
    start_checkpoint.START.imported = len(sys.modules)
    child, parking = _parked()
    try:
        with open(half, "wb") as stream:
            write(child, parking, stream, sys.executable)
            stream.seek(0, os.SEEK_END)
            stream.write(start_checkpoint.tail(made_for, True, sources, sorted(sys.modules)))
    finally:
        os.kill(child, _signal.SIGKILL)
        os.waitpid(child, 0)
    os.chmod(half, 0o700)
    if not _works(half):
        raise NotPossible("it does not go on")


def _refusal(half: str, made_for: str) -> None:
    """So that starts do not ask again until something changes."""
    executable = start_image.source(sys.executable)
    own = start_image.source(__file__)
    with open(half, "wb") as stream:
        stream.write(start_checkpoint.tail(made_for, False, [each for each in (executable, own) if each], []))


def main() -> None:
    """Write it, or leave everything as it is."""
    os.nice(NICE)
    os.chdir("/")
    os.closerange(3, MOST_DESCRIPTORS)
    made_for = sys.argv[-1]
    try:
        with image_writer.whole(start_checkpoint.path_for(made_for), MOST) as half:
            if half is None:
                return
            try:
                if start_checkpoint.identity() != made_for:
                    raise NotPossible("an interpreter like the one that asked cannot be had")
                _write(half, made_for)
            except NotPossible:
                _refusal(half, made_for)
    except _TooEarly:
        return

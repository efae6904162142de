"""Starts go on where an earlier one stood: after its imports, in a checkpoint of that process (`host.checkpoint`).

Of what a start takes, most is imports, and they come to the same each time. `enter` executes the checkpoint in place of
this interpreter, when one is there that was made on this boot of the kernel by an interpreter like this one from the
sources as they are now; it costs about a millisecond. Else, or where that fails, the start goes on as ever, and has
`checkpoint_writer` make one at its end. VIRTUS_CHECKPOINT=no in the environment leaves all of this alone.

What differs from run to run is set anew: arguments, environment, standard streams, treatment of signals, seeds.
Addresses and the secret of str hashes are the same for all runs with one checkpoint, as for children of one server.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the part of `signal` that needs no import of others
import marshal
import os
import sys

from virtus.cli import start_image
from virtus.cli.start_image import Source, StartImage, source

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than a start may
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

SWITCH: Final = "VIRTUS_CHECKPOINT"
TOLD: Final = "VIRTUS_START"
"""In the environment of a process that is to go on: how many of its last words are the command line, which signals it
ignores, as a mask, and where it looks for modules first."""
WRITER: Final = "import sys; sys.path[:1] = sys.argv[1:2]; from virtus.cli import checkpoint_writer as it; it.main()"
"""Nothing is imported from the working directory, which may be anybody's."""
CHECK: Final = "check"
"""In its place: only show that going on works, by this exit status."""
CHECKED: Final = 73
MAGIC: Final = b"virtus checkpoint 1\n"
LENGTH: Final = 8
LARGEST_INDEX: Final = 1 << 20
SUFFIX: Final = ".checkpoint"
BOOT: Final = "/proc/sys/kernel/random/boot_id"
READ_AT_START: Final = ("LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "PYTHON", "TZ")
"""Beginnings of the names of variables that libc and the interpreter read when they start."""
BY_PYTHON: Final = (_signal.SIGPIPE, _signal.SIGXFSZ)
"""Signals that every interpreter ignores."""
MERSENNE: Final = (1 << 61) - 1


def _place() -> int:
    """Where in `sys.path` the entries begin that an interpreter has from its installation; before it, a directory that
    is its start's own (-P leaves that out)."""
    return 0 if sys.flags.safe_path else 1


def identity() -> str:
    """What a checkpoint is good for. Raises OSError where the kernel does not tell its boot."""
    with open(BOOT, encoding="ascii") as stream:
        boot = stream.read()
    streams = [(each.encoding, each.errors) for each in (sys.stdin, sys.stdout, sys.stderr)]
    read = sorted((name, value) for name, value in os.environ.items() if name.startswith(READ_AT_START))
    flags = (tuple(sys.flags), sys.warnoptions, sorted(sys._xoptions.items()))
    return repr(
        (start_image.identity(), sys.executable, sys.path[_place() :], flags, streams, boot, os.geteuid(), read)
    )


def path_for(made_for: str) -> str:
    """The file of this identity's checkpoint."""
    number = int.from_bytes(made_for.encode("utf-8", "surrogateescape"), "little") % MERSENNE
    return os.path.join(start_image.directory(os.environ), f"{number:016x}{SUFFIX}")


def tail(made_for: str, usable: bool, sources: list[Source], names: list[str]) -> bytes:
    """What stands at the end of a checkpoint, or alone where none can be made."""
    index = marshal.dumps((made_for, usable, sources, names))
    return index + len(index).to_bytes(LENGTH, "little") + MAGIC


def _index(path: str) -> tuple[str, bool, list[Source], list[str]] | None:
    """A checkpoint's tail; None of what is damaged or could have been written by others."""
    own = start_image.opened(path)
    if own is None:
        return None
    fd, size = own
    try:
        end = size - len(MAGIC) - LENGTH
        if end < 0:
            return None
        last = os.pread(fd, LENGTH + len(MAGIC), end)
        length = int.from_bytes(last[:LENGTH], "little")
        if last[LENGTH:] != MAGIC or not 0 < length <= min(end, LARGEST_INDEX):
            return None
        made_for, usable, sources, names = marshal.loads(os.pread(fd, length, end - length))
        return made_for, usable, sources, names
    except (OSError, ValueError, EOFError, TypeError):
        return None  # not what `tail` has written
    finally:
        os.close(fd)


def _ordinary() -> bool:
    """Whether this interpreter is one whose place another process can take."""
    threading = sys.modules.get("threading")
    alone = threading is None or threading.active_count() == 1
    streams = None not in (sys.stdin, sys.stdout, sys.stderr)
    return alone and streams and sys.gettrace() is None and sys.getprofile() is None and not sys.flags.interactive


class Start:
    """A start of the command line, and its checkpoint."""

    def __init__(self) -> None:
        self.restored = False
        self.asked: frozenset[str] = frozenset()
        """Of a checkpoint's process: the modules that the image had when it was made,"""
        self.imported = 0
        """and how many it had imported by then."""
        self._wanted: str | None = None

    def enter(self) -> None:
        """Go on in the checkpoint, and not return; or return where there is no current one."""
        if os.environ.pop(TOLD, None) is not None:
            return  # one has been tried
        if os.environ.get(SWITCH) == "no" or not _ordinary():
            return
        try:
            made_for = identity()
        except OSError:
            return
        path = path_for(made_for)
        index = _index(path)
        if index is None or index[0] != made_for or any(source(each[0]) != each for each in index[2]):
            self._wanted = made_for
            return
        known = set(index[3])
        if not index[1] or not all(name in known for name in sys.modules):
            return
        ignored = sum(1 << number for number in range(1, _signal.NSIG) if _signal.getsignal(number) == _signal.SIG_IGN)
        try:
            os.utime(path)  # those that are not used go
            told = f"{len(sys.argv) - 1} {ignored} {''.join(sys.path[: _place()])}"
            os.execve(path, sys.orig_argv, os.environ | {TOLD: told})
        except OSError:
            return  # from a file system without execution, for one: this start can do it by itself

    def leave(self, image: StartImage) -> None:
        """At the end of a start that has imported nothing but what the image has: have a checkpoint made, where there
        is none, or one without what has been imported."""
        stale = self.restored and image.read and not self.asked.issuperset(image.index)
        if not stale and (self._wanted is None or not image.index):
            return
        null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
        files = [null, (os.POSIX_SPAWN_DUP2, 0, 1), (os.POSIX_SPAWN_DUP2, 0, 2)]
        from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # as multiprocessing does

        words = [sys.executable, *_args_from_interpreter_flags(), "-c", WRITER]
        try:
            words += [*sys.path[: _place()], self._wanted or identity()]
            os.posix_spawn(sys.executable, words, os.environ, file_actions=files, setsid=True)
        except OSError:
            return  # no process to spare: the next start may have one


START: Final = Start()


def _words(address: int) -> tuple[list[str], dict[bytes, bytes]]:
    """Arguments and environment, as the kernel puts them on a new process's stack (System V ABI, AMD64, 3.4.1)."""
    import ctypes

    def strings(at: int) -> list[bytes]:
        found = []
        while pointer := ctypes.c_uint64.from_address(at).value:
            found.append(ctypes.string_at(pointer))
            at += 8
        return found

    words = strings(address + 8)
    pairs = (each.partition(b"=") for each in strings(address + 8 * (len(words) + 2)))
    return [os.fsdecode(word) for word in words], {name: value for name, _, value in pairs}


def _stream(fd: int, like: Any) -> Any:
    """A standard stream, as an interpreter makes it."""
    mode = "w" if fd else "r"
    stream = open(fd, mode, encoding=like.encoding, errors=like.errors, newline="\n", closefd=False)
    stream.buffer.raw.name = like.name  # type: ignore[attr-defined]
    stream.mode = mode  # type: ignore[misc]  # of a TextIOWrapper it can be set
    if fd == 2:
        stream.reconfigure(line_buffering=True)  # type: ignore[attr-defined]
    return stream


def _set_signals(ignored: int) -> None:
    """Have the interpreter know which signals are ignored, and treat interruptions as it does."""
    for number in range(1, _signal.NSIG):
        if ignored >> number & 1 and number not in BY_PYTHON:
            _signal.signal(number, _signal.SIG_IGN)
    if not ignored >> _signal.SIGINT & 1:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


def _end(status: int) -> NoReturn:
    """End as an interpreter does that comes to the end of its program: threads are waited for."""
    import ctypes

    ctypes.pythonapi.Py_Exit(status)
    raise AssertionError  # Py_Exit does not return


def restored(address: int) -> NoReturn:
    """What a process does first that was started from the checkpoint, `address` as `Parking.park` gives it."""
    words, environment = _words(address)
    told = os.fsdecode(environment.pop(TOLD.encode(), b""))
    if told == CHECK:
        os._exit(CHECKED)
    os.environb.clear()
    os.environb.update(environment)
    count, ignored, place = told.split(" ", 2)
    sys.path[: _place()] = [place][: _place()]
    _set_signals(int(ignored))
    sys.orig_argv[:] = words
    sys.argv[:] = ["virtus", *words[len(words) - int(count) :]]
    for name, fd in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream = _stream(fd, getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if "random" in sys.modules:
        sys.modules["random"].seed()
    if "threading" in sys.modules:
        sys.modules["threading"].main_thread()._set_native_id()
    START.restored = True
    from virtus.cli import main

    try:
        main.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # what an interpreter does with what nobody has caught
        sys.excepthook(*sys.exc_info())
        status = 1
    _end(status)

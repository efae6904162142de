"""What the techniques that boot systems have in common: reading images, opening disks, and ending in order."""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from virtus.devices.disk import Disk
from virtus.errors import GuestNotFound, GuestNotRunnable, UsageError, VirtusError

STATUS_OF_SIGNAL: Final = 128
PATIENCE_S: Final = 0.5


def read_image(path: Path) -> bytes:
    """A kernel's or a ramdisk's bytes; raises GuestNotFound or GuestNotRunnable."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise GuestNotFound(f"reading {path}", "no such file") from error
    except OSError as error:
        raise GuestNotRunnable(f"reading {path}", error.strerror or str(error)) from error


def open_disk(
    path: Path, things: contextlib.ExitStack, *, read_only: bool, snapshot: bool = False, form: str = ""
) -> Disk:
    """A disk that is closed with `things`, which may raise VirtusError; raises UsageError."""
    try:
        disk = Disk(path, read_only=read_only, snapshot=snapshot, form=form)
    except OSError as error:
        raise UsageError(f"opening the disk {path}", error.strerror or str(error)) from error

    def close() -> None:
        try:
            disk.close()
        except OSError as error:
            raise VirtusError(f"closing the disk {path}", error.strerror or str(error)) from error

    things.callback(close)
    return disk


def default_name(kernel: Path) -> str:
    """How `virtus domain` calls a machine that its user has not named: by its image and our process."""
    letters = re.sub(r"[^A-Za-z0-9_.-]", "-", kernel.name)[:32].strip(".-_")
    return f"{letters or 'machine'}.{os.getpid()}"


def ethernet_address(prefix: bytes, name: str) -> bytes:
    """Of those that begin with these three bytes: the same for the same name, any where there is none."""
    if not name:
        return prefix + os.urandom(3)
    from hashlib import sha256

    return prefix + sha256(name.encode()).digest()[:3]


@contextlib.contextmanager
def ended_by_signals(end: Callable[[int], None] | None = None) -> Iterator[None]:
    """A request to end ends the machine as a power cut would, and leaves the terminal as it was.

    `end` is called with the status, and has the machine end soon: for who may be where an exception is lost, such as a
    callback of a library. If that does not come to an end, because nobody reads what it shows, the exception does.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return

    def leave(number: int, frame: object) -> None:
        if end is None or number == signal.SIGALRM:
            raise SystemExit(statuses[-1] if statuses else STATUS_OF_SIGNAL + number)
        statuses.append(STATUS_OF_SIGNAL + number)
        end(statuses[-1])
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S, PATIENCE_S)

    statuses: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGHUP) if end is None else (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        if statuses:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)

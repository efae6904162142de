"""What the techniques that boot systems have in common: reading images, opening disks, and ending in order."""

import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

from virtus.devices.disk import Disk
from virtus.errors import GuestNotFound, GuestNotRunnable, UsageError, VirtusError


def read_image(path: Path, most: int = -1) -> bytes:
    """A kernel's or a ramdisk's bytes, at most so many; raises GuestNotFound or GuestNotRunnable."""
    try:
        with path.open("rb") as stream:
            return stream.read(most)
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


def ethernet_address(prefix: bytes, name: str) -> bytes:
    """Of those that begin with these three bytes: the same for the same name, any where there is none."""
    return prefix + (hashlib.sha256(name.encode()).digest() if name else os.urandom(3))[:3]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """A request to end ends the machine as a power cut would, and leaves the terminal as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    raise SystemExit(128 + number)

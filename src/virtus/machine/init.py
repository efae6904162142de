"""PID 1 of a box whose guest the host's kernel serves: starts the guest as PID 2, reaps, passes signals on."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import termios
from collections.abc import Callable, Mapping, Sequence

from virtus.errors import GuestNotFound, GuestNotRunnable
from virtus.host import dispositions
from virtus.host.channel import Channel

TTY_NAME = "/dev/ptmx"
TIOCSPTLCK, TIOCGPTN = 0x40045431, 0x80045430  # include/uapi/asm-generic/ioctls.h


def open_terminal() -> tuple[int, int]:
    """A new pty in the box's own devpts: master and slave."""
    master = os.open(TTY_NAME, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    number = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, struct.pack("i", 0)))[0]
    slave = os.open(f"/dev/pts/{number}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    cwd: str,
    slave: int,
    terminals: Sequence[int],
    body: Callable[[Sequence[str]], None] | None = None,
) -> tuple[int, int]:
    """Fork and execute the guest in a session of its own; its pid, and a descriptor that tells how exec failed.

    `slave` becomes the controlling terminal and replaces the standard streams in `terminals`; -1 for none. With `body`
    nothing is executed: the guest is what `body` does with `argv`, until it ends its process.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(tell)
        return pid, told
    try:
        os.setsid()
        if slave >= 0:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for fd in terminals:
                os.dup2(slave, fd, inheritable=True)
        dispositions.set_default()
        for name in os.listdir("/proc/self/fd"):  # what the caller had open is not the guest's
            if int(name) > 2 and int(name) != tell:
                with contextlib.suppress(OSError):  # the directory's own, closed by now
                    os.close(int(name))
        os.chdir(cwd)
        if body is not None:
            os.close(tell)
            _set_environment(environment)
            body(argv)
        os.execvpe(argv[0], list(argv), dict(environment))
    except OSError as error:
        os.write(tell, struct.pack("<i", error.errno or 0))
    finally:
        os._exit(127)


def _set_environment(environment: Mapping[str, str]) -> None:
    """Have these variables and no others; those that are so already are not touched."""
    before = dict(os.environ)
    for name in before.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment.items() - before.items())


def started(told: int, name: str) -> None:
    """Wait until the guest's program runs; raises GuestNotFound or GuestNotRunnable when it cannot."""
    failure = os.read(told, 4)
    os.close(told)
    if not failure:
        return
    number = struct.unpack("<i", failure)[0]
    if number in (2, 20):  # ENOENT, ENOTDIR
        raise GuestNotFound(f"starting {name}", "it, or the interpreter it names, is not in the guest's root")
    raise GuestNotRunnable(f"starting {name}", os.strerror(number))


def serve(guest: int, control: Channel, at_end: Callable[[], None]) -> int:
    """Reap until the guest has ended; its wait status. `control` delivers signal numbers for it, one byte each."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        status = _reap(guest)
        if status is not None:
            at_end()
            return status
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 512)
        if control.fileno() in ready:
            numbers = control.recv(64)
            if not numbers:
                raise SystemExit(137)  # the supervisor is gone
            for number in numbers:
                os.kill(guest, number)


def _reap(guest: int) -> int | None:
    """Collect every ended child; the guest's status when it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        if pid == guest:
            found = status

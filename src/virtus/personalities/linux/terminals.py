"""Terminals: the host's line disciplines, the kernel's own job control.

A pseudo-terminal is one of the machine's own devpts instance; the console is the tty that the user started virtus on.
The host knows no session for either (the kernel process opens them with O_NOCTTY), so what the host's tty layer does
for sessions is done here: controlling terminals, foreground groups, the signals of ^C and hang-up, SIGTTIN and SIGTTOU.
"""

import array
import errno
import fcntl
import os
import select
import signal
import termios
from collections.abc import Callable
from struct import Struct, pack, unpack
from time import monotonic_ns
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary, WeakValueDictionary

from virtus.personalities.linux import delivery, job_control
from virtus.personalities.linux.blocking import FOREVER, Blocking, Wait, after
from virtus.personalities.linux.files import File
from virtus.personalities.linux.pipes import PIECE
from virtus.personalities.linux.results import RESTART
from virtus.personalities.linux.signals import SIG_IGN

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Process, Task

SIGHUP, SIGINT, SIGQUIT, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH = 1, 2, 3, 18, 20, 21, 22, 28

# include/uapi/asm-generic/ioctls.h
TCGETS, TCGETA, TCSBRK, TCXONC, TCFLSH = 0x5401, 0x5405, 0x5409, 0x540A, 0x540B
TIOCEXCL, TIOCNXCL, TIOCSCTTY, TIOCGPGRP, TIOCSPGRP, TIOCOUTQ = 0x540C, 0x540D, 0x540E, 0x540F, 0x5410, 0x5411
TIOCSTI, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, TIOCLINUX, TIOCCONS, TIOCPKT = (
    0x5412, 0x5413, 0x5414, 0x541B, 0x541C, 0x541D, 0x5420,
)  # fmt: skip
TIOCNOTTY, TIOCGETD, TCSBRKP, TIOCGSID, TCGETS2 = 0x5422, 0x5424, 0x5425, 0x5429, 0x802C542A
TIOCGPTN, TIOCSPTLCK, TIOCGDEV, TIOCSIG, TIOCGPKT, TIOCGPTLCK, TIOCGEXCL, TIOCGPTPEER = (
    0x80045430, 0x40045431, 0x80045432, 0x40045436, 0x80045438, 0x80045439, 0x80045440, 0x5441,
)  # fmt: skip
TERMIOS: Final = Struct("<4IB19s")  # struct termios: input, output, control, local flags, discipline, characters
READS: Final = {
    TCGETS: TERMIOS.size, TCGETS2: 44, TCGETA: 18, TIOCGWINSZ: 8, TIOCOUTQ: 4, FIONREAD: 4, TIOCGETD: 4, TIOCGDEV: 4,
    TIOCGEXCL: 4,
}  # fmt: skip
MASTER_READS: Final = {TIOCGPTN: 4, TIOCGPKT: 4, TIOCGPTLCK: 4}
SETS: Final = {
    0x5402: TERMIOS.size, 0x5403: TERMIOS.size, 0x5404: TERMIOS.size,  # TCSETS, TCSETSW, TCSETSF
    0x402C542B: 44, 0x402C542C: 44, 0x402C542D: 44,  # TCSETS2, TCSETSW2, TCSETSF2
    0x5406: 18, 0x5407: 18, 0x5408: 18,  # TCSETA, TCSETAW, TCSETAF
}  # fmt: skip
"""Changes: not from the background."""
PLAIN: Final = frozenset({TCSBRK, TCXONC, TCFLSH, TCSBRKP})
"""Changes with a number as their argument."""
MASTER_SETS: Final = {TIOCSPTLCK: 4, TIOCPKT: 4}
DANGEROUS: Final = frozenset({TIOCSTI, TIOCLINUX, TIOCCONS})
"""What would let a guest type into the terminal of its user."""
CONSOLE: Final = "/dev/console"
DECISECOND: Final = 100_000_000


class Terminal:
    """One terminal: its session, and the process group in its foreground (0 for none)."""

    def __init__(self, kernel: "Kernel", name: str, reopen: Callable[[int], int]) -> None:
        self.kernel = kernel
        self.name = name
        self.reopen = reopen  # open(2) flags to a new host descriptor
        self.session = self.foreground = 0
        self.hung_up = False

    def signal(self, number: int) -> None:
        """A signal for the foreground group."""
        if self.foreground:
            delivery.post_group(self.kernel, self.foreground, number)

    def control(self, process: "Process") -> None:
        """Become the controlling terminal of the session that this process leads."""
        process.terminal = self
        self.session = process.session
        self.foreground = process.group

    def release(self) -> None:
        """The session has no controlling terminal any more."""
        for process in self.kernel.processes.values():
            if process.terminal is self:
                process.terminal = None
        self.session = self.foreground = 0

    def hang_up(self) -> None:
        """The other side is gone (the modem, the terminal's window)."""
        self.hung_up = True
        leader = self.kernel.processes.get(self.session)
        for process in self.kernel.processes.values():
            if process.terminal is self and process is not leader:
                process.terminal = None
        if leader is not None and leader.alive:
            delivery.post(leader, SIGHUP)  # when it ends, the foreground group is told
            delivery.post(leader, SIGCONT)

    def check_foreground(self, task: "Task", number: int) -> None:
        """A background process reads (SIGTTIN) or changes (SIGTTOU): its group is stopped, and the call made again.

        Raises EIO where the signal would not stop it for long, or -RESTART (fs: __tty_check_change).
        """
        process = task.process
        if process.terminal is not self or not self.foreground or process.group == self.foreground:
            return
        self.stop_reader(task, number)

    def stop_reader(self, task: "Task", number: int = SIGTTIN) -> None:
        """`check_foreground` for a task that is known to be in the background."""
        process = task.process
        if task.blocked >> (number - 1) & 1 or process.actions.get(number).handler == SIG_IGN:
            if number == SIGTTIN:
                raise OSError(errno.EIO, "")
            return
        if job_control.is_orphaned(self.kernel, process.group):
            raise OSError(errno.EIO, "")
        delivery.post_group(self.kernel, process.group, number)
        raise OSError(-RESTART, "")


class TerminalFile(File):
    """A terminal opened by a guest: the console or the slave of a pseudo-terminal."""

    kind = "terminal"

    def __init__(self, host: int, flags: int, path: str, terminal: Terminal) -> None:
        super().__init__(host, flags, path)
        self.terminal = terminal
        self._patience = FOREVER  # when a read with VTIME gives up

    def read(self, task: "Task", count: int) -> bytes:
        """See File."""
        if self.terminal.foreground != task.process.group:
            self.terminal.check_foreground(task, SIGTTIN)
        try:
            data = os.read(self.host, min(count, PIECE))
        except BlockingIOError:
            if not self.nonblocking and self._gave_up():
                return b""
            raise
        except OSError as error:
            if error.errno == errno.EIO and self.terminal is task.kernel.console:
                self.terminal.stop_reader(task)  # the machine is in the background of its user's shell
            raise
        self._patience = FOREVER
        return data

    def _gave_up(self) -> bool:
        """Without canonical input, VMIN 0 and VTIME say how long a read waits for the first byte."""
        _, _, _, local, _, characters = attributes(self.host)
        if local & termios.ICANON or characters[termios.VMIN] or not characters[termios.VTIME]:
            return False
        if not self._patience:
            self._patience = after(characters[termios.VTIME] * DECISECOND)
        elif monotonic_ns() >= self._patience:
            self._patience = FOREVER
            return True
        return False

    def wait_readable(self) -> Wait:
        """See File."""
        return Wait(readable=self.host, deadline=self._patience)

    def write(self, task: "Task", data: bytes) -> int:
        """See File."""
        terminal = self.terminal
        background = terminal.foreground != task.process.group and terminal is task.process.terminal
        if background and attributes(self.host)[3] & termios.TOSTOP:
            terminal.check_foreground(task, SIGTTOU)
        return os.write(self.host, data)

    def poll_host(self) -> int:
        """See File."""
        return self.host

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """See File."""
        if request in READS:
            task.write(argument, self._get(request, READS[request]))
        elif request in SETS:
            self.terminal.check_foreground(task, SIGTTOU)
            self._set(request, task.read(argument, SETS[request]))
        elif request in PLAIN:
            self.terminal.check_foreground(task, SIGTTOU)
            fcntl.ioctl(self.host, request, argument & 0x7FFFFFFF)
        elif request in (TIOCEXCL, TIOCNXCL):
            return 0  # the host's own would lock out the kernel, which opens for everybody
        elif request == TIOCSWINSZ:
            self._resize(task.read(argument, 8))
        elif request in DANGEROUS:
            task.kernel.meter.note(f"ioctl {request:#x} on a terminal refused: it would type for the user")
            raise OSError(errno.EPERM, "")
        else:
            return self._job_control(task, request, argument)
        return 0

    def _get(self, request: int, size: int) -> bytes:
        return fcntl.ioctl(self.host, request, bytes(size))

    def _set(self, request: int, data: bytes) -> None:
        fcntl.ioctl(self.host, request, data)

    def _resize(self, size: bytes) -> None:
        if fcntl.ioctl(self.host, TIOCGWINSZ, bytes(8)) != size:
            fcntl.ioctl(self.host, TIOCSWINSZ, size)
            self.terminal.signal(SIGWINCH)

    def _job_control(self, task: "Task", request: int, argument: int) -> int:
        terminal, process = self.terminal, task.process
        mine = process.terminal is terminal and not terminal.hung_up
        if request == TIOCSCTTY:
            return self._take(task, argument)
        if request not in (TIOCGPGRP, TIOCSPGRP, TIOCGSID, TIOCNOTTY) or not mine:
            raise OSError(errno.ENOTTY, "")
        if request == TIOCGPGRP:
            task.write(argument, pack("<i", terminal.foreground))
        elif request == TIOCGSID:
            task.write(argument, pack("<i", terminal.session))
        elif request == TIOCSPGRP:
            terminal.check_foreground(task, SIGTTOU)
            group = unpack("<i", task.read(argument, 4))[0]
            if group < 0:
                raise OSError(errno.EINVAL, "")
            members = [other for other in terminal.kernel.processes.values() if other.group == group]
            if not members:
                raise OSError(errno.ESRCH, "")
            if process.session != terminal.session or members[0].session != process.session:
                raise OSError(errno.EPERM, "")
            terminal.foreground = group
        elif process.pid == process.session:
            terminal.signal(SIGHUP)
            terminal.signal(SIGCONT)
            terminal.release()
        else:
            process.terminal = None
        return 0

    def _take(self, task: "Task", steal: int) -> int:
        terminal, process = self.terminal, task.process
        if process.terminal is terminal and terminal.session == process.session:
            return 0
        if process.pid != process.session or process.terminal is not None:
            raise OSError(errno.EPERM, "")
        if terminal.session:
            if steal != 1 or task.credentials.euid != 0:
                raise OSError(errno.EPERM, "")
            terminal.release()
        if not self.readable and task.credentials.euid != 0:
            raise OSError(errno.EPERM, "")
        terminal.control(process)
        return 0


class MasterFile(TerminalFile):
    """The master of a pseudo-terminal: what terminal emulators and sshd hold."""

    kind = "master"

    def read(self, task: "Task", count: int) -> bytes:
        """See File."""
        return os.read(self.host, min(count, PIECE))

    def wait_readable(self) -> Wait:
        """See File."""
        return Wait(readable=self.host)

    def write(self, task: "Task", data: bytes) -> int:
        """See File. What is typed may ask for signals; the host has nobody to send them to."""
        taken = os.write(self.host, data)
        if self.terminal.foreground:
            _, _, _, local, _, characters = attributes(self.host)
            if local & termios.ISIG:
                for number in typed_signals(data[:taken], characters):
                    self.terminal.signal(number)
        return taken

    def ioctl(self, task: "Task", request: int, argument: int) -> "int | Blocking":
        """See File."""
        terminal = self.terminal
        if request in MASTER_READS:
            task.write(argument, self._get(request, MASTER_READS[request]))
        elif request in MASTER_SETS:
            self._set(request, task.read(argument, MASTER_SETS[request]))
        elif request == TIOCGPTPEER:
            return self._open_peer(task, argument & 0x7FFFFFFF)
        elif request == TIOCSIG:
            if not 0 < argument <= 64:
                raise OSError(errno.EINVAL, "")
            terminal.signal(argument)
        elif request in (TIOCGPGRP, TIOCGSID):
            if request == TIOCGSID and not terminal.session:
                raise OSError(errno.ENOTTY, "")
            task.write(argument, pack("<i", terminal.foreground if request == TIOCGPGRP else terminal.session))
        elif request == TIOCSPGRP:
            raise OSError(errno.ENOTTY, "")
        elif request in SETS or request in PLAIN:  # nobody checks a master for being in the background
            if request in SETS:
                self._set(request, task.read(argument, SETS[request]))
            else:
                fcntl.ioctl(self.host, request, argument & 0x7FFFFFFF)
        else:
            return super().ioctl(task, request, argument)
        return 0

    def _open_peer(self, task: "Task", flags: int) -> int:
        host_flags = flags & os.O_ACCMODE | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC
        host = fcntl.ioctl(self.host, TIOCGPTPEER, host_flags)
        file = TerminalFile(host, flags & (os.O_ACCMODE | os.O_NONBLOCK), self.terminal.name, self.terminal)
        _maybe_control(task, file, flags)
        return task.open_descriptor(file, close_on_exec=bool(flags & os.O_CLOEXEC))

    def released(self) -> None:
        """See File."""
        super().released()
        self.terminal.hang_up()


def attributes(host: int) -> tuple[int, int, int, int, int, bytes]:
    """struct termios of a terminal; of the slave, for a master."""
    return TERMIOS.unpack(fcntl.ioctl(host, TCGETS, bytes(TERMIOS.size)))


def typed_signals(data: bytes, characters: bytes) -> list[int]:
    """The signals that typed bytes stand for, by the terminal's control characters."""
    meanings = {
        characters[at]: number
        for at, number in ((termios.VINTR, SIGINT), (termios.VQUIT, SIGQUIT), (termios.VSUSP, SIGTSTP))
        if characters[at]  # 0 is _POSIX_VDISABLE
    }
    return [meanings[byte] for byte in data if byte in meanings]


class _Terminals:
    """The terminals of one kernel, by the device and inode of their node: those in use, as their files hold them."""

    def __init__(self) -> None:
        self.by_node: WeakValueDictionary[tuple[int, int], Terminal] = WeakValueDictionary()


_known: WeakKeyDictionary["Kernel", _Terminals] = WeakKeyDictionary()


def _terminals(kernel: "Kernel") -> _Terminals:
    found = _known.get(kernel)
    if found is None:
        found = _known[kernel] = _Terminals()
    return found


def _node(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _maybe_control(task: "Task", file: TerminalFile, flags: int) -> None:
    """A session leader without a controlling terminal gets the first one that it opens, if nobody else has it."""
    process, terminal = task.process, file.terminal
    if (
        not flags & os.O_NOCTTY
        and file.readable
        and process.pid == process.session
        and process.terminal is None
        and not terminal.session
        and not terminal.hung_up
    ):
        terminal.control(process)


def open_terminal(task: "Task", path: str, host: int, flags: int) -> TerminalFile:
    """The file for a terminal device that was opened on the host (host -1: /dev/tty, the controlling terminal)."""
    kernel = task.kernel
    status_flags = flags & (os.O_ACCMODE | os.O_NONBLOCK | os.O_APPEND)
    if host < 0:
        terminal = task.process.terminal
        if terminal is None or terminal.hung_up:
            raise OSError(errno.ENXIO, "")
        host = terminal.reopen(flags & os.O_ACCMODE | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        return TerminalFile(host, status_flags, path, terminal)
    known = _terminals(kernel).by_node
    number = _master_number(host)
    if number >= 0:
        name = f"/dev/pts/{number}"
        terminal = Terminal(kernel, name, lambda how: os.open(name, how))
        try:
            known[_node(os.stat(name))] = terminal
        except FileNotFoundError:
            pass  # its devpts is mounted elsewhere: it can be used, but not opened by that name
        return MasterFile(host, status_flags, path, terminal)
    node = _node(os.fstat(host))
    found = known.get(node)
    if found is None:
        found = known[node] = Terminal(kernel, path, lambda how: os.open(path, how))
    file = TerminalFile(host, status_flags, path, found)
    _maybe_control(task, file, flags)
    return file


def _master_number(host: int) -> int:
    """The number of a pseudo-terminal whose master this is, -1 for everything else."""
    number = array.array("i", [0])
    try:
        fcntl.ioctl(host, TIOCGPTN, number)
    except OSError:
        return -1
    return number[0]


def inherited_terminal(kernel: "Kernel", host: int, flags: int, process: "Process | None") -> TerminalFile:
    """A terminal that the machine was started with. It becomes the console, and the session's controlling terminal.

    The guest gets a description of its own where that can be had: the caller's is not to become non-blocking.
    """
    node = _node(os.fstat(host))
    known = _terminals(kernel).by_node
    terminal = known.get(node)
    if terminal is None:
        terminal = known[node] = _inherited(kernel, host, node)
    try:
        own = terminal.reopen(flags & os.O_ACCMODE | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        own = -1
    if own < 0:
        file: TerminalFile = _SharedTerminalFile(os.dup(host), flags, terminal.name, terminal)
    else:
        file = TerminalFile(own, flags & ~os.O_NONBLOCK, terminal.name, terminal)
    if kernel.console is None:
        kernel.console = terminal
        for number in (SIGTTIN, SIGTTOU):  # reads from the user's background then fail, which `read` understands
            signal.signal(number, signal.SIG_IGN)
        if process is not None and process.terminal is None:
            terminal.control(process)
    return file


def _inherited(kernel: "Kernel", host: int, node: tuple[int, int]) -> Terminal:
    """The terminal behind an inherited descriptor: by its name in the machine's /dev, if it has one there."""
    try:
        if _node(os.stat(CONSOLE)) == node:
            return Terminal(kernel, CONSOLE, lambda how: os.open(CONSOLE, how))
    except OSError:
        pass  # there is none: through the descriptor
    kept = os.dup(host)
    name = os.readlink(f"self/fd/{host}", dir_fd=kernel.procfs)
    return Terminal(kernel, name, lambda how: os.open(f"self/fd/{kept}", how, dir_fd=kernel.procfs))


class _SharedTerminalFile(TerminalFile):
    """A terminal that could not be opened again: its description is the caller's too, and may block."""

    def read(self, task: "Task", count: int) -> bytes:
        """See File."""
        poller = select.poll()
        poller.register(self.host, select.POLLIN)
        if not poller.poll(0):
            raise BlockingIOError(errno.EAGAIN, "")
        return super().read(task, count)

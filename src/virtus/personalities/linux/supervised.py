"""The Linux personality for guests that the host's kernel serves: answers what the seccomp filter notifies."""

import errno
import functools
import os
from typing import Any, Final

from virtus.exits import ENDED, SYSCALL, Exit
from virtus.isa.x86.linux_calls import NAMES, NUMBERS
from virtus.personalities.linux.supervision import POWER, PROCESSES, REFUSED

PROCESS_CALLS: Final = frozenset(NUMBERS[name] for name in PROCESSES)
LINUX_REBOOT_MAGIC1: Final = 0xFEE1DEAD  # include/uapi/linux/reboot.h
LINUX_REBOOT_CMD_CAD_ON: Final = 0x89ABCDEF
LINUX_REBOOT_CMD_CAD_OFF: Final = 0
ENDING: Final = frozenset({0x01234567, 0xCDEF0123, 0x4321FEDC, 0xA1B2C3D4})
"""LINUX_REBOOT_CMD_RESTART, HALT, POWER_OFF, RESTART2."""
HIGHEST_NAMED: Final = 8191
IMPOSSIBLE: Final = "call of an impossible number"
REFUSED_NUMBERS: Final = {NUMBERS[name]: error for name, error in REFUSED.items()}


class Supervisor:
    """See Personality. `procfs` is a descriptor of the machine's own procfs, for counting its tasks.

    `secret` is what PID 1 of the box, and nobody else in it, gives to reboot(2) when the guest has ended.
    """

    def __init__(self, meter: Any, process_limit: int, procfs: int, secret: int) -> None:
        self._secret = secret
        self._meter = meter
        self._limit = process_limit
        self._procfs = procfs
        self._slack = process_limit - 2  # forks that are certainly within the limit
        self._warned = False
        self.running = True
        self.powered_off = False

    def name_of(self, exit: Exit) -> str:
        """See Personality."""
        return NAMES.get(exit.number) or _unknown(exit.number)

    def handle(self, exit: Exit) -> None:
        """See Personality. `exit.context` is the notification: it answers errors, or lets a call through."""
        if exit.reason is not SYSCALL:
            self.running = exit.reason is not ENDED
            return
        number, call = exit.number, exit.context
        if number in PROCESS_CALLS:
            self._fork(call)
        elif number in REFUSED_NUMBERS:
            self._meter.note(f"{NAMES[number]} refused: {errno.errorcode[REFUSED_NUMBERS[number]]}")
            call.answer(error=REFUSED_NUMBERS[number])
        elif number == NUMBERS[POWER]:
            self._reboot(call)
        else:
            self._meter.note(_not_there(number))
            call.answer(error=errno.ENOSYS)

    def _reboot(self, call: Any) -> None:
        """The guest may end its machine, and so may every process of it: it is theirs."""
        if call.arguments[0] == self._secret:
            self.running = False
            return
        magic, command = call.arguments[0] & 0xFFFFFFFF, call.arguments[2] & 0xFFFFFFFF
        if magic != LINUX_REBOOT_MAGIC1:
            call.answer(error=errno.EINVAL)
        elif command in (LINUX_REBOOT_CMD_CAD_ON, LINUX_REBOOT_CMD_CAD_OFF):
            call.answer()
        elif command in ENDING:
            self._meter.note("reboot: the guest has powered the machine off")
            self.powered_off = True
            self.running = False
        else:
            call.answer(error=errno.EINVAL)

    def _fork(self, call: Any) -> None:
        """Keep the limit. Tasks are counted only when that many forks were granted that it could have been reached."""
        self._slack -= 1
        if self._slack < 0:
            self._slack = self._limit - self._count() - 1
        if self._slack < 0:
            self._meter.note(f"a new process was refused: the limit of {self._limit} is reached")
            if not self._warned:
                self._warned = True
                os.write(2, f"virtus: the guest has reached its limit of {self._limit} processes\n".encode())
            call.answer(error=errno.EAGAIN)
            return
        call.let_through()

    def _count(self) -> int:
        """Tasks of the machine now."""
        total = 0
        for entry in os.listdir(self._procfs):
            if entry.isdigit():
                try:
                    task_directory = os.open(f"{entry}/task", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._procfs)
                except OSError:
                    continue  # it has just ended
                try:
                    total += len(os.listdir(task_directory))
                except OSError:
                    pass  # likewise
                finally:
                    os.close(task_directory)
        return total


@functools.lru_cache(maxsize=HIGHEST_NAMED + 2)
def _unknown(number: int) -> str:
    """A call that Linux does not have; a guest cannot fill the meter by making up numbers."""
    return f"call {number}" if number <= HIGHEST_NAMED else IMPOSSIBLE


@functools.lru_cache(maxsize=HIGHEST_NAMED + 2)
def _not_there(number: int) -> str:
    return f"unknown system {_unknown(number)}: ENOSYS"

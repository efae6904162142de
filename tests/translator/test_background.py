"""The background process is there when something has been asked of it, and only then."""

import os
import select

from virtus.host import channel
from virtus.isa.riscv64 import RISCV64
from virtus.vcpus.translator.llvm.request import Farewell, Urge
from virtus.vcpus.translator.llvm.worker import Background


def is_asked(background: Background) -> bool:
    return bool(select.select([background.asked], [], [], 0)[0])


def guest(background: Background, asks: bool) -> int:
    """A process that has the background's object as the one that runs a guest does, and ends: its pid."""
    pid = os.fork()
    if not pid:
        background.enter()
        if asks:
            background.submit(Urge(1))
        background.submit(Farewell())
        os._exit(0)
    return pid


def test_a_guest_that_asks_for_nothing_needs_no_process() -> None:
    background = Background(RISCV64)
    os.waitpid(guest(background, asks=False), 0)
    assert not is_asked(background)
    background.close()


def test_it_starts_when_asked_and_ends_with_those_who_ask() -> None:
    background = Background(RISCV64)
    mine, other = channel.pair()
    os.waitpid(guest(background, asks=True), 0)
    assert is_asked(background)
    pid = background.start(mine)
    mine.close()
    assert other.recv(1) == b""  # the process does not hold what it was to be without
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    other.close()
    background.close()
    assert os.waitpid(pid, 0) == (pid, 0)

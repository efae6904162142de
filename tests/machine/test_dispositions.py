"""Signals' dispositions, set without the enumerations of `signal`."""

import os
import signal
from collections.abc import Iterator

import pytest

from virtus.host import dispositions


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    yield
    signal.signal(signal.SIGUSR1, before)


def in_a_child(what: str) -> int:
    """The end of a child that changes its dispositions and sends itself the signal."""
    pid = os.fork()
    if not pid:
        if what == "default":
            dispositions.set_default()
        else:
            dispositions.ignore((signal.SIGUSR1,))
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_all_that_can_be_caught_does_what_it_does_in_a_new_process() -> None:
    assert in_a_child("default") == -signal.SIGUSR1
    assert {*dispositions.CATCHABLE} == signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def test_what_is_ignored_does_nothing() -> None:
    assert in_a_child("ignore") == 3

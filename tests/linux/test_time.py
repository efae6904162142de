"""Clocks, sleeps and POSIX timers."""

import errno
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.linux.fake import BASE, FakeMachine
from virtus.personalities.linux import delivery, lifecycle, posix_timers
from virtus.personalities.linux.timespec import SECOND, monotonic_deadline

MONOTONIC = 1
SPEC, OUT = BASE, BASE + 64
SIGALRM, SIGUSR1 = 14, 10


@pytest.fixture
def machine() -> Iterator[FakeMachine]:
    made = FakeMachine("time_calls")
    yield made
    made.close()


def pair(machine: FakeMachine, address: int = OUT) -> int:
    seconds, rest = struct.unpack("<qq", machine.task.read(address, 16))
    return int(seconds * SECOND + rest)


def until(machine: FakeMachine, condition: Callable[[], object]) -> None:
    """Let the kernel's clock run until the condition holds; a second at most."""
    deadline = time.monotonic() + 1
    while not condition() and time.monotonic() < deadline:
        machine.kernel.scheduler.epoll.poll(0.1)
        machine.event()


@pytest.mark.parametrize("clock", [0, 1, 4, 5, 6, 7, 11])
def test_clocks_are_the_hosts(machine: FakeMachine, clock: int) -> None:
    before = time.clock_gettime_ns(clock)
    assert machine.call("clock_gettime", clock, OUT) == 0
    assert before <= pair(machine) <= time.clock_gettime_ns(clock)
    assert machine.call("clock_getres", clock, OUT) == 0
    assert 1 <= pair(machine) <= SECOND // 100


@pytest.mark.parametrize("clock", [10, 12, 100, -5])
def test_unknown_clocks(machine: FakeMachine, clock: int) -> None:
    assert machine.call("clock_gettime", clock, OUT) == -errno.EINVAL


def test_processor_time_has_a_clock_per_thread_and_process(machine: FakeMachine) -> None:
    machine.process.user_us, machine.process.system_us = 3, 4
    assert machine.call("clock_gettime", 2, OUT) == 0
    assert pair(machine) == 7000  # the fake's stub does not exist: only what ended threads have used
    assert machine.call("clock_gettime", ~machine.process.pid << 3 | 2, OUT) == 0
    assert pair(machine) == 7000
    assert machine.call("clock_gettime", ~4000 << 3 | 2, OUT) == -errno.EINVAL


def test_the_time_cannot_be_set(machine: FakeMachine) -> None:
    machine.store(struct.pack("<qq", 0, 0), SPEC)
    assert machine.call("clock_settime", 0, SPEC) == -errno.EPERM
    assert machine.call("settimeofday", SPEC, 0) == -errno.EPERM


def test_adjtimex_reads(machine: FakeMachine) -> None:
    assert machine.call("adjtimex", OUT) in range(6)
    machine.store(struct.pack("<I", 1), OUT)
    assert machine.call("adjtimex", OUT) == -errno.EPERM


def test_sleep_ends_in_time(machine: FakeMachine) -> None:
    machine.store(struct.pack("<qq", 0, 5_000_000), SPEC)
    before = time.monotonic_ns()
    assert machine.call("nanosleep", SPEC, 0) is None
    until(machine, lambda: machine.result() is not None)
    assert machine.result() == 0
    assert time.monotonic_ns() - before >= 5_000_000


def test_an_interrupted_sleep_tells_what_was_left(machine: FakeMachine) -> None:
    machine.store(struct.pack("<qq", 100, 0), SPEC)
    machine.store(struct.pack("<QQQQ", BASE + 4096, 0x04000000, BASE + 4096, 0), BASE + 256)
    assert machine.call("rt_sigaction", SIGUSR1, BASE + 256, 0, 8) == 0
    assert machine.call("clock_nanosleep", MONOTONIC, 0, SPEC, OUT) is None
    delivery.post(machine.process, SIGUSR1)
    machine.event()
    assert 99 * SECOND < pair(machine) <= 100 * SECOND


@pytest.mark.parametrize("spec", [(0, SECOND), (-1, 0), (0, -1)])
def test_what_is_no_duration(machine: FakeMachine, spec: tuple[int, int]) -> None:
    machine.store(struct.pack("<qq", *spec), SPEC)
    assert machine.call("nanosleep", SPEC, 0) == -errno.EINVAL


def test_a_thread_cannot_sleep_on_its_own_processor_time(machine: FakeMachine) -> None:
    machine.store(struct.pack("<qq", 0, 1), SPEC)
    assert machine.call("clock_nanosleep", 3, 0, SPEC, 0) == -errno.EINVAL


@given(st.integers(0, 1 << 62))
def test_a_deadline_is_never_for_ever(when: int) -> None:
    assert monotonic_deadline(0, when) > 0
    assert monotonic_deadline(1, when) > 0


def test_rusage(machine: FakeMachine) -> None:
    machine.process.user_us, machine.process.max_rss_kib = 1_500_000, 77
    assert machine.call("getrusage", 0, OUT) == 0
    assert struct.unpack("<18q", machine.task.read(OUT, 144))[:5] == (1, 500_000, 0, 0, 77)
    assert machine.call("getrusage", 5, OUT) == -errno.EINVAL


def timer(machine: FakeMachine, notify: int, number: int = SIGUSR1, tid: int = 0) -> int:
    machine.store(struct.pack("<Qiii", 42, number, notify, tid), SPEC)
    assert machine.call("timer_create", MONOTONIC, SPEC, OUT) == 0
    return int.from_bytes(machine.task.read(OUT, 4), "little")


def test_a_timer_sends_its_signal_with_its_value(machine: FakeMachine) -> None:
    machine.task.blocked = 1 << (SIGUSR1 - 1)
    ident = timer(machine, posix_timers.SIGEV_SIGNAL)
    machine.store(struct.pack("<qqqq", 0, 0, 0, 1_000_000), SPEC)
    assert machine.call("timer_settime", ident, 0, SPEC, OUT) == 0
    until(machine, lambda: machine.process.pending.bits)
    taken = machine.process.pending.take(-1)
    assert taken is not None
    number, info = taken
    assert number == SIGUSR1
    assert struct.unpack_from("<iii4xiiQ", info) == (SIGUSR1, 0, -2, ident, 0, 42)
    assert machine.call("timer_gettime", ident, OUT) == 0
    assert machine.task.read(OUT, 32) == bytes(32)


def test_a_timer_counts_what_it_could_not_send(machine: FakeMachine) -> None:
    machine.task.blocked = 1 << (SIGUSR1 - 1)
    ident = timer(machine, posix_timers.SIGEV_THREAD_ID, tid=machine.task.tid)
    machine.store(struct.pack("<qqqq", 0, 1_000_000, 0, 1_000_000), SPEC)
    assert machine.call("timer_settime", ident, 0, SPEC, 0) == 0
    until(machine, lambda: machine.task.pending.bits)
    time.sleep(0.005)
    machine.event()
    assert (machine.call("timer_getoverrun", ident) or 0) >= 1
    assert machine.call("timer_delete", ident) == 0
    assert machine.call("timer_delete", ident) == -errno.EINVAL


def test_timer_arguments(machine: FakeMachine) -> None:
    for notify, number, tid in ((7, 10, 0), (0, 65, 0), (4, 10, 9999)):
        machine.store(struct.pack("<Qiii", 0, number, notify, tid), SPEC)
        assert machine.call("timer_create", MONOTONIC, SPEC, OUT) == -errno.EINVAL
    assert machine.call("timer_create", 77, 0, OUT) == -errno.EINVAL


def test_timers_do_not_outlive_their_program(machine: FakeMachine) -> None:
    ident = timer(machine, posix_timers.SIGEV_SIGNAL)
    lifecycle.cancel_timers(machine.process)
    assert machine.call("timer_gettime", ident, OUT) == -errno.EINVAL

"""Sleeping and waking: host descriptors, queues, deadlines, and their cancellation."""

import os
import select
import time
from collections.abc import Iterator
from typing import Any

import pytest

from virtus.personalities.linux.blocking import Wait, WaitQueue, after
from virtus.personalities.linux.scheduler import Scheduler


class Sleeper:
    """Stands for a task: what wakes it is recorded."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel


class Bench:
    """A scheduler with its own record of who was woken, and how."""

    def __init__(self) -> None:
        self.woken: list[tuple[Wait, bool]] = []
        self.scheduler = Scheduler(self.ready)

    def ready(self, wait: Wait, happened: bool) -> None:
        self.scheduler.forget(wait)
        self.woken.append((wait, happened))

    def wake(self, wait: Wait) -> None:
        self.ready(wait, True)

    def sleep(self, wait: Wait) -> Wait:
        wait.task = Sleeper(self)  # type: ignore[assignment]  # a fake task: only its kernel is asked
        self.scheduler.sleep(wait)
        return wait

    def turn(self) -> list[tuple[Wait, bool]]:
        select.select([self.scheduler.epoll], [], [], 0.2)
        self.scheduler.dispatch()
        woken, self.woken = self.woken, []
        return woken


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.scheduler.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_readable_descriptor_wakes_everybody_who_waits_for_it(bench: Bench, pipe: tuple[int, int]) -> None:
    first, second = bench.sleep(Wait(readable=pipe[0])), bench.sleep(Wait(readable=pipe[0]))
    bench.scheduler.dispatch()
    assert bench.woken == []
    os.write(pipe[1], b"x")
    assert bench.turn() == [(first, True), (second, True)]
    os.write(pipe[1], b"y")
    assert not bench.scheduler.epoll.poll(0)


def test_a_deadline_wakes_with_false(bench: Bench, pipe: tuple[int, int]) -> None:
    wait = bench.sleep(Wait(readable=pipe[0], deadline=after(1_000_000)))
    assert bench.turn() == [(wait, False)]


def test_a_queue_wakes_in_order_and_only_so_many(bench: Bench) -> None:
    queue = WaitQueue()
    waits = [bench.sleep(Wait(queues=(queue,))) for _ in range(3)]
    assert queue.wake(2) == 2
    assert [wait for wait, _ in bench.woken] == waits[:2]
    assert queue.wake() == 1


def test_forgotten_waits_do_not_wake(bench: Bench, pipe: tuple[int, int]) -> None:
    queue = WaitQueue()
    wait = bench.sleep(Wait(readable=pipe[0], queues=(queue,), deadline=after(1_000_000)))
    bench.scheduler.forget(wait)
    os.write(pipe[1], b"x")
    time.sleep(0.002)
    bench.scheduler.dispatch()
    assert bench.woken == [] and queue.wake() == 0


def test_a_regular_file_is_always_ready(bench: Bench, tmp_path: Any) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    wait = bench.sleep(Wait(readable=fd))
    assert bench.woken == [(wait, True)]
    os.close(fd)


def test_timers_fire_in_the_order_of_their_deadlines(bench: Bench) -> None:
    fired: list[str] = []
    now = time.monotonic_ns()
    bench.scheduler.at(now + 2000, lambda: fired.append("late"))
    bench.scheduler.at(now + 1000, lambda: fired.append("early"))
    bench.scheduler.cancel(bench.scheduler.at(now + 1500, lambda: fired.append("never")))
    bench.turn()
    assert fired == ["early", "late"]


def test_watched_descriptors_call_back_until_unwatched(bench: Bench, pipe: tuple[int, int]) -> None:
    seen: list[int] = []
    bench.scheduler.watch(pipe[0], select.EPOLLIN, seen.append)
    os.write(pipe[1], b"x")
    bench.turn()
    assert seen == [select.EPOLLIN]
    bench.scheduler.unwatch(pipe[0])
    bench.turn()
    assert len(seen) == 1


def test_a_closed_and_reused_descriptor_can_be_waited_for_again(bench: Bench) -> None:
    out, in_ = os.pipe()
    bench.sleep(Wait(readable=out))
    os.close(out)
    os.close(in_)
    again, other = os.pipe()
    wait = bench.sleep(Wait(readable=again))
    os.write(other, b"x")
    assert (wait, True) in bench.turn()
    os.close(again)
    os.close(other)

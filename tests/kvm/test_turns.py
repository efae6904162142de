"""Processors that take turns: whose turn it is, and for how long, by processors that only say they ran."""

import os
import time
from typing import Any

import pytest

from virtus.exits import Exit, Reason
from virtus.vcpus.kvm_turns import TURN, Turns


class Context:
    def __init__(self, number: int) -> None:
        self.ident, self.parked = number, number > 0
        self.sleeping: tuple[list[int], int | None] | None = None

    @property
    def running(self) -> bool:
        return self.sleeping is None and not self.parked

    def wake(self) -> None:
        self.sleeping = None


class Processor:
    """Runs for nothing, and says so."""

    def __init__(self, number: int, log: list[str]) -> None:
        self.number, self.context, self._log = number, Context(number), log
        self.woken_at: list[int] = []
        self.closed = False

    def run(self) -> Exit:
        self._log.append(f"run {self.number}")
        return self._exit(Reason.HYPERCALL)

    def event(self) -> Exit:
        self._log.append(f"turn {self.number}")
        return self._exit(Reason.EVENT)

    def _exit(self, reason: Reason) -> Exit:
        exit = Exit()
        exit.reason, exit.context = reason, self.context
        return exit

    def wake_at(self, monotonic_ns: int) -> None:
        self.woken_at.append(monotonic_ns)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def log() -> list[str]:
    return []


def machine(log: list[str], count: int) -> tuple[Turns, list[Any]]:
    processors: list[Any] = [Processor(number, log) for number in range(count)]
    for one in processors:
        one.context.parked = False
    return Turns(processors), processors


def test_one_alone_runs_on(log: list[str]) -> None:
    turns, (first, second) = machine(log, 2)
    second.context.parked = True
    for _ in range(3):
        turns.run()
    assert log == ["run 0"] * 3
    assert not first.woken_at


def test_each_has_its_turn(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10**9
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    turns, processors = machine(log, 3)
    for _ in range(6):
        turns.run()
        now += TURN // 2 + 1
    assert log == ["turn 1", "run 1", "turn 2", "run 2", "turn 0", "run 0"]
    assert processors[1].woken_at == [10**9 + TURN]


def test_whoever_sleeps_has_no_turn_and_is_woken_in_time(log: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 10**9
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    turns, (first, second) = machine(log, 2)
    second.context.sleeping = ([], now + 1000)
    turns.run()
    assert log == ["run 0"]
    assert first.woken_at == [now + 1000]
    now += 2000 + TURN
    turns.run()
    assert log[-1] == "turn 1"
    assert second.context.running


def test_when_all_sleep_what_can_be_read_wakes_the_first(log: list[str]) -> None:
    turns, (first, second) = machine(log, 2)
    reading, writing = os.pipe()
    first.context.sleeping = second.context.sleeping = ([reading], None)
    os.write(writing, b"x")
    exit = turns.run()
    assert (exit.reason, exit.context) == (Reason.EVENT, first.context)
    assert not second.context.running
    second.context.sleeping = first.context.sleeping = ([], time.monotonic_ns() + 2_000_000)
    second.context.sleeping = ([], time.monotonic_ns() + 1_000_000)
    assert turns.run().context is second.context
    turns.close()
    assert first.closed
    assert second.closed
    os.close(reading)
    os.close(writing)

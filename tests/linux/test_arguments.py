"""Whatever a hostile guest passes to these calls, they answer with a result or an errno: nothing else comes out."""

import importlib
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.linux.fake import BASE, SIZE, FakeMachine
from virtus.personalities.linux.table import TABLE
from virtus.personalities.linux.task import Credentials

MODULES: Final = ("futex", "time_calls", "sched_calls", "identity_calls", "limits_calls", "sysv", "refused_calls")
HANDLED: Final = {
    *(f"virtus.personalities.linux.{name}" for name in MODULES),
    *(
        f"virtus.personalities.linux.{name}"
        for name in ("posix_timers", "shared_memory", "semaphores", "message_queues")
    ),
}
for _name in MODULES:
    importlib.import_module(f"virtus.personalities.linux.{_name}")
NAMES: Final = sorted(name for name, entry in TABLE.items() if entry.handler.__module__ in HANDLED)

EDGES: Final = (
    0,
    1,
    2,
    4,
    8,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    BASE,
    BASE + 1,
    BASE + SIZE - 4,
)
WORDS = st.one_of(st.sampled_from(EDGES), st.integers(0, 40), st.integers(0, 2**64 - 1))


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.tuples(*[WORDS] * 6)), min_size=1, max_size=6),
    st.booleans(),
    st.binary(max_size=128),
)
@example(
    [("semget", (0, 2, 0o600, 0, 0, 0)), ("semctl", (0, 0, 17, BASE, 0, 0)), ("semctl", (0, 1, 16, 2**32 - 1, 0, 0))],
    False,
    b"",
)
def test_any_arguments(calls: list[tuple[str, tuple[int, ...]]], root: bool, memory: bytes) -> None:
    machine = FakeMachine()
    try:
        if root:
            machine.task.credentials = Credentials(0, 0, ())
        machine.store(memory)
        for name, arguments in calls:
            if machine.task.context.running:
                result = machine.call(name, *arguments)
                assert result is None or -4095 <= result < 2**63
    finally:
        machine.close()

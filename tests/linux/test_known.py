"""What is remembered of paths never differs from what the host would say now."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.linux.fake import BASE, FakeMachine
from virtus.personalities.linux import known, path_calls

FIRST, SECOND, BUFFER = BASE, BASE + 0x1000, BASE + 0x2000


@pytest.fixture(scope="module")
def guest() -> Iterator[FakeMachine]:
    machine = FakeMachine("file_calls", "path_calls", "metadata_calls", "pipes")
    yield machine
    machine.task.descriptors.close_all(machine.task)
    machine.close()
    os.chdir("/")


def call(guest: FakeMachine, name: str, *arguments: str | int) -> int:
    """A call with its path arguments stored first."""
    places = iter((FIRST, SECOND))
    numbers = []
    for argument in arguments:
        if isinstance(argument, str):
            place = next(places)
            guest.task.write(place, argument.encode() + b"\0")
            argument = place
        numbers.append(argument)
    result = guest.call(name, *numbers)
    assert result is not None
    return result


def host_error(act: object) -> int:
    assert callable(act)
    try:
        act()
    except OSError as error:
        return -(error.errno or 0)
    return 0


def test_a_second_question_is_not_asked_of_the_host(
    guest: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known.changed()
    for _ in range(2):
        assert call(guest, "readlink", str(tmp_path), BUFFER, 100) == -errno.EINVAL
        assert call(guest, "open", str(tmp_path / "x"), 0, 0) == -errno.ENOENT
        monkeypatch.setattr(path_calls, "at", None)
        monkeypatch.setattr("virtus.personalities.linux.opening.at", None)


names = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "b/b"])
steps = st.one_of(
    st.tuples(st.sampled_from(["mkdir", "rmdir", "unlink", "create", "mknod", "chmod"]), names, names),
    st.tuples(st.sampled_from(["rename", "link", "symlink"]), names, names),
    st.tuples(st.just("ask"), names, names),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(steps, max_size=25))
def test_every_answer_is_the_hosts(
    guest: FakeMachine, tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, str, str]]
) -> None:
    top = str(tmp_path_factory.mktemp("known"))
    for step, first, second in moves:
        one, two = f"{top}/{first}", f"{top}/{second}"
        if step == "mkdir":
            call(guest, "mkdir", one, 0o755)
        elif step == "create":
            call(guest, "open", one, os.O_CREAT | os.O_WRONLY, 0o600)
            guest.task.descriptors.close_all(guest.task)
        elif step == "mknod":
            call(guest, "mknod", one, 0o100600, 0)
        elif step == "chmod":
            call(guest, "chmod", one, 0o700)
        elif step == "symlink":
            call(guest, "symlink", first, two)
        elif step != "ask":
            call(guest, step, one, *([two] if step in ("rename", "link") else []))
        for name in ("a", "b", "a/a", "a/b", "b/a", "b/b"):
            path = f"{top}/{name}"
            assert min(0, call(guest, "readlink", path, BUFFER, 100)) == host_error(lambda path=path: os.readlink(path))
            assert call(guest, "stat", path, BUFFER) == host_error(lambda path=path: os.stat(path))
            assert call(guest, "lstat", path, BUFFER) == host_error(lambda path=path: os.lstat(path))
            opened = min(0, call(guest, "open", path, os.O_PATH, 0))
            assert opened == host_error(lambda path=path: os.close(os.open(path, os.O_PATH)))
        guest.task.descriptors.close_all(guest.task)

"""The control interface: who may ask, what is answered, and what is left of machines that were killed."""

import os
import select
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtus.errors import UsageError, VirtusError
from virtus.machine import control
from virtus.machine.control import ConsoleWanted, ControlSocket


class Machine:
    """A machine that is nothing but its control socket, in a thread."""

    def __init__(self, name: str = "blue") -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.consoles: list[socket.socket] = []
        commands = {"describe": self._describe, "refuse": self._refuse, "console": self._console}
        self.control = ControlSocket(name, commands)
        self._running = True
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        return {"state": "running"}

    def _refuse(self, request: Mapping[str, Any]) -> None:
        raise UsageError("being asked", "no", "ask for something else")

    def _console(self, request: Mapping[str, Any]) -> None:
        raise ConsoleWanted(self.consoles.append)

    def _run(self) -> None:
        while self._running:
            select.select(self.control.descriptors(), [], [], 0.02)
            self.control.poll()

    def close(self) -> None:
        self._running = False
        self._thread.join()
        self.control.close()
        for one in self.consoles:
            one.close()


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "virtus-machines"


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


def test_a_machine_answers(machine: Machine) -> None:
    assert control.names() == ["blue"]
    assert control.ask("blue", "describe", more=7) == {"state": "running"}
    assert machine.asked == [{"command": "describe", "more": 7}]


def test_what_it_refuses_is_raised_where_it_was_asked(machine: Machine) -> None:
    with pytest.raises(UsageError, match="ask for something else"):
        control.ask("blue", "refuse")
    with pytest.raises(UsageError, match="does not know 'fly'; it knows console, describe, refuse"):
        control.ask("blue", "fly")


def test_names_are_of_machines_that_run(machine: Machine) -> None:
    with pytest.raises(UsageError, match="does not run"):
        control.ask("green", "describe")
    for name in ("../blue", "", "-x", "a/b", "a" * 60):
        with pytest.raises(UsageError):
            control.ask(name, "describe")
        with pytest.raises(UsageError):
            ControlSocket(name, {})


def test_a_name_is_taken_while_its_machine_runs(machine: Machine) -> None:
    with pytest.raises(UsageError, match="a machine of that name is running"):
        ControlSocket("blue", {})


def test_a_machine_that_was_killed_leaves_its_name_free(place: Path) -> None:
    child = os.fork()
    if child == 0:
        _kept = ControlSocket("gone", {})
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert (place / "gone").exists()
    assert control.names() == []
    assert not (place / "gone").exists()


def test_a_new_machine_takes_the_name_of_one_that_was_killed(place: Path) -> None:
    place.mkdir(mode=0o700)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(place / "blue"))
    left.close()
    machine = Machine()
    assert control.ask("blue", "describe")
    machine.close()
    machine.control.close()
    assert not (place / "blue").exists()


def test_a_console_is_a_connection(machine: Machine) -> None:
    ours, theirs = os.pipe(), os.pipe()
    attached = threading.Thread(target=control.attach, args=("blue", ours[0], theirs[1], b"\x1d"))
    attached.start()
    while not machine.consoles:
        pass
    machine.consoles[0].sendall(b"shown")
    assert os.read(theirs[0], 10) == b"shown"
    os.write(ours[1], b"typed")
    machine.consoles[0].setblocking(True)
    assert machine.consoles[0].recv(10) == b"typed"
    os.write(ours[1], b"\x1d")
    attached.join()
    for descriptor in (*ours, *theirs):
        os.close(descriptor)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_line_ends_a_machine(machine: Machine, line: bytes) -> None:
    with control.open_line("blue") as connection:
        connection.sendall(line + b"\n")
        assert b'"error"' in connection.recv(1000) or b'"result"' in line
    assert control.ask("blue", "describe")


def test_a_machine_that_ends_before_it_answers_is_said() -> None:
    def end(request: Mapping[str, Any]) -> None:
        raise ConsoleWanted(lambda connection: connection.close())

    machine = Machine("other")
    machine.control._commands = {"console": end}
    control.attach("other", 0, 1, b"\x1d")
    machine.close()
    with pytest.raises(VirtusError):
        control.ask("other", "console")

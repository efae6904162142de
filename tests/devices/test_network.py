"""Switches and taps: frames arrive where they should and nowhere else, and dead ports leave nothing behind."""

import os
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.devices.network import LEAST_FRAME, MOST_FRAME, SwitchPort, Tap, attach
from virtus.errors import HostLacks, UsageError, VirtusError

EVERYONE = b"\xff" * 6
ANN, BOB, EVE = (bytes((2, 0, 0, 0, 0, number)) for number in (1, 2, 3))


def frame(to: bytes, sender: bytes, data: bytes = b"hello") -> bytes:
    return to + sender + struct.pack(">H", 0x88B5) + data


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[list[SwitchPort]]:
    made = [SwitchPort(tmp_path / "blue") for _ in range(3)]
    yield made
    for port in made:
        port.close()
        port.close()
    assert not list((tmp_path / "blue").iterdir())


def test_what_is_for_everyone_reaches_everyone_else(ports: list[SwitchPort]) -> None:
    ann, _bob, _eve = ports
    assert ann.send(frame(EVERYONE, ANN))
    assert [port.receive() for port in ports] == [None, frame(EVERYONE, ANN), frame(EVERYONE, ANN)]


def test_what_is_for_one_whose_port_is_known_reaches_no_other(ports: list[SwitchPort]) -> None:
    ann, bob, eve = ports
    ann.send(frame(EVERYONE, ANN))
    bob.receive()
    eve.receive()
    assert bob.send(frame(ANN, BOB))
    assert select.select([ann], [], [], 0)[0]
    assert ann.receive() == frame(ANN, BOB)
    assert eve.receive() is None


def test_a_port_that_comes_later_is_found(tmp_path: Path, ports: list[SwitchPort]) -> None:
    ann = ports[0]
    ann.send(frame(EVERYONE, ANN))
    late = SwitchPort(tmp_path / "blue")
    late.send(frame(EVERYONE, EVE))
    assert ann.receive() == frame(EVERYONE, EVE)
    assert ann.send(frame(EVE, ANN))
    assert late.receive() == frame(EVE, ANN)
    late.close()


def test_a_port_whose_process_was_killed_is_cleared_away(tmp_path: Path, ports: list[SwitchPort]) -> None:
    child = os.fork()
    if child == 0:
        _port = SwitchPort(tmp_path / "blue")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    directory = tmp_path / "blue"
    assert len(list(directory.iterdir())) == 4
    ports.append(SwitchPort(directory))
    assert ports[-1].send(frame(EVERYONE, ANN))
    assert not [path for path in directory.iterdir() if path.name.startswith(f"{child}.")]


def test_frames_that_are_none_are_not_sent(ports: list[SwitchPort]) -> None:
    assert not ports[0].send(bytes(LEAST_FRAME - 1))
    assert not ports[0].send(bytes(MOST_FRAME + 1))
    assert ports[1].receive() is None


def test_switches_are_apart(tmp_path: Path, ports: list[SwitchPort]) -> None:
    other = SwitchPort(tmp_path / "red")
    assert not other.send(frame(EVERYONE, ANN))
    assert ports[0].receive() is None
    other.close()


@given(st.text(max_size=30))
def test_any_word_is_plugged_in_or_refused(word: str) -> None:
    if word.startswith(("switch:", "tap:")) or word == "none":
        return
    with pytest.raises(UsageError):
        attach(word)


def test_names_cannot_lead_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for word in ("switch:", "switch:../x", "switch:a/b", "tap:", "tap:" + 16 * "x"):
        with pytest.raises(VirtusError):
            attach(word)
    link = attach("switch:lab")
    assert link is not None
    link.close()
    assert attach("none") is None


def test_a_directory_that_others_may_change_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o777)
    with pytest.raises(HostLacks, match="by others"):
        attach("switch:lab")


def test_a_tap_is_a_card_of_the_host() -> None:
    try:
        tap = Tap("virtus-test0")
    except HostLacks as error:
        pytest.skip(f"no tap device: {error}")
    assert os.path.exists("/sys/class/net/virtus-test0")
    assert not tap.send(frame(EVERYONE, ANN)) or tap.receive() is None  # the interface is down
    tap.close()
    tap.close()
    assert not os.path.exists("/sys/class/net/virtus-test0")

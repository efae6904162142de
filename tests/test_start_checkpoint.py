"""Starts that go on in a checkpoint do what other starts do; without a good one, starts are as ever."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.cli import checkpoint_writer, start_checkpoint, start_image
from virtus.cli.start_checkpoint import SWITCH, Start, tail

VIRTUS = str(Path(sys.executable).with_name("virtus"))
WAIT_S = 60.0
GUEST = "echo $SOME $#; cat; grep SigIgn /proc/self/status; exit 3"

pytestmark = pytest.mark.skipif(not os.path.exists(VIRTUS), reason="virtus is not installed as a command")


def made(cache: Path) -> Path | None:
    """The checkpoint there."""
    return next(iter((cache / "virtus" / "start").glob(f"*{start_checkpoint.SUFFIX}")), None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache where two starts have left an image and a checkpoint."""
    place = tmp_path_factory.mktemp("cache")
    until = time.monotonic() + WAIT_S
    while made(place) is None and time.monotonic() < until:
        subprocess.run([VIRTUS, "run", "--", "true"], env=environment(place), check=True, timeout=WAIT_S)
        time.sleep(0.3)
    path = made(place)
    assert path is not None
    index = start_checkpoint._index(str(path))
    assert index is not None and index[1], "no checkpoint can be made here"
    return place


def environment(cache: Path, **others: str) -> dict[str, str]:
    return os.environ | {"XDG_CACHE_HOME": str(cache), "SOME": "thing"} | others


def run(cache: Path, *words: str, **others: str) -> tuple[int, str, str]:
    command = [*words, VIRTUS, "run", "--", "sh", "-c", GUEST, "0", "a", "b c"]
    env = environment(cache, **others)
    done = subprocess.run(
        command, env=env, input="from here\n", capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    return done.returncode, done.stdout, done.stderr


def executed(cache: Path, **others: str) -> str:
    """What program a start has become when its guest runs."""
    command = [VIRTUS, "run", "--", "sh", "-c", "echo here; read line"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment(cache, **others), stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        name = os.readlink(f"/proc/{process.pid}/exe").removesuffix(" (deleted)")  # a newer one has been made
        process.communicate("\n", timeout=WAIT_S)
    return name


@pytest.mark.slow
def test_a_start_goes_on_in_the_checkpoint_and_does_the_same(cache: Path) -> None:
    assert str(made(cache)) in {executed(cache) for _ in range(3)}  # one in a thousand finds its stack's place taken
    assert executed(cache, **{SWITCH: "no"}) == os.path.realpath(sys.executable)
    other = run(cache, **{SWITCH: "no"})
    assert other[:2] == (3, f"thing 2\nfrom here\n{other[1].splitlines()[-1]}\n")
    assert run(cache) == other


@pytest.mark.slow
@pytest.mark.parametrize("ignored", ["INT", "TERM HUP", "QUIT USR1 INT"])
def test_signals_that_are_ignored_stay_so(cache: Path, ignored: str) -> None:
    shell = ("sh", "-c", f"trap '' {ignored}; exec \"$@\"", "sh")
    assert run(cache, *shell) == run(cache, *shell, **{SWITCH: "no"})


@pytest.mark.slow
def test_an_interruption_ends_it_as_any_start(cache: Path) -> None:
    ends = []
    for switch in ("yes", "no"):
        command = [VIRTUS, "run", "--", "sh", "-c", "echo here; sleep 1"]
        with subprocess.Popen(
            command, env=environment(cache, **{SWITCH: switch}), stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
            ends.append(process.wait(WAIT_S))
    assert ends[0] == ends[1]


@pytest.mark.slow
def test_users_see_the_same_errors(cache: Path) -> None:
    ends = set()
    for switch in ("yes", "no"):
        for words in (["--", "/nowhere"], ["--frobnicate"], ["--volume", "x", "true"]):
            env = environment(cache, **{SWITCH: switch})
            done = subprocess.run([VIRTUS, "run", *words], env=env, capture_output=True, text=True, check=False)
            ends.add((words[0], done.returncode, done.stdout, done.stderr))
    assert len(ends) == 3


@pytest.mark.slow
def test_what_differs_in_the_environment_has_its_own(cache: Path) -> None:
    assert executed(cache, LC_ALL="C") == os.path.realpath(sys.executable)
    assert executed(cache, PYTHONHASHSEED="1") == os.path.realpath(sys.executable)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_none(cache: Path, tmp_path: Path) -> None:
    path = made(cache)
    assert path is not None
    place = tmp_path / "virtus" / "start"
    place.mkdir(parents=True, mode=0o700)
    for image in path.parent.glob("*.image"):
        (place / image.name).write_bytes(image.read_bytes())
        (place / image.name).chmod(0o600)
    whole = path.read_bytes()
    for data in (b"\0" * 64 + whole[64:], whole[: len(whole) // 2], whole[:-1], b""):
        (place / path.name).write_bytes(data)
        (place / path.name).chmod(0o700)
        assert executed(tmp_path) == os.path.realpath(sys.executable)


@given(st.binary(max_size=80), st.integers(0, 200))
def test_any_bytes_are_an_index_or_none(data: bytes, length: int) -> None:
    good = tail("this", True, [("/a", 1, 2)], ["b"])
    path = f"/dev/shm/virtus-test-{os.getpid()}"
    for content in (data, data + good, good[:length] + data, data + good[-length:]):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(content)
        try:
            index = start_checkpoint._index(path)
        finally:
            os.unlink(path)
        assert index == ("this", True, [("/a", 1, 2)], ["b"]) if content.endswith(good) else index is None


@pytest.mark.slow
def test_an_interpreter_that_cannot_be_had_again_is_not_asked_for_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", start_checkpoint.WRITER, "/", "another"]
    subprocess.run(command, env=environment(tmp_path), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    path = made(tmp_path)
    assert path is not None
    index = start_checkpoint._index(str(path))
    assert index is not None
    assert index[:2] == ("another", False)


def test_what_cannot_be_executed_does_not_work(tmp_path: Path) -> None:
    for content in (b"", b"\x7fELF", b"#!/bin/sh\nexit 0\n"):
        path = tmp_path / "it"
        path.write_bytes(content)
        for mode in (0o600, 0o700):
            path.chmod(mode)
            assert not checkpoint_writer._works(str(path))


def test_an_index_that_others_can_write_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(tail("this", True, [], []))
    path.chmod(0o700)
    assert start_checkpoint._index(str(path)) is not None
    path.chmod(0o722)
    assert start_checkpoint._index(str(path)) is None
    path.chmod(0o700)
    (tmp_path / "link").symlink_to(path)
    assert start_checkpoint._index(str(tmp_path / "link")) is None


@pytest.mark.parametrize("wrong", ["", "identity", "usable", "source", "modules", "switch"])
def test_only_what_fits_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(start_checkpoint, "_ordinary", lambda: True)
    if wrong == "switch":
        monkeypatch.setenv(SWITCH, "no")
    executions: list[str] = []
    monkeypatch.setattr(os, "execve", lambda path, *_: executions.append(path))
    made_for = start_checkpoint.identity()
    path = Path(start_checkpoint.path_for(made_for))
    path.parent.mkdir(parents=True)
    own = start_image.source(__file__)
    assert own is not None
    source = (own[0], own[1] - 1, own[2]) if wrong == "source" else own
    names = sorted(set(sys.modules) - {"os"} if wrong == "modules" else set(sys.modules))
    identity = "other" if wrong == "identity" else made_for
    path.write_bytes(tail(identity, wrong != "usable", [source], names))
    path.chmod(0o700)
    Start().enter()
    assert executions == ([] if wrong else [str(path)])


def test_no_module_asks_the_host_when_it_is_imported() -> None:
    """What it were told would be kept for runs on other processors, with other users, at other places."""
    source = Path(__file__).with_name("import_observer.py").read_text()
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

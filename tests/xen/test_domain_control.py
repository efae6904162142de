"""A domain under control from elsewhere: `virtus domain`, and what the domain itself may not ask for."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.xen import kernels
from tests.xen.stopped import stopped_domains
from virtus.errors import UsageError
from virtus.personalities.xen.table import NUMBERS, TABLE, dispatch
from virtus.personalities.xen.toolstack import DESTROYED, Toolstack

EPERM = -1
SCRIPT = """
(while :; do echo beat; sleep 0.2; done) &
(while :; do awk '/MemTotal/ {print "memory", $2}' /proc/meminfo; sleep 0.5; done) &
while read word; do [ "$word" = off ] && poweroff -f; echo "got $word"; done </dev/console
"""


@pytest.fixture
def toolstack() -> Iterator[Toolstack]:
    with stopped_domains() as (machine, (domain,), _):
        yield Toolstack(domain, machine.store, "blue")


@pytest.mark.parametrize("name", ["domctl", "sysctl", "platform_op", "kexec_op"])
def test_a_domain_may_not_control(name: str) -> None:
    assert "EPERM" in TABLE[NUMBERS[name]].note
    with stopped_domains() as (_, (domain,), notes):
        assert dispatch(domain, NUMBERS[name], (1, 2, 3, 4, 5, 6)) == EPERM
        assert notes == ["the domain asked for what only the control domain may do"]


def test_the_store_is_looked_into_and_changed(toolstack: Toolstack) -> None:
    toolstack.store({"what": "write", "path": "data/word", "value": "x"})
    assert toolstack.store({"what": "read", "path": "/local/domain/1/data/word"}) == "x"
    assert toolstack.store({"what": "ls", "path": "data"}) == {"word": "x"}
    assert toolstack.store({"what": "rm", "path": "data/word"}) is None
    for wrong in ({"what": "read", "path": "data/word"}, {"what": "fly"}, {"what": "ls", "path": "a//b"}):
        with pytest.raises(UsageError):
            toolstack.store(wrong)


@pytest.mark.parametrize("size", [0, 1 << 20, 3 << 20, 1 << 40])
def test_impossible_sizes_are_refused(toolstack: Toolstack, size: int) -> None:
    with pytest.raises(UsageError, match="resizing blue"):
        toolstack.memory({"bytes": size})


def test_a_shutdown_is_one_that_guests_know(toolstack: Toolstack) -> None:
    with pytest.raises(UsageError, match="explode"):
        toolstack.shutdown({"how": "explode"})
    toolstack.shutdown({})
    assert toolstack.store({"what": "read", "path": "control/shutdown"}) == "poweroff"


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_a_running_domain_is_paused_resized_talked_to_and_destroyed(tmp_path: Path) -> None:
    ramdisk = kernels.ramdisk(SCRIPT, tmp_path / "initrd")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    shown = (tmp_path / "shown").open("w+b")

    def virtus(*words: str, typed: bytes = b"", check: bool = True) -> str:
        command = [sys.executable, "-P", "-m", "virtus", "domain", *words]
        done = subprocess.run(command, input=typed, capture_output=True, env=environment, timeout=60, check=False)
        assert not check or not done.returncode, done.stderr
        return (done.stdout + done.stderr).decode()

    def seen() -> str:
        return (tmp_path / "shown").read_text()

    def until(true: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, seen()[-500:]
            time.sleep(0.05)

    words = ["--with", "paravirt", "--name", "blue", "--initrd", str(ramdisk), "--append", "quiet"]
    kernel = str(kernels.kernel() / "vmlinuz")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "virtus", "run", *words, kernel],
        stdin=subprocess.DEVNULL, stdout=shown, stderr=shown, env=environment,
    )  # fmt: skip
    try:
        until(lambda: "beat" in seen())
        (found,) = json.loads(virtus("list", "--json"))
        assert (found["name"], found["state"], found["memory"]) == ("blue", "running", 256 << 20)
        assert found["pid"] == process.pid
        assert "blue" in virtus("list")

        virtus("pause", "blue")
        before = seen().count("beat")
        assert json.loads(virtus("list", "--json"))[0]["state"] == "paused"
        time.sleep(0.5)
        assert seen().count("beat") == before
        virtus("unpause", "blue")
        until(lambda: seen().count("beat") > before)

        most = max(map(int, re.findall(r"memory (\d+)", seen())), default=1 << 30)
        virtus("memory", "blue", "160M")
        until(lambda: min(map(int, re.findall(r"memory (\d+)", seen())), default=most) < most - 64 * 1024)
        assert "between 32M and 256M" in virtus("memory", "blue", "2G", check=False)

        virtus("console", "blue", typed=b"hello\n\x1d")
        until(lambda: "got hello" in seen())
        assert virtus("store", "blue", "read", "name").strip() == "guest"
        virtus("destroy", "blue")
        assert process.wait(20) == DESTROYED
        assert virtus("list") == "no machine is running\n"
    finally:
        process.kill()
        process.wait()
        shown.close()

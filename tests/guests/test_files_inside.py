"""Files and /proc from inside a guest of the user-mode kernel: what only a real guest can show."""

import subprocess
import sys
from pathlib import Path

import pytest

from virtus.techniques import registry

pytestmark = pytest.mark.slow


@pytest.fixture(params=["uml-skas", "uml-tt"], scope="module")
def technique(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    availability = registry.get(name).probe()
    if not availability.works:
        pytest.skip(f"{name} does not work here: {availability.reason}")
    return name


def inside(technique: str, script: str, *options: str, stdin: bytes = b"") -> list[str]:
    """The lines that a shell script says inside."""
    command = [sys.executable, "-m", "virtus", "run", "--with", technique, *options, "--", "/bin/bash", "-c", script]
    finished = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    assert not finished.stderr, finished.stderr.decode()
    return finished.stdout.decode().splitlines()


def test_links_into_proc_lead_there(technique: str) -> None:
    script = """
        cat /dev/stdin
        cat <(echo substituted)
        ln -s /proc/self/comm /tmp/link; ln -s /proc /tmp/proc
        cat /tmp/link //proc/./self/../self/comm /tmp/proc/self/comm
        stat -c %F /tmp/proc/ /dev/fd/
        cd /tmp/proc/self && pwd -P | sed 's/[0-9]*$/N/'
    """
    assert inside(technique, script, stdin=b"typed\n") == [
        "typed", "substituted", "cat", "cat", "cat", "directory", "directory", "/proc/N",
    ]  # fmt: skip


def test_proc_shows_the_guest_and_nothing_else(technique: str) -> None:
    script = """
        echo $$
        ls /proc | grep -c '^[0-9]'
        cat /proc/1/comm
        tr '\\0' ' ' < /proc/$$/cmdline | cut -c 1-12; echo
        readlink /proc/self/exe
        grep -c -E 'heap|stack' /proc/self/maps
        awk '$2 == "/"' /proc/mounts
    """
    lines = inside(technique, script)
    assert lines[0] == "2"
    assert int(lines[1]) == 4  # init, the shell, ls and grep
    assert lines[2] == "init"
    assert lines[3].startswith("/bin/bash -c")
    assert lines[-3].endswith("/readlink")
    assert lines[-2:] == ["2", "overlay / overlay rw,nodev,relatime 0 0"]


def test_fifos_locks_and_pipes(technique: str) -> None:
    script = """
        cd /tmp; mkfifo f
        (echo through > f) & cat f; wait
        (cat f) & echo back > f; wait
        exec 5> lock; flock 5; flock -n lock echo no || echo locked
        (sleep 0.1; flock -u 5) & exec 6> lock; flock 6 && echo mine
    """
    assert inside(technique, script) == ["through", "back", "locked", "mine"]


def test_changes_of_the_root_stay_inside(technique: str, tmp_path: Path) -> None:
    script = f"""
        echo changed > {tmp_path}/f; rm {tmp_path}/g; mkdir {tmp_path}/d; cat {tmp_path}/f; ls {tmp_path}
        ln -s / {tmp_path}/d/root; echo deep > {tmp_path}/d/root/tmp/deep-inside; cat /tmp/deep-inside
    """
    (tmp_path / "f").write_text("kept\n")
    (tmp_path / "g").write_text("kept\n")
    assert inside(technique, script) == ["changed", "d", "f", "deep"]
    assert (tmp_path / "f").read_text() == (tmp_path / "g").read_text() == "kept\n"
    assert not (tmp_path / "d").exists()
    assert not Path("/tmp/deep-inside").exists()


def test_a_volume_is_the_hosts_own(technique: str, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("outside\n")
    lines = inside(technique, "cat /mnt/seen; echo inside > /mnt/made", "--volume", f"{tmp_path}:/mnt")
    assert lines == ["outside"]
    assert (tmp_path / "made").read_text() == "inside\n"


def test_large_files_are_copied_whole(technique: str) -> None:
    script = """
        cd /tmp; head -c 5000001 /dev/urandom > a; cp a b; cmp a b && cat a | cmp - b && stat -c %s b
    """
    assert inside(technique, script) == ["5000001"]

"""What a guest is given as standard streams, and what else it could make of them; the ways past a box's network."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.guest_runs import PYTHON, TECHNIQUES, guest, need, python_guest
from virtus.comparison.tree import descendants

pytestmark = pytest.mark.slow

ATTACK = """
import errno, os
def attempt(what, action):
    try:
        action()
        print(what, 'done')
    except OSError as error:
        print(what, errno.errorcode[error.errno])
attempt('again', lambda: os.write(os.open('/proc/self/fd/0', os.O_RDWR), b'x'))
attempt('stdin', lambda: os.write(os.open('/dev/stdin', os.O_WRONLY), b'x'))
attempt('truncate', lambda: os.open('/proc/self/fd/0', os.O_RDWR | os.O_TRUNC))
attempt('mode', lambda: os.fchmod(0, 0o4777))
attempt('owner', lambda: os.fchown(0, 1, 1))
attempt('time', lambda: os.utime(0))
print(os.read(0, 100))
"""


@pytest.fixture(params=TECHNIQUES)
def technique(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(name)
    return name


def run_with(technique: str, stdin: Path, *argv: str) -> str:
    command = [PYTHON, "-m", "virtus", "run", "--with", technique, "--", *argv]
    with stdin.open("rb") as stream:
        return subprocess.run(command, stdin=stream, capture_output=True, timeout=60, check=True).stdout.decode()


def test_input_is_for_reading(technique: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    before = file.stat()
    said = run_with(technique, file, PYTHON, "-I", "-c", ATTACK)
    *attempts, content = said.splitlines()
    assert [line.split()[1] for line in attempts] == ["EROFS"] * 6
    assert content == "b'content'"
    after = file.stat()
    assert file.read_text() == "content"
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (before.st_mode, before.st_uid, before.st_mtime_ns)


def test_a_disk_as_input_cannot_be_opened_again(technique: str) -> None:
    disks = [Path("/dev") / name for name in os.listdir("/sys/block") if not name.startswith("ram")]
    disks = [disk for disk in disks if os.access(disk, os.R_OK | os.W_OK)]
    if not disks:
        pytest.skip("no disk that this user may open")
    program = "import errno, os\ntry: os.open('/proc/self/fd/0', os.O_RDONLY); print('open')\n"
    program += "except OSError as error: print(errno.errorcode[error.errno])"
    assert run_with(technique, disks[0], PYTHON, "-I", "-c", program) == "EACCES\n"


def test_who_reads_on_does_so_where_the_guest_stopped(technique: str, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_text("one\ntwo\nthree\n")
    virtus = f"{PYTHON} -m virtus run --with {technique} -- sh -c 'read line; echo got $line'"
    with file.open("rb") as stream:
        command = ["sh", "-c", f"read zero; {virtus}; cat"]
        done = subprocess.run(command, stdin=stream, capture_output=True, timeout=60, check=True)
    assert done.stdout == b"got two\nthree\n"


def test_sockets_that_no_network_namespace_confines_are_not_there(technique: str) -> None:
    program = """
import errno, socket
for family in (31, 38, 40, 30, 29, 15):  # Bluetooth, ALG, VSOCK, TIPC, CAN, KEY
    try:
        socket.socket(family, socket.SOCK_STREAM)
        print('made', family)
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
    assert set(python_guest(technique, program).split()) == {"EAFNOSUPPORT"}


def test_power_off_ends_the_machine_at_once(technique: str) -> None:
    if os.geteuid():
        pytest.skip("needs a guest that is root")
    program = "import ctypes, time; ctypes.CDLL(None).syscall(169, 0xfee1dead, 672274793, 0x4321fedc, 0); "
    program += "time.sleep(1000)"
    done = guest(technique, PYTHON, "-I", "-c", program)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("links", [1, 2])
def test_a_box_of_another_user_ends_with_its_outer_processes(technique: str, links: int) -> None:
    if os.geteuid():
        pytest.skip("needs root: only root may choose the guest's user")
    script = "sleep 1000 & echo ready; wait"
    command = [PYTHON, "-m", "virtus", "run", "--with", technique, "--user", "1234", "--", "sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    everybody = descendants(process.pid)
    os.kill(everybody[links - 1], signal.SIGKILL)
    process.wait(timeout=20)
    process.stdout.close()
    end = time.monotonic() + 10
    while time.monotonic() < end and any(alive(pid) for pid in everybody):
        time.sleep(0.02)
    assert [pid for pid in everybody if alive(pid)] == []


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that only waits for the host's init does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def test_links_in_kept_changes_do_not_lead_outside(technique: str, tmp_path: Path) -> None:
    keep, root, outside = tmp_path / "keep", tmp_path / "root", tmp_path / "outside"
    (root / "bin").mkdir(parents=True)
    outside.mkdir()
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("no /bin/busybox (Debian: busybox-static)")
    (root / "bin/sh").write_bytes(busybox.read_bytes())
    (root / "bin/sh").chmod(0o755)
    box = ("--root", root, "--keep", keep)
    script = f"for name in dev proc sys run mnt tmp; do rm -rf /$name 2>/dev/null; ln -s {outside} /$name; done; :"
    assert guest(technique, "/bin/sh", "-c", script, options=box).returncode == 0
    guest(technique, "/bin/sh", "-c", "echo x > /mnt/file; echo x > /tmp/file", options=box)
    assert list(outside.iterdir()) == []

"""`virtus run`, alike under every technique: streams, status, signals, layers, volumes, errors."""

import json
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.guest_runs import PYTHON, TECHNIQUES, guest, need, python_guest, virtus

pytestmark = pytest.mark.slow


@pytest.fixture(params=TECHNIQUES)
def technique(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(name)
    return name


def test_streams_and_status_pass_through(technique: str) -> None:
    done = guest(technique, "sh", "-c", "cat; echo to-err >&2; exit 7", stdin=b"from-in\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"from-in\n", b"to-err\n", 7)


def test_a_killed_guest_is_128_and_the_signal(technique: str) -> None:
    assert guest(technique, "sh", "-c", "kill -SEGV $$").returncode == 139


def test_the_guest_has_its_own_view(technique: str) -> None:
    program = "import os, socket; print(os.getpid(), os.getppid(), socket.gethostname(), "
    program += "sorted(filter(str.isdigit, os.listdir('/proc'))))"
    assert python_guest(technique, program, options=("--hostname", "box")) == "2 1 box ['1', '2']\n"


def test_changes_are_thrown_away(technique: str, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    script = f"cd {tmp_path} && echo new > made && echo changed > old && rm -r /etc/apt; cat made old"
    done = guest(technique, "sh", "-c", script)
    assert done.stdout == b"new\nchanged\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
    assert (tmp_path / "old").read_text() == "old"


def test_changes_can_be_kept_and_gone_on_with(technique: str, tmp_path: Path) -> None:
    keep = tmp_path / "keep"
    assert guest(technique, "sh", "-c", "echo kept > /srv/virtus-kept", options=("--keep", keep)).returncode == 0
    assert guest(technique, "cat", "/srv/virtus-kept", options=("--keep", keep)).stdout == b"kept\n"
    assert not Path("/srv/virtus-kept").exists()


def test_volumes(technique: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shared")
    options = ("--volume", f"{tmp_path}:/mnt/rw", "--volume", f"{tmp_path}:/mnt/ro:ro")
    script = "cat /mnt/ro/file; echo back > /mnt/rw/back; touch /mnt/ro/no 2>/dev/null || echo refused"
    done = guest(technique, "sh", "-c", script, options=options)
    assert done.stdout == b"sharedrefused\n"
    assert (tmp_path / "back").read_text() == "back\n"


def test_there_is_no_network_but_loopback(technique: str) -> None:
    program = """
import socket
with open('/proc/net/dev') as stream:
    print(sorted(line.split(':')[0].strip() for line in stream if ':' in line))
listener = socket.create_server(('127.0.0.1', 0))
client = socket.create_connection(listener.getsockname())
served, _ = listener.accept()
served.sendall(b'hi')
print(client.recv(2))
try:
    socket.create_connection(('192.0.2.1', 9), timeout=2)
except OSError as error:
    print(error.errno)
"""
    assert python_guest(technique, program) == "['lo']\nb'hi'\n101\n"


def test_environment_user_and_directory(technique: str) -> None:
    done = guest(technique, "sh", "-c", "echo $NEW; pwd", options=("--env", "NEW=thing"))
    assert done.stdout.decode() == f"thing\n{os.getcwd()}\n"
    if os.geteuid() == 0:
        script = "id -u; cat /etc/shadow 2>/dev/null || echo refused; touch /etc/mine 2>/dev/null || echo refused"
        assert guest(technique, "sh", "-c", script, options=("--user", "1234")).stdout == b"1234\nrefused\nrefused\n"


def test_signals_reach_the_guest(technique: str) -> None:
    script = "trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    command = [PYTHON, "-m", "virtus", "run", "--with", technique, "--", "sh", "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"caught\n"
    assert process.wait() == 5
    process.stdout.close()


def test_a_terminal_is_a_terminal_and_control_c_interrupts(technique: str) -> None:
    script = "stty size; trap 'echo got-it; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    pid, master = pty.fork()
    if pid == 0:
        os.execv(PYTHON, [PYTHON, "-m", "virtus", "run", "--with", technique, "--", "sh", "-c", script])
    seen = _read_until(master, b"ready")
    os.write(master, b"\x03")
    seen += _read_until(master, b"got-it")
    _, status = os.waitpid(pid, 0)
    os.close(master)
    assert b"0 0" in seen
    assert os.waitstatus_to_exitcode(status) == 3


def test_a_terminal_is_as_it_was_whatever_ends_the_supervisor() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    command = [PYTHON, "-m", "virtus", "run", "--", "sh", "-c", "echo ready; sleep 60"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    _read_until(master, b"ready")
    _until(lambda: termios.tcgetattr(slave) != before)
    process.kill()
    process.wait()
    _until(lambda: termios.tcgetattr(slave) == before)
    os.close(master)
    os.close(slave)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def _read_until(master: int, word: bytes) -> bytes:
    seen, end = b"", time.monotonic() + 20
    while word not in seen and time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            try:
                seen += os.read(master, 4096)
            except OSError:
                break  # the terminal is closed
    assert word in seen
    return seen


def test_the_meter_counts(technique: str, tmp_path: Path) -> None:
    report = tmp_path / "meter.json"
    done = guest(technique, "sh", "-c", "true | true", options=("--meter", "--meter-json", report))
    data = json.loads(report.read_text())
    assert data["technique"] == technique
    assert data["status"] == 0
    assert data["exit_count"] == sum(data["exits"].values()) > 0
    assert data["context_switches"] > 0
    assert data["cpu_s"] > 0
    assert technique.encode() in done.stderr


def test_an_unknown_call_is_enosys_and_a_line_in_the_meter(technique: str, tmp_path: Path) -> None:
    report = tmp_path / "meter.json"
    program = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.syscall(1000), ctypes.get_errno())"
    assert python_guest(technique, program, options=("--meter-json", report)) == "-1 38\n"
    assert any("1000" in line for line in json.loads(report.read_text())["notes"])


def test_a_number_that_no_call_has_is_enosys_and_only_its_low_half_counts(technique: str) -> None:
    program = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
for number in (-1, 2**63 - 1, -(2**63)):  # the last one is read(-1)
    print(libc.syscall(ctypes.c_long(number), ctypes.c_long(-1), 0, 0), ctypes.get_errno())
"""
    assert python_guest(technique, program) == "-1 38\n-1 38\n-1 9\n"


def test_another_root(technique: str, tmp_path: Path) -> None:
    program = tmp_path / "root/bin/true"
    program.parent.mkdir(parents=True)
    program.write_bytes(MINIMAL)
    program.chmod(0o755)
    assert guest(technique, "/bin/true", options=("--root", tmp_path / "root")).returncode == 42


MINIMAL = (
    bytes.fromhex(
        "7f454c4602010100000000000000000002003e000100000078004000000000004000000000000000000000000000000000000000"
    )
    + bytes.fromhex("4000380001000000000000000100000005000000000000000000000000004000000000000000400000000000")
    + bytes.fromhex("840000000000000084000000000000000010000000000000")
    + bytes.fromhex("bf2a000000b83c0000000f05")  # mov edi, 42; mov eax, 60; syscall
)
"""A static program of 132 bytes that exits with 42."""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("run", "--", "/no/such/guest"), 127, b"no such file"),
        (("run", "--", "no-such-command-anywhere"), 127, b"no such command"),
        (("run", "--", "/etc"), 126, b"a directory"),
        (("run", "--", "/etc/passwd"), 126, b"text file without #!"),
        (("run", "--root", "/no/such/root", "--", "true"), 2, b"--root"),
        (("run", "--keep", "/etc/passwd", "--", "true"), 2, b"--keep"),
        (("run", "--keep", "/proc/none", "--", "true"), 2, b"--keep"),
        (("run", "--volume", "relative", "--", "true"), 2, b"SRC:DST"),
        (("run", "--env", "=x", "--", "true"), 2, b"K=V"),
        (("run", "--with", "nothing", "--", "true"), 2, b"unknown"),
        (("run", "--with", "hvm", "--", "true"), 2, b"boots systems"),
        (("run", "--no-such-option"), 2, b"No such option"),
        (("compare", "--with", "nobody", "--", "true"), 2, b"nobody is unknown"),
        (("compare", "--plot", "x.txt", "--", "true"), 2, b"--plot"),
    ],
)
def test_mistakes_are_one_line_with_the_shells_status(words: tuple[str, ...], status: int, said: bytes) -> None:
    done = virtus(*words)
    assert done.returncode == status
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("bytes_", [MINIMAL[:30], MINIMAL[:100], b"\x7fELF" + bytes(200)])
def test_a_damaged_program_is_refused(technique: str, tmp_path: Path, bytes_: bytes) -> None:
    program = tmp_path / "damaged"
    program.write_bytes(bytes_)
    program.chmod(0o755)
    done = guest(technique, program)
    assert done.returncode == 126, done.stderr
    assert done.stderr.count(b"\n") == 1

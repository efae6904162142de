"""Terminals and job control with a real shell: at the user's terminal, and on a pseudo-terminal inside a guest."""

import fcntl
import os
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tests.guest_runs import PYTHON, TECHNIQUES, need, python_guest

pytestmark = pytest.mark.slow
SHELL = ["/bin/bash", "--norc", "--noprofile", "-i"]
PATIENCE_S = 20.0
TAKE_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
"""A program for a new session: the terminal becomes its own, and another program takes its place."""


class Screen:
    """A program on a terminal of its own, and what it has written there."""

    def __init__(self, *command: str) -> None:
        self.master, slave = os.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO  # so that nothing is found but what the program says
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.text = ""
        environment = {**os.environ, "PS1": "$ ", "TERM": "dumb", "INPUTRC": "/dev/null"}
        self.process = subprocess.Popen(
            [PYTHON, "-c", TAKE_TERMINAL, *command],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=environment,
        )  # fmt: skip
        os.close(slave)

    def type(self, line: str) -> None:
        """Type; what was written before is forgotten."""
        self.text = ""
        os.write(self.master, line.encode())

    def expect(self, wanted: str) -> None:
        """Wait until the program has written this."""
        end = time.monotonic() + PATIENCE_S
        while wanted not in self.text:
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{wanted!r} did not come, but {self.text!r}"
            self.text += os.read(self.master, 4096).decode(errors="replace")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture(params=TECHNIQUES)
def technique(request: pytest.FixtureRequest) -> str:
    need(str(request.param))
    return str(request.param)


@pytest.fixture
def shell(technique: str) -> Iterator[Screen]:
    """bash at the user's terminal, inside a guest."""
    screen = Screen(PYTHON, "-m", "virtus", "run", "--with", technique, "--", *SHELL)
    screen.expect("$ ")
    yield screen
    screen.close()


def test_a_shell_has_its_terminal(shell: Screen) -> None:
    shell.type("tty; echo rc=$?\n")
    shell.expect("rc=0")
    assert "/dev/" in shell.text


def test_stop_continue_and_interrupt(shell: Screen) -> None:
    shell.type("sleep 100\n")
    time.sleep(0.3)
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.type("bg; jobs\n")
    shell.expect("Running")
    shell.type("fg; echo ended=$?\n")
    time.sleep(0.3)
    shell.type("\x03")
    shell.expect("$ ")
    shell.type("echo alive=$((1+1))\n")
    shell.expect("alive=2")


def test_a_background_reader_waits_for_the_foreground(shell: Screen) -> None:
    shell.type("cat &\n")
    time.sleep(0.3)
    shell.type("jobs\n")
    shell.expect("Stopped")
    shell.type("fg\n")
    time.sleep(0.3)
    shell.type("typed for cat\n")
    shell.expect("typed for cat")
    shell.type("\x04")
    shell.expect("$ ")
    shell.type("echo rc=$?\n")
    shell.expect("rc=0")


def test_a_new_window_size(shell: Screen) -> None:
    shell.type("trap 'echo size $(stty size)' WINCH; echo trap=set\n")
    shell.expect("trap=set")
    fcntl.ioctl(shell.master, termios.TIOCSWINSZ, b"\x28\0\x64\0\0\0\0\0")
    os.kill(shell.process.pid, 28)
    end = time.monotonic() + PATIENCE_S
    while "40 100" not in shell.text and time.monotonic() < end:
        shell.type("stty size; echo is=it\n")
        shell.expect("is=it")
    assert "40 100" in shell.text


def test_typed_end_and_exit_status(shell: Screen) -> None:
    shell.type("exit 7\n")
    assert shell.process.wait(PATIENCE_S) == 7


def test_a_pseudo_terminal_inside(technique: str) -> None:
    program = """
import os, pty, select, sys, time
def until(word):
    text, end = b"", time.monotonic() + 15
    while word not in text and time.monotonic() < end:
        if select.select([master], [], [], 0.1)[0]:
            text += os.read(master, 4096)
    assert word in text, (word, text)
os.environ["PS1"] = "$ "
pid, master = pty.fork()
if not pid:
    os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "-i"])
until(b"$ ")
os.write(master, b"sh -c 'echo go-$((1+1)); exec sleep 100'\\n"); until(b"go-2"); time.sleep(0.5)
os.write(master, b"\\x1a"); until(b"Stopped")
os.write(master, b"fg\\n"); time.sleep(1); os.write(master, b"\\x03"); until(b"$ ")
os.write(master, b"echo rc=$?\\n"); until(b"rc=130")
os.close(master)
print(os.WTERMSIG(os.waitpid(pid, 0)[1]))
"""
    assert python_guest(technique, program).strip() == "1"  # SIGHUP: its terminal was closed


@pytest.mark.skipif(os.getuid() != 0, reason="only root could change the host's devices")
def test_inherited_devices_keep_their_mode(technique: str) -> None:
    before = os.stat("/dev/full").st_mode
    program = "import os\ntry: os.fchmod(0, 0o600)\nexcept OSError as error: print(error.strerror)"
    with open("/dev/full", "rb") as full:
        command = [sys.executable, "-m", "virtus", "run", "--with", technique, "--", PYTHON, "-I", "-c", program]
        done = subprocess.run(command, stdin=full, capture_output=True, timeout=60, check=False)
    after = os.stat("/dev/full").st_mode
    os.chmod("/dev/full", before & 0o7777)
    assert after == before, done
    assert done.stdout, done.stderr

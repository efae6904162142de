"""Processes and signals from inside a guest of the user-mode kernel, beside the same program run natively."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from virtus.techniques import registry

pytestmark = pytest.mark.slow

JOBS = """
    set -m
    sleep 5 &
    kill -STOP %1; sleep 0.2; jobs %1; kill -CONT %1; sleep 0.2; jobs %1; kill %1; wait %1; echo "ended $?"
    trap 'echo term' TERM; kill $$; echo after
    (trap 'echo usr1; exit 4' USR1; while :; do sleep 0.05; done) & child=$!
    sleep 0.3; kill -USR1 $child; wait $child; echo "child $?"
    yes | head -2; echo "${PIPESTATUS[@]}"
    timeout 0.2 sleep 5; echo $?
    read -t 0.1 line < <(sleep 1); echo "read $?"
    coproc cat; echo hi >&${COPROC[1]}; read line <&${COPROC[0]}; echo $line; kill $COPROC_PID
"""

SIGNALS = """
import ctypes, os, resource, signal, subprocess, threading, time
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
for _ in range(200):
    os.kill(os.getpid(), signal.SIGUSR1)
print(len(seen))

def child_status(function):
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        function()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def spin_and_die():
    for _ in range(3):
        threading.Thread(target=lambda: time.sleep(100), daemon=True).start()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

print(child_status(lambda: ctypes.string_at(8)), child_status(os.abort), child_status(spin_and_die))
print(child_status(lambda: signal.signal(signal.SIGSEGV, signal.SIG_IGN) and 0 or ctypes.string_at(8)))

signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
while seen.count(signal.SIGALRM) < 5:
    signal.pause()
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGVTALRM, lambda number, frame: seen.append(number))
signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
while signal.SIGVTALRM not in seen:
    pass
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
os.kill(os.getpid(), signal.SIGUSR2)
print(signal.sigpending(), signal.sigwaitinfo({signal.SIGUSR2}).si_signo, signal.sigtimedwait({signal.SIGUSR2}, 0.01))

threads = [threading.Thread(target=lambda: [subprocess.run(["true"], check=True) for _ in range(3)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
child = subprocess.Popen(["sh", "-c", "exit 5"])  # held: a forgotten Popen waits for its process by itself
print(os.wait4(child.pid, 0)[1])
"""


@pytest.fixture(params=["uml-skas", "uml-tt"], scope="module")
def technique(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    availability = registry.get(name).probe()
    if not availability.works:
        pytest.skip(f"{name} does not work here: {availability.reason}")
    return name


def virtus(technique: str, *guest: str) -> list[str]:
    return [sys.executable, "-m", "virtus", "run", "--with", technique, "--", *guest]


def output_of(command: list[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return finished.stdout + finished.stderr + f"status {finished.returncode}"


@pytest.mark.parametrize("guest", [("/bin/bash", "-c", JOBS), (sys.executable, "-c", SIGNALS)], ids=["jobs", "signals"])
def test_as_natively(technique: str, guest: tuple[str, ...]) -> None:
    assert output_of(virtus(technique, *guest)) == output_of(list(guest))


def test_a_guest_s_death_by_a_signal_is_told_as_a_shell_does(technique: str) -> None:
    assert subprocess.run(virtus(technique, "/bin/bash", "-c", "kill -9 $$"), check=False).returncode == 128 + 9


def descendants(pid: int) -> list[int]:
    """All processes below one of our own, by the host's list of children."""
    found: list[int] = []
    for row in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, row.read_text().split()):
            found += [child, *descendants(child)]
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("which", [0, -1], ids=["the supervisor", "the last process"])
def test_nothing_survives_a_kill(technique: str, which: int) -> None:
    guest = "sleep 60 & sleep 60 & echo up; wait"
    with subprocess.Popen(virtus(technique, "/bin/bash", "-c", guest), stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"up\n"
        family = [supervisor.pid, *descendants(supervisor.pid)]
        assert len(family) > 3
        os.kill(family[which], signal.SIGKILL)
        if which:
            supervisor.kill()
        supervisor.wait(10)
        deadline = time.monotonic() + 10
        while (left := [pid for pid in family if lives(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left


class Typist:
    """A shell with job control on a terminal of its own."""

    def __init__(self) -> None:
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "PS1": "> ", "TERM": "dumb"})
        self.text = ""

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def until(self, words: str) -> None:
        """Read on until the terminal has shown these words; forget what was before."""
        deadline = time.monotonic() + 20
        while words not in self.text:
            assert select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0], self.text
            self.text += os.read(self.terminal, 4096).decode(errors="replace")
        self.text = self.text.partition(words)[2]

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)  # our own child; the terminal's end hangs its jobs up
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def test_job_control_of_the_caller_s_shell(technique: str) -> None:
    typist = Typist()
    try:
        # exec: a shell that forks by vfork(2) may be stopped in the middle of it, here as anywhere
        command = " ".join(virtus(technique, "sh", "-c", "'echo up; exec sleep 50'"))
        typist.type(f"{command}\n")
        typist.until("up\r\n")
        typist.type("\x1a")
        typist.until("Stopped")
        typist.type("fg\n")
        typist.until("sleep 50")
        time.sleep(0.3)
        typist.type("\x03")
        typist.type("echo status $?\n")
        typist.until("status 130")
    finally:
        typist.close()

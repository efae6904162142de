"""Debian's i386 kernel under scan before execution and under QEMU's translator; a part of benchmarks.prescan.

The guest says on its console where it is. Processor time of all processes of a machine is read when it says so.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.prescan.debian import Debian, debian, ramdisk

from benchmarks.installed import virtus

QEMU: Final = "qemu-system-i386"
WORDS: Final = "console=ttyS0 panic=-1 mitigations=off nokaslr noapic nolapic quiet"
LOOP: Final = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
PARTS: Final = {
    "Linux for i386 to /init": "",
    "shell loop, 200000 rounds": LOOP,
    "20 programs, one after the other": "i=0; while [ $i -lt 20 ]; do busybox true; i=$((i+1)); done",
    "4 MiB through a pipe to md5sum": "dd if=/dev/zero bs=64k count=64 2>/dev/null | md5sum",
}
"""What the guest does until it says that it has; the first is to start."""
MARK: Final = b"reached:"
PATIENCE_S: Final = 300
TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


def script() -> str:
    """/init: every part, and a mark behind each."""
    marked = (f"{part}\necho {MARK.decode()}{number}\n" for number, part in enumerate(PARTS.values()))
    return "".join(marked) + "poweroff -f\n"


def session_time(leader: int) -> float:
    """Seconds of processor time of a session's processes, and of those that they have waited for."""
    total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[3]) == leader:  # proc(5): session is the 6th field; utime to cstime are the 14th to 17th
            total += sum(map(int, fields[11:15]))
    return total * TICK_S


def watched(words: list[str]) -> dict[str, float]:
    """Seconds of processor time by part. Raises RuntimeError for a guest that does not say all."""
    found: dict[str, float] = {}
    machine = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    assert machine.stdout is not None
    said, before = b"", 0.0
    end = time.monotonic() + PATIENCE_S
    try:
        for number, part in enumerate(PARTS):
            mark = MARK + str(number).encode()
            while mark not in said:
                more = os.read(machine.stdout.fileno(), 4096)
                if not more or time.monotonic() > end:
                    raise RuntimeError(f"{words[0]} ended before {part}: {said[-500:]!r}")
                said += more
            now = session_time(machine.pid)
            found[part], before = now - before, now
        machine.communicate(timeout=PATIENCE_S)
    finally:
        machine.kill()
        machine.wait()
        machine.stdout.close()
    return found


def natively(guest: Debian) -> float:
    """Seconds of the shell loop by the guest's own busybox, where the host runs programs for i386."""
    words = [str(guest.busybox), "sh", "-c"]
    took = []
    for code in (LOOP, ":"):
        before = os.times()
        subprocess.run([*words, code], check=True, timeout=PATIENCE_S)
        after = os.times()
        took.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return took[0] - took[1]


def measure(rounds: int, *, qemu: bool) -> dict[tuple[str, str], float]:
    """Least seconds by part and way, interleaved."""
    guest = debian()
    best: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory(prefix="virtus-prescan-") as name:
        initrd = ramdisk(Path(name) / "initrd", guest, script())
        common = [str(initrd), str(guest.kernel)]
        ways = {"prescan": virtus("run", "--with", "prescan", "--memory", "128M")}
        ways["prescan"] += ["--append", WORDS, "--initrd", *common]
        if qemu:
            ways["QEMU TCG"] = [QEMU, "-accel", "tcg", "-m", "128", "-display", "none", "-serial", "stdio"]
            ways["QEMU TCG"] += ["-no-reboot", "-monitor", "none", "-net", "none", "-append", WORDS]
            ways["QEMU TCG"] += ["-initrd", common[0], "-kernel", common[1]]
        loop = list(PARTS)[1]
        for _ in range(rounds):
            for way, words in ways.items():
                for part, took in watched(words).items():
                    best[part, way] = min(took, best.get((part, way), took))
            took = natively(guest)
            best[loop, "native"] = min(took, best.get((loop, "native"), took))
    return best

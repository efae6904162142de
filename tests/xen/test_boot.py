"""Debian's unmodified kernel boots as a paravirtual domain: to user space, to a disk, to a shell, and off again."""

import errno
import hashlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from tests.xen import kernels
from tests.xen.mini_guest import machine
from virtus.errors import GuestNotFound, GuestNotRunnable, UsageError
from virtus.machine.machine_spec import DiskSpec, MachineSpec, parse_disk, parse_memory
from virtus.techniques.paravirt import TECHNIQUE, command_line

TIMEOUT_S = 120
CALLS_OF_GATES = 20_000  # in gates.c
BOOT = """
import json, os, sys
from pathlib import Path
from virtus.machine.machine_spec import MachineSpec, parse_disk
from virtus.techniques.paravirt import TECHNIQUE
kernel, initrd, append, *disks = sys.argv[1:]
cpus = int(os.environ.get("CPUS", "1"))
spec = MachineSpec(Path(kernel), Path(initrd), append, cpus=cpus, disks=[parse_disk(disk) for disk in disks])
report = TECHNIQUE.boot(spec)
print(json.dumps(report.as_json()), file=sys.stderr)
sys.exit(report.status)
"""


def command(ramdisk: Path, append: str, *disks: str, package: str = kernels.META_PACKAGE) -> list[str]:
    return [sys.executable, "-c", BOOT, str(kernels.kernel(package) / "vmlinuz"), str(ramdisk), append, *disks]


def boot(
    ramdisk: Path, *disks: str, append: str = "quiet panic=-1", package: str = kernels.META_PACKAGE
) -> tuple[str, dict[str, Any]]:
    """What the domain showed, and the report."""
    done = subprocess.run(
        command(ramdisk, append, *disks, package=package),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    errors = done.stderr.decode().strip()
    assert errors.startswith("{"), errors
    report = json.loads(errors)
    assert report["status"] == done.returncode
    return done.stdout.decode(errors="replace").replace("\r\n", "\n"), report


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_a_stock_kernel_runs_programs_and_powers_off(tmp_path: Path) -> None:
    script = """
echo type $(cat /sys/hypervisor/type) $(cat /sys/hypervisor/guest_type)
grep -c ^processor /proc/cpuinfo
for i in 1 2 3 4 5 6 7 8; do echo $i; done | sort -rn | head -n 1
(sleep 1; kill -TERM $$) & trap 'echo a signal' TERM; wait; trap - TERM
head -c 16777216 /dev/zero >/zeros; sha256sum /zeros
before=$(cut -d. -f1 /proc/uptime); sleep 2; echo $(($(cut -d. -f1 /proc/uptime) - before)) seconds
date -u +%Y
program32 & program32; echo $?
wait
poweroff -f
"""
    shown, report = boot(kernels.ramdisk(script, tmp_path / "initrd"))
    assert "type xen PV\n1\n8\na signal\n" in shown
    assert hashlib.sha256(bytes(16 << 20)).hexdigest() in shown
    assert "\n2 seconds\n" in shown or "\n3 seconds\n" in shown
    assert time.strftime("\n%Y\n", time.gmtime()) in shown
    assert shown.count("32 bits on\n") == 2 and "\n7\n" in shown
    assert report["status"] == 0
    calls = report["calls"]
    assert report["exits"]["hypercall"] == sum(calls.values()) - calls.get("system call of a program", 0)
    assert not [note for note in report["notes"] if "refused" in note]


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_disks_are_read_written_and_left_alone(tmp_path: Path) -> None:
    contents = {name: os.urandom(4 << 20) for name in ("plain", "aside", "only")}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    script = """
for disk in xvda xvdb xvdc; do sha256sum /dev/$disk; done
for disk in xvda xvdb xvdc; do echo written | dd of=/dev/$disk conv=fsync 2>&1 | grep -c error; done
echo 3 >/proc/sys/vm/drop_caches
for disk in xvda xvdb; do head -n 1 /dev/$disk; done
poweroff -f
"""
    ramdisk = kernels.ramdisk(script, tmp_path / "initrd", kernels.kernel() / "xen-blkfront.ko")
    paths = [f"{tmp_path}/plain", f"{tmp_path}/aside,snapshot", f"{tmp_path}/only,ro"]
    shown, report = boot(ramdisk, *paths)
    for content in contents.values():
        assert hashlib.sha256(content).hexdigest() in shown
    assert shown.count("\nwritten\n") + shown.count("\nwritten\nwritten\n") >= 2
    assert (tmp_path / "plain").read_bytes() == b"written\n" + contents["plain"][8:]
    assert (tmp_path / "aside").read_bytes() == contents["aside"]
    assert (tmp_path / "only").read_bytes() == contents["only"]
    assert report["details"]["block requests"] > 10


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_a_kernel_that_panics_is_a_crash(tmp_path: Path) -> None:
    shown, report = boot(kernels.ramdisk("echo c >/proc/sysrq-trigger", tmp_path / "initrd"))
    assert "sysrq triggered crash" in shown
    assert report["status"] == 1
    assert "the domain ended: crash" in report["notes"]


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_a_shell_on_the_terminal_and_the_way_out(tmp_path: Path) -> None:
    ramdisk = kernels.ramdisk("exec setsid cttyhack sh", tmp_path / "initrd")
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(command(ramdisk, "quiet"), stdin=slave, stdout=slave, stderr=subprocess.DEVNULL)
    shown = b""

    def until(words: bytes) -> None:
        nonlocal shown
        deadline = time.monotonic() + TIMEOUT_S
        while words not in shown:
            assert time.monotonic() < deadline, shown[-500:]
            if select.select([master], [], [], 1)[0]:
                try:
                    shown += os.read(master, 65536)
                except OSError as error:
                    assert error.errno == errno.EIO

    try:
        until(b"/ # ")
        os.write(master, b"echo $((6 * 7)) things\r")
        until(b"42 things")
        os.write(master, b"echo $((40 + 4)) things; sleep 1000\r")
        until(b"44 things")
        time.sleep(1)
        os.write(master, b"\x03")  # what Ctrl-C is, the guest decides
        os.write(master, b"echo again; cat\r")
        until(b"again\r\n")
        os.write(master, b"\x1d")
        assert process.wait(TIMEOUT_S) == 130
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_a_machine_that_is_told_to_end_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    ramdisk = kernels.ramdisk("poweroff -f", tmp_path / "initrd")
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(command(ramdisk, "earlyprintk=xen"), stdin=slave, stdout=slave, stderr=slave)
    try:
        os.read(master, 1)
        assert termios.tcgetattr(slave) != before
        process.terminate()
        assert process.wait(TIMEOUT_S) == 128 + signal.SIGTERM
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        (MachineSpec(Path("/no/such/kernel")), GuestNotFound, "no such file"),
        (MachineSpec(Path("/etc/passwd")), GuestNotRunnable, "neither a bzImage nor an ELF kernel"),
        (MachineSpec(Path(sys.executable).resolve()), GuestNotRunnable, "kernel|sizes|load"),
        (MachineSpec(Path("/etc/passwd"), cpus=9), UsageError, "at most 8"),
    ],
)
def test_what_cannot_be_booted_is_told(spec: MachineSpec, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        TECHNIQUE.boot(spec)


def test_options_of_a_machine() -> None:
    assert parse_disk("disk.img") == DiskSpec(Path("disk.img"))
    assert parse_disk("disk.img,ro") == DiskSpec(Path("disk.img"), read_only=True)
    assert parse_disk("disk.img,snapshot,ro") == DiskSpec(Path("disk.img"), read_only=True, snapshot=True)
    assert (parse_memory("256M"), parse_memory("1g"), parse_memory("65536K")) == (256 << 20, 1 << 30, 64 << 20)
    for word in ("", "disk.img,rw", ",ro"):
        with pytest.raises(UsageError):
            parse_disk(word)
    for word in ("", "12", "M", "1M", "1000G", "-5M", "1.5G"):
        with pytest.raises(UsageError):
            parse_memory(word)


def test_the_users_words_come_before_the_hints() -> None:
    assert command_line("") == "nr_cpus=1 noreplace-smp"
    assert command_line("quiet nr_cpus=3") == "quiet nr_cpus=3 noreplace-smp"


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_grant_tables_of_version_2_carry_a_disk(tmp_path: Path) -> None:
    content = os.urandom(2 << 20)
    (tmp_path / "disk").write_bytes(content)
    script = "dmesg | grep -i 'grant tables'; sha256sum /dev/xvda; echo written | dd of=/dev/xvda; sync; poweroff -f\n"
    ramdisk = kernels.ramdisk(script, tmp_path / "initrd", kernels.kernel() / "xen-blkfront.ko")
    shown, _ = boot(ramdisk, f"{tmp_path}/disk", append="panic=-1 grant_table.version=2")
    assert "Grant tables using version 2 layout" in shown
    assert hashlib.sha256(content).hexdigest() in shown
    assert (tmp_path / "disk").read_bytes() == b"written\n" + content[8:]


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_four_processors_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
grep -c ^processor /proc/cpuinfo
for cpu in 0 1 2 3; do (taskset $((1 << cpu)) sha256sum /bin/busybox; echo done $cpu) & done; wait
echo 0 >/sys/devices/system/cpu/cpu2/online; cat /sys/devices/system/cpu/online
echo 1 >/sys/devices/system/cpu/cpu2/online; cat /sys/devices/system/cpu/online
awk '/callfuncsingle[0-3]/ {n = 0; for (i = 2; i < 6; i++) n += $i; if (n) print "called"}' /proc/interrupts
poweroff -f
"""
    monkeypatch.setenv("CPUS", "4")
    shown, report = boot(kernels.ramdisk(script, tmp_path / "initrd"))
    assert report["status"] == 0
    lines = shown.split("\n")
    assert "4" in lines
    assert {f"done {cpu}" for cpu in range(4)} <= set(lines)
    assert len({line for line in lines if line.endswith("/bin/busybox")}) == 1
    assert lines.index("0-1,3") < lines.index("0-3")
    assert lines.count("called") == 4


THREADS = r"""
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sched.h>
#include <unistd.h>
#include <sys/time.h>
#include <sys/wait.h>
static volatile int stop;
static volatile long lost;
static __thread volatile long ticks;
static void tick(int number) { ticks += number; }
static void *work(void *unused) {
    unsigned long self = (unsigned long)pthread_self(), base;
    for (long n = 0; !stop; n++) {
        for (int i = 0; i < 2000; i++) {
            __asm__ volatile("mov %%fs:0, %0" : "=r"(base));
            lost += base != self;
        }
        if (n % 16 == 0) sched_yield();
        if (n % 64 == 0) raise(SIGUSR1);
    }
    return unused;
}
int main(int count, char **words) {
    struct itimerval often = {{0, 1000}, {0, 1000}};
    pthread_t threads[6];
    int status, failed = 0;
    if (count > 1) return 0;
    signal(SIGALRM, tick), signal(SIGUSR1, tick);
    setitimer(ITIMER_REAL, &often, 0);
    for (int i = 0; i < 6; i++) pthread_create(threads + i, 0, work, 0);
    for (int i = 0; i < 25; i++) {
        if (!fork()) {
            execl(words[0], words[0], "child", (char *)0);
            _exit(1);
        }
        wait(&status);
        failed += status != 0;
    }
    stop = 1;
    for (int i = 0; i < 6; i++) pthread_join(threads[i], 0);
    printf("lost bases %ld, failed children %d\n", lost, failed);
}
"""


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_threads_keep_their_storage_while_processors_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one processor's kernel loads into a segment register while it starts a program is not another's."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build a program of threads")
    (tmp_path / "threads.c").write_text(THREADS)
    program = tmp_path / "threads"
    subprocess.run(["gcc", "-O2", "-pthread", "-static", "-o", program, tmp_path / "threads.c"], check=True)
    monkeypatch.setenv("CPUS", "2")
    script = "/bin/threads\necho ended $?\npoweroff -f\n"
    shown, _ = boot(kernels.ramdisk(script, tmp_path / "initrd", files={"bin/threads": program}))
    assert "lost bases 0, failed children 0\nended 0\n" in shown


@pytest.mark.full
@pytest.mark.usefixtures("ring3")
def test_debians_generic_kernel_has_its_disk_and_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(2 << 20)
    (tmp_path / "disk").write_bytes(content)
    monkeypatch.setenv("CPUS", "2")
    script = """
uname -v; grep -c ^processor /proc/cpuinfo
for cpu in 0 1; do (taskset $((1 << cpu)) sha256sum /dev/xvda) & done; wait
echo written | dd of=/dev/xvda; sync; poweroff -f
"""
    modules = kernels.kernel(kernels.GENERIC)
    ramdisk = kernels.ramdisk(script, tmp_path / "initrd", modules / "xen-blkfront.ko")
    shown, report = boot(ramdisk, f"{tmp_path}/disk", package=kernels.GENERIC)
    assert report["status"] == 0
    assert "2" in shown.split("\n")
    assert shown.count(hashlib.sha256(content).hexdigest()) == 2
    assert (tmp_path / "disk").read_bytes() == b"written\n" + content[8:]


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
@pytest.mark.parametrize("cpus", [1, 2])
def test_programs_reach_their_kernel_unharmed_and_harm_nobody_on_the_way(
    cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registers, and what jumps into the hypervisor's pages do; see gates.c."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to build tests/xen/gates.c")
    program = tmp_path / "gates"
    subprocess.run(["gcc", "-O2", "-static", "-o", program, Path(__file__).with_name("gates.c")], check=True)
    monkeypatch.setenv("CPUS", str(cpus))
    shown, report = boot(
        kernels.ramdisk("gates\necho alive\npoweroff -f\n", tmp_path / "initrd", files={"bin/gates": program})
    )
    assert "registers spoiled: 0, interrupted: often\n" in shown
    assert "came back from there: 0\nreturned nowhere: Segmentation fault\nalive\n" in shown
    assert report["status"] == 0
    with machine() as (vcpu, _, _):
        inner = vcpu.gates is not None
    calls = report["calls"].get("system call of a program", 0)
    assert calls < CALLS_OF_GATES if inner else calls > CALLS_OF_GATES

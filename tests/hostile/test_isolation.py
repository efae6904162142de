"""A hostile guest stays in: each way out is tried, under every technique."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.guest_runs import PYTHON, TECHNIQUES, guest, need, python_guest
from virtus.comparison.tree import descendants

pytestmark = pytest.mark.slow

CALL = """
import ctypes, errno, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
def run(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""


@pytest.fixture(params=TECHNIQUES)
def technique(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(name)
    return name


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("io_uring_setup", "425, 8, bytes(120)"),
        ("ptrace traceme", "101, 0, 0, 0, 0"),
        ("ptrace attach to init", "101, 16, 1, 0, 0"),
        ("process_vm_readv", "310, 1, 0, 0, 0, 0, 0"),
        ("mount", "165, b'none', b'/tmp', b'tmpfs', 0, 0"),
        ("umount", "166, b'/proc', 2"),
        ("pivot_root", "155, b'/', b'/'"),
        ("open_tree", "428, -100, b'/', 1"),
        ("fsopen", "430, b'tmpfs', 0"),
        ("unshare", "272, 0x10000000"),
        ("setns", "308, 0, 0"),
        ("clone into a user namespace", "56, 0x10000000 | 17, 0, 0, 0, 0"),
        ("bpf", "321, 0, bytes(64), 64"),
        ("userfaultfd", "323, 0"),
        ("perf_event_open", "298, bytes(128), 0, -1, -1, 0"),
        ("keyctl", "250, 0, -3, 0, 0, 0"),
        ("add_key", "248, b'user', b'x', b'y', 1, -3"),
        ("init_module", "175, bytes(8), 8, b''"),
        ("kexec_load", "246, 0, 0, 0, 0"),
        ("settimeofday", "164, bytes(16), 0"),
        ("swapon", "167, b'/etc/passwd', 0"),
        ("open_by_handle_at", "304, -100, bytes(128), 0"),
        ("iopl", "172, 3"),
        ("syslog", "103, 2, bytes(1), 1"),
        ("seccomp", "317, 1, 0, 0"),
        ("x32 getpid", "0x40000000 + 39"),
        ("x32 execve", "0x40000000 + 520, b'/bin/sh', 0, 0"),
    ],
)
def test_calls_that_lead_out_are_refused(technique: str, what: str, arguments: str) -> None:
    said = python_guest(technique, CALL + f"print(call({arguments}))").strip()
    assert said in ("EPERM", "ENOSYS", "EINVAL", "EACCES", "ENOPKG", "EBADF"), f"{what}: {said}"


def test_the_32_bit_entry_is_closed(technique: str) -> None:
    program = CALL + "print(run(bytes.fromhex('b814000000 cd80 4898 c3'.replace(' ', ''))))"  # getpid of i386
    assert python_guest(technique, program) == "-38\n"


def test_the_supervisor_is_out_of_sight(technique: str) -> None:
    program = (
        CALL
        + """
pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]
print(pids)
of_init = ['/proc/1/' + name for name in ('mem', 'environ', 'fd/0')]
for path in (*of_init, '/proc/kcore', '/proc/sysrq-trigger'):
    try:
        with open(path, 'rb') as stream:
            print(path, len(stream.read(16)))
    except OSError:
        pass
for pid in (1, -1):
    try:
        os.kill(pid, 9) if pid == 1 else None
    except OSError:
        pass
print('alive')
"""
    )
    lines = python_guest(technique, program).splitlines()
    assert lines[0] == "[1, 2]"
    assert lines[-1] == "alive"
    assert [line for line in lines[1:-1] if not line.endswith(" 0")] == []


def test_dot_dot_and_symlinks_stay_inside(technique: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_text("outside")
    (root / "link").symlink_to(secret)
    (root / "up").symlink_to("../../../../../../../.." + str(secret))
    busybox = "/bin/busybox"
    if not os.path.exists(busybox):
        pytest.skip("no /bin/busybox (Debian: busybox-static)")
    (root / "bin/sh").write_bytes(Path(busybox).read_bytes())
    (root / "bin/sh").chmod(0o755)
    script = f"cat /link; cat /up; cat ../../../..{secret}; cd /; cat ..{secret}; echo done"
    done = guest(technique, "/bin/sh", "-c", script, options=("--root", root))
    assert done.stdout == b"done\n"


def test_a_race_of_renames_never_leaves_the_root(technique: str, tmp_path: Path) -> None:
    program = """
import os, threading, time, tempfile
base = tempfile.mkdtemp()
os.makedirs(base + '/a/b/c')
stop = time.time() + 0.5
def shuffle():
    while time.time() < stop:
        try:
            os.rename(base + '/a/b', base + '/x'); os.rename(base + '/x', base + '/a/b')
        except OSError: pass
thread = threading.Thread(target=shuffle); thread.start()
seen = set()
while time.time() < stop:
    try:
        seen.add(os.path.exists(base + '/a/b/c/../../../../../../../..' + SECRET))
    except OSError: pass
thread.join()
print(seen)
""".replace("SECRET", repr(str(tmp_path / "never")))
    assert python_guest(technique, program) == "{False}\n"


def test_device_nodes_of_the_host_cannot_be_made(technique: str) -> None:
    program = """
import os, stat
try:
    os.mknod('/tmp/disk', stat.S_IFBLK | 0o600, os.makedev(8, 0))
    open('/tmp/disk', 'rb').read(1)
    print('made')
except OSError:
    print('refused')
"""
    assert python_guest(technique, program) == "refused\n"


def test_terminal_input_cannot_be_forged(technique: str) -> None:
    program = (
        CALL
        + """
import fcntl, pty, termios
master, slave = pty.openpty()
for request in (termios.TIOCSTI, 0x541C):
    try:
        fcntl.ioctl(slave, request, b'x'); print('forged')
    except OSError as error: print(errno.errorcode[error.errno] in ('EPERM', 'ENOTTY', 'EIO', 'EINVAL'))
"""
    )
    assert python_guest(technique, program) == "True\nTrue\n"


BOMB = """
import os, time
n = 0
try:
    while n < 200:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        n += 1
except OSError as error:
    print(error.errno, 10 < n <= 40)
"""


def test_a_fork_bomb_meets_its_limit(technique: str) -> None:
    # threads of `sleep` cost little; the limit is lowered so that the test is quick
    program = f"""
import sys
from virtus.machine.spec import GuestSpec
from virtus.techniques import registry
bomb = {BOMB!r}
report = registry.get({technique!r}).run(GuestSpec(argv=[sys.executable, '-I', '-c', bomb], process_limit=40))
print(any('limit' in line for line in report.notes))
"""
    done = subprocess.run([PYTHON, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.stdout == b"11 True\nTrue\n", done.stderr
    assert b"limit of 40" in done.stderr


@pytest.mark.parametrize("victim", ["supervisor", "second", "third", "fourth", "last"])
def test_kill_9_leaves_nothing_behind(technique: str, victim: str, tmp_path: Path) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    script = "sleep 1000 & sleep 1000 & echo ready; wait"
    command = [PYTHON, "-m", "virtus", "run", "--with", technique, "--", "sh", "-c", script]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    everybody = descendants(process.pid)
    assert len(everybody) >= 4
    index = {"supervisor": 0, "second": 1, "third": 2, "fourth": 3, "last": -1}[victim]
    os.kill(everybody[index], signal.SIGKILL)
    if victim in ("fourth", "last"):  # perhaps a guest process only: the machine goes on, and ends with its supervisor
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    process.stdout.close()
    end = time.monotonic() + 10
    while time.monotonic() < end and any(os.path.exists(f"/proc/{pid}") for pid in everybody):
        time.sleep(0.02)
    assert [pid for pid in everybody if os.path.exists(f"/proc/{pid}")] == []
    assert Path("/proc/self/mounts").read_text() == mounts
    assert os.listdir(tmp_path) == []

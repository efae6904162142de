"""Every technique for an ordinary user: no privilege is needed, and none is gained."""

import os
import subprocess

import pytest

from tests.guest_runs import PYTHON, TECHNIQUES, need
from virtus.host.mounts import Mount, parse_mount

RUN = """
import ctypes, os, shutil, sys, tempfile  # what is imported late an ordinary user may not be able to read
from virtus.machine import scratch
from virtus.machine.spec import GuestSpec
from virtus.personalities.linux import boot
from virtus.techniques import registry
import virtus.techniques.choose
technique = registry.get(sys.argv[1])
boot.load_handlers()
os.chdir('/')
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after an execve
user = int(sys.argv[3]) if sys.argv[3:] and sys.argv[3] else None
if 'on disk' in sys.argv[4:]:
    scratch.is_needed = lambda: True
spec = GuestSpec(argv=['/bin/sh', '-c', sys.argv[2]], env={'PATH': '/usr/bin:/bin'}, user=user)
sys.exit(technique.run(spec).status)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(params=TECHNIQUES)
def technique(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    need(name)
    return name


def run(technique: str, script: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([PYTHON, "-c", RUN, technique, script, *more], capture_output=True, timeout=60, check=False)


def test_files_can_be_made_in_the_guests_layer_only(technique: str) -> None:
    script = "echo x > /tmp/virtus-ordinary && cat /tmp/virtus-ordinary && mkdir /var/tmp/virtus-ordinary && id -u"
    done = run(technique, script)
    user = os.geteuid() or 65534
    assert done.stdout.decode() == f"x\n{user}\n", done.stderr
    assert not os.path.exists("/tmp/virtus-ordinary")
    assert not os.path.exists("/var/tmp/virtus-ordinary")


def test_layers_on_disk_where_a_tmpfs_has_no_attributes(technique: str) -> None:
    script = "cd /tmp && mkdir a && echo x > a/b && rm -r a && mkdir a && ls -A a && ls -d /tmp/virtus-changes-*"
    done = run(technique, script, "", "on disk")
    assert done.returncode == 0, done.stderr
    name = done.stdout.decode().strip()
    assert name.startswith("/tmp/virtus-changes-")
    assert not os.path.exists(name)


def test_other_peoples_secrets_stay_theirs(technique: str) -> None:
    done = run(technique, "cat /etc/shadow; ls /root; chown 1 /tmp; id -u", "0")
    assert done.stdout == b"0\n"


def test_mount_lines_are_unescaped() -> None:
    line = rb"36 35 98:0 /mnt1 /a\040b\134c rw,noatime master:1 - ext3 /dev/root rw"
    assert parse_mount(line) == Mount("/a b\\c", "ext3")

"""A domain that is saved and restored goes on as if nothing had been."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.xen import kernels
from tests.xen.stopped import MIB, stopped_domains
from virtus.personalities.xen import saving
from virtus.personalities.xen.event_channels import Port, Status

SCRIPT = """
ip addr add 10.9.0.1/24 dev eth0; ip link set eth0 up
n=0
while [ $n -lt 16 ]; do
    echo beat $n $(dd if=/dev/xvda bs=64k count=1 skip=$n 2>/dev/null | sha256sum)
    echo mark $n | dd of=/dev/xvda bs=64k seek=$((n + 32)) conv=fsync 2>/dev/null
    n=$((n + 1)); sleep 0.4
done
poweroff -f
"""


def test_a_domain_in_the_middle_of_something_is_not_saved() -> None:
    with stopped_domains() as (machine, (domain,), _):
        machine.store.begin(1)
        with pytest.raises(ValueError, match="xenstore"):
            machine.store.save(1)
        domain.tables.granted.add(8)
        with pytest.raises(ValueError, match="other domains"):
            domain.tables.save()


def test_tables_of_frames_and_ports_come_back() -> None:
    with stopped_domains() as (machine, (domain,), _):
        domain.tables.pin(domain.first_frame, 1)
        virq = domain.events.bind_virq(1)
        back_end = domain.events.open_back_end(lambda: None)
        domain.events.allocate(Port(Status.UNBOUND, 0))
        machine.store.write(0, b"/local/domain/1/name", b"blue")
        frames, tables, events = machine.frames.save(), domain.tables.save(), domain.events.save()
        tree = machine.store.save(1)
        cpu = domain.cpu.save()
        with stopped_domains() as (again, (restored,), _):
            again.frames.load(json.loads(json.dumps(frames)))
            restored.tables.load(tables)
            restored.events.load(json.loads(json.dumps(events)))
            again.store.load(tree, 1, lambda path, token: None)
            restored.cpu.load(json.loads(json.dumps(cpu)))
            assert again.frames.save() == frames
            assert restored.tables.pinned == domain.tables.pinned
            assert restored.events.save() == events
            assert again.store.read(0, b"/local/domain/1/name") == b"blue"
            assert restored.cpu.now() >= cpu["now"]
            restored.events.reconnect(back_end, lambda: None)
            with pytest.raises(ValueError, match="control domain"):
                restored.events.reconnect(virq, lambda: None)
            restored.tables.unpin(restored.first_frame)


def test_a_machine_of_another_size_is_refused() -> None:
    with stopped_domains() as (machine, _, _):
        frames = machine.frames.save()
    with stopped_domains(size=4 * MIB) as (other, (domain,), _):
        with pytest.raises(ValueError, match="another size"):
            other.frames.load(frames)
        assert sum(count for _, count in saving.pieces(other, domain)) > domain.most_frames


@pytest.mark.slow
@pytest.mark.usefixtures("ring3")
def test_linux_goes_on_with_its_disk_and_its_network(tmp_path: Path) -> None:
    kernel = kernels.kernel()
    disk = tmp_path / "disk"
    content = os.urandom(4 * MIB)
    disk.write_bytes(content)
    ramdisk = kernels.ramdisk(SCRIPT, tmp_path / "initrd", kernel / "xen-blkfront.ko", kernel / "xen-netfront.ko")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    virtus = [sys.executable, "-P", "-m", "virtus"]
    words = ["--with", "paravirt", "--name", "red", "--net", "switch:lab", "--disk", str(disk), "--cpus", "2"]
    shown = (tmp_path / "shown").open("w+b")
    first = subprocess.Popen(
        [*virtus, "run", *words, "--initrd", str(ramdisk), str(kernel / "vmlinuz")],
        stdin=subprocess.DEVNULL, stdout=shown, stderr=shown, env=environment,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while b"beat 2" not in (tmp_path / "shown").read_bytes():
        assert time.monotonic() < deadline, (tmp_path / "shown").read_bytes()[-500:]
        time.sleep(0.1)
    saved = tmp_path / "saved"
    subprocess.run([*virtus, "domain", "save", "red", str(saved)], env=environment, check=True, timeout=60)
    assert first.wait(20) == 0
    shown.close()
    before = (tmp_path / "shown").read_text()
    assert "beat 15" not in before
    again = subprocess.run(
        [*virtus, "domain", "restore", str(saved)],
        stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=60, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    beats = re.findall(r"beat (\d+) ([0-9a-f]{64})", before + again.stdout.decode())
    assert [int(number) for number, _ in beats] == list(range(16))
    for number, digest in beats:
        start = int(number) << 16
        assert digest == hashlib.sha256(content[start : start + (1 << 16)]).hexdigest()
    written = disk.read_bytes()
    assert all(b"mark %d" % number in written[number + 32 << 16 :][:10] for number in range(16))

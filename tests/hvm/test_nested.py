"""Debian's unmodified kernel on a virtual machine of SVM's, on a host that QEMU emulates: one host for all tests."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hvm.nested import NestedHost
from tests.xen import kernels

MODULES = ("virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio-rng", "virtio_balloon", "failover",
           "net_failover", "virtio_net", "virtio_console")  # fmt: skip
GUEST = """
echo $(grep -c ^processor /proc/cpuinfo) processors, $(cat /sys/class/dmi/id/nothing 2>/dev/null)hello
awk '/MemTotal/ {print $2, "kB in all"}' /proc/meminfo
grep -q then=write /proc/cmdline || { [ -b /dev/vda ] && sha256sum /dev/vda && echo written | dd of=/dev/vda conv=fsync 2>/dev/null; }
[ -d /sys/class/net/eth0 ] && ip addr add 10.8.0.2/24 dev eth0 && ip link set eth0 up && until ping -c 1 -W 1 10.8.0.1 >/dev/null; do :; done && echo reached
for word in $(cat /proc/cmdline); do
  case $word in
    then=off) poweroff -f ;;
    then=reboot) reboot -f ;;
    then=crash) echo c >/proc/sysrq-trigger ;;
    then=console) echo through hvc >/dev/hvc0; read -r line </dev/hvc0; echo "got $line"; poweroff -f ;;
    then=write) number=0; while :; do number=$((number + 1))
      echo $number | dd of=/dev/vda bs=512 seek=$number conv=notrunc,fsync 2>/dev/null && echo certain $number; done ;;
    then=stay) while :; do echo beat; awk '/MemTotal/ {print "memory", $2}' /proc/meminfo; sleep 0.3; done ;;
  esac
done
"""  # noqa: E501 # a shell's line
KERNEL = "--initrd /guest/initrd /guest/vmlinuz"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("nested")]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NestedHost]:
    place = tmp_path_factory.mktemp("nested")
    kernel = kernels.kernel()
    modules = [kernel / f"{name}.ko" for name in MODULES]
    guest = kernels.ramdisk(GUEST, place / "guest.img", *(module for module in modules if module.exists()))
    with NestedHost(place, {"guest/initrd": guest}) as made:
        yield made


def test_it_boots_with_a_disk_and_two_processors(host: NestedHost) -> None:
    before = host.run("head -c 1048576 /dev/urandom >/tmp/disk; sha256sum </tmp/disk")[0].split()[0]
    words = f"--with hvm --cpus 2 --meter-json /tmp/meter --disk /tmp/disk --append 'quiet then=off' {KERNEL}"
    shown, status = host.virtus(f"run {words}")
    assert status == 0, shown
    assert "2 processors, hello" in shown
    assert before in shown
    content = host.fetch("/tmp/disk")
    assert content.startswith(b"written\n")
    assert len(content) == 1 << 20
    assert hashlib.sha256(content).hexdigest() != before
    meter = json.loads(host.run("cat /tmp/meter")[0])
    assert meter["details"]["block requests"] > 3
    assert meter["details"]["world switches: exits"] > 1000
    assert meter["details"]["excluded accesses"] == 0


def test_it_is_chosen_by_itself_and_restarts(host: NestedHost) -> None:
    shown, status = host.virtus(f"run --append 'quiet then=reboot' {KERNEL}")
    assert status == 0, shown
    assert "1 processors, hello" in shown


def test_a_crash_is_a_crash(host: NestedHost) -> None:
    shown, status = host.virtus(f"run --with hvm --append 'quiet panic=-1 reboot=t then=crash' {KERNEL}")
    assert status == 1, shown
    assert "sysrq triggered crash" in shown


def test_it_is_on_a_switch_and_under_control(host: NestedHost) -> None:
    host.run("ip tuntap add t0 mode tap 2>/dev/null; true")
    words = f"--with hvm --name blue --memory 192M --net switch:lab --append 'quiet then=stay' {KERNEL}"
    answering = "import sys; sys.path.insert(0, '/tmp'); import answering"
    host.run(f"echo {_encoded()} | base64 -d >/tmp/answering.py")
    host.run(f'(python3 -c "{answering}" >/tmp/answered 2>&1 &) ')
    host.run(f"(python3 -P -m virtus run {words} </dev/null >/tmp/shown 2>&1; echo ended $? >>/tmp/shown) &")
    host.run("until grep -q beat /tmp/shown; do sleep 0.2; done")
    assert "reached" in host.run("cat /tmp/shown")[0]
    (found,) = json.loads(host.virtus("domain list --json")[0])
    assert (found["name"], found["technique"], found["state"]) == ("blue", "hvm", "running")
    host.virtus("domain pause blue")
    before = host.run("grep -c beat /tmp/shown")[0]
    assert host.run("sleep 1; grep -c beat /tmp/shown")[0] == before
    host.virtus("domain unpause blue")
    assert host.virtus("domain memory blue 128M")[1] == 0
    host.run("until grep memory /tmp/shown | awk '$2 < 130000 {found=1} END {exit !found}'; do sleep 0.2; done")
    assert host.virtus("domain destroy blue")[1] == 0
    shown = host.run("until grep -q ended /tmp/shown; do sleep 0.2; done; tail -1 /tmp/shown")[0]
    assert re.search(r"ended 137", shown)


def test_a_console_of_virtio_s_is_shown_and_typed_at(host: NestedHost) -> None:
    words = f"--with hvm --append 'quiet console=ttyS0 console=hvc0 then=console' {KERNEL}"
    typing = "(until grep -q through /tmp/shown; do sleep 0.2; done; echo some words; sleep 60)"
    host.run(f"{typing} | python3 -P -m virtus run {words} >/tmp/shown 2>&1")
    shown = host.run("cat /tmp/shown")[0]
    assert "through hvc" in shown
    assert "got some words" in shown


def test_more_memory_than_fits_below_the_devices(host: NestedHost) -> None:
    shown, status = host.virtus(f"run --with hvm --memory 5G --append 'quiet then=off' {KERNEL}")
    assert status == 0, shown
    (found,) = re.findall(r"(\d+) kB in all", shown)
    assert int(found) > 4.5 * (1 << 20)


def test_linux_goes_on_where_it_was_saved(host: NestedHost) -> None:
    host.run("head -c 1048576 /dev/zero >/tmp/saving")
    words = f"--with hvm --cpus 2 --memory 128M --name green --disk /tmp/saving --append 'quiet then=write' {KERNEL}"
    host.run(f"(python3 -P -m virtus run {words} </dev/null >/tmp/shown 2>&1; echo ended $? >>/tmp/shown) &")
    host.run("until grep -q 'certain 5' /tmp/shown; do sleep 0.2; done")
    shown, status = host.virtus("domain save green /tmp/saved")
    assert status == 0, shown
    shown = host.run("until grep -q ended /tmp/shown; do sleep 0.2; done; tail -1 /tmp/shown")[0]
    assert "ended 0" in shown
    last = int(re.findall(r"certain (\d+)", host.run("cat /tmp/shown")[0])[-1])
    host.run("(python3 -P -m virtus domain restore /tmp/saved </dev/null >/tmp/shown2 2>&1) &")
    host.run(f"until grep -q 'certain {last + 5}' /tmp/shown2; do sleep 0.2; done")
    assert host.virtus("domain destroy green")[1] == 0
    assert re.findall(r"certain (\d+)", host.run("cat /tmp/shown2")[0])[0] == str(last + 1)
    content = host.fetch("/tmp/saving")
    for number in range(1, last + 6):
        assert content[512 * number :].startswith(b"%d\n" % number)


def _encoded() -> str:
    """A program that answers pings on a switch, as base64."""
    import base64

    return base64.b64encode(Path(__file__).with_name("answering.py").read_bytes()).decode()

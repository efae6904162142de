"""Systems side by side: who is asked to boot what, and a kernel under QEMU and under ours."""

import shutil
from pathlib import Path

import pytest

from tests.xen import kernels
from virtus.comparison import machines
from virtus.comparison.candidates import Place
from virtus.comparison.compare import compare_machines
from virtus.errors import UsageError
from virtus.guests.identify import identify
from virtus.machine.machine_spec import DiskSpec, MachineSpec
from virtus.techniques import choose
from virtus.techniques.base import Availability
from virtus.techniques.paravirt import TECHNIQUE
from virtus.techniques.peers.qemu_system import PEERS

KVM = next(peer for peer in PEERS if peer.name == "qemu-kvm")
TCG = next(peer for peer in PEERS if peer.name == "qemu-tcg")


def bzimage(path: Path, flags: int) -> Path:
    data = bytearray(4096)
    data[0x1FE:0x200], data[0x202:0x206], data[0x236] = b"\x55\xaa", b"HdrS", flags
    path.write_bytes(data)
    return path


def test_what_boots_a_kernel(tmp_path: Path) -> None:
    assert choose.that_boot(bzimage(tmp_path / "64", 1)) == ("64-bit kernel", frozenset({"hvm", "paravirt"}))
    assert choose.that_boot(bzimage(tmp_path / "32", 0)) == ("32-bit kernel", frozenset({"prescan"}))


def test_qemu_gets_the_same_guest_and_writes_to_no_disk(tmp_path: Path) -> None:
    spec = MachineSpec(
        kernel=bzimage(tmp_path / "64", 1), initrd=tmp_path / "initrd", append="quiet", memory=512 << 20, cpus=2,
        disks=[DiskSpec(tmp_path / "a,b.qcow2"), DiskSpec(tmp_path / "raw")],
    )  # fmt: skip
    words = KVM.command(spec)
    assert words[words.index("-M") + 1].startswith("microvm")
    for word, value in (("-m", "512M"), ("-smp", "2"), ("-append", "quiet console=ttyS0")):
        assert words[words.index(word) + 1] == value
    drives = [words[at + 1] for at, word in enumerate(words) if word == "-drive"]
    assert [drive.split(",")[2] for drive in drives] == ["format=qcow2", "format=raw"]
    assert all("snapshot=on" in drive for drive in drives)
    assert drives[0].endswith("a,,b.qcow2")
    assert words.count("virtio-blk-device,drive=disk0") == 1
    assert "virtio-blk-pci,drive=disk0" in TCG.command(spec)


def test_the_reasons_of_those_that_cannot_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MachineSpec(kernel=bzimage(tmp_path / "64", 1))
    place = Place(tmp_path)
    with pytest.raises(UsageError, match="boots no systems"):
        machines.candidates(spec, place, ["proot"])
    monkeypatch.setattr(type(TECHNIQUE), "probe", lambda self: Availability(False, "it is Monday", "wait"))
    with pytest.raises(UsageError, match="paravirt: it is Monday; wait"):
        machines.candidates(spec, place, ["paravirt", "prescan"])
    with pytest.raises(UsageError, match="is no file"):
        machines.candidates(MachineSpec(kernel=spec.kernel, initrd=tmp_path / "none"), place, ["paravirt"])


def test_only_what_programs_show_is_compared() -> None:
    candidate = machines.MachineCandidate("any", list)
    shown = b"\x1bc\x1b[?7l[    0.000000] Linux\r\nhello\r\n\r\n[   12.5] reboot: Power down\r\nthere\r\n"
    assert candidate.outcome(shown, b"", 0) == (b"hello\nthere", b"", 0)


@pytest.mark.slow
def test_a_kernel_is_booted_by_qemu_and_by_ours(tmp_path: Path) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed (Debian: qemu-system-x86)")
    state = TECHNIQUE.probe()
    if not state.works:
        pytest.skip(f"paravirt: {state.reason}")
    kernel = kernels.kernel() / "vmlinuz"
    assert identify(kernel).bits == 64
    spec = MachineSpec(
        kernel=kernel, initrd=kernels.ramdisk("echo $((6 * 7))\npoweroff -f\n", tmp_path / "initrd"), append="quiet"
    )
    found = compare_machines(spec, wanted=["qemu-tcg", "paravirt"], runs=1, warm_up=0)
    assert [result.name for result in found.results] == ["qemu-tcg", "paravirt"]
    assert found.reference == "qemu-tcg"
    assert all(result.same_output and result.status == 0 for result in found.results), found
    assert found.results[1].exits_per_s

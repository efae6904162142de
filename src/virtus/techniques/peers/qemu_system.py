"""QEMU as a peer for whole systems: its translator (TCG), and its monitor on the KVM that `hvm` uses.

With KVM a 64-bit kernel gets the machine most like ours: `microvm` with ACPI, virtio over memory and a serial port.
What else boots gets a PC, also such a kernel under TCG: whether Linux can use a microvm's clocks there depends on the
host's load. Disks are never written to: all candidates find the same.
"""

from typing import Final

from virtus.devices.image import QCOW2, RAW
from virtus.errors import GuestNotRunnable
from virtus.guests.identify import Guest, Kind, identify
from virtus.machine.machine_spec import DiskSpec, MachineSpec
from virtus.techniques.base import Availability, MachinePeer
from virtus.techniques.peers.installed import installed

PROGRAM: Final = "qemu-system-x86_64"
PACKAGE: Final = "qemu-system-x86"
QUIET: Final = ("-nodefaults", "-no-user-config", "-display", "none", "-serial", "file:/dev/stdout", "-no-reboot")


def _probe_kvm() -> Availability:
    state = installed(PROGRAM, PACKAGE)()
    if not state.works:
        return state
    from virtus.techniques.hvm import TECHNIQUE

    return TECHNIQUE.probe()


def _drive(disk: DiskSpec, number: int) -> list[str]:
    form = disk.form or (QCOW2 if disk.path.suffix == f".{QCOW2}" else RAW)
    path = str(disk.path).replace(",", ",,")  # QEMU's way to write a comma
    return ["-drive", f"if=none,id=disk{number},format={form},snapshot=on,file={path}"]


def _command(accelerator: str, processor: str, spec: MachineSpec) -> list[str]:
    guest = identify(spec.kernel)
    is_64_bit = guest.kind is Kind.KERNEL and guest.bits == 64
    micro = is_64_bit and accelerator == "kvm"
    driver = "virtio-blk-device" if micro else "virtio-blk-pci" if is_64_bit else "ide-hd"
    words = [PROGRAM, "-M", "microvm,acpi=on" if micro else "pc", "-accel", accelerator, "-cpu", processor]
    words += ["-m", f"{spec.memory >> 20}M", "-smp", str(spec.cpus), *QUIET, *_boots(guest, spec)]
    for number, disk in enumerate(spec.disks):
        words += [*_drive(disk, number), "-device", f"{driver},drive=disk{number}"]
    return words


def _boots(guest: Guest, spec: MachineSpec) -> list[str]:
    path = str(spec.kernel)
    if guest.kind is Kind.CDROM:
        return ["-cdrom", path, "-boot", "d"]
    if guest.kind is Kind.DISK:
        return [*_drive(DiskSpec(spec.kernel), 99), "-device", "ide-hd,drive=disk99,bootindex=0"]
    if guest.kind not in (Kind.KERNEL, Kind.MULTIBOOT):
        raise GuestNotRunnable(f"booting {path}", f"a {guest.kind.value}")
    append = spec.append if "console=" in spec.append else f"{spec.append} console=ttyS0".strip()
    return ["-kernel", path, "-append", append, *(["-initrd", str(spec.initrd)] if spec.initrd else [])]


PEERS: Final = (
    MachinePeer(
        "qemu-tcg", PACKAGE, "QEMU's translator", installed(PROGRAM, PACKAGE), lambda spec: _command("tcg", "max", spec)
    ),
    MachinePeer("qemu-kvm", PACKAGE, "QEMU's monitor on KVM", _probe_kvm, lambda spec: _command("kvm", "host", spec)),
)

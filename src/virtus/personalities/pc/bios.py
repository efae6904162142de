"""SeaBIOS from Debian's package: found, loaded at the top of the first megabyte, and told about the machine."""

from pathlib import Path
from typing import Final

from virtus.devices.pc.fw_cfg import e820
from virtus.errors import HostLacks
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.records import dataclass

DIRECTORIES: Final = (Path("/usr/share/seabios"), Path("/usr/share/qemu"))
BIOS, VGA_BIOS = "bios-256k.bin", "vgabios-stdvga.bin"
VGA_BIOS_FILE: Final = "pci1234,1111.rom"  # SeaBIOS looks for a ROM under this name before it asks the card
LOW_BIOS_AT, LOW_BIOS_SIZE = 0xE0000, 0x20000
FOUR_GIB: Final = 1 << 32
LEAST_BIOS, MOST_BIOS = LOW_BIOS_SIZE, 4 << 20
MOST_VGA_BIOS: Final = 64 << 10
RAM, RESERVED = 1, 2
FLOPPY_PATH: Final = "/pci@i0cf8/isa@1/fdc@03f0/floppy@0"
DISK_PATH: Final = "/pci@i0cf8/ide@1,1/drive@0/disk@{unit}"
CD_PATH: Final = "/pci@i0cf8/ide@1,1/drive@1/disk@0"
CD_UNIT: Final = 2


@dataclass(frozen=True, slots=True)
class Bios:
    """Firmware for the processor and for the display."""

    system: bytes
    display: bytes


def find(directory: Path | None = None) -> Bios:
    """Read both images; raises HostLacks that names the package."""
    directories = DIRECTORIES if directory is None else (directory,)
    for place in directories:
        try:
            system, display = (place / BIOS).read_bytes(), (place / VGA_BIOS).read_bytes()
        except OSError:
            continue
        if LEAST_BIOS <= len(system) <= MOST_BIOS and not len(system) % PAGE and len(display) <= MOST_VGA_BIOS:
            return Bios(system, display)
    found = f"no {BIOS} with {VGA_BIOS} in {' or '.join(map(str, directories))}"
    raise HostLacks("looking for a BIOS", found, "apt install seabios, or name a directory with --bios")


def find_display(directory: Path | None = None) -> bytes | None:
    """The display's BIOS alone, which has the font of its text modes; None where there is none."""
    try:
        return find(directory).display
    except HostLacks:
        return None


def load(memory: GuestMemory, bios: Bios) -> tuple[int, GuestMemory]:
    """Copy it below 1 MiB, where it runs; return the address below 4 GiB and the memory for where it is reset to.

    The caller closes that memory.
    """
    rom = GuestMemory(len(bios.system), "bios")
    rom.bytes[:] = bios.system
    memory.bytes[LOW_BIOS_AT : LOW_BIOS_AT + LOW_BIOS_SIZE] = bios.system[-LOW_BIOS_SIZE:]
    return FOUR_GIB - len(bios.system), rom


def boot_order(*, floppy: bool, cdrom: bool, disks: int, first: str = "", rom: str = "") -> str:
    """The file bootorder: `first` ("floppy", "cdrom", "disk" or "rom"), then whatever else there is.

    `rom` is an option ROM's path, if one is to boot.
    """
    paths = {
        "rom": [rom] if rom else [],
        "floppy": [FLOPPY_PATH] if floppy else [],
        "cdrom": [CD_PATH] if cdrom else [],
        "disk": [
            DISK_PATH.format(unit=number) if number < 2 else CD_PATH.replace("disk@0", "disk@1")
            for number in range(disks)
        ],
    }
    order = sorted(paths, key=lambda kind: (kind != first, ["rom", "floppy", "disk", "cdrom"].index(kind)))
    return "".join(f"{path}\n" for kind in order for path in paths[kind])


def files(bios: Bios, memory: int, order: str) -> dict[str, bytes]:
    """Firmware configuration: what SeaBIOS asks its machine for."""
    one = (1).to_bytes(8, "little")
    return {
        VGA_BIOS_FILE: bios.display,
        "bootorder": order.encode() + b"\0",
        "etc/e820": e820([(0, memory, RAM)]),
        "etc/ata-dma": one,  # disks by bus master: one exit a request instead of one every two bytes
        "etc/show-boot-menu": bytes(8),
    }

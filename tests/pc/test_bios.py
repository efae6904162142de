"""SeaBIOS starts on the board, driven by the emulated processor, and boots from each kind of medium."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from virtus.devices.console import Console
from virtus.devices.disk import Disk
from virtus.errors import HostLacks
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.pc import bios
from virtus.personalities.pc.board import VIDEO_HOLE, Board, Media
from virtus.personalities.pc.front import Front

MIB = 1 << 20
LONGEST_S = 120
SOURCE = Path(__file__).parent / "bios_services.s"
FLOPPY_SIZE = 1474560
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def firmware() -> bios.Bios:
    pytest.importorskip("unicorn", reason="no unicorn to run real mode")
    try:
        return bios.find()
    except HostLacks as lacking:
        pytest.skip(str(lacking))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The boot sector and the one behind it."""
    assembler, linker = shutil.which("as"), shutil.which("ld")
    if assembler is None or linker is None:
        pytest.skip("no assembler and linker (binutils)")
    place = tmp_path_factory.mktemp("boot")
    subprocess.run([assembler, "--32", SOURCE, "-o", place / "boot.o"], check=True, timeout=60)
    names: list[str | Path] = [place / "boot.o", "-o", place / "boot"]
    link = [linker, "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", *names]
    subprocess.run(link, check=True, timeout=60)
    return (place / "boot").read_bytes()


def run(firmware: bios.Bios, media: Media, first: str, until: Callable[[Board], bool]) -> tuple[Board, str]:
    """Boot, until something is found or the machine has ended: the board, and what was on the screen."""
    from virtus.vcpus.scanned.emulated_vcpu import EmulatedVcpu
    from virtus.vcpus.scanned.memory_access import PhysicalSpace

    memory = GuestMemory(16 * MIB)
    address, rom = bios.load(memory, firmware)
    space = PhysicalSpace(memory, (VIDEO_HOLE,))
    space.add_rom(address, rom)
    order = bios.boot_order(
        floppy=media.floppy is not None, cdrom=media.cdrom is not None, disks=len(media.disks), first=first
    )
    media.files = bios.files(firmware, memory.size, order)
    board = Board(memory, Console(-1, -1), media, front=Front.SCREEN)
    vcpu = EmulatedVcpu(space, board)
    board.dma.written = vcpu.flush_instructions
    try:
        end, exits = time.monotonic() + LONGEST_S, 0
        while board.running and time.monotonic() < end:
            board.handle(vcpu.run())
            exits += 1
            if exits % 64 == 0 and until(board):
                break
        text = board.screen.text()  # memory goes with the machine
    finally:
        vcpu.close()
        memory.close()
        rom.close()
    return board, text


@pytest.mark.parametrize("medium", ["floppy", "disk"])
def test_a_boot_sector_has_all_services(firmware: bios.Bios, services: bytes, tmp_path: Path, medium: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(services.ljust(FLOPPY_SIZE, b"\0"))
    image = Disk(path, snapshot=True)
    media = Media(floppy=image) if medium == "floppy" else Media(disks=[image])
    texts = list[str]()

    def look(board: Board) -> bool:
        text = board.screen.text()
        if "ticked" in text and not texts:
            texts.append(text)
            board.keyboard.type(b"K")
        return False

    board, text = run(firmware, media, medium, look)
    image.close()
    said = board.debug.decode("latin1")
    assert "SeaBIOS (version" in said
    assert texts, said[-2000:]
    assert "sector one\nsector two\nticked" in texts[0]
    assert board.ended == "power off"
    assert "ticked\nK" in text


def test_a_bootable_cd_boots(firmware: bios.Bios, services: bytes, tmp_path: Path) -> None:
    xorriso = shutil.which("xorriso")
    if xorriso is None:
        pytest.skip("no xorriso to make an ISO image")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "boot.img").write_bytes(services.ljust(FLOPPY_SIZE, b"\0"))
    iso = tmp_path / "cd.iso"
    make = [xorriso, "-as", "mkisofs", "-quiet", "-b", "boot.img", "-o", str(iso), str(tree)]  # floppy emulation
    subprocess.run(make, check=True, timeout=60, capture_output=True)
    cdrom = Disk(iso, read_only=True)
    _, text = run(firmware, Media(cdrom=cdrom), "cdrom", lambda board: "ticked" in board.screen.text())
    cdrom.close()
    assert "sector one\nsector two\nticked" in text

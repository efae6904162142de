"""The technique as a whole: a multiboot kernel on the board of a PC, what is refused, and what `explain` says."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.pc.test_boot import bzimage, elf_kernel, multiboot_1
from tests.prescan.machines import needs_assembler
from virtus.cli import explain
from virtus.errors import GuestNotFound, GuestNotRunnable, HostLacks, UsageError, VirtusError
from virtus.machine.machine_spec import DiskSpec, MachineSpec
from virtus.personalities.pc import bios
from virtus.techniques import registry
from virtus.techniques.prescan import Prescan

KERNEL = """
    .code32
    .globl _start
    .align 4
    .long 0x1BADB002, 0, -0x1BADB002
    _start: mov $0x3F8, %dx; mov $text, %esi; mov $6, %ecx; rep outsb
    {end}
    text: .ascii "hello\\n"
"""
POWER_OFF = "mov $0xFE, %al; out %al, $0x64; 1: hlt; jmp 1b"  # the keyboard controller's reset line
SHUT_DOWN = "lidt nowhere; ud2; nowhere: .word 0; .long 0"


def needs_bios() -> None:
    try:
        bios.find()
    except HostLacks as lacking:
        pytest.skip(str(lacking))


def kernel(directory: Path, end: str) -> Path:
    (directory / "kernel.s").write_text(KERNEL.format(end=end))
    subprocess.run(["as", "--32", "kernel.s", "-o", "kernel.o"], cwd=directory, check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x200000", "kernel.o", "-o", "kernel"]
    subprocess.run(link, cwd=directory, check=True, capture_output=True)
    return directory / "kernel"


@needs_assembler
@pytest.mark.parametrize(("end", "status"), [(POWER_OFF, 0), (SHUT_DOWN, 1)])
def test_a_multiboot_kernel(tmp_path: Path, end: str, status: int) -> None:
    technique = registry.get("prescan")
    assert isinstance(technique, Prescan)
    output = tmp_path / "output"
    descriptor = os.open(output, os.O_CREAT | os.O_WRONLY)
    try:
        spec = MachineSpec(
            kernel(tmp_path, end), memory=64 << 20, console_in=-1, console_out=descriptor, extra={"bios": "none"}
        )
        report = technique.boot(spec)
    finally:
        os.close(descriptor)
    assert report.status == status
    assert b"hello" in output.read_bytes()
    assert report.details["instructions scanned"] >= 5
    assert report.details["breakpoints planted"] >= 1


# What a BIOS leaves: the video mode in its data area, and a vector of interrupt 10h; shown on the screen
ASK_BIOS = f"mov 0x449, %al; add $'0', %al; mov %al, 0xB8000; cmpl $0, 0x40; je 5f; movb $'V', 0xB8002; 5: {POWER_OFF}"


@needs_assembler
@pytest.mark.slow
def test_a_multiboot_kernel_finds_the_bios_where_there_is_one(tmp_path: Path) -> None:
    needs_bios()
    source = KERNEL.replace("rep outsb", "").format(end=ASK_BIOS)
    (tmp_path / "kernel.s").write_text(source)
    subprocess.run(["as", "--32", "kernel.s", "-o", "kernel.o"], cwd=tmp_path, check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x200000", "kernel.o", "-o", "kernel"]
    subprocess.run(link, cwd=tmp_path, check=True, capture_output=True)
    shown = {}
    for name, extra in (("with", {}), ("without", {"bios": "none"})):
        descriptor = os.open(tmp_path / name, os.O_CREAT | os.O_WRONLY)
        try:
            spec = MachineSpec(tmp_path / "kernel", memory=64 << 20, console_in=-1, console_out=descriptor, extra=extra)
            assert Prescan().boot(spec).status == 0
        finally:
            os.close(descriptor)
        shown[name] = (tmp_path / name).read_bytes()
    assert b"3V" in shown["with"]
    assert b"0" in shown["without"]
    assert b"V" not in shown["without"]


# Fills 100000 pixels of the frame buffer, moves it in PCI space, and finds them there and nothing where they were
FRAME_BUFFER = f"""
    mov $0xFD000000, %edi; mov $100000, %ecx; 1: mov %ecx, (%edi); add $4, %edi; dec %ecx; jnz 1b
    mov $0xCF8, %dx; mov $0x80001010, %eax; out %eax, %dx; mov $0xCFC, %dx; mov $0xE0000000, %eax; out %eax, %dx
    mov $0x3F8, %dx
    cmpl $100000, 0xE0000000; jne 9f; cmpl $1, 0xE0000000 + 4 * 99999; jne 9f
    cmpl $-1, 0xFD000000; jne 9f
    mov $'+', %al; out %al, %dx; 9: {POWER_OFF}"""


@needs_assembler
def test_the_frame_buffer_is_written_without_exits_wherever_the_guest_has_it(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "output", os.O_CREAT | os.O_WRONLY)
    try:
        report = Prescan().boot(
            MachineSpec(
                kernel(tmp_path, FRAME_BUFFER), memory=64 << 20, console_in=-1, console_out=descriptor,
                extra={"bios": "none"},
            )
        )  # fmt: skip
    finally:
        os.close(descriptor)
    assert (tmp_path / "output").read_bytes() == b"hello\n+"
    assert report.exits["memory I/O"] < 10


BOOT_SECTOR = """
    .code16
    .globl _start
    _start: xor %ax, %ax; mov %ax, %ds; mov $text, %si
    1: lodsb; test %al, %al; jz 2f; mov $0x0E, %ah; mov $7, %bx; int $0x10; jmp 1b
    2: mov $0xFE, %al; out %al, $0x64; 3: hlt; jmp 3b
    text: .asciz "booted by the BIOS"
    .org 510
    .word 0xAA55
"""


@needs_assembler
@pytest.mark.slow
def test_a_floppy_disk_boots_through_the_bios(tmp_path: Path) -> None:
    """Real mode is emulated, the BIOS's own 32-bit code runs directly."""
    needs_bios()
    (tmp_path / "boot.s").write_text(BOOT_SECTOR)
    subprocess.run(["as", "--32", "boot.s", "-o", "boot.o"], cwd=tmp_path, check=True)
    link = ["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "boot.o", "-o", "floppy.img"]
    subprocess.run(link, cwd=tmp_path, check=True, capture_output=True)
    os.truncate(tmp_path / "floppy.img", 1440 * 1024)
    descriptor = os.open(tmp_path / "output", os.O_CREAT | os.O_WRONLY)
    try:
        report = Prescan().boot(
            MachineSpec(tmp_path / "floppy.img", memory=64 << 20, console_in=-1, console_out=descriptor)
        )
    finally:
        os.close(descriptor)
    assert report.status == 0
    assert b"booted by the BIOS" in (tmp_path / "output").read_bytes()
    assert report.details["instructions scanned"] > 1000


def test_it_works_here_or_says_why() -> None:
    found = Prescan().probe()
    assert found.works or found.reason


IMAGES = {
    "kernel": bzimage(),
    "old kernel": bzimage(version=0x202),
    "64-bit kernel": bzimage()[:0x236] + b"\x01" + bzimage()[0x237:],
    "disk": b"\xf4".ljust(510, b"\0") + b"\x55\xaa" + bytes(512),
    "noise": bytes(range(256)) * 8,
    "multiboot": elf_kernel(multiboot_1(8)),
    "low multiboot": elf_kernel(multiboot_1(), physical=0x1000),
}
DISKS = [DiskSpec(Path("/bin/sh"), read_only=True)] * 4


@pytest.mark.parametrize(
    ("image", "options", "error", "said"),
    [
        ("nothing", {}, GuestNotFound, "no such file"),
        ("noise", {}, GuestNotRunnable, "no kind of guest"),
        ("64-bit kernel", {}, GuestNotRunnable, "a 64-bit kernel image"),
        ("old kernel", {}, GuestNotRunnable, "boot protocol 2.02"),
        ("multiboot", {"extra": {"bios": "none"}}, GuestNotRunnable, "unknown features"),
        ("low multiboot", {"extra": {"bios": "none"}}, GuestNotRunnable, "does not fit"),
        ("kernel", {"append": "vga=7"}, GuestNotRunnable, "vga=7 is no mode"),
        ("kernel", {"initrd": Path("/nowhere")}, GuestNotFound, "/nowhere"),
        ("kernel", {"cpus": 2}, UsageError, "has one"),
        ("kernel", {"memory": 4 << 30}, UsageError, "3072M"),
        ("kernel", {"disks": DISKS}, UsageError, "4 disks"),
        ("kernel", {"cdrom": Path("/nowhere")}, UsageError, "/nowhere"),
        ("kernel", {"net": "wire"}, UsageError, "nothing to plug in"),
        ("kernel", {"extra": {"console": "paper"}}, UsageError, "screen or serial"),
        ("disk", {"extra": {"bios": "/nowhere"}}, HostLacks, "no bios-256k.bin"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, image: str, options: dict[str, Any], error: type[VirtusError], said: str
) -> None:
    if image in IMAGES:
        (tmp_path / "image").write_bytes(IMAGES[image])
    options = {"memory": 64 << 20, **options}
    with pytest.raises(error, match=re.escape(said)):
        Prescan().boot(MachineSpec(tmp_path / "image", console_in=-1, console_out=-1, **options))


@needs_assembler
def test_a_kernel_that_shuts_its_processor_down_is_told_from_the_command_line(tmp_path: Path) -> None:
    words = ["run", "--bios", "none", "--memory", "64M", str(kernel(tmp_path, SHUT_DOWN))]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "virtus", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "hello\n")
    assert re.fullmatch(r"virtus: its processor shut down \(a triple fault\) at EIP 0x2000\w\w, CR2 0x0\n", done.stderr)


@needs_assembler
def test_ports_and_addresses_that_nobody_has_are_counted(tmp_path: Path) -> None:
    use = f"mov $0x1234, %dx; in %dx, %eax; out %eax, %dx; mov 0xF1234560, %eax; {POWER_OFF}"
    spec = MachineSpec(kernel(tmp_path, use), memory=64 << 20, console_in=-1, console_out=-1, extra={"bios": "none"})
    report = Prescan().boot(spec)
    assert (report.details["unknown ports"], report.details["unknown pages"]) == (4, 1)


def test_the_three_parts_are_explained() -> None:
    done = CliRunner().invoke(explain.command, ["prescan"])
    assert done.exit_code == 0
    for word in ("VMApp", "VMDriver", "VMM"):
        assert word in done.output


def test_every_part_that_is_explained_is_there() -> None:
    source = Path(explain.__file__).parent.parent
    for explanation in explain.EXPLANATIONS.values():
        for part in explanation.parts:
            for place in part.where.split(", "):
                assert (source / place).exists(), place

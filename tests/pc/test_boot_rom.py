"""The option ROM: its bytes are its source's, SeaBIOS's rules for ROMs hold, and its port takes only what it may."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pc.boards import little_memory
from virtus.personalities.pc import boot_rom

SOURCE = f"""
.code16
    xorw %ax, %ax; movw %ax, %es; movw ${boot_rom.MAP_AT}, %di; xorl %ebx, %ebx
next: movl $0xE820, %eax; movl $0x534D4150, %edx; movl ${boot_rom.ENTRY.size}, %ecx; int $0x15; jc done
    addw ${boot_rom.ENTRY.size}, %di; testl %ebx, %ebx; jnz next
done: movw %di, %ax; movw ${boot_rom.PORT}, %dx; outw %ax, %dx
1:  hlt; jmp 1b
"""


def test_its_code_is_what_an_assembler_makes(tmp_path: Path) -> None:
    if shutil.which("as") is None or shutil.which("objcopy") is None:
        pytest.skip("no assembler (binutils)")
    (tmp_path / "rom.s").write_text(SOURCE)
    subprocess.run(["as", "--32", "rom.s", "-o", "rom.o"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "rom.o", "rom"], cwd=tmp_path, check=True)
    assert (tmp_path / "rom").read_bytes() == boot_rom.CODE


def test_it_is_a_rom_with_a_bootstrap_entry() -> None:
    image = boot_rom.rom()
    assert image[:2] == b"\x55\xaa"
    assert image[2] * 512 == len(image)
    assert sum(image) & 0xFF == 0
    header = image[0x1A]
    assert image[header : header + 4] == b"$PnP"
    assert sum(image[header : header + 16 * image[header + 5]]) & 0xFF == 0
    entry = image[header + 0x1A]
    assert image[entry : entry + len(boot_rom.CODE)] == boot_rom.CODE


def test_its_port_loads_once_and_only_with_a_map() -> None:
    data, memory = little_memory()
    loads: list[list[tuple[int, int, int]]] = []
    port = boot_rom.LoaderPort(memory, loads.append)
    for wrong in (0, 0xFFFF, boot_rom.MAP_AT, boot_rom.MAP_AT + 19):
        port.write(0, 2, wrong)
    assert not loads
    entry = boot_rom.ENTRY.pack(0, 0x9FC00, 1)
    data[boot_rom.MAP_AT : boot_rom.MAP_AT + 20] = entry
    port.write(0, 2, boot_rom.MAP_AT + 20)
    port.write(0, 2, boot_rom.MAP_AT + 20)
    assert loads == [[(0, 0x9FC00, 1)]]

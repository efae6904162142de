"""The same port traffic gives the same answers as QEMU's chips give."""

import random
from pathlib import Path
from time import sleep

import pytest

from tests.pc.boards import board, image
from tests.pc.qtest import Qemu, needs_qemu
from virtus.devices.disk import Disk
from virtus.personalities.pc.board import Board, Media

pytestmark = [needs_qemu, pytest.mark.slow]
INITIALIZE = [(0x20, 0x11), (0x21, 0x08), (0x21, 0x04), (0x21, 0x01), (0xA0, 0x11), (0xA1, 0x70), (0xA1, 2), (0xA1, 1)]
PIC_COMMANDS = [0x20, *range(0x60, 0x68), 0xA0, 0xC0, 0xC5, 0xE3, 0x80, 0x00, 0x0A, 0x0B, 0x68, 0x48, 0x0C]


def both(qemu: Qemu, pc: Board, port: int, value: int, size: int = 1) -> None:
    qemu.write(port, value, size)
    pc.ports.write(port, size, value)


def same(qemu: Qemu, pc: Board, port: int, size: int = 1) -> int:
    theirs, ours = qemu.read(port, size), pc.ports.read(port, size)
    assert ours == theirs, f"port {port:#x}: {ours:#x}, QEMU has {theirs:#x}"
    return ours


@pytest.mark.parametrize("seed", range(6))
def test_interrupt_controllers(seed: int) -> None:
    chance = random.Random(seed)
    pc, _, ram = board()
    with Qemu() as qemu:
        for port, value in INITIALIZE:
            both(qemu, pc, port, value)
        for _ in range(150):
            base = chance.choice((0x20, 0xA0))
            action = chance.randrange(4)
            if action == 0:
                both(qemu, pc, base + 1, chance.randrange(256))
            elif action == 1:
                both(qemu, pc, base, chance.choice(PIC_COMMANDS))
            else:
                same(qemu, pc, base + action % 2)
            if chance.randrange(30) == 0:
                both(qemu, pc, 0x4D0, chance.randrange(256))
                both(qemu, pc, 0x4D1, chance.randrange(256))
            same(qemu, pc, 0x4D0)
            same(qemu, pc, 0x4D1)
    ram.close()


@pytest.mark.parametrize("mode", [0, 2, 3, 4])
@pytest.mark.parametrize("bcd", [0, 1])
def test_timer_registers(mode: int, bcd: int) -> None:
    """Time stands still on both sides: what was loaded is read, by every way of access."""
    chance = random.Random(mode)
    pc, _, ram = board()
    with Qemu() as qemu:
        both(qemu, pc, 0x61, 1)
        for access in (1, 2, 3, 3, 3):
            both(qemu, pc, 0x43, 0x80 | access << 4 | mode << 1 | bcd)
            for _ in range(2 if access == 3 else 1):
                both(qemu, pc, 0x42, int(str(chance.randrange(1, 50) * 2), 16))
            for command in (0x80, 0xD8):
                both(qemu, pc, 0x43, command)
                for _ in range(2):
                    same(qemu, pc, 0x42)
            both(qemu, pc, 0x43, 0xE8)
            theirs, ours = qemu.read(0x42), pc.ports.read(0x42, 1)
            # OUT is high in modes 2 and 4 but for a clock (data sheet, "Mode Definitions"); QEMU has it the other way
            assert (ours ^ theirs) & (0x7F if mode in (2, 4) else 0xFF) == 0
            for _ in range(4):
                same(qemu, pc, 0x42)
    ram.close()


def test_clock_registers() -> None:
    pc, _, ram = board()
    with Qemu("-rtc", "base=utc") as qemu:
        for register, value in ((10, 0x26), (11, 0x02), (0x40, 0x5A), (11, 0x06), (11, 0x00), (0x0F, 0x05)):
            both(qemu, pc, 0x70, register)
            both(qemu, pc, 0x71, value)
            both(qemu, pc, 0x70, register)
            same(qemu, pc, 0x71)
        for register in (7, 8, 9, 13):
            both(qemu, pc, 0x70, register)
            same(qemu, pc, 0x71)
    ram.close()


def settle(qemu: Qemu) -> None:
    """Until its disk is not busy."""
    for _ in range(1000):
        if not qemu.read(0x3F6) & 0x80:
            return
        sleep(0.001)
    pytest.fail("QEMU's disk stays busy")


def test_a_disk_through_its_task_file(tmp_path: Path) -> None:
    path = image(tmp_path / "disk", 4 << 20)
    disk = Disk(path, snapshot=True)
    pc, _, ram = board(Media(disks=[disk]))
    drive = ("-drive", f"if=ide,index=0,file={path},format=raw,snapshot=on")
    with Qemu(*drive) as qemu:

        def issue(sector: int, count: int, command: int) -> int:
            for port, value in (
                (0x1F6, 0xE0),
                (0x1F2, count),
                (0x1F3, sector & 0xFF),
                (0x1F4, sector >> 8),
                (0x1F5, 0),
            ):
                both(qemu, pc, port, value)
            both(qemu, pc, 0x1F7, command)
            settle(qemu)
            return same(qemu, pc, 0x1F7)

        assert issue(7, 2, 0x20) == 0x58
        first = [same(qemu, pc, 0x1F0, 2) for _ in range(256)]
        assert first[0] == 7
        settle(qemu)
        second = [same(qemu, pc, 0x1F0, 2) for _ in range(256)]
        assert second[0] == 8
        assert issue(0xFFFF, 1, 0x20) & 1
        assert issue(0, 1, 0xF5 ^ 0xFF) & 1
        assert issue(0, 0, 0x91) & 1 == 0
        assert issue(0, 3, 0xC6) & 1
    disk.close()
    ram.close()


def test_vga_registers() -> None:
    chance = random.Random(1)
    pc, _, ram = board()
    with Qemu("-vga", "std") as qemu:
        for _ in range(100):
            index, data, most = chance.choice(((0x3C4, 0x3C5, 5), (0x3CE, 0x3CF, 9), (0x3D4, 0x3D5, 0x11)))
            both(qemu, pc, 0x3C2, 1)
            both(qemu, pc, index, chance.randrange(most))
            value = chance.randrange(2) if index == 0x3C4 else chance.randrange(4)
            both(qemu, pc, data, value)
            same(qemu, pc, index)
            same(qemu, pc, data)
        for value in range(30):
            both(qemu, pc, 0x3C8, value)
            for part in range(3):
                both(qemu, pc, 0x3C9, value + part)
            both(qemu, pc, 0x3C7, value)
            for _ in range(3):
                same(qemu, pc, 0x3C9)
        for index, value in ((0, 0xB0C4), (1, 640), (2, 480), (3, 32), (4, 0x41), (6, 700)):
            both(qemu, pc, 0x1CE, index, 2)
            both(qemu, pc, 0x1CF, value, 2)
        for index in (0, 1, 2, 3, 4, 6, 8, 9):
            both(qemu, pc, 0x1CE, index, 2)
            same(qemu, pc, 0x1CF, 2)
    ram.close()

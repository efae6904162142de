"""Chips alone: what their data sheets promise."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.pc.boards import Time, Wire, image, little_memory
from virtus.devices.disk import Disk
from virtus.devices.pc import ide, keys
from virtus.devices.pc.ata_disk import AtaDisk
from virtus.devices.pc.atapi import AtapiCd
from virtus.devices.pc.bus import PortBus
from virtus.devices.pc.cmos import Cmos
from virtus.devices.pc.dma8237 import Dma8237
from virtus.devices.pc.floppy import Floppy
from virtus.devices.pc.ne2000 import Ne2000
from virtus.devices.pc.pic8259 import InterruptControllers
from virtus.devices.pc.pit8254 import FREQUENCY, Pit8254
from virtus.devices.pc.power import PowerManagement
from virtus.devices.pc.ps2 import Ps2Controller
from virtus.devices.pc.uart16550 import Uart16550
from virtus.devices.pc.vga import Vga

SECOND = 1_000_000_000
NOVEMBER_1994 = 784_887_151.0  # 1994-11-15 08:12:31 UTC, a Tuesday


def controllers() -> InterruptControllers:
    """Initialized as a PC's BIOS does: vectors 8 and 70h."""
    both = InterruptControllers()
    for pic, base, cascade in ((both.master, 0x08, 4), (both.slave, 0x70, 2)):
        pic.write(0, 1, 0x11)
        for value in (base, cascade, 1, 0):
            pic.write(1, 1, value)
    return both


def test_the_highest_line_is_served_first_and_holds_back_lower_ones() -> None:
    pics = controllers()
    pics.set_line(4, True)
    pics.set_line(1, True)
    assert pics.acknowledge() == 0x09
    assert not pics.pending()
    pics.master.write(0, 1, 0x20)
    assert pics.acknowledge() == 0x0C


def test_the_cascade_gives_the_second_controllers_vector() -> None:
    pics = controllers()
    pics.set_line(14, True)
    assert pics.pending()
    assert pics.acknowledge() == 0x76
    pics.slave.write(0, 1, 0x20)
    pics.master.write(0, 1, 0x20)
    assert not pics.pending()


def test_a_masked_line_waits() -> None:
    pics = controllers()
    pics.master.write(1, 1, 0x02)
    pics.set_line(1, True)
    assert not pics.pending()
    pics.master.write(1, 1, 0)
    assert pics.pending()


def test_an_edge_counts_once_and_a_level_as_long_as_it_lasts() -> None:
    pics = controllers()
    pics.slave.edge_level = 8  # line 11
    for line, again in ((10, False), (11, True)):
        pics.set_line(line, True)
        assert pics.acknowledge() == 0x70 + line - 8
        pics.slave.write(0, 1, 0x20)
        pics.master.write(0, 1, 0x20)
        assert pics.pending() is again
        pics.set_line(line, False)
        assert not pics.pending()


def test_a_request_that_is_gone_is_spurious() -> None:
    assert controllers().acknowledge() == 0x0F


def test_the_timer_ticks_at_the_rate_it_was_given() -> None:
    time, wire = Time(), Wire()
    pit = Pit8254(time, wire)
    pit.write(3, 1, 0x34)  # counter 0, both bytes, mode 2
    pit.write(0, 1, 11932 & 0xFF)
    pit.write(0, 1, 11932 >> 8)
    for _ in range(100):
        assert pit.deadline_ns is not None
        time.now = pit.deadline_ns
        pit.advance()
    assert wire.rises >= 100
    assert abs(time.now - 100 * 11932 * SECOND // FREQUENCY) < 1000


def test_a_one_shot_fires_once() -> None:
    time, wire = Time(), Wire()
    pit = Pit8254(time, wire)
    for register, value in ((3, 0x30), (0, 0x10), (0, 0x00)):
        pit.write(register, 1, value)
    assert not wire.level
    assert pit.deadline_ns is not None
    time.now = pit.deadline_ns
    pit.advance()
    assert wire.level
    assert pit.deadline_ns is None


@given(st.integers(1, 0xFFFF), st.integers(0, 10**9))
def test_a_latched_count_stays_and_counts_down(count: int, later: int) -> None:
    time = Time()
    pit = Pit8254(time, Wire())
    pit.write(3, 1, 0xB4)  # counter 2, mode 2
    pit.write(2, 1, count & 0xFF)
    pit.write(2, 1, count >> 8)
    time.pass_ns(later)
    pit.write(3, 1, 0x80)
    expected = count - later * FREQUENCY // SECOND % count
    time.pass_ns(12345)
    assert pit.read(2, 1) | pit.read(2, 1) << 8 == expected


def test_the_clock_tells_the_time_in_bcd_and_in_binary() -> None:
    clock = Cmos(Time(), Wire(), lambda: NOVEMBER_1994)

    def read(register: int) -> int:
        clock.write(0, 1, register)
        return clock.read(1, 1)

    assert [read(at) for at in (9, 8, 7, 4, 2, 0, 0x32, 6)] == [0x94, 0x11, 0x15, 0x08, 0x12, 0x31, 0x19, 3]
    clock.write(0, 1, 11)
    clock.write(1, 1, 6)
    assert [read(at) for at in (9, 8, 7, 4, 2, 0)] == [94, 11, 15, 8, 12, 31]


def test_the_clocks_periodic_interrupt_is_cleared_by_reading_register_c() -> None:
    time, wire = Time(), Wire()
    clock = Cmos(time, wire)
    clock.write(0, 1, 11)
    clock.write(1, 1, 0x42)
    assert clock.deadline_ns == SECOND // 1024
    time.now = clock.deadline_ns
    clock.advance()
    assert wire.level
    clock.write(0, 1, 12)
    assert clock.read(1, 1) == 0xC0
    assert not wire.level


def test_the_serial_port_shows_and_types() -> None:
    shown, wire = bytearray(), Wire()
    port = Uart16550(shown.extend, wire)
    for byte in b"hello":
        port.write(0, 1, byte)
    assert shown == b"hello"
    port.write(4, 1, 8)
    port.write(1, 1, 1)
    port.type(b"x")
    assert wire.level
    assert port.read(2, 1) & 15 == 4
    assert port.read(0, 1) == ord("x")
    assert not wire.level


def test_what_is_typed_comes_as_scan_codes() -> None:
    wire = Wire()
    controller = Ps2Controller(wire, Wire(), lambda: None)
    controller.type(b"aB\x1b[A")
    got = []
    while controller.read(4, 1) & 1:
        got.append(controller.read(0, 1))
    assert got == [0x1E, 0x9E, 0x2A, 0x30, 0xB0, 0xAA, 0xE0, 0x48, 0xE0, 0xC8]
    assert wire.rises


def test_the_controller_answers_its_self_test_and_resets_by_a_pulse() -> None:
    reset = []
    controller = Ps2Controller(Wire(), Wire(), lambda: reset.append(1))
    controller.write(4, 1, 0xAA)
    assert controller.read(0, 1) == 0x55
    controller.write(0, 1, 0xFF)
    assert [controller.read(0, 1), controller.read(0, 1)] == [0xFA, 0xAA]
    controller.write(4, 1, 0xD4)
    controller.write(0, 1, 0xFF)
    assert controller.read(4, 1) & 0x20
    assert [controller.read(0, 1) for _ in range(3)] == [0xFA, 0xAA, 0]
    controller.write(4, 1, 0xFE)
    assert reset


@given(st.binary(max_size=20))
def test_every_key_pressed_is_released(data: bytes) -> None:
    for stroke in keys.strokes(data):
        codes = [code for code in stroke if code != keys.EXTENDED]
        assert sorted(code & 0x7F for code in codes if code < 0x80) == sorted(
            code & 0x7F for code in codes if code > 0x7F
        )


def disk_channel(path: Path, size: int = 1 << 20, *, read_only: bool = False) -> tuple[ide.IdeChannel, Wire, bytearray]:
    memory, dma = little_memory()
    wire = Wire()
    drive = AtaDisk(Disk(image(path, size), read_only=read_only), "TEST")
    return ide.IdeChannel([drive, None], wire, dma), wire, memory


def issue(channel: ide.IdeChannel, sector: int, count: int, command: int) -> None:
    for register, value in ((6, 0xE0), (2, count), (3, sector & 0xFF), (4, sector >> 8 & 0xFF), (5, sector >> 16)):
        channel.write(register, 1, value)
    channel.write(7, 1, command)


def test_sectors_are_read_by_programmed_io_with_an_interrupt_each(tmp_path: Path) -> None:
    channel, wire, _ = disk_channel(tmp_path / "disk")
    issue(channel, 5, 2, 0x20)
    for sector in (5, 6):
        assert wire.level
        assert channel.read(7, 1) == 0x58
        assert not wire.level
        data = b"".join(channel.read(0, 2).to_bytes(2, "little") for _ in range(256))
        assert data[:4] == sector.to_bytes(4, "little")
    assert channel.read(7, 1) == 0x50


def test_sectors_go_through_the_data_register_in_blocks(tmp_path: Path) -> None:
    """As word by word, with the same interrupts, wherever a block ends; what is too much reads as zeros."""
    channel, wire, _ = disk_channel(tmp_path / "disk")
    ports = PortBus()
    ports.attach(range(0x1F0, 0x1F8), channel)
    ports.attach(range(0x1F0, 0x1F1), channel, 4)
    issue(channel, 5, 2, 0x20)
    first = ports.repeat(0x1F0, 2, 200, False, 0).to_bytes(400, "little")
    rises = wire.rises
    rest = ports.repeat(0x1F0, 4, 160, False, 0).to_bytes(640, "little")
    whole = first + rest
    assert whole[:4] == b"\5\0\0\0"
    assert whole[512:516] == b"\6\0\0\0"
    assert whole[1024:] == bytes(16)
    assert wire.rises == rises  # the line was up, and nobody has looked
    assert channel.read(7, 1) == 0x50
    data = random.Random(1).randbytes(1024)
    issue(channel, 7, 2, 0x30)
    ports.repeat(0x1F0, 2, 300, True, int.from_bytes(data[:600], "little"))
    ports.repeat(0x1F0, 2, 212, True, int.from_bytes(data[600:], "little"))
    assert (tmp_path / "disk").read_bytes()[7 * 512 : 9 * 512] == data
    assert ports.repeat(0x1F7, 1, 2, False, 0) == 0x5050


def test_sectors_are_written_and_read_by_dma(tmp_path: Path) -> None:
    channel, wire, memory = disk_channel(tmp_path / "disk")
    memory[0:16] = b"".join(word.to_bytes(4, "little") for word in (0x1000, 512, 0x2000, 0x8000_0000 | 512))
    memory[0x1000:0x1200], memory[0x2000:0x2200] = b"a" * 512, b"b" * 512
    channel.bm_write(4, 4, 0)
    issue(channel, 9, 2, 0xCA)
    channel.bm_write(0, 1, 1)
    assert wire.level
    assert (tmp_path / "disk").read_bytes()[9 * 512 : 11 * 512] == b"a" * 512 + b"b" * 512
    channel.bm_write(0, 1, 0)
    channel.bm_write(2, 1, 4)
    memory[0x1000:0x1200] = bytes(512)
    issue(channel, 9, 2, 0xC8)
    channel.bm_write(0, 1, 9)
    assert memory[0x1000:0x1200] == b"a" * 512
    assert channel.bm_read(2) & 7 == 4


@pytest.mark.parametrize(("sector", "count", "command"), [(2047, 2, 0x20), (0xFFFFFF, 1, 0x30), (0, 1, 0x00)])
def test_what_a_disk_cannot_do_is_an_error(tmp_path: Path, sector: int, count: int, command: int) -> None:
    channel, _, _ = disk_channel(tmp_path / "disk")
    issue(channel, sector, count, command)
    assert channel.read(7, 1) & 1


def test_a_disk_that_is_read_only_takes_no_writes(tmp_path: Path) -> None:
    channel, _, _ = disk_channel(tmp_path / "disk", read_only=True)
    issue(channel, 0, 1, 0x30)
    assert channel.read(7, 1) & 1
    assert channel.read(1, 1) == 4


def packet(channel: ide.IdeChannel, command: bytes, limit: int = 0xFFFE) -> bytes:
    """Send a packet and read what comes by programmed I/O."""
    for register, value in ((6, 0xA0), (1, 0), (4, limit & 0xFF), (5, limit >> 8), (7, 0xA0)):
        channel.write(register, 1, value)
    command = command.ljust(12, b"\0")
    for at in range(0, 12, 2):
        channel.write(0, 2, command[at] | command[at + 1] << 8)
    data = bytearray()
    while channel.read(7, 1) & 8:
        size = channel.read(4, 1) | channel.read(5, 1) << 8
        data += b"".join(channel.read(0, 2).to_bytes(2, "little") for _ in range((size + 1) // 2))
    return bytes(data)


@pytest.mark.parametrize("limit", [0xFFFE, 2048, 512])
def test_a_cd_is_read_in_pieces_as_large_as_was_asked(tmp_path: Path, limit: int) -> None:
    path = image(tmp_path / "iso", 40 * 2048)
    _, dma = little_memory()
    channel = ide.IdeChannel([AtapiCd(Disk(path, read_only=True)), None], Wire(), dma)
    assert channel.read(4, 1) == 0x14
    assert packet(channel, b"\x00") == b""
    assert channel.read(7, 1) & 1  # the medium has changed
    assert packet(channel, b"\x03\0\0\0\x12")[2] == 6
    assert packet(channel, b"\x25") == (39).to_bytes(4, "big") + (2048).to_bytes(4, "big")
    data = packet(channel, b"\x28\0\0\0\0\x10\0\0\x03", limit)
    assert data == path.read_bytes()[16 * 2048 : 19 * 2048]
    assert packet(channel, b"\x28\0\0\0\0\x28\0\0\x01") == b""
    assert packet(channel, b"\x03\0\0\0\x12")[2] == 5


def test_a_floppy_sector_goes_through_dma(tmp_path: Path) -> None:
    memory, dma = little_memory()
    controllers = Dma8237(dma)
    wire = Wire()
    drive = Floppy(Disk(image(tmp_path / "floppy", 1474560)), controllers, wire)
    first, pages = controllers.first, controllers.pages
    for register, value in ((12, 0), (11, 0x46), (4, 0), (4, 0x10), (5, 0xFF), (5, 0x03), (10, 2)):
        first.write(register, 1, value)
    pages.write(1, 1, 0)
    for byte in (0xE6, 0x04, 1, 1, 2, 2, 18, 0x1B, 0xFF):  # cylinder 1, head 1, sector 2
        drive.write(5, 1, byte)
    sector = (1 * 2 + 1) * 18 + 1
    assert wire.level
    assert memory[0x1000:0x1004] == sector.to_bytes(4, "little")
    assert memory[0x1200:0x1204] == (sector + 1).to_bytes(4, "little")
    result = [drive.read(5, 1) for _ in range(7)]
    assert result == [4, 0, 0, 1, 1, 4, 2]


class Cable:
    """A link that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.coming: list[bytes] = []

    def fileno(self) -> int:
        return 0

    def receive(self) -> bytes | None:
        return self.coming.pop(0) if self.coming else None

    def send(self, frame: bytes | bytearray | memoryview) -> bool:
        self.sent.append(bytes(frame))
        return True

    def receive_unfinished(self) -> tuple[bytes, bytes] | None:
        raise NotImplementedError

    def send_unfinished(self, header: bytes, frame: bytes | bytearray | memoryview) -> bool:
        raise NotImplementedError

    def close(self) -> None:
        pass


def started_card(cable: Cable, wire: Wire) -> Ne2000:
    card = Ne2000(b"\x52\x54\0\1\2\3", cable, wire)
    setup = ((0, 0x21), (14, 0x49), (1, 0x46), (2, 0x80), (3, 0x46), (12, 4), (15, 0x7F), (0, 0x61), (7, 0x47))
    for register, value in setup:
        card.write(register, 1, value)
    for number, byte in enumerate(b"\x52\x54\0\1\2\3", 1):
        card.write(number, 1, byte)
    card.write(0, 1, 0x22)
    return card


def read_card(card: Ne2000, at: int, size: int) -> bytes:
    for register, value in ((10, size & 0xFF), (11, size >> 8), (8, at & 0xFF), (9, at >> 8), (0, 0x0A)):
        card.write(register, 1, value)
    return b"".join(card.read(16, 2).to_bytes(2, "little") for _ in range(size // 2))


def test_the_card_tells_its_address_sends_and_receives() -> None:
    cable, wire = Cable(), Wire()
    card = started_card(cable, wire)
    assert read_card(card, 0, 12)[::2] == b"\x52\x54\0\1\2\3"
    for register, value in ((10, 12), (11, 0), (8, 0), (9, 0), (0, 0x0A)):
        card.write(register, 1, value)
    assert bytes(card.read(16, 1) for _ in range(6)) == b"\x52\x54\0\1\2\3"  # a byte of each word, as drivers do
    frame = b"\xff" * 6 + b"\x52\x54\0\1\2\3" + b"\x08\0" + bytes(range(50))
    for register, value in ((10, 64), (11, 0), (8, 0), (9, 0x40), (0, 0x12)):
        card.write(register, 1, value)
    for at in range(0, 64, 2):
        card.write(16, 2, frame[at] | frame[at + 1] << 8)
    for register, value in ((4, 0x40), (5, 64), (6, 0), (0, 0x26)):
        card.write(register, 1, value)
    assert cable.sent == [frame]
    cable.coming = [frame, b"\x02" * 60, frame]
    card.poll()
    assert wire.level
    assert card.packets == 2
    header = read_card(card, 0x4700, 4)
    assert header == bytes((0x21, 0x48, 68, 0))
    assert read_card(card, 0x4704, 64) == frame


def test_a_full_ring_takes_no_more() -> None:
    cable = Cable()
    card = started_card(cable, Wire())
    cable.coming = [b"\xff" * 6 + bytes(1500)] * 60
    for _ in range(4):
        card.poll()
    assert 5 <= card.packets <= 9
    assert cable.coming


def test_soft_off_ends_the_machine_and_the_timer_runs() -> None:
    time, off = Time(), list[int]()
    power = PowerManagement(time, Wire(), lambda: off.append(1))
    time.pass_ns(1_000_000)
    assert power.read(8, 4) == 3579
    power.write(4, 2, 1 << 13)
    assert off


@given(st.integers(0, 3), st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFF))
def test_write_mode_0_changes_the_bits_of_the_mask_alone(plane: int, value: int, mask: int, at: int) -> None:
    vga = Vga()
    for register, byte in ((2, 1 << plane), (4, 6)):
        vga.sequencer[register] = byte
    vga.graphics[8], vga.graphics[4] = mask, plane
    vga.memory[4 * at + plane] = 0x5A
    assert vga.read_window(at, 1) == 0x5A
    vga.write_window(at, 1, value)
    assert vga.read_window(at, 1) == value & mask | 0x5A & ~mask & 0xFF


def test_what_is_written_to_idle_interrupt_controllers_may_come_late() -> None:
    pics = InterruptControllers()
    for pic, words in ((pics.master, (0x20, 4, 1)), (pics.slave, (0x28, 2, 1))):
        pic.write(0, 1, 0x11)
        assert not pics.shortcuts()[0], "what comes next is no mask"
        for word in words:
            pic.write(1, 1, word)
    pics.master.write(1, 1, 0xFE)
    pics.slave.write(1, 1, 0xFF)
    assert pics.shortcuts() == (True, 0xFE, 0xFF)
    pics.set_line(4, True)
    assert not pics.shortcuts()[0], "it asks for something as soon as it may"
    pics.set_line(4, False)
    pics.master.write(1, 1, 0)
    assert pics.acknowledge() == 0x24
    assert pics.shortcuts() == (True, 0, 0xFF), "in service, and nothing waits for its end"
    pics.master.write(0, 1, 0x0C)
    assert not pics.shortcuts()[0], "a poll is read next"

"""The board of a machine without a past: its tables, its serial port, and how it ends."""

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.devices.console import Console
from virtus.devices.virtio.rng import Entropy
from virtus.exits import Exit, Reason
from virtus.guests.elf import NotLoadable
from virtus.guests.linux_image import KernelImage, KernelSegment
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.virtual_pc import acpi_tables, boot, boot64
from virtus.personalities.virtual_pc.board import DEVICES_AT, Board
from virtus.personalities.virtual_pc.serial import EMPTY, NO_INTERRUPT, RECEIVED, TRANSMIT_EMPTY, SerialPort

MIB = 1 << 20


def board(memory: GuestMemory) -> Board:
    return Board(Console(-1, -1), [Entropy(memory)], [lambda: None], lambda: None)


def exit_of(reason: Reason, number: int, *, value: int | None = None, size: int = 1) -> Exit:
    made = Exit()
    made.reason, made.number, made.size, made.write, made.value = reason, number, size, value is not None, value or 0
    return made


# Tables


@pytest.mark.parametrize("processors", [1, 4, 16])
def test_tables_lead_to_each_other_and_sum_up(processors: int) -> None:
    placed = acpi_tables.tables(processors, [(0xD0000000, 5), (0xD0001000, 6)])
    root = placed[acpi_tables.ACPI_AT]
    assert root.startswith(b"RSD PTR ")
    assert sum(root[:20]) % 256 == sum(root) % 256 == 0
    extended = placed[struct.unpack_from("<Q", root, 24)[0]]
    found = {}
    for (at,) in struct.iter_unpack("<Q", extended[36:]):
        found[placed[at][:4]] = placed[at]
    found[b"DSDT"] = placed[struct.unpack_from("<Q", found[b"FACP"], 140)[0]]
    for table in (extended, *found.values()):
        assert sum(table) % 256 == 0
        assert struct.unpack_from("<I", table, 4)[0] == len(table)
    assert found[b"APIC"].count(bytes((0, 8))) >= processors
    assert found[b"DSDT"].count(b"LNRO0005") == 2
    ends = sorted((at, at + len(data)) for at, data in placed.items())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


# A serial port


def test_what_is_sent_is_shown_and_what_is_typed_is_read() -> None:
    shown, raised = bytearray(), list[None]()
    port = SerialPort(shown.extend, lambda: raised.append(None))
    for byte in b"hello":
        port.write(0, byte)
    assert shown == b"hello"
    assert not raised
    port.write(1, 3)  # both interrupts
    assert len(raised) == 1
    assert port.read(2) & 15 == TRANSMIT_EMPTY
    assert port.read(2) & 15 == NO_INTERRUPT
    port.type(b"xy")
    assert len(raised) == 2
    assert port.read(2) & 15 == RECEIVED
    assert port.read(5) == EMPTY | 1
    assert bytes((port.read(0), port.read(0))) == b"xy"
    assert port.read(5) == EMPTY
    port.write(3, 0x80)
    port.write(0, 1)
    assert port.read(0) == 1
    assert shown == b"hello"


@given(st.lists(st.tuples(st.integers(0, 7), st.one_of(st.none(), st.integers(0, 255))), max_size=60))
def test_any_accesses_of_the_port_are_answered(accesses: list[tuple[int, int | None]]) -> None:
    port = SerialPort(lambda data: None, lambda: None)
    port.type(b"typed")
    for register, value in accesses:
        if value is None:
            assert 0 <= port.read(register) <= 255
        else:
            port.write(register, value)


# Ends


@pytest.mark.parametrize(
    ("exit", "why", "status"),
    [
        (exit_of(Reason.PORT_IO, acpi_tables.SLEEP_PORT, value=5 << 2 | 1 << 5), "poweroff", 0),
        (exit_of(Reason.PORT_IO, 0x64, value=0xFE), "reboot", 0),
        (exit_of(Reason.ENDED, 8), "its processor stopped: triple fault", 1),
    ],
)
def test_how_it_ends(exit: Exit, why: str, status: int) -> None:
    memory = GuestMemory(MIB, "test")
    made, told = board(memory), list[str]()
    made.stopped = lambda: told.append(made.ended)
    made.handle(exit)
    made.end("later", 9)
    assert (made.ended, made.status, told, made.running) == (why, status, [why], False)
    memory.close()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4]), st.booleans()), max_size=30)
)
def test_any_exit_is_answered(exits: list[tuple[bool, int, int, bool]]) -> None:
    memory = GuestMemory(MIB, "test")
    made = board(memory)
    for is_port, number, size, write in exits:
        reason = Reason.PORT_IO if is_port else Reason.MEMORY_IO
        one = exit_of(reason, number if is_port else DEVICES_AT + number, value=number if write else None, size=size)
        made.handle(one)
        assert 0 <= one.value < 1 << 64
    made.poll()
    memory.close()


# Booting


def image(entry: int, physical: int = 0x100000, size: int = 4096) -> KernelImage:
    segment = KernelSegment(physical, memoryview(b"kernel"), size)
    return KernelImage(entry, (segment,), {boot.NOTE_PVH: entry.to_bytes(4, "little")} if entry else {})


def test_a_kernel_finds_what_it_is_told_of() -> None:
    memory = GuestMemory(16 * MIB, "test")
    tables = acpi_tables.tables(1, [])
    assert boot.load(memory, image(0x100010), b"ramdisk", "quiet", tables) == 0x100010
    magic, version, _, modules, modules_at, command_at, root_at, ranges_at, ranges, _ = boot.START_INFO.unpack_from(
        memory.bytes, boot.START_AT
    )
    assert (magic, version, modules, root_at) == (boot.MAGIC, 1, 1, acpi_tables.ACPI_AT)
    at, size, _, _ = boot.MODULE.unpack_from(memory.bytes, modules_at)
    assert bytes(memory.bytes[at : at + size]) == b"ramdisk"
    assert bytes(memory.bytes[command_at : command_at + 6]) == b"quiet\0"
    covered = [boot.RANGE.unpack_from(memory.bytes, ranges_at + 24 * one)[:2] for one in range(ranges)]
    assert covered[-1] == (MIB, 15 * MIB)
    assert bytes(memory.bytes[0x100000:0x100006]) == b"kernel"
    memory.close()


@pytest.mark.parametrize(
    ("kernel", "ramdisk", "command", "words"),
    [
        (image(0), b"", "", "without an entry"),
        (image(0x100000, size=64 * MIB), b"", "", "more than 16 MiB"),
        (image(1 << 31), b"", "", "more than 16 MiB"),
        (image(0x100000, physical=0x1000), b"", "", "first megabyte"),
        (image(0x100000), bytes(16 * MIB), "", "kernel and ramdisk"),
        (image(0x100000), b"", "x" * 3000, "3001 bytes"),
    ],
)
def test_what_cannot_be_loaded(kernel: KernelImage, ramdisk: bytes, command: str, words: str) -> None:
    memory = GuestMemory(16 * MIB, "test")
    with pytest.raises(NotLoadable, match=words):
        boot.load(memory, kernel, ramdisk, command, {})
    memory.close()


def bzimage(*, preferred: int = 16 * MIB // 4, room: int = MIB, version: int = 0x20F, flags: int = 1) -> bytes:
    head = bytearray(0x400)
    head[0x1F1], head[0x202:0x206] = 1, b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<H", head, 0x236, flags)
    struct.pack_into("<QI", head, 0x258, preferred, room)
    return bytes(head) + b"packed kernel"


def test_a_packed_kernel_finds_its_zero_page_and_tables() -> None:
    memory = GuestMemory(16 * MIB, "test")
    image = bzimage()
    assert boot64.can(image)
    assert boot64.load(memory, image, b"ramdisk", "quiet", acpi_tables.tables(1, [])) == 4 * MIB + 0x200
    assert bytes(memory.bytes[4 * MIB : 4 * MIB + 13]) == b"packed kernel"
    page = memory.frame(boot64.ZERO_PAGE >> 12)
    at, size = struct.unpack_from("<II", page, boot64.RAMDISK_AT)
    assert bytes(memory.bytes[at : at + size]) == b"ramdisk"
    assert struct.unpack_from("<Q", page, boot64.ROOT_POINTER_AT) == (acpi_tables.ACPI_AT,)
    assert page[boot64.ENTRIES_AT] == 2
    level4 = memory.words[boot64.TABLES >> 3]
    level3 = memory.words[(level4 & ~0xFFF) + 8 * 3 >> 3]
    assert memory.words[(level3 & ~0xFFF) + 8 * 511 >> 3] == (4 << 30) - (2 << 20) | 0x83
    memory.close()


@pytest.mark.parametrize(
    ("image", "command", "words"),
    [
        (bzimage(preferred=1 << 40), "", "more than 16 MiB"),
        (bzimage(room=0xFFFFFFFF), "", "more than 16 MiB"),
        (bzimage(preferred=0x1000), "", "first megabyte"),
        (bzimage()[:0x400], "", "truncated"),
        (bzimage(), "x" * 3000, "3001 bytes"),
    ],
)
def test_packed_kernels_that_cannot_be_loaded(image: bytes, command: str, words: str) -> None:
    memory = GuestMemory(16 * MIB, "test")
    with pytest.raises(NotLoadable, match=words):
        boot64.load(memory, image, b"", command, {})
    memory.close()


@pytest.mark.parametrize("image", [b"", bytes(2000), bzimage(version=0x20B), bzimage(flags=0)])
def test_what_has_no_entry_for_64_bits(image: bytes) -> None:
    assert not boot64.can(image)

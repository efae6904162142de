"""What a BIOS would have done before it boots: addresses and interrupts of PCI functions, and ACPI tables.

Sources: ACPI 2.0, 5.2 (tables), 6.2.8 (_PRT), 6.4 (resources), 17 (AML).
"""

import struct
from typing import Final

from virtus.devices.pc.pci import BARS, COMMAND, IO_ENABLE, LINE, MASTER_ENABLE, MEMORY_ENABLE, PIRQ_AT
from virtus.devices.pc.power import BASE_AT, BASE_ENABLE_AT
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.pc import video
from virtus.personalities.pc.board import NETWORK_SLOT, SCI, Board

PORTS_AT, VIDEO_AT = 0xC000, 0xFD00_0000
PORT_STEP: Final = 0x40
POWER_AT: Final = 0x600
PCI_LINES: Final = (10, 10, 11, 11)
"""Interrupt line of PIRQA to PIRQD, as SeaBIOS has them (src/fw/pciinit.c)."""
EDGE_LEVEL: Final = 0x4D0
TABLES_AT, TABLES_END = 0xE0000, 0xE2000
HEADER: Final = struct.Struct("<4sIBB6s8sI4sI")
FADT_FLAGS: Final = 1 | 4 | 0x20  # WBINVD works, C1 is there, no sleep button (5.2.8, table 5-10)
LEGACY_DEVICES, KEYBOARD_CONTROLLER = 1, 2
NO_C2, NO_C3 = 101, 1001
FREE_MEMORY_END: Final = 0xFEBF_FFFF
PNP_PCI: Final = b"\x0c\x41\xd0\x0a\x03"


def set_up(board: Board, memory: GuestMemory, font: bytes | None = None) -> None:
    """Leave the board and memory as a BIOS leaves them to an operating system with ACPI; the screen with this font."""
    video.set_text_mode(board.vga, font)
    port = PORTS_AT
    for function in board.pci.functions.values():
        enabled = 0
        for index, (size, _) in function.port_bars.items():
            function.write_config(BARS + 4 * index, 4, port)
            port += max(size, PORT_STEP)
            enabled |= IO_ENABLE | MASTER_ENABLE
        for index in function.memory_bars:
            function.write_config(BARS + 4 * index, 4, VIDEO_AT)
            enabled |= MEMORY_ENABLE
        function.write_config(COMMAND, 2, enabled)
    south = board.pci.functions[1, 0]
    south.write_config(PIRQ_AT, 4, int.from_bytes(bytes(PCI_LINES), "little"))
    board.pci.functions[NETWORK_SLOT, 0].write_config(LINE, 1, PCI_LINES[NETWORK_SLOT - 1 & 3])
    board.ports.write(EDGE_LEVEL, 2, sum(1 << line for line in {*PCI_LINES, SCI}))
    power = board.power.function
    power.write_config(BASE_AT, 2, POWER_AT)
    power.write_config(BASE_ENABLE_AT, 1, 1)
    board.power.command(0xF1)
    board.pci.moved()
    _write_tables(memory)


def _length(body: bytes) -> bytes:
    """A package length and what it is the length of (17.2.4)."""
    size = len(body) + 1
    if size < 0x40:
        return bytes((size,)) + body
    size += 1
    return bytes((0x40 | size & 15, size >> 4)) + body


def _word(value: int) -> bytes:
    return b"\x0c" + struct.pack("<I", value)


def _package(items: list[bytes]) -> bytes:
    return b"\x12" + _length(bytes((len(items),)) + b"".join(items))


def _definitions(memory_size: int) -> bytes:
    """The DSDT: soft off is sleep type 0; one PCI bus with its windows, and the card's interrupt."""
    low = max(memory_size, 0x8000_0000)
    windows = b"".join(
        (
            struct.pack("<BHBBBHHHHH", 0x88, 13, 2, 0x0C, 0, 0, 0, 0xFF, 0, 0x100),
            struct.pack("<BBHHBB", 0x47, 1, 0xCF8, 0xCF8, 1, 8),
            struct.pack("<BHBBBHHHHH", 0x88, 13, 1, 0x0C, 3, 0, 0, 0xCF7, 0, 0xCF8),
            struct.pack("<BHBBBHHHHH", 0x88, 13, 1, 0x0C, 3, 0, 0xD00, 0xFFFF, 0, 0xF300),
            struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0x0C, 3, 0, 0xA0000, 0xBFFFF, 0, 0x20000),
            struct.pack("<BHBBBIIIII", 0x87, 23, 0, 0x0C, 3, 0, low, FREE_MEMORY_END, 0, FREE_MEMORY_END - low + 1),
            b"\x79\x00",
        )
    )
    buffer = b"\x11" + _length(b"\x0a" + bytes((len(windows),)) + windows)
    line = PCI_LINES[NETWORK_SLOT - 1 & 3]
    route = _package([_word(NETWORK_SLOT << 16 | 0xFFFF), b"\x00", b"\x00", b"\x0a" + bytes((line,))])
    device = b"PCI0" + b"\x08_HID" + PNP_PCI + b"\x08_CRS" + buffer + b"\x08_PRT" + _package([route])
    off = b"\x08_S5_" + _package([b"\x00"] * 4)
    return off + b"\x10" + _length(b"_SB_" + b"\x5b\x82" + _length(device))


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    size = HEADER.size + len(body)
    data = bytearray(HEADER.pack(signature, size, revision, 0, b"VIRTUS", b"VIRTUSPC", 1, b"VRTS", 1) + body)
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def _write_tables(memory: GuestMemory) -> None:
    """Root pointer, RSDT, FADT, FACS and DSDT, behind each other."""
    root, rsdt, fadt, facs, dsdt = (TABLES_AT + offset for offset in (0, 0x40, 0x100, 0x200, 0x280))
    pointer = bytearray(struct.pack("<8sB6sBI", b"RSD PTR ", 0, b"VIRTUS", 0, rsdt))
    pointer[8] = -sum(pointer) & 0xFF
    fixed = struct.pack("<IIBBHIBBBB", facs, dsdt, 0, 0, SCI, 0, 0, 0, 0, 0)
    fixed += struct.pack("<IIIIIIII", POWER_AT, 0, POWER_AT + 4, 0, 0, POWER_AT + 8, 0xAFE0, 0)
    fixed += struct.pack("<BBBBBBBB", 4, 2, 0, 4, 4, 0, 0, 0)
    fixed += struct.pack("<HHHHBBBBBHB", NO_C2, NO_C3, 0, 0, 0, 0, 0, 0, 0x32, LEGACY_DEVICES | KEYBOARD_CONTROLLER, 0)
    fixed += struct.pack("<I", FADT_FLAGS)
    tables = {
        root: bytes(pointer),
        rsdt: _table(b"RSDT", 1, struct.pack("<I", fadt)),
        fadt: _table(b"FACP", 1, fixed),
        facs: struct.pack("<4sI56x", b"FACS", 64),
        dsdt: _table(b"DSDT", 1, _definitions(memory.size)),
    }
    for at, data in tables.items():
        memory.bytes[at : at + len(data)] = data

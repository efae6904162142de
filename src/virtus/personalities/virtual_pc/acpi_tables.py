"""ACPI tables of a machine with reduced hardware: processors, virtio devices, a serial port, and how to power off.

Source: ACPI 6.4: 5.2 (tables), 6.4 (resources), 20.2 (AML encoding).
"""

import struct
from typing import Final

ACPI_AT: Final = 0xE0000  # where a root pointer is looked for (5.2.5.1), and nothing else is
SERIAL_PORT, SERIAL_INTERRUPT = 0x3F8, 4
SLEEP_PORT: Final = 0x604
SLEEP_ENABLE, SLEEP_TYPE_SHIFT, OFF_TYPE = 1 << 5, 2, 5  # 4.8.3.7, sleep control register; \\_S5
RESET_PORT, RESET_VALUE = 0x64, 0xFE
LOCAL_APIC, IO_APIC = 0xFEE00000, 0xFEC00000
HEADER: Final = struct.Struct("<4sIBB6s8sI4sI")
HARDWARE_REDUCED, RESET_SUPPORTED = 1 << 20, 1 << 10  # 5.2.9, flags
POWER_BUTTON_ABSENT, SLEEP_BUTTON_ABSENT = 1 << 4, 1 << 5
NO_VGA, NO_CMOS_CLOCK = 1 << 2, 1 << 5  # IA-PC boot architecture flags
FADT_SIZE: Final = 276
VIRTIO_ID: Final = b"LNRO0005\0"
NAME, STRING, BYTE, DWORD, BUFFER, PACKAGE, SCOPE, DEVICE = (
    b"\x08",
    b"\x0d",
    b"\x0a",
    b"\x0c",
    b"\x11",
    b"\x12",
    b"\x10",
    b"\x5b\x82",
)
SERIAL_ID: Final = DWORD + b"\x41\xd0\x05\x01"  # EISA id PNP0501


def _length(body: bytes) -> bytes:
    """A package length and what it is the length of (20.2.4)."""
    size = len(body) + 1
    if size < 0x40:
        return bytes((size,)) + body
    size += 1
    if size < 0x1000:
        return bytes((0x40 | size & 15, size >> 4)) + body
    size += 1
    return bytes((0x80 | size & 15, size >> 4 & 0xFF, size >> 12)) + body


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A table with its header, whose bytes sum up to 0."""
    data = bytearray(
        HEADER.pack(signature, HEADER.size + len(body), revision, 0, b"VIRTUS", b"VIRTUSPC", 1, b"VRTS", 1) + body
    )
    data[9] = -sum(data) & 0xFF
    return bytes(data)


def _device(name: bytes, identity: bytes, number: int, resources: bytes) -> bytes:
    body = name + NAME + b"_HID" + identity + NAME + b"_UID" + BYTE + bytes((number,))
    resources += b"\x79\x00"  # end tag (6.4.2.9)
    body += NAME + b"_CRS" + BUFFER + _length(BYTE + bytes((len(resources),)) + resources)
    return DEVICE + _length(body)


def _interrupt(number: int) -> bytes:
    """Extended interrupt descriptor: consumer, edge-triggered, active high (6.4.3.6)."""
    return struct.pack("<BHBBI", 0x89, 6, 3, 1, number)


def _registers(base: int) -> bytes:
    """A page of memory that is read and written (32-bit fixed memory range, 6.4.3.4)."""
    return struct.pack("<BHBII", 0x86, 9, 1, base, 0x1000)


def _description(devices: list[tuple[int, int]]) -> bytes:
    """The DSDT: the virtio devices by address and interrupt, the serial port, and the state S5."""
    found = b"".join(
        _device(b"VR%02X" % number, STRING + VIRTIO_ID, number, _registers(base) + _interrupt(line))
        for number, (base, line) in enumerate(devices)
    )
    port = struct.pack("<BBHHBB", 0x47, 1, SERIAL_PORT, SERIAL_PORT, 1, 8)
    found += _device(b"COM1", SERIAL_ID, 1, port + _interrupt(SERIAL_INTERRUPT))
    off = NAME + b"_S5_" + PACKAGE + _length(b"\x01" + BYTE + bytes((OFF_TYPE,)))
    return table(b"DSDT", 2, SCOPE + _length(b"_SB_" + found) + off)


def _interrupts(processors: int) -> bytes:
    """The MADT: a local APIC for each processor, and an I/O APIC."""
    body = struct.pack("<II", LOCAL_APIC, 0)
    for number in range(processors):
        body += struct.pack("<BBBBI", 0, 8, number, number, 1)
    return table(b"APIC", 4, body + struct.pack("<BBBBII", 1, 12, processors, 0, IO_APIC, 0))


def _port(number: int) -> bytes:
    """A generic address: one byte at a port (5.2.3.2)."""
    return struct.pack("<BBBBQ", 1, 8, 0, 1, number)


def _fixed(description_at: int) -> bytes:
    """The FADT."""
    body = bytearray(FADT_SIZE - HEADER.size)

    def put(offset: int, data: bytes) -> None:
        body[offset - HEADER.size : offset - HEADER.size + len(data)] = data

    put(109, struct.pack("<H", NO_VGA | NO_CMOS_CLOCK))
    flags = HARDWARE_REDUCED | RESET_SUPPORTED | POWER_BUTTON_ABSENT | SLEEP_BUTTON_ABSENT
    put(112, struct.pack("<I", flags))
    put(116, _port(RESET_PORT) + bytes((RESET_VALUE,)))
    put(131, b"\x04")  # minor version
    put(140, struct.pack("<Q", description_at))
    put(244, _port(SLEEP_PORT) + _port(SLEEP_PORT + 1))
    return table(b"FACP", 6, bytes(body))


def tables(processors: int, devices: list[tuple[int, int]]) -> dict[int, bytes]:
    """All of them, by physical address; `devices` are virtio's, by address and interrupt line."""
    description, interrupts = _description(devices), _interrupts(processors)
    at = ACPI_AT + 0x100
    placed: dict[int, bytes] = {}
    places: list[int] = []
    for one in (description, interrupts, b""):
        one = one or _fixed(places[0])
        placed[at] = one
        places.append(at)
        at = at + len(one) + 15 & ~15
    placed[at] = table(b"XSDT", 1, struct.pack("<QQ", places[2], places[1]))
    root = bytearray(struct.pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, b"VIRTUS", 2, 0, 36, at, 0))
    root[8] = -sum(root[:20]) & 0xFF
    root[32] = -sum(root) & 0xFF
    placed[ACPI_AT] = bytes(root)
    return placed

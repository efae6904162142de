"""An option ROM by which SeaBIOS hands a machine over to our loader, so that multiboot kernels find a BIOS.

The BIOS calls its bootstrap entry vector in real mode. It asks for the memory map (INT 15h, function E820h of ACPI 6.4,
15.1), and writes where that ends to a port, whose device does what a boot loader does.

Sources: BIOS Boot Specification 1.01, 3 (option ROMs), appendix A (PnP expansion header).
"""

import struct
from collections.abc import Callable
from typing import Final

from virtus.devices.pc.bus import DmaMemory

NAME: Final = "genroms/virtus.rom"
"""Of the file in the firmware configuration; SeaBIOS takes what is there for ROMs."""
BOOT_PATH: Final = "/rom@genroms/virtus.rom"
PORT: Final = 0x8A10
MAP_AT: Final = 0x7000
ENTRY: Final = struct.Struct("<QQI")
MOST_ENTRIES: Final = 128
HEADER_AT, CODE_AT, SIZE = 0x20, 0x40, 512

CODE: Final = bytes.fromhex(
    "31c0 8ec0"  # xor ax, ax; mov es, ax
    "bf 0070"  # mov di, MAP_AT
    "6631db"  # xor ebx, ebx
    "66b8 20e80000"  # next: mov eax, 0xE820
    "66ba 50414d53"  # mov edx, "SMAP"
    "66b9 14000000"  # mov ecx, ENTRY.size
    "cd15 7208"  # int 0x15; jc done
    "83c714 6685db 75e2"  # add di, ENTRY.size; test ebx, ebx; jnz next
    "89f8 ba108a ef"  # done: mov ax, di; mov dx, PORT; out dx, ax
    "f4 ebfd"  # stop: hlt; jmp stop
)


def rom() -> bytes:
    """The image, with a check sum."""
    image = bytearray(SIZE)
    image[:4] = b"\x55\xaa" + bytes((SIZE // 512,)) + b"\xcb"  # nothing to initialize: retf
    struct.pack_into("<HH", image, 0x18, 0, HEADER_AT)
    struct.pack_into("<4sBB", image, HEADER_AT, b"$PnP", 0x10, 0x20 // 16)
    struct.pack_into("<H", image, HEADER_AT + 0x1A, CODE_AT)
    image[HEADER_AT + 9] = -sum(image[HEADER_AT : HEADER_AT + 0x20]) & 0xFF
    image[CODE_AT : CODE_AT + len(CODE)] = CODE
    image[-1] = -sum(image) & 0xFF
    return bytes(image)


class LoaderPort:
    """The port: calls `load` with the memory map (address, size and type of each range), once."""

    def __init__(self, memory: DmaMemory, load: Callable[[list[tuple[int, int, int]]], None]) -> None:
        self._memory, self._load = memory, load
        self._done = False

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return 0xFFFF

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice. A kernel that writes here later means something else."""
        count = (value - MAP_AT) // ENTRY.size
        if self._done or offset or not 0 < count <= MOST_ENTRIES:
            return
        self._done = True
        data = self._memory.read(MAP_AT, count * ENTRY.size)
        self._load([ENTRY.unpack_from(data, at) for at in range(0, len(data), ENTRY.size)])

"""A VGA with the Bochs extension: registers, four planes behind A0000h, a linear frame buffer, modes as vgabios sets.

Sources: IBM VGA technical reference (registers); docs/specs/standard-vga.rst of QEMU and the header bochs-vbe.h of
Linux (the extension). Text memory at B8000h is plain memory of the machine, which `virtus.devices.pc.screen` reads.
"""

from typing import Final

from virtus.devices.pc.bus import DmaMemory

VIDEO_MEMORY: Final = 8 << 20
PLANES: Final = 4
PLANE: Final = 0x10000
WINDOW: Final = range(0xA0000, 0xB0000)
TEXT_AT: Final = 0xB8000
FONT_PLANE: Final = 2
FONT_STRIDE: Final = 32
# offsets from 3C0h
ATTRIBUTE, ATTRIBUTE_READ, MISC_WRITE, SEQUENCER, DAC_MASK, DAC_READ, DAC_WRITE, DAC_DATA, MISC_READ, GRAPHICS = (
    0,
    1,
    2,
    4,
    6,
    7,
    8,
    9,
    12,
    14,
)
CRTC_MONO, STATUS_MONO, CRTC, STATUS = -12, -6, 20, 26  # 3B4h, 3BAh, 3D4h, 3DAh
RETRACE: Final = 9
SEQUENCER_BITS: Final = bytes((0x03, 0x3D, 0x0F, 0x3F, 0x0E, 0, 0, 0xFF))
GRAPHICS_BITS: Final = bytes((0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF)).ljust(16, b"\0")
"""Bits that there are, by register."""
DISPI_ID, DISPI_X, DISPI_Y, DISPI_BPP, DISPI_ENABLE, DISPI_BANK, DISPI_VIRTUAL_X, DISPI_VIRTUAL_Y = range(8)
DISPI_X_OFFSET, DISPI_Y_OFFSET, DISPI_MEMORY_64K = 8, 9, 10
DISPI_ENABLED, DISPI_CAPABILITIES, DISPI_NO_CLEAR = 1, 2, 0x80
DISPI_VERSION: Final = 0xB0C5
DISPI_VERSIONS: Final = range(0xB0C0, DISPI_VERSION + 1)
MOST_X, MOST_Y = 2560, 1600
DEPTHS: Final = (4, 8, 15, 16, 24, 32)
BASE_PORT: Final = 0x3C0


class Vga:
    """Attach `read`/`write` at 3B0h to 3DFh by `RegisterWindow`; `read_memory`/`write_memory` is the frame buffer."""

    def __init__(self, memory: memoryview | None = None) -> None:
        """`memory` is VIDEO_MEMORY bytes that the guest may see, too; its own without."""
        self.memory = memoryview(bytearray(VIDEO_MEMORY)) if memory is None else memory
        """Plane p of byte n is at 4 n + p, as the extension's linear modes have it."""
        self.crtc = bytearray(256)
        self.sequencer = bytearray(256)
        self.graphics = bytearray(256)
        self.attribute = bytearray(32)
        self.palette = bytearray(768)
        """Red, green, blue of 256 colours, of 6 bits."""
        self.misc = 0
        self._crtc_index = self._sequencer_index = self._graphics_index = self._attribute_index = 0
        self._attribute_data = False
        self._dac_read_at = self._dac_write_at = 0
        self._dac_mask = 0xFF
        self._dac_reading = False
        self._status = 0
        self._latch = bytes(4)
        self._dispi_index = 0
        self.dispi = [DISPI_VERSION, 0, 0, 0, 0, 0, 0, 0, 0, 0, VIDEO_MEMORY >> 16]

    # registers

    def read(self, offset: int, size: int) -> int:
        """Registers by offset from 3C0h."""
        if offset == ATTRIBUTE:
            return self._attribute_index
        if offset == ATTRIBUTE_READ:
            return self.attribute[self._attribute_index & 31]
        if offset == SEQUENCER:
            return self._sequencer_index
        if offset == SEQUENCER + 1:
            return self.sequencer[self._sequencer_index]
        if offset == DAC_MASK:
            return self._dac_mask
        if offset == DAC_READ:
            return 3 if self._dac_reading else 0
        if offset == DAC_WRITE:
            return self._dac_write_at // 3 & 0xFF
        if offset == DAC_DATA:
            value = self.palette[self._dac_read_at]
            self._dac_read_at = (self._dac_read_at + 1) % len(self.palette)
            return value
        if offset == MISC_READ:
            return self.misc
        if offset == MISC_WRITE:
            return 0x10  # input status 0: a monitor is sensed
        if offset == GRAPHICS:
            return self._graphics_index
        if offset == GRAPHICS + 1:
            return self.graphics[self._graphics_index]
        if offset in (CRTC, CRTC_MONO):
            return self._crtc_index
        if offset in (CRTC + 1, CRTC_MONO + 1):
            return self.crtc[self._crtc_index]
        if offset in (STATUS, STATUS_MONO):
            self._attribute_data = False
            self._status ^= RETRACE  # whoever waits for a retrace, or for its end, has it at once
            return self._status
        return 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """Registers by offset from 3C0h."""
        if offset == ATTRIBUTE:
            if self._attribute_data:
                self.attribute[self._attribute_index & 31] = value
            else:
                self._attribute_index = value & 0x3F
            self._attribute_data = not self._attribute_data
        elif offset == MISC_WRITE:
            self.misc = value
        elif offset == SEQUENCER:
            self._sequencer_index = value & 7
        elif offset == SEQUENCER + 1:
            self.sequencer[self._sequencer_index] = value & SEQUENCER_BITS[self._sequencer_index]
        elif offset == DAC_MASK:
            self._dac_mask = value
        elif offset == DAC_READ:
            self._dac_read_at, self._dac_reading = 3 * value, True
        elif offset == DAC_WRITE:
            self._dac_write_at, self._dac_reading = 3 * value, False
        elif offset == DAC_DATA:
            self.palette[self._dac_write_at] = value & 0x3F
            self._dac_write_at = (self._dac_write_at + 1) % len(self.palette)
        elif offset == GRAPHICS:
            self._graphics_index = value & 15
        elif offset == GRAPHICS + 1:
            self.graphics[self._graphics_index] = value & GRAPHICS_BITS[self._graphics_index]
        elif offset in (CRTC, CRTC_MONO):
            self._crtc_index = value
        elif offset in (CRTC + 1, CRTC_MONO + 1) and not (self.crtc[0x11] & 0x80 and self._crtc_index < 7):
            self.crtc[self._crtc_index] = value

    # the window at A0000h

    def _bank(self) -> int:
        return self.dispi[DISPI_BANK] << 16 if self.dispi[DISPI_ENABLE] & DISPI_ENABLED else 0

    def read_window(self, offset: int, size: int) -> int:
        """What the guest reads behind A0000h."""
        return sum(self._read_byte(offset + at) << 8 * at for at in range(size))

    def write_window(self, offset: int, size: int, value: int) -> None:
        """The guest writes behind A0000h."""
        for at in range(size):
            self._write_byte(offset + at, value >> 8 * at & 0xFF)

    def _read_byte(self, offset: int) -> int:
        if self.sequencer[4] & 8:  # chain 4
            return self.memory[(offset + self._bank()) % VIDEO_MEMORY]
        plane = self.graphics[4] & 3
        if self.graphics[5] & 0x10:  # odd and even addresses are planes
            plane, offset = plane & 2 | offset & 1, offset & ~1
        at = 4 * (offset & PLANE - 1)
        self._latch = bytes(self.memory[at : at + 4])
        if not self.graphics[5] & 8:
            return self._latch[plane]
        found = 0xFF  # read mode 1: the bits whose colour is the one asked for
        for number in range(PLANES):
            if self.graphics[7] >> number & 1:
                wanted = 0xFF if self.graphics[2] >> number & 1 else 0
                found &= ~(self._latch[number] ^ wanted)
        return found & 0xFF

    def _write_byte(self, offset: int, value: int) -> None:
        mask = self.sequencer[2]
        if self.sequencer[4] & 8:
            if mask >> (offset & 3) & 1:
                self.memory[(offset + self._bank()) % VIDEO_MEMORY] = value
            return
        if not self.sequencer[4] & 4:
            mask &= 10 if offset & 1 else 5
            offset &= ~1
        at = 4 * (offset & PLANE - 1)
        for plane in range(PLANES):
            if mask >> plane & 1:
                self.memory[at + plane] = self._plane_value(plane, value)

    def _plane_value(self, plane: int, value: int) -> int:
        """Write modes 0 to 3 (IBM VGA, graphics mode register)."""
        mode, latch, bits = self.graphics[5] & 3, self._latch[plane], self.graphics[8]
        if mode == 1:
            return latch
        rotate = self.graphics[3] & 7
        set_reset = 0xFF if self.graphics[0] >> plane & 1 else 0
        if mode == 2:
            value = 0xFF if value >> plane & 1 else 0
        else:
            value = (value >> rotate | value << 8 - rotate) & 0xFF
            if mode == 3:
                bits &= value
                value = set_reset
            elif self.graphics[1] >> plane & 1:
                value = set_reset
        function = self.graphics[3] >> 3 & 3
        if function:
            value = (value, value & latch, value | latch, value ^ latch)[function]
        return value & bits | latch & ~bits & 0xFF

    # the linear frame buffer

    def read_memory(self, offset: int, size: int) -> int:
        """See MemoryDevice."""
        return int.from_bytes(self.memory[offset : offset + size], "little")

    def write_memory(self, offset: int, size: int, value: int) -> None:
        """See MemoryDevice."""
        if offset + size <= VIDEO_MEMORY:
            self.memory[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def linear_mode(self) -> bool:
        """Whether the screen shows what the Bochs extension says."""
        return bool(self.dispi[DISPI_ENABLE] & DISPI_ENABLED)

    @property
    def text_mode(self) -> bool:
        """Whether the screen shows characters."""
        return not self.linear_mode and not self.graphics[6] & 1

    def font(self) -> bytes:
        """The characters' shapes: 256 of 32 bytes, as the guest loaded them."""
        return bytes(self.memory[FONT_PLANE : 4 * 256 * FONT_STRIDE : 4])


class RegisterWindow:
    """The registers where a PC has them: 3B0h to 3DFh."""

    def __init__(self, vga: Vga) -> None:
        self._vga = vga

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        return self._vga.read(offset - 0x10, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        self._vga.write(offset - 0x10, size, value)


class BochsExtension:
    """Ports 1CEh (index) and 1CFh (data), 16 bits each."""

    def __init__(self, vga: Vga) -> None:
        self._vga = vga
        self._index = 0

    def read(self, offset: int, size: int) -> int:
        """See PortDevice."""
        if offset == 0:
            return self._index
        dispi = self._vga.dispi
        if dispi[DISPI_ENABLE] & DISPI_CAPABILITIES and DISPI_X <= self._index <= DISPI_BPP:
            return (MOST_X, MOST_Y, 32)[self._index - DISPI_X]
        return dispi[self._index] if self._index < len(dispi) else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """See PortDevice."""
        dispi = self._vga.dispi
        if offset == 0:
            self._index = value
        elif self._index == DISPI_ID:
            if value in DISPI_VERSIONS:
                dispi[DISPI_ID] = value  # software asks for a version and sees whether it stays
        elif self._index == DISPI_ENABLE:
            self._enable(value)
        elif self._index == DISPI_BPP:
            dispi[DISPI_BPP] = value if value in DEPTHS else 8
        elif self._index == DISPI_X:
            dispi[DISPI_X] = min(value, MOST_X) & ~7
        elif self._index == DISPI_Y:
            dispi[DISPI_Y] = min(value, MOST_Y)
        elif self._index == DISPI_BANK:
            dispi[DISPI_BANK] = value & (VIDEO_MEMORY >> 16) - 1
        elif self._index == DISPI_VIRTUAL_X:
            dispi[DISPI_VIRTUAL_X] = min(max(value, dispi[DISPI_X]), 2 * MOST_X) & ~7
            self._virtual()
        elif self._index in (DISPI_X_OFFSET, DISPI_Y_OFFSET):
            dispi[self._index] = value

    def _pitch(self) -> int:
        return max(self._vga.dispi[DISPI_VIRTUAL_X] * ((self._vga.dispi[DISPI_BPP] + 7) // 8), 1)

    def _virtual(self) -> None:
        self._vga.dispi[DISPI_VIRTUAL_Y] = min(VIDEO_MEMORY // self._pitch(), 0xFFFF)

    def _enable(self, value: int) -> None:
        vga, dispi = self._vga, self._vga.dispi
        if value & DISPI_ENABLED and not dispi[DISPI_ENABLE] & DISPI_ENABLED:
            dispi[DISPI_VIRTUAL_X] = dispi[DISPI_X]
            dispi[DISPI_X_OFFSET] = dispi[DISPI_Y_OFFSET] = dispi[DISPI_BANK] = 0
            self._virtual()
            if not value & DISPI_NO_CLEAR:
                size = min(self._pitch() * dispi[DISPI_Y], VIDEO_MEMORY)
                vga.memory[:size] = bytes(size)
        dispi[DISPI_ENABLE] = value & 0xFF


def text_memory(memory: DmaMemory, vga: Vga, columns: int, rows: int) -> bytes:
    """The characters and attributes on the screen, from where the CRTC starts to show."""
    start = (vga.crtc[0x0C] << 8 | vga.crtc[0x0D]) * 2 & 0x7FFF
    wanted = columns * rows * 2
    ring = memory.read(TEXT_AT, 0x8000)
    return (ring + ring)[start : start + wanted]

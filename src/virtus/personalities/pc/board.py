"""The board of a PC: which chip is at which port and address, wired to which interrupt, and how the machine ends.

A board of the 440FX and PIIX3 generation, as QEMU's machine "pc" shows it to SeaBIOS.
"""

import contextlib
import select
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol

from virtus.devices.console import Console
from virtus.devices.disk import Disk
from virtus.devices.network import Link
from virtus.devices.pc import ide, pci, vga
from virtus.devices.pc.ata_disk import AtaDisk
from virtus.devices.pc.atapi import AtapiCd
from virtus.devices.pc.bus import NOTHING, DmaMemory, PortBus
from virtus.devices.pc.cmos import Cmos
from virtus.devices.pc.dma8237 import Dma8237
from virtus.devices.pc.floppy import Floppy
from virtus.devices.pc.fw_cfg import DebugPort, FirmwareConfiguration
from virtus.devices.pc.ne2000 import Ne2000
from virtus.devices.pc.pic8259 import EdgeLevel, InterruptControllers
from virtus.devices.pc.pit8254 import Pit8254, SystemControl
from virtus.devices.pc.power import GeneralEvents, PowerManagement, ShutdownPort, SmiPort
from virtus.devices.pc.ps2 import FastA20, Ps2Controller
from virtus.devices.pc.screen import Screen
from virtus.devices.pc.uart16550 import Uart16550
from virtus.exits import Exit, Reason
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.pc.front import Front, Terminal
from virtus.records import dataclass, field

VIDEO_HOLE: Final = vga.WINDOW
"""The only hole in memory below its end. B0000h to BFFFFh is plain memory: text is read from there."""
MOST_MEMORY: Final = 0xC000_0000
"""Above are PCI and the BIOS."""
TIMER, KEYBOARD, SERIAL, FLOPPY, CLOCK, SCI, MOUSE, PRIMARY_IDE, SECONDARY_IDE = 0, 1, 4, 6, 8, 9, 12, 14, 15
VGA_SLOT, NETWORK_SLOT = 2, 3
MOST_DISKS: Final = 3
"""The fourth place is the CD drive's."""
SERIAL_DATA, SERIAL_STATUS, DELAY, COUNTER = 0x3F8, 0x3FD, 0x80, 0x40
CONTROLLERS: Final = (0x20, 0xA0)
"""The interrupt controllers' command ports; the data ports are the next."""
STATUS_OF_ESCAPE: Final = 130
LONGEST_WAIT_S: Final = 0.5
MOST_DEBUG: Final = 1 << 20


@dataclass
class Media:
    """What is in the drives and at the plugs."""

    disks: list[Disk] = field(default_factory=list)
    cdrom: Disk | None = None
    floppy: Disk | None = None
    link: Link | None = None
    address: bytes = b"\x52\x54\x00\x12\x34\x56"
    files: dict[str, bytes] = field(default_factory=dict)
    """Firmware configuration (`virtus.personalities.pc.bios.files`)."""


class Service(Protocol):
    """Something else that is looked after while the machine runs."""

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to `poll` for."""
        ...

    def poll(self) -> None:
        """Do what there is to do."""
        ...


class Board:
    """See Personality; also `pending` and `acknowledge`, the interrupt controller of the processor.

    `front` is what of it the console shows. `kick` is set by whoever has the processor; it may be called from any
    thread. `services` are polled with the board's own devices.
    """

    def __init__(
        self,
        memory: GuestMemory,
        console: Console,
        media: Media,
        *,
        front: Front,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clock, self.media = clock, media
        self.services: list[Service] = []
        self.ended, self.status = "", 0
        self._timer_at = 0
        """When to look at the timers next, by the clock."""
        self._set_port: Callable[..., None] | None = None
        self._shortcuts: tuple[bool, int, int] | None = None
        """What of the interrupt controllers was last told to the processor."""
        self.debug = bytearray()
        """What firmware said on its debug port."""
        self.unknown_memory: set[int] = set()
        """Pages that the guest touched and nobody has."""
        self.kick: Callable[[], None] = lambda: None
        self.video_moved: Callable[[range], None] = lambda window: None
        """Told where the guest has the frame buffer: whoever can show it there need not exit for it."""
        self.dma = DmaMemory(memory.bytes)
        self.interrupts = InterruptControllers()
        self.ports = PortBus()
        self._windows: list[tuple[range, pci.MemoryDevice]] = []
        self._make_old_chips(console, memory, media, front)
        self._make_drives(media)
        self._make_pci(media)
        self._attach(media)
        self._moved()

    def _line(self, number: int) -> Callable[[bool], None]:
        return lambda level: self.interrupts.set_line(number, level)

    def _make_old_chips(self, console: Console, memory: GuestMemory, media: Media, front: Front) -> None:
        self.pit = Pit8254(self._clock, self._line(TIMER))
        self.cmos = Cmos(self._clock, self._line(CLOCK))
        self.keyboard = Ps2Controller(self._line(KEYBOARD), self._line(MOUSE), self._reset)
        self.vga = vga.Vga(memory.devices if len(memory.devices) == vga.VIDEO_MEMORY else None)
        self.screen = Screen(self.dma, self.vga)
        self.terminal = Terminal(console, self.screen, self.keyboard, front, self._clock)
        self.serial = self.terminal.serial = Uart16550(self.terminal.serial_out, self._line(SERIAL))
        self.dma_controllers = Dma8237(self.dma)
        self.floppy = Floppy(media.floppy, self.dma_controllers, self._line(FLOPPY))
        self.cmos.describe(memory.size, self.floppy.cmos_type)

    def _make_drives(self, media: Media) -> None:
        drives: list[ide.Drive | None] = [
            AtaDisk(disk, f"VD{number}") for number, disk in enumerate(media.disks[:MOST_DISKS])
        ]
        drives += [None] * (MOST_DISKS - len(drives))
        secondary = [AtapiCd(media.cdrom), drives[2]]
        self.channels = [
            ide.IdeChannel(drives[:2], self._line(PRIMARY_IDE), self.dma),
            ide.IdeChannel(secondary, self._line(SECONDARY_IDE), self.dma),
        ]

    def _make_pci(self, media: Media) -> None:
        self.pci = pci.PciBus(self._reset)
        south = pci.SouthBridge(self.interrupts.set_line)
        self.power = PowerManagement(self._clock, self._line(SCI), lambda: self.end("power off", 0))
        display = pci.PciFunction(0x1234, 0x1111, 0x030000)
        display.add_memory_bar(0, vga.VIDEO_MEMORY, self.vga)
        self.network = Ne2000(media.address, media.link, south.wire(NETWORK_SLOT))
        self.pci.add(0, 0, pci.host_bridge())
        self.pci.add(1, 0, south.function)
        self.pci.add(1, 1, ide.controller(self.channels))
        self.pci.add(1, 3, self.power.function)
        self.pci.add(VGA_SLOT, 0, display)
        self.pci.add(NETWORK_SLOT, 0, self.network.function())
        self.pci.moved = self._moved
        self.power.function.changed = lambda offset: self._moved()

    def _attach(self, media: Media) -> None:
        ports, pics = self.ports, self.interrupts
        ports.attach(range(0x10), self.dma_controllers.first)
        ports.attach(range(0x20, 0x22), pics.master)
        ports.attach(range(0x40, 0x44), self.pit)
        ports.attach(range(0x60, 0x65), self.keyboard)
        ports.attach(range(0x61, 0x62), SystemControl(self.pit))
        ports.attach(range(0x70, 0x72), self.cmos)
        ports.attach(range(0x80, 0x90), self.dma_controllers.pages)
        ports.attach(range(0x92, 0x93), FastA20(self._reset))
        ports.attach(range(0xA0, 0xA2), pics.slave)
        ports.attach(range(0xB2, 0xB4), SmiPort(self.power.command))
        ports.attach(range(0xC0, 0xE0), self.dma_controllers.second)
        ports.attach(range(0x1CE, 0x1D0), vga.BochsExtension(self.vga), 2)
        for channel, base in zip(self.channels, (0x1F0, 0x170), strict=True):
            ports.attach(range(base, base + 8), channel)
            ports.attach(range(base, base + 1), channel, 4)  # the data register
            ports.attach(range(base + 0x206, base + 0x207), ide.Control(channel))
        ports.attach(range(0x3B0, 0x3E0), vga.RegisterWindow(self.vga))
        ports.attach(range(0x3F8, 0x400), self.serial)
        ports.attach(range(0x402, 0x403), DebugPort(self._debug_out))
        ports.attach(range(0x4D0, 0x4D2), EdgeLevel(pics))
        ports.attach(range(0xCF8, 0xD00), self.pci, 4)
        ports.attach(range(0xAFE0, 0xAFE4), GeneralEvents())
        ports.attach(range(0x8900, 0x8901), ShutdownPort(lambda: self.end("power off", 0)))
        floppy = [port for port in range(0x3F0, 0x3F8) if port != 0x3F6]
        for port in floppy:
            ports.attach(range(port, port + 1), _From(self.floppy, port, 0x3F0))
        if media.files:
            ports.attach(range(0x510, 0x51C), FirmwareConfiguration(self.dma, media.files), 4)

    def _moved(self) -> None:
        """Addresses of PCI functions have changed."""
        windows = self.pci.windows()
        power = self.power.window()
        if power:
            windows.append((power, self.power))
        self.ports.set_windows(windows)
        self._windows = self.pci.memory_windows()
        self.video_moved(self.video_window())

    def video_window(self) -> range:
        """Where the guest has the frame buffer now."""
        return next((window for window, device in self._windows if device is self.vga), range(0))

    def use_shortcuts(self, set_port: Callable[..., None]) -> None:
        """Say to the processor which ports' writes may be posted, and what reads of them give (`ScannedVcpu.set_port`):
        those that every character on a console goes through, that which drivers wait a moment by, and the timer's
        count, which begins to run when it comes out."""

        def calm(calm: bool, status: int) -> None:
            set_port(SERIAL_DATA, posted=calm, value=None)
            set_port(SERIAL_STATUS, posted=False, value=status)

        self.serial.calm = calm
        for port in (DELAY, COUNTER):
            set_port(port, posted=True, value=None)
        self._set_port = set_port

    # what chips tell

    def _reset(self) -> None:
        self.end("reboot", 0)

    def _debug_out(self, data: bytes) -> None:
        self.debug += data
        if len(self.debug) > MOST_DEBUG:
            del self.debug[: MOST_DEBUG // 2]

    def end(self, why: str, status: int) -> None:
        """The machine is over."""
        if not self.ended:
            self.ended, self.status = why, status

    # the processor's side

    def pending(self) -> bool:
        """Whether an interrupt waits for the processor."""
        if self._clock() >= self._timer_at:
            self._advance()
        pending = self.interrupts.pending()
        shortcuts = self.interrupts.shortcuts()
        if shortcuts != self._shortcuts:
            self._shortcuts = shortcuts
            self._show_controllers(*shortcuts)
        return pending

    def _show_controllers(self, quiet: bool, *masks: int) -> None:
        """While no line asks for anything, nothing comes of what is written to the interrupt controllers until the
        processor stops for another reason: so that may be posted."""
        if self._set_port is None:
            return
        for command, mask in zip(CONTROLLERS, masks, strict=True):
            self._set_port(command, posted=quiet, value=None)
            self._set_port(command + 1, posted=quiet, value=mask if quiet else None)

    def acknowledge(self) -> int:
        """The vector of the interrupt that waits; it is in service from now on."""
        return self.interrupts.acknowledge()

    def deadline_ns(self) -> int | None:
        """When a timer goes off next, by the clock: by then the processor must have come out once."""
        pit, clock = self.pit.deadline_ns, self.cmos.deadline_ns
        if pit is None or clock is None:
            return pit if clock is None else clock
        return min(pit, clock)

    def _advance(self) -> None:
        self.pit.advance()
        self.cmos.advance()
        deadline = self.deadline_ns()
        self._timer_at = sys.maxsize if deadline is None else deadline

    @property
    def running(self) -> bool:
        """See Personality."""
        return not self.ended

    def name_of(self, exit: Exit) -> str:
        """See Personality."""
        return f"{exit.reason.value} {exit.number:#x}"

    def handle(self, exit: Exit) -> None:
        """See Personality."""
        if exit.reason is Reason.PORT_IO:
            self._timer_at = 0  # it may be a timer's
            if exit.count > 1:
                exit.value = self.ports.repeat(exit.number, exit.size, exit.count, exit.write, exit.value)
            elif exit.write:
                self.ports.write(exit.number, exit.size, exit.value)
            else:
                exit.value = self.ports.read(exit.number, exit.size)
        elif exit.reason is Reason.MEMORY_IO:
            self._memory(exit)
        elif exit.reason is Reason.HALT:
            self._wait()
        elif exit.reason is Reason.EVENT:
            self.poll()
        elif exit.reason is Reason.ENDED:
            self.end("its processor shut down (a triple fault)", 1)

    def _memory(self, exit: Exit) -> None:
        address, size = exit.number, exit.size
        if address in VIDEO_HOLE:
            if exit.write:
                self.vga.write_window(address - VIDEO_HOLE.start, size, exit.value)
            else:
                exit.value = self.vga.read_window(address - VIDEO_HOLE.start, size)
            return
        for window, device in self._windows:
            if address in window:
                if exit.write:
                    device.write_memory(address - window.start, size, exit.value & NOTHING[size])
                else:
                    exit.value = device.read_memory(address - window.start, size)
                return
        if len(self.unknown_memory) < 4096:
            self.unknown_memory.add(address >> 12)
        if not exit.write:
            exit.value = NOTHING[size]

    # what comes from outside

    def poll(self) -> None:
        """Look at the console, the network, the timers and the services; show the screen."""
        self._advance()
        self.terminal.poll()
        self.network.poll()
        for service in self.services:
            service.poll()
        if self.terminal.escaped:
            self.end("left by its user", STATUS_OF_ESCAPE)

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to `poll` for."""
        found = self.terminal.descriptors() + self.network.descriptors()
        for service in self.services:
            found += service.descriptors()
        return found

    def _wait(self) -> None:
        """The processor has nothing to do until an interrupt: nor have we."""
        self.poll()
        if self.ended or self.interrupts.pending():
            return
        deadline, wait = self.deadline_ns(), LONGEST_WAIT_S
        if deadline is not None:
            wait = min(max(deadline - self._clock(), 0) / 1e9, wait)
        with contextlib.suppress(InterruptedError):
            select.select(self.descriptors(), [], [], wait)
        self.poll()


class _From:
    """A chip whose offsets count from another port than where it is attached."""

    def __init__(self, device: Floppy, port: int, base: int) -> None:
        self._device, self._offset = device, port - base

    def read(self, offset: int, size: int) -> int:
        return self._device.read(self._offset + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._device.write(self._offset + offset, size, value)

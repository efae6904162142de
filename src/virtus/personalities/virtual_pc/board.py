"""The board: what is at which port and address, and how it ends. Its processors and its devices meet under one lock."""

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from virtus.devices.console import Console
from virtus.devices.virtio.console import VirtioConsole
from virtus.devices.virtio.device import Device
from virtus.devices.virtio.mmio import SIZE, Transport
from virtus.exits import Exit, Reason
from virtus.host.kvm import EXIT_NAMES
from virtus.personalities.virtual_pc import acpi_tables
from virtus.personalities.virtual_pc.serial import SerialPort

HOLE: Final = (0xC0000000, 1 << 32)
"""Physical addresses without memory: for devices, and for the interrupt controllers."""
DEVICES_AT: Final = 0xD0000000
LINES: Final = (5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
"""Interrupt lines of the I/O APIC for virtio: without the timer's, the serial port's, and those of old chips."""
CMOS_INDEX, CMOS_DATA, SYSTEM_CONTROL, KEYBOARD = 0x70, 0x71, 0x61, 0x64
CLOCK_STEADY: Final = 0x26  # register A of a clock that is not being updated
CHANNEL_2_DONE: Final = 0x20
NOTHING: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFFFFFF, 8: 0xFFFFFFFFFFFFFFFF}
STATUS_OF_ESCAPE: Final = 130


class Board:
    """See Personality. `lines` raise an interrupt line each; `stopped` is called once, when the machine ends.

    What is typed goes to the virtio console where `typed_at` is that, to the serial port where it is None.
    """

    def __init__(
        self,
        console: Console,
        devices: list[Device],
        lines: list[Callable[[], None]],
        serial_line: Callable[[], None],
        typed_at: VirtioConsole | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self._console = console
        shared = devices[0].memory.shared if devices else None
        for device in devices:
            assert shared is not None
            device.memory.shared = shared
        self.transports = [
            Transport(device, DEVICES_AT + SIZE * number, lines[number]) for number, device in enumerate(devices)
        ]
        self.serial = SerialPort(console.write, serial_line)
        self._typed_at = typed_at or self.serial
        self.ended, self.status = "", 0
        self.stopped: Callable[[], None] = lambda: None

    def tables(self, processors: int) -> dict[int, bytes]:
        """The ACPI tables that describe it."""
        places = [(transport.base, LINES[number]) for number, transport in enumerate(self.transports)]
        return acpi_tables.tables(processors, places)

    @property
    def running(self) -> bool:
        """See Personality."""
        return not self.ended

    def name_of(self, exit: Exit) -> str:
        """See Personality."""
        return f"{exit.reason.value} {exit.number:#x}"

    def end(self, why: str, status: int) -> None:
        """The machine is over."""
        if not self.ended:
            self.ended, self.status = why, status
            self.stopped()

    def handle(self, exit: Exit) -> None:
        """See Personality."""
        with self.lock:
            if exit.reason is Reason.PORT_IO:
                self._port(exit)
            elif exit.reason is Reason.MEMORY_IO:
                self._memory(exit)
            elif exit.reason is Reason.ENDED:
                why = EXIT_NAMES.get(exit.number, f"exit {exit.number}")
                self.end(f"its processor stopped: {why}", 1)

    def _port(self, exit: Exit) -> None:
        port, register = exit.number, exit.number - acpi_tables.SERIAL_PORT
        if 0 <= register < 8:
            if exit.write:
                self.serial.write(register, exit.value)
            else:
                exit.value = self.serial.read(register)
        elif not exit.write:
            if port == CMOS_DATA:
                exit.value = CLOCK_STEADY
            elif port == SYSTEM_CONTROL:
                exit.value = CHANNEL_2_DONE
            else:
                exit.value = NOTHING[exit.size]
        elif port == KEYBOARD and exit.value == acpi_tables.RESET_VALUE:
            self.end("reboot", 0)
        elif port == acpi_tables.SLEEP_PORT and exit.value & acpi_tables.SLEEP_ENABLE:
            off = exit.value >> acpi_tables.SLEEP_TYPE_SHIFT & 7 == acpi_tables.OFF_TYPE
            self.end("poweroff" if off else "asleep", 0)

    def _memory(self, exit: Exit) -> None:
        number, offset = divmod(exit.number - DEVICES_AT, SIZE)
        if not 0 <= number < len(self.transports):
            exit.value = NOTHING[exit.size] if not exit.write else exit.value
            return
        transport = self.transports[number]
        if exit.write:
            transport.write(offset, exit.size, exit.value)
        else:
            exit.value = transport.read(offset, exit.size)

    def excluded(self) -> int:
        """How often a device was told to use memory that is not its."""
        return sum(transport.device.memory.violations for transport in self.transports)

    def save(self) -> dict[str, Any]:
        """Everything that drivers have set and devices know, as plain data; disks are flushed. Raises OSError."""
        with self.lock:
            for transport in self.transports:
                transport.device.flush()
            return {"serial": self.serial.save(), "devices": [transport.save() for transport in self.transports]}

    def load(self, saved: Mapping[str, Any]) -> None:
        """What `save` gave, of a board with the same devices; raises BadRing, KeyError, TypeError or ValueError."""
        with self.lock:
            self.serial.load(saved["serial"])
            for transport, state in zip(self.transports, saved["devices"], strict=True):
                transport.load(state)

    def look_everywhere(self) -> None:
        """Serve every queue, whether its driver's notification has come or was lost with the machine it was made on."""
        with self.lock:
            for transport in self.transports:
                for number in range(len(transport.device.queues)):
                    transport.notified(number)

    # what comes from outside

    def poll(self) -> None:
        """Look at the console and at the devices."""
        with self.lock:
            if self._typed_at.wants_more:
                typed = self._console.read()
                if typed:
                    self._typed_at.type(typed)
            if self._console.escaped:
                self.end("destroyed by its user", STATUS_OF_ESCAPE)
            for transport in self.transports:
                transport.poll()

    def terminal_resized(self) -> None:
        """The user's terminal may have another size now."""
        with self.lock:
            for transport in self.transports:
                if isinstance(transport.device, VirtioConsole) and transport.device.resized():
                    transport.configuration_changed()

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to `poll` for."""
        typed = self._console.descriptors() if self._typed_at.wants_more else []
        return typed + [fd for transport in self.transports for fd in transport.device.descriptors()]

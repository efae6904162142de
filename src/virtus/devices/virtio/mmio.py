"""The memory-mapped transport (virtio 1.2, 4.2): a page of registers for each device."""

from collections.abc import Callable
from typing import Any, Final

from virtus.devices.virtio.device import EVENT_INDEX, Device
from virtus.devices.virtio.queue import MOST, BadRing

SIZE: Final = 0x1000
MAGIC: Final = 0x74726976  # "virt"
VERSION: Final = 2
VENDOR: Final = 0x53545256
# 4.2.2, offsets of the registers
(MAGIC_VALUE, VERSION_AT, DEVICE_ID, VENDOR_ID, DEVICE_FEATURES, DEVICE_FEATURES_SELECT, DRIVER_FEATURES,
 DRIVER_FEATURES_SELECT, QUEUE_SELECT, QUEUE_SIZE_MOST, QUEUE_SIZE, QUEUE_READY, QUEUE_NOTIFY, INTERRUPT_STATUS,
 INTERRUPT_ACKNOWLEDGE, STATUS, DESCRIPTORS_LOW, DESCRIPTORS_HIGH, DRIVER_LOW, DRIVER_HIGH, DEVICE_LOW, DEVICE_HIGH,
 GENERATION, CONFIG) = (
    0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x84, 0x90,
    0x94, 0xA0, 0xA4, 0xFC, 0x100,
)  # fmt: skip
FEATURES_OK, DRIVER_OK, NEEDS_RESET = 8, 4, 64  # 2.1, device status
USED_BUFFER, CONFIGURATION = 1, 2  # 4.2.2.1, InterruptStatus
MASK32: Final = 0xFFFFFFFF
ADDRESSES: Final = {DESCRIPTORS_LOW: "descriptors", DRIVER_LOW: "available", DEVICE_LOW: "used"}


class Transport:
    """The registers of one device at the physical address `base`; `interrupt` is its line, raised once each time."""

    def __init__(self, device: Device, base: int, interrupt: Callable[[], None]) -> None:
        self.device, self.base, self._interrupt = device, base, interrupt
        self._reset()

    def _reset(self) -> None:
        self.device.reset()
        self._status = self._interrupts = self._generation = 0
        self._queue = self._device_half = self._driver_half = 0

    def save(self) -> dict[str, Any]:
        """Everything the driver has set."""
        return {
            "registers": [self._status, self._interrupts, self._queue, self._device_half, self._driver_half],
            "accepted": self.device.accepted,
            "queues": [queue.save() for queue in self.device.queues],
            "broken": self.device.broken,
            "own": self.device.save(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """What `save` gave; raises BadRing, KeyError, TypeError or ValueError."""
        registers = [int(one) & MASK32 for one in saved["registers"]]
        self._status, self._interrupts, self._queue, self._device_half, self._driver_half = registers
        self.device.accepted, self.device.broken = int(saved["accepted"]), str(saved["broken"])
        for queue, known in zip(self.device.queues, saved["queues"], strict=True):
            queue.load([int(one) for one in known])
            queue.event_index = bool(self.device.accepted & EVENT_INDEX)
        self.device.load(saved["own"])

    def read(self, offset: int, size: int) -> int:
        """What the driver reads."""
        if offset >= CONFIG:
            config = self.device.config()[offset - CONFIG : offset - CONFIG + size]
            return int.from_bytes(config.ljust(size, b"\0"), "little")
        queues = self.device.queues
        queue = queues[self._queue] if self._queue < len(queues) else None
        if offset == DEVICE_FEATURES:
            return self.device.features >> 32 * self._device_half & MASK32 if self._device_half < 2 else 0
        if offset == STATUS:
            return self._status | (NEEDS_RESET if self.device.broken else 0)
        return {
            MAGIC_VALUE: MAGIC, VERSION_AT: VERSION, DEVICE_ID: self.device.kind, VENDOR_ID: VENDOR,
            QUEUE_SIZE_MOST: MOST if queue is not None else 0,
            QUEUE_READY: int(queue is not None and queue.ready),
            INTERRUPT_STATUS: self._interrupts, GENERATION: self._generation,
        }.get(offset, 0)  # fmt: skip

    def write(self, offset: int, size: int, value: int) -> None:
        """What the driver writes. What makes no sense breaks the device, until it is reset."""
        if offset >= CONFIG:
            self.device.configure(offset - CONFIG, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
        elif offset == QUEUE_NOTIFY:
            self.notified(value)
        elif offset == INTERRUPT_ACKNOWLEDGE:
            self._interrupts &= ~value
        elif offset == STATUS:
            self._set_status(value)
        elif offset == DEVICE_FEATURES_SELECT:
            self._device_half = value
        elif offset == DRIVER_FEATURES_SELECT:
            self._driver_half = value
        elif offset == DRIVER_FEATURES and self._driver_half < 2:
            shift = 32 * self._driver_half
            self.device.accepted = self.device.accepted & ~(MASK32 << shift) | (value & MASK32) << shift
        elif offset == QUEUE_SELECT:
            self._queue = value
        elif self._queue < len(self.device.queues):
            self._set_queue(offset, value)

    def _set_status(self, value: int) -> None:
        if not value:
            self._reset()
            return
        if value & FEATURES_OK and self.device.accepted & ~self.device.features:
            value &= ~FEATURES_OK
        self._status = value & 0xFF & ~NEEDS_RESET

    def _set_queue(self, offset: int, value: int) -> None:
        queue = self.device.queues[self._queue]
        if offset == QUEUE_READY:
            if not value:
                queue.reset()
                return
            queue.event_index = bool(self.device.accepted & EVENT_INDEX)
            try:
                queue.start()
            except BadRing as error:
                self.device.broken = str(error)
                self.raise_interrupt(CONFIGURATION)
        elif queue.ready:
            return
        elif offset == QUEUE_SIZE:
            queue.size = value
        elif offset & ~4 in ADDRESSES:
            name, high = ADDRESSES[offset & ~4], offset & 4
            old = getattr(queue, name)
            setattr(queue, name, old & MASK32 | value << 32 if high else old & ~MASK32 | value)

    def notified(self, number: int) -> None:
        """A queue has something for the device."""
        if self.device.notified(number):
            self.raise_interrupt()

    def poll(self) -> None:
        """Something may have come from outside."""
        if self._status & DRIVER_OK and self.device.poll():
            self.raise_interrupt()

    def raise_interrupt(self, why: int = USED_BUFFER) -> None:
        """Tell the driver."""
        self._interrupts |= CONFIGURATION if self.device.broken else why
        self._interrupt()

    def configuration_changed(self) -> None:
        """Tell the driver to read the configuration again."""
        self._generation = self._generation + 1 & MASK32
        self.raise_interrupt(CONFIGURATION)

"""What all virtio devices have in common: features, a configuration, queues, and what happens when they fail."""

from collections.abc import Mapping
from typing import Any, Final

from virtus.devices.virtio.exclusion import DeviceMemory
from virtus.devices.virtio.queue import BadRing, Queue
from virtus.memory.guest_memory import GuestMemory

VERSION_1: Final = 1 << 32  # VIRTIO_F_VERSION_1: not a legacy device
EVENT_INDEX: Final = 1 << 29  # VIRTIO_F_EVENT_IDX


class Device:
    """One device. A subclass sets `kind` and `features`, and serves its queues."""

    kind = 0  # virtio 1.2, 5
    name = ""
    queue_count = 1

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = DeviceMemory(memory)
        self.queues = [Queue(self.memory) for _ in range(self.queue_count)]
        self.features = VERSION_1 | EVENT_INDEX
        self.accepted = 0
        self.broken = ""  # why it needs a reset
        self.failures = set[str]()  # of requests, for the user; a few different ones
        self.requests = self.bytes = 0

    def config(self) -> bytes:
        """The device's own configuration."""
        return b""

    def configure(self, offset: int, value: bytes) -> None:
        """The driver writes into it. Ignored unless a device has something there."""

    def reset(self) -> None:
        """As after power-on."""
        for queue in self.queues:
            queue.reset()
        self.accepted, self.broken = 0, ""

    def notified(self, number: int) -> bool:
        """The driver says that a queue has something; whether to interrupt it."""
        if self.broken or number >= len(self.queues) or not self.queues[number].ready:
            return False
        try:
            return self.serve(number) and self.queues[number].wants_interrupt()
        except BadRing as error:
            self.broken = str(error)
            return True

    def serve(self, number: int) -> bool:
        """Serve what waits in a queue; whether something was used up. Raises BadRing."""
        raise NotImplementedError

    # what comes from outside

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to `poll` for."""
        return []

    def poll(self) -> bool:
        """Serve what comes from outside; whether to interrupt the driver."""
        return False

    # what a saved machine keeps beside registers and queues

    def save(self) -> dict[str, Any]:
        """What the device itself knows, as plain data."""
        return {}

    def load(self, saved: Mapping[str, Any]) -> None:
        """What `save` gave; raises KeyError, TypeError or ValueError."""

    def flush(self) -> None:
        """What was acknowledged survives the end of this process."""

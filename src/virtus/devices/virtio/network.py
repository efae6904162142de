"""A network card (virtio 1.2, 5.1), plugged into a link; check sums and segmenting go through it as they are."""

import struct
from collections.abc import Mapping
from typing import Any, Final

from virtus.devices import offload
from virtus.devices.network import MOST_FRAME, Link
from virtus.devices.virtio.device import Device
from virtus.devices.virtio.queue import BadRing, Chain
from virtus.memory.guest_memory import GuestMemory

# VIRTIO_NET_F_*: what the device takes from the driver (CSUM, HOST_*), and what it may hand to it (GUEST_*)
CHECKSUM, GUEST_CHECKSUM, ADDRESS = 1 << 0, 1 << 1, 1 << 5
GUEST_TCP4, GUEST_TCP6, HOST_TCP4, HOST_TCP6 = 1 << 7, 1 << 8, 1 << 11, 1 << 12
MERGEABLE: Final = 1 << 15
RECEIVE, SEND = 0, 1
HEADER: Final = offload.HEADER.size + 2  # with the number of buffers (5.1.6)
MOST_AT_ONCE: Final = 64
ADDRESS_BYTES: Final = 6


class Network(Device):
    """A card with this Ethernet address."""

    kind, name, queue_count = 1, "network", 2

    def __init__(self, memory: GuestMemory, link: Link, address: bytes) -> None:
        super().__init__(memory)
        self._link, self._address = link, address
        self._waiting: tuple[bytes, bytes] | None = None
        self.dropped = 0
        self.features |= CHECKSUM | GUEST_CHECKSUM | ADDRESS | MERGEABLE
        self.features |= GUEST_TCP4 | GUEST_TCP6 | HOST_TCP4 | HOST_TCP6

    def config(self) -> bytes:
        """See Device."""
        return self._address.ljust(12, b"\0")

    def reset(self) -> None:
        """See Device."""
        super().reset()
        self._waiting = None

    def save(self) -> dict[str, Any]:
        """See Device: a card that goes on elsewhere is the same card."""
        return {"address": self._address.hex()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """See Device."""
        self._address = bytes.fromhex(saved["address"])
        if len(self._address) != ADDRESS_BYTES:
            raise ValueError("an Ethernet address of other than six bytes")

    def serve(self, number: int) -> bool:
        """See Device."""
        if number == RECEIVE:
            return self._receive()
        queue, served = self.queues[SEND], False
        for chain in queue:
            data = chain.read()
            if HEADER < len(data) <= HEADER + MOST_FRAME:
                self.requests += 1
                self.bytes += len(data) - HEADER
                if not self._link.send_unfinished(data[: offload.HEADER.size], memoryview(data)[HEADER:]):
                    self.dropped += 1
            queue.give(chain, 0)
            served = True
        return served

    def descriptors(self) -> list[int]:
        """See Device."""
        return [self._link.fileno()] if self._waiting is None else []

    def poll(self) -> bool:
        """See Device."""
        queue = self.queues[RECEIVE]
        if not queue.ready or self.broken:
            return False
        try:
            return self._receive() and queue.wants_interrupt()
        except BadRing as error:
            self.broken = str(error)
            return True

    def _receive(self) -> bool:
        """Hand over what has come, as far as there is room; whether anything was."""
        given = False
        for _ in range(MOST_AT_ONCE):
            if self._waiting is None:
                self._waiting = self._next()
            if self._waiting is None or not self._give(*self._waiting):
                break
            self._waiting, given = None, True
        return given

    def _next(self) -> tuple[bytes, bytes] | None:
        if self.accepted & (GUEST_CHECKSUM | GUEST_TCP4 | GUEST_TCP6) == GUEST_CHECKSUM | GUEST_TCP4 | GUEST_TCP6:
            return self._link.receive_unfinished()
        whole = self._link.receive()
        return None if whole is None else (offload.NOTHING, whole)

    def _give(self, header: bytes, frame: bytes) -> bool:
        """Put a frame into as many buffers as it needs; False where there are too few."""
        queue = self.queues[RECEIVE]
        size, room = HEADER + len(frame), 0
        chains: list[Chain] = []
        while room < size:
            chain = queue.take()
            if chain is None or (chains and not self.accepted & MERGEABLE):
                for _ in range(len(chains) + (chain is not None)):
                    queue.put_back()
                if chain is not None:  # one buffer is too small, and must be enough: the frame is lost
                    self.dropped += 1
                return chain is not None
            chains.append(chain)
            room += sum(map(len, chain.writable))
            if len(chains) > queue.size:
                raise BadRing("buffers without room")
        data = header + struct.pack("<H", len(chains)) + frame
        done = 0
        for chain in chains:
            count = chain.write(memoryview(data)[done:])
            queue.give(chain, count)
            done += count
        self.requests += 1
        self.bytes += len(frame)
        return True

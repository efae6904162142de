"""A console (virtio 1.2, 5.3): one port, what is written comes in pieces and not byte by byte."""

import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from virtus.devices.virtio.device import Device
from virtus.devices.virtio.queue import BadRing
from virtus.memory.guest_memory import GuestMemory

SIZE: Final = 1 << 0  # VIRTIO_CONSOLE_F_SIZE
RECEIVE, SEND = 0, 1
MOST_TYPED: Final = 4096
MOST_SHOWN: Final = 1 << 16
"""Bytes of one request that are shown; the rest is dropped."""


class VirtioConsole(Device):
    """What is sent goes to `show`; `size` says how many columns and rows its terminal has, (0, 0) for none."""

    kind, name, queue_count = 3, "console", 2

    def __init__(self, memory: GuestMemory, show: Callable[[bytes], None], size: Callable[[], tuple[int, int]]) -> None:
        super().__init__(memory)
        self._show, self._measure = show, size
        self._typed: deque[bytes] = deque()
        self._waiting = 0
        self.size = size()
        if self.size != (0, 0):
            self.features |= SIZE

    def config(self) -> bytes:
        """See Device: columns, rows, most ports (not offered)."""
        return struct.pack("<HHI", *self.size, 1).ljust(16, b"\0")

    def resized(self) -> bool:
        """Whether its terminal has another size than before."""
        before, self.size = self.size, self._measure()
        return bool(self.features & SIZE) and before != self.size

    @property
    def wants_more(self) -> bool:
        """Whether there is room for what is typed."""
        return self._waiting < MOST_TYPED

    def type(self, data: bytes) -> None:
        """Somebody types. It is handed over by `poll`."""
        self._typed.append(data)
        self._waiting += len(data)

    def serve(self, number: int) -> bool:
        """See Device."""
        if number == RECEIVE:
            return self._give()
        queue, served = self.queues[SEND], False
        for chain in queue:
            self.requests += 1
            for piece in chain.readable:
                shown = bytes(piece[:MOST_SHOWN])
                self._show(shown)
                self.bytes += len(shown)
            queue.give(chain, 0)
            served = True
        return served

    def poll(self) -> bool:
        """See Device."""
        if self.broken or not self._typed:
            return False
        try:
            return self._give() and self.queues[RECEIVE].wants_interrupt()
        except BadRing as error:
            self.broken = str(error)
            return True

    def save(self) -> dict[str, Any]:
        """See Device."""
        return {"typed": b"".join(self._typed).hex()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """See Device."""
        self.type(bytes.fromhex(saved["typed"]))

    def _give(self) -> bool:
        """Hand over what was typed, as far as there is room; whether anything was."""
        queue, given = self.queues[RECEIVE], False
        while self._typed and (chain := queue.take()) is not None:
            data = self._typed.popleft()
            done = chain.write(data)
            queue.give(chain, done)
            self._waiting -= done
            if done < len(data) and done:
                self._typed.appendleft(data[done:])
            elif not done:
                self._waiting -= len(data)  # a buffer without room: what was typed is lost
            given = True
        return given

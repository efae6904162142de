"""Random bytes from the host (virtio 1.2, 5.4)."""

import os

from virtus.devices.virtio.device import Device

MOST_AT_ONCE = 1 << 16


class Entropy(Device):
    """The host's random numbers."""

    kind, name = 4, "entropy"

    def serve(self, number: int) -> bool:
        """See Device."""
        queue, served = self.queues[number], False
        for chain in queue:
            wanted = min(sum(map(len, chain.writable)), MOST_AT_ONCE)
            queue.give(chain, chain.write(os.urandom(wanted)))
            self.requests += 1
            self.bytes += wanted
            served = True
        return served

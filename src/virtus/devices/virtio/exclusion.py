"""A device's view of memory: which frames it may reach, as AMD's Device Exclusion Vector has it (APM volume 2, 15.24).

Every device reads and writes guest memory through a view of its own; what is not allowed fails, is counted, and does
not touch memory. Besides what is excluded for one device, `Exclusions` are those of a machine: what is not its memory,
what its balloon has taken, and the rings of the other devices.
"""

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory

EXCLUDED, HAS_RINGS = 1, 2  # of a frame


class Excluded(Exception):
    """A device was told to use memory that it may not."""


class Exclusions:
    """What no device of a machine may reach, and the rings, each of which only its own device may."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.frames = bytearray(memory.frames)
        self._rings: dict[object, tuple[DeviceMemory, list[tuple[int, int]]]] = {}

    def exclude(self, start: int, size: int) -> None:
        """No device may reach the frames that lie wholly within this range of physical addresses, which is memory."""
        first, end = -(-self._memory.place(start, size) // PAGE), self._memory.place(start, size) + size >> FRAME_SHIFT
        for frame in range(first, end):
            self.frames[frame] |= EXCLUDED

    def admit(self, start: int, size: int) -> None:
        """Devices may reach these frames again."""
        first = self._memory.place(start, size) >> FRAME_SHIFT
        for frame in range(first, first + (size >> FRAME_SHIFT)):
            self.frames[frame] &= ~EXCLUDED

    def claim(self, owner: "DeviceMemory", queue: object, place: int, size: int) -> None:
        """From here on these bytes are a ring of a queue of the owner's."""
        self._rings.setdefault(queue, (owner, []))[1].append((place, place + size))
        self._mark(place, place + size)

    def release(self, queue: object) -> None:
        """A queue has no rings any more."""
        _, gone = self._rings.pop(queue, (None, []))
        for start, end in gone:
            for frame in range(start >> FRAME_SHIFT, -(-end // PAGE)):
                self.frames[frame] &= ~HAS_RINGS
        if gone:
            for _, rings in self._rings.values():
                for start, end in rings:
                    self._mark(start, end)

    def _mark(self, start: int, end: int) -> None:
        for frame in range(start >> FRAME_SHIFT, -(-end // PAGE)):
            self.frames[frame] |= HAS_RINGS

    def refuses(self, owner: "DeviceMemory", place: int, size: int) -> bool:
        """Whether the owner may not reach all of these bytes. Called where some frame is marked."""
        first, last = place >> FRAME_SHIFT, place + size - 1 >> FRAME_SHIFT
        if any(byte & EXCLUDED for byte in self.frames[first : last + 1]):
            return True
        others = (ring for device, rings in self._rings.values() if device is not owner for ring in rings)
        return any(place < end and start < place + size for start, end in others)


class DeviceMemory:
    """One device's view. In the beginning it may reach all memory."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self._bytes = memory.bytes
        self._excluded = bytearray(memory.frames)
        self._restricted = False
        self.shared = Exclusions(memory)
        self.violations = 0

    def exclude(self, first: int, count: int = 1) -> None:
        """These frames are not the device's; frames beyond the memory never are."""
        self._set(first, count, 1)

    def admit(self, first: int, count: int = 1) -> None:
        """These frames are the device's again."""
        self._set(first, count, 0)

    def _set(self, first: int, count: int, excluded: int) -> None:
        end = min(first + count, len(self._excluded))
        for frame in range(max(first, 0), end):
            self._excluded[frame] = excluded
        self._restricted = any(self._excluded)

    def view(self, address: int, size: int) -> memoryview:
        """`size` bytes of memory at a guest physical address; raises Excluded."""
        place = self._place(address, size)
        return self._bytes[place : place + size]

    def ring(self, address: int, size: int, queue: object) -> memoryview:
        """The same for a part of a queue: from here on no other device may reach it, until `release_rings`."""
        place = self._place(address, size)
        self.shared.claim(self, queue, place, size)
        return self._bytes[place : place + size]

    def release_rings(self, queue: object) -> None:
        """The queue is not in use any more."""
        self.shared.release(queue)

    def _place(self, address: int, size: int) -> int:
        try:
            place = self._memory.place(address, size)
        except IndexError:
            self.violations += 1
            raise Excluded(f"{size} bytes at {address:#x}, beyond memory") from None
        if size:
            first, last = place >> FRAME_SHIFT, place + size - 1 >> FRAME_SHIFT
            refused = self._restricted and any(self._excluded[first : last + 1])
            if refused or (any(self.shared.frames[first : last + 1]) and self.shared.refuses(self, place, size)):
                self.violations += 1
                raise Excluded(f"{size} bytes at {address:#x}, which are not the device's")
        return place

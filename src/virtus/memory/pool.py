"""Page frames to be given out, in order: what a hypervisor keeps for itself of a machine's memory."""


class FramePool:
    """The frames from `first` up to `end`; what is taken is never given back."""

    def __init__(self, first: int, end: int) -> None:
        self.first, self.end, self._next = first, end, first

    def take(self, count: int = 1) -> int:
        """The first of `count` adjoining frames; raises MemoryError when there are not so many."""
        taken = self._next
        if taken + count > self.end:
            raise MemoryError(f"the hypervisor's {self.end - self.first} frames are used up")
        self._next += count
        return taken

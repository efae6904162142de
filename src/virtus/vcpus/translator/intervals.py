"""A set of addresses kept as intervals: which parts of a guest's memory may be executed."""

from bisect import bisect_left, bisect_right


class Intervals:
    """Half-open intervals of integers, disjoint and sorted."""

    def __init__(self) -> None:
        self._bounds: list[int] = []  # start, end, start, end ...

    def add(self, start: int, end: int) -> None:
        """From now on [start, end) is in the set."""
        self._replace(start, end, inside=True)

    def remove(self, start: int, end: int) -> None:
        """From now on [start, end) is not in the set."""
        self._replace(start, end, inside=False)

    def _replace(self, start: int, end: int, *, inside: bool) -> None:
        if start >= end:
            return
        bounds = self._bounds
        low, high = bisect_left(bounds, start), bisect_right(bounds, end)
        middle = []
        if low % 2 != inside:  # outside before and inside from here on, or the other way round
            middle.append(start)
        if high % 2 != inside:
            middle.append(end)
        bounds[low:high] = middle

    def __contains__(self, value: int) -> bool:
        return bisect_right(self._bounds, value) % 2 == 1

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any of [start, end) is in the set."""
        return start < end and (start in self or bisect_right(self._bounds, start) < bisect_left(self._bounds, end))

    def pieces(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of [start, end) is in the set."""
        bounds = self._bounds
        found = []
        for at in range((bisect_right(bounds, start) - 1) & ~1, len(bounds), 2):
            if at < 0:
                continue
            if bounds[at] >= end:
                break
            low, high = max(bounds[at], start), min(bounds[at + 1], end)
            if low < high:
                found.append((low, high))
        return found

    def copy(self) -> "Intervals":
        """A set of its own with the same members."""
        other = Intervals()
        other._bounds = self._bounds.copy()
        return other

"""What the quick translator has made for an executable mapping, in one piece, to be kept on disk for the next time.

Most of a short program's time is its translation. Code of `baseline` can stand anywhere but for one thing, the distance
from each entry to its counter, which is set where the code is placed. An image becomes one `Translation`: one piece of
code, one look whether the guest's code is what it was made from.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, overload

from virtus.records import dataclass
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline import COUNTER_AT, COUNTER_FROM
from virtus.vcpus.translator.region import COUNTER_BYTES, Region, counter_number
from virtus.vcpus.translator.space import Translation

LARGEST: Final = 32 << 20
"""Bytes of code in one image."""
_ALIGNMENT: Final = 16
_HEAD: Final = struct.Struct("<6I")  # entries, instructions, covers, bytes of their code, jumps, bytes of the blob
_I32: Final = struct.Struct("<i")


class Places(Sequence[tuple[int, int]]):
    """Offset and guest address of instructions, sorted, without an object for each."""

    def __init__(self, offsets: Sequence[int], addresses: Sequence[int]) -> None:
        self.offsets, self.addresses = offsets, addresses

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return list(zip(self.offsets[index], self.addresses[index], strict=True))
        return self.offsets[index], self.addresses[index]


@dataclass(frozen=True, slots=True)
class QuickImage:
    """Code for an executable mapping. Places count from the blob's begin; counters come when it is placed."""

    blob: bytes
    entries: Sequence[int]  # guest addresses of blocks
    offsets: Sequence[int]  # their places
    instructions: Places
    covers: tuple[tuple[int, int], ...]  # guest addresses, disjoint and sorted
    code: tuple[bytes, ...]  # what stood there
    jumps: tuple[tuple[int, int], ...]  # computed jumps, and where they have led

    def pack(self) -> bytes:
        """As a file has it."""
        places = self.instructions
        code = b"".join(self.code)
        numbers = len(self.entries), len(places), len(self.covers), len(code), len(self.jumps), len(self.blob)
        words = [*self.entries, *places.addresses, *_flat(self.covers), *_flat(self.jumps)]
        halves = [*self.offsets, *places.offsets]
        return b"".join(
            (_HEAD.pack(*numbers), struct.pack(f"<{len(words)}Q{len(halves)}I", *words, *halves), code, self.blob)
        )

    def joined(self, other: "QuickImage") -> "QuickImage":
        """With what another has besides; of code that both have, this one's."""
        known = set(self.entries)
        if not known.isdisjoint(other.entries):
            return self  # made at the same time by two runs: one of them is enough
        base = len(self.blob) + -len(self.blob) % _ALIGNMENT
        mine, theirs = self.instructions, other.instructions
        both = sorted(zip([*self.covers, *other.covers], [*self.code, *other.code], strict=True))
        covers, code = _merged(both)
        return QuickImage(
            self.blob + bytes(base - len(self.blob)) + other.blob,
            [*self.entries, *other.entries],
            [*self.offsets, *(base + offset for offset in other.offsets)],
            Places([*mine.offsets, *(base + at for at in theirs.offsets)], [*mine.addresses, *theirs.addresses]),
            covers,
            code,
            tuple({*self.jumps, *other.jumps}),
        )

    def place(self, region: Region, first_count: int) -> Translation | None:
        """Put it into the region; its counters start at `first_count`. None where there is no room."""
        first = region.counters(len(self.entries), first_count) if len(self.blob) < region.room else None
        if first is None:
            return None
        start = region.place
        counters = [first + counter_number(number) for number in range(len(self.entries))]
        blob = bytearray(self.blob)
        for offset, counter in zip(self.offsets, counters, strict=True):
            distance = layout.COUNTERS + COUNTER_BYTES * counter - (start + offset + COUNTER_FROM)
            _I32.pack_into(blob, offset + COUNTER_AT, distance)
        region.put(bytes(blob))
        return Translation(
            entries=dict(zip(self.entries, [start + offset for offset in self.offsets], strict=True)),
            covers=list(self.covers),
            code=list(self.code),
            kept=True,
            start=start,
            end=start + len(blob),
            instructions=self.instructions,
            counters=dict(zip(self.entries, counters, strict=True)),
        )


def unpack(data: bytes) -> QuickImage:
    """What `pack` made; raises ValueError for what cannot be."""
    if len(data) < _HEAD.size:
        raise ValueError("no image of quick code")
    entries, instructions, covers, code_bytes, jumps, blob_bytes = _HEAD.unpack_from(data)
    words, halves = entries + instructions + 2 * covers + 2 * jumps, entries + instructions
    sizes = (8 * words, 4 * halves, code_bytes, blob_bytes)
    if _HEAD.size + sum(sizes) != len(data):
        raise ValueError("an image of quick code of another length")
    view, at, parts = memoryview(data), _HEAD.size, []
    for size in sizes:
        parts.append(view[at : at + size])
        at += size
    wide, narrow = bytes(parts[0]), bytes(parts[1])  # aligned, as `cast` wants them
    numbers, offsets = memoryview(wide).cast("Q"), memoryview(narrow).cast("I")
    pairs = numbers[entries + instructions :].tolist()
    ranges = tuple(zip(pairs[: 2 * covers : 2], pairs[1 : 2 * covers : 2], strict=True))
    leads = tuple(zip(pairs[2 * covers :: 2], pairs[2 * covers + 1 :: 2], strict=True))
    places = offsets[:entries].tolist()
    if any(place + COUNTER_FROM > blob_bytes for place in places):
        raise ValueError("an image of quick code with an entry beyond its end")
    return QuickImage(
        bytes(parts[3]),
        numbers[:entries].tolist(),
        places,
        Places(offsets[entries:], numbers[entries : entries + instructions]),
        ranges,
        tuple(_cut(bytes(parts[2]), ranges)),
        leads,
    )


def collect(units: Iterable[Translation], region: Region, jumps: Iterable[tuple[int, int]]) -> QuickImage:
    """Translations that have just been made, as one image; of several for the same address the first. `jumps` are those
    that have been seen in it since."""
    blob = bytearray()
    entries: dict[int, int] = {}
    offsets: list[int] = []
    addresses: list[int] = []
    ranges: list[tuple[tuple[int, int], bytes]] = []
    for unit in units:
        if not entries.keys().isdisjoint(unit.entries):
            continue
        blob += bytes(-len(blob) % _ALIGNMENT)
        base = len(blob)
        blob += region.code(unit.start, unit.end)
        entries.update((pc, base + address - unit.start) for pc, address in unit.entries.items())
        offsets += [base + offset for offset, _ in unit.instructions]
        addresses += [pc for _, pc in unit.instructions]
        ranges += zip(unit.covers, unit.code, strict=True)
    covers, code = _merged(sorted(ranges))
    return QuickImage(
        bytes(blob),
        list(entries),
        list(entries.values()),
        Places(offsets, addresses),
        covers,
        code,
        tuple(jumps),
    )


def _merged(ranges: Iterable[tuple[tuple[int, int], bytes]]) -> tuple[tuple[tuple[int, int], ...], tuple[bytes, ...]]:
    """Sorted ranges with their code, those that touch or overlap in one."""
    covers: list[tuple[int, int]] = []
    code: list[bytearray] = []
    for (low, high), data in ranges:
        if covers and low <= covers[-1][1]:
            start, end = covers[-1]
            if high > end:
                code[-1] += data[end - low :]
                covers[-1] = start, high
        else:
            covers.append((low, high))
            code.append(bytearray(data))
    return tuple(covers), tuple(map(bytes, code))


def _cut(code: bytes, ranges: Iterable[tuple[int, int]]) -> Iterator[bytes]:
    at = 0
    for low, high in ranges:
        if not low < high <= low + len(code) - at:
            raise ValueError("an image of quick code with ranges of other lengths")
        yield code[at : at + high - low]
        at += high - low
    if at != len(code):
        raise ValueError("an image of quick code with code of no range")


def _flat(pairs: Iterable[tuple[int, int]]) -> list[int]:
    return [number for pair in pairs for number in pair]

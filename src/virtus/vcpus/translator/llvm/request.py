"""What the translator asks of its background process, and what it gets: plain data that crosses a socket."""

from virtus.records import dataclass, field
from virtus.vcpus.translator.quick_image import QuickImage

VERSION = 4
"""Counts up with every change of what optimised code looks like or expects: kept translations are for one version."""


@dataclass(frozen=True, slots=True)
class Request:
    """Optimise the guest code at `entry`. `code` has the guest code around it: (address, bytes), sorted.

    `jumps` are computed jumps in it, by address, and where they have been seen to lead. `precise`: registers must be
    exact at every memory access. `image` names the executable mapping for the cache, "" for code not to be kept.
    `whole`: it is the entry of a function, to be made in any case.
    """

    number: int
    isa: str
    entry: int
    code: tuple[tuple[int, bytes], ...]
    jumps: tuple[tuple[int, tuple[int, ...]], ...] = ()
    precise: bool = False
    image: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Urge:
    """A request is still waited for: what it is about runs on and on."""

    number: int


@dataclass(frozen=True, slots=True)
class QuickCode:
    """What the quick translator has made for an executable mapping, to be kept."""

    image: str
    code: QuickImage


@dataclass(frozen=True, slots=True)
class Optimised:
    """Position-independent code; `entries` has offsets by guest address, `covers` the guest code it was made from."""

    blob: bytes
    entries: dict[int, int]
    covers: tuple[tuple[int, int], ...]
    code: tuple[bytes, ...]
    precise: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a request; `error` says why there is no translation. Neither: there is nothing new."""

    number: int
    optimised: Optimised | None = None
    error: str = ""
    seconds: float = 0.0
    instructions: int = field(default=0)

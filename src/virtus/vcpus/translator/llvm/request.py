"""What the translator asks of its background process, and what it gets: plain data that crosses a socket.

It crosses as `marshal` has it: both ends are the same program, and pickle takes longer to import than a guest to begin.
"""

import marshal
from typing import Any, Final

from virtus.records import dataclass, field
from virtus.vcpus.translator import quick_image
from virtus.vcpus.translator.quick_image import QuickImage

VERSION = 9
"""Counts up with every change of what optimised code looks like or expects: kept translations are for one version."""


@dataclass(frozen=True, slots=True)
class Request:
    """Optimise the guest code at `entry`. `code` has the guest code around it: (address, bytes), sorted.

    `jumps` are computed jumps in it, by address, and where they have been seen to lead. `precise`: registers must be
    exact at every memory access. `image` names the executable mapping for the cache, "" for code not to be kept.
    `whole`: it is the entry of a function, to be made in any case. `covered`: a former run's code contains the entry.
    """

    number: int
    isa: str
    entry: int
    code: tuple[tuple[int, bytes], ...]
    jumps: tuple[tuple[int, tuple[int, ...]], ...] = ()
    precise: bool = False
    image: str = ""
    whole: bool = False
    covered: bool = False


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
class Farewell:
    """The guest has come to its end."""


@dataclass(frozen=True, slots=True)
class Optimised:
    """Position-independent code; `entries` has offsets by guest address, `covers` the guest code it was made from.
    `fast` has those of the entries that take registers along (`convention`)."""

    blob: bytes
    entries: dict[int, int]
    covers: tuple[tuple[int, int], ...]
    code: tuple[bytes, ...]
    precise: bool = False
    fast: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a request; `error` says why there is no translation. Neither: there is nothing new."""

    number: int
    optimised: Optimised | None = None
    error: str = ""
    seconds: float = 0.0
    instructions: int = field(default=0)


Message = Request | Urge | QuickCode | Farewell | Result
_KINDS: Final[tuple[type[Message], ...]] = (Request, Urge, QuickCode, Farewell, Result)


def encoded(message: Message) -> bytes:
    """A message as it crosses the socket."""
    values = [getattr(message, name) for name in message.__slots__]
    if isinstance(message, QuickCode):
        values[-1] = message.code.pack()
    elif isinstance(message, Result) and message.optimised is not None:
        made = message.optimised
        values[1] = [getattr(made, name) for name in made.__slots__]
    return marshal.dumps((_KINDS.index(type(message)), values))


def decoded(data: bytes) -> Any:
    """The message again."""
    number, values = marshal.loads(data)
    kind = _KINDS[number]
    if kind is QuickCode:
        values[-1] = quick_image.unpack(values[-1])
    elif kind is Result and values[1] is not None:
        values[1] = Optimised(*values[1])
    return kind(*values)

"""The one table of Linux system calls: it dispatches, and it is the documentation.

A handler registers itself with `@call`; its annotated parameters say how each register is to be understood, and a
small entry function is generated from them once, so that a call costs no interpretation. `refuse` and `absent` put
calls into the table that the kernel answers with an error on purpose.
"""

from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from typing import Annotated, Any, TypeVar

from virtus.records import dataclass

Int = Annotated[int, "int"]
"""A C `int`: the low 32 bits of the register, signed."""
Uint = Annotated[int, "unsigned"]
"""A C `unsigned int`: the low 32 bits."""
Long = Annotated[int, "long"]
"""A C `long`, `ssize_t` or `off_t`: 64 bits, signed."""
Word = Annotated[int, "word"]
"""An address, `size_t` or `unsigned long`: 64 bits, unsigned."""

_UNDERSTOOD = {
    "int": "((r[{i}] & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000",
    "unsigned": "r[{i}] & 0xFFFFFFFF",
    "long": "(r[{i}] ^ 0x8000000000000000) - 0x8000000000000000",
    "word": "r[{i}]",
}


class Support(Enum):
    """How much of a call works in a kernel of ours."""

    FULL = "supported"
    PARTIAL = "partial"
    REFUSED = "refused"


@cache
def _binder(kinds: tuple[str, ...], registers: tuple[int, ...]) -> Callable[[Callable[..., Any]], Any]:
    """Makes entry functions of handlers that take arguments of these kinds: compiled once for all of them."""
    arguments = "".join(", " + _UNDERSTOOD[kind].format(i=registers[at]) for at, kind in enumerate(kinds))
    scope: dict[str, Any] = {}
    exec(f"def bound(handler):\n def entry(task, r):\n  return handler(task{arguments})\n return entry", scope)
    made: Callable[[Callable[..., Any]], Any] = scope["bound"]
    return made


@dataclass(frozen=True, slots=True)
class Entry:
    """One system call: the handler takes the task and the arguments; what is missing stands in `note`."""

    name: str
    handler: Callable[..., Any]
    kinds: tuple[str, ...]
    support: Support
    note: str

    def bind(self, registers: tuple[int, ...]) -> Callable[[Any, Any], Any]:
        """An entry function `(task, registers)` that takes the arguments from these register numbers."""
        entry: Callable[[Any, Any], Any] = _binder(self.kinds, registers)(self.handler)
        return entry


_F = TypeVar("_F", bound=Callable[..., Any])

TABLE: dict[str, Entry] = {}


def call(name: str, *, note: str = "") -> Callable[[_F], _F]:
    """Register a handler `(task, ...)` for the system call `name`. A note says what is missing: partial support.

    A handler returns the call's result as an int, raises OSError for an error of the call, or returns a generator
    (see `blocking`) where it may have to wait.
    """

    def register(handler: _F) -> _F:
        code = handler.__code__
        names = code.co_varnames[1 : code.co_argcount]
        kinds = tuple(handler.__annotations__[name].__metadata__[0] for name in names)
        if name in TABLE:
            raise ValueError(f"system call {name} is in the table twice")
        TABLE[name] = Entry(name, handler, kinds, Support.PARTIAL if note else Support.FULL, note)
        return handler

    return register


def refuse(error: int, why: str, *names: str) -> None:
    """Put calls into the table that always fail with `error`; each is counted in the meter when a guest tries."""
    for name in names:

        def handler(task: Any, name: str = name) -> int:
            task.kernel.meter.note(f"{name} refused: {why}")
            return -error

        TABLE[name] = Entry(name, handler, (), Support.REFUSED, why)


def prepare(registers: tuple[int, ...]) -> None:
    """Compile now what binding the calls of the table needs."""
    for entry in TABLE.values():
        entry.bind(registers)


def rows() -> Iterator[Entry]:
    """The table in the order of names, for the documentation."""
    return iter(sorted(TABLE.values(), key=lambda entry: entry.name))

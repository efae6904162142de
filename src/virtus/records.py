"""Classes of named values, as dataclasses makes them, but whose methods are made when they are first called.

`dataclasses.dataclass` compiles five methods for every class, and imports `inspect` and all that it stands on: most of
the time that a short run spent before its guest. Here a class costs some microseconds, its `__init__` is compiled for
the first object that is made, and the other methods are shared. For type checkers (PEP 681) and for the functions of
`dataclasses` (`replace`, `asdict`, `fields`) these are data classes, with what virtus uses of their parameters.
"""

from collections.abc import Callable
from functools import partial
from operator import attrgetter
from os import PathLike
from typing import Any, Final, TypeVar, dataclass_transform, overload

StrPath = str | PathLike[str]
"""A path, as callers may give it. (Importing pathlib takes a tenth of a start: what those import does without.)"""
Class = TypeVar("Class", bound=type)
Record = TypeVar("Record")


class _Factory:
    """Says how the value of a field is made that is not given."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], object]) -> None:
        self.make = make


class _Missing:
    """Stands for no default."""


_MISSING: Final = _Missing()
_FIELDS: Final = "__record_fields__"
_uncompiled: Final[dict[type, Callable[[], None]]] = {}
"""Of classes of which no object has been made: what compiles their `__init__`."""


def field(*, default: Any = _MISSING, default_factory: Any = None) -> Any:
    """A field whose value, if it is not given, is `default`, or what `default_factory` makes for each object."""
    return default if default_factory is None else _Factory(default_factory)


def _itself(value: object) -> object:
    return value


class _AsDataclass:
    """What the functions of `dataclasses` look for: made by that module, for the few who ask."""

    def __get__(self, record: object, owner: type) -> Any:
        import dataclasses

        namespace: dict[str, Any] = {"__annotations__": dict.fromkeys(getattr(owner, _FIELDS), Any)}
        for name, default in getattr(owner, _FIELDS).items():
            if isinstance(default, _Factory):
                namespace[name] = dataclasses.field(default_factory=default.make)
            elif default is not _MISSING:
                namespace[name] = dataclasses.field(default_factory=partial(_itself, default))
        return vars(dataclasses.dataclass(type(owner.__name__, (), namespace)))["__dataclass_fields__"]


def _initializer(cls: type, fields: dict[str, Any], *, frozen: bool) -> Callable[..., None]:
    """`__init__`, compiled."""
    names: dict[str, Any] = {"_set": object.__setattr__, "_FACTORY": _MISSING}
    parameters, body = [], []
    for name, default in fields.items():
        value = name
        if isinstance(default, _Factory):
            names[f"_make_{name}"] = default.make
            parameters.append(f"{name}=_FACTORY")
            value = f"_make_{name}() if {name} is _FACTORY else {name}"
        elif default is _MISSING:
            parameters.append(name)
        else:
            names[f"_default_{name}"] = default
            parameters.append(f"{name}=_default_{name}")
        body.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    lines = "\n    ".join(body or ["pass"])
    exec(f"def __init__({', '.join(['self', *parameters])}):\n    {lines}\n", names)
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _refuse(self: object, name: str, *value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot {'assign to' if value else 'delete'} field {name!r}")


def _get_state(self: object) -> list[object]:
    return [getattr(self, name) for name in getattr(self, _FIELDS)]


def _set_state(self: object, state: list[object]) -> None:
    for name, value in zip(getattr(self, _FIELDS), state, strict=True):
        object.__setattr__(self, name, value)


def _representation(self: object) -> str:
    inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in getattr(self, _FIELDS))
    return f"{type(self).__qualname__}({inside})"


def _comparison(fields: dict[str, Any]) -> tuple[Callable[[Any, object], bool], Callable[[Any], int]]:
    """`__eq__` and `__hash__`: of the values, which attrgetter gives as a tuple where there are several."""
    values: Callable[[Any], object] = attrgetter(*fields) if fields else lambda self: ()

    def equal(self: Any, other: object) -> bool:
        return bool(values(self) == values(other)) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        found = values(self)
        return hash(found if len(fields) != 1 else (found,))

    return equal, hashed


def _made(cls: type, *, frozen: bool, slots: bool, eq: bool) -> type:
    own = cls.__annotations__
    fields: dict[str, Any] = {**getattr(cls, _FIELDS, {}), **{name: cls.__dict__.get(name, _MISSING) for name in own}}
    namespace: dict[str, Any] = {_FIELDS: fields, "__match_args__": tuple(fields)}
    namespace["__dataclass_fields__"] = _AsDataclass()
    if eq:
        equal, hashed = _comparison(fields)
        namespace["__eq__"] = equal
        namespace["__hash__"] = hashed if frozen else None
    namespace["__repr__"] = _representation
    if frozen:
        namespace |= {"__setattr__": _refuse, "__delattr__": _refuse}
        if slots:
            namespace |= {"__getstate__": _get_state, "__setstate__": _set_state}
    for name in namespace.keys() & cls.__dict__.keys() & {"__eq__", "__hash__", "__repr__"}:
        if not (name == "__hash__" and cls.__dict__[name] is None):  # which Python sets beside an __eq__
            del namespace[name]

    def compile_now() -> None:
        made.__init__ = _initializer(made, fields, frozen=frozen)  # type: ignore[misc]

    def first_call(self: object, /, *arguments: Any, **named: Any) -> None:
        _uncompiled.pop(made, compile_now)()
        made.__init__(self, *arguments, **named)  # type: ignore[misc]

    namespace["__init__"] = first_call
    if not slots:
        made = cls
        for name, value in namespace.items():
            setattr(cls, name, value)
        for name in own:
            if isinstance(fields[name], _Factory):
                delattr(cls, name)
        _uncompiled[made] = compile_now
        return cls
    rest = {name: value for name, value in cls.__dict__.items() if name not in {*own, "__dict__", "__weakref__"}}
    made = type(cls)(cls.__name__, cls.__bases__, {**rest, **namespace, "__slots__": tuple(own)})
    made.__qualname__ = cls.__qualname__
    _uncompiled[made] = compile_now
    return made


def prepare() -> None:
    """Compile now what the first objects of all classes so far need."""
    while _uncompiled:
        _uncompiled.popitem()[1]()


@overload
def dataclass(cls: Class, /) -> Class: ...
@overload
def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[Class], Class]: ...
@dataclass_transform(field_specifiers=(field,))
def dataclass(cls: Any = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True) -> Any:
    """As dataclasses.dataclass."""
    if cls is not None:
        return _made(cls, frozen=frozen, slots=slots, eq=eq)
    return lambda cls: _made(cls, frozen=frozen, slots=slots, eq=eq)


def replace(record: Record, /, **changes: Any) -> Record:
    """As dataclasses.replace, of a record."""
    return type(record)(**{name: getattr(record, name) for name in getattr(record, _FIELDS)} | changes)


def as_dict(record: object) -> dict[str, Any]:
    """The values of a record by name; the values themselves, not copies."""
    return {name: getattr(record, name) for name in getattr(record, _FIELDS)}

"""Records behave as the data classes of Python's own library do: that is the oracle."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus import records


@records.dataclass(frozen=True, slots=True)
class Point:
    """At the module's level, so that pickle finds it."""

    x: int
    y: int = 2
    names: list[str] = records.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError(self.x)


NAMES = ("a", "b", "c", "d")
DEFAULTS = st.sampled_from(("none", "value", "factory"))
VALUES = st.integers() | st.text(max_size=3)


def assign(record: Any, name: str, *value: Any) -> object:
    action = setattr if value else delattr
    action(record, name, *value)
    return None


def made(module: Any, kinds: list[str], options: dict[str, bool], base: type = object) -> Any:
    """A class of fields whose defaults are of these kinds, by the standard library or by ours."""
    namespace: dict[str, Any] = {"__annotations__": {}, "__doc__": "See above.", "__module__": __name__}
    for name, kind in zip(NAMES, sorted(kinds, key="none".__ne__), strict=False):
        namespace["__annotations__"][name] = int
        if kind == "value":
            namespace[name] = 7
        elif kind == "factory":
            namespace[name] = module.field(default_factory=lambda: (1, 2))
    return module.dataclass(**options)(type("Made", (base,), namespace))


@given(
    st.lists(DEFAULTS, max_size=4),
    st.fixed_dictionaries({"frozen": st.booleans(), "slots": st.booleans(), "eq": st.booleans()}),
    st.lists(VALUES, max_size=5),
    st.dictionaries(st.sampled_from((*NAMES, "z")), VALUES, max_size=3),
    VALUES,
)
def test_any_class_does_what_a_data_class_does(
    kinds: list[str], options: dict[str, bool], arguments: list[Any], named: dict[str, Any], other: Any
) -> None:
    def facts(module: Any) -> list[Any]:
        def outcome(action: Any) -> Any:
            try:
                return action()
            except (TypeError, AttributeError) as error:
                return type(error)

        cls = made(module, kinds, options)
        found = outcome(lambda: cls(*arguments, **named))
        if found is TypeError:
            return [TypeError]
        again, changed = cls(*arguments, **named), cls(*arguments, **named)
        values = {name: getattr(found, name) for name in cls.__match_args__}
        outcome(lambda: "a" in values and assign(changed, "a", other))
        return [
            cls.__match_args__, values, repr(found).rpartition(".")[2], found == again, found == changed, found == 1,
            outcome(lambda: hash(found) == hash(again)), outcome(lambda: "a" in values and assign(found, "a", other)),
            outcome(lambda: "a" in values and assign(found, "a")),
            outcome(lambda: dataclasses.asdict(cls(*arguments, **named))), dataclasses.is_dataclass(cls),
            outcome(lambda: repr(dataclasses.replace(cls(*arguments, **named), a=other)).rpartition(".")[2]),
        ]  # fmt: skip

    assert facts(records) == facts(dataclasses)


def test_copies_and_changes() -> None:
    point = Point(1, names=["n"])
    assert pickle.loads(pickle.dumps(point)) == copy.copy(point) == point
    assert records.replace(point, y=5) == dataclasses.replace(point, y=5) == Point(1, 5, ["n"])
    assert records.as_dict(point) == dataclasses.asdict(point) == {"x": 1, "y": 2, "names": ["n"]}
    assert not hasattr(point, "__dict__")
    assert Point(1).names is not Point(1).names
    with pytest.raises(ValueError):
        records.replace(point, x=-1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        point.x = 3  # type: ignore[misc]
    match point:
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_methods_of_its_own_and_fields_of_its_base_are_kept() -> None:
    @records.dataclass(slots=True)
    class Base:
        first: int

        def __repr__(self) -> str:
            return "mine"

    @records.dataclass(frozen=False, slots=True)
    class Derived(Base):
        second: int = 3

        def __eq__(self, other: object) -> bool:
            return True

    one = Derived(1)
    assert (one.first, one.second) == (1, 3)
    assert repr(Base(1)) == "mine"
    assert one == object()
    assert Derived(1, 2).second == 2


def test_what_is_compiled_ahead_is_what_the_first_object_would_have_had() -> None:
    plain, slots = (made(records, ["none", "factory"], {"frozen": frozen, "slots": frozen}) for frozen in (False, True))
    before = [cls.__init__ for cls in (plain, slots)]
    records.prepare()
    assert all(cls.__init__ is not first for cls, first in zip((plain, slots), before, strict=True))
    after = [cls.__init__ for cls in (plain, slots)]
    assert [records.as_dict(cls(1)) for cls in (plain, slots)] == [{"a": 1, "b": (1, 2)}] * 2
    assert after == [cls.__init__ for cls in (plain, slots)]

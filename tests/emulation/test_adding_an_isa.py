"""The instruction set that docs/adding-an-isa.md shows does what the page says, and every evaluator takes it."""

from pathlib import Path
from typing import Any

import pytest

from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.interpreter.memory import FlatMemory
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline import translate

PAGE = Path(__file__).parents[2] / "docs" / "adding-an-isa.md"
START = 0x1000
SUM_TO_TEN = bytes(
    [
        *(1, 0, 0, 0),  # r0 = 0: the sum
        *(1, 1, 0, 0),  # r1 = 0: the number
        *(1, 2, 1, 0),  # r2 = 1
        *(1, 3, 10, 0),  # r3 = 10
        *(2, 1, 1, 2),  # r1 += r2
        *(2, 0, 0, 1),  # r0 += r1
        *(5, 1, 2, 3),  # two back, unless r1 is r3
        *(1, 4, 0, 0x11),  # r4 = 0x1100
        *(3, 0, 4, 0),  # [r4] = r0
        *(4, 5, 4, 0),  # r5 = [r4]
        *(6, 0, 0, 0),  # ask the system
        *(9, 9, 9, 9),  # nothing
    ]
)


@pytest.fixture
def tiny() -> Any:
    code = PAGE.read_text().partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["Tiny"]()


@pytest.fixture
def memory() -> FlatMemory:
    return FlatMemory(START, bytearray(SUM_TO_TEN.ljust(0x200, b"\0")))


def test_it_is_interpreted(tiny: Any, memory: FlatMemory) -> None:
    registers = [0] * 128
    registers[layout.PC] = START
    evaluator = Evaluator(tiny, registers, memory)
    executed, outcome = evaluator.run(1000)
    assert outcome == layout.EXIT_SYSCALL
    assert registers[:6] == [55, 10, 1, 10, 0x1100, 55]
    assert executed == 4 + 3 * 10 + 4
    assert evaluator.run(1)[1] == layout.EXIT_ILLEGAL


def test_it_is_translated(tiny: Any, memory: FlatMemory) -> None:
    unit = translate(tiny, memory.fetch, START, place=layout.CODE, counter=iter(range(100)).__next__)
    assert START in unit.entries
    assert START + 16 in unit.entries  # the loop's head
    addresses = [pc for _, pc in unit.map]
    assert set(range(START, START + 44, 4)) <= set(addresses)


def test_what_it_shows(tiny: Any) -> None:
    assert tiny.show(tiny.decode(SUM_TO_TEN, 16), START) == "add r1, r1, r2"
    assert tiny.decode(b"\1\2", 0).name == "illegal"

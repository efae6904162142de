"""The processor as GDB is told of it: well-formed, complete, and every register reads as it was written."""

from array import array
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.machine.debug.gdb_signals import FROM_GDB, TO_GDB, from_gdb, to_gdb
from virtus.machine.debug.target_xml import REGISTERS, RISCV64
from virtus.vcpus.translator import float_state, layout


def block() -> "memoryview[int]":
    """A state block."""
    words = memoryview(array("Q", [0] * 96))
    words[layout.MXCSR] = float_state.INITIAL
    return words


def test_the_description_numbers_the_registers_as_they_stand() -> None:
    rows = list(ElementTree.fromstring(RISCV64).iter("reg"))
    assert [(row.get("name"), row.get("bitsize"), row.get("regnum")) for row in rows] == [
        (register.name, str(8 * register.size), str(at)) for at, register in enumerate(REGISTERS)
    ]


def test_the_features_are_gdb_s() -> None:
    root = ElementTree.fromstring(RISCV64)
    names = [feature.get("name") for feature in root.iter("feature")]
    assert names == ["org.gnu.gdb.riscv.cpu", "org.gnu.gdb.riscv.fpu"]
    assert root.findtext("architecture") == "riscv:rv64"


@given(st.sampled_from(range(1, 65)), st.integers(0, 2**64 - 1))
def test_a_register_reads_as_written(at: int, value: int) -> None:
    words, register = block(), REGISTERS[at]
    register.set(words, value)
    assert register.get(words) == value
    assert [REGISTERS[other].get(words) for other in range(65) if other != at] == [0] * 64


def test_x0_stays_what_it_is() -> None:
    words = block()
    REGISTERS[0].set(words, 5)
    assert REGISTERS[0].get(words) == 0


@given(st.integers(0, 31), st.integers(0, 7))
def test_flags_and_mode_are_parts_of_fcsr(flags: int, mode: int) -> None:
    words = block()
    by_name = {register.name: register for register in REGISTERS}
    by_name["fcsr"].set(words, mode << 5 | flags)
    assert by_name["fflags"].get(words) == flags
    assert by_name["frm"].get(words) == mode
    by_name["fflags"].set(words, 0)
    assert by_name["fcsr"].get(words) == mode << 5
    by_name["frm"].set(words, 0)
    by_name["fflags"].set(words, flags)
    assert by_name["fcsr"].get(words) == flags


def test_every_signal_of_linux_has_a_number_of_gdb_s() -> None:
    assert set(TO_GDB) == set(range(1, 65))
    assert len(FROM_GDB) == len(TO_GDB)
    assert all(from_gdb(to_gdb(number)) == number for number in range(65))


@pytest.mark.parametrize("number", [140, 144, 255, 1000])
def test_what_is_no_signal_is_refused(number: int) -> None:
    with pytest.raises(ValueError):
        from_gdb(number)

"""Quick code as one image: what is packed is unpacked, what is placed elsewhere runs as it did, faults included."""

import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.translator.encode import A0, A7, ECALL, RET, S0, T0, ZERO, add, addi, branch, jal, load
from tests.translator.test_vcpu import CODE, guest
from virtus.exits import Reason
from virtus.isa.riscv64 import RISCV64
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.baseline import COUNTER_AT, COUNTER_FROM
from virtus.vcpus.translator.quick_image import Places, QuickImage, collect, unpack
from virtus.vcpus.translator.region import Region
from virtus.vcpus.translator.vcpu import HOT_AFTER, CallConvention, TranslatorVcpu

COUNT = 0x250
"""Loops, then a call, then a load from nowhere."""
PROGRAM = (
    addi(T0, ZERO, COUNT),
    addi(A0, A0, 2),
    addi(T0, T0, -1),
    branch(T0, ZERO, -8),
    jal(1, 16),
    addi(A7, ZERO, 93),
    ECALL,
    load(S0, ZERO),
    add(A0, A0, A0),
    RET,
)
ADDRESS = st.integers(0, 2**38 - 1)
RANGES = st.lists(st.tuples(ADDRESS, st.binary(min_size=1, max_size=16)), max_size=4)
ENTRIES = st.dictionaries(ADDRESS, st.integers(0, 58), max_size=5)
IMAGES = st.builds(
    lambda blob, entries, places, pieces, jumps: QuickImage(
        blob,
        list(entries),
        list(entries.values()),
        Places([at for at, _ in places], [pc for _, pc in places]),
        tuple((low, low + len(code)) for low, code in pieces),
        tuple(code for _, code in pieces),
        tuple(jumps),
    ),
    st.binary(min_size=64, max_size=100),
    ENTRIES,
    st.lists(st.tuples(st.integers(0, 2**32 - 1), ADDRESS), max_size=5),
    RANGES,
    st.lists(st.tuples(ADDRESS, ADDRESS), max_size=3),
)


@contextmanager
def machine() -> Iterator[TranslatorVcpu]:
    made = TranslatorVcpu(RISCV64, CallConvention(number=17, first=10))
    try:
        yield made
    finally:
        made.close()


def run(vcpu: TranslatorVcpu, kept: QuickImage | None = None) -> tuple[QuickImage, int]:
    """The program to its fault: what was translated (or kept), and what A0 was at the system call."""
    context = guest(vcpu, *PROGRAM)
    if kept is not None:
        vcpu.region.put(bytes(1000))  # somewhere else than before
        vcpu.region.counter(0)
        unit = vcpu.place_image(kept)
        assert unit is not None
        assert context.space.has(context.ident, unit)
        context.space.install(context.ident, unit)
    context.resume()
    exit = vcpu.run()
    assert (exit.reason, exit.number) == (Reason.SYSCALL, 93)
    value = context.regs[A0]
    context.resume()
    exit = vcpu.run()
    assert (exit.reason, exit.number) == (Reason.SIGNAL, signal.SIGSEGV)
    assert context.regs[layout.PC] == CODE + 4 * PROGRAM.index(load(S0, ZERO))
    return collect(vcpu._placed, vcpu.region, ((CODE, CODE + 8), (CODE, CODE + 4))), value


def test_kept_code_runs_elsewhere_as_it_did() -> None:
    with machine() as first:
        made, value = run(first)
        assert first.translated
    assert value == 4 * COUNT
    assert made.jumps == ((CODE, CODE + 8), (CODE, CODE + 4))
    with machine() as second:
        again, same = run(second, unpack(made.pack()))
        assert second.translated == 0
    assert same == value
    assert list(again.entries) == list(made.entries)
    with machine() as third:
        assert run(third, again)[1] == value


def test_kept_blocks_count_on_counters_of_their_own() -> None:
    with machine() as first:
        made, _ = run(first)
    with machine() as second:
        run(second, made)
        [unit] = second._placed
        loop = CODE + 4
        assert second.region._counters[unit.counters[loop]] == HOT_AFTER - (COUNT - 1)
        assert len(set(unit.counters.values())) == len(made.entries)


def test_of_changed_code_nothing_is_used() -> None:
    with machine() as first:
        made, _ = run(first)
    with machine() as second:
        context = guest(second, *PROGRAM[:-2], addi(A0, A0, 1), RET)
        unit = second.place_image(made)
        assert unit is not None
        assert not context.space.has(context.ident, unit)


@given(IMAGES)
def test_what_is_packed_is_unpacked(image: QuickImage) -> None:
    found = unpack(image.pack())
    assert list(found.instructions) == list(image.instructions)
    assert [getattr(found, name) for name in ("blob", "entries", "offsets", "covers", "code", "jumps")] == [
        getattr(image, name) for name in ("blob", "entries", "offsets", "covers", "code", "jumps")
    ]


@given(IMAGES, st.data())
def test_damage_is_refused_or_keeps_lengths(image: QuickImage, data: st.DataObject) -> None:
    packed = bytearray(image.pack())
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = unpack(bytes(packed[: data.draw(st.integers(0, len(packed)))] if data.draw(st.booleans()) else packed))
    except ValueError:
        return
    assert all(offset + COUNTER_FROM <= len(found.blob) for offset in found.offsets)
    assert [high - low for low, high in found.covers] == list(map(len, found.code))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_of_a_kind(data: bytes) -> None:
    try:
        found = unpack(data)
    except ValueError:
        return
    assert found.pack() == data


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(0, 5000))
def test_joined_images_count_where_they_are_placed(first: int, second: int, before: int) -> None:
    def blocks(count: int, start: int) -> QuickImage:
        pcs = list(range(start, start + 2 * count, 2))
        return QuickImage(bytes(16 * count), pcs, [16 * n for n in range(count)], Places([], []), (), (), ())

    image = blocks(first, 0).joined(blocks(second, 10_000))
    region = Region()
    try:
        region.put(bytes(before))
        for _ in range(before % 7):
            region.counter(0)
        unit = image.place(region, HOT_AFTER)
        assert unit is not None
        assert len(unit.entries) == len(image.entries) == first + second
        for pc in (0, 2 * first - 2, 10_000, 10_000 + 2 * second - 2):
            at = unit.entries[pc]
            (distance,) = struct.unpack("<i", region.code(at + COUNTER_AT, at + COUNTER_AT + 4))
            assert at + COUNTER_FROM + distance == layout.COUNTERS + 4 * unit.counters[pc]
            assert unit.counters[pc] % 1024 >= 256  # see Region.counter
            assert region._counters[unit.counters[pc]] == HOT_AFTER
    finally:
        region.close()


def test_where_there_is_no_room_nothing_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    with machine() as first:
        made, _ = run(first)
    monkeypatch.setattr(layout, "CODE_BYTES", 4096)
    with machine() as second:
        second.region.put(bytes(second.region.room - 64))
        assert second.place_image(made) is None

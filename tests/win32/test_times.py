"""Moments of Windows against Python's own calendar, and the host's time zones as Windows' rules."""

import datetime
import os
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import call, new_thread, room
from virtus.personalities.win32 import errors, time_zones
from virtus.personalities.win32 import time as _time
from virtus.personalities.win32.file_time import (
    LATEST,
    TICKS_PER_SECOND,
    NoSuchTime,
    SystemTime,
    date_of,
    days_of,
    from_dos,
    from_unix_ns,
    to_dos,
    to_unix_ns,
)

EPOCH = datetime.datetime(1601, 1, 1)
TIMES = _time.PERFORMANCE_FREQUENCY


@given(st.datetimes(datetime.datetime(1601, 1, 1), datetime.datetime(9999, 12, 31)))
def test_fields_and_ticks_are_pythons(moment: datetime.datetime) -> None:
    delta = moment - EPOCH
    ticks = (delta.days * 86400 + delta.seconds) * TICKS_PER_SECOND + delta.microseconds * 10
    fields = SystemTime.of(ticks)
    assert (fields.year, fields.month, fields.day) == (moment.year, moment.month, moment.day)
    assert (fields.hour, fields.minute, fields.second) == (moment.hour, moment.minute, moment.second)
    assert fields.millisecond == moment.microsecond // 1000
    assert fields.weekday == moment.isoweekday() % 7
    assert fields.ticks == ticks - ticks % 10_000


@given(st.integers(0, days_of(30828, 1, 1) * 86400 * TICKS_PER_SECOND - 1))
def test_any_moment_comes_back(ticks: int) -> None:
    assert SystemTime.of(ticks).ticks == ticks - ticks % 10_000
    assert from_unix_ns(to_unix_ns(ticks)) == ticks


@given(st.integers(-800_000, 11_000_000))
def test_days_and_dates_are_inverse(days: int) -> None:
    assert days_of(*date_of(days)) == days


@given(st.binary(min_size=16, max_size=16))
def test_any_fields_are_a_moment_or_none(data: bytes) -> None:
    fields = SystemTime.unpack(data)
    try:
        assert SystemTime.of(fields.ticks).pack()[6:] == data[6:]
    except NoSuchTime:
        pass


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_times_of_ms_dos(date: int, moment: int) -> None:
    try:
        ticks = from_dos(date, moment)
    except NoSuchTime:
        return
    assert to_dos(ticks) == (date, moment)


@pytest.fixture
def zone() -> Iterator[None]:
    before = os.environ.get("TZ")
    time_zones.zone.cache_clear()
    yield
    if before is None:
        os.environ.pop("TZ", None)
    else:
        os.environ["TZ"] = before
    time.tzset()
    time_zones.zone.cache_clear()


def in_zone(name: str) -> None:
    if not os.path.exists(f"/usr/share/zoneinfo/{name}"):
        pytest.skip(f"no {name} in /usr/share/zoneinfo")
    os.environ["TZ"] = name
    time.tzset()


@pytest.mark.parametrize(
    ("name", "year", "bias", "standard", "daylight", "saving", "key"),
    [
        ("America/New_York", 2024, 300, (11, 0, 1, 2), (3, 0, 2, 2), -60, "Eastern Standard Time"),
        ("Europe/Berlin", 2024, -60, (10, 0, 5, 3), (3, 0, 5, 2), -60, "W. Europe Standard Time"),
        ("Australia/Sydney", 2024, -600, (4, 0, 1, 3), (10, 0, 1, 2), -60, "AUS Eastern Standard Time"),
        ("Asia/Kolkata", 2024, -330, (0, 0, 0, 0), (0, 0, 0, 0), 0, "India Standard Time"),
        ("Etc/UTC", 2024, 0, (0, 0, 0, 0), (0, 0, 0, 0), 0, "UTC"),
    ],
)
def test_zones(
    zone: None, name: str, year: int, bias: int, standard: tuple[int, ...], daylight: tuple[int, ...], saving: int,
    key: str,
) -> None:  # fmt: skip
    in_zone(name)
    found = time_zones.zone(year)
    rules = [(rule.month, rule.weekday, rule.day, rule.hour) for rule in (found.standard_rule, found.daylight_rule)]
    assert (found.bias, *rules, found.daylight_bias, found.key) == (bias, standard, daylight, saving, key)
    assert len(found.pack()) == 172
    assert len(found.pack_dynamic()) == 432


@given(st.integers(1_000_000_000, 2_000_000_000), st.sampled_from(["America/New_York", "Australia/Sydney"]))
def test_rules_of_a_year_give_the_hosts_local_time(seconds: int, name: str) -> None:
    before = os.environ.get("TZ")
    try:
        in_zone(name)
        time_zones.zone.cache_clear()
        ticks = from_unix_ns(seconds * 10**9)
        local = SystemTime.of(time_zones.to_local(ticks))
        rules = time_zones.zone(local.year)
        if abs(seconds % (365 * 86400)) > 2 * 86400:  # the year's rules are not the neighbour's
            assert SystemTime.of(time_zones.apply(rules, ticks)) == local
    finally:
        os.environ.pop("TZ", None) if before is None else os.environ.update(TZ=before)
        time.tzset()
        time_zones.zone.cache_clear()


@given(st.binary(min_size=172, max_size=172), st.integers(0, LATEST))
def test_any_rules_of_a_guest_are_applied_or_refused(data: bytes, ticks: int) -> None:
    try:
        time_zones.apply(time_zones.unpack(data), ticks)
        time_zones.revert(time_zones.unpack(data), ticks)
    except NoSuchTime:
        pass


def test_the_functions_convert() -> None:
    thread = new_thread()
    fields, ticks = room(thread, 16), room(thread, 8)
    call(thread, "GetSystemTime", fields)
    assert call(thread, "SystemTimeToFileTime", fields, ticks) == 1
    assert abs(thread.memory.u64(ticks) - from_unix_ns(time.time_ns())) < 60 * TICKS_PER_SECOND
    thread.memory.set_u64(ticks, 1 << 63)
    assert call(thread, "FileTimeToSystemTime", ticks, fields) == 0
    assert thread.last_error == errors.ERROR_INVALID_PARAMETER
    assert call(thread, "SetSystemTime", fields) == 0
    assert thread.last_error == errors.ERROR_PRIVILEGE_NOT_HELD
    later = room(thread, struct.pack("<Q", 5))
    assert [call(thread, "CompareFileTime", a, b) for a, b in ((ticks, later), (later, ticks), (later, later))] == [
        1, -1, 0,
    ]  # fmt: skip
    assert call(thread, "RtlTimeToSecondsSince1970", later, fields) == 0
    call(thread, "RtlSecondsSince1970ToTime", 86400, ticks)
    assert call(thread, "RtlTimeToSecondsSince1970", ticks, fields) == 1
    assert thread.memory.u32(fields) == 86400
    assert call(thread, "QueryPerformanceFrequency", ticks) == 1
    assert thread.memory.u64(ticks) == TIMES

"""Times of day, the performance counter, time zones, and winmm's clock. (Waiting is in `waiting.py`.)

The guest's clocks are the host's. Setting them is refused, as it is to users without SeSystemtimePrivilege.
"""

import time
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import errors, time_zones
from virtus.personalities.win32.file_time import (
    LATEST,
    SYSTEMTIME,
    TICKS_PER_SECOND,
    NoSuchTime,
    SystemTime,
    from_dos,
    from_unix_ns,
    to_dos,
)
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

PERFORMANCE_FREQUENCY: Final = 10_000_000
"""What every Windows since 10 gives on x86 (Microsoft: Acquiring high-resolution time stamps)."""
TIMER_INCREMENT: Final = 156_250
"""100 ns in a clock tick of 64 Hz."""
SECONDS_TO_1970: Final = 11_644_473_600
TIMERR_NOERROR, TIMERR_NOCANDO = 0, 97
MASK_32: Final = 0xFFFF_FFFF


def now() -> int:
    """The system's time as a FILETIME."""
    return from_unix_ns(time.time_ns())


def counter() -> int:
    """The performance counter."""
    return time.monotonic_ns() // (10**9 // PERFORMANCE_FREQUENCY)


def ticks_ms() -> int:
    """Milliseconds since the host started."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _converted(thread: Thread, result: int, make: Callable[[], bytes]) -> int:
    """Store what `make` gives; a moment that does not exist is the caller's mistake."""
    try:
        data = make()
    except NoSuchTime:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.write(result, data)
    return 1


@api("void GetSystemTimeAsFileTime(LPFILETIME result)", "kernel32", "kernelbase")
def get_system_time_as_file_time(thread: Thread, result: int) -> None:
    """UTC now."""
    thread.memory.set_u64(result, now())


@api("void GetSystemTimePreciseAsFileTime(LPFILETIME result)", "kernel32", "kernelbase")
def get_system_time_precise_as_file_time(thread: Thread, result: int) -> None:
    """The same: the other one is as precise here."""
    thread.memory.set_u64(result, now())


@api("void GetSystemTime(LPSYSTEMTIME result)", "kernel32", "kernelbase")
def get_system_time(thread: Thread, result: int) -> None:
    """UTC now, in fields."""
    thread.memory.write(result, SystemTime.of(now()).pack())


@api("void GetLocalTime(LPSYSTEMTIME result)", "kernel32", "kernelbase")
def get_local_time(thread: Thread, result: int) -> None:
    """Local time now, in fields."""
    thread.memory.write(result, SystemTime.of(time_zones.to_local(now())).pack())


@api("BOOL SetSystemTime(const SYSTEMTIME *moment)", "kernel32", "kernelbase", note="refused")
def set_system_time(thread: Thread, moment: int) -> int:
    """Refused: the clock is the host's."""
    return thread.fail(errors.ERROR_PRIVILEGE_NOT_HELD)


@api("BOOL SetLocalTime(const SYSTEMTIME *moment)", "kernel32", "kernelbase", note="refused")
def set_local_time(thread: Thread, moment: int) -> int:
    """Refused: the clock is the host's."""
    return thread.fail(errors.ERROR_PRIVILEGE_NOT_HELD)


@api("BOOL FileTimeToSystemTime(const FILETIME *ticks, LPSYSTEMTIME result)", "kernel32", "kernelbase")
def file_time_to_system_time(thread: Thread, ticks: int, result: int) -> int:
    """ERROR_INVALID_PARAMETER from 2^63 on."""
    moment = thread.memory.u64(ticks)
    return _converted(thread, result, lambda: SystemTime.of(moment).pack())


@api("BOOL SystemTimeToFileTime(const SYSTEMTIME *fields, LPFILETIME result)", "kernel32", "kernelbase")
def system_time_to_file_time(thread: Thread, fields: int, result: int) -> int:
    """The weekday is not looked at."""
    moment = SystemTime.unpack(thread.memory.read(fields, SYSTEMTIME.size))
    return _converted(thread, result, lambda: moment.ticks.to_bytes(8, "little"))


@api("BOOL FileTimeToLocalFileTime(const FILETIME *utc, LPFILETIME result)", "kernel32", "kernelbase")
def file_time_to_local_file_time(thread: Thread, utc: int, result: int) -> int:
    """With today's bias, whatever the date, as documented."""
    thread.memory.set_u64(result, max(0, thread.memory.u64(utc) - time_zones.bias_now()))
    return 1


@api("BOOL LocalFileTimeToFileTime(const FILETIME *local, LPFILETIME result)", "kernel32", "kernelbase")
def local_file_time_to_file_time(thread: Thread, local: int, result: int) -> int:
    """The inverse, likewise with today's bias."""
    thread.memory.set_u64(result, max(0, thread.memory.u64(local) + time_zones.bias_now()))
    return 1


@api("LONG CompareFileTime(const FILETIME *one, const FILETIME *other)", "kernel32", "kernelbase")
def compare_file_time(thread: Thread, one: int, other: int) -> int:
    """-1, 0 or 1."""
    first, second = thread.memory.u64(one), thread.memory.u64(other)
    return (first > second) - (first < second)


@api("BOOL DosDateTimeToFileTime(WORD date, WORD time, LPFILETIME result)", "kernel32", "kernelbase")
def dos_date_time_to_file_time(thread: Thread, date: int, time: int, result: int) -> int:
    """Zip files have such times."""
    return _converted(thread, result, lambda: from_dos(date, time).to_bytes(8, "little"))


@api("BOOL FileTimeToDosDateTime(const FILETIME *ticks, LPWORD date, LPWORD time)", "kernel32", "kernelbase")
def file_time_to_dos_date_time(thread: Thread, ticks: int, date: int, time: int) -> int:
    """ERROR_INVALID_PARAMETER outside of 1980 to 2107."""
    try:
        words = to_dos(thread.memory.u64(ticks))
    except NoSuchTime:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.set_u16(date, words[0])
    thread.memory.set_u16(time, words[1])
    return 1


def _zone_state(rules: time_zones.Zone) -> int:
    if not rules.daylight_rule.month:
        return time_zones.TIME_ZONE_ID_UNKNOWN
    return time_zones.TIME_ZONE_ID_DAYLIGHT if time.localtime().tm_isdst else time_zones.TIME_ZONE_ID_STANDARD


@api("DWORD GetTimeZoneInformation(LPTIME_ZONE_INFORMATION result)", "kernel32", "kernelbase")
def get_time_zone_information(thread: Thread, result: int) -> int:
    """The host's zone this year; the value tells whether daylight saving is in force."""
    rules = time_zones.zone(time.localtime().tm_year)
    thread.memory.write(result, rules.pack())
    return _zone_state(rules)


@api("DWORD GetDynamicTimeZoneInformation(LPDYNAMIC_TIME_ZONE_INFORMATION result)", "kernel32", "kernelbase")
def get_dynamic_time_zone_information(thread: Thread, result: int) -> int:
    """The same with the zone's name in the registry."""
    rules = time_zones.zone(time.localtime().tm_year)
    thread.memory.write(result, rules.pack_dynamic())
    return _zone_state(rules)


@api("BOOL GetTimeZoneInformationForYear(USHORT year, LPVOID zone, LPVOID result)", "kernel32", "kernelbase",
     note="of the host's own zone only")  # fmt: skip
def get_time_zone_information_for_year(thread: Thread, year: int, zone: int, result: int) -> int:
    """The host's zone in a year."""
    thread.memory.write(result, time_zones.zone(year).pack())
    return 1


def _rules(thread: Thread, zone: int, year: int) -> time_zones.Zone:
    """A guest's rules, or the host's for a null pointer."""
    if not zone:
        return time_zones.zone(year)
    return time_zones.unpack(thread.memory.read(zone, time_zones.INFORMATION.size))


@api("BOOL SystemTimeToTzSpecificLocalTime(const TIME_ZONE_INFORMATION *zone, const SYSTEMTIME *utc,"
     " LPSYSTEMTIME result)", "kernel32", "kernelbase")  # fmt: skip
def system_time_to_tz_specific_local_time(thread: Thread, zone: int, utc: int, result: int) -> int:
    """By the zone's rules of that year."""
    fields = SystemTime.unpack(thread.memory.read(utc, SYSTEMTIME.size))
    rules = _rules(thread, zone, fields.year)
    return _converted(thread, result, lambda: SystemTime.of(time_zones.apply(rules, fields.ticks)).pack())


@api("BOOL SystemTimeToTzSpecificLocalTimeEx(const TIME_ZONE_INFORMATION *zone, const SYSTEMTIME *utc,"
     " LPSYSTEMTIME result)", "kernel32", "kernelbase")  # fmt: skip
def system_time_to_tz_specific_local_time_ex(thread: Thread, zone: int, utc: int, result: int) -> int:
    """The same; a dynamic zone begins as a plain one does."""
    return system_time_to_tz_specific_local_time(thread, zone, utc, result)


@api("BOOL TzSpecificLocalTimeToSystemTime(const TIME_ZONE_INFORMATION *zone, const SYSTEMTIME *local,"
     " LPSYSTEMTIME result)", "kernel32", "kernelbase")  # fmt: skip
def tz_specific_local_time_to_system_time(thread: Thread, zone: int, local: int, result: int) -> int:
    """The inverse."""
    fields = SystemTime.unpack(thread.memory.read(local, SYSTEMTIME.size))
    rules = _rules(thread, zone, fields.year)
    return _converted(thread, result, lambda: SystemTime.of(time_zones.revert(rules, fields.ticks)).pack())


@api("BOOL TzSpecificLocalTimeToSystemTimeEx(const TIME_ZONE_INFORMATION *zone, const SYSTEMTIME *local,"
     " LPSYSTEMTIME result)", "kernel32", "kernelbase")  # fmt: skip
def tz_specific_local_time_to_system_time_ex(thread: Thread, zone: int, local: int, result: int) -> int:
    """The same for a dynamic zone."""
    return tz_specific_local_time_to_system_time(thread, zone, local, result)


@api("DWORD GetTickCount(void)", "kernel32", "kernelbase")
def get_tick_count(thread: Thread) -> int:
    """Milliseconds since the host's start; comes round after 49.7 days."""
    return ticks_ms() & MASK_32


@api("ULONGLONG GetTickCount64(void)", "kernel32", "kernelbase")
def get_tick_count64(thread: Thread) -> int:
    """Milliseconds since the host's start."""
    return ticks_ms()


@api("BOOL QueryPerformanceCounter(LARGE_INTEGER *result)", "kernel32", "kernelbase")
def query_performance_counter(thread: Thread, result: int) -> int:
    """The host's monotonic clock in 100 ns."""
    thread.memory.set_u64(result, counter())
    return 1


@api("BOOL QueryPerformanceFrequency(LARGE_INTEGER *result)", "kernel32", "kernelbase")
def query_performance_frequency(thread: Thread, result: int) -> int:
    """10 MHz."""
    thread.memory.set_u64(result, PERFORMANCE_FREQUENCY)
    return 1


@api("BOOLEAN RtlQueryPerformanceCounter(LARGE_INTEGER *result)", "ntdll")
def rtl_query_performance_counter(thread: Thread, result: int) -> int:
    """What QueryPerformanceCounter forwards to."""
    return query_performance_counter(thread, result)


@api("BOOLEAN RtlQueryPerformanceFrequency(LARGE_INTEGER *result)", "ntdll")
def rtl_query_performance_frequency(thread: Thread, result: int) -> int:
    """What QueryPerformanceFrequency forwards to."""
    return query_performance_frequency(thread, result)


@api("NTSTATUS NtQueryPerformanceCounter(LARGE_INTEGER *result, LARGE_INTEGER *frequency)", "ntdll")
def nt_query_performance_counter(thread: Thread, result: int, frequency: int) -> int:
    """Counter and, where wanted, frequency."""
    thread.memory.set_u64(result, counter())
    if frequency:
        thread.memory.set_u64(frequency, PERFORMANCE_FREQUENCY)
    return 0


@api("BOOL QueryUnbiasedInterruptTime(PULONGLONG result)", "kernel32", "kernelbase")
def query_unbiased_interrupt_time(thread: Thread, result: int) -> int:
    """100 ns since the start, without time asleep."""
    thread.memory.set_u64(result, time.monotonic_ns() // 100)
    return 1


@api("void QueryUnbiasedInterruptTimePrecise(PULONGLONG result)", "kernelbase",
     "api-ms-win-core-realtime-l1-1-1")  # fmt: skip
def query_unbiased_interrupt_time_precise(thread: Thread, result: int) -> None:
    """The same."""
    thread.memory.set_u64(result, time.monotonic_ns() // 100)


@api("void QueryInterruptTime(PULONGLONG result)", "kernelbase", "api-ms-win-core-realtime-l1-1-1")
def query_interrupt_time(thread: Thread, result: int) -> None:
    """100 ns since the start."""
    thread.memory.set_u64(result, time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 100)


@api("void QueryInterruptTimePrecise(PULONGLONG result)", "kernelbase", "api-ms-win-core-realtime-l1-1-1")
def query_interrupt_time_precise(thread: Thread, result: int) -> None:
    """The same."""
    query_interrupt_time(thread, result)


@api("BOOL GetSystemTimeAdjustment(LPDWORD adjustment, LPDWORD increment, BOOL *disabled)", "kernel32", "kernelbase")
def get_system_time_adjustment(thread: Thread, adjustment: int, increment: int, disabled: int) -> int:
    """No adjustment of the guest's: the host keeps the time."""
    thread.memory.set_u32(adjustment, TIMER_INCREMENT)
    thread.memory.set_u32(increment, TIMER_INCREMENT)
    thread.memory.set_u32(disabled, 1)
    return 1


@api("NTSTATUS NtQuerySystemTime(LARGE_INTEGER *result)", "ntdll")
def nt_query_system_time(thread: Thread, result: int) -> int:
    """UTC now."""
    thread.memory.set_u64(result, now())
    return 0


@api("LONGLONG RtlGetSystemTimePrecise(void)", "ntdll")
def rtl_get_system_time_precise(thread: Thread) -> int:
    """UTC now."""
    return now()


@api("BOOLEAN RtlTimeToSecondsSince1970(const LARGE_INTEGER *ticks, PULONG result)", "ntdll")
def rtl_time_to_seconds_since_1970(thread: Thread, ticks: int, result: int) -> int:
    """False where the seconds are no unsigned 32-bit number."""
    seconds = thread.memory.u64(ticks) // TICKS_PER_SECOND - SECONDS_TO_1970
    if not 0 <= seconds <= MASK_32:
        return 0
    thread.memory.set_u32(result, seconds)
    return 1


@api("void RtlSecondsSince1970ToTime(ULONG seconds, LARGE_INTEGER *result)", "ntdll")
def rtl_seconds_since_1970_to_time(thread: Thread, seconds: int, result: int) -> None:
    """The inverse."""
    thread.memory.set_u64(result, (seconds + SECONDS_TO_1970) * TICKS_PER_SECOND)


def _time_fields(moment: SystemTime) -> bytes:
    """TIME_FIELDS has SYSTEMTIME's fields with the weekday last."""
    return SYSTEMTIME.pack(
        moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.millisecond,
        moment.weekday,
    )  # fmt: skip


@api("void RtlTimeToTimeFields(const LARGE_INTEGER *ticks, LPVOID result)", "ntdll")
def rtl_time_to_time_fields(thread: Thread, ticks: int, result: int) -> None:
    """The fields of a moment; of one beyond 2^63 those of the last."""
    moment = SystemTime.of(min(LATEST, thread.memory.u64(ticks)))
    thread.memory.write(result, _time_fields(moment))


@api("BOOLEAN RtlTimeFieldsToTime(LPVOID fields, LARGE_INTEGER *result)", "ntdll")
def rtl_time_fields_to_time(thread: Thread, fields: int, result: int) -> int:
    """False for fields out of range."""
    year, month, day, hour, minute, second, millisecond, _ = SYSTEMTIME.unpack(thread.memory.read(fields, 16))
    try:
        ticks = SystemTime(year, month, 0, day, hour, minute, second, millisecond).ticks
    except NoSuchTime:
        return 0
    thread.memory.set_u64(result, ticks)
    return 1


@api("NTSTATUS RtlSystemTimeToLocalTime(const LARGE_INTEGER *utc, LARGE_INTEGER *result)", "ntdll")
def rtl_system_time_to_local_time(thread: Thread, utc: int, result: int) -> int:
    """With today's bias."""
    thread.memory.set_u64(result, thread.memory.u64(utc) - time_zones.bias_now())
    return 0


@api("NTSTATUS NtQueryTimerResolution(PULONG coarsest, PULONG finest, PULONG current)", "ntdll")
def nt_query_timer_resolution(thread: Thread, coarsest: int, finest: int, current: int) -> int:
    """As Windows has them; waits are as fine as the host's."""
    thread.memory.set_u32(coarsest, TIMER_INCREMENT)
    thread.memory.set_u32(finest, 5_000)
    thread.memory.set_u32(current, 10_000)
    return 0


@api("NTSTATUS NtSetTimerResolution(ULONG wanted, BOOLEAN set, PULONG current)", "ntdll")
def nt_set_timer_resolution(thread: Thread, wanted: int, set: int, current: int) -> int:
    """Nothing to set: waits are as fine as the host's already."""
    thread.memory.set_u32(current, 10_000)
    return 0


@api("DWORD timeGetTime(void)", "winmm")
def time_get_time(thread: Thread) -> int:
    """Milliseconds since the host's start."""
    return ticks_ms() & MASK_32


@api("UINT timeBeginPeriod(UINT period)", "winmm", "kernel32")
def time_begin_period(thread: Thread, period: int) -> int:
    """Nothing to set: waits are as fine as the host's already."""
    return TIMERR_NOERROR if period else TIMERR_NOCANDO


@api("UINT timeEndPeriod(UINT period)", "winmm", "kernel32")
def time_end_period(thread: Thread, period: int) -> int:
    """Likewise."""
    return TIMERR_NOERROR if period else TIMERR_NOCANDO


@api("UINT timeGetDevCaps(LPVOID result, UINT size)", "winmm", "kernel32")
def time_get_dev_caps(thread: Thread, result: int, size: int) -> int:
    """Periods of 1 to 1,000,000 ms."""
    if not result or size < 8:
        return TIMERR_NOCANDO
    thread.memory.set_u32(result, 1)
    thread.memory.set_u32(result + 4, 1_000_000)
    return TIMERR_NOERROR

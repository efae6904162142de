"""The host's time zone as Windows describes one: two biases, and the rules of the year between them.

The rules are read off the host's own conversion (localtime(3)): where in a year its daylight saving begins and ends.
"""

import itertools
import os
import struct
import time
from functools import lru_cache
from typing import Final

from virtus.personalities.win32.code_pages import utf16
from virtus.personalities.win32.file_time import (
    TICKS_PER_SECOND,
    SystemTime,
    days_in_month,
    days_of,
    from_unix_ns,
    to_unix_ns,
)
from virtus.records import dataclass

TIME_ZONE_ID_UNKNOWN, TIME_ZONE_ID_STANDARD, TIME_ZONE_ID_DAYLIGHT = 0, 1, 2
LAST_WEEK: Final = 5
"""A rule's week that is the month's last one (Microsoft: TIME_ZONE_INFORMATION)."""
NAME_CHARACTERS: Final = 32
KEY_CHARACTERS: Final = 128
INFORMATION: Final = struct.Struct("<i64s16si64s16si")
DAYS_FROM_1601_TO_1970: Final = 134_774
NO_RULE: Final = SystemTime(0, 0, 0, 0, 0, 0, 0, 0)

WINDOWS_NAMES: Final = {
    "Etc/UTC": "UTC", "UTC": "UTC", "Etc/GMT": "UTC", "Europe/London": "GMT Standard Time",
    "Europe/Dublin": "GMT Standard Time", "Europe/Lisbon": "GMT Standard Time",
    "Atlantic/Reykjavik": "Greenwich Standard Time", "Africa/Casablanca": "Morocco Standard Time",
    "Europe/Berlin": "W. Europe Standard Time", "Europe/Amsterdam": "W. Europe Standard Time",
    "Europe/Rome": "W. Europe Standard Time", "Europe/Vienna": "W. Europe Standard Time",
    "Europe/Zurich": "W. Europe Standard Time", "Europe/Stockholm": "W. Europe Standard Time",
    "Europe/Oslo": "W. Europe Standard Time", "Europe/Paris": "Romance Standard Time",
    "Europe/Madrid": "Romance Standard Time", "Europe/Brussels": "Romance Standard Time",
    "Europe/Copenhagen": "Romance Standard Time", "Europe/Prague": "Central Europe Standard Time",
    "Europe/Budapest": "Central Europe Standard Time", "Europe/Belgrade": "Central Europe Standard Time",
    "Europe/Warsaw": "Central European Standard Time", "Africa/Lagos": "W. Central Africa Standard Time",
    "Europe/Athens": "GTB Standard Time", "Europe/Bucharest": "GTB Standard Time",
    "Europe/Helsinki": "FLE Standard Time", "Europe/Kyiv": "FLE Standard Time", "Europe/Kiev": "FLE Standard Time",
    "Europe/Istanbul": "Turkey Standard Time", "Africa/Cairo": "Egypt Standard Time",
    "Africa/Johannesburg": "South Africa Standard Time", "Asia/Jerusalem": "Israel Standard Time",
    "Europe/Moscow": "Russian Standard Time", "Africa/Nairobi": "E. Africa Standard Time",
    "Asia/Riyadh": "Arab Standard Time", "Asia/Tehran": "Iran Standard Time", "Asia/Dubai": "Arabian Standard Time",
    "Asia/Kabul": "Afghanistan Standard Time", "Asia/Karachi": "Pakistan Standard Time",
    "Asia/Kolkata": "India Standard Time", "Asia/Calcutta": "India Standard Time",
    "Asia/Kathmandu": "Nepal Standard Time", "Asia/Dhaka": "Bangladesh Standard Time",
    "Asia/Bangkok": "SE Asia Standard Time", "Asia/Jakarta": "SE Asia Standard Time",
    "Asia/Shanghai": "China Standard Time", "Asia/Hong_Kong": "China Standard Time",
    "Asia/Singapore": "Singapore Standard Time", "Asia/Taipei": "Taipei Standard Time",
    "Australia/Perth": "W. Australia Standard Time", "Asia/Tokyo": "Tokyo Standard Time",
    "Asia/Seoul": "Korea Standard Time", "Australia/Adelaide": "Cen. Australia Standard Time",
    "Australia/Brisbane": "E. Australia Standard Time", "Australia/Sydney": "AUS Eastern Standard Time",
    "Australia/Melbourne": "AUS Eastern Standard Time", "Asia/Vladivostok": "Vladivostok Standard Time",
    "Pacific/Auckland": "New Zealand Standard Time", "Atlantic/Azores": "Azores Standard Time",
    "America/Sao_Paulo": "E. South America Standard Time", "America/Argentina/Buenos_Aires": "Argentina Standard Time",
    "America/St_Johns": "Newfoundland Standard Time", "America/Halifax": "Atlantic Standard Time",
    "America/Santiago": "Pacific SA Standard Time", "America/Caracas": "Venezuela Standard Time",
    "America/New_York": "Eastern Standard Time", "America/Toronto": "Eastern Standard Time",
    "America/Bogota": "SA Pacific Standard Time", "America/Chicago": "Central Standard Time",
    "America/Mexico_City": "Central Standard Time (Mexico)", "America/Denver": "Mountain Standard Time",
    "America/Phoenix": "US Mountain Standard Time", "America/Los_Angeles": "Pacific Standard Time",
    "America/Vancouver": "Pacific Standard Time", "America/Anchorage": "Alaskan Standard Time",
    "Pacific/Honolulu": "Hawaiian Standard Time",
}  # fmt: skip
"""Windows' names of zones (Unicode CLDR, windowsZones.xml). A zone that is not here goes by its offset."""


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's year. Biases are minutes to add to local time for UTC; a rule without daylight saving is NO_RULE."""

    bias: int
    standard_name: str
    standard_rule: SystemTime
    daylight_name: str
    daylight_rule: SystemTime
    daylight_bias: int
    key: str

    def pack(self) -> bytes:
        """TIME_ZONE_INFORMATION, of 172 bytes."""
        names = (utf16(name)[: 2 * (NAME_CHARACTERS - 1)] for name in (self.standard_name, self.daylight_name))
        return INFORMATION.pack(
            self.bias,
            next(names),
            self.standard_rule.pack(),
            0,
            next(names),
            self.daylight_rule.pack(),
            self.daylight_bias,
        )

    def pack_dynamic(self) -> bytes:
        """DYNAMIC_TIME_ZONE_INFORMATION, of 432 bytes."""
        return self.pack() + utf16(self.key).ljust(2 * KEY_CHARACTERS, b"\0") + bytes(4)


def unpack(data: bytes) -> Zone:
    """A guest's TIME_ZONE_INFORMATION."""
    bias, _, standard, standard_bias, _, daylight, daylight_bias = INFORMATION.unpack(data)
    return Zone(
        bias + standard_bias,
        "",
        SystemTime.unpack(standard),
        "",
        SystemTime.unpack(daylight),
        daylight_bias - standard_bias,
        "",
    )


def _host_name() -> str:
    """The host's zone in the IANA data base's words, "" where none can be found out."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        try:
            name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
        except OSError:
            return ""
    return name


def _year_starts(year: int) -> int:
    return (days_of(year, 1, 1) - DAYS_FROM_1601_TO_1970) * 86_400


def _change(low: int, high: int) -> int:
    """The first second with the other setting of daylight saving, of which there is one in the interval."""
    before = time.localtime(low).tm_isdst
    while high - low > 1:
        middle = (low + high) // 2
        if time.localtime(middle).tm_isdst == before:
            low = middle
        else:
            high = middle
    return high


def _rule(moment: int, offset: int) -> SystemTime:
    """When in a year a change comes: weekday, week in the month and local time before the change."""
    local = SystemTime.of(from_unix_ns((moment + offset) * 10**9))
    last = local.day + 7 > days_in_month(local.year, local.month)
    week = LAST_WEEK if last else (local.day - 1) // 7 + 1
    return SystemTime(0, local.month, local.weekday, week, local.hour, local.minute, local.second, 0)


@lru_cache(maxsize=8)
def zone(year: int) -> Zone:
    """The host's zone in a year."""
    year = min(max(year, 1970), 2200)
    start = _year_starts(year)
    months = [start + days * 86_400 for days in range(0, 366, 15)]
    standard_rule = daylight_rule = NO_RULE
    standard = daylight = time.localtime(start)
    for low, high in itertools.pairwise(months):
        before, after = time.localtime(low), time.localtime(high)
        if before.tm_isdst == after.tm_isdst:
            continue
        rule = _rule(_change(low, high), before.tm_gmtoff)
        if after.tm_isdst:
            standard, daylight, daylight_rule = before, after, rule
        else:
            standard, daylight, standard_rule = after, before, rule
    bias = -standard.tm_gmtoff // 60
    key = WINDOWS_NAMES.get(_host_name())
    if key is None:
        key = "UTC" if bias == 0 and daylight is standard else _by_offset(-bias)
    if NO_RULE in (standard_rule, daylight_rule):
        name = "Coordinated Universal Time" if key == "UTC" else key
        return Zone(bias, name, NO_RULE, name, NO_RULE, 0, key)
    saving = (standard.tm_gmtoff - daylight.tm_gmtoff) // 60
    return Zone(bias, key, standard_rule, key.replace("Standard", "Daylight"), daylight_rule, saving, key)


def _by_offset(minutes: int) -> str:
    """Windows' name of a zone without rules: UTC+05, UTC-11."""
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}"


def to_local(ticks: int) -> int:
    """A FILETIME in the host's local time, with the bias of that moment."""
    seconds = to_unix_ns(ticks) // 10**9
    return ticks + time.localtime(seconds).tm_gmtoff * TICKS_PER_SECOND


def bias_now() -> int:
    """Ticks to add to local time for UTC at present: the one bias that FileTimeToLocalFileTime knows."""
    return -time.localtime().tm_gmtoff * TICKS_PER_SECOND


def _occurs(rule: SystemTime, year: int) -> int:
    """When a rule comes true in a year, as a FILETIME of local time."""
    if rule.year:
        return SystemTime(year, *(rule.month, rule.weekday, rule.day, rule.hour, rule.minute, rule.second, 0)).ticks
    first = SystemTime.of(days_of(year, rule.month, 1) * 86_400 * TICKS_PER_SECOND)
    day = 1 + (rule.weekday - first.weekday) % 7 + 7 * (min(rule.day, LAST_WEEK) - 1)
    while day > days_in_month(year, rule.month):
        day -= 7
    return SystemTime(year, rule.month, rule.weekday, day, rule.hour, rule.minute, rule.second, 0).ticks


def in_daylight(rules: Zone, local: int) -> bool:
    """Whether daylight saving is in force at a FILETIME of local standard time; raises NoSuchTime for wild rules."""
    if not (rules.standard_rule.month and rules.daylight_rule.month):
        return False
    year = SystemTime.of(local).year
    begins, ends = _occurs(rules.daylight_rule, year), _occurs(rules.standard_rule, year)
    ends += rules.daylight_bias * 60 * TICKS_PER_SECOND
    return begins <= local < ends if begins < ends else not ends <= local < begins


def apply(rules: Zone, ticks: int) -> int:
    """UTC to local time by a guest's rules; raises NoSuchTime."""
    local = ticks - rules.bias * 60 * TICKS_PER_SECOND
    return local - (rules.daylight_bias * 60 * TICKS_PER_SECOND if in_daylight(rules, local) else 0)


def revert(rules: Zone, local: int) -> int:
    """Local time to UTC by a guest's rules; raises NoSuchTime. Of an hour that comes twice, the earlier one."""
    ticks = local + rules.bias * 60 * TICKS_PER_SECOND
    saved = local + rules.daylight_bias * 60 * TICKS_PER_SECOND
    return ticks + (rules.daylight_bias * 60 * TICKS_PER_SECOND if in_daylight(rules, saved) else 0)

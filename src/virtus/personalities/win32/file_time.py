"""Windows' representations of a moment: FILETIME, SYSTEMTIME and MS-DOS's, and what they have in common with Linux's.

A FILETIME counts 100 ns since 1 January 1601 UTC (Microsoft: FILETIME structure). The Gregorian calendar is computed
here, not by the host, since SYSTEMTIME reaches from 1601 to 30827, and Python's dates end with 9999.
"""

import struct
from typing import Final

from virtus.records import dataclass

TICKS_PER_SECOND: Final = 10_000_000
TICKS_PER_MILLISECOND: Final = 10_000
TICKS_PER_DAY: Final = 86_400 * TICKS_PER_SECOND
UNIX_EPOCH: Final = 116_444_736_000_000_000
"""1 January 1970 as a FILETIME."""
LATEST: Final = 0x7FFF_FFFF_FFFF_FFFF
"""Later ones FileTimeToSystemTime refuses."""
DAYS_TO_1601: Final = 584_694
"""Days from 1 March of the year 0 to 1 January 1601."""
DAYS_IN_ERA: Final = 146_097
"""Days in 400 years."""
SYSTEMTIME: Final = struct.Struct("<8H")
FIRST_YEAR, LAST_YEAR = 1601, 30827


class NoSuchTime(ValueError):
    """The fields name no moment, or one beyond the representation's range."""


def from_unix_ns(nanoseconds: int) -> int:
    """A FILETIME of nanoseconds since 1970; what lies before 1601 becomes 0."""
    return max(0, nanoseconds // 100 + UNIX_EPOCH)


def to_unix_ns(ticks: int) -> int:
    """Nanoseconds since 1970, possibly negative."""
    return (ticks - UNIX_EPOCH) * 100


def days_of(year: int, month: int, day: int) -> int:
    """Days from 1 January 1601 to a date."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * DAYS_IN_ERA + of_era * 365 + of_era // 4 - of_era // 100 + of_year - DAYS_TO_1601


def date_of(days: int) -> tuple[int, int, int]:
    """Year, month and day of days since 1 January 1601; the inverse of `days_of`."""
    era, of_era = divmod(days + DAYS_TO_1601, DAYS_IN_ERA)
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + (3 if shifted < 10 else -9)
    return year + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def days_in_month(year: int, month: int) -> int:
    """28 to 31."""
    following = days_of(year + 1, 1, 1) if month == 12 else days_of(year, month + 1, 1)
    return following - days_of(year, month, 1)


@dataclass(frozen=True, slots=True)
class SystemTime:
    """The fields of a SYSTEMTIME. `weekday` is 0 for Sunday, and does not count when a moment is made of the fields."""

    year: int
    month: int
    weekday: int
    day: int
    hour: int
    minute: int
    second: int
    millisecond: int

    def pack(self) -> bytes:
        """The structure's 16 bytes."""
        return SYSTEMTIME.pack(
            self.year, self.month, self.weekday, self.day, self.hour, self.minute, self.second, self.millisecond
        )

    @classmethod
    def unpack(cls, data: bytes) -> "SystemTime":
        """Of 16 bytes, whatever they say."""
        return cls(*SYSTEMTIME.unpack(data))

    @classmethod
    def of(cls, ticks: int) -> "SystemTime":
        """The fields of a FILETIME; raises NoSuchTime where the year does not fit."""
        if not 0 <= ticks <= LATEST:
            raise NoSuchTime(f"{ticks:#x} as FILETIME")
        days, rest = divmod(ticks, TICKS_PER_DAY)
        year, month, day = date_of(days)
        seconds, rest = divmod(rest, TICKS_PER_SECOND)
        minutes, second = divmod(seconds, 60)
        hour, minute = divmod(minutes, 60)
        return cls(year, month, (days + 1) % 7, day, hour, minute, second, rest // TICKS_PER_MILLISECOND)

    @property
    def ticks(self) -> int:
        """The FILETIME; raises NoSuchTime for fields out of range."""
        valid = (
            FIRST_YEAR <= self.year <= LAST_YEAR
            and 1 <= self.month <= 12
            and 1 <= self.day <= days_in_month(self.year, self.month)
            and self.hour < 24
            and self.minute < 60
            and self.second < 60
            and self.millisecond < 1000
        )
        if not valid:
            raise NoSuchTime(repr(self))
        seconds = (self.hour * 60 + self.minute) * 60 + self.second
        moment = days_of(self.year, self.month, self.day) * TICKS_PER_DAY + seconds * TICKS_PER_SECOND
        moment += self.millisecond * TICKS_PER_MILLISECOND
        if moment > LATEST:
            raise NoSuchTime(repr(self))
        return moment


def from_dos(date: int, time: int) -> int:
    """The FILETIME of MS-DOS's date and time words (2 s steps, from 1980); raises NoSuchTime."""
    return SystemTime(
        1980 + (date >> 9), date >> 5 & 15, 0, date & 31, time >> 11, time >> 5 & 63, 2 * (time & 31), 0
    ).ticks


def to_dos(ticks: int) -> tuple[int, int]:
    """MS-DOS's date and time words, in steps of 2 s; raises NoSuchTime outside of 1980 to 2107."""
    moment = SystemTime.of(ticks)
    if not 1980 <= moment.year <= 2107:
        raise NoSuchTime(f"{moment.year} for MS-DOS")
    date = (moment.year - 1980) << 9 | moment.month << 5 | moment.day
    return date, moment.hour << 11 | moment.minute << 5 | moment.second // 2

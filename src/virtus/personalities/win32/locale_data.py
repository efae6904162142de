"""What the locales that are served say: English (United States), and the invariant one, which differs little."""

from typing import Final

from virtus.records import dataclass

LOCALE_INVARIANT, LOCALE_USER_DEFAULT, LOCALE_SYSTEM_DEFAULT, LOCALE_NEUTRAL = 0x7F, 0x400, 0x800, 0
ENGLISH: Final = 0x409
LANGUAGE_ENGLISH: Final = 9

DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Locale:
    """A locale: its identifier and name, and its values by LCTYPE, without flags (winnls.h)."""

    lcid: int
    name: str
    values: dict[int, str]


_COMMON: Final[dict[int, str]] = {
    0x000C: ",", 0x000D: "1", 0x000E: ".", 0x000F: ",", 0x0010: "3;0", 0x0011: "2", 0x0012: "1",
    0x0013: "0123456789", 0x0014: "$", 0x0015: "USD", 0x0016: ".", 0x0017: ",", 0x0018: "3;0", 0x0019: "2",
    0x001A: "2", 0x001B: "0", 0x001C: "0", 0x001D: "/", 0x001E: ":", 0x001F: "M/d/yyyy",
    0x0020: "dddd, MMMM d, yyyy", 0x0021: "0", 0x0022: "0", 0x0023: "0", 0x0024: "1", 0x0025: "0", 0x0026: "0",
    0x0027: "0", 0x0028: "AM", 0x0029: "PM",
    **{0x002A + place: day for place, day in enumerate(DAYS)},
    **{0x0031 + place: day[:3] for place, day in enumerate(DAYS)},
    **{0x0038 + place: month for place, month in enumerate(MONTHS)},
    **{0x0044 + place: month[:3] for place, month in enumerate(MONTHS)},
    0x0050: "", 0x0051: "-", 0x0052: "3", 0x0053: "0", 0x0054: "1", 0x0055: "0", 0x0056: "0", 0x0057: "0",
    0x0059: "en", 0x005A: "US",
    **{0x0060 + place: day[:2] for place, day in enumerate(DAYS)},
    0x0067: "eng", 0x0068: "USA", 0x0069: "NaN", 0x006A: "Infinity", 0x006B: "-Infinity", 0x006C: "Latn;",
    0x006D: "", 0x006E: "0", 0x006F: "English", 0x0070: "0", 0x0071: "0", 0x0072: "English", 0x0073: "English",
    0x0074: "%", 0x0075: "\u2030", 0x0076: "0", 0x0077: "0", 0x0078: "MMMM d", 0x0079: "h:mm tt",
    0x1001: "English", 0x1002: "United States", 0x1003: "h:mm:ss tt", 0x1004: "65001", 0x1005: "0", 0x1006: "MMMM yyyy",
    0x1007: "US Dollar", 0x1008: "US Dollar", 0x1009: "1", 0x100A: "0", 0x100B: "", 0x100C: "6", 0x100D: "0",
    0x100E: "0", 0x1010: "1", 0x1011: "10000", 0x1012: "037", 0x1013: "Default", 0x1014: "1",
}  # fmt: skip

AMERICAN: Final = Locale(
    ENGLISH,
    "en-US",
    {
        **_COMMON, 0x0001: "0409", 0x0002: "English (United States)", 0x0003: "ENU", 0x0004: "English",
        0x0005: "1", 0x0006: "United States", 0x0007: "USA", 0x0008: "United States", 0x0009: "0409", 0x000A: "1",
        0x000B: "65001", 0x005B: "244", 0x005C: "en-US",
    },
)  # fmt: skip
INVARIANT: Final = Locale(
    LOCALE_INVARIANT,
    "",
    {
        **AMERICAN.values, 0x0001: "007f", 0x0002: "Invariant Language (Invariant Country)", 0x0003: "IVL",
        0x0004: "Invariant Language", 0x0006: "Invariant Country", 0x0007: "IVC", 0x0008: "Invariant Country",
        0x0009: "007f", 0x000D: "0", 0x0014: "\u00a4", 0x0015: "XDR", 0x0017: ",", 0x001F: "MM/dd/yyyy",
        0x0020: "dddd, dd MMMM yyyy", 0x0021: "0", 0x0023: "1", 0x0024: "1", 0x0025: "1", 0x0059: "iv", 0x005A: "IV",
        0x005B: "244", 0x005C: "", 0x0067: "ivl", 0x0068: "ivc", 0x0072: "Invariant Language (Invariant Country)",
        0x0079: "HH:mm", 0x1001: "Invariant Language", 0x1002: "Invariant Country", 0x1003: "HH:mm:ss",
        0x1006: "yyyy MMMM", 0x1007: "International Monetary Fund", 0x100C: "0",
    },
)  # fmt: skip
LOCALES: Final = (AMERICAN, INVARIANT)


def by_lcid(lcid: int) -> Locale | None:
    """A locale by its identifier, of which some stand for the user's and the system's."""
    if lcid in (LOCALE_USER_DEFAULT, LOCALE_SYSTEM_DEFAULT, LOCALE_NEUTRAL, LANGUAGE_ENGLISH, 0x1000):
        return AMERICAN
    return next((locale for locale in LOCALES if locale.lcid == lcid & 0xFFFFF), None)


def by_name(name: str | None) -> Locale | None:
    """A locale by its name; None (a null pointer) is the user's, and "en" is American English."""
    if name is None or name.lower() in ("en", "!x-sys-default-locale"):
        return AMERICAN
    return next((locale for locale in LOCALES if locale.name.lower() == name.lower()), None)

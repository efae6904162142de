"""National language support: what locales say, and dates and numbers in their words.

The user's locale is English (United States); besides there is the invariant one. Others are refused as unknown.
"""

import unicodedata
from collections.abc import Callable, Iterable
from typing import Final

from virtus.personalities.win32 import errors, heaps, locale_formats
from virtus.personalities.win32.file_time import SYSTEMTIME, NoSuchTime, SystemTime
from virtus.personalities.win32.locale_data import AMERICAN, ENGLISH, INVARIANT, LOCALES, Locale, by_lcid, by_name
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give_or_needed
from virtus.personalities.win32.time import now
from virtus.personalities.win32.time_zones import to_local

LOCALE_RETURN_NUMBER: Final = 0x2000_0000
LCTYPE_MASK: Final = 0xFFFF
HEXADECIMAL: Final = frozenset({0x0001, 0x0009})
"""LOCALE_ILANGUAGE and LOCALE_IDEFAULTLANGUAGE are hexadecimal numbers."""
LOCALE_FONTSIGNATURE: Final = 0x58
DATE_SHORTDATE, DATE_LONGDATE, DATE_YEARMONTH = 1, 2, 8
TIME_NOMINUTESORSECONDS, TIME_NOSECONDS, TIME_NOTIMEMARKER, TIME_FORCE24HOURFORMAT = 1, 2, 4, 8
LANGUAGE_NAMES: Final = (0x8, 0x4)  # MUI_LANGUAGE_NAME, MUI_LANGUAGE_ID


def _named(thread: Thread, name: int) -> Locale | None:
    return by_name(thread.memory.wide(name) if name else None)


def _information(thread: Thread, text: Text, locale: Locale | None, kind: int, buffer: int, capacity: int) -> int:
    """A value as text, or as a number for LOCALE_RETURN_NUMBER."""
    if locale is None or capacity < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    value = locale.values.get(kind & LCTYPE_MASK)
    if value is None:
        return thread.fail(errors.ERROR_INVALID_FLAGS)
    if kind & LOCALE_RETURN_NUMBER:
        units = 4 // text.unit
        try:
            number = int(value, 16 if kind & LCTYPE_MASK in HEXADECIMAL else 10)
        except ValueError:
            return thread.fail(errors.ERROR_INVALID_FLAGS)
        if not capacity:
            return units
        if capacity < units:
            return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
        thread.memory.set_u32(buffer, number)
        return units
    return _given(thread, text, buffer, capacity, value)


def _given(thread: Thread, text: Text, buffer: int, capacity: int, value: str) -> int:
    count = give_or_needed(thread.memory, text, buffer, capacity, value)
    return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER) if count is None else count


@api("int GetLocaleInfoEx(LPCWSTR name, LCTYPE kind, LPWSTR buffer, int capacity)", "kernel32", "kernelbase")
def get_locale_info_ex(thread: Thread, name: int, kind: int, buffer: int, capacity: int) -> int:
    """A value of a locale by name."""
    return _information(thread, WIDE, _named(thread, name), kind, buffer, capacity)


@api("int GetLocaleInfoW(LCID locale, LCTYPE kind, LPWSTR buffer, int capacity)", "kernel32", "kernelbase")
def get_locale_info_w(thread: Thread, locale: int, kind: int, buffer: int, capacity: int) -> int:
    """A value of a locale by identifier."""
    return _information(thread, WIDE, by_lcid(locale), kind, buffer, capacity)


@api("int GetLocaleInfoA(LCID locale, LCTYPE kind, LPSTR buffer, int capacity)", "kernel32", "kernelbase")
def get_locale_info_a(thread: Thread, locale: int, kind: int, buffer: int, capacity: int) -> int:
    """A value of a locale by identifier."""
    return _information(thread, ANSI, by_lcid(locale), kind, buffer, capacity)


@api("BOOL SetLocaleInfoW(LCID locale, LCTYPE kind, LPCWSTR value)", "kernel32", "kernelbase", note="refused")
def set_locale_info_w(thread: Thread, locale: int, kind: int, value: int) -> int:
    """Locales do not change."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("BOOL IsValidLocale(LCID locale, DWORD flags)", "kernel32", "kernelbase")
def is_valid_locale(thread: Thread, locale: int, flags: int) -> int:
    """One of those served."""
    return int(by_lcid(locale) is not None)


@api("BOOL IsValidLocaleName(LPCWSTR name)", "kernel32", "kernelbase")
def is_valid_locale_name(thread: Thread, name: int) -> int:
    """One of those served."""
    return int(bool(name) and _named(thread, name) is not None)


@api("LCID LocaleNameToLCID(LPCWSTR name, DWORD flags)", "kernel32", "kernelbase")
def locale_name_to_lcid(thread: Thread, name: int, flags: int) -> int:
    """0 for an unknown one."""
    locale = _named(thread, name)
    return thread.fail(errors.ERROR_INVALID_PARAMETER) if locale is None else locale.lcid


@api("int LCIDToLocaleName(LCID locale, LPWSTR buffer, int capacity, DWORD flags)", "kernel32", "kernelbase")
def lcid_to_locale_name(thread: Thread, locale: int, buffer: int, capacity: int, flags: int) -> int:
    """0 for an unknown one."""
    found = by_lcid(locale)
    if found is None or capacity < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _given(thread, WIDE, buffer, capacity, found.name)


@api("int ResolveLocaleName(LPCWSTR name, LPWSTR buffer, int capacity)", "kernel32", "kernelbase")
def resolve_locale_name(thread: Thread, name: int, buffer: int, capacity: int) -> int:
    """A language's main locale."""
    return _given(thread, WIDE, buffer, capacity, (_named(thread, name) or INVARIANT).name)


def _default_name(thread: Thread, buffer: int, capacity: int) -> int:
    return _given(thread, WIDE, buffer, max(1, capacity), AMERICAN.name)


@api("int GetUserDefaultLocaleName(LPWSTR buffer, int capacity)", "kernel32", "kernelbase")
def get_user_default_locale_name(thread: Thread, buffer: int, capacity: int) -> int:
    """en-US."""
    return _default_name(thread, buffer, capacity)


@api("int GetSystemDefaultLocaleName(LPWSTR buffer, int capacity)", "kernel32", "kernelbase")
def get_system_default_locale_name(thread: Thread, buffer: int, capacity: int) -> int:
    """en-US."""
    return _default_name(thread, buffer, capacity)


@api("LCID GetUserDefaultLCID(void)", "kernel32", "kernelbase")
def get_user_default_lcid(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("LCID GetSystemDefaultLCID(void)", "kernel32", "kernelbase")
def get_system_default_lcid(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("LCID GetThreadLocale(void)", "kernel32", "kernelbase")
def get_thread_locale(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("BOOL SetThreadLocale(LCID locale)", "kernel32", "kernelbase")
def set_thread_locale(thread: Thread, locale: int) -> int:
    """Only to one that is served."""
    return 1 if by_lcid(locale) else thread.fail(errors.ERROR_INVALID_PARAMETER)


@api("LANGID GetUserDefaultLangID(void)", "kernel32", "kernelbase")
def get_user_default_lang_id(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("LANGID GetSystemDefaultLangID(void)", "kernel32", "kernelbase")
def get_system_default_lang_id(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("LANGID GetUserDefaultUILanguage(void)", "kernel32", "kernelbase")
def get_user_default_ui_language(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("LANGID GetSystemDefaultUILanguage(void)", "kernel32", "kernelbase")
def get_system_default_ui_language(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("LANGID GetThreadUILanguage(void)", "kernel32", "kernelbase")
def get_thread_ui_language(thread: Thread) -> int:
    """English (United States)."""
    return ENGLISH


@api("LANGID SetThreadUILanguage(LANGID language)", "kernel32", "kernelbase")
def set_thread_ui_language(thread: Thread, language: int) -> int:
    """English stays."""
    return ENGLISH


def _languages(thread: Thread, flags: int, count: int, buffer: int, size: int) -> int:
    """A list of one language, by name or by number."""
    name = "0409" if flags & LANGUAGE_NAMES[1] else AMERICAN.name
    data = WIDE.encode(f"{name}\0\0")
    thread.memory.set_u32(count, 1)
    available = thread.memory.u32(size)
    thread.memory.set_u32(size, len(data) // 2)
    if buffer:
        if available < len(data) // 2:
            return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
        thread.memory.write(buffer, data)
    return 1


@api("BOOL GetUserPreferredUILanguages(DWORD flags, PULONG count, LPWSTR buffer, PULONG size)", "kernel32",
     "kernelbase")  # fmt: skip
def get_user_preferred_ui_languages(thread: Thread, flags: int, count: int, buffer: int, size: int) -> int:
    """English."""
    return _languages(thread, flags, count, buffer, size)


@api("BOOL GetSystemPreferredUILanguages(DWORD flags, PULONG count, LPWSTR buffer, PULONG size)", "kernel32",
     "kernelbase")  # fmt: skip
def get_system_preferred_ui_languages(thread: Thread, flags: int, count: int, buffer: int, size: int) -> int:
    """English."""
    return _languages(thread, flags, count, buffer, size)


@api("BOOL GetThreadPreferredUILanguages(DWORD flags, PULONG count, LPWSTR buffer, PULONG size)", "kernel32",
     "kernelbase")  # fmt: skip
def get_thread_preferred_ui_languages(thread: Thread, flags: int, count: int, buffer: int, size: int) -> int:
    """English."""
    return _languages(thread, flags, count, buffer, size)


@api("BOOL GetProcessPreferredUILanguages(DWORD flags, PULONG count, LPWSTR buffer, PULONG size)", "kernel32",
     "kernelbase")  # fmt: skip
def get_process_preferred_ui_languages(thread: Thread, flags: int, count: int, buffer: int, size: int) -> int:
    """English."""
    return _languages(thread, flags, count, buffer, size)


@api("BOOL EnumSystemLocalesEx(FARPROC function, DWORD flags, LPARAM argument, LPVOID reserved)", "kernel32",
     "kernelbase")  # fmt: skip
def enum_system_locales_ex(thread: Thread, function: int, flags: int, argument: int, reserved: int) -> int:
    """Call with each name, until that gives false."""
    return _enumerate(thread, WIDE, (locale.name for locale in LOCALES), lambda text: (text, 0x20, argument), function)


@api("BOOL EnumSystemLocalesW(FARPROC function, DWORD flags)", "kernel32", "kernelbase")
def enum_system_locales_w(thread: Thread, function: int, flags: int) -> int:
    """Call with each identifier, in hexadecimal digits."""
    return _enumerate(thread, WIDE, (f"{AMERICAN.lcid:08x}",), lambda text: (text,), function)


@api("BOOL EnumSystemCodePagesW(FARPROC function, DWORD flags)", "kernel32", "kernelbase")
def enum_system_code_pages_w(thread: Thread, function: int, flags: int) -> int:
    """Call with each number, as text."""
    pages = (437, 850, 1250, 1251, 1252, 20127, 28591, 65000, 65001)
    return _enumerate(thread, WIDE, map(str, pages), lambda text: (text,), function)


def _enumerate(
    thread: Thread, text: Text, values: Iterable[str], arguments: Callable[[int], tuple[int, ...]], function: int
) -> int:
    """Call a guest's function with the address of each text, until it gives false."""
    for value in values:
        address = heaps.allocate(thread.process, text.encode(f"{value}\0"))
        more = thread.engine.call(function, *arguments(address)) & 0xFFFF_FFFF
        heaps.free(thread.process, address)
        if not more:
            break
    return 1


def _moment(thread: Thread, fields: int) -> SystemTime:
    """A guest's SYSTEMTIME, or local time now; raises NoSuchTime."""
    if not fields:
        return SystemTime.of(to_local(now()))
    return SystemTime.of(SystemTime.unpack(thread.memory.read(fields, SYSTEMTIME.size)).ticks)


def _time_of_day(thread: Thread, fields: int) -> SystemTime:
    """The same, of which only the time counts."""
    if not fields:
        return _moment(thread, 0)
    moment = SystemTime.unpack(thread.memory.read(fields, SYSTEMTIME.size))
    if moment.hour > 23 or moment.minute > 59 or moment.second > 59:
        raise NoSuchTime(repr(moment))
    return moment


def _date(
    thread: Thread, text: Text, locale: Locale | None, flags: int, fields: int, picture: int, buffer: int, capacity: int
) -> int:
    if locale is None or capacity < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    kind = 0x0020 if flags & DATE_LONGDATE else 0x1006 if flags & DATE_YEARMONTH else 0x001F
    shape = text.read(thread.memory, picture) if picture else locale.values[kind]
    try:
        made = locale_formats.date(_moment(thread, fields), shape)
    except NoSuchTime:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _given(thread, text, buffer, capacity, made)


def _time(
    thread: Thread, text: Text, locale: Locale | None, flags: int, fields: int, picture: int, buffer: int, capacity: int
) -> int:
    if locale is None or capacity < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    shape = text.read(thread.memory, picture) if picture else locale.values[0x1003]
    if flags & TIME_FORCE24HOURFORMAT:
        shape = shape.replace("hh", "H").replace("h", "H")
    if flags & TIME_NOMINUTESORSECONDS:
        shape = shape.replace(":mm", "").replace(":ss", "")
    if flags & TIME_NOSECONDS:
        shape = shape.replace(":ss", "")
    if flags & (TIME_NOTIMEMARKER | TIME_FORCE24HOURFORMAT):
        shape = shape.replace(" tt", "")
    try:
        made = locale_formats.time(_time_of_day(thread, fields), shape)
    except NoSuchTime:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _given(thread, text, buffer, capacity, made)


@api("int GetDateFormatW(LCID locale, DWORD flags, const SYSTEMTIME *fields, LPCWSTR picture, LPWSTR buffer,"
     " int capacity)", "kernel32", "kernelbase")  # fmt: skip
def get_date_format_w(
    thread: Thread, locale: int, flags: int, fields: int, picture: int, buffer: int, capacity: int
) -> int:
    """A date in a locale's words."""
    return _date(thread, WIDE, by_lcid(locale), flags, fields, picture, buffer, capacity)


@api("int GetDateFormatA(LCID locale, DWORD flags, const SYSTEMTIME *fields, LPCSTR picture, LPSTR buffer,"
     " int capacity)", "kernel32", "kernelbase")  # fmt: skip
def get_date_format_a(
    thread: Thread, locale: int, flags: int, fields: int, picture: int, buffer: int, capacity: int
) -> int:
    """A date in a locale's words."""
    return _date(thread, ANSI, by_lcid(locale), flags, fields, picture, buffer, capacity)


@api("int GetDateFormatEx(LPCWSTR name, DWORD flags, const SYSTEMTIME *fields, LPCWSTR picture, LPWSTR buffer,"
     " int capacity, LPCWSTR calendar)", "kernel32", "kernelbase")  # fmt: skip
def get_date_format_ex(
    thread: Thread, name: int, flags: int, fields: int, picture: int, buffer: int, capacity: int, calendar: int
) -> int:
    """A date in a locale's words."""
    return _date(thread, WIDE, _named(thread, name), flags, fields, picture, buffer, capacity)


@api("int GetTimeFormatW(LCID locale, DWORD flags, const SYSTEMTIME *fields, LPCWSTR picture, LPWSTR buffer,"
     " int capacity)", "kernel32", "kernelbase")  # fmt: skip
def get_time_format_w(
    thread: Thread, locale: int, flags: int, fields: int, picture: int, buffer: int, capacity: int
) -> int:
    """A time in a locale's words."""
    return _time(thread, WIDE, by_lcid(locale), flags, fields, picture, buffer, capacity)


@api("int GetTimeFormatA(LCID locale, DWORD flags, const SYSTEMTIME *fields, LPCSTR picture, LPSTR buffer,"
     " int capacity)", "kernel32", "kernelbase")  # fmt: skip
def get_time_format_a(
    thread: Thread, locale: int, flags: int, fields: int, picture: int, buffer: int, capacity: int
) -> int:
    """A time in a locale's words."""
    return _time(thread, ANSI, by_lcid(locale), flags, fields, picture, buffer, capacity)


@api("int GetTimeFormatEx(LPCWSTR name, DWORD flags, const SYSTEMTIME *fields, LPCWSTR picture, LPWSTR buffer,"
     " int capacity)", "kernel32", "kernelbase")  # fmt: skip
def get_time_format_ex(
    thread: Thread, name: int, flags: int, fields: int, picture: int, buffer: int, capacity: int
) -> int:
    """A time in a locale's words."""
    return _time(thread, WIDE, _named(thread, name), flags, fields, picture, buffer, capacity)


def _number(thread: Thread, locale: Locale | None, value: int, layout: int, buffer: int, capacity: int) -> int:
    if locale is None or capacity < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    memory, text = thread.memory, thread.memory.wide(value)
    try:
        if layout:  # NUMBERFMTW
            made = locale_formats.number(
                text, digits=memory.u32(layout), leading_zero=bool(memory.u32(layout + 4)),
                grouping=memory.u32(layout + 8), point=memory.wide(memory.u64(layout + 16)),
                comma=memory.wide(memory.u64(layout + 24)), negative=memory.u32(layout + 32),
            )  # fmt: skip
        else:
            made = locale_formats.number(text)
    except locale_formats.BadNumber:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _given(thread, WIDE, buffer, capacity, made)


@api("int GetNumberFormatW(LCID locale, DWORD flags, LPCWSTR value, LPVOID layout, LPWSTR buffer, int capacity)",
     "kernel32", "kernelbase")  # fmt: skip
def get_number_format_w(
    thread: Thread, locale: int, flags: int, value: int, layout: int, buffer: int, capacity: int
) -> int:
    """A number with its thousands."""
    return _number(thread, by_lcid(locale), value, layout, buffer, capacity)


@api("int GetNumberFormatEx(LPCWSTR name, DWORD flags, LPCWSTR value, LPVOID layout, LPWSTR buffer, int capacity)",
     "kernel32", "kernelbase")  # fmt: skip
def get_number_format_ex(
    thread: Thread, name: int, flags: int, value: int, layout: int, buffer: int, capacity: int
) -> int:
    """A number with its thousands."""
    return _number(thread, _named(thread, name), value, layout, buffer, capacity)


@api("int GetCurrencyFormatEx(LPCWSTR name, DWORD flags, LPCWSTR value, LPVOID layout, LPWSTR buffer, int capacity)",
     "kernel32", "kernelbase", note="with the locale's own layout only")  # fmt: skip
def get_currency_format_ex(
    thread: Thread, name: int, flags: int, value: int, layout: int, buffer: int, capacity: int
) -> int:
    """An amount of money."""
    locale = _named(thread, name)
    if locale is None or layout or capacity < 0:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    try:
        amount = locale_formats.number(thread.memory.wide(value), negative=1)
    except locale_formats.BadNumber:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    symbol = locale.values[0x14]
    made = f"-{symbol}{amount[1:]}" if amount.startswith("-") else symbol + amount
    return _given(thread, WIDE, buffer, capacity, made)


@api("int GetGeoInfoW(LONG location, DWORD kind, LPWSTR buffer, int capacity, LANGID language)", "kernel32",
     "kernelbase", note="of the United States")  # fmt: skip
def get_geo_info_w(thread: Thread, location: int, kind: int, buffer: int, capacity: int, language: int) -> int:
    """GEO_ISO2, GEO_ISO3 and the names."""
    values = {1: "244", 4: "US", 5: "USA", 8: "United States", 9: "United States"}
    if location != 244 or kind not in values:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return _given(thread, WIDE, buffer, capacity, values[kind])


@api("LONG GetUserGeoID(DWORD kind)", "kernel32", "kernelbase")
def get_user_geo_id(thread: Thread, kind: int) -> int:
    """The United States."""
    return 244


@api("BOOL IsNLSDefinedString(DWORD function, DWORD flags, LPVOID version, LPCWSTR text, int count)", "kernel32",
     "kernelbase")  # fmt: skip
def is_nls_defined_string(thread: Thread, function: int, flags: int, version: int, text: int, count: int) -> int:
    """Whether no character is unknown to Unicode."""
    return int(all(unicodedata.category(character) != "Cn" for character in WIDE.read(thread.memory, text, count)))


@api("BOOL GetNLSVersionEx(DWORD function, LPCWSTR name, LPVOID result)", "kernel32", "kernelbase")
def get_nls_version_ex(thread: Thread, function: int, name: int, result: int) -> int:
    """A version of the order of strings that never changes here."""
    thread.memory.set_u32(result + 4, 0x0006_0306)
    thread.memory.set_u32(result + 8, 0x0006_0306)
    return 1

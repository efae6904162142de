"""Dates, times, numbers and amounts of money as a locale writes them: pictures such as "dddd, MMMM d, yyyy"."""

import re
from typing import Final

from virtus.personalities.win32.file_time import SystemTime
from virtus.personalities.win32.locale_data import DAYS, MONTHS

NUMBER: Final = r"-?\d*(\.\d*)?"
PIECES: Final = r"(?s:'(?:[^']|'')*(?:'|$)|([A-Za-z])\1*|.)"
MOST_DIGITS: Final = 1000


class BadNumber(ValueError):
    """A text that is no number of GetNumberFormat: digits, one point, a minus sign in front."""


def _runs(picture: str) -> list[str]:
    """A picture taken apart: runs of one letter, texts in apostrophes (with them), and single other characters."""
    return [match[0] for match in re.finditer(PIECES, picture)]


def _quoted(run: str) -> str:
    return "'" if run == "''" else run.strip("'").replace("''", "'")


def date(moment: SystemTime, picture: str) -> str:
    """A date by a picture of d, M, y and g."""
    made = []
    for run in _runs(picture):
        if run[0] == "'":
            made.append(_quoted(run))
        elif run[0] == "d":
            name = DAYS[(moment.weekday - 1) % 7]
            made.append(
                {1: str(moment.day), 2: f"{moment.day:02}", 3: name[:3]}.get(len(run), name)
            )  # fmt: skip
        elif run[0] == "M":
            name = MONTHS[moment.month - 1]
            made.append({1: str(moment.month), 2: f"{moment.month:02}", 3: name[:3]}.get(len(run), name))
        elif run[0] == "y":
            short = moment.year % 100
            made.append({1: str(short), 2: f"{short:02}"}.get(len(run), f"{moment.year:04}"))
        elif run[0] == "g":
            made.append("A.D.")
        else:
            made.append(run)
    return "".join(made)


def time(moment: SystemTime, picture: str) -> str:
    """A time of day by a picture of h, H, m, s and t."""
    made = []
    half = moment.hour % 12 or 12
    for run in _runs(picture):
        if run[0] == "'":
            made.append(_quoted(run))
            continue
        values = {"h": half, "H": moment.hour, "m": moment.minute, "s": moment.second}
        if run[0] in values:
            value = values[run[0]]
            made.append(str(value) if len(run) == 1 else f"{value:02}")
        elif run[0] == "t":
            mark = "AM" if moment.hour < 12 else "PM"
            made.append(mark[:1] if len(run) == 1 else mark)
        else:
            made.append(run)
    return "".join(made)


def number(
    text: str, *, digits: int = 2, leading_zero: bool = True, grouping: int = 3, point: str = ".", comma: str = ",",
    negative: int = 1,
) -> str:  # fmt: skip
    """A number with groups of digits and a fixed fraction, rounded half up; raises BadNumber.

    `grouping` is NUMBERFMT's: 3 for thousands, 32 for the Indian way, 0 for none. `negative` is LOCALE_INEGNUMBER.
    """
    from decimal import ROUND_HALF_UP, Decimal, InvalidOperation, localcontext  # most programs write no amounts

    if not re.fullmatch(NUMBER, text) or text in ("", "-", ".", "-.") or len(text) > MOST_DIGITS or digits > 9:
        raise BadNumber(text)
    try:
        with localcontext() as context:
            context.prec = MOST_DIGITS + 20
            value = Decimal(text).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    except InvalidOperation:
        raise BadNumber(text) from None
    whole, _, fraction = f"{abs(value):f}".partition(".")
    if whole == "0" and not leading_zero and fraction:
        whole = ""
    sizes = [int(digit) for digit in str(grouping)] if grouping else []
    groups: list[str] = []
    while whole and sizes:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        if not size:
            break
        groups.insert(0, whole[-size:])
        whole = whole[:-size]
    body = comma.join(([whole] if whole else []) + groups) + (point + fraction if fraction else "")
    if value >= 0 or not value:
        return body
    return {0: f"({body})", 1: f"-{body}", 2: f"- {body}", 3: f"{body}-", 4: f"{body} -"}.get(negative, f"-{body}")

"""Which names a pattern means: the rules of Windows' file systems, and what the API makes of a program's pattern.

A file system knows five wildcards ([MS-FSA] 2.1.4.4): `*` any characters; `?` one; `<` any but the last period and
what follows; `>` one, or none at a period or the end; `"` a period, or none at the end. A program's `*.*`, `?` and `.`
become these, so that "a.*" finds "a" and "????" finds "ab" (Microsoft: FindFirstFile; MS-DOS 8.3 names).
"""

from functools import lru_cache
from typing import Final

from virtus.personalities.win32.characters import to_upper

DOS_STAR, DOS_QM, DOS_DOT = "<", ">", '"'
WILD: Final = frozenset('*?<>"')


def is_wild(name: str) -> bool:
    """Whether there is any wildcard."""
    return not WILD.isdisjoint(name)


def expression_of(pattern: str) -> str:
    """A file system's expression for a pattern of FindFirstFile."""
    if pattern in ("*.*", "*"):
        return "*"
    made = []
    for place, character in enumerate(pattern):
        following = pattern[place + 1 : place + 2]
        if character == "?":
            made.append(DOS_QM)
        elif character == "." and (following in ("?", "*") or (not following and place)):
            made.append(DOS_DOT)
        elif character == "*" and following == ".":
            made.append(DOS_STAR)
        else:
            made.append(character)
    return "".join(made)


@lru_cache(maxsize=256)
def _folded(expression: str) -> str:
    return to_upper(expression)


def matches(expression: str, name: str) -> bool:
    """Whether a name fits a file system's expression, whatever its case. In time of the product of their lengths."""
    wanted, name = _folded(expression), to_upper(name)
    last_period, end = name.rfind("."), len(name)
    places = {0}
    for character in wanted:
        following: set[int] = set()
        if character in ("*", DOS_STAR):
            for place in places:
                stop = place
                while stop < end and (character == "*" or stop != last_period):
                    stop += 1
                following.update(range(place, stop + 1))
        else:
            for place in places:
                here = name[place] if place < end else ""
                if character == DOS_QM:
                    following.add(place + 1 if here not in ("", ".") else place)
                elif character == DOS_DOT:
                    if here == "." or not here:
                        following.add(place + len(here))
                elif here and (character in ("?", here)):
                    following.add(place + 1)
        places = following
        if not places:
            return False
    return end in places


def fits(pattern: str, name: str) -> bool:
    """Whether FindFirstFile with a pattern finds a name."""
    return matches(expression_of(pattern), name)

r"""The drives: Z: is the root of the guest's files, and each volume that was given a letter is a drive of its own.

Such a volume is shown in the box at a directory of that letter (`place`); so every process of the box finds the same
drives, and a program that makes such a directory itself changes nothing but its own box.
"""

import os
from functools import cache
from typing import Final

ROOT: Final = "Z:"
PLACE: Final = "/run/virtus-drives"


def place(drive: str) -> str:
    """Where in the box a drive ("D:") is shown."""
    return f"{PLACE}/{drive[0].lower()}"


@cache
def bases() -> dict[str, str]:
    """The host path of each drive's root, without a slash at its end; looked up once."""
    try:
        names = sorted(os.listdir(PLACE))
    except OSError:
        names = []
    letters = [name for name in names if len(name) == 1 and "a" <= name < "z"]
    return {**{f"{letter.upper()}:": f"{PLACE}/{letter}" for letter in letters}, ROOT: ""}


def of(path: str) -> tuple[str, str]:
    """The drive that an absolute host path is on, and the path there, which begins with a slash."""
    if path.startswith(PLACE):
        for drive, base in bases().items():
            if base and (path == base or path.startswith(base + "/")):
                return drive, path[len(base) :] or "/"
    return ROOT, path

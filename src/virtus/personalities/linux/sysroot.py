"""Libraries for a foreign processor: absolute paths of libraries mean those of a sysroot, where it has them.

A guest for another processor sees the host's files, and among them the host's own libraries, which are of no use to it.
A sysroot, as cross compilers have one, holds the others under the same names.
"""

import os
from typing import Final

PLACES: Final = (b"/lib", b"/usr/lib")
"""What stands below begins so."""


def redirected(sysroots: tuple[str, ...], path: bytes) -> bytes:
    """The path to take instead of a guest's own: of the first sysroot that has such a file, else the same."""
    if path.startswith(PLACES):
        for root in sysroots:
            found = os.fsencode(root) + path
            if os.path.isfile(found):
                return found
    return path

"""Windows paths and the host's: Z: is the root of the guest's files; names are found whatever their case.

Source: Microsoft, Naming Files, Paths, and Namespaces.
"""

import os
import re
from typing import Final

from virtus.personalities.win32 import errors
from virtus.personalities.win32.process import Process

DRIVE: Final = "Z:"
VERBATIM, DEVICE, NT = "\\\\?\\", "\\\\.\\", "\\??\\"
RESERVED: Final = re.compile(r"(?i)(CON|PRN|AUX|NUL|COM[1-9]|LPT[1-9]|CONIN\$|CONOUT\$)[ .]*(\..*|:.*)?")
FORBIDDEN: Final = re.compile(r'[\0-\x1f<>"|?*]')
LONGEST_COMPONENT: Final = 255


class BadPath(Exception):
    """A path that names nothing here; `error` is Windows' number."""

    def __init__(self, error: int) -> None:
        super().__init__(error)
        self.error = error


def absolute(process: Process, name: str) -> str:
    """The path with its drive, "." and ".." resolved, as GetFullPathName gives it. Raises BadPath."""
    if not name:
        raise BadPath(errors.ERROR_PATH_NOT_FOUND)
    if name.startswith((VERBATIM, NT)):
        return VERBATIM + _unc(name[4:])
    name = name.replace("/", "\\")
    if name.startswith((DEVICE, VERBATIM)):
        return name
    if name.startswith("\\\\"):
        raise BadPath(errors.ERROR_BAD_NETPATH)
    if RESERVED.fullmatch(name.rpartition("\\")[2]):
        return DEVICE + name.rpartition("\\")[2].partition(".")[0].rstrip(" :")
    current = process.directory
    if name[1:2] == ":":
        drive, rest = name[:2].upper(), name[2:]
        if not rest.startswith("\\"):
            rest = (current[2:] if drive == current[:2].upper() else "\\") + "\\" + rest
    else:
        drive, rest = current[:2], name if name.startswith("\\") else current[2:] + "\\" + name
    parts: list[str] = []
    for part in rest.split("\\"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part.rstrip(" .") or part)
    ending = "\\" if rest.endswith("\\") and parts else ""
    return f"{drive}\\" + "\\".join(parts) + ending


def _unc(rest: str) -> str:
    if rest[:4].upper() == "UNC\\":
        raise BadPath(errors.ERROR_BAD_NETPATH)
    return rest


def to_host(process: Process, name: str) -> str:
    """The host path of a guest's path: of an existing file whatever the case, else where it would be made.

    Raises BadPath.
    """
    full = absolute(process, name)
    if full.startswith(DEVICE):
        device = full[4:].rstrip("\\").upper()
        if device == "NUL":
            return "/dev/null"
        if device in ("CON", "CONIN$", "CONOUT$"):
            return "/dev/tty"
        if device[1:2] != ":":
            raise BadPath(errors.ERROR_FILE_NOT_FOUND)
        full = full[4:]
    full = full.removeprefix(VERBATIM)
    if full[:2].upper() != DRIVE:
        raise BadPath(errors.ERROR_PATH_NOT_FOUND)
    rest = full[2:]
    if FORBIDDEN.search(rest) or ":" in rest:
        raise BadPath(errors.ERROR_INVALID_NAME)
    return find(os.path.normpath(rest.replace("\\", "/") or "/").replace("//", "/"))


def find(path: str) -> str:
    """An existing host path that differs in case alone, or the path as far as it exists and the rest as it stands."""
    path = path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    if os.path.lexists(path):
        return path
    found = "/"
    parts = [part for part in path.split("/") if part]
    for index, part in enumerate(parts):
        there = os.path.join(found, part)
        if not os.path.lexists(there):
            try:
                folded = part.casefold()
                match = next((name for name in os.listdir(found) if name.casefold() == folded), None)
            except OSError:
                match = None
            if match is None:
                return os.path.join(found, *parts[index:])
            there = os.path.join(found, match)
        found = there
    return found


def to_windows(path: str) -> str:
    """A host path as the guest writes it."""
    return DRIVE + (path.replace("/", "\\") if path.startswith("/") else "\\" + path.replace("/", "\\"))


def error_of(error: OSError, path: str) -> int:
    """Windows' number for what the host said of a path: a missing directory is told from a missing file."""
    number = errors.of_errno(error.errno or 0)
    if number == errors.ERROR_FILE_NOT_FOUND and not os.path.isdir(os.path.dirname(path) or "/"):
        return errors.ERROR_PATH_NOT_FOUND
    return number

r"""Windows paths and the host's, by drives (`drives`); names are found whatever their case.

A path is made absolute as Windows does it before anything is looked for: separators, "." and "..", periods and blanks
at ends, names of devices. `\\?\` says that this has been done. Names of 8.3 characters are not made, and other
machines' files are not reached. (Microsoft: Naming Files, Paths, and Namespaces; File path formats on Windows systems.)
"""

import os
import re
from typing import Final

from virtus.personalities.win32 import drives, errors
from virtus.personalities.win32.listings import LISTINGS
from virtus.personalities.win32.process import Process

VERBATIM, DEVICE, NT = "\\\\?\\", "\\\\.\\", "\\??\\"
RESERVED: Final = re.compile(
    r"(CON|PRN|AUX|NUL|COM[1-9¹²³]|LPT[1-9¹²³]|CONIN\$|CONOUT\$)[ ]*([.:].*)?", re.IGNORECASE | re.DOTALL
)
"""Names of devices, in any directory and with any extension."""
FORBIDDEN: Final = re.compile(r'[\0-\x1f<>"|?*:]')
_NAME: Final = r'[^\\/:*?"<>|\0-\x1f]*[^\\/:*?"<>|\0-\x1f. ]'
NORMAL: Final = re.compile(rf"(?:(?:\\\\\?\\)?([A-Za-z]:)\\|\.[\\/])?((?:{_NAME}[\\/])*({_NAME}))")
"""Paths that most programs give: absolute or relative, of names that nothing has to be done about. Groups: the drive,
the path below it or below the current directory, and its last name."""
DEVICES: Final = frozenset(("CON", "PRN", "AUX", "NUL", "COM", "LPT"))
"""How the names of `RESERVED` begin."""
DEFAULT_STREAM: Final = "::$DATA"
LONGEST_PATH: Final = 32_767


class BadPath(Exception):
    """A path that names nothing here; `error` is Windows' number."""

    def __init__(self, error: int) -> None:
        super().__init__(error)
        self.error = error


def absolute(process: Process, name: str) -> str:
    """The path with its drive, "." and ".." resolved, as GetFullPathName gives it. Raises BadPath."""
    match = NORMAL.fullmatch(name)
    if match is not None and len(name) <= LONGEST_PATH and not _names_device(match[3]):
        if match[1] is None:
            return process.directory.rstrip("\\") + "\\" + match[2].replace("/", "\\")
        if not name.startswith(VERBATIM):
            return match[1].upper() + "\\" + match[2].replace("/", "\\")
    if not name or len(name) > LONGEST_PATH:
        raise BadPath(errors.ERROR_FILENAME_EXCED_RANGE if name else errors.ERROR_PATH_NOT_FOUND)
    if name.startswith((VERBATIM, NT)):
        if name[4:8].upper() == "UNC\\":
            raise BadPath(errors.ERROR_BAD_NETPATH)
        return VERBATIM + name[4:]
    name = name.replace("/", "\\")
    if name.startswith((DEVICE, VERBATIM)):
        return DEVICE + "\\".join(_resolved(name[4:]))
    if name.startswith("\\\\"):
        raise BadPath(errors.ERROR_BAD_NETPATH)
    last = name.rpartition("\\")[2]
    bare = last[2:] if last[1:2] == ":" else last
    if RESERVED.fullmatch(bare):
        return DEVICE + re.split(r"[.: ]", bare, maxsplit=1)[0]
    drive, rest = (name[:2].upper(), name[2:]) if name[1:2] == ":" else (process.directory[:2].upper(), name)
    if not rest.startswith("\\"):
        rest = _directory_of(process, drive) + "\\" + rest
    parts = _resolved(rest)
    ending = "\\" if rest.endswith("\\") and parts else ""
    return f"{drive}\\" + "\\".join(parts) + ending


def _directory_of(process: Process, drive: str) -> str:
    """A drive's current directory without its drive: programs keep those of others in variables like "=D:"."""
    if process.directory[:2].upper() == drive:
        return process.directory[2:]
    kept = process.environment.get("=" + drive, "")
    return kept[2:] if kept[:3].upper() == drive + "\\" else ""


def _resolved(rest: str) -> list[str]:
    """The parts of a path, "." and ".." resolved: a single period at an end goes; of the last all, and blanks."""
    parts: list[str] = []
    if not rest.endswith("\\"):
        head, separator, last = rest.rpartition("\\")
        rest = head + separator + (last if last in (".", "..") else last.rstrip(" ."))
    for part in rest.split("\\"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            single = part.endswith(".") and not part.endswith("..")
            parts.append(part[:-1] if single else part)
    while parts and not rest.endswith("\\") and parts[-1][-1:] in (" ", "."):  # what "." or ".." has left at the end
        parts[-1] = parts[-1].rstrip(" .")
        if not parts[-1]:
            parts.pop()
    return parts


def to_host(process: Process, name: str) -> str:
    """The host path of a guest's path: of an existing file whatever the case, else where it would be made.

    Raises BadPath.
    """
    usual = plain(process, name)
    if usual is not None:
        return find(usual)
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
    base = drives.bases().get(full[:2].upper())
    if base is None or full[2:3] not in ("", "\\"):
        raise BadPath(errors.ERROR_PATH_NOT_FOUND)
    parts = [part for part in full[2:].split("\\") if part]
    if "." in parts or ".." in parts:  # only a verbatim path has them still, and there they are names like any
        raise BadPath(errors.ERROR_INVALID_NAME)
    return find(f"{base}/" + "/".join(host_names(parts)))


def plain(process: Process, name: str) -> str | None:
    """The same of a usual path, as it stands: files may have it in another case. None for an unusual one."""
    match = NORMAL.fullmatch(name)
    if match is None or len(name) > LONGEST_PATH:
        return None
    drive, rest, last = match.groups()
    if _names_device(last) or (name.startswith(VERBATIM) and "/" in name) or not is_encodable(rest):
        return None
    if drive is None:
        directory = process.directory
        base = drives.bases().get(directory[:2])
        below = directory[2:].replace("\\", "/").rstrip("/")
        return None if base is None else f"{base}{below}/{rest}".replace("\\", "/")
    base = drives.bases().get(drive.upper())
    return None if base is None else f"{base}/{rest}".replace("\\", "/")


def _names_device(last: str) -> bool:
    return last[:3].upper() in DEVICES and RESERVED.fullmatch(last) is not None


def is_encodable(text: str) -> bool:
    """Whether the host can have such a name: none has half of a character."""
    if text.isascii():
        return True
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def host_names(parts: list[str]) -> list[str]:
    """Names as the host can have them; raises BadPath for those that it or Windows cannot."""
    if parts and parts[-1].upper().endswith(DEFAULT_STREAM):
        parts = [*parts[:-1], parts[-1][: -len(DEFAULT_STREAM)]]
    for part in parts:
        if not part or FORBIDDEN.search(part) or "/" in part:
            raise BadPath(errors.ERROR_INVALID_NAME)
    if not is_encodable("".join(parts)):
        raise BadPath(errors.ERROR_INVALID_NAME)
    return parts


def find(path: str) -> str:
    """An existing host path that differs in case alone, or the path as far as it exists and the rest as it stands."""
    if os.path.lexists(path):
        return path
    head, _, name = path.rpartition("/")
    if not name:
        return path
    parent = find(head or "/")
    there = os.path.join(parent, name)
    if parent != (head or "/") and os.path.lexists(there):
        return there
    match = LISTINGS.match(parent, name)
    return there if match is None else os.path.join(parent, match)


def missing(path: str) -> int:
    """Windows' error where surely nothing has this name, in whatever case; 0 where it may be there all the same."""
    head, _, name = path.rpartition("/")
    try:
        found = LISTINGS.of(head or "/")
        if found.has(name) is not None:
            return 0
        LISTINGS.expect(found)
        return errors.ERROR_FILE_NOT_FOUND
    except FileNotFoundError:
        return errors.ERROR_PATH_NOT_FOUND if missing(head) else 0
    except OSError:
        return 0


def to_windows(path: str) -> str:
    """A host path as the guest writes it."""
    drive, rest = drives.of(path if path.startswith("/") else "/" + path)
    return drive + rest.replace("/", "\\")


def error_of(error: OSError, path: str) -> int:
    """Windows' number for what the host said of a path: a missing directory is told from a missing file."""
    number = errors.of_errno(error.errno or 0)
    if number == errors.ERROR_FILE_NOT_FOUND and not os.path.isdir(os.path.dirname(path) or "/"):
        return errors.ERROR_PATH_NOT_FOUND
    return number

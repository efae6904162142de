"""Reparse points: the host's symbolic links, as control codes read, set and remove them ([MS-FSCC] 2.1.2).

A junction is made as a symbolic link, since the host has no other kind.
"""

import errno
import os
import stat
import struct
from typing import Final

from virtus.personalities.win32 import errors, paths
from virtus.personalities.win32.code_pages import from_utf16, utf16
from virtus.personalities.win32.file_objects import File
from virtus.personalities.win32.process import Process

GET_REPARSE_POINT, SET_REPARSE_POINT, DELETE_REPARSE_POINT = 0x900A8, 0x900A4, 0x900AC
SET_SPARSE, SET_ZERO_DATA, SET_COMPRESSION, GET_COMPRESSION = 0x900C4, 0x980C8, 0x9C040, 0x9003C
TAG_SYMLINK, TAG_MOUNT_POINT = 0xA000_000C, 0xA000_0003
RELATIVE: Final = 1
ERROR_INVALID_REPARSE_DATA, ERROR_REPARSE_TAG_INVALID = 4392, 4393
STATUSES: Final = {
    errors.ERROR_NOT_A_REPARSE_POINT: 0xC000_0275, ERROR_INVALID_REPARSE_DATA: 0xC000_0278,
    ERROR_REPARSE_TAG_INVALID: 0xC000_0276, errors.ERROR_ACCESS_DENIED: 0xC000_0022,
    errors.ERROR_INVALID_PARAMETER: 0xC000_000D, errors.ERROR_DIR_NOT_EMPTY: 0xC000_0101,
}  # fmt: skip


def target_to_windows(target: str) -> tuple[str, bool]:
    """A link's target as Windows writes it, and whether it is relative."""
    if target.startswith("/"):
        return paths.to_windows(target), False
    return target.replace("/", "\\"), True


def target_to_host(process: Process, target: str) -> str:
    """A target as the host's link has it: relative ones stay so; raises BadPath."""
    if target.startswith("\\") or target[1:2] == ":":
        return paths.to_host(process, target)
    return target.replace("\\", "/")


def read(target: str) -> bytes:
    """REPARSE_DATA_BUFFER of a symbolic link."""
    shown, relative = target_to_windows(target)
    substitute = shown if relative else "\\??\\" + shown
    first, second = utf16(substitute), utf16(shown)
    body = struct.pack("<4HI", 0, len(first), len(first), len(second), RELATIVE if relative else 0) + first + second
    return struct.pack("<IHH", TAG_SYMLINK, len(body), 0) + body


def parse(data: bytes) -> tuple[str, int]:
    """Target and tag of a REPARSE_DATA_BUFFER; raises ValueError for one that is malformed or of another kind."""
    if len(data) < 8:
        raise ValueError("too short")
    tag, size = struct.unpack_from("<IH", data)
    head = {TAG_SYMLINK: 12, TAG_MOUNT_POINT: 8}.get(tag)
    if head is None or size + 8 != len(data) or size < head:
        raise ValueError("not a link")
    start, length = struct.unpack_from("<HH", data, 8)
    text = data[8 + head :]
    if start + length > len(text) or length % 2 or not length:
        raise ValueError("a name beyond the end")
    return from_utf16(text[start : start + length]), tag


def control(process: Process, opened: File, code: int, data: bytes) -> tuple[int, bytes]:
    """A control code of a file: Windows' error, and what it answers."""
    try:
        if code == GET_REPARSE_POINT:
            return 0, read(os.readlink(opened.path))
        if code == SET_REPARSE_POINT:
            return _set(process, opened, data), b""
        if code == DELETE_REPARSE_POINT:
            return _delete(opened), b""
        if code == SET_ZERO_DATA:
            if len(data) < 16:
                return errors.ERROR_INVALID_PARAMETER, b""
            start, end = struct.unpack_from("<QQ", data)
            return _zero(opened.fd, start, min(end, os.fstat(opened.fd).st_size)), b""
    except OSError as error:
        known = error.errno == errno.EINVAL and code == GET_REPARSE_POINT
        return errors.ERROR_NOT_A_REPARSE_POINT if known else errors.of_errno(error.errno or 0), b""
    if code == GET_COMPRESSION:
        return 0, struct.pack("<H", 0)
    return (0 if code in (SET_SPARSE, SET_COMPRESSION) else errors.ERROR_INVALID_FUNCTION), b""


def _zero(fd: int, start: int, end: int) -> int:
    zeros = bytes(1 << 16)
    while start < end:
        start += os.pwrite(fd, zeros[: end - start], start)
    return 0


def _set(process: Process, opened: File, data: bytes) -> int:
    """Replace an empty file or directory, which the program has made for this, by a link."""
    try:
        target, _ = parse(data)
        host = target_to_host(process, target)
    except ValueError:
        return ERROR_INVALID_REPARSE_DATA
    except paths.BadPath as bad:
        return bad.error
    status = os.fstat(opened.fd)
    if stat.S_ISDIR(status.st_mode):
        os.rmdir(opened.path)
    elif status.st_size:
        return errors.ERROR_ACCESS_DENIED
    else:
        os.unlink(opened.path)
    os.symlink(host, opened.path)
    return 0


def _delete(opened: File) -> int:
    """A link becomes the empty directory or file that it stood for."""
    if not os.path.islink(opened.path):
        return errors.ERROR_NOT_A_REPARSE_POINT
    directory = os.path.isdir(opened.path)
    os.unlink(opened.path)
    if directory:
        os.mkdir(opened.path)
    else:
        os.close(os.open(opened.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    return 0

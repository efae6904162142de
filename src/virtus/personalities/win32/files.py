"""Files: opening them, positions, sizes, with Windows' semantics on the host's files.

Share modes hold among the handles of one process: Linux programs know none. (Microsoft: CreateFile, Creating and
Opening Files.)
"""

import os
import stat
from typing import Final

from virtus.personalities.win32 import console_input, errors, file_objects, paths, pipes, sharing
from virtus.personalities.win32.file_objects import (
    APPEND_DATA,
    GENERIC_ALL,
    GENERIC_READ,
    GENERIC_WRITE,
    INVALID,
    READ_DATA,
    TYPE_DISK,
    WRITE_DATA,
    File,
)
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

CREATE_NEW, CREATE_ALWAYS, OPEN_EXISTING, OPEN_ALWAYS, TRUNCATE_EXISTING = 1, 2, 3, 4, 5
FLAG_OVERLAPPED, FLAG_BACKUP, FLAG_DELETE, FLAG_OPEN_LINK = 0x4000_0000, 0x0200_0000, 0x0400_0000, 0x0020_0000
ATTRIBUTE_READ_ONLY: Final = 1
CHANGES: Final = GENERIC_WRITE | GENERIC_ALL | WRITE_DATA | APPEND_DATA
"""Access that opens for writing."""
SPECIAL: Final = FLAG_OVERLAPPED | FLAG_DELETE | FLAG_OPEN_LINK
DELETE: Final = 0x1_0000
SHARE_ALL: Final = 7
INVALID_32: Final = 0xFFFF_FFFF
CONSOLES: Final = ("CONIN$", "CONOUT$", "CON")


def flags_of(access: int) -> int:
    """The host's flags for what a file is opened for."""
    reads = access & (GENERIC_READ | GENERIC_ALL | READ_DATA)
    if access & (GENERIC_WRITE | GENERIC_ALL | WRITE_DATA | APPEND_DATA):
        return os.O_RDWR if reads else os.O_WRONLY
    return os.O_RDONLY


def open_file(
    thread: Thread, path: str, access: int, share: int, disposition: int, flags: int, *, inheritable: bool = False
) -> tuple[int, int]:
    """Open a host path: a handle and the last error (0, or that it was there already); handle 0 with an error."""
    mode = flags_of(access) | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        status = os.lstat(path) if flags & FLAG_OPEN_LINK else os.stat(path)
    except OSError:
        status = None
    truncate = disposition == TRUNCATE_EXISTING or (disposition == CREATE_ALWAYS and status is not None)
    if disposition == TRUNCATE_EXISTING and not access & (GENERIC_WRITE | GENERIC_ALL | WRITE_DATA):
        return 0, errors.ERROR_INVALID_PARAMETER
    if status is not None:
        if disposition == CREATE_NEW:
            return 0, errors.ERROR_FILE_EXISTS
        refused = _refusal(thread, status, access, share, flags, truncate=truncate)
        if refused:
            return 0, refused
        if stat.S_ISDIR(status.st_mode):
            mode = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        elif stat.S_ISLNK(status.st_mode):
            mode = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    elif disposition in (CREATE_NEW, CREATE_ALWAYS, OPEN_ALWAYS):
        mode |= os.O_CREAT | (os.O_EXCL if disposition == CREATE_NEW else 0)
    try:
        fd = _open(path, mode, 0o444 if flags & ATTRIBUTE_READ_ONLY else 0o666)
    except FileExistsError:
        return 0, errors.ERROR_FILE_EXISTS
    except OSError as error:
        return 0, paths.error_of(error, path)
    try:
        if truncate:
            os.ftruncate(fd, 0)
    except OSError as error:
        os.close(fd)
        return 0, paths.error_of(error, path)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        os.set_blocking(fd, True)
    append_only = bool(access & APPEND_DATA) and not access & (WRITE_DATA | GENERIC_WRITE | GENERIC_ALL)
    file = File(fd, path, access, append_only, bool(flags & FLAG_OVERLAPPED), bool(flags & FLAG_DELETE))
    file.mode = status.st_mode
    if not sharing.enter(thread.process, file, status, access, share):
        file.discard()
        return 0, errors.ERROR_SHARING_VIOLATION
    existed = disposition in (CREATE_ALWAYS, OPEN_ALWAYS) and not mode & os.O_CREAT
    return file_objects.add(thread, file, inheritable=inheritable), errors.ERROR_ALREADY_EXISTS if existed else 0


def _open_there(
    thread: Thread, path: str, access: int, share: int, flags: int, *, inheritable: bool
) -> tuple[int, int]:
    """Open for reading what has exactly this path, as `open_file` does; (0, 0) where it has not, or is no plain file or
    directory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except FileNotFoundError:
        return 0, paths.missing(path)
    except OSError:
        return 0, 0
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        os.close(fd)
        return 0, 0
    refused = _refusal(thread, status, access, share, flags, truncate=False)
    if refused:
        os.close(fd)
        return 0, refused
    file = File(fd, path, access, mode=status.st_mode)
    if not sharing.enter(thread.process, file, status, access, share):
        file.discard()
        return 0, errors.ERROR_SHARING_VIOLATION
    return file_objects.add(thread, file, inheritable=inheritable), 0


def _refusal(thread: Thread, status: os.stat_result, access: int, share: int, flags: int, *, truncate: bool) -> int:
    """Why a file that is there cannot be opened so; 0 for no reason."""
    writes = access & (GENERIC_WRITE | GENERIC_ALL | WRITE_DATA | APPEND_DATA)
    if stat.S_ISDIR(status.st_mode):
        if truncate or not flags & FLAG_BACKUP:
            return errors.ERROR_ACCESS_DENIED
    elif stat.S_ISREG(status.st_mode) and not status.st_mode & 0o222 and (writes or truncate):
        return errors.ERROR_ACCESS_DENIED
    if flags & FLAG_DELETE and not status.st_mode & 0o222:
        return errors.ERROR_ACCESS_DENIED
    if flags & FLAG_DELETE:
        access |= DELETE
    if truncate:
        access |= WRITE_DATA
    return errors.ERROR_SHARING_VIOLATION if sharing.conflict(thread.process, status, access, share) else 0


def _open(path: str, mode: int, permissions: int) -> int:
    try:
        return os.open(path, mode, permissions)
    except PermissionError:
        if mode & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise
        return os.open(path, os.O_PATH | os.O_CLOEXEC)  # its attributes may still be asked for


def _open_console(thread: Thread, name: str, *, inheritable: bool) -> int:
    try:
        fd = console_input.terminal_of_process()
    except OSError:
        standard = file_objects.of(thread, thread.process.streams[0 if name == "CONIN$" else 1])
        if standard is None or not standard.is_console:
            return thread.fail(errors.ERROR_INVALID_HANDLE, INVALID)
        fd = os.dup(standard.fd)
    thread.last_error = errors.ERROR_SUCCESS
    return file_objects.add(thread, File(fd, name), inheritable=inheritable)


def _create(
    thread: Thread, text: Text, name: int, access: int, share: int, security: int, disposition: int, flags: int
) -> int:
    inherit = bool(security and thread.memory.u32(security + 16))
    word = text.read(thread.memory, name)
    if disposition == OPEN_EXISTING and not access & CHANGES and not flags & SPECIAL:
        usual = paths.plain(thread.process, word)
        if usual is not None:
            handle, error = _open_there(thread, usual, access, share, flags, inheritable=inherit)
            if handle or error:
                thread.last_error = error
                return handle or INVALID
    if not CREATE_NEW <= disposition <= TRUNCATE_EXISTING:
        return thread.fail(errors.ERROR_INVALID_PARAMETER, INVALID)
    bare = word.upper().replace("/", "\\").removeprefix(paths.DEVICE).removeprefix(paths.VERBATIM)
    if bare in CONSOLES:
        if bare == "CON":
            bare = "CONOUT$" if access & (GENERIC_WRITE | WRITE_DATA) else "CONIN$"
        return _open_console(thread, bare, inheritable=inherit)
    pipe = pipes.name_of(word)
    if pipe is not None:
        return pipes.connect(thread, pipe, access, overlapped=bool(flags & FLAG_OVERLAPPED), inheritable=inherit)
    try:
        path = paths.to_host(thread.process, word)
    except paths.BadPath as bad:
        return thread.fail(bad.error, INVALID)
    if word.endswith(("\\", "/")) and not os.path.isdir(path):
        there = os.path.isdir(os.path.dirname(path.rstrip("/")))
        return thread.fail(errors.ERROR_INVALID_NAME if there else errors.ERROR_PATH_NOT_FOUND, INVALID)
    handle, error = open_file(thread, path, access, share, disposition, flags, inheritable=inherit)
    thread.last_error = error
    return handle or INVALID


SHARING_NOTE: Final = "share modes hold within the process"


@api("HANDLE CreateFileW(LPCWSTR name, DWORD access, DWORD share, LPVOID security, DWORD disposition, DWORD flags,"
     " HANDLE template)", "kernel32", "kernelbase", note=SHARING_NOTE)  # fmt: skip
def create_file_w(
    thread: Thread, name: int, access: int, share: int, security: int, disposition: int, flags: int, template: int
) -> int:
    """Open or make a file, directory, device or pipe's end."""
    return _create(thread, WIDE, name, access, share, security, disposition, flags)


@api("HANDLE CreateFileA(LPCSTR name, DWORD access, DWORD share, LPVOID security, DWORD disposition, DWORD flags,"
     " HANDLE template)", "kernel32", "kernelbase", note=SHARING_NOTE)  # fmt: skip
def create_file_a(
    thread: Thread, name: int, access: int, share: int, security: int, disposition: int, flags: int, template: int
) -> int:
    """Open or make a file, directory, device or pipe's end."""
    return _create(thread, ANSI, name, access, share, security, disposition, flags)


@api("HANDLE CreateFile2(LPCWSTR name, DWORD access, DWORD share, DWORD disposition, LPVOID parameters)", "kernel32",
     "kernelbase", note=SHARING_NOTE)  # fmt: skip
def create_file2(thread: Thread, name: int, access: int, share: int, disposition: int, parameters: int) -> int:
    """The same; attributes, flags and security stand in CREATEFILE2_EXTENDED_PARAMETERS."""
    flags = security = 0
    if parameters:
        flags = thread.memory.u32(parameters + 4) | thread.memory.u32(parameters + 8)
        security = thread.memory.u64(parameters + 16)
    return _create(thread, WIDE, name, access, share, security, disposition, flags)


@api("HANDLE ReOpenFile(HANDLE file, DWORD access, DWORD share, DWORD flags)", "kernel32", "kernelbase",
     note=SHARING_NOTE)  # fmt: skip
def re_open_file(thread: Thread, file: int, access: int, share: int, flags: int) -> int:
    """Another handle of an open file, with a position of its own."""
    found = file_objects.of(thread, file)
    if found is None or not found.path or found.kind != TYPE_DISK:
        return thread.fail(errors.ERROR_INVALID_HANDLE, INVALID)
    handle, error = open_file(thread, found.path, access, share, OPEN_EXISTING, flags)
    thread.last_error = error
    return handle or INVALID


@api("BOOL SetFilePointerEx(HANDLE file, LARGE_INTEGER distance, LARGE_INTEGER* place, DWORD method)", "kernel32",
     "kernelbase")  # fmt: skip
def set_file_pointer_ex(thread: Thread, file: int, distance: int, place: int, method: int) -> int:
    """Move where the file stands."""
    moved = _seek(thread, file, distance, method)
    if moved is None:
        return 0
    if place:
        thread.memory.set_u64(place, moved)
    return 1


def _seek(thread: Thread, file: int, distance: int, method: int) -> int | None:
    found = file_objects.of(thread, file)
    if found is None:
        thread.fail(errors.ERROR_INVALID_HANDLE)
        return None
    try:
        return os.lseek(found.fd, distance, (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END)[method])
    except IndexError:
        thread.fail(errors.ERROR_INVALID_PARAMETER)
    except OSError as error:
        negative = found.kind == TYPE_DISK and error.errno == 22  # EINVAL: before the file's start
        thread.fail(errors.ERROR_NEGATIVE_SEEK if negative else errors.ERROR_INVALID_FUNCTION)
    return None


@api("DWORD SetFilePointer(HANDLE file, LONG distance, LONG* high, DWORD method)", "kernel32", "kernelbase")
def set_file_pointer(thread: Thread, file: int, distance: int, high: int, method: int) -> int:
    """The same in two halves."""
    if high:
        distance = distance & INVALID_32 | thread.memory.u32(high) << 32
        distance -= (distance >> 63) << 64
    moved = _seek(thread, file, distance, method)
    if moved is None:
        return INVALID_32
    if high:
        thread.memory.set_u32(high, moved >> 32)
    thread.last_error = 0
    return moved & INVALID_32


@api("BOOL SetEndOfFile(HANDLE file)", "kernel32", "kernelbase")
def set_end_of_file(thread: Thread, file: int) -> int:
    """Cut or lengthen it to where it stands."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    try:
        os.ftruncate(found.fd, os.lseek(found.fd, 0, os.SEEK_CUR))
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    return 1


@api("BOOL FlushFileBuffers(HANDLE file)", "kernel32", "kernelbase")
def flush_file_buffers(thread: Thread, file: int) -> int:
    """To the disk, where it is on one."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if found.kind == TYPE_DISK:
        try:
            os.fsync(found.fd)
        except OSError as error:
            return thread.fail(errors.of_errno(error.errno or 0))
    return 1


@api("BOOL GetFileSizeEx(HANDLE file, LARGE_INTEGER* size)", "kernel32", "kernelbase")
def get_file_size_ex(thread: Thread, file: int, size: int) -> int:
    """Bytes of it."""
    found = file_objects.of(thread, file)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if found.kind != TYPE_DISK:
        return thread.fail(errors.ERROR_INVALID_FUNCTION)
    thread.memory.set_u64(size, os.fstat(found.fd).st_size)
    return 1


@api("DWORD GetFileSize(HANDLE file, DWORD* high)", "kernel32", "kernelbase")
def get_file_size(thread: Thread, file: int, high: int) -> int:
    """The same in two halves."""
    found = file_objects.of(thread, file)
    if found is None or found.kind != TYPE_DISK:
        return thread.fail(errors.ERROR_INVALID_HANDLE, INVALID_32)
    size = os.fstat(found.fd).st_size
    if high:
        thread.memory.set_u32(high, size >> 32)
    thread.last_error = 0
    return size & INVALID_32

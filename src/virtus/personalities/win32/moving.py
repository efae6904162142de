"""Files under other names: moving, copying, deleting, links."""

import errno
import os
import shutil
import stat
from typing import Final

from virtus.personalities.win32 import errors, paths, sharing
from virtus.personalities.win32.file_objects import GENERIC_WRITE
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.sharing import SHARE_READ
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

REPLACE_EXISTING, COPY_ALLOWED, DELAY = 1, 2, 4
FAIL_IF_EXISTS: Final = 1
SYMLINK_DIRECTORY: Final = 1


def _path(thread: Thread, text: Text, name: int) -> str:
    return paths.to_host(thread.process, text.read(thread.memory, name))


def _delete(thread: Thread, text: Text, name: int) -> int:
    path = ""
    try:
        path = _path(thread, text, name)
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode) or (stat.S_ISLNK(status.st_mode) and os.path.isdir(path)):
            return thread.fail(errors.ERROR_ACCESS_DENIED)  # RemoveDirectory takes links to directories away
        if not status.st_mode & 0o222:
            return thread.fail(errors.ERROR_ACCESS_DENIED)  # read-only files are not deleted
        if not sharing.deletable(thread.process, status):
            return thread.fail(errors.ERROR_SHARING_VIOLATION)
        os.unlink(path)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except IsADirectoryError:
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    except OSError as error:
        return thread.fail(paths.error_of(error, path))
    return 1


@api("BOOL DeleteFileW(LPCWSTR name)", "kernel32", "kernelbase")
def delete_file_w(thread: Thread, name: int) -> int:
    """Delete a file."""
    return _delete(thread, WIDE, name)


@api("BOOL DeleteFileA(LPCSTR name)", "kernel32", "kernelbase")
def delete_file_a(thread: Thread, name: int) -> int:
    """Delete a file."""
    return _delete(thread, ANSI, name)


def _in_the_way(thread: Thread, status: os.stat_result, there: os.stat_result, flags: int) -> int:
    """Why a file cannot be put in place of another; 0 for no reason."""
    if os.path.samestat(status, there):
        return 0
    if not flags & REPLACE_EXISTING:
        return errors.ERROR_ALREADY_EXISTS
    if stat.S_ISDIR(there.st_mode) or stat.S_ISDIR(status.st_mode) or not there.st_mode & 0o222:
        return errors.ERROR_ACCESS_DENIED
    return 0 if sharing.deletable(thread.process, there) else errors.ERROR_ACCESS_DENIED


def _move(thread: Thread, text: Text, source: int, target: int, flags: int) -> int:
    old = ""
    try:
        old = _path(thread, text, source)
        if not target:
            return thread.fail(errors.ERROR_NOT_SUPPORTED)  # deletion at the next boot
        name = text.read(thread.memory, target)
        new, status = paths.to_host(thread.process, name), os.lstat(old)
        if not sharing.deletable(thread.process, status):
            return thread.fail(errors.ERROR_SHARING_VIOLATION)
        if os.path.lexists(new):
            refused = _in_the_way(thread, status, os.lstat(new), flags)
            if refused:
                return thread.fail(refused)
            if os.path.samestat(status, os.lstat(new)):  # only the case changes, perhaps
                wanted = paths.absolute(thread.process, name).rstrip("\\").rpartition("\\")[2]
                new = os.path.join(os.path.dirname(new), wanted)
        try:
            os.rename(old, new)
        except OSError as error:
            if error.errno != errno.EXDEV or not flags & COPY_ALLOWED or stat.S_ISDIR(status.st_mode):
                raise
            shutil.copy2(old, new, follow_symlinks=False)
            os.unlink(old)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(paths.error_of(error, old))
    return 1


@api("BOOL MoveFileExW(LPCWSTR source, LPCWSTR target, DWORD flags)", "kernel32", "kernelbase")
def move_file_ex_w(thread: Thread, source: int, target: int, flags: int) -> int:
    """Another name, perhaps in place of a file."""
    return _move(thread, WIDE, source, target, flags)


@api("BOOL MoveFileExA(LPCSTR source, LPCSTR target, DWORD flags)", "kernel32", "kernelbase")
def move_file_ex_a(thread: Thread, source: int, target: int, flags: int) -> int:
    """Another name, perhaps in place of a file."""
    return _move(thread, ANSI, source, target, flags)


@api("BOOL MoveFileW(LPCWSTR source, LPCWSTR target)", "kernel32", "kernelbase")
def move_file_w(thread: Thread, source: int, target: int) -> int:
    """Another name."""
    return _move(thread, WIDE, source, target, COPY_ALLOWED)


@api("BOOL MoveFileA(LPCSTR source, LPCSTR target)", "kernel32", "kernelbase")
def move_file_a(thread: Thread, source: int, target: int) -> int:
    """Another name."""
    return _move(thread, ANSI, source, target, COPY_ALLOWED)


def _copy(thread: Thread, text: Text, source: int, target: int, flags: int) -> int:
    old = ""
    try:
        old, new = _path(thread, text, source), _path(thread, text, target)
        if flags & FAIL_IF_EXISTS and os.path.lexists(new):
            return thread.fail(errors.ERROR_FILE_EXISTS)
        if os.path.isdir(old) or os.path.isdir(new):
            return thread.fail(errors.ERROR_ACCESS_DENIED)
        if os.path.exists(new):
            there = os.stat(new)
            if not there.st_mode & 0o222:
                return thread.fail(errors.ERROR_ACCESS_DENIED)
            if sharing.conflict(thread.process, there, GENERIC_WRITE, SHARE_READ):
                return thread.fail(errors.ERROR_SHARING_VIOLATION)
        shutil.copyfile(old, new)
        shutil.copystat(old, new)
    except shutil.SameFileError:
        return thread.fail(errors.ERROR_SHARING_VIOLATION)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(paths.error_of(error, old))
    return 1


@api("BOOL CopyFileW(LPCWSTR source, LPCWSTR target, BOOL fail_if_exists)", "kernel32", "kernelbase")
def copy_file_w(thread: Thread, source: int, target: int, fail_if_exists: int) -> int:
    """A copy with its times."""
    return _copy(thread, WIDE, source, target, int(bool(fail_if_exists)))


@api("BOOL CopyFileA(LPCSTR source, LPCSTR target, BOOL fail_if_exists)", "kernel32", "kernelbase")
def copy_file_a(thread: Thread, source: int, target: int, fail_if_exists: int) -> int:
    """A copy with its times."""
    return _copy(thread, ANSI, source, target, int(bool(fail_if_exists)))


@api("BOOL CopyFileExW(LPCWSTR source, LPCWSTR target, LPVOID progress, LPVOID data, BOOL* cancel, DWORD flags)",
     "kernel32", "kernelbase", note="progress is not told")  # fmt: skip
def copy_file_ex_w(thread: Thread, source: int, target: int, progress: int, data: int, cancel: int, flags: int) -> int:
    """A copy with its times."""
    return _copy(thread, WIDE, source, target, flags)


@api("BOOL CreateHardLinkW(LPCWSTR name, LPCWSTR existing, LPVOID security)", "kernel32", "kernelbase")
def create_hard_link_w(thread: Thread, name: int, existing: int, security: int) -> int:
    """Another name of a file."""
    return _link(thread, WIDE, name, existing)


@api("BOOLEAN CreateSymbolicLinkW(LPCWSTR name, LPCWSTR target, DWORD flags)", "kernel32", "kernelbase")
def create_symbolic_link_w(thread: Thread, name: int, target: int, flags: int) -> int:
    """A symbolic link; one to a relative path stays relative."""
    new = ""
    try:
        new = _path(thread, WIDE, name)
        word = WIDE.read(thread.memory, target)
        relative = not word.startswith("\\") and word[1:2] != ":"
        if relative:
            paths.host_names([part for part in word.replace("/", "\\").split("\\") if part])
        os.symlink(word.replace("\\", "/") if relative else paths.to_host(thread.process, word), new)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(paths.error_of(error, new))
    return 1


def _link(thread: Thread, text: Text, name: int, existing: int) -> int:
    new = ""
    try:
        new = _path(thread, text, name)
        os.link(_path(thread, text, existing), new)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except IsADirectoryError:
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    except OSError as error:
        return thread.fail(paths.error_of(error, new))
    return 1


@api("BOOL CreateHardLinkA(LPCSTR name, LPCSTR existing, LPVOID security)", "kernel32", "kernelbase")
def create_hard_link_a(thread: Thread, name: int, existing: int, security: int) -> int:
    """Another name of a file."""
    return _link(thread, ANSI, name, existing)


@api("BOOL ReplaceFileW(LPCWSTR replaced, LPCWSTR replacement, LPCWSTR backup, DWORD flags, LPVOID exclude,"
     " LPVOID reserved)", "kernel32", "kernelbase")  # fmt: skip
def replace_file_w(
    thread: Thread, replaced: int, replacement: int, backup: int, flags: int, exclude: int, reserved: int
) -> int:
    """Put a file in place of another, which stays under a third name if one is given; its mode passes on."""
    old = ""
    try:
        old, new = _path(thread, WIDE, replaced), _path(thread, WIDE, replacement)
        there, fresh = os.stat(old), os.stat(new)
        if not sharing.deletable(thread.process, there) or not sharing.deletable(thread.process, fresh):
            return thread.fail(errors.ERROR_SHARING_VIOLATION)
        if backup:
            kept = _path(thread, WIDE, backup)
            if os.path.lexists(kept):
                os.unlink(kept)
            os.link(old, kept)
        os.chmod(new, stat.S_IMODE(there.st_mode))
        os.rename(new, old)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(paths.error_of(error, old))
    return 1

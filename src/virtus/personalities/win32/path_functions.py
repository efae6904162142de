"""Functions of paths that look at no contents: full, long and temporary paths, drives, volumes, searches."""

import os
import struct
from typing import Final

from virtus.personalities.win32 import drives, environment, errors, paths
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give, store

DRIVE_NO_ROOT, DRIVE_FIXED = 1, 3
CASE_PRESERVED, UNICODE_ON_DISK, REPARSE_POINTS, HARD_LINKS = 0x2, 0x4, 0x80, 0x40_0000
SECTOR, CLUSTER = 512, 8
TEMPORARY: Final = "Z:\\tmp\\"


def _full(thread: Thread, text: Text, name: int, size: int, buffer: int, file_part: int) -> int:
    try:
        path = paths.absolute(thread.process, text.read(thread.memory, name))
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    result = give(thread.memory, text, buffer, size, path)
    if file_part and buffer and result < size:
        last = path.rfind("\\") + 1
        place = buffer + len(text.encode(path[:last])) if last < len(path) else 0
        thread.memory.set_u64(file_part, place)
    return result


@api("DWORD GetFullPathNameW(LPCWSTR name, DWORD size, LPWSTR buffer, LPWSTR* file_part)", "kernel32", "kernelbase")
def get_full_path_name_w(thread: Thread, name: int, size: int, buffer: int, file_part: int) -> int:
    """The absolute path."""
    return _full(thread, WIDE, name, size, buffer, file_part)


@api("DWORD GetFullPathNameA(LPCSTR name, DWORD size, LPSTR buffer, LPSTR* file_part)", "kernel32", "kernelbase")
def get_full_path_name_a(thread: Thread, name: int, size: int, buffer: int, file_part: int) -> int:
    """The absolute path."""
    return _full(thread, ANSI, name, size, buffer, file_part)


def _existing(thread: Thread, text: Text, name: int, buffer: int, size: int, *, true_case: bool) -> int:
    word = text.read(thread.memory, name)
    try:
        path = paths.to_host(thread.process, word)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    if not os.path.lexists(path):
        return thread.fail(errors.ERROR_FILE_NOT_FOUND)
    if true_case and word[1:2] == ":":
        word = paths.to_windows(path)
    return give(thread.memory, text, buffer, size, word)


@api("DWORD GetLongPathNameW(LPCWSTR name, LPWSTR buffer, DWORD size)", "kernel32", "kernelbase")
def get_long_path_name_w(thread: Thread, name: int, buffer: int, size: int) -> int:
    """The path with the case that the files have."""
    return _existing(thread, WIDE, name, buffer, size, true_case=True)


@api("DWORD GetShortPathNameW(LPCWSTR name, LPWSTR buffer, DWORD size)", "kernel32", "kernelbase",
     note="there are no short names")  # fmt: skip
def get_short_path_name_w(thread: Thread, name: int, buffer: int, size: int) -> int:
    """The path itself."""
    return _existing(thread, WIDE, name, buffer, size, true_case=False)


def _temporary(thread: Thread, text: Text, size: int, buffer: int) -> int:
    value = environment.value_of(thread.process, "TMP") or environment.value_of(thread.process, "TEMP") or TEMPORARY
    return give(thread.memory, text, buffer, size, value.rstrip("\\") + "\\")


@api("DWORD GetTempPathW(DWORD size, LPWSTR buffer)", "kernel32", "kernelbase")
def get_temp_path_w(thread: Thread, size: int, buffer: int) -> int:
    """Where temporary files go."""
    return _temporary(thread, WIDE, size, buffer)


@api("DWORD GetTempPathA(DWORD size, LPSTR buffer)", "kernel32", "kernelbase")
def get_temp_path_a(thread: Thread, size: int, buffer: int) -> int:
    """Where temporary files go."""
    return _temporary(thread, ANSI, size, buffer)


@api("DWORD GetTempPath2W(DWORD size, LPWSTR buffer)", "kernel32", "kernelbase")
def get_temp_path2_w(thread: Thread, size: int, buffer: int) -> int:
    """Where temporary files go."""
    return _temporary(thread, WIDE, size, buffer)


@api("UINT GetTempFileNameW(LPCWSTR directory, LPCWSTR prefix, UINT unique, LPWSTR buffer)", "kernel32", "kernelbase")
def get_temp_file_name_w(thread: Thread, directory: int, prefix: int, unique: int, buffer: int) -> int:
    """A name for a temporary file, which is made unless the caller brings a number."""
    word = WIDE.read(thread.memory, directory)
    start = WIDE.read(thread.memory, prefix)[:3] if prefix else ""
    try:
        host = paths.to_host(thread.process, word)
        number = unique & 0xFFFF
        while not unique:
            number = int.from_bytes(os.urandom(2), "little") or 1
            try:
                os.close(os.open(os.path.join(host, f"{start}{number:X}.tmp"), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
                break
            except FileExistsError:
                continue
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError:
        return thread.fail(errors.ERROR_DIRECTORY)
    store(thread.memory, WIDE, buffer, word.rstrip("\\") + f"\\{start}{number:X}.tmp")
    return number


def drive_type(word: str) -> int:
    """Of the drive that a path begins with."""
    return DRIVE_FIXED if word.removeprefix(paths.VERBATIM)[:2].upper() in drives.bases() else DRIVE_NO_ROOT


@api("UINT GetDriveTypeW(LPCWSTR root)", "kernel32", "kernelbase")
def get_drive_type_w(thread: Thread, root: int) -> int:
    """All drives are fixed disks."""
    word = WIDE.read(thread.memory, root) if root else thread.process.directory
    return drive_type(word)


@api("DWORD GetLogicalDrives(void)", "kernel32", "kernelbase")
def get_logical_drives(thread: Thread) -> int:
    """A bit for each drive."""
    return sum(1 << ord(drive[0]) - ord("A") for drive in drives.bases())


@api("DWORD GetLogicalDriveStringsW(DWORD size, LPWSTR buffer)", "kernel32", "kernelbase")
def get_logical_drive_strings_w(thread: Thread, size: int, buffer: int) -> int:
    """Their roots."""
    words = "".join(f"{drive}\\\0" for drive in sorted(drives.bases()))
    return give(thread.memory, WIDE, buffer, size, words)


@api("BOOL GetVolumeInformationW(LPCWSTR root, LPWSTR name, DWORD name_size, DWORD* serial, DWORD* longest,"
     " DWORD* flags, LPWSTR system, DWORD system_size)", "kernel32", "kernelbase")  # fmt: skip
def get_volume_information_w(
    thread: Thread, root: int, name: int, name_size: int, serial: int, longest: int, flags: int, system: int,
    system_size: int,
) -> int:  # fmt: skip
    """It behaves as NTFS does."""
    memory = thread.memory
    if name and name_size:
        store(memory, WIDE, name, "")
    for place, value in (
        (serial, 0x56495254), (longest, 255), (flags, CASE_PRESERVED | UNICODE_ON_DISK | REPARSE_POINTS | HARD_LINKS),
    ):  # fmt: skip
        if place:
            memory.set_u32(place, value)
    if system and system_size >= 5:
        store(memory, WIDE, system, "NTFS")
    return 1


@api("BOOL GetVolumeInformationByHandleW(HANDLE file, LPWSTR name, DWORD name_size, DWORD* serial, DWORD* longest,"
     " DWORD* flags, LPWSTR system, DWORD system_size)", "kernel32", "kernelbase")  # fmt: skip
def get_volume_information_by_handle_w(
    thread: Thread, file: int, name: int, name_size: int, serial: int, longest: int, flags: int, system: int,
    system_size: int,
) -> int:  # fmt: skip
    """The same of the volume that a file is on."""
    return get_volume_information_w(thread, 0, name, name_size, serial, longest, flags, system, system_size)


@api("BOOL GetVolumePathNameW(LPCWSTR name, LPWSTR buffer, DWORD size)", "kernel32", "kernelbase")
def get_volume_path_name_w(thread: Thread, name: int, buffer: int, size: int) -> int:
    """The root of the drive."""
    if size < 4:
        return thread.fail(errors.ERROR_FILENAME_EXCED_RANGE)
    try:
        full = paths.absolute(thread.process, WIDE.read(thread.memory, name)).removeprefix(paths.VERBATIM)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    if full[:2].upper() not in drives.bases():
        return thread.fail(errors.ERROR_PATH_NOT_FOUND)
    store(thread.memory, WIDE, buffer, full[:2].upper() + "\\")
    return 1


def _space(thread: Thread, directory: int) -> "os.statvfs_result | None":
    try:
        word = WIDE.read(thread.memory, directory) if directory else thread.process.directory
        return os.statvfs(paths.to_host(thread.process, word))
    except paths.BadPath as bad:
        thread.fail(bad.error)
    except OSError as error:
        thread.fail(errors.of_errno(error.errno or 0))
    return None


@api("BOOL GetDiskFreeSpaceExW(LPCWSTR directory, ULONGLONG* available, ULONGLONG* total, ULONGLONG* free)", "kernel32",
     "kernelbase")  # fmt: skip
def get_disk_free_space_ex_w(thread: Thread, directory: int, available: int, total: int, free: int) -> int:
    """Bytes."""
    found = _space(thread, directory)
    if found is None:
        return 0
    for place, blocks in ((available, found.f_bavail), (total, found.f_blocks), (free, found.f_bfree)):
        if place:
            thread.memory.set_u64(place, blocks * found.f_frsize)
    return 1


@api("BOOL GetDiskFreeSpaceW(LPCWSTR root, DWORD* sectors, DWORD* bytes, DWORD* free, DWORD* total)", "kernel32",
     "kernelbase")  # fmt: skip
def get_disk_free_space_w(thread: Thread, root: int, sectors: int, bytes: int, free: int, total: int) -> int:
    """Clusters of eight sectors."""
    found = _space(thread, root)
    if found is None:
        return 0
    unit = found.f_frsize / (SECTOR * CLUSTER)
    counts = (CLUSTER, SECTOR, int(found.f_bavail * unit), int(found.f_blocks * unit))
    for place, value in zip((sectors, bytes, free, total), counts, strict=True):
        if place:
            thread.memory.write(place, struct.pack("<I", min(value, 0xFFFF_FFFF)))
    return 1


def search(thread: Thread, name: str, extension: str, directories: str | None) -> str | None:
    """A file's Windows path as SearchPath finds it: the program's directory, the current one, PATH."""
    process = thread.process
    if directories is None:
        program = paths.to_windows(process.modules.directory)
        directories = ";".join((program, process.directory, environment.value_of(process, "PATH") or ""))
    names = [name] if "." in name.rpartition("\\")[2] or not extension else [name + extension]
    if "\\" in name or "/" in name or name[1:2] == ":":
        places = names
    else:
        places = [part.rstrip("\\") + "\\" + each for part in directories.split(";") if part for each in names]
    for place in places:
        try:
            if os.path.isfile(paths.to_host(process, place)):
                return paths.absolute(process, place)
        except paths.BadPath:
            continue
    return None


def _search(
    thread: Thread, text: Text, path: int, name: int, extension: int, size: int, buffer: int, file_part: int
) -> int:
    memory = thread.memory
    found = search(
        thread, text.read(memory, name), text.read(memory, extension) if extension else "",
        text.read(memory, path) if path else None,
    )  # fmt: skip
    if found is None:
        return thread.fail(errors.ERROR_FILE_NOT_FOUND)
    if file_part and buffer:
        memory.set_u64(file_part, buffer + len(text.encode(found[: found.rfind("\\") + 1])))
    return give(memory, text, buffer, size, found)


@api("DWORD SearchPathW(LPCWSTR path, LPCWSTR name, LPCWSTR extension, DWORD size, LPWSTR buffer, LPWSTR* file_part)",
     "kernel32", "kernelbase")  # fmt: skip
def search_path_w(thread: Thread, path: int, name: int, extension: int, size: int, buffer: int, file_part: int) -> int:
    """Look for a file where programs are."""
    return _search(thread, WIDE, path, name, extension, size, buffer, file_part)


@api("DWORD SearchPathA(LPCSTR path, LPCSTR name, LPCSTR extension, DWORD size, LPSTR buffer, LPSTR* file_part)",
     "kernel32")  # fmt: skip
def search_path_a(thread: Thread, path: int, name: int, extension: int, size: int, buffer: int, file_part: int) -> int:
    """Look for a file where programs are."""
    return _search(thread, ANSI, path, name, extension, size, buffer, file_part)


@api("BOOL NeedCurrentDirectoryForExePathW(LPCWSTR name)", "kernel32", "kernelbase")
def need_current_directory_for_exe_path_w(thread: Thread, name: int) -> int:
    """Whether a program is looked for in the current directory too: unless the environment says otherwise."""
    if "\\" in WIDE.read(thread.memory, name):
        return 1
    return int(environment.value_of(thread.process, "NoDefaultCurrentDirectoryInExePath") is None)


@api("void SetFileApisToOEM(void)", "kernel32", "kernelbase")
def set_file_apis_to_oem(thread: Thread) -> None:
    """Both code pages are UTF-8."""


@api("void SetFileApisToANSI(void)", "kernel32", "kernelbase")
def set_file_apis_to_ansi(thread: Thread) -> None:
    """Both code pages are UTF-8."""


@api("BOOL AreFileApisANSI(void)", "kernel32", "kernelbase")
def are_file_apis_ansi(thread: Thread) -> int:
    """They are."""
    return 1

"""Volumes and devices by native functions: what a file lies on, and control codes ([MS-FSCC] 2.3, 2.5)."""

import os
import struct
from typing import Final

from virtus.personalities.win32 import errors, file_objects, ntstatus, reparse_points
from virtus.personalities.win32.code_pages import utf16
from virtus.personalities.win32.file_objects import TYPE_CHAR, TYPE_DISK, TYPE_PIPE, File
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

VOLUME, SIZE, DEVICE, ATTRIBUTE, FULL_SIZE = 1, 3, 4, 5, 7
"""FS_INFORMATION_CLASS."""
DEVICE_KINDS: Final = {TYPE_DISK: 0x7, TYPE_PIPE: 0x11, TYPE_CHAR: 0x50}
"""FILE_DEVICE_DISK, FILE_DEVICE_NAMED_PIPE, FILE_DEVICE_CONSOLE."""
DEVICE_NULL: Final = 0x15
FEATURES: Final = 0x2 | 0x4 | 0x80 | 0x40_0000
"""FILE_CASE_PRESERVED_NAMES, FILE_UNICODE_ON_DISK, reparse points and hard links."""
LONGEST_COMPONENT: Final = 255
SECTOR, SECTORS_PER_UNIT = 512, 8


def _describe(opened: File, kind: int) -> bytes | None:
    status = os.fstat(opened.fd)
    if kind == DEVICE:
        null = opened.kind == TYPE_CHAR and not opened.is_console
        return struct.pack("<II", DEVICE_NULL if null else DEVICE_KINDS[opened.kind], 0)
    if opened.kind != TYPE_DISK:
        return None
    if kind == VOLUME:
        return struct.pack("<QIIBx", 0, status.st_dev & 0xFFFF_FFFF, 0, 1)
    if kind == ATTRIBUTE:
        name = utf16("NTFS")
        return struct.pack("<IiI", FEATURES, LONGEST_COMPONENT, len(name)) + name
    space = os.fstatvfs(opened.fd)
    unit = SECTOR * SECTORS_PER_UNIT
    total, free = space.f_blocks * space.f_frsize // unit, space.f_bavail * space.f_frsize // unit
    if kind == SIZE:
        return struct.pack("<QQII", total, free, SECTORS_PER_UNIT, SECTOR)
    if kind == FULL_SIZE:
        actual = space.f_bfree * space.f_frsize // unit
        return struct.pack("<QQQII", total, free, actual, SECTORS_PER_UNIT, SECTOR)
    return None


@api("NTSTATUS NtQueryVolumeInformationFile(HANDLE file, LPVOID block, LPVOID data, ULONG size, int kind)", "ntdll")
def nt_query_volume_information_file(thread: Thread, file: int, block: int, data: int, size: int, kind: int) -> int:
    """What a file lies on: its kind of device, size, name of the file system."""
    opened = file_objects.of(thread, file)
    if opened is None:
        return ntstatus.INVALID_HANDLE
    try:
        stored = _describe(opened, kind)
    except OSError:
        return ntstatus.ACCESS_DENIED
    if stored is None:
        return ntstatus.INVALID_INFO_CLASS
    status = 0
    if len(stored) > size:
        if kind not in (VOLUME, ATTRIBUTE):
            return ntstatus.INFO_LENGTH_MISMATCH
        status, stored = ntstatus.BUFFER_OVERFLOW, stored[:size]
    thread.memory.write(data, stored)
    thread.memory.write(block, struct.pack("<QQ", status, len(stored)))
    return status


@api("NTSTATUS NtFsControlFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block, ULONG code,"
     " LPVOID input, ULONG input_size, LPVOID output, ULONG output_size)", "ntdll",
     note="of control codes, reparse points and sparse files")  # fmt: skip
def nt_fs_control_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, code: int, input: int,
    input_size: int, output: int, output_size: int,
) -> int:  # fmt: skip
    """A control code of a file system."""
    opened = file_objects.of(thread, file)
    if opened is None:
        return ntstatus.INVALID_HANDLE
    data = thread.memory.read(input, input_size) if input and input_size else b""
    error, answer = reparse_points.control(thread.process, opened, code, data)
    if error:
        return reparse_points.STATUSES.get(error, 0xC000_0010)
    status = 0
    if len(answer) > output_size:
        status, answer = ntstatus.BUFFER_OVERFLOW, answer[:output_size]
    thread.memory.write(output, answer)
    thread.memory.write(block, struct.pack("<QQ", status, len(answer)))
    return status


@api("BOOL DeviceIoControl(HANDLE device, DWORD code, LPVOID input, DWORD input_size, LPVOID output,"
     " DWORD output_size, DWORD* count, LPOVERLAPPED overlapped)", "kernel32", "kernelbase",
     note="of control codes, reparse points and sparse files")  # fmt: skip
def device_io_control(
    thread: Thread, device: int, code: int, input: int, input_size: int, output: int, output_size: int, count: int,
    overlapped: int,
) -> int:  # fmt: skip
    """A control code; ERROR_INVALID_FUNCTION for those that are not there."""
    opened = file_objects.of(thread, device)
    if opened is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    data = thread.memory.read(input, input_size) if input and input_size else b""
    error, answer = reparse_points.control(thread.process, opened, code, data)
    if error:
        return thread.fail(error)
    if len(answer) > output_size:
        error, answer = errors.ERROR_MORE_DATA, answer[:output_size]
    thread.memory.write(output, answer)
    if count:
        thread.memory.set_u32(count, len(answer))
    return thread.fail(error) if error else 1

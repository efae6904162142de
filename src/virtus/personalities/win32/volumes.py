r"""Drives by other names, and what cannot be changed of them: each has one volume.

(Microsoft: Volume Management Functions.) A volume's name is `\\?\Volume{...}\`; labels and new drives are refused.
"""

import os
from typing import Final

from virtus.personalities.win32 import drives, errors, path_functions, paths
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, give, store

OTHERS: Final = {"NUL": "\\Device\\Null", "CON": "\\Device\\ConDrv\\Console"}
PE_HEADER: Final = 0x3C
MACHINE_AMD64: Final = 0x8664
BINARY_32, BINARY_64 = 0, 6
"""SCS_32BIT_BINARY, SCS_64BIT_BINARY."""


def volume_of(drive: str) -> str:
    """The name of a drive's volume."""
    return f"\\\\?\\Volume{{76697274-7573-4000-8000-{ord(drive[0]):012x}}}\\"


def devices() -> dict[str, str]:
    """What the names of devices stand for."""
    ordered = sorted(drives.bases(), reverse=True)  # Z: is the first
    return {drive: f"\\Device\\HarddiskVolume{number}" for number, drive in enumerate(ordered, 1)} | OTHERS


@api("UINT GetDriveTypeA(LPCSTR root)", "kernel32", "kernelbase")
def get_drive_type_a(thread: Thread, root: int) -> int:
    """All drives are fixed disks."""
    return path_functions.drive_type(ANSI.read(thread.memory, root) if root else thread.process.directory)


@api("BOOL GetVolumeInformationA(LPCSTR root, LPSTR name, DWORD name_size, DWORD* serial, DWORD* longest,"
     " DWORD* flags, LPSTR system, DWORD system_size)", "kernel32", "kernelbase")  # fmt: skip
def get_volume_information_a(
    thread: Thread, root: int, name: int, name_size: int, serial: int, longest: int, flags: int, system: int,
    system_size: int,
) -> int:  # fmt: skip
    """It behaves as NTFS does."""
    done = path_functions.get_volume_information_w(thread, 0, 0, 0, serial, longest, flags, 0, 0)
    if name and name_size:
        store(thread.memory, ANSI, name, "")
    if system and system_size >= 5:
        store(thread.memory, ANSI, system, "NTFS")
    return done


@api("DWORD QueryDosDeviceW(LPCWSTR name, LPWSTR buffer, DWORD size)", "kernel32", "kernelbase")
def query_dos_device_w(thread: Thread, name: int, buffer: int, size: int) -> int:
    """What a device's name stands for; without a name, all names."""
    if name:
        target = devices().get(WIDE.read(thread.memory, name).upper())
        if target is None:
            return thread.fail(errors.ERROR_FILE_NOT_FOUND)
        words = target + "\0"
    else:
        words = "\0".join(devices()) + "\0"
    count = give(thread.memory, WIDE, buffer, size, words)
    return count + 1 if count < size else thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)


@api("BOOL DefineDosDeviceW(DWORD flags, LPCWSTR name, LPCWSTR target)", "kernel32", "kernelbase")
def define_dos_device_w(thread: Thread, flags: int, name: int, target: int) -> int:
    """Refused: the drives are the sandbox's."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("BOOL SetVolumeLabelW(LPCWSTR root, LPCWSTR label)", "kernel32", "kernelbase")
def set_volume_label_w(thread: Thread, root: int, label: int) -> int:
    """Refused: the disk is the host's."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("BOOL GetVolumeNameForVolumeMountPointW(LPCWSTR place, LPWSTR buffer, DWORD size)", "kernel32", "kernelbase")
def get_volume_name_for_volume_mount_point_w(thread: Thread, place: int, buffer: int, size: int) -> int:
    """The volume of a drive's root."""
    wanted = WIDE.read(thread.memory, place).upper()
    drive = next((each for each in drives.bases() if wanted in (each + "\\", volume_of(each).upper())), None)
    if drive is None:
        return thread.fail(errors.ERROR_INVALID_NAME)
    if give(thread.memory, WIDE, buffer, size, volume_of(drive)) >= size:
        return thread.fail(errors.ERROR_FILENAME_EXCED_RANGE)
    return 1


@api("BOOL GetVolumePathNamesForVolumeNameW(LPCWSTR volume, LPWSTR buffer, DWORD size, DWORD* needed)", "kernel32",
     "kernelbase")  # fmt: skip
def get_volume_path_names_for_volume_name_w(thread: Thread, volume: int, buffer: int, size: int, needed: int) -> int:
    """The drives of a volume."""
    wanted = WIDE.read(thread.memory, volume).upper()
    drive = next((each for each in drives.bases() if volume_of(each).upper() == wanted), None)
    if drive is None:
        return thread.fail(errors.ERROR_FILE_NOT_FOUND)
    words = f"{drive}\\\0"
    thread.memory.set_u32(needed, len(words) + 1)
    if give(thread.memory, WIDE, buffer, size, words) >= size:
        return thread.fail(errors.ERROR_MORE_DATA)
    return 1


@api("BOOL GetBinaryTypeW(LPCWSTR name, DWORD* kind)", "kernel32", "kernelbase")
def get_binary_type_w(thread: Thread, name: int, kind: int) -> int:
    """Of a Windows program, whether it is of 32 bits or 64; ERROR_BAD_EXE_FORMAT for any other file."""
    path = ""
    try:
        path = paths.to_host(thread.process, WIDE.read(thread.memory, name))
        with open(path, "rb") as stream:
            head = stream.read(4096)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(paths.error_of(error, path))
    place = int.from_bytes(head[PE_HEADER : PE_HEADER + 4], "little")
    if head[:2] != b"MZ" or head[place : place + 4] != b"PE\0\0":
        return thread.fail(errors.ERROR_BAD_EXE_FORMAT)
    machine = int.from_bytes(head[place + 4 : place + 6], "little")
    thread.memory.set_u32(kind, BINARY_64 if machine == MACHINE_AMD64 else BINARY_32)
    return 1


@api("BOOL CreateDirectoryExW(LPCWSTR template, LPCWSTR name, LPVOID security)", "kernel32", "kernelbase")
def create_directory_ex_w(thread: Thread, template: int, name: int, security: int) -> int:
    """A new directory with the mode of another."""
    path = ""
    try:
        path = paths.to_host(thread.process, WIDE.read(thread.memory, template))
        mode = os.stat(path).st_mode
        path = paths.to_host(thread.process, WIDE.read(thread.memory, name))
        os.mkdir(path)
        os.chmod(path, mode & 0o777)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(paths.error_of(error, path))
    return 1


@api("UINT SetHandleCount(UINT count)", "kernel32", "kernelbase")
def set_handle_count(thread: Thread, count: int) -> int:
    """There is room for as many."""
    return count


@api("BOOL CancelSynchronousIo(HANDLE thread)", "kernel32", "kernelbase",
     note="operations that wait within a call cannot be cancelled")  # fmt: skip
def cancel_synchronous_io(thread: Thread, handle: int) -> int:
    """ERROR_NOT_FOUND: as where no operation goes on."""
    return thread.fail(errors.ERROR_NOT_FOUND)

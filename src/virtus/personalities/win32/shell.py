"""The shell's functions that console programs call: command lines, known folders; paths as texts (shlwapi)."""

import struct
import uuid
from typing import Final

from virtus.personalities.win32 import command_line, errors, heaps
from virtus.personalities.win32.characters import to_upper
from virtus.personalities.win32.code_pages import utf16
from virtus.personalities.win32.environment import value_of
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give_counted

S_OK, S_FALSE = 0, 1
E_INVALIDARG: Final = -0x7FF8_FFA9
E_FILE_NOT_FOUND: Final = -0x7FF8_FFFE
MAX_PATH: Final = 260
SE_ERR_ACCESSDENIED: Final = 5

PROFILE, ROAMING, LOCAL, PROGRAM_DATA = "USERPROFILE", "APPDATA", "LOCALAPPDATA", "ProgramData"
KNOWN_FOLDERS: Final = {
    "5E6C858F-0E22-4760-9AFE-EA3317B67173": (PROFILE, ""),
    "3EB685DB-65F9-4CF6-A03A-E3EF65729F3D": (ROAMING, ""),
    "F1B32785-6FBA-4FCF-9D55-7B8E7F157091": (LOCAL, ""),
    "A520A1A4-1780-4FF6-BD18-167343C5AF16": (PROFILE, r"AppData\LocalLow"),
    "62AB5D82-FDC1-4DC3-A9DD-070D1D495D97": (PROGRAM_DATA, ""),
    "B4BFCC3A-DB2C-424C-B029-7FE99A87C641": (PROFILE, "Desktop"),
    "FDD39AD0-238F-46AF-ADB4-6C85480369C7": (PROFILE, "Documents"),
    "374DE290-123F-4565-9164-39C4925E467B": (PROFILE, "Downloads"),
    "33E28130-4E1E-4676-835A-98395C3BC3BB": (PROFILE, "Pictures"),
    "4BD8D571-6D19-48D3-BE97-422220080E43": (PROFILE, "Music"),
    "18989B1D-99B5-455B-841C-AB7C74E4DDFC": (PROFILE, "Videos"),
    "A77F5D77-2E2B-44C3-A6A2-ABA601054A51": (ROAMING, r"Microsoft\Windows\Start Menu\Programs"),
    "625B53C3-AB48-4EC1-BA1F-A1EF4146FC19": (ROAMING, r"Microsoft\Windows\Start Menu"),
    "A63293E8-664E-48DB-A079-DF759E0509F7": (ROAMING, r"Microsoft\Windows\Templates"),
    "F38BF404-1D43-42F2-9305-67DE0B28FC23": ("SystemRoot", ""),
    "1AC14E77-02E7-4E5D-B744-2EB1AE5198B7": ("SystemRoot", "System32"),
    "FD228CB7-AE11-4AE3-864C-16F3910AB8FE": ("SystemRoot", "Fonts"),
    "905E63B6-C1BF-494E-B29C-65B732D3D21A": ("SystemDrive", "Program Files"),
    "6D809377-6AF0-444B-8957-A3773F02200E": ("SystemDrive", "Program Files"),
    "DFDF76A2-C82A-4D63-906A-5644AC457385": ("PUBLIC", ""),
    "5CD7AEE2-2219-4A67-B85D-6C9CE15660CB": (LOCAL, "Programs"),
}  # fmt: skip
"""FOLDERID_* (KnownFolders.h): a variable of the environment, and what is below it."""
FALLBACKS: Final = {
    PROFILE: r"C:\Users\user", ROAMING: r"C:\Users\user\AppData\Roaming", LOCAL: r"C:\Users\user\AppData\Local",
    PROGRAM_DATA: r"C:\ProgramData", "SystemRoot": r"C:\Windows", "SystemDrive": "C:", "PUBLIC": r"C:\Users\Public",
}  # fmt: skip
CSIDL: Final = {
    0x00: "B4BFCC3A-DB2C-424C-B029-7FE99A87C641", 0x05: "FDD39AD0-238F-46AF-ADB4-6C85480369C7",
    0x10: "B4BFCC3A-DB2C-424C-B029-7FE99A87C641", 0x14: "FD228CB7-AE11-4AE3-864C-16F3910AB8FE",
    0x1A: "3EB685DB-65F9-4CF6-A03A-E3EF65729F3D", 0x1C: "F1B32785-6FBA-4FCF-9D55-7B8E7F157091",
    0x23: "62AB5D82-FDC1-4DC3-A9DD-070D1D495D97", 0x24: "F38BF404-1D43-42F2-9305-67DE0B28FC23",
    0x25: "1AC14E77-02E7-4E5D-B744-2EB1AE5198B7", 0x26: "905E63B6-C1BF-494E-B29C-65B732D3D21A",
    0x28: "5E6C858F-0E22-4760-9AFE-EA3317B67173",
}  # fmt: skip
"""The older numbers (ShlObj.h), and the folder that each is."""


def folder(process: Process, identifier: str) -> str | None:
    """A known folder's path, None for one that is not known."""
    found = KNOWN_FOLDERS.get(identifier.upper())
    if found is None:
        return None
    variable, below = found
    base = (value_of(process, variable) or FALLBACKS[variable]).rstrip("\\")
    return f"{base}\\{below}" if below else base


@api("LPWSTR* CommandLineToArgvW(LPCWSTR line, int *count)", "shell32", "api-ms-win-downlevel-shell32-l1-1-0")
def command_line_to_argv_w(thread: Thread, line: int, count: int) -> int:
    """Pointers and texts in one block, which the caller frees with LocalFree. Of an empty line the program itself."""
    text = thread.memory.wide(line)
    arguments = command_line.split(text) if text else [program_path(thread)]
    head = 8 * (len(arguments) + 1)
    texts = [utf16(argument) + b"\0\0" for argument in arguments]
    size = head + sum(map(len, texts))
    address = heaps.allocate(thread.process, bytes(size))
    if not address:
        return thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)
    place, pointers = address + head, []
    for data in texts:
        pointers.append(place)
        place += len(data)
    thread.memory.write(address, struct.pack(f"<{len(pointers) + 1}Q", *pointers, 0) + b"".join(texts))
    thread.memory.set_u32(count, len(arguments))
    return address


def program_path(thread: Thread) -> str:
    """The program as its command line names it."""
    return command_line.split(thread.process.command_line)[0]


@api("HRESULT SHGetKnownFolderPath(LPVOID identifier, DWORD flags, HANDLE token, LPWSTR *result)", "shell32")
def sh_get_known_folder_path(thread: Thread, identifier: int, flags: int, token: int, result: int) -> int:
    """The caller frees it with CoTaskMemFree."""
    wanted = str(uuid.UUID(bytes_le=thread.memory.read(identifier, 16)))
    path = folder(thread.process, wanted)
    thread.memory.set_u64(result, 0 if path is None else heaps.allocate(thread.process, utf16(path + "\0")))
    return E_FILE_NOT_FOUND if path is None else S_OK


def _folder_path(thread: Thread, text: Text, number: int, buffer: int) -> int:
    path = folder(thread.process, CSIDL.get(number & 0xFF, ""))
    if path is None:
        return E_INVALIDARG
    thread.memory.write(buffer, text.encode(path[: MAX_PATH - 1] + "\0"))
    return S_OK


@api("HRESULT SHGetFolderPathW(HWND window, int number, HANDLE token, DWORD flags, LPWSTR buffer)", "shell32",
     "shfolder")  # fmt: skip
def sh_get_folder_path_w(thread: Thread, window: int, number: int, token: int, flags: int, buffer: int) -> int:
    """A folder by its older number."""
    return _folder_path(thread, WIDE, number, buffer)


@api("HRESULT SHGetFolderPathA(HWND window, int number, HANDLE token, DWORD flags, LPSTR buffer)", "shell32",
     "shfolder")  # fmt: skip
def sh_get_folder_path_a(thread: Thread, window: int, number: int, token: int, flags: int, buffer: int) -> int:
    """A folder by its older number."""
    return _folder_path(thread, ANSI, number, buffer)


@api("BOOL SHGetSpecialFolderPathW(HWND window, LPWSTR buffer, int number, BOOL create)", "shell32")
def sh_get_special_folder_path_w(thread: Thread, window: int, buffer: int, number: int, create: int) -> int:
    """A folder by its older number."""
    return int(_folder_path(thread, WIDE, number, buffer) == S_OK)


@api("BOOL GetUserProfileDirectoryW(HANDLE token, LPWSTR buffer, LPDWORD size)", "userenv")
def get_user_profile_directory_w(thread: Thread, token: int, buffer: int, size: int) -> int:
    """ERROR_INSUFFICIENT_BUFFER and the size needed."""
    path = folder(thread.process, CSIDL[0x28]) or ""
    if give_counted(thread.memory, WIDE, buffer, size, path, terminated=True):
        return 1
    return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)


@api("HINSTANCE ShellExecuteW(HWND window, LPCWSTR verb, LPCWSTR file, LPCWSTR parameters, LPCWSTR directory,"
     " int show)", "shell32", note="refused: there is no desktop")  # fmt: skip
def shell_execute_w(
    thread: Thread, window: int, verb: int, file: int, parameters: int, directory: int, show: int
) -> int:
    """Access denied: a number up to 32 is an error."""
    return thread.fail(errors.ERROR_ACCESS_DENIED, SE_ERR_ACCESSDENIED)


@api("HINSTANCE ShellExecuteA(HWND window, LPCSTR verb, LPCSTR file, LPCSTR parameters, LPCSTR directory, int show)",
     "shell32", note="refused: there is no desktop")  # fmt: skip
def shell_execute_a(
    thread: Thread, window: int, verb: int, file: int, parameters: int, directory: int, show: int
) -> int:
    """Access denied."""
    return thread.fail(errors.ERROR_ACCESS_DENIED, SE_ERR_ACCESSDENIED)


def file_name(path: str) -> int:
    """Where the last part of a path begins."""
    return max((place + 1 for place, character in enumerate(path[:-1]) if character in "\\/:"), default=0)


def extension(path: str) -> int:
    """Where the extension begins, with its point; the end where there is none."""
    name = file_name(path)
    point = path.rfind(".")
    return point if point >= name and " " not in path[point:] else len(path)


@api("LPWSTR PathFindFileNameW(LPCWSTR path)", "shlwapi", "kernelbase")
def path_find_file_name_w(thread: Thread, path: int) -> int:
    """The address of the last part."""
    text = thread.memory.wide(path)
    return path + len(utf16(text[: file_name(text)]))


@api("LPWSTR PathFindExtensionW(LPCWSTR path)", "shlwapi", "kernelbase")
def path_find_extension_w(thread: Thread, path: int) -> int:
    """The address of the point, or of the end."""
    text = thread.memory.wide(path)
    return path + len(utf16(text[: extension(text)]))


@api("BOOL PathIsRelativeW(LPCWSTR path)", "shlwapi", "kernelbase")
def path_is_relative_w(thread: Thread, path: int) -> int:
    """Neither with a drive nor from a root."""
    text = thread.memory.wide(path) if path else ""
    return int(not (text.startswith("\\") or (len(text) > 1 and text[1] == ":")))


@api("BOOL PathRemoveFileSpecW(LPWSTR path)", "shlwapi", "kernelbase")
def path_remove_file_spec_w(thread: Thread, path: int) -> int:
    """Cut the last part off; whether there was one."""
    text = thread.memory.wide(path)
    place = max(text.rfind("\\"), text.rfind("/"))
    if place < 0:
        place = 2 if text[1:2] == ":" else 0
    elif place == 0 or text[place - 1] == ":":
        place += 1
    if place >= len(text):
        return 0
    thread.memory.write(path + len(utf16(text[:place])), b"\0\0")
    return 1


@api("BOOL PathAppendW(LPWSTR path, LPCWSTR more)", "shlwapi", "kernelbase")
def path_append_w(thread: Thread, path: int, more: int) -> int:
    """With one backslash between, in a buffer of MAX_PATH characters."""
    made = f"{thread.memory.wide(path).rstrip(chr(92))}\\{thread.memory.wide(more).lstrip(chr(92))}"
    if len(made) >= MAX_PATH:
        return 0
    thread.memory.write(path, utf16(made + "\0"))
    return 1


@api("LPWSTR StrStrIW(LPCWSTR text, LPCWSTR wanted)", "shlwapi", "kernelbase")
def str_str_iw(thread: Thread, text: int, wanted: int) -> int:
    """Where a text is in another, whatever the case; 0 for nowhere."""
    content = thread.memory.wide(text)
    place = to_upper(content).find(to_upper(thread.memory.wide(wanted)))
    return text + len(utf16(content[:place])) if place >= 0 else 0


def match(name: str, pattern: str) -> bool:
    """Whether a name fits a pattern of * and ?, whatever the case; "*.*" fits every name."""
    name, pattern = to_upper(name), to_upper(pattern)
    if pattern == "*.*":
        return True
    place = start = 0
    star = -1
    pointer = 0
    while place < len(name):
        if pointer < len(pattern) and pattern[pointer] == "*":
            star, start = pointer, place
            pointer += 1
        elif pointer < len(pattern) and pattern[pointer] in ("?", name[place]):
            place, pointer = place + 1, pointer + 1
        elif star >= 0:
            start += 1
            place, pointer = start, star + 1
        else:
            return False
    return not pattern[pointer:].strip("*")


@api("BOOL PathMatchSpecW(LPCWSTR name, LPCWSTR patterns)", "shlwapi", "kernelbase")
def path_match_spec_w(thread: Thread, name: int, patterns: int) -> int:
    """One of several patterns, with semicolons between."""
    text = thread.memory.wide(name)
    return int(any(match(text, pattern.lstrip(" ")) for pattern in thread.memory.wide(patterns).split(";")))

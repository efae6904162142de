"""The registry's functions (advapi32). Errors are results here; the thread's last error stays as it is."""

import os
import threading
import time
from pathlib import Path
from typing import Final

from virtus.personalities.win32 import errors, state
from virtus.personalities.win32.code_pages import from_utf16, system_decode, utf16
from virtus.personalities.win32.environment import expand
from virtus.personalities.win32.file_time import from_unix_ns
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.registry_defaults import defaults
from virtus.personalities.win32.registry_hive import (
    LONGEST_KEY_NAME,
    LONGEST_VALUE_NAME,
    REG_BINARY,
    REG_DWORD,
    REG_EXPAND_SZ,
    REG_MULTI_SZ,
    REG_NONE,
    REG_QWORD,
    REG_SZ,
    STRINGS,
    Hive,
    Key,
    Value,
    split,
)
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

ROOTS: Final = {
    0x8000_0000: "HKEY_CLASSES_ROOT", 0x8000_0001: "HKEY_CURRENT_USER", 0x8000_0002: "HKEY_LOCAL_MACHINE",
    0x8000_0003: "HKEY_USERS", 0x8000_0004: "HKEY_PERFORMANCE_DATA", 0x8000_0005: "HKEY_CURRENT_CONFIG",
}  # fmt: skip
ALIASES: Final = {"HKEY_CLASSES_ROOT": r"HKEY_LOCAL_MACHINE\SOFTWARE\Classes"}
REG_OPTION_VOLATILE, REG_CREATED_NEW_KEY, REG_OPENED_EXISTING_KEY = 1, 1, 2
ERROR_SUCCESS: Final = 0
HIVE_PATH: Final = ".local/share/virtus/registry.reg"
RRF_TYPES: Final = {1: REG_NONE, 2: REG_SZ, 4: REG_EXPAND_SZ, 8: REG_BINARY, 0x10: REG_DWORD, 0x20: REG_MULTI_SZ,
                    0x40: REG_QWORD}  # fmt: skip
RRF_RT_ANY, RRF_NOEXPAND, RRF_ZEROONFAILURE = 0xFFFF, 0x1000_0000, 0x2000_0000
LARGEST_VALUE: Final = 16 << 20


class OpenKey:
    """What a key's handle stands for: its path, so that another process's changes are seen."""

    def __init__(self, path: list[str]) -> None:
        self.path = path


class Registry:
    """A process's view: what programs have set over what every system has."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.hive: Hive | None = None
        self.below = Key("")

    def prepare(self, process: Process) -> Hive:
        """The hive, read when first asked for and again when its file has changed."""
        if self.hive is None:
            self.below = defaults(process)
            home = os.environ.get("HOME")
            self.hive = Hive(Path(home) / HIVE_PATH if home else None)
        self.hive.load()
        return self.hive

    def keys(self, path: list[str]) -> list[Key]:
        """The key in both layers, the upper first; none where there is none."""
        assert self.hive is not None
        found = (layer.find(path) for layer in (self.hive.root, self.below))
        return [key for key in found if key is not None]


def registry_of(process: Process) -> Registry:
    """The process's registry, up to date."""
    registry = state.of(process, Registry)
    with registry.lock:
        registry.prepare(process)
    return registry


def path_of(thread: Thread, key: int) -> list[str] | None:
    """The path of a key's handle; the predefined ones are numbers whose upper half may be anything."""
    root = ROOTS.get(key & 0xFFFF_FFFF) if key >> 31 in (1, 0x1_FFFF_FFFF) else None
    if root is not None:
        return split(ALIASES.get(root, root))
    found = thread.process.handles.get(key)
    return found.path if isinstance(found, OpenKey) else None


def _name(thread: Thread, text: Text, address: int) -> str:
    return text.read(thread.memory, address) if address else ""


def _open(thread: Thread, text: Text, key: int, name: int, result: int) -> int:
    base = path_of(thread, key)
    if base is None:
        return errors.ERROR_INVALID_HANDLE
    path = base + split(_name(thread, text, name))
    if not registry_of(thread.process).keys(path):
        return errors.ERROR_FILE_NOT_FOUND
    thread.memory.set_u64(result, thread.process.handles.add(OpenKey(path)))
    return ERROR_SUCCESS


@api("LSTATUS RegOpenKeyExW(HKEY key, LPCWSTR name, DWORD options, REGSAM access, HKEY *result)", "advapi32",
     "kernelbase")  # fmt: skip
def reg_open_key_ex_w(thread: Thread, key: int, name: int, options: int, access: int, result: int) -> int:
    """A key that is there."""
    return _open(thread, WIDE, key, name, result)


@api("LSTATUS RegOpenKeyExA(HKEY key, LPCSTR name, DWORD options, REGSAM access, HKEY *result)", "advapi32",
     "kernelbase")  # fmt: skip
def reg_open_key_ex_a(thread: Thread, key: int, name: int, options: int, access: int, result: int) -> int:
    """A key that is there."""
    return _open(thread, ANSI, key, name, result)


@api("LSTATUS RegOpenKeyW(HKEY key, LPCWSTR name, HKEY *result)", "advapi32")
def reg_open_key_w(thread: Thread, key: int, name: int, result: int) -> int:
    """A key that is there."""
    return _open(thread, WIDE, key, name, result)


@api("LSTATUS RegOpenKeyA(HKEY key, LPCSTR name, HKEY *result)", "advapi32")
def reg_open_key_a(thread: Thread, key: int, name: int, result: int) -> int:
    """A key that is there."""
    return _open(thread, ANSI, key, name, result)


@api("LSTATUS RegOpenCurrentUser(REGSAM access, HKEY *result)", "advapi32", "kernelbase")
def reg_open_current_user(thread: Thread, access: int, result: int) -> int:
    """HKEY_CURRENT_USER."""
    return _open(thread, WIDE, 0x8000_0001, 0, result)


def _create(thread: Thread, text: Text, key: int, name: int, result: int, disposition: int) -> int:
    base = path_of(thread, key)
    if base is None:
        return errors.ERROR_INVALID_HANDLE
    names = split(_name(thread, text, name))
    if any(len(part) > LONGEST_KEY_NAME for part in names):
        return errors.ERROR_INVALID_PARAMETER
    registry, path = registry_of(thread.process), base + names
    with registry.lock:
        new = not registry.keys(path)
        if new:
            hive = registry.prepare(thread.process)
            made, _ = hive.root.make(path)
            made.written = from_unix_ns(time.time_ns())
            hive.save()
    thread.memory.set_u64(result, thread.process.handles.add(OpenKey(path)))
    if disposition:
        thread.memory.set_u32(disposition, REG_CREATED_NEW_KEY if new else REG_OPENED_EXISTING_KEY)
    return ERROR_SUCCESS


@api("LSTATUS RegCreateKeyExW(HKEY key, LPCWSTR name, DWORD reserved, LPWSTR class, DWORD options, REGSAM access,"
     " LPSECURITY_ATTRIBUTES security, HKEY *result, LPDWORD disposition)", "advapi32", "kernelbase")  # fmt: skip
def reg_create_key_ex_w(
    thread: Thread, key: int, name: int, reserved: int, kind: int, options: int, access: int, security: int,
    result: int, disposition: int,
) -> int:  # fmt: skip
    """A key, new or not."""
    return _create(thread, WIDE, key, name, result, disposition)


@api("LSTATUS RegCreateKeyExA(HKEY key, LPCSTR name, DWORD reserved, LPSTR class, DWORD options, REGSAM access,"
     " LPSECURITY_ATTRIBUTES security, HKEY *result, LPDWORD disposition)", "advapi32", "kernelbase")  # fmt: skip
def reg_create_key_ex_a(
    thread: Thread, key: int, name: int, reserved: int, kind: int, options: int, access: int, security: int,
    result: int, disposition: int,
) -> int:  # fmt: skip
    """A key, new or not."""
    return _create(thread, ANSI, key, name, result, disposition)


@api("LSTATUS RegCreateKeyW(HKEY key, LPCWSTR name, HKEY *result)", "advapi32")
def reg_create_key_w(thread: Thread, key: int, name: int, result: int) -> int:
    """A key, new or not."""
    return _create(thread, WIDE, key, name, result, 0)


@api("LSTATUS RegCloseKey(HKEY key)", "advapi32", "kernelbase")
def reg_close_key(thread: Thread, key: int) -> int:
    """The predefined ones stay."""
    if path_of(thread, key) is None:
        return errors.ERROR_INVALID_HANDLE
    if isinstance(thread.process.handles.get(key), OpenKey):
        thread.process.handles.close(key)
    return ERROR_SUCCESS


@api("LSTATUS RegFlushKey(HKEY key)", "advapi32", "kernelbase")
def reg_flush_key(thread: Thread, key: int) -> int:
    """Changes are in the file already."""
    return ERROR_SUCCESS if path_of(thread, key) is not None else errors.ERROR_INVALID_HANDLE


def values_of(thread: Thread, path: list[str]) -> dict[str, Value] | None:
    """A key's values by name in capitals; None where it is gone."""
    keys = registry_of(thread.process).keys(path)
    if not keys:
        return None
    merged: dict[str, Value] = {}
    for key in reversed(keys):
        merged.update(key.values)
    return {name: value for name, value in merged.items() if value.kind != DELETED}


DELETED: Final = 0xFFFF_FFFF
"""The type of a value that stands for one of every system that a program has deleted."""


def _find(thread: Thread, key: int, name: str) -> tuple[int, Value | None]:
    path = path_of(thread, key)
    if path is None:
        return errors.ERROR_INVALID_HANDLE, None
    values = values_of(thread, path)
    if values is None:
        return errors.ERROR_KEY_DELETED, None
    value = values.get(name.upper())
    return (errors.ERROR_FILE_NOT_FOUND, None) if value is None else (ERROR_SUCCESS, value)


def data_of(value: Value, text: Text) -> bytes:
    """A value's bytes as the function's kind has strings."""
    if text.unit == 1 and value.kind in STRINGS:
        return ANSI.encode(from_utf16(value.data))
    return value.data


def give_value(thread: Thread, data: bytes, kind: int, type_result: int, buffer: int, size: int) -> int:
    """Type, size and data, as far as they are asked for."""
    if type_result:
        thread.memory.set_u32(type_result, kind)
    if not size:
        return errors.ERROR_INVALID_PARAMETER if buffer else ERROR_SUCCESS
    room = thread.memory.u32(size)
    thread.memory.set_u32(size, len(data))
    if buffer:
        if room < len(data):
            return errors.ERROR_MORE_DATA
        thread.memory.write(buffer, data)
    return ERROR_SUCCESS


@api("LSTATUS RegQueryValueExW(HKEY key, LPCWSTR name, LPDWORD reserved, LPDWORD type, LPBYTE buffer, LPDWORD size)",
     "advapi32", "kernelbase")  # fmt: skip
def reg_query_value_ex_w(thread: Thread, key: int, name: int, reserved: int, type: int, buffer: int, size: int) -> int:
    """ERROR_MORE_DATA and the size needed where there is not enough room."""
    error, value = _find(thread, key, _name(thread, WIDE, name))
    return error if value is None else give_value(thread, data_of(value, WIDE), value.kind, type, buffer, size)


@api("LSTATUS RegQueryValueExA(HKEY key, LPCSTR name, LPDWORD reserved, LPDWORD type, LPBYTE buffer, LPDWORD size)",
     "advapi32", "kernelbase")  # fmt: skip
def reg_query_value_ex_a(thread: Thread, key: int, name: int, reserved: int, type: int, buffer: int, size: int) -> int:
    """The same with narrow strings."""
    error, value = _find(thread, key, _name(thread, ANSI, name))
    return error if value is None else give_value(thread, data_of(value, ANSI), value.kind, type, buffer, size)


def _get(thread: Thread, text: Text, key: int, subkey: int, name: int, flags: int, where: tuple[int, int, int]) -> int:
    """RegGetValue: of the wanted types only, with strings ended and expanded."""
    type_result, buffer, size = where
    base = path_of(thread, key)
    if base is None:
        return errors.ERROR_INVALID_HANDLE
    values = values_of(thread, base + split(_name(thread, text, subkey)))
    value = None if values is None else values.get(_name(thread, text, name).upper())
    if value is None:
        return errors.ERROR_FILE_NOT_FOUND
    kind = value.kind
    data = value.data
    if kind in STRINGS and data[-2:] != b"\0\0":
        data += b"\0\0"
    if kind == REG_EXPAND_SZ and not flags & RRF_NOEXPAND:
        kind = REG_SZ
        data = utf16(expand(thread.process, from_utf16(data)[:-1]) + "\0")
    allowed = {RRF_TYPES[bit] for bit in RRF_TYPES if flags & bit}
    if flags & RRF_RT_ANY != RRF_RT_ANY and kind not in allowed:
        return errors.ERROR_UNSUPPORTED_TYPE
    if text.unit == 1 and kind in STRINGS:
        data = ANSI.encode(from_utf16(data))
    error = give_value(thread, data, kind, type_result, buffer, size)
    if error and flags & RRF_ZEROONFAILURE and buffer and size:
        thread.memory.write(buffer, b"\0")
    return error


@api("LSTATUS RegGetValueW(HKEY key, LPCWSTR subkey, LPCWSTR name, DWORD flags, LPDWORD type, LPVOID buffer,"
     " LPDWORD size)", "advapi32", "kernelbase")  # fmt: skip
def reg_get_value_w(
    thread: Thread, key: int, subkey: int, name: int, flags: int, type: int, buffer: int, size: int
) -> int:
    """ERROR_UNSUPPORTED_TYPE for one of another type."""
    return _get(thread, WIDE, key, subkey, name, flags, (type, buffer, size))


@api("LSTATUS RegGetValueA(HKEY key, LPCSTR subkey, LPCSTR name, DWORD flags, LPDWORD type, LPVOID buffer,"
     " LPDWORD size)", "advapi32", "kernelbase")  # fmt: skip
def reg_get_value_a(
    thread: Thread, key: int, subkey: int, name: int, flags: int, type: int, buffer: int, size: int
) -> int:
    """The same with narrow strings."""
    return _get(thread, ANSI, key, subkey, name, flags, (type, buffer, size))


def _set(thread: Thread, path: list[str] | None, name: str, kind: int, data: bytes) -> int:
    if path is None:
        return errors.ERROR_INVALID_HANDLE
    if len(name) > LONGEST_VALUE_NAME:
        return errors.ERROR_INVALID_PARAMETER
    registry = registry_of(thread.process)
    with registry.lock:
        if not registry.keys(path):
            return errors.ERROR_KEY_DELETED
        hive = registry.prepare(thread.process)
        key, _ = hive.root.make(path)
        key.set(name, kind, data)
        key.written = from_unix_ns(time.time_ns())
        hive.save()
    return ERROR_SUCCESS


def _given(thread: Thread, text: Text, kind: int, address: int, size: int) -> bytes:
    """A value's bytes as the caller has them; narrow strings become wide."""
    data = thread.memory.read(address, size) if size else b""
    return utf16(system_decode(data)) if text.unit == 1 and kind in STRINGS else data


@api("LSTATUS RegSetValueExW(HKEY key, LPCWSTR name, DWORD reserved, DWORD type, LPCVOID data, DWORD size)",
     "advapi32", "kernelbase")  # fmt: skip
def reg_set_value_ex_w(thread: Thread, key: int, name: int, reserved: int, type: int, data: int, size: int) -> int:
    """Up to 16 MiB."""
    if size > LARGEST_VALUE:
        return errors.ERROR_NO_SYSTEM_RESOURCES
    content = _given(thread, WIDE, type, data, size)
    return _set(thread, path_of(thread, key), _name(thread, WIDE, name), type, content)


@api("LSTATUS RegSetValueExA(HKEY key, LPCSTR name, DWORD reserved, DWORD type, LPCVOID data, DWORD size)",
     "advapi32", "kernelbase")  # fmt: skip
def reg_set_value_ex_a(thread: Thread, key: int, name: int, reserved: int, type: int, data: int, size: int) -> int:
    """The same with narrow strings."""
    if size > LARGEST_VALUE:
        return errors.ERROR_NO_SYSTEM_RESOURCES
    content = _given(thread, ANSI, type, data, size)
    return _set(thread, path_of(thread, key), _name(thread, ANSI, name), type, content)


@api("LSTATUS RegSetKeyValueW(HKEY key, LPCWSTR subkey, LPCWSTR name, DWORD type, LPCVOID data, DWORD size)",
     "advapi32", "kernelbase")  # fmt: skip
def reg_set_key_value_w(thread: Thread, key: int, subkey: int, name: int, type: int, data: int, size: int) -> int:
    """In a subkey, which is made."""
    base = path_of(thread, key)
    if base is None or size > LARGEST_VALUE:
        return errors.ERROR_INVALID_HANDLE if base is None else errors.ERROR_NO_SYSTEM_RESOURCES
    path = base + split(_name(thread, WIDE, subkey))
    registry = registry_of(thread.process)
    with registry.lock:
        registry.prepare(thread.process).root.make(path)
        return _set(thread, path, _name(thread, WIDE, name), type, _given(thread, WIDE, type, data, size))


def _delete_value(thread: Thread, key: int, name: str) -> int:
    error, value = _find(thread, key, name)
    if value is None:
        return error
    path = path_of(thread, key) or []
    registry = registry_of(thread.process)
    with registry.lock:
        hive = registry.prepare(thread.process)
        own, _ = hive.root.make(path)
        own.values.pop(name.upper(), None)
        below = registry.below.find(path)
        if below is not None and name.upper() in below.values:
            own.set(name, DELETED, b"")
        hive.save()
    return ERROR_SUCCESS


@api("LSTATUS RegDeleteValueW(HKEY key, LPCWSTR name)", "advapi32", "kernelbase")
def reg_delete_value_w(thread: Thread, key: int, name: int) -> int:
    """ERROR_FILE_NOT_FOUND."""
    return _delete_value(thread, key, _name(thread, WIDE, name))


@api("LSTATUS RegDeleteValueA(HKEY key, LPCSTR name)", "advapi32", "kernelbase")
def reg_delete_value_a(thread: Thread, key: int, name: int) -> int:
    """ERROR_FILE_NOT_FOUND."""
    return _delete_value(thread, key, _name(thread, ANSI, name))


def _delete_key(thread: Thread, key: int, names: list[str], *, tree: bool) -> int:
    base = path_of(thread, key)
    if base is None:
        return errors.ERROR_INVALID_HANDLE
    path = base + names
    registry = registry_of(thread.process)
    with registry.lock:
        hive = registry.prepare(thread.process)
        if not registry.keys(path):
            return errors.ERROR_FILE_NOT_FOUND
        own = hive.root.find(path)
        if registry.below.find(path) is not None or own is None or len(path) < 2:
            return errors.ERROR_ACCESS_DENIED  # what every system has stays
        if own.keys and not tree:
            return errors.ERROR_ACCESS_DENIED
        if names:
            parent = hive.root.find(path[:-1])
            if parent is not None:
                del parent.keys[path[-1].upper()]
        else:
            own.keys.clear()
            own.values.clear()
        hive.save()
    return ERROR_SUCCESS


@api("LSTATUS RegDeleteKeyW(HKEY key, LPCWSTR name)", "advapi32")
def reg_delete_key_w(thread: Thread, key: int, name: int) -> int:
    """One without subkeys."""
    return _delete_key(thread, key, split(_name(thread, WIDE, name)), tree=False)


@api("LSTATUS RegDeleteKeyA(HKEY key, LPCSTR name)", "advapi32")
def reg_delete_key_a(thread: Thread, key: int, name: int) -> int:
    """One without subkeys."""
    return _delete_key(thread, key, split(_name(thread, ANSI, name)), tree=False)


@api("LSTATUS RegDeleteKeyExW(HKEY key, LPCWSTR name, REGSAM access, DWORD reserved)", "advapi32", "kernelbase")
def reg_delete_key_ex_w(thread: Thread, key: int, name: int, access: int, reserved: int) -> int:
    """One without subkeys; there is but one view of the registry."""
    return _delete_key(thread, key, split(_name(thread, WIDE, name)), tree=False)


@api("LSTATUS RegDeleteTreeW(HKEY key, LPCWSTR name)", "advapi32", "kernelbase")
def reg_delete_tree_w(thread: Thread, key: int, name: int) -> int:
    """With all below it; without a name only what is below."""
    return _delete_key(thread, key, split(_name(thread, WIDE, name)), tree=True)


@api("LSTATUS RegNotifyChangeKeyValue(HKEY key, BOOL tree, DWORD filter, HANDLE event, BOOL asynchronous)",
     "advapi32", "kernelbase", note="never signalled")  # fmt: skip
def reg_notify_change_key_value(thread: Thread, key: int, tree: int, filter: int, event: int, asynchronous: int) -> int:
    """Only with an event, which stays as it is; waiting here would never end."""
    if path_of(thread, key) is None:
        return errors.ERROR_INVALID_HANDLE
    return ERROR_SUCCESS if asynchronous else errors.ERROR_NOT_SUPPORTED

"""What is in a key of the registry: its subkeys and values, one after the other, and their numbers and sizes."""

from virtus.personalities.win32 import errors
from virtus.personalities.win32.code_pages import utf16
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.registry import ERROR_SUCCESS, data_of, give_value, path_of, registry_of, values_of
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text


def _subkeys(thread: Thread, path: list[str]) -> list[str] | None:
    keys = registry_of(thread.process).keys(path)
    if not keys:
        return None
    merged: dict[str, str] = {}
    for key in keys:
        for upper, inner in key.keys.items():
            merged.setdefault(upper, inner.name)
    return [merged[upper] for upper in sorted(merged)]


def _enum_key(thread: Thread, text: Text, key: int, index: int, name: int, size: int, written: int) -> int:
    path = path_of(thread, key)
    if path is None:
        return errors.ERROR_INVALID_HANDLE
    names = _subkeys(thread, path)
    if names is None:
        return errors.ERROR_KEY_DELETED
    if index >= len(names):
        return errors.ERROR_NO_MORE_ITEMS
    data = text.encode(names[index])
    count = len(data) // text.unit
    if thread.memory.u32(size) <= count:
        return errors.ERROR_MORE_DATA
    thread.memory.write(name, data + bytes(text.unit))
    thread.memory.set_u32(size, count)
    if written:
        thread.memory.set_u64(written, _written(thread, [*path, names[index]]))
    return ERROR_SUCCESS


def _written(thread: Thread, path: list[str]) -> int:
    return max((key.written for key in registry_of(thread.process).keys(path)), default=0)


@api("LSTATUS RegEnumKeyExW(HKEY key, DWORD index, LPWSTR name, LPDWORD size, LPDWORD reserved, LPWSTR class,"
     " LPDWORD class_size, LPFILETIME written)", "advapi32", "kernelbase")  # fmt: skip
def reg_enum_key_ex_w(
    thread: Thread, key: int, index: int, name: int, size: int, reserved: int, kind: int, kind_size: int, written: int
) -> int:
    """One subkey after the other, by name."""
    return _enum_key(thread, WIDE, key, index, name, size, written)


@api("LSTATUS RegEnumKeyExA(HKEY key, DWORD index, LPSTR name, LPDWORD size, LPDWORD reserved, LPSTR class,"
     " LPDWORD class_size, LPFILETIME written)", "advapi32", "kernelbase")  # fmt: skip
def reg_enum_key_ex_a(
    thread: Thread, key: int, index: int, name: int, size: int, reserved: int, kind: int, kind_size: int, written: int
) -> int:
    """One subkey after the other, by name."""
    return _enum_key(thread, ANSI, key, index, name, size, written)


@api("LSTATUS RegEnumKeyW(HKEY key, DWORD index, LPWSTR name, DWORD size)", "advapi32")
def reg_enum_key_w(thread: Thread, key: int, index: int, name: int, size: int) -> int:
    """One subkey after the other, by name."""
    path = path_of(thread, key)
    names = None if path is None else _subkeys(thread, path)
    if names is None:
        return errors.ERROR_INVALID_HANDLE
    if index >= len(names):
        return errors.ERROR_NO_MORE_ITEMS
    data = utf16(names[index]) + b"\0\0"
    if len(data) > 2 * size:
        return errors.ERROR_MORE_DATA
    thread.memory.write(name, data)
    return ERROR_SUCCESS


def _enum_value(
    thread: Thread, text: Text, key: int, index: int, name: int, name_size: int, where: tuple[int, int, int]
) -> int:
    path = path_of(thread, key)
    if path is None:
        return errors.ERROR_INVALID_HANDLE
    values = values_of(thread, path)
    if values is None:
        return errors.ERROR_KEY_DELETED
    if index >= len(values):
        return errors.ERROR_NO_MORE_ITEMS
    value = list(values.values())[index]
    data = text.encode(value.name)
    count = len(data) // text.unit
    if thread.memory.u32(name_size) <= count:
        return errors.ERROR_MORE_DATA
    thread.memory.write(name, data + bytes(text.unit))
    thread.memory.set_u32(name_size, count)
    return give_value(thread, data_of(value, text), value.kind, *where)


@api("LSTATUS RegEnumValueW(HKEY key, DWORD index, LPWSTR name, LPDWORD name_size, LPDWORD reserved, LPDWORD type,"
     " LPBYTE buffer, LPDWORD size)", "advapi32", "kernelbase")  # fmt: skip
def reg_enum_value_w(
    thread: Thread, key: int, index: int, name: int, name_size: int, reserved: int, type: int, buffer: int, size: int
) -> int:
    """One value after the other."""
    return _enum_value(thread, WIDE, key, index, name, name_size, (type, buffer, size))


@api("LSTATUS RegEnumValueA(HKEY key, DWORD index, LPSTR name, LPDWORD name_size, LPDWORD reserved, LPDWORD type,"
     " LPBYTE buffer, LPDWORD size)", "advapi32", "kernelbase")  # fmt: skip
def reg_enum_value_a(
    thread: Thread, key: int, index: int, name: int, name_size: int, reserved: int, type: int, buffer: int, size: int
) -> int:
    """One value after the other."""
    return _enum_value(thread, ANSI, key, index, name, name_size, (type, buffer, size))


def _query_info(thread: Thread, text: Text, key: int, class_size: int, results: tuple[int, ...], written: int) -> int:
    path = path_of(thread, key)
    if path is None:
        return errors.ERROR_INVALID_HANDLE
    names, values = _subkeys(thread, path), values_of(thread, path)
    if names is None or values is None:
        return errors.ERROR_KEY_DELETED
    longest_name = max((len(text.encode(name)) // text.unit for name in names), default=0)
    longest_value = max((len(text.encode(value.name)) // text.unit for value in values.values()), default=0)
    largest = max((len(data_of(value, text)) for value in values.values()), default=0)
    for address, number in zip(
        results, (len(names), longest_name, 0, len(values), longest_value, largest, 0), strict=True
    ):
        if address:
            thread.memory.set_u32(address, number)
    if class_size:
        thread.memory.set_u32(class_size, 0)
    if written:
        thread.memory.set_u64(written, _written(thread, path))
    return ERROR_SUCCESS


@api("LSTATUS RegQueryInfoKeyW(HKEY key, LPWSTR class, LPDWORD class_size, LPDWORD reserved, LPDWORD keys,"
     " LPDWORD longest_key, LPDWORD longest_class, LPDWORD values, LPDWORD longest_value, LPDWORD largest_data,"
     " LPDWORD security, LPFILETIME written)", "advapi32", "kernelbase")  # fmt: skip
def reg_query_info_key_w(thread: Thread, key: int, kind: int, class_size: int, reserved: int, *results: int) -> int:
    """Numbers and sizes of what is in a key."""
    return _query_info(thread, WIDE, key, class_size, results[:7], results[7])


@api("LSTATUS RegQueryInfoKeyA(HKEY key, LPSTR class, LPDWORD class_size, LPDWORD reserved, LPDWORD keys,"
     " LPDWORD longest_key, LPDWORD longest_class, LPDWORD values, LPDWORD longest_value, LPDWORD largest_data,"
     " LPDWORD security, LPFILETIME written)", "advapi32", "kernelbase")  # fmt: skip
def reg_query_info_key_a(thread: Thread, key: int, kind: int, class_size: int, reserved: int, *results: int) -> int:
    """Numbers and sizes of what is in a key."""
    return _query_info(thread, ANSI, key, class_size, results[:7], results[7])

"""The registry: its file, its functions; security identifiers; hashes."""

import hashlib
import hmac
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import call, new_thread, room, wide
from virtus.personalities.win32 import accounts, errors, hashes, random_bytes, registry_enumeration, security
from virtus.personalities.win32 import registry as _registry
from virtus.personalities.win32 import security_identifiers as sids
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.registry_hive import BadRegistry, Key, parse, render

CURRENT_USER, LOCAL_MACHINE = 0x8000_0001, 0x8000_0002
MODULES = (accounts, hashes, random_bytes, registry_enumeration, security, _registry)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\\\0\r\n[]"), min_size=1, max_size=6).filter(
    lambda name: name.strip() == name
)


@pytest.fixture
def thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Thread:
    monkeypatch.setenv("HOME", str(tmp_path))
    return new_thread()


@given(st.dictionaries(NAMES, st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n\x85\u2028"
       "\u2029\x0b\x0c\x1c\x1d\x1e"), max_size=5), st.tuples(st.sampled_from([0, 1, 2, 3, 4, 7, 11]),
       st.binary(max_size=12)), max_size=3), max_size=4))  # fmt: skip
def test_a_tree_survives_its_file(tree: dict[str, dict[str, tuple[int, bytes]]]) -> None:
    root, expected = Key(""), {}
    for name, values in tree.items():
        key, _ = root.make(["HKEY_CURRENT_USER", name])
        for value, (kind, data) in values.items():
            key.set(value, kind, data)
    for name in tree:
        key, _ = root.make(["HKEY_CURRENT_USER", name])
        expected[name.upper()] = {upper: (value.kind, value.data) for upper, value in key.values.items()}
    again = parse(render(root)).find(["HKEY_CURRENT_USER"]) or Key("")
    found = {
        name: {upper: (value.kind, value.data) for upper, value in key.values.items()}
        for name, key in again.keys.items()
    }
    assert found == expected


@given(st.text(max_size=60))
def test_any_file_is_a_tree_or_none(text: str) -> None:
    for candidate in (text, "Windows Registry Editor Version 5.00\n[A\\B]\n" + text):
        try:
            render(parse(candidate))
        except BadRegistry:
            pass


def test_a_file_of_regedit() -> None:
    text = (
        '\ufeffWindows Registry Editor Version 5.00\r\n\r\n; what\r\n[HKEY_CURRENT_USER\\A b]\r\n@="x\\\\y"\r\n'
        '"q\\"q"=dword:0000000A\r\n"m"=hex(7):61,00,\\\r\n  00,00,00,00\r\n"b"=hex:01,ff\r\n'
    )
    key = parse(text).find(["hkey_current_user", "A B"])
    assert key is not None
    found = {value.name: (value.kind, value.data) for value in key.values.values()}
    assert found == {
        "": (1, "x\\y\0".encode("utf-16-le")), 'q"q': (4, b"\x0a\0\0\0"), "m": (7, b"a\0\0\0\0\0"), "b": (3, b"\1\xff"),
    }  # fmt: skip


def open_key(thread: Thread, root: int, name: str) -> tuple[int, int]:
    result = room(thread, 8)
    return call(thread, "RegOpenKeyExW", root, wide(thread, name), 0, 0x20019, result), thread.memory.u64(result)


def query(thread: Thread, key: int, name: str, room_for: int = 200) -> tuple[int, int, bytes]:
    kind, buffer, size = room(thread, 4), room(thread, 200), room(thread, struct.pack("<I", room_for))
    error = call(thread, "RegQueryValueExW", key, wide(thread, name), 0, kind, buffer, size)
    length = thread.memory.u32(size)
    return error, thread.memory.u32(kind), thread.memory.read(buffer, length if not error else 0)


def test_what_every_system_has(thread: Thread) -> None:
    error, key = open_key(thread, LOCAL_MACHINE, r"software\microsoft\Windows NT\CurrentVersion")
    assert error == 0
    assert query(thread, key, "currentbuild") == (0, 1, "19045\0".encode("utf-16-le"))
    assert query(thread, key, "CurrentMajorVersionNumber") == (0, 4, b"\x0a\0\0\0")
    assert query(thread, key, "CurrentBuild", 4)[0] == errors.ERROR_MORE_DATA
    assert query(thread, key, "none")[0] == errors.ERROR_FILE_NOT_FOUND
    assert open_key(thread, LOCAL_MACHINE, "NONE")[0] == errors.ERROR_FILE_NOT_FOUND
    assert call(thread, "RegCloseKey", key) == 0
    assert query(thread, key, "x")[0] == errors.ERROR_INVALID_HANDLE
    assert call(thread, "RegCloseKey", 0xFFFF_FFFF_8000_0001) == 0


def test_what_is_set_is_found_by_another_process(thread: Thread) -> None:
    result, disposition = room(thread, 8), room(thread, 4)
    name = wide(thread, r"Software\Acme\Tool")
    arguments = (CURRENT_USER, name, 0, 0, 0, 0xF003F, 0, result, disposition)
    assert call(thread, "RegCreateKeyExW", *arguments) == 0
    assert thread.memory.u32(disposition) == 1
    key = thread.memory.u64(result)
    data = room(thread, "v%X%\0".encode("utf-16-le"))
    assert call(thread, "RegSetValueExW", key, wide(thread, "Value"), 0, 2, data, 10) == 0
    assert call(thread, "RegCreateKeyExW", *arguments) == 0
    assert thread.memory.u32(disposition) == 2

    other = new_thread()
    other.process.environment["X"] = "yz"
    error, found = open_key(other, CURRENT_USER, r"SOFTWARE\acme\tool")
    assert error == 0
    assert query(other, found, "VALUE")[2] == "v%X%\0".encode("utf-16-le")
    buffer, size = room(other, 100), room(other, struct.pack("<I", 100))
    get = (CURRENT_USER, wide(other, r"Software\Acme\Tool"), wide(other, "value"))
    assert call(other, "RegGetValueW", *get, 2, 0, buffer, size) == 0
    assert other.memory.wide(buffer) == "vyz"
    assert call(other, "RegGetValueW", *get, 0x10, 0, buffer, size) == errors.ERROR_UNSUPPORTED_TYPE
    assert call(other, "RegDeleteValueW", found, wide(other, "Value")) == 0
    assert query(thread, key, "Value")[0] == errors.ERROR_FILE_NOT_FOUND
    assert call(other, "RegDeleteKeyW", CURRENT_USER, wide(other, r"Software\Acme")) == errors.ERROR_ACCESS_DENIED
    assert call(other, "RegDeleteTreeW", CURRENT_USER, wide(other, r"Software\Acme")) == 0
    assert open_key(thread, CURRENT_USER, r"Software\Acme")[0] == errors.ERROR_FILE_NOT_FOUND


def test_keys_and_values_are_enumerated(thread: Thread) -> None:
    result = room(thread, 8)
    for name in ("b", "A", "c"):
        assert call(thread, "RegCreateKeyW", CURRENT_USER, wide(thread, rf"T\{name}"), result) == 0
    _, key = open_key(thread, CURRENT_USER, "T")
    for name in ("x", "yy"):
        assert call(thread, "RegSetValueExW", key, wide(thread, name), 0, 4, room(thread, 4), 4) == 0
    seen, buffer = [], room(thread, 64)
    for index in range(3):
        size = room(thread, struct.pack("<I", 30))
        assert call(thread, "RegEnumKeyExW", key, index, buffer, size, 0, 0, 0, 0) == 0
        seen.append(thread.memory.wide(buffer))
    assert seen == ["A", "b", "c"]
    size = room(thread, struct.pack("<I", 30))
    assert call(thread, "RegEnumKeyExW", key, 3, buffer, size, 0, 0, 0, 0) == errors.ERROR_NO_MORE_ITEMS
    assert call(thread, "RegEnumValueW", key, 1, buffer, size, 0, 0, 0, 0) == 0
    assert thread.memory.wide(buffer) == "yy"
    numbers = [room(thread, 4) for _ in range(5)]
    arguments = (key, 0, 0, 0, numbers[0], numbers[1], 0, numbers[2], numbers[3], numbers[4], 0, 0)
    assert call(thread, "RegQueryInfoKeyW", *arguments) == 0
    assert [thread.memory.u32(number) for number in numbers] == [3, 1, 2, 2, 4]


@given(st.integers(0, (1 << 48) - 1), st.lists(st.integers(0, (1 << 32) - 1), max_size=15))
def test_identifiers_survive_bytes_and_text(authority: int, numbers: list[int]) -> None:
    sid = sids.Sid(authority, tuple(numbers))
    assert sids.unpack(sid.pack()) == sid
    assert sids.parse(str(sid)) == sid


@given(st.binary(max_size=70), st.text(max_size=20))
def test_any_bytes_and_text_are_identifiers_or_none(data: bytes, text: str) -> None:
    try:
        assert sids.unpack(data).pack() == data[: 8 + 4 * data[1]]
    except sids.BadSid:
        pass
    for candidate in (text, "S-1-" + text):
        try:
            sids.parse(candidate).pack()
        except sids.BadSid:
            pass


def test_the_users_token(thread: Thread) -> None:
    handle, buffer, length = room(thread, 8), room(thread, 200), room(thread, 4)
    assert call(thread, "OpenProcessToken", 2**64 - 1, 8, handle) == 1
    token = thread.memory.u64(handle)
    assert call(thread, "GetTokenInformation", token, 1, buffer, 4, length) == 0
    assert thread.last_error == errors.ERROR_INSUFFICIENT_BUFFER
    assert call(thread, "GetTokenInformation", token, 1, buffer, 200, length) == 1
    sid, text = thread.memory.u64(buffer), room(thread, 8)
    assert call(thread, "ConvertSidToStringSidW", sid, text) == 1
    assert thread.memory.wide(thread.memory.u64(text)) == str(sids.USER)
    assert call(thread, "GetTokenInformation", token, 20, buffer, 4, length) == 1
    assert thread.memory.u32(buffer) == 0
    luid = room(thread, 8)
    assert call(thread, "LookupPrivilegeValueW", 0, wide(thread, "SeDebugPrivilege"), luid) == 1
    assert thread.memory.u64(luid) == 20
    wanted = room(thread, struct.pack("<IQI", 1, 20, 2))
    assert call(thread, "AdjustTokenPrivileges", token, 0, wanted, 0, 0, 0) == 1
    assert thread.last_error == errors.ERROR_NOT_ALL_ASSIGNED


def test_the_descriptor_is_whole() -> None:
    data = accounts.descriptor()
    owner, group, sacl, dacl = struct.unpack_from("<4I", data, 4)
    assert (sids.unpack(data[owner:]), sids.unpack(data[group:]), sacl) == (sids.USER, sids.NO_GROUP, 0)
    assert struct.unpack_from("<BBHHH", data, dacl) == (2, 0, 28, 1, 0)


@pytest.mark.parametrize("name", ["MD5", "SHA1", "SHA256", "SHA384", "SHA512"])
def test_hashes_are_hashlibs(thread: Thread, name: str) -> None:
    expected = hashlib.new(name, b"abcdef").digest()
    result, value = room(thread, 8), room(thread, 64)
    for secret in (b"", b"key"):
        assert call(thread, "BCryptOpenAlgorithmProvider", result, wide(thread, name), 0, 8 * bool(secret)) == 0
        algorithm = thread.memory.u64(result)
        assert call(thread, "BCryptCreateHash", algorithm, result, 0, 0, room(thread, secret), len(secret), 0) == 0
        handle = thread.memory.u64(result)
        for part in (b"abc", b"def"):
            assert call(thread, "BCryptHashData", handle, room(thread, part), 3, 0) == 0
        assert call(thread, "BCryptFinishHash", handle, value, len(expected) - 1, 0) != 0
        assert call(thread, "BCryptFinishHash", handle, value, len(expected), 0) == 0
        wanted = hmac.new(secret, b"abcdef", name.lower()).digest() if secret else expected
        assert thread.memory.read(value, len(expected)) == wanted


def test_hashes_by_the_older_names(thread: Thread) -> None:
    result, value, size = room(thread, 8), room(thread, 64), room(thread, struct.pack("<I", 64))
    assert call(thread, "CryptAcquireContextA", result, 0, 0, 1, 0) == 1
    provider = thread.memory.u64(result)
    assert call(thread, "CryptCreateHash", provider, 0x800C, 0, 0, result) == 1
    handle = thread.memory.u64(result)
    assert call(thread, "CryptHashData", handle, room(thread, b"abc"), 3, 0) == 1
    assert call(thread, "CryptGetHashParam", handle, 2, value, size, 0) == 1
    assert thread.memory.read(value, thread.memory.u32(size)) == hashlib.sha256(b"abc").digest()
    assert call(thread, "CryptHashData", handle, value, 1, 0) == 0
    assert call(thread, "CryptCreateHash", provider, 0x6801, 0, 0, result) == 0
    assert call(thread, "CryptReleaseContext", provider, 0) == 1


def test_random_bytes_differ(thread: Thread) -> None:
    buffer = room(thread, 64)
    seen = set()
    for name, arguments in (
        ("ProcessPrng", (buffer, 32)), ("SystemFunction036", (buffer, 32)), ("BCryptGenRandom", (0, buffer, 32, 2)),
        ("CryptGenRandom", (0, 32, buffer)),
    ):  # fmt: skip
        call(thread, name, *arguments)
        seen.add(thread.memory.read(buffer, 32))
        assert thread.memory.read(buffer + 32, 32) == bytes(32)
    assert len(seen) == 4

"""Windows images: any bytes are an image or a clear error, and what is read is what others read."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.errors import GuestNotRunnable
from virtus.guests import pe
from virtus.techniques.peers import prng_dll

DLL = prng_dll.image()


def read_all(data: bytes) -> None:
    image = pe.parse(data, "some.exe")
    list(image.imports())
    list(image.delay_imports())
    list(image.relocations())
    exported = image.exports()
    for name in [*exported.addresses, *exported.forwarders][:9]:
        assert image.export(name) is not None
    assert image.export("no such function") is None
    image.tls()


@given(st.binary(max_size=600))
def test_any_bytes_are_an_image_or_an_error(data: bytes) -> None:
    for start in (b"", b"MZ", DLL[: len(DLL) - len(data)]):
        try:
            read_all(start + data)
        except GuestNotRunnable as error:
            assert "\n" not in str(error)


@given(st.lists(st.tuples(st.integers(0, len(DLL) - 1), st.integers(0, 255)), max_size=8))
def test_a_damaged_image_is_an_image_or_an_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(DLL)
    for place, value in changes:
        data[place] = value
    try:
        read_all(bytes(data))
    except GuestNotRunnable:
        pass


@given(st.integers(0, len(DLL) - 200))  # behind that is alignment alone
def test_a_truncated_image_is_an_error(length: int) -> None:
    with pytest.raises(GuestNotRunnable):
        read_all(DLL[:length])


@given(st.integers(64, 64 + 24 + 240 + 40 - 4), st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
def test_extreme_numbers_in_headers(place: int, value: int) -> None:
    data = bytearray(DLL)
    struct.pack_into("<I", data, place, value)
    try:
        read_all(bytes(data))
    except GuestNotRunnable:
        pass


def test_a_library_is_read() -> None:
    image = pe.parse(DLL, "a.dll")
    assert image.is_dll
    assert image.exports().addresses == {"ProcessPrng": prng_dll.SECTION, "#1": prng_dll.SECTION}
    (wanted,) = image.imports()
    assert (wanted.dll, wanted.name) == ("advapi32.dll", "SystemFunction036")
    assert list(image.relocations()) == []


def with_directory(number: int, *words: int) -> bytes:
    """The library with a data directory of 32-bit words in its section."""
    place = prng_dll.SECTION + 0x100
    data = bytearray(DLL)
    struct.pack_into("<II", data, 64 + 24 + 112 + 8 * number, place, 4 * len(words))
    offset = pe.parse(DLL, "a.dll").offset(place)
    struct.pack_into(f"<{len(words)}I", data, offset, *words)
    return bytes(data)


@pytest.mark.parametrize(
    ("start", "end", "index", "callbacks", "found"),
    [
        (0x1000, 0x1010, 0x1020, 0, ""),
        (0x1000, 0x1010, 0x1020, 0x1120, ""),
        (0x1000, 0x1010, 0xFFFF0000, 0, "outside"),
        (0x1000, 0x1010, 0x7FFFFFFE, 0, "outside"),
        (0x7000000, 0x7000010, 0x1020, 0, "outside"),
        (0x1000, 0x1010, 0x1020, 0x7000000, "in no section"),
    ],
)
def test_thread_local_storage_lies_in_the_image(start: int, end: int, index: int, callbacks: int, found: str) -> None:
    base = pe.parse(DLL, "a.dll").base
    words: list[int] = []
    for address in (start, end, index, callbacks):
        value = base + address if address else 0
        words += [value & 0xFFFFFFFF, value >> 32]
    image = pe.parse(with_directory(pe.TLS, *words, 0, 0), "a.dll")
    if found:
        with pytest.raises(GuestNotRunnable, match=found):
            image.tls()
    else:
        assert image.tls() is not None


def test_others_are_refused_by_name() -> None:
    data = bytearray(DLL)
    data[64 + 24 : 64 + 26] = struct.pack("<H", pe.PE32)
    with pytest.raises(GuestNotRunnable, match="32 bits"):
        pe.parse(bytes(data), "a.exe")
    data = bytearray(DLL)
    data[64 + 4 : 64 + 6] = struct.pack("<H", 0xAA64)
    with pytest.raises(GuestNotRunnable, match="another processor"):
        pe.parse(bytes(data), "a.exe")


def test_real_libraries_are_read_as_pefile_reads_them() -> None:
    pefile = pytest.importorskip("pefile", reason="the Python package pefile is not installed")
    path = Path("/usr/lib/x86_64-linux-gnu/wine/x86_64-windows/version.dll")
    if not path.exists():
        pytest.skip("Wine's libraries are not installed")
    image = pe.parse(path.read_bytes(), path.name)
    other = pefile.PE(str(path))
    exported = image.exports()
    for entry in other.DIRECTORY_ENTRY_EXPORT.symbols:
        name = entry.name.decode()
        if entry.forwarder:
            assert exported.forwarders[name] == entry.forwarder.decode()
        else:
            assert exported.addresses[name] == entry.address
    for name, found in [*exported.addresses.items(), *exported.forwarders.items()]:
        assert image.export(name) == found
    assert image.export("NoSuchFunction") is None
    assert pe.parse(path.read_bytes(), path.name).export("NoSuchFunction") is None
    wanted = {(found.dll, found.name) for found in image.imports()}
    theirs = {
        (entry.dll.decode().lower(), function.name.decode())
        for entry in other.DIRECTORY_ENTRY_IMPORT
        for function in entry.imports
    }
    assert wanted == theirs
    assert image.base == other.OPTIONAL_HEADER.ImageBase

"""Translations on disk: found again, never trusted when damaged, bounded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.isa.riscv64 import RISCV64
from virtus.vcpus.translator import cache, quick_image
from virtus.vcpus.translator.cache import Cache, pack, sealed, unpack, unsealed
from virtus.vcpus.translator.llvm.request import Optimised
from virtus.vcpus.translator.quick_image import Places, QuickImage

ADDRESS = st.integers(0, 2**38)
UNITS = st.builds(
    lambda blob, entries, pieces, precise: Optimised(
        blob, entries, tuple((low, low + len(code)) for low, code in pieces), tuple(code for _, code in pieces), precise
    ),
    st.binary(max_size=64),
    st.dictionaries(ADDRESS, st.integers(0, 1 << 20), max_size=3),
    st.lists(st.tuples(ADDRESS, st.binary(max_size=16)), max_size=3),
    st.booleans(),
)


def unit(pc: int = 0x1000, blob: bytes = b"code") -> Optimised:
    return Optimised(blob, {pc: 0}, ((pc, pc + 4),), (b"abcd",))


@given(st.lists(UNITS, max_size=4))
def test_what_is_packed_is_unpacked(units: list[Optimised]) -> None:
    assert unpack(pack(units)) == units


@given(st.binary(max_size=100), st.data())
def test_a_changed_byte_is_noticed(content: bytes, data: st.DataObject) -> None:
    file = bytearray(sealed(content))
    assert unsealed(bytes(file)) == content
    file[data.draw(st.integers(0, len(file) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="not what was written"):
        unsealed(bytes(file))


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not what was written"):
        unsealed(data)


def test_a_second_run_finds_what_the_first_has_kept(tmp_path: Path) -> None:
    Cache(RISCV64, tmp_path).store({"image": [unit()]})
    assert Cache(RISCV64, tmp_path).load("image") == [unit()]
    assert Cache(RISCV64, tmp_path).load("another") == []


def test_units_are_added_and_replaced(tmp_path: Path) -> None:
    kept = Cache(RISCV64, tmp_path)
    kept.store({"image": [unit()]})
    kept.store({"image": [unit(blob=b"better"), unit(pc=0x2000)]})
    assert sorted(found.blob for found in kept.load("image")) == [b"better", b"code"]


def test_another_version_s_translations_are_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache(RISCV64, tmp_path).store({"image": [unit()]})
    monkeypatch.setattr(cache, "VERSION", -1)
    assert Cache(RISCV64, tmp_path).load("image") == []


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "writable by others", "a link"])
def test_a_bad_file_is_removed_and_not_used(tmp_path: Path, damage: str) -> None:
    kept = Cache(RISCV64, tmp_path)
    kept.store({"image": [unit()]})
    [file] = tmp_path.iterdir()
    data = file.read_bytes()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "changed":
        file.write_bytes(data[:-1] + b"!")
    elif damage == "writable by others":
        file.chmod(0o666)
    else:
        elsewhere = tmp_path.parent / "elsewhere"
        elsewhere.write_bytes(data)
        file.unlink()
        file.symlink_to(elsewhere)
    assert kept.load("image") == []
    assert not os.path.lexists(file)


def test_the_longest_unused_go_when_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Cache(RISCV64, tmp_path)
    for index in range(4):
        kept.store({f"image {index}": [unit(blob=bytes(1000))]})
        for file in tmp_path.iterdir():
            status = file.stat()
            os.utime(file, ns=(status.st_mtime_ns - 10**9, status.st_mtime_ns - 10**9))
    monkeypatch.setattr(cache, "MOST_BYTES", 2500)
    kept.load("image 0")
    kept.store({})
    assert [bool(kept.load(f"image {index}")) for index in range(4)] == [True, False, False, True]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / f".{2**30}.abc{cache.SUFFIX}").write_bytes(b"half")
    Cache(RISCV64, tmp_path).store({"image": [unit()]})
    assert [file.name.startswith(".") for file in tmp_path.iterdir()] == [False]


def test_a_directory_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    kept = Cache(RISCV64, tmp_path)
    kept.store({"image": [unit()]})
    assert not kept.usable
    assert kept.load("image") == []


def image(*pcs: int, blob: bytes = bytes(64)) -> QuickImage:
    return QuickImage(blob, list(pcs), [8] * len(pcs), Places([8], [pcs[0]]), ((pcs[0], pcs[0] + 4),), (b"abcd",), ())


def test_quick_code_is_found_again_and_added_to(tmp_path: Path) -> None:
    kept = Cache(RISCV64, tmp_path)
    kept.store({"image": [unit()]})
    kept.store_quick({"image": image(0x1000)})
    kept.store_quick({"image": image(0x2000)})
    found = Cache(RISCV64, tmp_path).load_quick("image")
    assert found is not None
    assert list(found.entries) == [0x1000, 0x2000]
    assert kept.load_quick("another") is None
    assert kept.load("image") == [unit()]
    kept.drop_quick("image")
    assert kept.load_quick("image") is None
    assert kept.load("image") == [unit()]


def test_quick_code_of_other_sources_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache(RISCV64, tmp_path).store_quick({"image": image(0x1000)})
    monkeypatch.setattr(cache, "sources", lambda isa: "others")
    assert Cache(RISCV64, tmp_path).load_quick("image") is None


def test_the_sources_are_those_of_the_quick_translator() -> None:
    found = cache.sources(RISCV64)
    for name in (
        "vcpus/translator/baseline.py ",
        "isa/builder.py ",
        "isa/x86/assembler.py ",
        "isa/riscv64/integers.py ",
    ):
        assert name in found


def test_wishes_are_kept_until_they_are_fulfilled(tmp_path: Path) -> None:
    kept = Cache(RISCV64, tmp_path)
    kept.store_wishes({"image": [0x2000, 0x1000], "other": []})
    assert Cache(RISCV64, tmp_path).load_wishes("image") == [0x2000, 0x1000]
    assert kept.load_wishes("other") == []
    kept.store_wishes({"image": list(range(10_000))})
    assert kept.load_wishes("image") == list(range(cache.MOST_WISHES))
    kept.store_wishes({"image": []})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_one_process_at_a_time_works_on(tmp_path: Path) -> None:
    def in_a_process_of_its_own() -> bool:
        code = "import sys; from virtus.isa.riscv64 import RISCV64; from virtus.vcpus.translator.cache import Cache\n"
        code += "sys.exit(not Cache(RISCV64, sys.argv[1]).alone())"
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60).returncode == 0

    assert in_a_process_of_its_own()
    assert in_a_process_of_its_own()  # as the first has ended
    assert Cache(RISCV64, tmp_path).alone()
    assert not in_a_process_of_its_own()


def test_quick_code_without_bounds_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_image, "LARGEST", 100)
    kept = Cache(RISCV64, tmp_path)
    kept.store_quick({"image": image(0x1000, blob=bytes(101))})
    assert kept.load_quick("image") is None


def test_without_a_directory_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = Cache(RISCV64, tmp_path / "file" / "below")
    kept.store({"image": [unit()]})
    kept.store_quick({"image": image(0x1000)})
    assert kept.load("image") == []
    assert kept.load_quick("image") is None


def test_the_place_follows_the_environment() -> None:
    assert cache.directory({"VIRTUS_CACHE": "/x"}) == "/x"
    assert cache.directory({"XDG_CACHE_HOME": "/y", "HOME": "/z"}) == "/y/virtus/translations"
    assert cache.directory({"HOME": "/z"}) == "/z/.cache/virtus/translations"

"""qcow2 images, with QEMU's own tools as the judge: what they made is read, what we made they find whole."""

import os
import random
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.devices.disk import Disk
from virtus.devices.image import open_image
from virtus.devices.qcow2 import image as qcow2
from virtus.devices.qcow2.image import Qcow2Image

MIB = 1 << 20
SECTOR = 512
WHOLE, LEAKS = 0, 3  # exit statuses of qemu-img check
tools = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed (Debian: qemu-utils)")


def qemu(tool: str, *words: object, status: int | None = 0) -> str:
    done = subprocess.run([tool, *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return done.stdout


def make(path: Path, size: int, *options: str, base: Path | None = None, form: str = "qcow2") -> Path:
    words = ["create", "-q", "-f", "qcow2", *(("-o", ",".join(options)) if options else ())]
    below = ["-b", base, "-F", form] if base else []
    qemu("qemu-img", *words, *below, path, size)
    return path


def checked(path: Path) -> None:
    done = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], capture_output=True, text=True, check=False)
    assert done.returncode == WHOLE, done.stdout + done.stderr


def content(path: Path) -> bytes:
    image = Qcow2Image(path, read_only=True)
    data = bytearray(image.size)
    image.read(0, [memoryview(data)])
    image.close()
    return bytes(data)


def seen_by_qemu(path: Path) -> bytes:
    raw = path.with_suffix(".seen")
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
    return raw.read_bytes()


def cut(data: bytes, generator: random.Random) -> list[memoryview]:
    """The same bytes in pieces, as a guest's requests have them."""
    left, pieces = memoryview(bytearray(data)), []
    while left:
        count = generator.choice((SECTOR, 4096, len(left)))
        pieces.append(left[:count])
        left = left[count:]
    return pieces


def scribble(image: Qcow2Image, model: bytearray, generator: random.Random, most: int = 200_000) -> tuple[int, int]:
    """Write something somewhere; where."""
    size = min(generator.randrange(SECTOR, most), len(model)) // SECTOR * SECTOR
    at = generator.randrange(0, len(model) - size + 1) // SECTOR * SECTOR
    data = generator.randbytes(size)
    image.write(at, cut(data, generator))
    model[at : at + size] = data
    return at, size


GEOMETRIES = {
    "version 3": (), "version 2": ("compat=0.10",), "small clusters": ("cluster_size=512",),
    "large clusters": ("cluster_size=2M",), "counts of a bit": ("refcount_bits=1",),
    "counts of 64 bits": ("refcount_bits=64", "cluster_size=4096"), "allocated before": ("preallocation=metadata",),
}  # fmt: skip


@tools
@pytest.mark.slow
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_what_is_written_is_read_by_us_and_by_qemu(tmp_path: Path, geometry: str) -> None:
    path, generator = make(tmp_path / "a.qcow2", 8 * MIB + SECTOR, *GEOMETRIES[geometry]), random.Random(geometry)
    model = bytearray(8 * MIB + SECTOR)
    for _ in range(3):
        image = Qcow2Image(path, read_only=False)
        for number in range(12):
            at, size = scribble(image, model, generator)
            back = [memoryview(bytearray(size))]
            image.read(at, back)
            assert back[0] == model[at : at + size]
            if number % 5 == 0:
                image.flush()
        image.close()
        checked(path)
    assert content(path) == model
    assert seen_by_qemu(path) == model


@tools
@pytest.mark.slow
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_it_lies_on_other_images_and_on_compressed_clusters(tmp_path: Path, compression: str, form: str) -> None:
    generator = random.Random(compression)
    model = bytearray(generator.randbytes(102_400) + bytes(MIB) + b"ab" * MIB)
    below = tmp_path / ("base.img" if form == "raw" else "base.qcow2")
    (tmp_path / "raw").write_bytes(model)
    qemu("qemu-img", "convert", "-f", "raw", "-O", form, tmp_path / "raw", below)
    middle, top = tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    options = f"compression_type={compression}"
    qemu("qemu-img", "convert", "-c", "-f", form, "-O", "qcow2", "-o", options, below, middle)
    assert content(middle) == model
    make(top, len(model) + MIB, base=middle)
    model += bytes(MIB)
    assert content(top) == model
    for path in (top, middle):  # over another image, then over compressed clusters
        known = bytearray(content(path))
        image = Qcow2Image(path, read_only=False)
        for _ in range(10):
            scribble(image, known, generator)
        image.close()
        checked(path)
        assert content(path) == known == seen_by_qemu(path)


@tools
@pytest.mark.slow
def test_what_a_snapshot_inside_it_has_stays(tmp_path: Path) -> None:
    path, generator = make(tmp_path / "a.qcow2", 4 * MIB), random.Random(5)
    model = bytearray(4 * MIB)
    image = Qcow2Image(path, read_only=False)
    for _ in range(8):
        scribble(image, model, generator)
    image.close()
    before = bytes(model)
    qemu("qemu-img", "snapshot", "-c", "one", path)
    image = Qcow2Image(path, read_only=False)
    for _ in range(8):
        scribble(image, model, generator)
    image.close()
    checked(path)
    assert content(path) == model
    qemu("qemu-img", "snapshot", "-a", "one", path)
    assert content(path) == before
    qemu("qemu-img", "snapshot", "-d", "one", path)
    checked(path)


@tools
@pytest.mark.slow
def test_zeros_that_qemu_has_written_are_zeros_and_can_be_overwritten(tmp_path: Path) -> None:
    path = make(tmp_path / "a.qcow2", MIB)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 512k", "-c", "write -z 64k 128k", "-c", "discard 256k 64k", path)
    model = bytearray(seen_by_qemu(path))
    assert content(path) == model
    image = Qcow2Image(path, read_only=False)
    for at in (64 << 10, (192 << 10) - SECTOR, 300 << 10):
        image.write(at, [memoryview(b"x" * SECTOR)])
        model[at : at + SECTOR] = b"x" * SECTOR
    image.close()
    checked(path)
    assert content(path) == model == seen_by_qemu(path)


@tools
@pytest.mark.slow
def test_reference_counts_get_more_room(tmp_path: Path) -> None:
    """Clusters of 512 bytes: a block counts 128 KiB, the table's first cluster 8 MiB."""
    path = make(tmp_path / "a.qcow2", 24 * MIB, "cluster_size=512")
    before = struct.unpack_from(">QI", path.read_bytes(), 48)
    image = Qcow2Image(path, read_only=False)
    for at in range(0, 20 * MIB, MIB):
        image.write(at, [memoryview(bytes((at >> 20 & 0xFF,)) * MIB)])
    image.close()
    assert struct.unpack_from(">QI", path.read_bytes(), 48) != before
    checked(path)
    assert content(path) == b"".join(bytes((n,)) * MIB for n in range(20)) + bytes(4 * MIB)


# Interrupted


class Log:
    """What was written to a file, and when its disk was waited for; `limit` is the write that does not happen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[tuple[int, bytes] | None] = []
        self._write, self._sync = os.pwritev, os.fdatasync
        monkeypatch.setattr(os, "pwritev", self._written)
        monkeypatch.setattr(os, "fdatasync", self._synced)

    def _written(self, fd: int, pieces: list[memoryview], offset: int) -> int:
        self.done.append((offset, b"".join(pieces)))
        return self._write(fd, pieces, offset)

    def _synced(self, fd: int) -> None:
        self.done.append(None)
        self._sync(fd)


def apply(data: bytearray, offset: int, piece: bytes) -> None:
    if len(data) < offset + len(piece):
        data.extend(bytes(offset + len(piece) - len(data)))
    data[offset : offset + len(piece)] = piece


@tools
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("geometry", ["small clusters", "version 2", "counts of a bit"])
def test_no_loss_of_power_spoils_it_or_what_was_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geometry: str, seed: int
) -> None:
    """At any moment, with any of the writes since the disk was last waited for: at worst there are leaks."""
    generator = random.Random(f"{geometry} {seed}")
    path = make(tmp_path / "a.qcow2", MIB, *GEOMETRIES[geometry])
    if geometry != "counts of a bit":
        qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 300k", path)
        qemu("qemu-img", "snapshot", "-c", "one", path)
    model, before = bytearray(content(path)), path.read_bytes()
    log = Log(monkeypatch)
    image = Qcow2Image(path, read_only=False)
    flushed: list[tuple[int, bytes, set[int]]] = [(0, bytes(model), set())]  # since when, what, sectors written since
    for number in range(25):
        at, size = scribble(image, model, generator, 70_000)
        flushed[-1][2].update(range(at // SECTOR, (at + size) // SECTOR))
        if number % 4 == 3:
            image.flush()
            flushed.append((len(log.done), bytes(model), set()))
    image.close()
    monkeypatch.undo()
    for _ in range(25):
        moment = generator.randrange(len(log.done))
        last = max((at for at in range(moment) if log.done[at] is None), default=0)
        survived = bytearray(before)
        for at, entry in enumerate(log.done[:moment]):
            if entry is not None and (at < last or generator.random() < 0.5):
                apply(survived, *entry)
        broken = tmp_path / "broken.qcow2"
        broken.write_bytes(survived)
        done = subprocess.run(["qemu-img", "check", "-f", "qcow2", broken], capture_output=True, text=True, check=False)
        assert done.returncode in (WHOLE, LEAKS), done.stdout + done.stderr
        found = content(broken)
        _, known, since = [one for one in flushed if one[0] <= moment][-1]
        for sector in set(range(MIB // SECTOR)) - since:
            place = slice(sector * SECTOR, (sector + 1) * SECTOR)
            assert found[place] == known[place]


@tools
@pytest.mark.slow
def test_a_full_host_fails_the_write_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, generator = make(tmp_path / "a.qcow2", 4 * MIB), random.Random(1)
    image, model, real = Qcow2Image(path, read_only=False), bytearray(4 * MIB), os.pwritev

    def full(fd: int, pieces: list[memoryview], offset: int) -> int:
        if sum(map(len, pieces)) > SECTOR and generator.random() < 0.4:
            raise OSError(28, "No space left on device")
        return real(fd, pieces, offset)

    monkeypatch.setattr(os, "pwritev", full)
    failed = 0
    unknown: set[int] = set()
    for _ in range(40):
        kept = bytes(model)
        state = generator.getstate()
        try:
            at, size = scribble(image, model, generator)
            unknown -= set(range(at // SECTOR, (at + size) // SECTOR))
        except OSError:
            failed += 1
            generator_now = generator.getstate()
            generator.setstate(state)
            size = min(generator.randrange(SECTOR, 200_000), len(model)) // SECTOR * SECTOR
            at = generator.randrange(0, len(model) - size + 1) // SECTOR * SECTOR
            generator.setstate(generator_now)
            model[:] = kept
            unknown |= set(range(at // SECTOR, (at + size) // SECTOR))  # a failed write may have got anywhere
    monkeypatch.undo()
    image.close()
    assert failed
    checked(path)
    found = content(path)
    for sector in set(range(len(model) // SECTOR)) - unknown:
        assert found[sector * SECTOR : (sector + 1) * SECTOR] == model[sector * SECTOR : (sector + 1) * SECTOR]


# What is refused


def small(**changes: int) -> bytearray:
    """An image of 1 MiB by hand: version 3, clusters of 64 KiB, nothing in it."""
    cluster = 1 << 16
    data = bytearray(4 * cluster)
    fields = {
        "version": 3, "name_at": 0, "name_size": 0, "bits": 16, "size": MIB, "crypt": 0, "l1_entries": 1,
        "l1_at": 3 * cluster, "counts_at": cluster, "counts_clusters": 1, "snapshots": 0, "snapshots_at": 0,
    } | changes  # fmt: skip
    struct.pack_into(">4sIQIIQIIQQIIQ", data, 0, b"QFI\xfb", *fields.values())
    struct.pack_into(">QQQII", data, 72, 0, 0, 0, 4, 104)
    struct.pack_into(">Q", data, cluster, 2 * cluster)
    struct.pack_into(">4H", data, 2 * cluster, 1, 1, 1, 1)
    return data


def put(path: Path, data: bytes | bytearray) -> Path:
    path.write_bytes(data)
    return path


def test_an_image_by_hand(tmp_path: Path) -> None:
    path = put(tmp_path / "a.qcow2", small())
    disk = Disk(path)
    assert disk.size == MIB
    disk.write(70_000 // SECTOR * SECTOR, [memoryview(b"y" * SECTOR)])
    disk.flush()
    disk.close()
    assert content(path).count(b"y") == SECTOR
    snapshot = Disk(path, snapshot=True)
    snapshot.write(0, [memoryview(b"z" * SECTOR)])
    back = memoryview(bytearray(MIB))
    snapshot.read(0, [back])
    assert (bytes(back).count(b"y"), bytes(back).count(b"z")) == (SECTOR, SECTOR)
    snapshot.close()
    assert b"z" not in content(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 1}, "version 1"), ({"version": 4}, "version 4"), ({"bits": 8}, "2\\^8"), ({"bits": 22}, "2\\^22"),
        ({"crypt": 2}, "encrypted"), ({"size": 1000}, "whole sectors"), ({"size": 1 << 40}, "L1 table of 1"),
        ({"l1_at": 5}, "L1 table at"), ({"l1_at": 1 << 30}, "truncated"), ({"l1_entries": 1 << 25}, "L1 table of"),
        ({"counts_clusters": 0}, "0 clusters"), ({"counts_at": 1 << 62}, "refcount table"),
        ({"name_at": 200, "name_size": 5000}, "5000 bytes"), ({"name_at": 200, "name_size": 4}, "name that is none"),
    ],
)  # fmt: skip
def test_a_head_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, int], said: str) -> None:
    path = put(tmp_path / "a.qcow2", small(**changes))
    with pytest.raises(OSError, match=said):
        Qcow2Image(path, read_only=True)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [(79, 4, "another file"), (79, 16, "subclusters"), (79, 32, "unknown features"), (79, 8, "compression"),
     (99, 7, "2\\^7"), (103, 96, "head of 96")],
)  # fmt: skip
def test_features_that_are_not_known_are_refused(tmp_path: Path, at: int, value: int, said: str) -> None:
    data = small()
    data[at] = value
    with pytest.raises(OSError, match=said):
        Qcow2Image(put(tmp_path / "a.qcow2", data), read_only=True)


@pytest.mark.parametrize("mark", [1, 2])
def test_one_that_was_not_closed_in_order_is_read_only(tmp_path: Path, mark: int) -> None:
    data = small()
    data[79] = mark
    path = put(tmp_path / "a.qcow2", data)
    with pytest.raises(OSError, match="qemu-img check"):
        Qcow2Image(path, read_only=False)
    assert content(path) == bytes(MIB)


def test_a_circle_of_images_has_an_end(tmp_path: Path) -> None:
    name = b"a.qcow2"
    data = small(name_at=512, name_size=len(name))
    data[512 : 512 + len(name)] = name
    with pytest.raises(OSError, match="on top of each other"):
        Qcow2Image(put(tmp_path / "a.qcow2", data), read_only=True)


def test_names_that_are_no_files_are_refused(tmp_path: Path) -> None:
    name = b'json:{"driver": "nbd"}'
    data = small(name_at=512, name_size=len(name))
    data[512 : 512 + len(name)] = name
    with pytest.raises(OSError, match="no file"):
        Qcow2Image(put(tmp_path / "a.qcow2", data), read_only=True)


def test_a_raw_disk_that_its_guest_made_look_like_one_is_not_taken_for_one(tmp_path: Path) -> None:
    path = put(tmp_path / "disk.img", small())
    with pytest.raises(OSError, match=",qcow2 or"):
        open_image(path, read_only=True)
    as_raw = open_image(path, read_only=True, form="raw")
    as_qcow2 = open_image(path, read_only=True, form="qcow2")
    assert (as_raw.size, as_qcow2.size) == (4 << 16, MIB)
    as_raw.close()
    as_qcow2.close()


def test_two_do_not_write_to_one(tmp_path: Path) -> None:
    path = put(tmp_path / "a.qcow2", small())
    first = Qcow2Image(path, read_only=False)
    for read_only in (True, False):
        with pytest.raises(OSError, match="in use"):
            Qcow2Image(path, read_only=read_only)
    first.close()
    readers = [Qcow2Image(path, read_only=True) for _ in range(2)]
    with pytest.raises(OSError, match="in use"):
        Qcow2Image(path, read_only=False)
    for reader in readers:
        reader.close()
    Qcow2Image(path, read_only=False).close()


@tools
@pytest.mark.slow
def test_qemu_respects_that_we_have_it_open(tmp_path: Path) -> None:
    path = make(tmp_path / "a.qcow2", MIB)
    image = Qcow2Image(path, read_only=False)
    qemu("qemu-io", "-f", "qcow2", "-c", "write 0 64k", path, status=1)
    image.close()
    qemu("qemu-io", "-f", "qcow2", "-c", "write 0 64k", path)


def test_a_table_that_is_counted_as_free_is_not_given_away(tmp_path: Path) -> None:
    data = small()
    struct.pack_into(">4H", data, 2 << 16, 0, 0, 0, 0)
    image = Qcow2Image(put(tmp_path / "a.qcow2", data), read_only=False)
    with pytest.raises(OSError, match="counted as free"):
        image.write(0, [memoryview(bytes(SECTOR))])
    image.close()
    assert (tmp_path / "a.qcow2").read_bytes() == data


def filled() -> bytearray:
    """`small` with a cluster of data, a compressed one, and one of zeros."""
    data, cluster = small(), 1 << 16
    data += bytes(3 * cluster)
    struct.pack_into(">Q", data, 3 * cluster, 4 * cluster | 1 << 63)
    packer = zlib.compressobj(wbits=-12)
    packed = packer.compress(b"p" * cluster) + packer.flush()
    data[6 * cluster : 6 * cluster + len(packed)] = packed
    sectors = (len(packed) - 1) // SECTOR
    struct.pack_into(">3Q", data, 4 * cluster, 5 * cluster | 1 << 63, 1 << 62 | sectors << 54 | 6 * cluster, 1)
    data[5 * cluster : 6 * cluster] = b"d" * cluster
    struct.pack_into(">7H", data, 2 * cluster, *[1] * 7)
    return data


def test_every_kind_of_cluster(tmp_path: Path) -> None:
    path, cluster = put(tmp_path / "a.qcow2", filled()), 1 << 16
    assert content(path) == b"d" * cluster + b"p" * cluster + bytes(MIB - 2 * cluster)


def test_a_truncated_one_is_an_error_not_zeros(tmp_path: Path) -> None:
    path = put(tmp_path / "a.qcow2", filled()[: 5 << 16])
    image = Qcow2Image(path, read_only=True)
    with pytest.raises(OSError, match="truncated"):
        image.read(0, [memoryview(bytearray(SECTOR))])
    image.close()


PLACES = st.one_of(st.integers(0, 111), st.integers(1 << 16, (1 << 16) + 15), st.integers(2 << 16, (2 << 16) + 15),
                   st.integers(3 << 16, (3 << 16) + 7), st.integers(4 << 16, (4 << 16) + 31),
                   st.integers(6 << 16, (6 << 16) + 99))  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(st.lists(st.tuples(PLACES, st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_is_an_error_or_data(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    data = filled()
    for at, value in changes:
        data[at] = value
    path = put(tmp_path_factory.getbasetemp() / "damaged.qcow2", data)
    steps: list[Callable[[Qcow2Image], object]] = [
        lambda image: image.read(0, [memoryview(bytearray(min(image.size, MIB)))]),
        lambda image: image.write(image.size - SECTOR, [memoryview(bytes(SECTOR))]),
        lambda image: image.write(0, [memoryview(bytes(SECTOR))]),
        lambda image: image.flush(),
        lambda image: image.close(),
    ]
    try:
        image = Qcow2Image(path, read_only=False)
    except OSError:
        return
    for step in steps:
        try:
            step(image)
        except OSError:
            continue
    path.unlink()  # it may have become large, with holes


def test_decompressed_clusters_are_not_larger_than_clusters() -> None:
    packer = zlib.compressobj(wbits=-12)
    bomb = packer.compress(bytes(16 * MIB)) + packer.flush()
    assert len(qcow2._inflate(bomb, 1 << 16, 0)) == 1 << 16

"""Files that GDB reads out of the guest's root: regular ones, to read, and a bounded number."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.machine.debug.files import MOST_OPEN, Files
from virtus.machine.debug.packets import escape, unescape


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    def open_in_root(path: str) -> int:
        return os.open(tmp_path / path.lstrip("/"), os.O_RDONLY | os.O_NONBLOCK)

    made = Files(open_in_root)
    yield made
    made.close()


def opened(files: Files, path: str, flags: int = 0) -> bytes:
    return files.answer(b"open:%b,%x,0" % (path.encode().hex().encode(), flags))


def test_a_file_is_read_in_parts(files: Files, tmp_path: Path) -> None:
    data = bytes(range(256)) * 3
    (tmp_path / "program").write_bytes(data)
    assert opened(files, "/program") == b"F0"
    size, _, part = files.answer(b"pread:0,100,80").partition(b";")
    assert (size, part) == (b"F100", data[0x80:0x180])
    assert files.answer(b"pread:0,10,1000") == b"F0;"
    assert files.answer(b"close:0") == b"F0"
    assert files.answer(b"pread:0,10,0") == b"F-1,9"  # EBADF


def test_a_file_s_status(files: Files, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"x" * 777)
    opened(files, "/program")
    head, _, status = files.answer(b"fstat:0").partition(b";")
    assert head == b"F40"
    assert len(status) == 64
    assert struct.unpack_from(">Q", status, 28) == (777,)


def test_what_is_refused(files: Files, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    assert opened(files, "/nothing") == b"F-1,2"  # ENOENT
    assert opened(files, "/program", os.O_WRONLY) == b"F-1,1e"  # EROFS
    assert opened(files, "/program", os.O_RDWR) == b"F-1,1e"
    assert opened(files, "/") == b"F-1,d"  # EACCES
    assert opened(files, "/pipe") == b"F-1,d"
    assert opened(files, "/pro\0gram") == b"F-1,16"  # EINVAL
    assert files.answer(b"pread:5,10,0") == b"F-1,9"
    assert files.answer(b"unlink:2f") == b""  # not known


def test_only_so_many_are_open(files: Files, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"x")
    assert {opened(files, "/program") for _ in range(MOST_OPEN)} == {b"F%x" % at for at in range(MOST_OPEN)}
    assert opened(files, "/program") == b"F-1,18"  # EMFILE
    assert files.answer(b"close:3") == b"F0"
    assert opened(files, "/program") == b"F3"


WORDS = st.sampled_from([b"0", b"1", b"ffffffffffffffff", b"-1", b"", b"2f", b"zz", b"7fffffffffffffff"])


@given(
    st.sampled_from([b"setfs", b"open", b"close", b"pread", b"fstat", b"pwrite", b""]),
    st.lists(WORDS | st.binary(max_size=8), max_size=4),
)
def test_any_request_is_answered_or_refused(name: bytes, words: list[bytes]) -> None:
    files = Files(lambda path: os.open("/dev/null", os.O_RDONLY))
    try:
        reply = files.answer(name + b":" + b",".join(words))
    except ValueError:
        return  # the caller's to answer
    finally:
        files.close()
    assert reply == b"" or reply.startswith(b"F")
    assert unescape(escape(reply)) == reply

"""Our own C runtime: formats against the host's printf, and a program built for msvcrt without any other runtime."""

import ctypes
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.win32.fake_engine import call, new_thread, room
from virtus.personalities.win32 import crt, crt_format, crt_streams
from virtus.vcpus.emulated_x86 import library

LIBC = ctypes.CDLL(None)
COMPILER = "x86_64-w64-mingw32-gcc"
MODULES = (crt, crt_streams)
FLAGS = st.sampled_from(["", "-", "0", "+", " ", "#", "-+", "0+", "+0", "#0", "- "])
WIDTHS = st.sampled_from(["", "1", "4", "9", "12"])
PRECISIONS = st.sampled_from(["", ".", ".0", ".1", ".3", ".8"])


def by_host(template: str, argument: object) -> bytes:
    buffer = ctypes.create_string_buffer(400)
    LIBC.snprintf(buffer, 400, template.encode(), argument)
    return buffer.value


def ours(template: str, argument: int) -> bytes:
    return crt_format.format(new_thread().memory, template.encode(), lambda: argument)


@given(FLAGS, WIDTHS, PRECISIONS, st.sampled_from("diuxXo"), st.integers(-(2**31), 2**32 - 1))
def test_integers_are_formatted_as_by_the_host(flags: str, width: str, precision: str, kind: str, value: int) -> None:
    assert ours(f"%{flags}{width}{precision}{kind}|", value & (1 << 64) - 1) == by_host(
        f"%{flags}{width}{precision}{kind}|", ctypes.c_uint32(value & 0xFFFF_FFFF)
    )


@given(FLAGS, WIDTHS, PRECISIONS, st.sampled_from("eEfFgG"), st.floats(-1e12, 1e12))
def test_floats_are_formatted_as_by_the_host(flags: str, width: str, precision: str, kind: str, value: float) -> None:
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    if kind not in "fF":
        flags, width = flags.strip("-0"), ""
    template = f"%{flags}{width}{precision}{kind}|"
    expected = by_host(template, ctypes.c_double(value))
    assert ours(template, bits) == re.sub(rb"([eE][+-])(\d\d)\|", rb"\g<1>0\2|", expected)


def test_what_is_no_number() -> None:
    infinity = struct.unpack("<Q", struct.pack("<d", float("-inf")))[0]
    assert ours("%f %g %e", infinity) == b"-1.#INF00 -1.#INF -1.#INF00e+000"


@given(
    st.sampled_from(["", "-"]), WIDTHS, PRECISIONS, st.binary(max_size=12).map(lambda data: data.replace(b"\0", b""))
)
def test_strings_are_formatted_as_by_the_host(flags: str, width: str, precision: str, value: bytes) -> None:
    thread = new_thread()
    address = room(thread, value + b"\0")
    template = f"%{flags}{width}{precision}s|"
    made = crt_format.format(thread.memory, template.encode(), lambda: address)
    assert made == by_host(template, ctypes.c_char_p(value))


@given(st.binary(max_size=20))
def test_any_template_is_formatted(template: bytes) -> None:
    thread = new_thread()
    address = room(thread, "x\0".encode("utf-16-le"))
    crt_format.format(thread.memory, template, lambda: address)


@given(st.text("0123456789abcdefxXZ+- ", max_size=10), st.sampled_from([0, 2, 8, 10, 16, 36]))
def test_numbers_are_read_as_by_the_host(text: str, base: int) -> None:
    end = ctypes.c_char_p()
    data = ctypes.create_string_buffer(text.encode())
    LIBC.strtoll.restype = ctypes.c_longlong
    value = LIBC.strtoll(data, ctypes.byref(end), base)
    left = len(end.value or b"")
    assert crt.parse_integer(text, base) == (value, len(text) - left)


def test_strings_and_memory() -> None:
    thread = new_thread()
    text = room(thread, b"hello world\0")
    assert call(thread, "strlen", text) == 11
    assert call(thread, "strchr", text, ord("o")) == text + 4
    assert call(thread, "strrchr", text, ord("o")) == text + 7
    assert call(thread, "strstr", text, room(thread, b"wor\0")) == text + 6
    assert call(thread, "strchr", text, 0) == text + 11
    assert call(thread, "strcmp", text, room(thread, b"help\0")) == -1
    block = call(thread, "calloc", 3, 5)
    call(thread, "strcpy", block, room(thread, b"ab\0"))
    call(thread, "strcat", block, room(thread, b"cd\0"))
    assert thread.memory.string(block) == b"abcd"
    assert thread.memory.string(call(thread, "realloc", block, 5000)) == b"abcd"


@pytest.mark.slow
@pytest.mark.skipif(library.find() is None, reason="the Python package unicorn is not installed")
def test_a_program_runs_without_another_runtime(tmp_path: Path) -> None:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed")
    program = tmp_path / "runtime.exe"
    source = Path(__file__).parent / "guests" / "runtime.c"
    subprocess.run([COMPILER, "-w", "-o", program, source], check=True)
    code = (
        "import sys; from virtus.personalities.win32 import modules; modules.WINE_LIBRARIES = ()\n"
        "from virtus.techniques import windows_process; windows_process.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "emulated", str(program), "a b"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100, check=False)
    assert done.stderr == b"to stderr\r\n"
    assert done.stdout.decode().split("\r\n") == [
        "2 a b|   42|ab    |003.14|0xff|z|%|abc",
        "1234567890123 -5 4000000000 0.0001 1.234568e+004",
        "-3 0 5 9 ",
        "-31 511",
        "rest z",
        "line 4: one",
        "line 6: two 2",
        "end 1",
        "grown -1 0",
        "none 1",
        "at exit",
        "",
    ]
    assert done.returncode == 2
    assert (tmp_path / "made.txt").read_bytes() == b"one\r\ntwo 2\r\n"

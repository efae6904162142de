"""Processes written as programs: they go on where they stood, with what is theirs, or something else runs."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

from virtus.host import checkpoint

WRITER = """
import ctypes, os, sys, time
{first}
from virtus.host import checkpoint
path, fallback = sys.argv[1:]
parking = checkpoint.Parking()
child = os.fork()
if not child:
    address = parking.park()
    if address:
        word = lambda at: ctypes.c_uint64.from_address(at).value
        words = [ctypes.string_at(word(address + 8 * (n + 1))).decode() for n in range(word(address))]
{then}
        sys.stdout.flush()
    os._exit(7)
os.waitpid(child, os.WUNTRACED)
try:
    with open(path, "wb") as stream:
        checkpoint.write(child, parking, stream, fallback)
    os.chmod(path, 0o700)
except checkpoint.NotPossible as error:
    print(error)
finally:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""


def written(path: Path, then: str, *, first: str = "import math", fallback: str = "/bin/false") -> str:
    source = WRITER.format(then=indent(dedent(then), " " * 8), first=first)
    done = subprocess.run([sys.executable, "-c", source, path, fallback], capture_output=True, text=True, check=True)
    return done.stdout


def gone_on(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([path, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(shutil.which("as") is None, reason="no assembler (Debian: binutils)")
@pytest.mark.parametrize("listing", [checkpoint.PARK, checkpoint.LOAD])
def test_the_listings_are_what_an_assembler_makes_of_them(listing: str, tmp_path: Path) -> None:
    lines = [line.partition("#")[2] if "#" in line else line for line in listing.split("\n")]
    source = ".intel_syntax noprefix\n" + "\n".join(line.partition(";")[0] for line in lines) + "\n"
    subprocess.run(["as", "-o", tmp_path / "o", "-"], input=source, text=True, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", tmp_path / "o", tmp_path / "code"], check=True)
    assert (tmp_path / "code").read_bytes() == checkpoint.code_of(listing)


@pytest.mark.slow
def test_a_process_goes_on_with_the_words_of_its_new_start(tmp_path: Path) -> None:
    then = "print(words[1:], os.getpid(), os.readlink('/proc/self/exe'), math.sqrt(49))"
    assert written(tmp_path / "it", then) == ""
    for words in ((), ("a", "b c", "")):
        done = gone_on(tmp_path / "it", *words)
        assert (done.returncode, done.stderr) == (7, "")
        expected = re.escape(str(list(words))) + rf" \d+ {re.escape(str(tmp_path / 'it'))} 7\.0\n"
        assert re.fullmatch(expected, done.stdout)


@pytest.mark.slow
def test_what_the_kernel_keeps_for_a_thread_is_the_new_ones(tmp_path: Path) -> None:
    then = """
        libc = ctypes.CDLL(None)
        thread = threading.Thread(target=lambda: print("thread", flush=True))
        thread.start()
        thread.join()
        child = os.fork()
        if not child:
            os._exit(5)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(libc.sched_getcpu() in os.sched_getaffinity(0), abs(time.time() - os.stat(words[1]).st_mtime) < 60)
        blocks = [bytearray(300_000) for _ in range(100)] + [bytes(n) for n in range(30_000)]
        print(sum(map(len, blocks)), len(subprocess.check_output(["/bin/echo", "hello"])))
        sys.stdout.flush()
        libc["raise"](15)
    """
    assert written(tmp_path / "it", then, first="import threading, subprocess") == ""
    fresh = tmp_path / "fresh"
    fresh.write_text("")
    done = gone_on(tmp_path / "it", str(fresh))
    total = 100 * 300_000 + sum(range(30_000))
    assert done.stdout == f"thread\n5\nTrue True\n{total} 6\n", done.stderr
    assert done.returncode == -signal.SIGTERM  # raise(3) sends to the thread that glibc knows


@pytest.mark.slow
def test_where_a_place_is_taken_another_program_runs(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho other $0 $#\n")
    other.chmod(0o700)
    assert written(tmp_path / "it", "print('went on')", fallback=str(other)) == ""
    data = bytearray((tmp_path / "it").read_bytes())
    page = checkpoint.PAGE
    first = 2 * page + checkpoint.MAPS_AT
    checkpoint.MAP.pack_into(data, first, checkpoint.LOADER, page, 3, 0x104022, 0)  # where the loader is itself
    (tmp_path / "it").write_bytes(data)
    done = gone_on(tmp_path / "it", "x", "y")
    assert (done.stdout, done.returncode) == (f"other {other} 2\n", 0)


@pytest.mark.slow
def test_what_others_may_write_is_not_written_down(tmp_path: Path) -> None:
    said = written(tmp_path / "it", "pass", first="import mmap; shared = mmap.mmap(-1, 4096)")
    assert "others may have" in said
    assert not os.access(tmp_path / "it", os.X_OK)

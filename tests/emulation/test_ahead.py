"""Translations that are kept: from run to run, and made ahead of time."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.emulation import guests
from tests.guest_runs import virtus

pytestmark = pytest.mark.slow

LOOP = """
static long call(long number, long a, long b, long c) {
    register long a0 asm("a0") = a, a1 asm("a1") = b, a2 asm("a2") = c, a7 asm("a7") = number;
    asm volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a7) : "memory");
    return a0;
}
__attribute__((noinline)) static long work(long n) {
    long sum = 0;
    for (long i = 0; i < n; i++) sum = sum * 3 + (i ^ sum >> 5);
    return sum;
}
__attribute__((noinline)) static void show(unsigned long value) {
    char text[17];
    for (int at = 15; at >= 0; at--, value >>= 4) text[at] = "0123456789abcdef"[value & 15];
    text[16] = '\\n';
    call(64, 1, (long)text, 17);
}
static void (*const shown)(unsigned long) = show;
void _start(void) { (*(void (*const volatile *)(unsigned long))&shown)(work(500000000)); call(93, 0, 0, 0); }
"""
"""A program of few functions: one is called by name, one through memory."""


@pytest.fixture(scope="module")
def program() -> Path:
    return guests.build_text(LOOP, "-nostdlib", "-nostartfiles", level="-O1")


def figures(program: Path, cache: Path, *options: str) -> tuple[bytes, dict[str, int]]:
    """Output and the report's own figures of a run that keeps its translations in `cache`."""
    report = cache.parent / "report.json"
    environment = {**os.environ, "VIRTUS_CACHE": str(cache)}
    done = virtus("run", "--meter-json", str(report), *options, "--", str(program), env=environment)
    assert done.returncode == 0, done.stderr
    details: dict[str, int] = json.loads(report.read_text())["details"]
    return done.stdout, details


def settle(cache: Path, files: int = 1) -> None:
    """Wait for what is written when the run is over: quick code, optimised code."""
    for _ in range(100):
        if sum(file.suffix == ".translated" and not file.name.startswith(".") for file in cache.iterdir()) == files:
            return
        time.sleep(0.05)
    raise AssertionError("nothing has been kept")


def test_a_second_run_begins_with_what_the_first_one_had_optimised(program: Path, tmp_path: Path) -> None:
    first, before = figures(program, tmp_path / "cache")
    assert before["kept from before"] == 0
    assert before["optimised"] > 0
    assert before["blocks kept from before"] == 0
    settle(tmp_path / "cache", files=2)
    second, after = figures(program, tmp_path / "cache")
    assert second == first
    assert after["kept from before"] > 0
    assert after["blocks kept from before"] == before["translated blocks"]
    assert after["translated blocks"] == 0


def test_translating_ahead_runs_nothing_and_leaves_everything_for_the_run(program: Path, tmp_path: Path) -> None:
    output, before = figures(program, tmp_path / "cache", "--translate-only")
    assert output == b""
    assert before["optimised"] >= 3
    settle(tmp_path / "cache")
    output, after = figures(program, tmp_path / "cache")
    assert len(output) == 17
    assert after["kept from before"] >= before["optimised"]


def test_only_what_is_translated_can_be_translated_ahead() -> None:
    done = virtus("run", "--translate-only", "--", "true")
    assert done.returncode == 2
    assert b"seccomp has no option for: translate" in done.stderr

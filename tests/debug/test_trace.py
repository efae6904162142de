"""A trace has every instruction with what it set, every call and every system call; and the guest does not notice."""

import re
from pathlib import Path

import pytest

from tests.debug.interpreted import run
from tests.emulation.guests import build, build_text, expected
from tests.guest_runs import need

pytestmark = pytest.mark.slow

PROGRAM = r"""
#include <unistd.h>
__attribute__((noinline)) long twice(long x) { __asm__ volatile(""); return 2 * x; }
__attribute__((noinline)) long outer(long x) { return twice(x) + 1; }
int main(void) {
    long result = outer(20);
    double half = result / 2.0;
    write(1, "text\n", 5);
    close(77);
    return half > 20 ? (int)result : 1;
}
"""
INSTRUCTION = re.compile(r"[0-9a-f]{8,}  [a-z.]+(?:\.[a-z]+)*(?: .*)?")


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    need("emulation")
    path: Path = tmp_path_factory.mktemp("trace") / "trace"
    done = run(build_text(PROGRAM, level="-O1"), options=(f"--trace={path}",))
    assert (done.stdout, done.returncode) == ("text\n", 41), done.stderr
    return path.read_text().splitlines()


def test_calls_are_indented_and_named(lines: list[str]) -> None:
    start = next(at for at, line in enumerate(lines) if line.strip().startswith("outer(0x14"))
    end = next(at for at in range(start, len(lines)) if "back in main+" in lines[at])
    calls = [line for line in lines[start : end + 1] if line.startswith("          ")]
    depth = len(calls[0]) - len(calls[0].lstrip())
    assert [len(line) - len(line.lstrip()) - depth for line in calls] == [0, 2, 2, 0]
    assert calls[1].strip().startswith("twice(0x14")
    assert calls[2].strip().startswith("= 0x28, back in outer+0x")
    assert calls[3].strip().startswith("= 0x29, back in main+0x")


def test_instructions_show_what_they_set(lines: list[str]) -> None:
    instructions = [line for line in lines if line[0] in "0123456789abcdef" and "  " in line and "(" not in line[:9]]
    assert len(instructions) > 1000
    assert all(INSTRUCTION.fullmatch(line) for line in instructions)
    assert any(re.search(r"addi sp, sp, -16 +sp=[0-9a-f]{16}$", line) for line in instructions)
    assert any("a0=0000000000000028" in line for line in instructions)
    assert any(
        re.search(r"fdiv\.d|fmul\.d", line) and re.search(r"f[a-z0-9]+=4034800000000000", line) for line in lines
    )


def test_system_calls_have_arguments_and_results(lines: list[str]) -> None:
    assert any(re.fullmatch(r"write\(1, 0x[0-9a-f]+, 5\) = 5", line) for line in lines)
    assert "close(77) = -9 EBADF" in lines
    assert lines[-1] == "exit_group(41) = ?"


def test_threads_are_told_apart(tmp_path: Path) -> None:
    need("emulation")
    path = tmp_path / "trace"
    done = run(build("processes"), options=(f"--trace={path}",))
    assert (done.stdout, done.returncode) == (expected("processes").stdout, expected("processes").status), done.stderr
    trace = path.read_text()
    assert "--- thread 2 ---" in trace
    assert "--- thread 3 ---" in trace
    assert re.search(r"wait4\(.*\) \.\.\.\n", trace)
    assert re.search(r"\.\.\. wait4\(.*\) = \d+\n", trace)


def test_faults_are_shown_and_the_trace_may_go_to_standard_error() -> None:
    need("emulation")
    done = run(build_text("int main(void) { *(volatile int *)16 = 1; }", "-nostartfiles", "-Wl,-e,main"),
               options=("--trace=-",))  # fmt: skip
    assert done.returncode == 139
    assert "--- signal 11 at 0x10 ---" in done.stderr

"""`virtus run --trace` and `--gdb` as a user types them."""

import re
from pathlib import Path

import pytest

from tests.emulation.guests import build_text
from tests.guest_runs import need, virtus
from virtus.machine.debug.trace import TEXT_COLUMNS

pytestmark = pytest.mark.slow
DECK = Path(__file__).parent.parent.parent / "examples" / "ibm7070" / "sqrt.7070"
BARE = r"""
__attribute__((naked)) void _start(void) {
    __asm__(".option norelax\n li a0, 3\n call twice\n li a7, 172\n ecall\n li a7, 64\n li a0, 9\n li a1, 0\n"
            "li a2, 1\n ecall\n fcvt.d.w fa0, s0\n li a7, 93\n li a0, 7\n ecall\n"
            ".globl twice\n twice: add a0, a0, a0\n sd a0, -8(sp)\n ret");
}
"""
EXPECTED = """\
ADDR  addi a0, zero, 3  a0=0000000000000003
ADDR  auipc ra, 0x0  ra=ADDR
ADDR  jalr ra, N(ra)  ra=ADDR
twice(0x3, 0x0, 0x0)
ADDR  add a0, a0, a0  a0=0000000000000006
ADDR  sd a0, -8(sp)
ADDR  jalr zero, 0(ra)
= 0x6, back in _start+N
ADDR  addi a7, zero, 172  a7=00000000000000ac
ADDR  ecall
getpid() = 2
ADDR  addi a7, zero, 64  a7=0000000000000040
ADDR  addi a0, zero, 9  a0=0000000000000009
ADDR  addi a1, zero, 0  a1=0000000000000000
ADDR  addi a2, zero, 1  a2=0000000000000001
ADDR  ecall
write(9, 0, 1) = -9 EBADF
ADDR  fcvt.d.w fa0, s0  fa0=0000000000000000
ADDR  addi a7, zero, 93  a7=000000000000005d
ADDR  addi a0, zero, 7  a0=0000000000000007
ADDR  ecall
exit(7) = ?
"""
SIGNALS = """
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void on_signal(int number) { (void)number; }
__attribute__((noinline)) void child(void) { *(volatile int *)8 = 1; }
int main(void) {
    signal(SIGUSR1, on_signal);
    raise(SIGUSR1);
    if (fork() == 0) child();
    wait(0);
    return 3;
}
"""


@pytest.fixture(autouse=True)
def _emulation() -> None:
    need("emulation")


def plain(trace: str) -> str:
    """A trace without what differs between compilers: addresses, and columns."""
    text = re.sub(r"^[0-9a-f]{8,}(?=  )", "ADDR", trace, flags=re.MULTILINE)
    text = re.sub(r"(?<=ra=)[0-9a-f]{16}", "ADDR", text)
    text = re.sub(r"(?<=ra, )-?\d+(?=\(ra\))", "N", text)
    text = re.sub(r"(?<=back in _start\+)0x[0-9a-f]+", "N", text)
    return "".join(re.sub(r"(?<=\S) {2,}", "  ", line.strip()) + "\n" for line in text.splitlines())


def bare() -> Path:
    return build_text(BARE, "-nostdlib", "-fno-stack-protector")


def test_a_trace_says_all_that_happens() -> None:
    done = virtus("run", "--trace", bare())
    assert done.returncode == 7
    trace = done.stderr.decode()
    assert plain(trace) == EXPECTED
    assert trace.index("a0=") == len("00000000  ") + TEXT_COLUMNS + len("  ")


def test_a_trace_goes_into_a_file(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("what was there before\n" * 1000)
    done = virtus("run", f"--trace={tmp_path / 'trace'}", "--meter", "--env", "A=B", "--", bare())
    assert done.returncode == 7
    assert plain((tmp_path / "trace").read_text()) == EXPECTED
    assert b"instructions interpreted" in done.stderr
    assert b"ecall" not in done.stderr


def test_signals_and_processes_are_told_apart(tmp_path: Path) -> None:
    done = virtus("run", f"--trace={tmp_path / 'trace'}", build_text(SIGNALS))
    assert done.returncode == 3, done.stderr
    lines = (tmp_path / "trace").read_text().splitlines()
    called = next(line for line in lines if line.startswith("tgkill("))
    assert called.endswith(" goes on at on_signal"), "the handler's argument is not the call's result"
    assert any(line.startswith("rt_sigreturn() goes on at ") for line in lines)
    entered = next(at for at, line in enumerate(lines) if line.lstrip().startswith("child("))
    assert "--- thread 3 ---" in lines[:entered]
    assert "--- signal 11 at 0x8 ---" in lines[entered:]
    assert lines[-1].startswith("exit_group(3)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trace=/nowhere/at/all",), b"writing a trace to /nowhere/at/all: No such file or directory"),
        (("--trace", "--translate-only"), b"what is traced or debugged is interpreted, not translated"),
        (("--gdb", "x"), b"'x' is neither a port nor a path"),
        (("--gdb", "65536"), b"'65536' is neither a port nor a path"),
        (("--gdb", "/nowhere/at/all"), b"waiting for GDB at /nowhere/at/all: No such file or directory"),
    ],
)
def test_what_is_refused(words: tuple[str, ...], message: bytes) -> None:
    done = virtus("run", *words, bare())
    assert done.returncode == 2
    assert message in done.stderr


def test_a_trace_that_cannot_be_written_ends_the_machine() -> None:
    done = virtus("run", "--trace=/dev/full", bare())
    assert done.returncode == 1
    assert done.stderr == b"virtus: writing the trace: No space left on device\n"


@pytest.mark.parametrize(
    "words", [("echo", "--trace"), ("--", "echo", "--trace"), ("--net", "none", "echo", "--trace")]
)
def test_the_guest_s_own_words_stay_as_they_are(words: tuple[str, ...]) -> None:
    assert virtus("run", *words).stdout == b"--trace\n"


def test_only_programs_for_another_processor_are_traced() -> None:
    done = virtus("run", "--trace", "echo")
    assert done.returncode == 2
    assert b"has no option for: trace" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--gdb", "0"), b"GDB knows no IBM 7070"),
        (("--trace=/nowhere/at/all",), b"its trace in /nowhere/at/all: No such file or directory"),
        (("--trace=/dev/full",), b"its trace in /dev/full: No space left on device"),
    ],
)
def test_what_is_refused_for_a_deck(words: tuple[str, ...], message: bytes) -> None:
    done = virtus("run", *words, DECK)
    assert done.returncode == 2
    assert message in done.stderr


def test_a_deck_s_trace_goes_into_a_file(tmp_path: Path) -> None:
    virtus("run", f"--trace={tmp_path / 'trace'}", DECK)
    assert re.match(r"\d{4}  \S", (tmp_path / "trace").read_text())

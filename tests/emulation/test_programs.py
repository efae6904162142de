"""Programs for riscv64 behave under emulation as they do on Linux: what they print, and how they end."""

import pytest

from tests.emulation import guests
from tests.emulation.guests import NOT_IN_QEMU, SYSROOT, WORDS, Outcome, build, emulated, expected, in_qemu

DYNAMIC = ("exceptions", "floats", "jumps", "registers", "signals", "threads")
"""Linked dynamically as well: what the loader and shared libraries have a part in."""


@pytest.mark.slow
@pytest.mark.parametrize("name", guests.names())
def test_a_static_program(name: str) -> None:
    assert emulated(build(name), *WORDS.get(name, ())) == expected(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", DYNAMIC)
def test_a_dynamic_program(name: str) -> None:
    if not SYSROOT.is_dir():
        pytest.skip(f"no {SYSROOT} (Debian: libc6-riscv64-cross)")
    program = build(name, dynamic=True)
    assert emulated(program, *WORDS.get(name, ()), options=("--env", f"VIRTUS_SYSROOT={SYSROOT}")) == expected(name)


@pytest.mark.slow
@pytest.mark.parametrize("level", ["-O0", "-Os"])
@pytest.mark.parametrize("name", ["switches", "floats", "misaligned", "jumps"])
def test_code_of_another_shape(name: str, level: str) -> None:
    program = build(name, level, "-ffp-contract=fast")
    assert emulated(program) == expected(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in guests.names() if name not in NOT_IN_QEMU])
def test_what_is_expected_is_what_qemu_prints(name: str) -> None:
    assert in_qemu(build(name), *WORDS.get(name, ())) == expected(name)


def test_every_program_has_its_expected_text() -> None:
    assert [name for name in guests.names() if not (guests.PROGRAMS / f"{name}.expected").exists()] == []


@pytest.mark.slow
def test_standard_input_reaches_the_guest() -> None:
    program = guests.build_text(
        "#include <stdio.h>\nint main(void) { int c; while ((c = getchar()) != EOF) putchar(c ^ 1); return 3; }\n"
    )
    assert emulated(program, stdin=b"`abc") == Outcome("a`cb", 3)


@pytest.mark.slow
def test_a_program_without_a_library() -> None:
    program = guests.build_text(
        """
        __attribute__((naked)) void _start(void) {
            __asm__("li a7, 64\\n li a0, 1\\n la a1, text\\n li a2, 3\\n ecall\\n"
                    "li a7, 93\\n li a0, 9\\n ecall\\n .data\\n text: .ascii \\"ok\\\\n\\"\\n .text");
        }
        """,
        "-nostdlib",
    )
    assert emulated(program) == Outcome("ok\n", 9)

"""What the claims on emulation are measured by: code is found, translated and counted."""

import shutil

import pytest
from benchmarks import claims, emulation_claims


def test_host_instructions_are_counted() -> None:
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed (Debian: binutils)")
    assert emulation_claims._host_instructions(bytes.fromhex("90 4889f8 4883c001 c3")) == 4


def test_all_of_a_deck_that_is_carried_out_is_translated() -> None:
    isa, code, starts = emulation_claims._payroll()
    made = emulation_claims._at_once(isa, code, starts)
    assert len(starts) > 50
    assert made.instructions >= len(starts)
    assert made.guest_bytes == made.instructions * isa.longest
    assert len(made.code) > made.guest_bytes


def test_functions_are_found_by_calls() -> None:
    from virtus.isa.riscv64 import RISCV64

    words = (0x00C000EF, 0x00008067, 0x00000013, 0x00008067)  # jal ra, 12; ret; nop; ret
    code = ((0x1000, b"".join(word.to_bytes(4, "little") for word in words)),)
    shapes = list(emulation_claims._functions(RISCV64, code, 0x1000))
    assert [shape.entry for shape in shapes] == [0x1000, 0x100C]
    assert emulation_claims._at_once(RISCV64, code, [0x1000, 0x100C]).instructions == 3


def test_the_page_names_every_claims_command() -> None:
    page = claims.DOCUMENT.read_text()
    assert [name for name in claims.CLAIMS if name not in page] == []

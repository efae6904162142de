"""Open pages: a guest that computes runs in a flat segment where it can, and elsewhere as before."""

import pytest

from tests.prescan.machines import DONE, PRINT_EAX, Boot, needs_assembler, printed
from virtus.vcpus.scanned import vcpu

pytestmark = needs_assembler

SPIN = "mov $40000000, %ecx; 7: dec %ecx; jnz 7b"
"""Some ticks."""


@pytest.fixture(autouse=True)
def code_cannot_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcpu, "can_hide_code", lambda: False)


def test_pages_whose_instructions_go_over_their_ends_and_use_floating_point_are_open(boot: Boot) -> None:
    machine = boot(f"""
        jmp inside
        .org 0x1800
        inside: xor %ebx, %ebx; {SPIN}
        mov $1000, %ecx; 1: call over; dec %ecx; jnz 1b
        jmp end
        .org 0x2000 - 3
        over: add $0x11223344, %ebx; fld1; fistpl 0x5000; ret  # its last bytes are in the next page
        .org 0x3000
        end: mov %ebx, %eax; {PRINT_EAX} mov 0x5000, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [1000 * 0x11223344 & 0xFFFF_FFFF, 1]
    assert machine.vcpu.monitor.open_pages.entered == 1
    assert len(machine.vcpu.monitor.open_pages.pages) == 3
    assert machine.vcpu.monitor.counts["stops"] < 200


def test_who_comes_back_to_an_open_page_runs_in_it_again_unless_that_is_often(boot: Boot) -> None:
    machine = boot(f"""
        jmp inside
        .org 0x1800
        inside: mov $3, %edx
        1: {SPIN}
        call sensitive; dec %edx; jnz 1b
        mov $100000, %ecx; xor %ebx, %ebx
        2: call sensitive; dec %ecx; jnz 2b
        jmp end
        .org 0x3000
        sensitive: pushf; pop %eax; nop; nop; nop; inc %ebx; ret
        end: mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [100000]
    assert machine.vcpu.monitor.counts["stops"] < 20000, (
        "patches keep it from stopping, and it gives up before each call costs two stops"
    )


def test_an_open_page_that_is_written_is_the_new_code(boot: Boot) -> None:
    machine = boot(f"""
        jmp inside
        .org 0x1800
        inside: xor %ebx, %ebx; mov $5, %edx
        1: {SPIN}
        incl there + 2; jmp there
        there: add $1, %ebx  # 83 C3 imm8
        dec %edx; jnz 1b
        jmp end
        .org 0x3000
        end: mov %ebx, %eax; {PRINT_EAX} {DONE}""")
    machine.run()
    assert printed(machine) == [2 + 3 + 4 + 5 + 6]
    assert machine.vcpu.monitor.open_pages.entered

"""Hiding code by protection keys: the decision, what is asked of the host then, and what is said without them.

Where the processor has no keys, a page that is executable alone can be read; all else of that way runs as it would.
"""

import mmap
from pathlib import Path

import pytest

from tests.prescan.machines import DONE, PRINT_EAX, TestMachine, assemble, needs_assembler
from virtus.host import probe, protection_keys
from virtus.vcpus.scanned import vcpu
from virtus.vcpus.scanned.child import CODE_AT, Child

NO_SPACE = -1


class Kernel:
    """pkey_alloc(2) and pkey_free(2)."""

    def __init__(self, key: int) -> None:
        self.key, self.calls = key, list[tuple[int, ...]]()

    def syscall(self, number: int, *arguments: int) -> int:
        self.calls.append((number, *arguments))
        return self.key if number == protection_keys.PKEY_ALLOC else 0


@pytest.mark.parametrize("key", [NO_SPACE, 1, 15])
def test_code_can_be_hidden_where_there_is_a_key_which_is_given_back(monkeypatch: pytest.MonkeyPatch, key: int) -> None:
    kernel = Kernel(key)
    monkeypatch.setattr(protection_keys, "_libc", kernel)
    assert protection_keys.can_hide_code() == (key > 0)
    freed = [arguments for number, *arguments in kernel.calls if number == protection_keys.PKEY_FREE]
    assert freed == ([[key]] if key > 0 else [])


def test_the_doctor_says_what_is_weaker_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection_keys, "_libc", Kernel(NO_SPACE))
    found = probe.hidden_code()
    assert not found.there
    assert "weaker" in found.needed_by
    assert "docs/prescan.md" in found.remedy
    monkeypatch.setattr(protection_keys, "_libc", Kernel(1))
    assert probe.hidden_code().there


class Mapped:
    """What a machine's children were asked to map of scanned code: linear address, protection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.code: list[tuple[int, int]] = []
        original = Child.map

        def map_(child: Child, linear: int, size: int, protection: int, descriptor: int, offset: int) -> bool:
            if descriptor == CODE_AT and not protection & mmap.PROT_WRITE:
                self.code.append((linear, protection))
            return original(child, linear, size, protection, descriptor, offset)

        monkeypatch.setattr(Child, "map", map_)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> Mapped:
    return Mapped(monkeypatch)


GUEST = f"""
    lidt idt_register
    mov $300, %ecx; xor %ebx, %ebx
    1: cli; pushf; pop %eax; and $0x200, %eax; add %eax, %ebx; sti; inc %ebx; nop; nop; nop; dec %ecx; jnz 1b
    mov %ebx, %eax; {PRINT_EAX}
    fld1; fld1; faddp; fistpl 0x5000; mov 0x5000, %eax; {PRINT_EAX}
    xor %eax, %eax; xor %ecx, %ecx; xor %edx, %edx
    .byte 0x0F, 0x01, 0xEF      # wrpkru
    .byte 0x0F, 0x01, 0xEE      # rdpkru
    .byte 0x0F, 0xAE, 0x2D; .long 0x6000  # xrstor
    mov 0x7000, %eax; {PRINT_EAX} {DONE}
    undefined: incl 0x7000; cmpl $3, 0x7000; je 2f; addl $3, (%esp); iretl
    2: addl $7, (%esp); iretl
    .align 8
    idt: .fill 6, 8, 0
    .word undefined - _start, 8, 0x8E00, 1
    idt_register: .word 55; .long idt
"""


@needs_assembler
@pytest.mark.parametrize("hidden", [True, False])
def test_hidden_code_is_where_the_guest_has_it_and_executable_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mapped: Mapped, hidden: bool
) -> None:
    """Without keys it is elsewhere, and may be read. The guest changes no key either way: such instructions are #UD."""
    monkeypatch.setattr(vcpu, "can_hide_code", lambda: hidden)
    source = (
        GUEST + "\n.org 0x400; gdt: .quad 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF\ngdt_register: .word 23; .long gdt"
    )
    machine = TestMachine(
        assemble(source.replace("lidt idt_register", "lgdt gdt_register; lidt idt_register", 1), tmp_path)
    )
    try:
        machine.run()
        found = [int.from_bytes(machine.printed[at : at + 4], "little") for at in range(0, len(machine.printed), 4)]
        assert found == [300, 2, 3]
        assert machine.vcpu.monitor.patches.made
        assert mapped.code
        space = machine.vcpu.monitor.spaces.supervisor
        assert (space.bias == 0) == hidden
        wanted = mmap.PROT_EXEC if hidden else mmap.PROT_READ | mmap.PROT_EXEC
        assert {protection for _, protection in mapped.code} == {wanted}
    finally:
        machine.close()

"""Stores into page tables against the processor itself: the same instruction on plain memory, which it executes."""

import struct
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.xen.mini_guest import DONE, RAX, RBX, RDI, RIP, RSP, MiniGuest, mini_guest
from tests.xen.stopped import stopped_domains
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.memory.x86_paging import PRESENT, USER, WRITABLE
from virtus.personalities.xen.abi import Refused
from virtus.personalities.xen.instructions import decode

RFLAGS, R9 = 17, 9
DEFINED = {  # flags that the instruction defines: carry, parity, zero, sign, overflow
    "mov": 0, "xchg": 0, "cmpxchg": 0x40, "bit": 1, "logic": 0x8C5 & ~0x10,
}  # fmt: skip
# every form with [rdi] as its place, rbx (or r9) as its register
FORMS = {
    "488919": ("mov", "mov [rcx], rbx"),
    "48891f": ("mov", "mov [rdi], rbx"),
    "891f": ("mov", "mov [rdi], ebx"),
    "66891f": ("mov", "mov [rdi], bx"),
    "881f": ("mov", "mov [rdi], bl"),
    "4c890f": ("mov", "mov [rdi], r9"),
    "44880f": ("mov", "mov [rdi], r9b"),
    "48895f00": ("mov", "mov [rdi+disp8], rbx"),
    "48899f00000000": ("mov", "mov [rdi+disp32], rbx"),
    "48891c27": ("mov", "mov [rdi], rbx by SIB"),
    "48c707f0ffffff": ("mov", "mov qword [rdi], -16"),
    "c70778563412": ("mov", "mov dword [rdi], imm32"),
    "66c7073412": ("mov", "mov word [rdi], imm16"),
    "c60712": ("mov", "mov byte [rdi], imm8"),
    "48871f": ("xchg", "xchg [rdi], rbx"),
    "4c870f": ("xchg", "xchg [rdi], r9"),
    "871f": ("xchg", "xchg [rdi], ebx"),
    "861f": ("xchg", "xchg [rdi], bl"),
    "f0480fb11f": ("cmpxchg", "lock cmpxchg [rdi], rbx"),
    "f00fb11f": ("cmpxchg", "lock cmpxchg [rdi], ebx"),
    "f04c0fb10f": ("cmpxchg", "lock cmpxchg [rdi], r9"),
    "f0480fba2f05": ("bit", "lock bts qword [rdi], 5"),
    "f0480fba3729": ("bit", "lock btr qword [rdi], 41"),
    "480fba3f3f": ("bit", "btc qword [rdi], 63"),
    "f08027fc": ("logic", "lock and byte [rdi], ~3"),
    "800f42": ("logic", "or byte [rdi], 0x42"),
    "488127feffff7f": ("logic", "and qword [rdi], imm32"),
    "f0488327fc": ("logic", "lock and qword [rdi], -4"),
    "48830f60": ("logic", "or qword [rdi], 0x60"),
    "48833740": ("logic", "xor qword [rdi], 0x40"),
    "48211f": ("logic", "and [rdi], rbx"),
    "48091f": ("logic", "or [rdi], rbx"),
    "48311f": ("logic", "xor [rdi], rbx"),
}


@pytest.fixture(scope="module")
def shared(ring3: None) -> Iterator[MiniGuest]:
    with mini_guest() as made:
        yield made


def execute(guest: MiniGuest, code: bytes, pfn: int, offset: int, before: int, registers: dict[int, int]) -> list[int]:
    """Execute one instruction on a qword at a page: memory and registers after it."""
    page = guest.data(12)
    guest.memory.entries(guest.mfn(pfn))[offset // 8] = before
    body = code + bytes.fromhex("4989c7") + b"\xb8" + struct.pack("<I", DONE) + b"\x0f\x05"  # mov r15, rax
    guest.put(page, body)
    for register, value in registers.items():
        guest.regs[register] = value
    guest.regs[RDI] = guest.regs[2] = guest.va(pfn) + offset
    guest.regs[RFLAGS] = 0x202
    guest.regs[RIP], guest.regs[RSP] = guest.va(page), guest.va(guest.data(22)) + PAGE
    guest._until_done()
    after = guest.memory.entries(guest.mfn(pfn))[offset // 8]
    return [after, guest.regs[15], guest.regs[RBX], guest.regs[R9], guest.regs[17]]


even = st.one_of(
    st.integers(0, (1 << 63) - 1).map(lambda value: 2 * value), st.sampled_from([0, 2, 0xFFFF_FFFF_FFFF_FFFE, 1 << 63])
)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=even, rbx=even, rax=even, r9=even, same=st.booleans(), offset=st.sampled_from([0, 8, 4088]))
def test_a_store_does_what_the_processor_would(
    shared: MiniGuest, form: str, before: int, rbx: int, rax: int, r9: int, same: bool, offset: int
) -> None:
    kind = FORMS[form]
    guest, code, plain, table = shared, bytes.fromhex(form), shared.data(13), shared.data(14)
    registers = {RAX: before if same else rax, RBX: rbx, R9: r9}
    expected = execute(guest, code, plain, offset, before, registers)
    entry = guest.mfn(table) << FRAME_SHIFT | PRESENT | USER
    guest.memory.entries(guest.mfn(table))[:] = memoryview(bytes(PAGE)).cast("Q")
    assert guest.update(guest.entry_at(guest.va(table)), entry) == 0
    assert guest.extended(0, guest.mfn(table)) == 0
    found = execute(guest, code, table, offset, before, registers)
    assert guest.extended(4, guest.mfn(table)) == 0
    guest.update(guest.entry_at(guest.va(table)), entry | WRITABLE)
    mask = DEFINED[kind[0]]
    assert found[:4] == expected[:4], kind[1]
    assert found[4] & mask == expected[4] & mask, kind[1]


@pytest.mark.slow
@settings(max_examples=300)
@given(st.binary(max_size=15), st.integers(0, 511), st.integers(0, 7))
def test_no_bytes_of_a_guest_break_the_decoder(code: bytes, slot: int, beyond: int) -> None:
    try:
        one = decode(code)
        _ = one.in_memory, one.register, one.base, one.extension, one.behind_operand(), one.immediate(one.at, 4)
    except Refused:
        return
    assert one.at <= len(code)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=15), st.integers(0, PAGE - 1), st.integers(0, (1 << 64) - 1))
def test_no_instruction_stores_what_an_update_could_not(code: bytes, offset: int, value: int) -> None:
    with stopped_domains() as (_, (domain,), _):
        first = domain.first_frame
        domain.tables.pin(first, 1)
        pages = domain.pte_writes
        domain.cpu.context.regs[RBX] = value
        try:
            pages._execute(decode(code), (first << FRAME_SHIFT) + offset)
        except Refused:
            pass
        for entry in domain.memory.entries(first):
            frame = entry >> FRAME_SHIFT & 0xFF_FFFF_FFFF
            assert not entry & PRESENT or domain.frames.owner[frame] == domain.ident
            assert not (entry & PRESENT and entry & WRITABLE and frame == first)

"""How optimised functions call one another: with the registers that calls are about in the host's own.

A unit has two entries for a guest address. `u`, with the host's C calling convention, is what `layout` says: all of the
guest's registers stand in the state. `f` takes the registers that the instruction set names (`call_registers`) as
arguments, and returns them beside the address to go on with; all others stand in the state. `layout.FAST` leads to it.
So a call from one optimised function to another neither stores nor loads what both have in registers of the host.
LLVM's convention for this is regcall, the only one with so many registers both ways. Where something else is to run
(quickly translated code, a way out), `call_stubs` has the piece that stands between.

Without such registers (`precise` code, whose registers are always in the state; other instruction sets) there is `u`
alone, and it is called as such.
"""

from typing import Final

from virtus.vcpus.translator import layout

NOT_GUEST: Final = "!noalias !1"
"""Said of accesses to the thread's own state: no guest memory is there."""
STATE_PARAMETER: Final = "ptr noalias nocapture nonnull dereferenceable(4096) %st"
MOST: Final = 10
"""Registers that regcall has for us on x86-64 besides the state's address, or the address to go on with."""
_STUBS: Final = {
    layout.MISS_AT: layout.CALL_MISS_AT,
    layout.JUMP_MISS_AT: layout.CALL_JUMP_MISS_AT,
    layout.UNWIND_AT: layout.CALL_UNWIND_AT,
}


class Convention:
    """The texts of functions, calls and results. `registers` are those that go in the host's registers."""

    def __init__(self, registers: tuple[int, ...] = ()) -> None:
        if len(registers) > MOST:
            raise ValueError(f"a call takes at most {MOST} registers")
        self.registers = registers
        self.result = f"{{{', '.join(['i64'] * (len(registers) + 1))}}}" if registers else "i64"
        """The type of what a function returns."""
        self.function = f"x86_regcallcc {self.result}" if registers else "i64"
        """Convention and type, for calls and definitions."""
        self.table = layout.FAST if registers else layout.TABLE
        self.tail = "musttail" if registers else "tail"
        parameters = "".join(f", i64 %g{register}" for register in registers)
        self.parameters = STATE_PARAMETER + parameters
        self.same = "ptr %st" + parameters
        """Arguments that are the function's own parameters."""
        self.letter = "f" if registers else "u"
        """Names of functions that are called this way begin with it."""

    def stub(self, word: int) -> int:
        """The word of the state with the stub that does for such functions what the one of another word does."""
        return _STUBS.get(word, word) if self.registers else word

    def entry(self, pc: int) -> str:
        """The function `u` for the one that is called with registers."""
        if not self.registers:
            return ""
        return (
            f"define dso_local i64 @u{pc:x}({STATE_PARAMETER}) #0 {{\n"
            f"%p = getelementptr i64, ptr %st, i64 {layout.PC}\n"
            f"store i64 {pc}, ptr %p, {NOT_GUEST}\n"
            f"%e = getelementptr i64, ptr %st, i64 {layout.CALL_ENTER_AT}\n"
            f"%enter = load ptr, ptr %e, {NOT_GUEST}\n"
            f"%r = tail call i64 %enter(ptr %st, ptr @f{pc:x})\n"
            "ret i64 %r\n}\n"
        )

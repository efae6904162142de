"""How optimised functions call one another: with the registers that calls are about in the host's own.

A unit has two entries for a guest address. `u`, with the host's C calling convention, is what `layout` says: all of the
guest's registers stand in the state. `f` takes the registers that the instruction set names (`call_registers`) as
arguments, and returns them beside the address to go on with; all others stand in the state. `layout.FAST` leads to it.
So a call from one optimised function to another neither stores nor loads what both have in registers of the host.
LLVM's convention for this is regcall, the only one with so many registers both ways. Where something else is to run
(quickly translated code, a way out), a function of the same kind stands between: see `helpers`.

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
    layout.MISS_AT: "@x.miss",
    layout.JUMP_MISS_AT: "@x.jump_miss",
    layout.UNWIND_AT: "@x.unwind",
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

    def stub(self, word: int) -> str | None:
        """The function that does what the stub does whose address stands in a word of the state; None: that one."""
        return _STUBS[word] if self.registers else None

    def _stores(self) -> list[str]:
        lines = []
        for register in self.registers:
            lines.append(f"%s{register} = getelementptr i64, ptr %st, i64 {register}")
            lines.append(f"store i64 %g{register}, ptr %s{register}, {NOT_GUEST}")
        return lines

    def _loads(self, pc: str) -> list[str]:
        """Return `pc` and what the state has of the registers."""
        lines = [f"%r0 = insertvalue {self.result} poison, i64 {pc}, 0"]
        for place, register in enumerate(self.registers, 1):
            lines += (
                f"%l{register} = load i64, ptr %s{register}, {NOT_GUEST}",
                f"%r{place} = insertvalue {self.result} %r{place - 1}, i64 %l{register}, {place}",
            )
        return [*lines, f"ret {self.result} %r{len(self.registers)}"]

    @staticmethod
    def _word(name: str, word: int, kind: str = "ptr") -> list[str]:
        return [
            f"%{name}p = getelementptr i64, ptr %st, i64 {word}",
            f"%{name} = load {kind}, ptr %{name}p, {NOT_GUEST}",
        ]

    def _helper(self, name: str, called: list[str]) -> str:
        """Registers into the state, a call of %to, registers out of it."""
        lines = [f"define internal {self.function} {name}({self.parameters}) #1 {{", *self._stores(), *called]
        return "\n".join([*lines, "%pc = call i64 %to(ptr %st)", *self._loads("%pc"), "}\n"])

    def _through_table(self, miss: int) -> list[str]:
        """%to is the translation of the address in the state's PC, or the stub that makes one."""
        bits = layout.GUEST_END.bit_length() - 1
        return [
            *self._word("target", layout.PC, "i64"),
            *self._word("miss", miss),
            f"%high = lshr i64 %target, {bits}",
            "%inside = icmp eq i64 %high, 0",
            "%index = select i1 %inside, i64 %target, i64 0",
            "%offset = shl i64 %index, 2",
            f"%address = add i64 %offset, {layout.TABLE}",
            "%slot = inttoptr i64 %address to ptr",
            f"%listed = load ptr, ptr %slot, {NOT_GUEST}",
            "%found = select i1 %inside, ptr %listed, ptr null",
            "%missing = icmp eq ptr %found, null",
            "%to = select i1 %missing, ptr %miss, ptr %found",
        ]

    def helpers(self) -> str:
        """What every module needs once: ways to those who want all registers in the state, and the way from them."""
        if not self.registers:
            return ""
        enter = [
            f"define internal i64 @x.enter({STATE_PARAMETER}, ptr %f) #1 {{",
            f"%limitp = getelementptr i64, ptr %st, i64 {layout.STACK_LIMIT}",
            f"%limit = load volatile i64, ptr %limitp, {NOT_GUEST}",
            "%rsp = call i64 @llvm.read_register.i64(metadata !7)",
            "%enough = icmp uge i64 %rsp, %limit",
            "br i1 %enough, label %on, label %full, !prof !9",
            "full:",
            *self._word("unwind", layout.UNWIND_AT),
            "%never = tail call i64 %unwind(ptr %st)",
            "ret i64 %never",
            "on:",
        ]
        for register in self.registers:
            enter.append(f"%s{register} = getelementptr i64, ptr %st, i64 {register}")
            enter.append(f"%g{register} = load i64, ptr %s{register}, {NOT_GUEST}")
        enter.append(f"%result = call {self.function} %f({self.same})")
        for place, register in enumerate(self.registers, 1):
            enter.append(f"%e{register} = extractvalue {self.result} %result, {place}")
            enter.append(f"store i64 %e{register}, ptr %s{register}, {NOT_GUEST}")
        enter += (f"%pc = extractvalue {self.result} %result, 0", "ret i64 %pc", "}\n")
        up = [f"define internal {self.function} @x.up({STATE_PARAMETER}, i64 %pc) #1 {{"]
        up += (f"%s{register} = getelementptr i64, ptr %st, i64 {register}" for register in self.registers)
        up += (*self._loads("%pc"), "}\n")
        leave = [
            f"define internal x86_regcallcc i64 @x.leave({STATE_PARAMETER}) #1 {{",  # keeps more registers than C's do
            *self._word("to", layout.LEAVE_AT),
            "%pc = call i64 %to(ptr %st)",
            "ret i64 %pc",
            "}\n",
        ]
        return "".join(
            (
                "\n".join(enter),
                "\n".join(leave),
                "\n".join(up),
                self._helper("@x.unwind", self._word("to", layout.UNWIND_AT)),
                self._helper("@x.miss", self._through_table(layout.MISS_AT)),
                self._helper("@x.jump_miss", self._through_table(layout.JUMP_MISS_AT)),
            )
        )

    def entry(self, pc: int) -> str:
        """The function `u` for the one that is called with registers.

        It looks for host stack in any case: code that goes round between it and quickly translated code, without any
        call of the guest's, must not fill the stack.
        """
        if not self.registers:
            return ""
        return (
            f"define dso_local i64 @u{pc:x}({STATE_PARAMETER}) #0 {{\n"
            f"%p = getelementptr i64, ptr %st, i64 {layout.PC}\n"
            f"store i64 {pc}, ptr %p, {NOT_GUEST}\n"
            f"%r = tail call i64 @x.enter(ptr %st, ptr @f{pc:x})\n"
            "ret i64 %r\n}\n"
        )

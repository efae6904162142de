"""Machine code between optimised functions, which take some registers along (`llvm.convention`), and everybody else.

What is called from optimised code follows LLVM's regcall on x86-64: the state's address comes in RAX, the registers in
`PLACES`, and so they go back, RAX being the guest address to go on with; XMM8 to XMM15, RBX and RBP are kept.
"""

from typing import Final

from virtus.isa.x86 import assembler as x86
from virtus.isa.x86.assembler import Assembler
from virtus.vcpus.translator import layout

PLACES: Final = (x86.RCX, x86.RDX, x86.RDI, x86.RSI, x86.R8, x86.R9, x86.R12, x86.R13, x86.R14, x86.R15)
"""Where regcall has the second to eleventh integer (LLVM, X86CallingConv.td)."""
KEPT_BY_ENTER: Final = (x86.RBX, x86.R12, x86.R13, x86.R14, x86.R15)
"""What C's convention keeps and optimised functions may not: with the return address they leave RSP aligned."""
_WORD: Final = 8
_VECTORS: Final = range(8)
"""Of XMM8 and those after it, which C's convention does not keep."""
_SPACE: Final = 16 * len(_VECTORS)


def _vector(opcode: int, number: int) -> bytes:
    """movups between XMM8 + number and its place on the stack (Intel SDM volume 2, MOVUPS)."""
    return bytes((0x44, 0x0F, opcode, 0x44 | number << 3, 0x24, 16 * number))


class CallStubs:
    """For an instruction set's `call_registers`: the code, and offsets of its pieces by words of the state."""

    def __init__(self, registers: tuple[int, ...]) -> None:
        self._places = tuple(zip(registers, PLACES, strict=False))
        self.words: dict[int, int] = {}
        self._a = Assembler()
        for word, make in (
            (layout.CALL_ENTER_AT, self._enter),
            (layout.CALL_LEAVE_AT, self._leave),
            (layout.CALL_UP_AT, self._up),
            (layout.CALL_UNWIND_AT, self._unwind),
            (layout.CALL_MISS_AT, lambda: self._outside(layout.MISS_AT)),
            (layout.CALL_JUMP_MISS_AT, lambda: self._outside(layout.JUMP_MISS_AT)),
        ):
            self.words[word] = len(self._a.code)
            make()
        self.code = bytes(self._a.code)

    def _stores(self, state: int) -> None:
        for register, place in self._places:
            self._a.store(state, _WORD * register, place)

    def _loads(self, state: int) -> None:
        for register, place in self._places:
            self._a.load(place, state, _WORD * register)

    def _enter(self) -> None:
        """`word enter(state, function)` for C's convention: call a function that takes registers along.

        It looks for host stack in any case: code that goes round between optimised and quick translations, without any
        call of the guest's, must not fill the stack. The state's PC is the function's address in the guest.
        """
        a = self._a
        a.arithmetic_memory(x86.CMP, x86.RSP, x86.RDI, _WORD * layout.STACK_LIMIT)
        full = a.jump_if(x86.BELOW)
        for register in KEPT_BY_ENTER:
            a.push(register)
        a.move(x86.RBX, x86.RDI)
        a.move(x86.R10, x86.RSI)
        self._loads(x86.RBX)
        a.move(x86.RAX, x86.RBX)
        a.call(x86.R10)
        self._stores(x86.RBX)
        for register in reversed(KEPT_BY_ENTER):
            a.pop(register)
        a.back()
        a.aim(full, len(a.code))
        a.jump_through(x86.RDI, _WORD * layout.UNWIND_AT)

    def _leave(self) -> None:
        """`word leave(state)`: all is in the state; LEAVE itself destroys RCX and R11 only, which nobody relies on."""
        self._a.move(x86.RDI, x86.RAX)
        self._a.jump_through(x86.RDI, _WORD * layout.LEAVE_AT)

    def _up(self) -> None:
        """`result up(state, pc)`: return to this address, with the registers that are in the state."""
        a = self._a
        a.move(x86.R10, x86.RCX)
        self._loads(x86.RAX)
        a.move(x86.RAX, x86.R10)
        a.back()

    def _unwind(self) -> None:
        """Jumped to with registers, the state's PC being where to go on: never comes back."""
        self._stores(x86.RAX)
        self._a.move(x86.RDI, x86.RAX)
        self._a.jump_through(x86.RDI, _WORD * layout.UNWIND_AT)

    def _outside(self, miss: int) -> None:
        """Call the translation of the state's PC that has all registers in the state, or what makes one."""
        a = self._a
        a.push(x86.RBX)
        a.address(x86.RSP, x86.RSP, -_SPACE)
        for number in _VECTORS:
            a.code += _vector(0x11, number)
        self._stores(x86.RAX)
        a.move(x86.RBX, x86.RAX)
        a.move(x86.RDI, x86.RAX)
        a.load(x86.RAX, x86.RDI, _WORD * layout.PC)
        a.load(x86.RDX, x86.RDI, _WORD * miss)
        a.move(x86.RCX, x86.RAX)
        a.shift(x86.SHR, x86.RCX, layout.GUEST_END.bit_length() - 1)
        beyond = a.skip_if(x86.NOT_EQUAL)
        a.constant(x86.RCX, layout.TABLE)
        a.load_indexed_by_four(x86.RCX, x86.RCX, x86.RAX)
        a.test(x86.RCX, x86.RCX)
        a.move_if(x86.NOT_EQUAL, x86.RDX, x86.RCX)
        a.land(beyond)
        a.call(x86.RDX)
        for number in _VECTORS:
            a.code += _vector(0x10, number)
        self._loads(x86.RBX)
        a.address(x86.RSP, x86.RSP, _SPACE)
        a.pop(x86.RBX)
        a.back()

"""The builder evaluated to Python source: what a block of instructions does, without calling descriptions again.

A word is a constant (an int) or the name of a local variable; every variable is set once. Registers are stored to when
an instruction sets them, so that they are exact wherever the code leaves or faults, and read only when they are not in
a variable yet. Whatever is not worth source of its own is a call of the plain evaluator's method.

The code's names: `e` the evaluator, `r` its registers, `load` and `store` its memory's, `n` the instructions of rounds
of a loop before this one, `limit` up to which another round may begin. It returns where to go on, and how many
instructions were carried out.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from virtus.isa.builder import Format, Predicate
from virtus.vcpus.interpreter.floats import BOX
from virtus.vcpus.interpreter.softfloat import SINGLE
from virtus.vcpus.interpreter.words import ALL, ONES, SIGN, Words

Atom = int | str
"""A constant, or a variable."""
_PURE: Final = Words()
_UNSIGNED: Final = {"eq": "==", "ne": "!=", "ult": "<", "uge": ">="}
_SIGNED: Final = {"slt": "<", "sge": ">="}


def _signed(a: Atom) -> str:
    """An expression that is ordered as the word is, taken as signed."""
    return str(a ^ SIGN) if isinstance(a, int) else f"({a} ^ {SIGN})"


class Source:
    """A builder whose result is `lines`, one level of indentation deep. Bits are expressions.

    `pc` and `following` are set, and `begin` is called, before each description; `ended` tells that nothing follows it.
    `proceed` is where it goes on.
    """

    def __init__(self, start: int, *, may_loop: bool = True) -> None:
        self.start = start
        self._may_loop = may_loop
        self.lines: list[str] = []
        self.places: list[tuple[int, int]] = []
        """For each line: the instruction's address, and how many come before it in the block."""
        self.pc = self.following = start
        self.count = 0
        self.ended = False
        self.loops = False
        self.proceed = start
        self._known: dict[int, Atom] = {}
        self._variables = 0

    # The block

    def begin(self, pc: int, following: int) -> None:
        """The next instruction."""
        self.pc, self.following = pc, following
        self.proceed = following
        self.count += 1

    def finish(self) -> None:
        """The block ends here, wherever the last instruction goes on."""
        if self.proceed == self.start and self._may_loop and not self.ended:
            self.branch("True", self.start)
        elif not self.ended:
            self._leave("", self.proceed)

    def text(self, name: str) -> tuple[str, int]:
        """The source of a function, and how many lines of it come before `lines`."""
        head = [f"def {name}(e, r, load, store, limit):"]
        if self.loops:
            head += [" n = 0", " while True:"]
            return "\n".join([*head, *(f"  {line}" for line in self.lines)]), len(head)
        return "\n".join([*head, *(f" {line.replace('n + ', '')}" for line in self.lines)]), len(head)

    def _write(self, line: str) -> None:
        self.lines.append(line)
        self.places.append((self.pc, self.count - 1))

    def _let(self, expression: str) -> str:
        self._variables += 1
        name = f"v{self._variables}"
        self._write(f"{name} = {expression}")
        return name

    def _leave(self, condition: str, target: Atom) -> None:
        self._write(f"{condition}return {target}, n + {self.count}")

    def _call(self, method: str, *arguments: Any, **named: Any) -> str:
        """Of the plain evaluator's; atoms are passed as they are, everything else as a literal."""
        return (
            f"e.{method}({', '.join([*map(str, arguments), *(f'{name}={value!r}' for name, value in named.items())])})"
        )

    def _fold(self, operation: Callable[..., int], *operands: Atom, **named: Any) -> int | None:
        """The result where all is constant."""
        if all(isinstance(operand, int) for operand in operands):
            return operation(*operands, **named)
        return None

    # Registers and constants

    def const(self, value: int) -> int:  # noqa: D102 # see Builder; likewise below
        return value & ONES

    def get(self, register: int) -> Atom:  # noqa: D102
        if register not in self._known:
            self._known[register] = self._let(f"r[{register}]")
        return self._known[register]

    def set(self, register: int, value: Atom) -> None:  # noqa: D102
        self._write(f"r[{register}] = {value}")
        self._known[register] = value

    # Integers

    def _binary(self, operation: Callable[[int, int], int], a: Atom, b: Atom, expression: str) -> Atom:
        folded = self._fold(operation, a, b)
        return self._let(expression) if folded is None else folded

    def add(self, a: Atom, b: Atom) -> Atom:  # noqa: D102
        if isinstance(a, int):
            a, b = b, a
        if b == 0:
            return a
        if isinstance(b, int) and b & SIGN and isinstance(a, str):
            return self._let(f"{a} - {ALL - b} & {ONES}")
        return self._binary(_PURE.add, a, b, f"{a} + {b} & {ONES}")

    def sub(self, a: Atom, b: Atom) -> Atom:  # noqa: D102
        return self._binary(_PURE.sub, a, b, f"{a} - {b} & {ONES}")

    def mul(self, a: Atom, b: Atom) -> Atom:  # noqa: D102
        return self._binary(_PURE.mul, a, b, f"{a} * {b} & {ONES}")

    def and_(self, a: Atom, b: Atom) -> Atom:  # noqa: D102
        return self._binary(_PURE.and_, a, b, f"{a} & {b}")

    def or_(self, a: Atom, b: Atom) -> Atom:  # noqa: D102
        return self._binary(_PURE.or_, a, b, f"{a} | {b}")

    def xor(self, a: Atom, b: Atom) -> Atom:  # noqa: D102
        return self._binary(_PURE.xor, a, b, f"{a} ^ {b}")

    def multiply_high(self, a: Atom, b: Atom, *, signed_a: bool, signed_b: bool) -> Atom:  # noqa: D102
        return self._let(self._call("multiply_high", a, b, signed_a=signed_a, signed_b=signed_b))

    def shift_left(self, a: Atom, count: Atom) -> Atom:  # noqa: D102
        return a if count == 0 else self._binary(_PURE.shift_left, a, count, f"{a} << {count} & {ONES}")

    def shift_right(self, a: Atom, count: Atom) -> Atom:  # noqa: D102
        return a if count == 0 else self._binary(_PURE.shift_right, a, count, f"{a} >> {count}")

    def shift_right_signed(self, a: Atom, count: Atom) -> Atom:  # noqa: D102
        expression = f"({a} ^ {SIGN}) - {SIGN} >> {count} & {ONES}"
        return self._binary(_PURE.shift_right_signed, a, count, expression)

    def divide(self, a: Atom, b: Atom, *, signed: bool) -> Atom:  # noqa: D102
        return self._let(self._call("divide", a, b, signed=True) if signed else f"{a} // {b}")

    def remainder(self, a: Atom, b: Atom, *, signed: bool) -> Atom:  # noqa: D102
        return self._let(self._call("remainder", a, b, signed=True) if signed else f"{a} % {b}")

    def sign_extend(self, a: Atom, bits: int) -> Atom:  # noqa: D102
        if isinstance(a, int):
            return _PURE.sign_extend(a, bits)
        sign = 1 << bits - 1
        return self._let(f"({a} & {2 * sign - 1} ^ {sign}) - {sign} & {ONES}")

    def zero_extend(self, a: Atom, bits: int) -> Atom:  # noqa: D102
        return self.and_(a, (1 << bits) - 1)

    def leading_zeros(self, a: Atom, bits: int) -> Atom:  # noqa: D102
        return self._let(self._call("leading_zeros", a, bits))

    def trailing_zeros(self, a: Atom, bits: int) -> Atom:  # noqa: D102
        return self._let(self._call("trailing_zeros", a, bits))

    def population(self, a: Atom) -> Atom:  # noqa: D102
        return self._let(f"({a}).bit_count()")

    def swap_bytes(self, a: Atom) -> Atom:  # noqa: D102
        return self._let(self._call("swap_bytes", a))

    # Bits

    def compare(self, predicate: Predicate, a: Atom, b: Atom) -> str:  # noqa: D102
        if predicate in _UNSIGNED:
            return f"({a} {_UNSIGNED[predicate]} {b})"
        return f"({_signed(a)} {_SIGNED[predicate]} {_signed(b)})"

    def both(self, a: str, b: str) -> str:  # noqa: D102
        return f"({a} and {b})"

    def either(self, a: str, b: str) -> str:  # noqa: D102
        return f"({a} or {b})"

    def word(self, a: str) -> Atom:  # noqa: D102
        return self._let(f"1 if {a} else 0")

    def select(self, condition: str, then: Atom, otherwise: Atom) -> Atom:  # noqa: D102
        return self._let(f"{then} if {condition} else {otherwise}")

    # Memory

    def load(self, address: Atom, size: int, *, signed: bool = False) -> Atom:  # noqa: D102
        value = self._let(f"load({address}, {size})")
        return self.sign_extend(value, 8 * size) if signed and size < 8 else value

    def store(self, address: Atom, value: Atom, size: int) -> None:  # noqa: D102
        self._write(f"store({address}, {value}, {size})")

    def fence(self) -> None:  # noqa: D102
        pass

    def atomic(self, operation: str, address: Atom, value: Atom, size: int) -> Atom:  # noqa: D102
        return self._let(self._call("atomic", repr(operation), address, value, size))

    def load_reserved(self, address: Atom, size: int) -> Atom:  # noqa: D102
        return self._let(self._call("load_reserved", address, size))

    def store_conditional(self, address: Atom, value: Atom, size: int) -> Atom:  # noqa: D102
        return self._let(self._call("store_conditional", address, value, size))

    # Floating point

    def get_float(self, register: int, format: Format) -> Atom:  # noqa: D102
        bits = self.get(register)
        return bits if format == "d" else self._let(f"{bits} ^ {BOX} if {bits} >= {BOX} else {SINGLE.nan}")

    float_bits = get_float

    def set_float(self, register: int, value: Atom, format: Format) -> None:  # noqa: D102
        self.set(register, value if format == "d" else self._let(f"{value} | {BOX}"))

    def float_operation(self, operation: str, a: Atom, b: Atom, format: Format, rounding: int) -> Atom:  # noqa: D102
        return self._let(self._call("float_operation", repr(operation), a, b, repr(format), rounding))

    def square_root(self, a: Atom, format: Format, rounding: int) -> Atom:  # noqa: D102
        return self._let(self._call("square_root", a, repr(format), rounding))

    def multiply_add(  # noqa: D102
        self, a: Atom, b: Atom, c: Atom, format: Format, rounding: int, *, negate_product: bool, negate_addend: bool
    ) -> Atom:
        signs = {"negate_product": negate_product, "negate_addend": negate_addend}
        return self._let(self._call("multiply_add", a, b, c, repr(format), rounding, **signs))

    def float_minimum(self, a: Atom, b: Atom, format: Format) -> Atom:  # noqa: D102
        return self._let(self._call("float_minimum", a, b, repr(format)))

    def float_maximum(self, a: Atom, b: Atom, format: Format) -> Atom:  # noqa: D102
        return self._let(self._call("float_maximum", a, b, repr(format)))

    def float_compare(self, predicate: str, a: Atom, b: Atom, format: Format) -> str:  # noqa: D102
        return self._let(self._call("float_compare", repr(predicate), a, b, repr(format)))

    def float_class(self, a: Atom, format: Format) -> Atom:  # noqa: D102
        return self._let(self._call("float_class", a, repr(format)))

    def float_to_integer(self, a: Atom, format: Format, bits: int, *, signed: bool, rounding: int) -> Atom:  # noqa: D102
        return self._let(self._call("float_to_integer", a, repr(format), bits, signed=signed, rounding=rounding))

    def integer_to_float(  # noqa: D102
        self, a: Atom, bits: int, *, signed: bool, format: Format, rounding: int
    ) -> Atom:
        named = {"signed": signed, "format": format, "rounding": rounding}
        return self._let(self._call("integer_to_float", a, bits, **named))

    def convert(self, a: Atom, source: Format, target: Format, rounding: int) -> Atom:  # noqa: D102
        return self._let(self._call("convert", a, repr(source), repr(target), rounding))

    def get_float_flags(self) -> Atom:  # noqa: D102
        return self._let(self._call("get_float_flags"))

    def set_float_flags(self, value: Atom) -> None:  # noqa: D102
        self._write(self._call("set_float_flags", value))

    def get_rounding(self) -> Atom:  # noqa: D102
        return self._let(self._call("get_rounding"))

    def set_rounding(self, value: Atom) -> None:  # noqa: D102
        self._write(self._call("set_rounding", value))

    def counter(self, name: Literal["cycle", "time", "instructions"]) -> Atom:  # noqa: D102
        return self._let(self._call("counter", repr(name)))

    # Where it goes on

    def jump(self, target: int) -> None:  # noqa: D102
        self.proceed = target & ONES

    def branch(self, condition: str, target: int) -> None:
        """A branch back to the block's start is its loop, as long as there are rounds left to be made."""
        target &= ONES
        if target == self.start and self._may_loop:
            self.loops = True
            self._write(f"if {condition}:")
            self._write(f"    n += {self.count}")
            self._write("    if n <= limit: continue")
            self._write(f"    return {target}, n")
        else:
            self._leave(f"if {condition}: ", target)

    def _end(self, target: Atom) -> None:
        self._leave("", target)
        self.ended = True

    def jump_to(self, target: Atom, *, is_return: bool = False) -> None:  # noqa: D102
        self._end(target)

    def call(self, target: int, link: int) -> None:  # noqa: D102
        self.proceed = target & ONES

    def call_to(self, target: Atom, link: int) -> None:  # noqa: D102
        self._end(target)

    def system_call(self) -> None:  # noqa: D102
        self._write(self._call("system_call"))
        self._end(self.following)

    def flush_instructions(self) -> None:  # noqa: D102
        self._write(self._call("flush_instructions"))
        self._end(self.following)

    def trap(self, kind: Literal["illegal", "breakpoint"]) -> None:  # noqa: D102
        self._write(self._call("trap", repr(kind)))
        self.ended = True

    def leave_if(self, condition: str, reason: int) -> None:  # noqa: D102
        self._write(self._call("leave_if", condition, reason))

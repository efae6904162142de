"""Autocoder: from source to a program and its listing, in two passes.

The first pass gives every statement its place, and so every label its value; the second assembles the words. An EQU may
use only labels that stand before it; everything else may use any.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

from virtus.errors import GuestNotRunnable
from virtus.guests import ibm7070_deck
from virtus.guests.autocoder.declarations import (
    Area,
    Constants,
    add_constants,
    add_field,
    begin_area,
    begin_constants,
    equivalent,
    place_area,
    place_constants,
    record_definition,
)
from virtus.guests.autocoder.instructions import Encoder
from virtus.guests.autocoder.operands import Symbol, Symbols, constant, is_literal, literal_of
from virtus.guests.autocoder.source import MOST_ERRORS, SourceError, Statement, parts_of, statements
from virtus.guests.ibm7070_deck import Program
from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.layout import STORAGE
from virtus.isa.ibm7070.operations import BY_NAME
from virtus.records import dataclass, field

ORIGIN: Final = 325
"""Where a program goes that does not say: behind what the machine and its channels use of low storage, up to 0324."""
DECLARATIONS: Final = frozenset(("DA", "DC", "DRDW", "EQU", "CNTRL"))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a line."""

    line: int
    text: str
    message: str


class AssemblyFailed(GuestNotRunnable):
    """The source has errors: `problems`, in the order of lines."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.problems = problems
        shown = "; ".join(f"line {problem.line}: {problem.message}" for problem in problems[:MOST_ERRORS])
        super().__init__(f"assembling {name}", shown, "correct the source")


@dataclass(slots=True)
class Assembly:
    """A program with its symbols and listing."""

    program: Program
    symbols: dict[str, Symbol]
    listing: str

    @property
    def deck(self) -> str:
        """The object deck."""
        return ibm7070_deck.write(self.program)


@dataclass(slots=True)
class _Placed:
    """A statement with its place: words that are known, or an instruction to be assembled."""

    statement: Statement
    location: int
    words: dict[int, int] = field(default_factory=dict)


class _Assembler:
    def __init__(self, source: str) -> None:
        self._statements = list(statements(source))
        self._symbols = Symbols()
        self._encoder = Encoder(self._symbols)
        self._placed: list[_Placed] = []
        self._problems: list[Problem] = []
        self._location = ORIGIN
        self._literal_origin: Statement | None = None
        self._end: Statement | None = None
        self._group: Area | Constants | None = None

    def run(self, name: str) -> Assembly:
        for statement in self._statements:
            self._try(statement, self._place)
        self._close_group()
        self._place_literals()
        program = Program()
        for placed in self._placed:
            self._try(placed.statement, partial(self._assemble, placed, program))
        if self._end is not None:
            self._try(self._end, partial(self._begin_at, program))
        elif not self._problems:
            self._problem(self._statements[-1:], "there is no END CNTRL that says where the program begins")
        if self._problems:
            raise AssemblyFailed(name, sorted(self._problems, key=lambda problem: problem.line))
        return Assembly(program, self._symbols.table, self._listing(program))

    def _problem(self, statements: list[Statement], message: str) -> None:
        line, text = (statements[0].line, statements[0].text) if statements else (0, "")
        if len(self._problems) < MOST_ERRORS:
            self._problems.append(Problem(line, text, message))

    def _try(self, statement: Statement, action: Callable[[Statement], None]) -> None:
        try:
            action(statement)
        except SourceError as error:
            self._problem([statement], str(error))

    # First pass

    def _place(self, statement: Statement) -> None:
        operation = statement.operation
        if not operation:
            if isinstance(self._group, Area):
                add_field(self._group, statement)
            elif isinstance(self._group, Constants):
                add_constants(self._group, statement)
            else:
                raise SourceError("a line without an operation, under neither DA nor DC")
            return
        self._close_group()
        if operation == "DA":
            self._group = begin_area(statement, self._symbols)
        elif operation == "DC":
            self._group = begin_constants(statement)
        elif operation == "EQU":
            self._symbols.define(statement.label, equivalent(statement, self._symbols))
        elif operation == "CNTRL":
            self._control(statement)
        else:
            if operation not in BY_NAME and operation not in DECLARATIONS:
                raise SourceError(f"{operation} is no operation")
            self._note_literals(statement)
            self._put(statement, 1)

    def _put(self, statement: Statement, length: int) -> None:
        if self._location + length > STORAGE:
            raise SourceError(f"location {self._location:04d} is beyond storage")
        if statement.label:
            self._symbols.define(statement.label, Symbol(self._location, length=length, line=statement.line))
        self._placed.append(_Placed(statement, self._location))
        self._location += length

    def _close_group(self) -> None:
        group, self._group = self._group, None
        if group is None:
            return
        statement = group.statement

        def place(_: Statement) -> None:
            if isinstance(group, Area):
                content, length = place_area(group, self._location, self._symbols)
            else:
                content, length = place_constants(group, self._location, self._symbols)
            self._placed.append(_Placed(statement, self._location, content))
            self._location += length

        self._try(statement, place)

    def _control(self, statement: Statement) -> None:
        if statement.label == "ORIGIN":
            self._location = self._symbols.address(statement.operand, self._location).location
        elif statement.label == "LITORIGIN":
            self._literal_origin = statement
        elif statement.label == "END":
            self._end = statement
        else:
            raise SourceError("CNTRL has the label ORIGIN, LITORIGIN or END")

    def _note_literals(self, statement: Statement) -> None:
        if statement.operation in DECLARATIONS:
            return
        for part in parts_of(statement.operand) if statement.operand else ():
            if is_literal(part):
                literal = literal_of(part)
                constant(literal)
                self._symbols.literals.setdefault(literal, 0)

    def _place_literals(self) -> None:
        location = self._location
        if self._literal_origin is not None:
            place = self._literal_origin

            def move(statement: Statement) -> None:
                nonlocal location
                location = self._symbols.address(statement.operand, location).location

            self._try(place, move)
        statement = Statement(self._statements[-1].line if self._statements else 0, "", "LITERALS", "", "")
        content: dict[int, int] = {}
        known: dict[tuple[int, ...], int] = {}
        for literal in self._symbols.literals:
            made = constant(literal)
            at = known.setdefault(tuple(made), location)
            self._symbols.literals[literal] = at
            if at == location:
                content.update(enumerate(made, start=location))
                location += len(made)
        if content:
            if location > STORAGE:
                self._problem([statement], "literals reach beyond storage")
            self._placed.append(_Placed(statement, min(content), content))

    # Second pass

    def _assemble(self, placed: _Placed, program: Program, statement: Statement) -> None:
        location = placed.location
        if statement.operation == "DRDW":
            placed.words = {location: record_definition(statement.operand, location, self._symbols)}
        elif statement.operation not in ("DA", "DC", "LITERALS"):
            placed.words = {location: self._encoder.encode(statement.operation, statement.operand, location)}
        for where, word in placed.words.items():
            if where in program.words:
                raise SourceError(f"location {where:04d} is used twice")
            program.words[where] = word

    def _begin_at(self, program: Program, statement: Statement) -> None:
        program.start = self._symbols.address(statement.operand, 0).location

    # The listing

    def _listing(self, program: Program) -> str:
        lines: list[str] = []
        by_line: dict[int, list[_Placed]] = {}
        for placed in self._placed:
            by_line.setdefault(placed.statement.line, []).append(placed)
        for statement in self._statements:
            found = [placed for placed in by_line.get(statement.line, ()) if placed.statement is statement]
            location = f"{found[0].location:04d}" if found else "    "
            own = sorted(found[0].words) if found else []
            first = words.show(program.words[own[0]]) if own and statement.operation != "DA" else ""
            lines.append(f"{location}  {first:11}  {statement.line:5}  {statement.text}".rstrip())
            for where in own[1:] if statement.operation != "DA" else own:
                lines.append(f"{where:04d}  {words.show(program.words[where])}")
        literals = next((placed for placed in self._placed if placed.statement.operation == "LITERALS"), None)
        if literals is not None:
            lines.append("LITERALS")
            lines += [f"{where:04d}  {words.show(word)}" for where, word in sorted(literals.words.items())]
        return "".join(f"{line}\n" for line in lines)


def assemble(source: str, name: str = "program") -> Assembly:
    """Assemble Autocoder source; raises AssemblyFailed with all that is wrong."""
    return _Assembler(source).run(name)

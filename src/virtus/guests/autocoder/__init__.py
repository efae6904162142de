"""Autocoder, the assembler's language of the IBM 7070: what programs for it are written in."""

from virtus.guests.autocoder.assembler import Assembly, AssemblyFailed, Problem, assemble
from virtus.guests.autocoder.source import OPERAND, OPERATION, columns_of
from virtus.isa.ibm7070.operations import BY_NAME

__all__ = ["Assembly", "AssemblyFailed", "Problem", "assemble", "is_source"]

_DECLARATIONS = frozenset(("DA", "DC", "DRDW", "EQU", "CNTRL"))


def is_source(text: str) -> bool:
    """Whether a text is Autocoder: the first line that is no comment has an operation where one belongs. A text of
    nothing but comments, such as the beginning of a long one, is taken for it, too."""
    comments = 0
    for line in text.splitlines():
        columns = columns_of(line)
        if not columns.strip():
            continue
        if columns[5:6] == "*":
            comments += 1
            continue
        operation = columns[OPERATION:OPERAND].strip()
        return operation in BY_NAME or operation in _DECLARATIONS
    return comments > 0

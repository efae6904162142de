"""Autocoder, the assembler's language of the IBM 7070: what programs for it are written in."""

from virtus.guests.autocoder.assembler import Assembly, AssemblyFailed, Problem, assemble
from virtus.guests.autocoder.source import OPERAND, OPERATION, columns_of
from virtus.isa.ibm7070.operations import BY_NAME

__all__ = ["Assembly", "AssemblyFailed", "Problem", "assemble", "is_source"]

_DECLARATIONS = frozenset(("DA", "DC", "DRDW", "EQU", "CNTRL"))


def is_source(text: str) -> bool:
    """Whether a text is Autocoder: the first line that is no comment has an operation where one belongs."""
    for line in text.splitlines():
        columns = columns_of(line)
        if not columns.strip() or columns[5:6] == "*":
            continue
        operation = columns[OPERATION:OPERAND].strip()
        return operation in BY_NAME or operation in _DECLARATIONS
    return False

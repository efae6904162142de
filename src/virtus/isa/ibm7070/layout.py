"""Where a 7070 keeps things, as its descriptions and whoever runs them see it.

Core storage has locations 0000 to 9989. The accumulators have the addresses 9991 to 9993, and nothing has the others
(A22-7003). A location is eight bytes, at `CORE` on; so is the address of an instruction. After the last
location follow what descriptions need at hand::

    SPARE     a word that takes what a step of a block instruction has nothing to do with
    POWERS    the powers of ten, 10**0 to 10**19
    WORK      for each number of four digits the half cycles that multiplying by it takes (see `timing`)
    COVERED   for each location one byte: not 0 when code has been made from it, and storing there wants the vCPU
"""

from typing import Final

WORD: Final = 8
"""Bytes of a location."""
LOCATIONS: Final = 10_000
STORAGE: Final = 9_990
"""Locations that are core storage."""
ACCUMULATOR_ADDRESSES: Final = {9991: 1, 9992: 2, 9993: 3}

CORE: Final = 0x7070_0000
SPARE: Final = LOCATIONS
"""As a location."""
POWERS: Final = CORE + (LOCATIONS + 16) * WORD
POWER_COUNT: Final = 20
WORK: Final = POWERS + 32 * WORD
WORK_BYTES: Final = 2
COVERED: Final = WORK + LOCATIONS * WORK_BYTES
SIZE: Final = (COVERED + LOCATIONS + WORD - CORE + 4095) & -4096
"""Of everything, in bytes."""

# Core locations that the machine itself uses (A22-7003, "Automatic priority processing").

PRIORITY_RETURN: Final = 97
"""Index word that keeps the location to go on with after a priority routine."""
TABLE_INDEX: Final = 98
"""Index word of table look-up: the increment, and then the location that was found."""
STATUS_INDEX: Final = 99
"""Index word that says where the final status word is which caused the priority."""
INDICATORS: Final = 100
SWITCHES: Final = 101
"""The first of three words with thirty electronic switches."""
LAST_INDEX_WORD: Final = 99

# Register slots

CYCLES: Final = 0
"""Cycles of 6 microseconds since the machine was started."""
DEADLINE: Final = 1
"""No instruction begins when CYCLES has come to this: the machine comes out for EVENT."""
AC1, AC2, AC3 = 2, 3, 4
OVERFLOW1, OVERFLOW2, OVERFLOW3 = 5, 6, 7
"""Accumulator overflow indicators: 1 or 0."""
COMPARED: Final = 8
"""The outcome of the last comparison: one of the next four."""
NOTHING, LOW, EQUAL, HIGH = 0, 1, 2, 3
FIELD_OVERFLOW: Final = 9
"""One of the next three; so for SIGN_CHANGE."""
SIGN_CHANGE: Final = 10
HALTS, SENSES, SENSED = 0, 5, 9
"""The condition halts the machine; it is sensed; it has been sensed: the indicator is on. (In the word of indicators
that priority leaves at location 100 these are the digits.)"""
FLOAT_OVERFLOW: Final = 11
FLOAT_UNDERFLOW: Final = 12
OPERAND: Final = 13
"""The effective address, as a number, of an instruction that comes out."""
PHASE: Final = 14
"""How far an instruction is that takes more than one step: 0 means at its beginning."""
LIST: Final = 15
"""In such an instruction: the location of the next record definition word ..."""
AREA: Final = 16
"""... the next location of the area that the current one defines ..."""
AREA_END: Final = 17
"""... its last location ..."""
LAST_AREA: Final = 18
"""... 1 when it is the last of the list ..."""
OTHER: Final = 19
"""... and the next location on the other side, or a look-up's increment."""
FOUND: Final = 20
"""1 when a table look-up has found something."""
REGISTERS: Final = 21
NAMES: Final = (
    "cycles", "deadline", "ac1", "ac2", "ac3", "overflow1", "overflow2", "overflow3", "compared", "field-overflow",
    "sign-change", "float-overflow", "float-underflow", "operand", "phase", "list", "area", "area-end", "last-area",
    "other", "found",
)  # fmt: skip

# Reasons to come out (Builder.leave_if)

EVENT: Final = 0
"""CYCLES has come to DEADLINE. Nothing of the instruction has been done; so for all others."""
HALT: Final = 1
"""HB or HP; OPERAND is where to go on for HB."""
ASSIGNED: Final = 2
"""An instruction that devices, switches or priority carry out; OPERAND is its effective address."""
FIELD_OVERFLOWS: Final = 3
SIGN_CHANGES: Final = 4
IMPROPER_DIVISION: Final = 5
ALPHA_INDEX_WORD: Final = 6
ALPHA_FLOAT: Final = 7
NO_SUCH_LOCATION: Final = 8
INVALID_OPERATION: Final = 9
FIRST_OF_VCPU: Final = 16
"""What the vCPU deals with, and no personality sees:"""
REGISTER_ADDRESSED: Final = 16
"""A computed address is not in core storage; it may be an accumulator's."""
MODIFIED: Final = 17
"""A store is about to change what code has been made from."""
RESOLVE: Final = 18
"""The instruction is another one than it looks: the digits of its address say what it does, and they are indexed. The
effective address is in OPERAND."""


def address_of(location: int) -> int:
    """Where a location is, as the builder's memory and `pc` have it."""
    return CORE + WORD * location


def location_of(address: int) -> int:
    """The location at an address (see `address_of`)."""
    return (address - CORE) // WORD

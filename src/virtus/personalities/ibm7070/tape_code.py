"""What stands on tape: characters of six bits (BCD) and a parity bit, and words made of them.

Alpha words are five characters. A number is written with a character for each digit and its sign over the last one; a
mode change (delta) stands wherever numbers follow alpha words or the other way round. A record begins in alpha mode.
Source: the Open SIMH simulator (I7000/i7070_chan.c, bcd_mem and chan_write_char).
"""

from collections.abc import Iterable, Iterator
from typing import Final

from virtus.isa.ibm7070 import word as words
from virtus.isa.ibm7070.characters import codes_of_word

DELTA: Final = 0o57
SEGMENT_MARK: Final = 0o37
CHARACTER_BITS: Final = 0o77
PARITY: Final = 0o100
SHORTEST: Final = 5
"""Digits of a number on tape, at least."""
_MINUS, _PLUS = 0o40, 0o60  # zones over a last digit
_TEN: Final = 0o12  # a zero


def _tables() -> tuple[dict[int, int], dict[int, int]]:
    bcd = {0: 0o20, 20: 0o60, 30: 0o40, 31: 0o21, 60: 0o72, 70: 0o52, 80: 0o32, 90: 0o12}
    for first, zone in ((61, 0o61), (71, 0o41), (91, 0o01)):
        bcd |= {first + digit: zone + digit for digit in range(9)}
    bcd |= {82 + digit: 0o22 + digit for digit in range(8)}
    for first, zone in ((15, 0o73), (25, 0o53), (35, 0o33), (45, 0o13)):
        bcd |= {first + digit: zone + digit for digit in range(5) if zone + digit != DELTA}
    return bcd, {character: code for code, character in bcd.items()}


BCD_OF_CODE, CODE_OF_BCD = _tables()


class FormatError(Exception):
    """Characters that are no words, or words that are no characters."""


def with_parity(characters: Iterable[int]) -> bytes:
    """The characters as they are written: with even parity."""
    return bytes(character | (PARITY if character.bit_count() % 2 else 0) for character in characters)


def encode(record: Iterable[int], *, compress: bool = False) -> bytes:
    """A record of words. `compress` leaves out zeros before a number's first digit. Raises FormatError."""
    characters: list[int] = []
    numeric = False
    for word in record:
        is_number = not word & words.ALPHA
        if is_number != numeric:
            characters.append(DELTA)
            numeric = is_number
        characters += _number(word, compress=compress) if is_number else _alpha(word)
    return with_parity(characters)


def _alpha(word: int) -> list[int]:
    codes = codes_of_word(word & words.MAGNITUDE)
    if not all(code in BCD_OF_CODE for code in codes):
        raise FormatError(f"{words.show(word)} is not five characters")
    return [BCD_OF_CODE[code] for code in codes]


def _number(word: int, *, compress: bool) -> list[int]:
    digits = str(word & words.MAGNITUDE).zfill(SHORTEST if compress else words.DIGITS)
    characters = [int(digit) or _TEN for digit in digits]
    characters[-1] |= _MINUS if word & words.MINUS else _PLUS
    return characters


def decode(record: bytes, *, alpha_only: bool = False) -> Iterator[tuple[int, bool]]:
    """Words, and whether each is whole: the last may not be. Raises FormatError at what is none."""
    pending: list[int] = []
    numeric = False
    for byte in record:
        character = byte & CHARACTER_BITS
        if byte & ~(CHARACTER_BITS | PARITY):
            raise FormatError(f"a byte {byte:#04x} on tape")
        if character == DELTA and not alpha_only:
            if pending:
                raise FormatError("a mode change within a word")
            numeric = not numeric
        elif numeric:
            word = _digit(pending, character)
            if word is not None:
                yield word, True
                pending = []
        else:
            if character not in CODE_OF_BCD:
                raise FormatError(f"a character {character:#o} on tape")
            pending.append(CODE_OF_BCD[character])
            if len(pending) == words.CHARACTERS:
                yield _alpha_word(pending), True
                pending = []
    if pending and numeric:
        raise FormatError("a number without its sign")
    if pending:
        yield _alpha_word(pending + [0] * (words.CHARACTERS - len(pending))), False


def _alpha_word(codes: list[int]) -> int:
    magnitude = 0
    for code in codes:
        magnitude = magnitude * 100 + code
    return words.ALPHA | magnitude


def _digit(pending: list[int], character: int) -> int | None:
    """Add a digit; the word that it completes, if it does."""
    digit, zone = character & 0o17, character & 0o60
    if not 0 < digit <= _TEN or zone == 0o20:
        raise FormatError(f"a digit {character:#o} on tape")
    pending.append(digit % 10)
    if not zone:
        if len(pending) == words.DIGITS:
            raise FormatError("a number without its sign")
        return None
    if len(pending) < SHORTEST:
        raise FormatError(f"a number of {len(pending)} digits")
    magnitude = int("".join(map(str, pending)))
    return magnitude | (words.MINUS if zone == _MINUS else 0)

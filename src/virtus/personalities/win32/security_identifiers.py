"""Security identifiers (SIDs): their bytes, their text, and the few accounts that there are."""

import struct
from typing import Final

from virtus.records import dataclass

MOST_AUTHORITIES: Final = 15
"""SID_MAX_SUB_AUTHORITIES."""


class BadSid(ValueError):
    """Bytes or a text that are no identifier."""


@dataclass(frozen=True, slots=True)
class Sid:
    """An identifier: who issued it, and its numbers below."""

    authority: int
    numbers: tuple[int, ...]

    def pack(self) -> bytes:
        """The structure's bytes ([MS-DTYP] 2.4.2.2)."""
        head = bytes([1, len(self.numbers)]) + self.authority.to_bytes(6, "big")
        return head + struct.pack(f"<{len(self.numbers)}I", *self.numbers)

    def __str__(self) -> str:
        authority = f"{self.authority:#014x}" if self.authority >> 32 else str(self.authority)
        return "-".join(["S-1", authority, *map(str, self.numbers)])


def unpack(data: bytes) -> Sid:
    """The identifier at the start of bytes; raises BadSid."""
    if len(data) < 8 or data[0] != 1 or data[1] > MOST_AUTHORITIES or len(data) < 8 + 4 * data[1]:
        raise BadSid(data[:8].hex())
    return Sid(int.from_bytes(data[2:8], "big"), struct.unpack_from(f"<{data[1]}I", data, 8))


def parse(text: str) -> Sid:
    """The identifier of a text such as S-1-5-32-544; raises BadSid."""
    parts = text.upper().split("-")
    if len(parts) < 3 or parts[:2] != ["S", "1"] or len(parts) > 3 + MOST_AUTHORITIES:
        raise BadSid(text)
    try:
        authority = int(parts[2], 16 if parts[2].startswith("0X") else 10)
        numbers = tuple(int(part) for part in parts[3:])
    except ValueError:
        raise BadSid(text) from None
    if not 0 <= authority < 1 << 48 or not all(0 <= number < 1 << 32 for number in numbers):
        raise BadSid(text)
    return Sid(authority, numbers)


EVERYONE: Final = Sid(1, (0,))
SYSTEM: Final = Sid(5, (18,))
AUTHENTICATED_USERS: Final = Sid(5, (11,))
INTERACTIVE: Final = Sid(5, (4,))
ADMINISTRATORS: Final = Sid(5, (32, 544))
USERS: Final = Sid(5, (32, 545))
MEDIUM_INTEGRITY: Final = Sid(16, (8192,))
MACHINE: Final = (21, 1004336348, 1177238915, 682003330)
"""The numbers of the machine's own accounts: made up, and the same everywhere."""
USER: Final = Sid(5, (*MACHINE, 1000))
NO_GROUP: Final = Sid(5, (*MACHINE, 513))
LOGON: Final = Sid(5, (5, 0, 1000))

WELL_KNOWN: Final[dict[int, Sid]] = {
    0: Sid(0, (0,)), 1: EVERYONE, 2: Sid(2, (0,)), 3: Sid(3, (0,)), 4: Sid(3, (1,)), 8: Sid(5, (1,)), 9: Sid(5, (2,)),
    11: INTERACTIVE, 12: Sid(5, (6,)), 13: Sid(5, (7,)), 17: AUTHENTICATED_USERS, 22: SYSTEM, 23: Sid(5, (19,)),
    24: Sid(5, (20,)), 25: Sid(5, (32,)), 26: ADMINISTRATORS, 27: USERS, 28: Sid(5, (32, 546)), 66: Sid(16, (4096,)),
    67: MEDIUM_INTEGRITY, 68: Sid(16, (12288,)), 69: Sid(16, (16384,)),
}  # fmt: skip
"""WELL_KNOWN_SID_TYPE (winnt.h), those that name no domain."""
ACCOUNTS: Final[dict[Sid, tuple[str, str, int]]] = {
    EVERYONE: ("Everyone", "", 5), SYSTEM: ("SYSTEM", "NT AUTHORITY", 5),
    AUTHENTICATED_USERS: ("Authenticated Users", "NT AUTHORITY", 5), INTERACTIVE: ("INTERACTIVE", "NT AUTHORITY", 5),
    ADMINISTRATORS: ("Administrators", "BUILTIN", 4), USERS: ("Users", "BUILTIN", 4),
}  # fmt: skip
"""Name, domain and SID_NAME_USE of accounts other than the user's."""

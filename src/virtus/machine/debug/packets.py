"""The frames of GDB's remote protocol: `$payload#checksum`, acknowledgements, and the byte that interrupts.

Source: Debugging with GDB, appendix "GDB Remote Serial Protocol", sections "Overview" and "Interrupts".
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final

from virtus.errors import VirtusError

MOST_BYTES: Final = 0x4000
"""Of a packet's payload, as it is told to GDB; whatever is longer is no packet of GDB's."""
_START, _END, _ESCAPE, _REPEAT = b"$#}*"
_FLIP: Final = 0x20
_SPECIAL: Final = (_START, _END, _ESCAPE, _REPEAT)
_DIGITS: Final = b"0123456789abcdefABCDEF"
_MOST_DIGITS: Final = 16
_SLACK: Final = 2
"""Every byte of a payload may come escaped, as two."""


class BadPacket(VirtusError):
    """The other side does not speak the protocol; the connection is of no more use."""


class Control(Enum):
    """What comes outside of packets."""

    ACKNOWLEDGED = "+"
    REFUSED = "-"
    INTERRUPT = "\x03"
    DAMAGED = "a packet whose checksum is wrong"


_CONTROLS: Final = {ord("+"): Control.ACKNOWLEDGED, ord("-"): Control.REFUSED, 3: Control.INTERRUPT}


def encode(payload: bytes) -> bytes:
    """A packet with this payload."""
    escaped = escape(payload)
    return b"$%b#%02x" % (escaped, sum(escaped) & 0xFF)


def escape(data: bytes) -> bytes:
    """Binary data such as a payload may have it."""
    if not any(special in data for special in _SPECIAL):
        return data
    return b"".join(bytes((_ESCAPE, byte ^ _FLIP)) if byte in _SPECIAL else bytes((byte,)) for byte in data)


def unescape(data: bytes) -> bytes:
    """The data that was escaped; an escape character at the very end stands for nothing."""
    if _ESCAPE not in data:
        return data
    first, *rest = data.split(bytes((_ESCAPE,)))
    return first + b"".join(bytes((part[0] ^ _FLIP,)) + part[1:] for part in rest if part)


def number(digits: bytes) -> int:
    """A hexadecimal number of at most 64 bits; raises ValueError for anything else."""
    if not 0 < len(digits) <= _MOST_DIGITS or digits.strip(_DIGITS):
        raise ValueError(f"{digits!r} is no hexadecimal number")
    return int(digits, 16)


def binary(digits: bytes) -> bytes:
    """The bytes that pairs of hexadecimal digits stand for; raises ValueError."""
    if digits.strip(_DIGITS):
        raise ValueError("no hexadecimal digits")
    return bytes.fromhex(digits.decode("ascii"))


class Decoder:
    """Bytes in, as they come from a connection; payloads and controls out."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes | Control]:
        """What is complete with these bytes; raises BadPacket. Bytes between packets that mean nothing are skipped."""
        pending = self._pending
        pending += data
        while pending:
            if pending[0] != _START:
                control = _CONTROLS.get(pending.pop(0))
                if control is not None:
                    yield control
                continue
            end = pending.find(_END)
            if (end if end >= 0 else len(pending)) > MOST_BYTES * _SLACK:
                raise BadPacket("reading from GDB", f"a packet of more than {MOST_BYTES} bytes")
            if end < 0 or len(pending) < end + 3:
                return
            body, checksum = bytes(pending[1:end]), bytes(pending[end + 1 : end + 3])
            del pending[: end + 3]
            yield unescape(body) if checksum.lower() == b"%02x" % (sum(body) & 0xFF) else Control.DAMAGED

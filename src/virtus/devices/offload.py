"""What network cards leave to others to finish: check sums, and cutting a long TCP segment into frames.

A frame travels with a header that says what is left to be done, in the layout that virtio and Linux's tap devices share
(struct virtio_net_hdr: virtio 1.2, 5.1.6). Whoever can use frames as they are hands the work on; for others it is done
here.
"""

import struct
from typing import Final

HEADER: Final = struct.Struct("<BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
NOTHING: Final = bytes(HEADER.size)
NEEDS_CHECKSUM, CHECKSUM_GOOD = 1, 2  # VIRTIO_NET_HDR_F_NEEDS_CSUM, _DATA_VALID
NOT_SEGMENTED, TCP4, TCP6, CONGESTION = 0, 1, 4, 0x80  # VIRTIO_NET_HDR_GSO_*
ETHERNET: Final = 14
VLAN, IPV4, IPV6 = 0x8100, 0x0800, 0x86DD  # EtherTypes (IEEE 802 numbers)
TCP, UDP = 6, 17  # IANA protocol numbers
CHECKSUM_AT: Final = {TCP: 16, UDP: 6}  # RFC 9293, 3.1; RFC 768
FIN, PUSH, CONGESTION_WINDOW_REDUCED = 0x01, 0x08, 0x80
LEAST_SEGMENT: Final = 8
"""No sane sender cuts smaller; each piece costs its own headers."""


def checksum(data: bytes | bytearray | memoryview) -> int:
    """The Internet checksum (RFC 1071) of bytes: the one's complement sum of their 16-bit words, not complemented.

    That sum is the number modulo 2**16 - 1.
    """
    number = int.from_bytes(data, "big")
    if len(data) & 1:
        number <<= 8
    return number % 0xFFFF or (0xFFFF if number else 0)


def transport(frame: bytes | bytearray | memoryview) -> tuple[int, int, int, int] | None:
    """EtherType, protocol, and where the network's and the transport's headers begin; None for other frames."""
    at = ETHERNET
    if len(frame) < at + 20:
        return None
    kind = int.from_bytes(frame[at - 2 : at], "big")
    if kind == VLAN:
        kind, at = int.from_bytes(frame[at + 2 : at + 4], "big"), at + 4
    if kind == IPV4 and len(frame) >= at + 20:
        length, protocol = (frame[at] & 15) * 4, frame[at + 9]
        fragment = int.from_bytes(frame[at + 6 : at + 8], "big") & 0x3FFF
        if length < 20 or fragment:
            return None
    elif kind == IPV6 and len(frame) >= at + 40:
        length, protocol = 40, frame[at + 6]
    else:
        return None
    start = at + length
    if protocol not in CHECKSUM_AT or start + CHECKSUM_AT[protocol] + 2 > len(frame):
        return None
    return kind, protocol, at, start


def wanted(frame: bytes | bytearray | memoryview, segment: int = 0) -> bytes:
    """The header for a frame whose transport check sum is only begun, to be cut into pieces of `segment` bytes if that
    is not 0. NOTHING for frames that cannot be helped."""
    found = transport(frame)
    if found is None:
        return NOTHING
    kind, protocol, _, start = found
    cut, length = NOT_SEGMENTED, 0
    if segment and protocol == TCP:
        cut, length = (TCP4 if kind == IPV4 else TCP6), start + (frame[start + 12] >> 4) * 4
    return HEADER.pack(NEEDS_CHECKSUM, cut, length, segment if cut else 0, start, CHECKSUM_AT[protocol])


def finished(header: bytes, frame: bytes) -> list[bytes]:
    """The frames that are left when all is done: one, several, or none where the header makes no sense."""
    flags, cut, _, size, start, offset = HEADER.unpack(header)
    if cut & ~CONGESTION in (TCP4, TCP6):
        return _segments(frame, size)
    if cut:
        return []
    if not flags & NEEDS_CHECKSUM:
        return [frame]
    if start + offset + 2 > len(frame):
        return []
    whole = bytearray(frame)
    struct.pack_into(">H", whole, start + offset, (~checksum(whole[start:]) & 0xFFFF) or 0xFFFF)
    return [bytes(whole)]


def _segments(frame: bytes, size: int) -> list[bytes]:
    """A long TCP segment as several, each with headers of its own (RFC 9293, 3.1; RFC 791, 3.1)."""
    found = transport(frame)
    if found is None or found[1] != TCP or size < LEAST_SEGMENT:
        return []
    kind, _, network, start = found
    begin = start + (frame[start + 12] >> 4) * 4
    if begin < start + 20 or begin > len(frame):
        return []
    (sequence,) = struct.unpack_from(">I", frame, start + 4)
    (identity,) = struct.unpack_from(">H", frame, network + 4)
    made = []
    for number, at in enumerate(range(begin, max(len(frame), begin + 1), size)):
        piece = frame[at : at + size]
        last = at + size >= len(frame)
        head = bytearray(frame[:begin])
        struct.pack_into(">I", head, start + 4, sequence + at - begin & 0xFFFFFFFF)
        if not last:
            head[start + 13] &= ~(FIN | PUSH) & 0xFF
        if number:
            head[start + 13] &= ~CONGESTION_WINDOW_REDUCED & 0xFF
        length = begin - start + len(piece)
        if kind == IPV4:
            struct.pack_into(">HH", head, network + 2, start - network + length, identity + number & 0xFFFF)
            struct.pack_into(">H", head, network + 10, 0)
            struct.pack_into(">H", head, network + 10, ~checksum(head[network:start]) & 0xFFFF)
            addresses = head[network + 12 : network + 20]
        else:
            struct.pack_into(">H", head, network + 4, length)
            addresses = head[network + 8 : network + 40]
        struct.pack_into(">H", head, start + 16, 0)
        total = checksum(bytes(addresses) + struct.pack(">HH", TCP, length) + head[start:] + piece)
        struct.pack_into(">H", head, start + 16, ~total & 0xFFFF)
        made.append(bytes(head) + piece)
    return made

"""Digests of guest code and of what is made from it. hashlib would load OpenSSL: some milliseconds of every start."""

import zlib
from collections.abc import Iterable
from typing import Final

try:
    from _blake2 import blake2b  # what hashlib.blake2b is
except ImportError:
    from hashlib import blake2b

SIZE: Final = 32
_PIECE: Final = 64 << 10


def digest(data: bytes) -> bytes:
    """`SIZE` bytes that nothing else has."""
    return blake2b(data, digest_size=SIZE).digest()


def checksum(pieces: Iterable[bytes]) -> bytes:
    """`SIZE` bytes that tell damage, and one program from another, where nothing rests on them alone: CRC-32 of each
    64 KiB, which processors compute as fast as they read, and a digest of these."""
    sums = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        for at in range(0, len(piece), _PIECE):
            sums += zlib.crc32(view[at : at + _PIECE]).to_bytes(4, "little")
        sums += len(piece).to_bytes(8, "little")
    return digest(bytes(sums))

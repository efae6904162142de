"""Random numbers from the host's kernel, without the modules of cryptography that `secrets` brings along."""

import os


def bits(count: int) -> int:
    """A random number below 2**count."""
    return int.from_bytes(os.urandom(-(-count // 8)), "little") & ((1 << count) - 1)


def identifier() -> str:
    """A random UUID (RFC 9562, 5.4: version 4, variant 10)."""
    number = bits(128) & ~(0xF << 76 | 0x3 << 62) | 4 << 76 | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))

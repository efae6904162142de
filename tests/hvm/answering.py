"""A machine on a switch that is nothing but 10.8.0.1: answers ARP (RFC 826) and echo requests (RFC 792)."""

import select
import struct

from virtus.devices.network import attach
from virtus.devices.offload import checksum

ADDRESS, IP = b"\x02\0\0\0\0\x01", bytes((10, 8, 0, 1))


def answer(frame: bytes) -> bytes | None:
    kind = frame[12:14]
    if kind == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == IP:
        reply = frame[14:20] + b"\0\2" + ADDRESS + IP + frame[22:32]
        return frame[6:12] + ADDRESS + kind + reply
    if kind == b"\x08\0" and frame[23] == 1 and frame[34] == 8 and frame[30:34] == IP:
        echo = b"\0\0\0\0" + frame[38:]
        echo = echo[:2] + struct.pack(">H", ~checksum(echo) & 0xFFFF) + echo[4:]
        return frame[6:12] + ADDRESS + frame[12:26] + frame[30:34] + frame[26:30] + echo
    return None


if __name__ in ("__main__", "answering"):
    port = attach("switch:lab")
    assert port is not None
    while True:
        select.select([port], [], [])
        while (received := port.receive()) is not None:
            made = answer(received)
            if made is not None:
                port.send(made)

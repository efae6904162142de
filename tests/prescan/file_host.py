"""A machine on a switch that is nothing but a file server: ARP (RFC 826), and TFTP (RFC 1350) both ways over UDP."""

import contextlib
import select
import struct
import threading
from collections.abc import Iterator
from typing import Final

from virtus.devices.network import Link, attach
from virtus.devices.offload import checksum

ADDRESS, IP = b"\x02\0\0\0\0\x09", bytes((10, 9, 0, 1))
ARP, IPV4 = b"\x08\x06", b"\x08\0"
UDP: Final = 17
TFTP_PORT: Final = 69
READ, WRITE, DATA, ACK, ERROR = 1, 2, 3, 4, 5
NOT_FOUND: Final = 1
BLOCK: Final = 512
LOOK_S: Final = 0.05


class FileHost:
    """Serves `files`, and puts there what is written. One transfer at a time."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self._reading, self._writing, self._written = b"", "", bytearray()

    def answer(self, frame: bytes) -> bytes | None:
        """What is sent back for a frame."""
        kind = frame[12:14]
        if kind == ARP and frame[20:22] == b"\0\1" and frame[38:42] == IP:
            return frame[6:12] + ADDRESS + kind + frame[14:20] + b"\0\2" + ADDRESS + IP + frame[22:32]
        if kind != IPV4 or frame[14] != 0x45 or frame[23] != UDP or frame[30:34] != IP:
            return None
        source, port, length = struct.unpack_from(">HHH", frame, 34)
        if port not in (TFTP_PORT, TFTP_PORT + 1):
            return None
        sent = self._transfer(frame[42 : 34 + length])
        if sent is None:
            return None
        datagram = struct.pack(">HHHH", TFTP_PORT + 1, source, 8 + len(sent), 0) + sent  # without a check sum
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, UDP, 0) + IP + frame[26:30]
        summed = ~checksum(header) & 0xFFFF
        return frame[6:12] + ADDRESS + IPV4 + header[:10] + struct.pack(">H", summed) + header[12:] + datagram

    def _transfer(self, packet: bytes) -> bytes | None:
        (what,) = struct.unpack_from(">H", packet)
        if what in (READ, WRITE):
            name = packet[2:].split(b"\0")[0].decode()
            if what == WRITE:
                self._writing, self._written = name, bytearray()
                return struct.pack(">HH", ACK, 0)
            if name not in self.files:
                return struct.pack(">HH", ERROR, NOT_FOUND) + b"no such file\0"
            self._reading = self.files[name]
            return self._block(1)
        (number,) = struct.unpack_from(">H", packet, 2)
        if what == ACK:
            return None if number * BLOCK > len(self._reading) else self._block(number + 1)
        if what == DATA:
            at = (number - 1) * BLOCK
            self._written[at : at + BLOCK] = packet[4:]
            if len(packet) < 4 + BLOCK:
                self.files[self._writing] = bytes(self._written)
            return struct.pack(">HH", ACK, number)
        return None

    def _block(self, number: int) -> bytes:
        return struct.pack(">HH", DATA, number) + self._reading[(number - 1) * BLOCK : number * BLOCK]

    def serve(self, link: Link, over: threading.Event) -> None:
        """Answer until it is over."""
        while not over.is_set():
            select.select([link], [], [], LOOK_S)
            while (frame := link.receive()) is not None:
                made = self.answer(frame)
                if made is not None:
                    link.send(made.ljust(60, b"\0"))


@contextlib.contextmanager
def file_host(switch: str, files: dict[str, bytes]) -> Iterator[FileHost]:
    """One that runs beside the test, plugged into a switch of this XDG_RUNTIME_DIR."""
    link = attach(f"switch:{switch}")
    assert link is not None
    host, over = FileHost(files), threading.Event()
    thread = threading.Thread(target=host.serve, args=(link, over))
    thread.start()
    try:
        yield host
    finally:
        over.set()
        thread.join()
        link.close()

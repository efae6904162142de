"""The network back end: a domain's xen-netfront, plugged into a link of ours (xen/include/public/io/netif.h).

Two rings: what the guest sends, and where it wants to find what it receives. A packet takes one slot of a ring for each
page, and one more in front of the second when it is to be cut into segments. Check sums and segmenting are left to
whoever receives (`devices.offload`), so between two domains nobody does them.
"""

import struct
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from virtus.devices import offload
from virtus.devices.network import Link
from virtus.memory.guest_memory import PAGE
from virtus.personalities.xen.abi import DOMID_CONTROL
from virtus.personalities.xen.back_end import BackEnd
from virtus.personalities.xen.grants import NotGranted
from virtus.personalities.xen.xenstore import Store

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

SLOTS_AT: Final = 64
SLOTS: Final = 256  # in one page, of both rings: the next lower power of 2
REQUEST_PRODUCER, REQUEST_EVENT, RESPONSE_PRODUCER, RESPONSE_EVENT = 0, 4, 8, 12  # of a shared ring
SEND_REQUEST: Final = struct.Struct("<IHHHH")  # grant, offset, flags, id, size
SEND_RESPONSE: Final = struct.Struct("<Hh")  # id, status
RECEIVE_REQUEST: Final = struct.Struct("<HxxI")  # id, grant
RECEIVE_RESPONSE: Final = struct.Struct("<HHHh")  # id, offset, flags, size or status
EXTRA: Final = struct.Struct("<BBHBBH")  # struct netif_extra_info for segments: type, flags, size, kind, -, features
SEND_SLOT, RECEIVE_SLOT = 12, 8
CHECKSUM_BLANK, SEND_MORE, EXTRA_INFO = 1, 4, 8  # NETTXF_*
RECEIVED_VALID, RECEIVED_BLANK, RECEIVED_MORE = 1, 2, 4  # NETRXF_*; extra_info is 8 as well
EXTRA_SEGMENTS, EXTRA_MORE = 1, 1  # XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_FLAG_MORE
SEGMENTS_TCP4, SEGMENTS_TCP6 = 1, 2  # XEN_NETIF_GSO_TYPE_*
DROPPED, FAILED, OKAY, NULL = -2, -1, 0, 1  # NETIF_RSP_*
MOST_PIECES: Final = 18  # XEN_NETIF_NR_SLOTS_MIN
MOST_BYTES: Final = 65535
MOST_WAITING: Final = 128
"""Packets that are kept while the guest has no room for them; further ones stay where they are, or are lost there."""
MOST_AT_ONCE: Final = 64
"""Packets taken from the link before the guest runs on."""
MASK32: Final = 0xFFFFFFFF


class BadPacket(Exception):
    """Slots that are no packet; they are answered as failed."""


class Ring:
    """One shared ring as its back end holds it."""

    def __init__(self, page: memoryview, slot: int) -> None:
        self._page, self._slot = page, slot
        self.taken = self.answered = 0

    def waiting(self) -> int:
        """How many requests have not been taken; more than SLOTS where the indices make no sense."""
        produced: int = struct.unpack_from("<I", self._page, REQUEST_PRODUCER)[0]
        return produced - self.taken & MASK32

    def peek(self, ahead: int) -> bytes:
        """The request that many slots ahead, as it is now."""
        at = SLOTS_AT + self._slot * ((self.taken + ahead) % SLOTS)
        return bytes(self._page[at : at + self._slot])

    def take(self, count: int) -> None:
        """That many requests are ours."""
        self.taken = self.taken + count & MASK32

    def answer(self, response: bytes) -> None:
        """Put the next response, in the order of the requests."""
        at = SLOTS_AT + self._slot * (self.answered % SLOTS)
        self._page[at : at + len(response)] = response
        self.answered = self.answered + 1 & MASK32

    def publish(self) -> bool:
        """Show the responses; whether the front end wants to be told."""
        (before,) = struct.unpack_from("<I", self._page, RESPONSE_PRODUCER)
        struct.pack_into("<I", self._page, RESPONSE_PRODUCER, self.answered)
        (wanted,) = struct.unpack_from("<I", self._page, RESPONSE_EVENT)
        return bool(self.answered - wanted & MASK32 < (self.answered - before & MASK32))

    def ask(self) -> None:
        """We want to be told of the next request."""
        struct.pack_into("<I", self._page, REQUEST_EVENT, self.taken + 1 & MASK32)


class NetworkBackEnd(BackEnd):
    """A network card of a domain, plugged into `link`; `address` is its Ethernet address."""

    kind = b"vif"

    def __init__(
        self, domain: "Domain", store: Store, link: Link, number: int, address: bytes,
        saved: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(domain, store, number, saved)
        self._link = link
        self._waiting: deque[tuple[bytes, bytes]] = deque()
        self._cuts: set[int] = set()  # kinds of segments that the guest cuts itself
        self.dropped = 0
        mac = b":".join(b"%02x" % byte for byte in address)
        front = {b"handle": b"%d" % number, b"mac": mac}
        features = (
            b"feature-sg", b"feature-gso-tcpv4", b"feature-gso-tcpv6", b"feature-rx-copy",
            b"feature-ipv6-csum-offload", b"feature-rx-notify",
        )  # fmt: skip
        self.announce(front, {**front, **dict.fromkeys(features, b"1"), b"feature-rx-flip": b"0"})

    def ring_names(self) -> list[bytes]:
        """See BackEnd."""
        return [b"tx-ring-ref", b"rx-ring-ref"]

    def begin(self, rings: list[int]) -> None:
        """See BackEnd."""
        sent, received = rings
        self._send = Ring(self.domain.memory.frame(sent), SEND_SLOT)
        self._receive = Ring(self.domain.memory.frame(received), RECEIVE_SLOT)
        self._frames = rings
        self._waiting.clear()
        names = {offload.TCP4: b"feature-gso-tcpv4", offload.TCP6: b"feature-gso-tcpv6"}
        scattered = self.has(b"feature-sg")
        self._cuts = {kind for kind, name in names.items() if scattered and self.has(name)}

    def indices(self) -> list[int]:
        """See BackEnd."""
        return [self._send.taken, self._send.answered, self._receive.taken, self._receive.answered]

    def set_indices(self, indices: list[int]) -> None:
        """See BackEnd."""
        self._send.taken, self._send.answered, self._receive.taken, self._receive.answered = indices

    def descriptors(self) -> list[int]:
        """See BackEnd."""
        return [self._link.fileno()] if self.connected and len(self._waiting) < MOST_WAITING else []

    def close(self) -> None:
        """See BackEnd."""
        self._link.close()

    def notified(self) -> None:
        """See BackEnd: there is something to send, or room to receive."""
        self._serve_sent()
        self.poll()

    # what the guest sends

    def _serve_sent(self) -> None:
        ring, answered = self._send, False
        while self.connected:
            waiting = ring.waiting()
            if not waiting:
                ring.ask()
                if not ring.waiting():
                    break
                continue
            if waiting > SLOTS:
                self.domain.note("network ring: indices beyond the ring")
                break
            self._send_one(waiting)
            answered = True
        if answered:
            self.domain.tables.stored_into(self._frames[0])
            if ring.publish():
                self.domain.events.raise_event(self.port)

    def _send_one(self, waiting: int) -> None:
        """Send the packet at the head of the ring, and answer each of its slots."""
        ring = self._send
        first = SEND_REQUEST.unpack(ring.peek(0))
        pieces, extras, segment, used, status = [first], 0, 0, 1, OKAY
        try:
            more = first[2] & EXTRA_INFO
            while more:
                if used >= waiting:
                    raise BadPacket("extra information is missing")
                kind, flags, size, *_ = EXTRA.unpack_from(ring.peek(used))
                segment = size if kind == EXTRA_SEGMENTS else segment
                more, extras, used = flags & EXTRA_MORE, extras + 1, used + 1
            while pieces[-1][2] & SEND_MORE:
                if used >= waiting or len(pieces) >= MOST_PIECES:
                    raise BadPacket(f"a packet of more than {len(pieces)} pieces")
                pieces.append(SEND_REQUEST.unpack(ring.peek(used)))
                used += 1
            self._transmit(pieces, segment)
        except (BadPacket, NotGranted) as error:
            self.domain.note(f"network packet refused: {error}")
            status = FAILED
        ring.take(used)
        ring.answer(SEND_RESPONSE.pack(first[3], status))
        for _ in range(extras):
            ring.answer(SEND_RESPONSE.pack(0, NULL))
        for piece in pieces[1:]:
            ring.answer(SEND_RESPONSE.pack(piece[3], status))

    def _transmit(self, pieces: Sequence[tuple[int, ...]], segment: int) -> None:
        """Copy a packet out of the granted frames, and send it; raises BadPacket, NotGranted."""
        total = pieces[0][4]
        sizes = [piece[4] for piece in pieces]
        sizes[0] = total - sum(sizes[1:])  # the first one tells the whole packet's size
        grants, memory = self.domain.grants, self.domain.memory
        data = bytearray()
        for (reference, offset, *_), size in zip(pieces, sizes, strict=True):
            if size < 0 or offset + size > PAGE:
                raise BadPacket("a piece beyond its page")
            frame = grants.claim(reference, DOMID_CONTROL, write=False)
            data += memory.frame(frame)[offset : offset + size]
            grants.release(reference, frame, write=False)
        blank = pieces[0][2] & CHECKSUM_BLANK
        header = offload.wanted(data, segment) if blank or segment else offload.NOTHING
        self.requests += 1
        self.bytes += len(data)
        if not self._link.send_unfinished(header, data):
            self.dropped += 1

    # what it receives

    def poll(self) -> None:
        """Give the guest what has come, as far as it has room."""
        if not self.connected:
            return
        ring, given = self._receive, False
        for _ in range(MOST_AT_ONCE):
            if not self._waiting and not self._take():
                break
            header, packet = self._waiting[0]
            pieces = -(-len(packet) // PAGE)
            cut = offload.HEADER.unpack(header)[1] & ~offload.CONGESTION
            slots = pieces + bool(cut)
            waiting = ring.waiting()
            if waiting > SLOTS:
                self.domain.note("network ring: indices beyond the ring")
                break
            if waiting < slots:
                ring.ask()
                if ring.waiting() < slots:
                    break
            self._waiting.popleft()
            self._deliver(header, packet, cut)
            given = True
        if given:
            self.domain.tables.stored_into(self._frames[1])
            if ring.publish():
                self.domain.events.raise_event(self.port)

    def _take(self) -> bool:
        """Fetch a packet from the link; whether there is one now."""
        received = self._link.receive_unfinished()
        if received is None:
            return False
        header, packet = received
        _, cut, _, size, _, _ = offload.HEADER.unpack(header)
        if cut and (cut & ~offload.CONGESTION not in self._cuts or not size or len(packet) > MOST_BYTES):
            self._waiting.extend((offload.NOTHING, whole) for whole in offload.finished(header, packet))
        else:
            self._waiting.append((header, packet))
        return bool(self._waiting)

    def _deliver(self, header: bytes, packet: bytes, cut: int) -> None:
        """Copy a packet into granted frames; the guest is told of each that is none."""
        ring, memory, grants = self._receive, self.domain.memory, self.domain.grants
        flags, _, _, size, _, _ = offload.HEADER.unpack(header)
        said = 0
        if flags & offload.NEEDS_CHECKSUM:
            said = RECEIVED_BLANK | RECEIVED_VALID
        elif flags & offload.CHECKSUM_GOOD:
            said = RECEIVED_VALID
        self.requests += 1
        self.bytes += len(packet)
        for at in range(0, len(packet), PAGE):
            identity, reference = RECEIVE_REQUEST.unpack(ring.peek(0))
            ring.take(1)
            piece = packet[at : at + PAGE]
            status = len(piece)
            try:
                frame = grants.claim(reference, DOMID_CONTROL, write=True)
                memory.frame(frame)[: len(piece)] = piece
                grants.release(reference, frame, write=True)
            except NotGranted as error:
                self.domain.note(f"network buffer refused: {error}")
                status = FAILED
            more = RECEIVED_MORE if at + PAGE < len(packet) else 0
            extra = EXTRA_INFO if cut and not at else 0
            ring.answer(RECEIVE_RESPONSE.pack(identity, 0, said | more | extra, status))
            if extra:
                ring.take(1)
                kind = SEGMENTS_TCP4 if cut == offload.TCP4 else SEGMENTS_TCP6
                ring.answer(EXTRA.pack(EXTRA_SEGMENTS, 0, size, kind, 0, 0))
            said = 0

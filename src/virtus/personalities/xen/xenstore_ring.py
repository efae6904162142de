"""A domain's connection to xenstore: messages through a shared ring (xen/include/public/io/xs_wire.h)."""

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from virtus.personalities.xen.xenstore import Path, Permissions, Store, StoreError, Watch, check_path

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

HEADER: Final = struct.Struct("<4I")  # struct xsd_sockmsg: type, request, transaction, length
MOST_PAYLOAD: Final = 4096
MOST_WAITING: Final = 1 << 20
"""A guest that does not read its answers is not answered any more."""
RING_SIZE: Final = 1024
REQUESTS, ANSWERS, REQUEST_INDICES, ANSWER_INDICES = 0, 1024, 2048, 2056
INDICES: Final = struct.Struct("<II")  # consumer, producer
MASK32: Final = 0xFFFFFFFF
(CONTROL, DIRECTORY, READ, GET_PERMS, WATCH, UNWATCH, TRANSACTION_START, TRANSACTION_END, INTRODUCE, RELEASE,
 GET_DOMAIN_PATH, WRITE, MKDIR, RM, SET_PERMS, WATCH_EVENT, ERROR, IS_DOMAIN_INTRODUCED) = range(18)  # fmt: skip
RESET_WATCHES: Final = 21
SPECIAL: Final = (b"@introduceDomain", b"@releaseDomain")
OK: Final = b"OK\0"


class Connection:
    """One domain's requests to the store, as messages; `answers` gathers what is to be sent to it."""

    def __init__(self, store: Store, domain: int) -> None:
        self._store, self._domain = store, domain
        self._home = b"/local/domain/%d" % domain
        self._received = b""
        self.answers = bytearray()
        self._does: dict[int, Callable[[bytes, int], bytes]] = {
            DIRECTORY: self._directory, READ: self._read, GET_PERMS: self._get_permissions, WATCH: self._watch,
            UNWATCH: self._unwatch, TRANSACTION_START: self._begin, TRANSACTION_END: self._end, WRITE: self._write,
            GET_DOMAIN_PATH: self._domain_path, MKDIR: self._mkdir, RM: self._rm, SET_PERMS: self._set_permissions,
            IS_DOMAIN_INTRODUCED: self._introduced, RESET_WATCHES: self._reset,
        }  # fmt: skip

    def save(self) -> list[str]:
        """What has come and is not a whole request yet, and the answers that wait."""
        return [self._received.hex(), self.answers.hex()]

    def load(self, saved: list[str]) -> None:
        """What `save` gave."""
        self._received, self.answers = bytes.fromhex(saved[0]), bytearray.fromhex(saved[1])

    def receive(self, data: bytes) -> None:
        """Take bytes of requests, and answer each that is whole."""
        self._received += data
        while len(self._received) >= HEADER.size:
            kind, request, transaction, length = HEADER.unpack_from(self._received)
            if length > MOST_PAYLOAD:
                # as xenstored does with a client that cannot be understood any more
                self._received = b""
                self._send(ERROR, request, transaction, b"E2BIG\0")
                return
            if len(self._received) < HEADER.size + length:
                return
            payload = self._received[HEADER.size : HEADER.size + length]
            self._received = self._received[HEADER.size + length :]
            self._answer(kind, request, transaction, payload)

    def _answer(self, kind: int, request: int, transaction: int, payload: bytes) -> None:
        does = self._does.get(kind)
        try:
            if does is None:
                raise StoreError("ENOSYS" if kind != CONTROL else "EACCES")
            self._send(kind, request, transaction, does(payload, transaction), after=kind == WATCH)
        except StoreError as error:
            self._send(ERROR, request, transaction, error.name.encode() + b"\0")

    def _send(self, kind: int, request: int, transaction: int, payload: bytes, after: bool = False) -> None:
        if len(payload) > MOST_PAYLOAD:
            kind, payload = ERROR, b"E2BIG\0"
        if len(self.answers) < MOST_WAITING:
            message = HEADER.pack(kind, request, transaction, len(payload)) + payload
            if after:  # a watch fires at once, but the guest wants to hear first that it stands
                at = self._before_watch
                self.answers[at:at] = message
            else:
                self.answers += message

    _before_watch = 0

    # the requests

    def _path(self, word: bytes) -> Path:
        return check_path(word if word.startswith(b"/") else self._home + b"/" + word)

    @staticmethod
    def _words(payload: bytes, count: int) -> list[bytes]:
        """Exactly `count` strings that each end in a zero byte; raises StoreError."""
        words = payload.split(b"\0")
        if len(words) != count + 1 or words[-1]:
            raise StoreError("EINVAL")
        return words[:-1]

    def _directory(self, payload: bytes, transaction: int) -> bytes:
        (path,) = self._words(payload, 1)
        names = self._store.directory(self._domain, self._path(path), transaction)
        return b"".join(name + b"\0" for name in names)

    def _read(self, payload: bytes, transaction: int) -> bytes:
        (path,) = self._words(payload, 1)
        return self._store.read(self._domain, self._path(path), transaction)

    def _get_permissions(self, payload: bytes, transaction: int) -> bytes:
        (path,) = self._words(payload, 1)
        permissions = self._store.permissions(self._domain, self._path(path), transaction)
        return b"".join(word + b"\0" for word in permissions.wire())

    def _watch(self, payload: bytes, transaction: int) -> bytes:
        path, token = self._words(payload, 2)
        self._before_watch = len(self.answers)
        full, relative = self._watched(path)
        self._store.watch(Watch(self._domain, full, token, relative, self.fired))
        return OK

    def _watched(self, path: bytes) -> tuple[Path, Path]:
        if path in SPECIAL:
            return path, b""
        return self._path(path), b"" if path.startswith(b"/") else self._home + b"/"

    def fired(self, path: Path, token: bytes) -> None:
        """Tell the guest that one of its watches has seen something."""
        payload = path + b"\0" + token + b"\0"
        self._send(WATCH_EVENT, 0, 0, payload)

    def _unwatch(self, payload: bytes, transaction: int) -> bytes:
        path, token = self._words(payload, 2)
        self._store.unwatch(self._domain, self._watched(path)[0], token)
        return OK

    def _begin(self, payload: bytes, transaction: int) -> bytes:
        if transaction:
            raise StoreError("EBUSY")
        return b"%d\0" % self._store.begin(self._domain)

    def _end(self, payload: bytes, transaction: int) -> bytes:
        if payload not in (b"T\0", b"F\0"):
            raise StoreError("EINVAL")
        self._store.end(self._domain, transaction, payload == b"T\0")
        return OK

    def _write(self, payload: bytes, transaction: int) -> bytes:
        path, found, value = payload.partition(b"\0")
        if not found:
            raise StoreError("EINVAL")
        self._store.write(self._domain, self._path(path), value, transaction)
        return OK

    def _mkdir(self, payload: bytes, transaction: int) -> bytes:
        (path,) = self._words(payload, 1)
        self._store.make_directory(self._domain, self._path(path), transaction)
        return OK

    def _rm(self, payload: bytes, transaction: int) -> bytes:
        (path,) = self._words(payload, 1)
        self._store.remove(self._domain, self._path(path), transaction)
        return OK

    def _set_permissions(self, payload: bytes, transaction: int) -> bytes:
        path, *words = payload.split(b"\0")
        if not words or words[-1]:
            raise StoreError("EINVAL")
        self._store.set_permissions(self._domain, self._path(path), Permissions.parse(words[:-1]), transaction)
        return OK

    @staticmethod
    def _number(payload: bytes) -> int:
        if not payload.endswith(b"\0") or not payload[:-1].isdigit() or len(payload) > 6:
            raise StoreError("EINVAL")
        return int(payload[:-1])

    def _domain_path(self, payload: bytes, transaction: int) -> bytes:
        return b"/local/domain/%d\0" % self._number(payload)

    def _introduced(self, payload: bytes, transaction: int) -> bytes:
        return b"T\0" if self._number(payload) in (0, self._domain) else b"F\0"

    def _reset(self, payload: bytes, transaction: int) -> bytes:
        self._store.forget(self._domain)
        return OK


class StoreRing:
    """The ring in the frame `frame` of a domain, with a connection behind it."""

    def __init__(self, domain: "Domain", frame: int, store: Store, port: int = 0) -> None:
        """`port` is the event channel where there is one already."""
        self._domain, self.frame = domain, frame
        self._page = domain.memory.frame(frame)
        self.connection = Connection(store, domain.ident)
        self.port = port or domain.events.open_back_end(self.notified)

    def notified(self) -> None:
        """The guest has sent something, or has read."""
        consumer, producer = INDICES.unpack_from(self._page, REQUEST_INDICES)
        count = producer - consumer & MASK32
        if count > RING_SIZE:
            self._domain.note("xenstore ring: indices beyond the ring")
            return
        start = consumer % RING_SIZE
        ring = self._page[REQUESTS : REQUESTS + RING_SIZE]
        data = bytes(ring[start : start + count]) + bytes(ring[: max(0, start + count - RING_SIZE)])
        struct.pack_into("<I", self._page, REQUEST_INDICES, producer)
        self.connection.receive(data)
        self.flush(notify=bool(count))

    def flush(self, notify: bool = False) -> None:
        """Send what is waiting, as much as fits."""
        answers = self.connection.answers
        consumer, producer = INDICES.unpack_from(self._page, ANSWER_INDICES)
        room = RING_SIZE - (producer - consumer & MASK32)
        if answers and 0 < room <= RING_SIZE:
            piece = bytes(answers[:room])
            del answers[:room]
            for at, byte in enumerate(piece):
                self._page[ANSWERS + (producer + at) % RING_SIZE] = byte
            struct.pack_into("<I", self._page, ANSWER_INDICES + 4, producer + len(piece) & MASK32)
            notify = True
        if notify:
            self._domain.events.raise_event(self.port)

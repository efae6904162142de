"""What all back ends have in common: finding a front end in xenstore, and agreeing with it on rings and a port.

Source: xen/include/public/io/xenbus.h; docs/misc/xenstore-paths.pandoc.
"""

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from virtus.personalities.xen.abi import DOMID_CONTROL, Refused
from virtus.personalities.xen.grants import NotGranted
from virtus.personalities.xen.xenstore import Permissions, Store, StoreError, Watch

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain


class State(IntEnum):
    """enum xenbus_state."""

    INITIALISING = 1
    INIT_WAIT = 2
    INITIALISED = 3
    CONNECTED = 4
    CLOSING = 5
    CLOSED = 6


READY: Final = (State.INITIALISED, State.CONNECTED)
"""A front end whose rings can be used: one that waits for us to connect first, or one that does not."""


class BackEnd:
    """One device of one domain. A subclass says what it is, and serves its rings while it is connected.

    `requests` and `bytes` count what has been served.
    """

    kind: bytes

    def __init__(self, domain: "Domain", store: Store, number: int, saved: dict[str, Any] | None = None) -> None:
        """`saved` is what `save` gave, when the front end does not know that we were away."""
        self.domain, self._store, self._saved = domain, store, saved
        self._front = b"/local/domain/%d/device/%s/%d" % (domain.ident, self.kind, number)
        self._back = b"/local/domain/0/backend/%s/%d/%d" % (self.kind, domain.ident, number)
        self._rings: list[tuple[int, int]] = []  # grant, frame
        self.port = 0
        self.requests = self.bytes = 0

    @property
    def connected(self) -> bool:
        """Whether there are rings to serve."""
        return bool(self._rings)

    def announce(self, front: dict[bytes, bytes], back: dict[bytes, bytes]) -> None:
        """Tell both sides of each other, and wait for the front end; or go on where we were when we were saved."""
        if self._saved is None:
            self._introduce(front, back)
        else:
            self._resume(self._saved)
        watched = self._front + b"/state"
        self._store.watch(Watch(DOMID_CONTROL, watched, self.kind, b"", lambda *_: self._front_changed()))

    def _introduce(self, front: dict[bytes, bytes], back: dict[bytes, bytes]) -> None:
        ident = self.domain.ident
        mine = Permissions(DOMID_CONTROL, "n", ((ident, "r"),))
        theirs = Permissions(ident, "n", ((DOMID_CONTROL, "r"),))
        for path, permissions in ((self._front, theirs), (self._back, mine)):
            self._store.make_directory(DOMID_CONTROL, path)
            self._store.set_permissions(DOMID_CONTROL, path, permissions)
        back = {b"frontend": self._front, b"frontend-id": b"%d" % ident, b"online": b"1", **back}
        front = {b"backend": self._back, b"backend-id": b"%d" % DOMID_CONTROL, **front}
        back[b"state"], front[b"state"] = b"%d" % State.INIT_WAIT, b"%d" % State.INITIALISING
        for path, values in ((self._back, back), (self._front, front)):
            for name, value in values.items():
                self._store.write(DOMID_CONTROL, path + b"/" + name, value)

    def save(self) -> dict[str, Any]:
        """What is connected, and how far the rings are served."""
        return {"rings": self._rings, "port": self.port, "indices": self.indices() if self._rings else []}

    def _resume(self, saved: dict[str, Any]) -> None:
        self._rings = [(reference, frame) for reference, frame in saved["rings"]]
        if self._rings:
            self.port = saved["port"]
            self.domain.events.reconnect(self.port, self.notified)
            self.begin([frame for _, frame in self._rings])
            self.set_indices(saved["indices"])

    def read(self, name: bytes) -> int:
        """A number that the front end has written; raises StoreError, ValueError."""
        return int(self._store.read(DOMID_CONTROL, self._front + b"/" + name))

    def has(self, name: bytes) -> bool:
        """Whether the front end has a feature."""
        try:
            return bool(self.read(name))
        except (StoreError, ValueError):
            return False

    def _front_changed(self) -> None:
        try:
            state = self.read(b"state")
        except (StoreError, ValueError):
            return
        if state in READY and not self._rings:
            self._connect()
        elif state in (State.CLOSING, State.CLOSED):
            self.disconnect()
            self._say(state)
        elif state == State.INITIALISING:
            self.disconnect()
            self._say(State.INIT_WAIT)

    def _say(self, state: int) -> None:
        self._store.write(DOMID_CONTROL, self._back + b"/state", b"%d" % state)

    def _connect(self) -> None:
        try:
            for name in self.ring_names():
                reference = self.read(name)
                self._rings.append((reference, self.domain.grants.claim(reference, DOMID_CONTROL, write=True)))
            port = self.read(b"event-channel")
            self.domain.events.connect(port, self.notified)
        except (StoreError, ValueError, NotGranted, Refused) as error:
            self._release()
            self.domain.note(f"{self.kind.decode()} front end: {error}")
            self._say(State.CLOSING)
            return
        self.port = port
        self.begin([frame for _, frame in self._rings])
        self._say(State.CONNECTED)

    def _release(self) -> None:
        for reference, frame in self._rings:
            self.domain.grants.release(reference, frame, write=True)
        self._rings.clear()

    def disconnect(self) -> None:
        """Let go of the rings, so that the guest can have its frames back."""
        if self._rings:
            self._release()
            self.domain.events.disconnect(self.port)

    # what a subclass is

    def ring_names(self) -> list[bytes]:
        """Under which names the front end tells its rings' grants."""
        raise NotImplementedError

    def begin(self, rings: list[int]) -> None:
        """The rings lie in these frames."""
        raise NotImplementedError

    def indices(self) -> list[int]:
        """How far the rings are served."""
        raise NotImplementedError

    def set_indices(self, indices: list[int]) -> None:
        """Go on from there; raises ValueError for what `indices` never gives."""
        raise NotImplementedError

    def notified(self) -> None:
        """The front end has an event for us."""
        raise NotImplementedError

    def descriptors(self) -> list[int]:
        """What becomes readable when there is something to `poll` for."""
        return []

    def poll(self) -> None:
        """Serve what does not come from the front end."""

    def flush(self) -> None:
        """What was acknowledged survives the end of this process."""

    def close(self) -> None:
        """Give back what of the host's is held."""

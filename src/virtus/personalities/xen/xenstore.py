"""xenstore: the small tree of strings over which domains and back ends find each other.

Paths with values, each with an owner and permissions; watches that fire on every change below a path; transactions that
commit whole, and only if nothing that they saw has changed meanwhile.
Source: xen.git, docs/misc/xenstore.txt, tools/xenstored.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from virtus.personalities.xen.abi import DOMID_CONTROL
from virtus.records import dataclass, field, replace

MOST_PATH, MOST_VALUE, MOST_WATCHES, MOST_NODES, MOST_TRANSACTIONS = 3072, 4096, 128, 8192, 10
ALLOWED: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-/_@")
ABSENT: Final = -1
Path = bytes


class StoreError(Exception):
    """An operation fails; `name` is the error's name on the wire."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


@dataclass(frozen=True, slots=True)
class Permissions:
    """The owner, what everybody else may do ("n", "r", "w", "b"), and exceptions by domain."""

    owner: int
    others: str = "n"
    special: tuple[tuple[int, str], ...] = ()

    def allow(self, domain: int, wanted: str) -> bool:
        """Whether a domain may read ("r") or write ("w"). The owner and the control domain may do everything."""
        if domain in (self.owner, DOMID_CONTROL):
            return True
        access = dict(self.special).get(domain, self.others)
        return access in (wanted, "b")

    def wire(self) -> list[bytes]:
        """As words of the protocol, such as n0 r1."""
        words = [f"{self.others}{self.owner}", *(f"{access}{domain}" for domain, access in self.special)]
        return [word.encode() for word in words]

    @classmethod
    def parse(cls, words: list[bytes]) -> "Permissions":
        """From words of the protocol; raises StoreError."""
        parsed = list[tuple[int, str]]()
        for word in words:
            if word[:1] not in (b"n", b"r", b"w", b"b") or not word[1:].isdigit() or len(word) > 6:
                raise StoreError("EINVAL")
            parsed.append((int(word[1:]), word[:1].decode()))
        if not parsed or len(parsed) > 16:
            raise StoreError("EINVAL")
        return cls(parsed[0][0], parsed[0][1], tuple(parsed[1:]))


@dataclass(frozen=True, slots=True)
class Node:
    """One path's value. `generation` is the change that touched it or its list of children last."""

    value: bytes
    permissions: Permissions
    generation: int = 0


@dataclass(slots=True)
class Watch:
    """Somebody's wish to hear of changes at a path and below; `relative` is how to name paths to them."""

    domain: int
    path: Path
    token: bytes
    relative: Path  # the prefix that was left out when the watch was made, b"" for absolute ones
    fire: Callable[[Path, bytes], None]


@dataclass(slots=True)
class Transaction:
    """What is to change (None: to be removed), what was seen (by generation), and which watches will fire."""

    domain: int
    changes: dict[Path, Node | None] = field(default_factory=dict)
    seen: dict[Path, int] = field(default_factory=dict)
    events: list[tuple[Path, bool]] = field(default_factory=list)

    def saw(self, path: Path, node: Node | None) -> None:
        """Remember what a path was when it was first looked at; raises StoreError for too many."""
        if path not in self.seen:
            if len(self.seen) >= MOST_NODES and self.domain != DOMID_CONTROL:
                raise StoreError("ENOSPC")
            self.seen[path] = ABSENT if node is None else node.generation


def check_path(path: bytes) -> Path:
    """An absolute path of the tree; raises StoreError("EINVAL")."""
    well_formed = path.startswith(b"/") and len(path) <= MOST_PATH and b"//" not in path and ALLOWED.issuperset(path)
    if not well_formed or (len(path) > 1 and path.endswith(b"/")):
        raise StoreError("EINVAL")
    return path


def parent(path: Path) -> Path:
    """The path above; the root's is the root."""
    return path.rpartition(b"/")[0] or b"/"


class Store:
    """The tree. `transaction` 0 is none: a change counts at once."""

    def __init__(self) -> None:
        self._nodes: dict[Path, Node] = {b"/": Node(b"", Permissions(DOMID_CONTROL, "n"))}
        self._children: dict[Path, set[bytes]] = {b"/": set()}
        self.watches: list[Watch] = []
        self._transactions: dict[int, Transaction] = {}
        self._next = 0
        self._generation = 0

    def save(self, domain: int) -> dict[str, Any]:
        """The tree, and a domain's watches; raises ValueError while it is in the middle of a transaction."""
        if self._transactions:
            raise ValueError("it is changing its xenstore")
        nodes = [
            [path.hex(), node.value.hex(), [word.decode() for word in node.permissions.wire()]]
            for path, node in sorted(self._nodes.items())
        ]
        watches = [
            [watch.path.hex(), watch.token.hex(), watch.relative.hex()]
            for watch in self.watches
            if watch.domain == domain
        ]
        return {"nodes": nodes, "watches": watches, "next": self._next, "generation": self._generation}

    def load(self, saved: dict[str, Any], domain: int, fire: Callable[[Path, bytes], None]) -> None:
        """What `save` gave, in place of the whole tree; the domain's watches call `fire`."""
        nodes = {
            check_path(bytes.fromhex(path)): Node(
                bytes.fromhex(value), Permissions.parse([word.encode() for word in words])
            )
            for path, value, words in saved["nodes"]
        }
        self._nodes, self._children = nodes, {path: set() for path in nodes}
        for path in nodes:
            if path != b"/":
                self._children[parent(path)].add(path.rpartition(b"/")[2])
        self._next, self._generation = saved["next"], saved["generation"]
        for words in saved["watches"]:
            path, token, relative = map(bytes.fromhex, words)
            self.watches.append(Watch(domain, path, token, relative, fire))

    # reading

    def _view(self, domain: int, transaction: int) -> Transaction | None:
        if not transaction:
            return None
        found = self._transactions.get(transaction)
        if found is None or found.domain != domain:
            raise StoreError("ENOENT")
        return found

    def _find(self, path: Path, view: Transaction | None) -> Node | None:
        node = self._nodes.get(path)
        if view is not None:
            if path in view.changes:
                return view.changes[path]
            view.saw(path, node)
        return node

    def _readable(self, domain: int, path: Path, view: Transaction | None) -> Node:
        node = self._find(path, view)
        if node is None:
            raise StoreError("ENOENT" if self._may_know(domain, path, view) else "EACCES")
        if not node.permissions.allow(domain, "r"):
            raise StoreError("EACCES")
        return node

    def _may_know(self, domain: int, path: Path, view: Transaction | None) -> bool:
        """Whether a domain may know that there is no such path: it may read the nearest one above."""
        while True:
            path = parent(path)
            node = self._find(path, view)
            if node is not None:
                return node.permissions.allow(domain, "r")

    def read(self, domain: int, path: Path, transaction: int = 0) -> bytes:
        """A value; raises StoreError."""
        return self._readable(domain, check_path(path), self._view(domain, transaction)).value

    def directory(self, domain: int, path: Path, transaction: int = 0) -> list[bytes]:
        """The names below a path, in order; raises StoreError."""
        view = self._view(domain, transaction)
        self._readable(domain, check_path(path), view)
        return sorted(self._names(path, view))

    def _names(self, path: Path, view: Transaction | None) -> set[bytes]:
        names = set(self._children.get(path, ()))
        if view is not None:
            view.saw(path, self._nodes.get(path))
            for changed, node in view.changes.items():
                if parent(changed) == path and changed != b"/":
                    name = changed.rpartition(b"/")[2]
                    names.add(name) if node is not None else names.discard(name)
        return names

    def permissions(self, domain: int, path: Path, transaction: int = 0) -> Permissions:
        """Who may do what; raises StoreError."""
        return self._readable(domain, check_path(path), self._view(domain, transaction)).permissions

    # changing

    def _set(self, path: Path, node: Node | None, view: Transaction | None) -> None:
        if view is not None:
            view.changes[path] = node
            return
        self._generation += 1
        above, name = parent(path), path.rpartition(b"/")[2]
        if (node is None) != (path not in self._nodes) and above in self._nodes:
            self._nodes[above] = replace(self._nodes[above], generation=self._generation)
        if node is None:
            self._nodes.pop(path, None)
            self._children.pop(path, None)
            self._children.get(above, set()).discard(name)
        else:
            self._nodes[path] = replace(node, generation=self._generation)
            self._children.setdefault(path, set())
            if name:
                self._children[above].add(name)

    def _make(self, domain: int, path: Path, view: Transaction | None) -> Node:
        """The node at a path, made with all above where it is missing; raises StoreError."""
        missing = list[Path]()
        while (node := self._find(path, view)) is None:
            missing.append(path)
            path = parent(path)
        if not node.permissions.allow(domain, "w"):
            raise StoreError("EACCES")
        if (
            len(self._nodes) + len(missing) + (len(view.changes) if view else 0) > MOST_NODES
            and domain != DOMID_CONTROL
        ):
            raise StoreError("ENOSPC")
        for path in reversed(missing):
            owner = node.permissions.owner if domain == DOMID_CONTROL else domain
            node = Node(b"", replace(node.permissions, owner=owner))
            self._set(path, node, view)
        return node

    def write(self, domain: int, path: Path, value: bytes, transaction: int = 0) -> None:
        """Set a value, and make the path where it is missing; raises StoreError."""
        view = self._view(domain, transaction)
        if len(value) > MOST_VALUE:
            raise StoreError("E2BIG")
        node = self._make(domain, check_path(path), view)
        self._set(path, replace(node, value=value), view)
        self._changed(path, view)

    def make_directory(self, domain: int, path: Path, transaction: int = 0) -> None:
        """Make a path with an empty value unless it is there; raises StoreError."""
        view = self._view(domain, transaction)
        if self._find(check_path(path), view) is None:
            self._make(domain, path, view)
            self._changed(path, view)

    def remove(self, domain: int, path: Path, transaction: int = 0) -> None:
        """Remove a path and everything below; raises StoreError."""
        view = self._view(domain, transaction)
        node = self._find(check_path(path), view)
        if node is None:
            if self._find(parent(path), view) is None:
                raise StoreError("ENOENT")
            return
        if path == b"/":
            raise StoreError("EINVAL")
        if not node.permissions.allow(domain, "w"):
            raise StoreError("EACCES")
        for below in [*self._below(path, view)]:
            self._set(below, None, view)
        self._changed(path, view, whole=True)

    def _below(self, path: Path, view: Transaction | None) -> Iterator[Path]:
        """A path and all below it, the lowest first."""
        pending, found = [path], list[Path]()
        while pending:
            here = pending.pop()
            found.append(here)
            pending += [(b"" if here == b"/" else here) + b"/" + name for name in self._names(here, view)]
        return reversed(found)

    def set_permissions(self, domain: int, path: Path, permissions: Permissions, transaction: int = 0) -> None:
        """Change who may do what: the owner's and the control domain's right; raises StoreError."""
        view = self._view(domain, transaction)
        node = self._find(check_path(path), view)
        if node is None:
            raise StoreError("ENOENT")
        if domain not in (node.permissions.owner, DOMID_CONTROL):
            raise StoreError("EACCES")
        if domain != DOMID_CONTROL and permissions.owner != domain:
            raise StoreError("EPERM")
        self._set(path, replace(node, permissions=permissions), view)
        self._changed(path, view)

    # watches

    def _changed(self, path: Path, view: Transaction | None, whole: bool = False) -> None:
        if view is not None:
            if (path, whole) not in view.events[-1:]:
                if len(view.events) >= MOST_NODES and view.domain != DOMID_CONTROL:
                    raise StoreError("ENOSPC")
                view.events.append((path, whole))
            return
        self._fire(path, whole)

    def _fire(self, path: Path, whole: bool = False) -> None:
        for watch in list(self.watches):
            below = watch.path == b"/" or path == watch.path or path.startswith(watch.path + b"/")
            above = whole and watch.path.startswith(path + b"/")
            if below or above:
                named = path if below else watch.path
                node = self._nodes.get(named)
                if node is None or node.permissions.allow(watch.domain, "r"):
                    watch.fire(named.removeprefix(watch.relative), watch.token)

    def watch(self, watch: Watch) -> None:
        """Begin a watch; it fires once at once. Raises StoreError."""
        own = [one for one in self.watches if one.domain == watch.domain]
        if any(one.path == watch.path and one.token == watch.token for one in own):
            raise StoreError("EEXIST")
        if len(own) >= MOST_WATCHES and watch.domain != DOMID_CONTROL:
            raise StoreError("E2BIG")
        self.watches.append(watch)
        watch.fire(watch.path.removeprefix(watch.relative), watch.token)

    def unwatch(self, domain: int, path: Path, token: bytes) -> None:
        """End a watch; raises StoreError."""
        for watch in self.watches:
            if (watch.domain, watch.path, watch.token) == (domain, path, token):
                self.watches.remove(watch)
                return
        raise StoreError("ENOENT")

    # transactions

    def begin(self, domain: int) -> int:
        """A transaction's number; raises StoreError."""
        if sum(one.domain == domain for one in self._transactions.values()) >= MOST_TRANSACTIONS:
            raise StoreError("ENOSPC")
        self._next = self._next % 0xFFFFFFFF + 1
        self._transactions[self._next] = Transaction(domain)
        return self._next

    def end(self, domain: int, transaction: int, commit: bool) -> None:
        """Commit or forget; raises StoreError("EAGAIN") where what it saw or changes was changed meanwhile."""
        view = self._view(domain, transaction)
        if view is None:
            raise StoreError("EINVAL")
        del self._transactions[transaction]
        if not commit:
            return
        for path, generation in view.seen.items():
            node = self._nodes.get(path)
            if generation != (ABSENT if node is None else node.generation):
                raise StoreError("EAGAIN")
        for path in sorted(view.changes):  # above comes before below
            change = view.changes[path]
            if change is not None:
                self._set(path, change, None)
        for path in sorted((path for path, change in view.changes.items() if change is None), reverse=True):
            self._set(path, None, None)
        for path, whole in view.events:
            self._fire(path, whole)

    def forget(self, domain: int) -> None:
        """A domain's connection is begun anew, or gone: its watches and transactions go."""
        self.watches = [watch for watch in self.watches if watch.domain != domain]
        self._transactions = {number: one for number, one in self._transactions.items() if one.domain != domain}

"""xenstore against a model; its wire against whatever bytes a guest may send."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virtus.personalities.xen import xenstore_ring as ring
from virtus.personalities.xen.xenstore import Permissions, Store, StoreError, Watch, check_path, parent
from virtus.personalities.xen.xenstore_ring import HEADER, Connection

HOME = b"/local/domain/1"
names = st.sampled_from([b"a", b"b", b"c"])
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
changes = st.lists(
    st.one_of(
        st.tuples(st.just("write"), paths, st.binary(max_size=4)),
        st.tuples(st.just("mkdir"), paths, st.just(b"")),
        st.tuples(st.just("rm"), paths, st.just(b"")),
    ),
    max_size=25,
)


class Model:
    """A dictionary of paths."""

    def __init__(self, nodes: dict[bytes, bytes] | None = None) -> None:
        self.nodes = {b"/": b""} if nodes is None else nodes

    def make(self, path: bytes) -> None:
        if path not in self.nodes:
            self.make(parent(path))
            self.nodes[path] = b""

    def apply(self, what: str, path: bytes, value: bytes) -> None:
        if what == "rm":
            self.nodes = {
                one: held for one, held in self.nodes.items() if one != path and not one.startswith(path + b"/")
            }
        else:
            self.make(path)
            if what == "write":
                self.nodes[path] = value


def apply(store: Store, what: str, path: bytes, value: bytes, transaction: int = 0) -> None:
    try:
        if what == "write":
            store.write(0, path, value, transaction)
        elif what == "mkdir":
            store.make_directory(0, path, transaction)
        else:
            store.remove(0, path, transaction)
    except StoreError as error:
        assert error.name == "ENOENT" and what == "rm"


def dump(store: Store, path: bytes = b"/", transaction: int = 0) -> dict[bytes, bytes]:
    found = {path: store.read(0, path, transaction)}
    for name in store.directory(0, path, transaction):
        found |= dump(store, (b"" if path == b"/" else path) + b"/" + name, transaction)
    return found


@pytest.mark.slow
@given(changes)
def test_the_tree_is_what_a_dictionary_would_be(steps: list[tuple[str, bytes, bytes]]) -> None:
    store, model = Store(), Model()
    for step in steps:
        apply(store, *step)
        model.apply(*step)
        assert dump(store) == model.nodes


@pytest.mark.slow
@given(changes, changes)
def test_a_transaction_is_seen_inside_and_outside_only_when_it_commits(
    before: list[tuple[str, bytes, bytes]], inside: list[tuple[str, bytes, bytes]]
) -> None:
    store, model = Store(), Model()
    for step in before:
        apply(store, *step)
        model.apply(*step)
    outside = dict(model.nodes)
    number = store.begin(0)
    for step in inside:
        apply(store, *step, transaction=number)
        model.apply(*step)
        assert dump(store, transaction=number) == model.nodes
        assert dump(store) == outside
    store.end(0, number, commit=True)
    assert dump(store) == model.nodes


@pytest.mark.slow
@given(changes, changes, changes)
def test_of_two_transactions_each_commits_as_if_alone_or_not_at_all(
    before: list[tuple[str, bytes, bytes]],
    one: list[tuple[str, bytes, bytes]],
    other: list[tuple[str, bytes, bytes]],
) -> None:
    store, model = Store(), Model()
    for step in before:
        apply(store, *step)
        model.apply(*step)
    first, second = store.begin(0), store.begin(0)
    for step in one:
        apply(store, *step, transaction=first)
    for step in other:
        apply(store, *step, transaction=second)
    store.end(0, first, commit=True)
    for step in one:
        model.apply(*step)
    try:
        store.end(0, second, commit=True)
        for step in other:
            model.apply(*step)
    except StoreError as error:
        assert error.name == "EAGAIN"
    assert dump(store) == model.nodes


def test_what_was_read_and_changed_meanwhile_is_told() -> None:
    store = Store()
    store.write(0, b"/a", b"1")
    number = store.begin(0)
    store.read(0, b"/a", number)
    store.write(0, b"/a", b"2")
    store.write(0, b"/b", b"3", number)
    with pytest.raises(StoreError, match="EAGAIN"):
        store.end(0, number, commit=True)
    assert store.directory(0, b"/") == [b"a"]


def test_rights_of_another_domain() -> None:
    store = Store()
    store.write(0, b"/private", b"x")
    store.set_permissions(0, b"/private", Permissions(0, "n"))
    store.write(0, b"/shown", b"x")
    store.set_permissions(0, b"/shown", Permissions(0, "n", ((1, "r"),)))
    store.write(0, b"/given", b"x")
    store.set_permissions(0, b"/given", Permissions(1, "n"))
    with pytest.raises(StoreError, match="EACCES"):
        store.read(1, b"/private")
    assert store.read(1, b"/shown") == b"x"
    for path in (b"/private", b"/shown", b"/shown/below", b"/new"):
        with pytest.raises(StoreError, match="EACCES"):
            store.write(1, path, b"y")
    with pytest.raises(StoreError, match="EACCES"):
        store.set_permissions(1, b"/shown", Permissions(1, "b"))
    store.write(1, b"/given/below", b"y")
    assert store.permissions(1, b"/given/below").owner == 1
    assert store.read(0, b"/given/below") == b"y"
    with pytest.raises(StoreError, match="EACCES"):
        store.read(2, b"/given/below")
    with pytest.raises(StoreError, match="EPERM"):
        store.set_permissions(1, b"/given", Permissions(2, "n"))


def test_watches_fire_for_a_path_and_below_and_for_what_goes_with_it() -> None:
    store, fired = Store(), list[bytes]()
    store.watch(Watch(0, b"/a/b", b"t", b"", lambda path, token: fired.append(path)))
    store.write(0, b"/a/b/c", b"")
    store.write(0, b"/a", b"")
    store.write(0, b"/a/bb", b"")
    store.remove(0, b"/a")
    assert fired == [b"/a/b", b"/a/b/c", b"/a/b"]


def test_a_domain_is_not_told_of_what_it_may_not_read() -> None:
    store, fired = Store(), list[bytes]()
    store.write(0, b"/secret/a", b"")
    store.set_permissions(0, b"/secret", Permissions(0, "n"))
    store.set_permissions(0, b"/secret/a", Permissions(0, "n"))
    store.watch(Watch(1, b"/", b"t", b"", lambda path, token: fired.append(path)))
    store.write(0, b"/secret/a", b"x")
    assert fired == [b"/"]


@given(st.binary(max_size=12))
def test_paths_are_checked(path: bytes) -> None:
    try:
        assert check_path(path) == path
    except StoreError as error:
        assert error.name == "EINVAL"
    else:
        assert path.startswith(b"/") and b"\0" not in path and b"//" not in path


def connection() -> tuple[Store, Connection]:
    store = Store()
    store.write(0, HOME, b"")
    store.set_permissions(0, HOME, Permissions(1, "n"))
    return store, Connection(store, 1)


def message(kind: int, payload: bytes, request: int = 7, transaction: int = 0) -> bytes:
    return HEADER.pack(kind, request, transaction, len(payload)) + payload


def answers(made: Connection) -> list[tuple[int, int, bytes]]:
    found, data = [], bytes(made.answers)
    made.answers.clear()
    while data:
        kind, request, _, length = HEADER.unpack_from(data)
        found.append((kind, request, data[16 : 16 + length]))
        data = data[16 + length :]
    return found


def test_requests_and_their_answers() -> None:
    _, made = connection()
    made.receive(message(ring.WRITE, b"device/x\0value") + message(ring.READ, b"device/x\0"))
    assert answers(made) == [(ring.WRITE, 7, b"OK\0"), (ring.READ, 7, b"value")]
    made.receive(message(ring.DIRECTORY, b"device\0") + message(ring.GET_PERMS, b"device\0"))
    assert answers(made) == [(ring.DIRECTORY, 7, b"x\0"), (ring.GET_PERMS, 7, b"n1\0")]
    made.receive(message(ring.READ, b"nothing\0") + message(ring.READ, b"/local\0"))
    assert answers(made) == [(ring.ERROR, 7, b"ENOENT\0"), (ring.ERROR, 7, b"EACCES\0")]
    made.receive(message(ring.WATCH, b"device\0tok\0"))
    assert answers(made) == [(ring.WATCH, 7, b"OK\0"), (ring.WATCH_EVENT, 0, b"device\0tok\0")]
    made.receive(message(ring.RM, b"device/x\0"))
    assert sorted(answers(made)) == [(ring.RM, 7, b"OK\0"), (ring.WATCH_EVENT, 0, b"device/x\0tok\0")]
    made.receive(message(ring.TRANSACTION_START, b"\0"))
    ((_, _, number),) = answers(made)
    made.receive(message(ring.WRITE, b"device/y\0z", transaction=int(number[:-1])))
    made.receive(message(ring.READ, b"device/y\0"))
    made.receive(message(ring.TRANSACTION_END, b"T\0", transaction=int(number[:-1])))
    assert sorted((kind, data) for kind, _, data in answers(made)) == [
        (ring.TRANSACTION_END, b"OK\0"),
        (ring.WRITE, b"OK\0"),
        (ring.WATCH_EVENT, b"device/y\0tok\0"),
        (ring.ERROR, b"ENOENT\0"),
    ]
    made.receive(message(ring.READ, b"device/y\0"))
    assert answers(made)[-1] == (ring.READ, 7, b"z")


@pytest.mark.slow
@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 23), st.binary(max_size=60))
@settings(max_examples=300)
def test_no_bytes_of_a_guest_break_the_connection(pieces: list[bytes], kind: int, payload: bytes) -> None:
    _, made = connection()
    made.receive(message(kind, payload))
    assert len(answers(made)) >= 1
    for piece in pieces:
        made.receive(piece)
    assert len(made._received) <= ring.MOST_PAYLOAD + HEADER.size


@pytest.mark.slow
@given(st.data())
def test_messages_may_come_in_any_pieces(data: st.DataObject) -> None:
    _, made = connection()
    stream = b"".join(message(ring.WRITE, b"k%d\0v%d" % (n, n), request=n) for n in range(5))
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        made.receive(stream[:size])
        stream = stream[size:]
    assert [request for _, request, _ in answers(made)] == [0, 1, 2, 3, 4]


def test_a_message_too_long_is_refused() -> None:
    _, made = connection()
    made.receive(struct.pack("<4I", ring.WRITE, 3, 0, 1 << 30))
    assert answers(made) == [(ring.ERROR, 3, b"E2BIG\0")]


@pytest.mark.slow
def test_a_domain_cannot_fill_the_store() -> None:
    store, made = connection()
    deep = HOME + b"/a" * 1500
    store.write(1, deep, b"x")
    assert store.read(1, deep) == b"x"
    number = store.begin(1)
    for name, transaction in ((b"/n%d", 0), (b"/t%d", number)):
        ended = ""
        for at in range(20_000):
            try:
                store.write(1, HOME + name % at, b"", transaction)
            except StoreError as error:
                ended = error.name
                break
        assert ended == "ENOSPC"
    for _ in range(9):
        store.begin(1)
    with pytest.raises(StoreError, match="ENOSPC"):
        store.begin(1)
    with pytest.raises(StoreError, match="E2BIG"):
        store.write(1, HOME + b"/large", bytes(5000))
    for _ in range(40_000):
        made.receive(message(ring.READ, b"nothing\0"))
    assert len(made.answers) <= ring.MOST_WAITING + ring.MOST_PAYLOAD

"""struct msghdr and struct iovec in guest memory, and messages that take several host calls to be sent or received."""

import errno
import os
import select
from struct import Struct, pack, unpack, unpack_from
from typing import TYPE_CHECKING, Final, NamedTuple

from virtus.host import sockets as host_sockets
from virtus.personalities.linux import rights
from virtus.personalities.linux.blocking import FOREVER, Blocking, Interrupted, Wait, after
from virtus.personalities.linux.pipes import PIECE
from virtus.personalities.linux.sockets import AF_UNIX, SOCK_DGRAM, SOCK_STREAM, SocketFile, unix_address

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

IOV_MAX: Final = 1024  # UIO_MAXIOV, include/uapi/linux/uio.h
DATAGRAM_MAX: Final = 16 << 20
"""More than any datagram the host takes or holds."""
CONTROL_MAX: Final = 20480  # net.core.optmem_max of recent kernels is 128 KiB; no control data we know needs more
MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT, MSG_WAITALL = 1, 2, 0x20, 0x40, 0x100  # include/linux/socket.h
MSG_ERRQUEUE, MSG_CMSG_CLOEXEC = 0x2000, 0x40000000
RETRY_NS: Final = 2_000_000
"""How often a datagram is tried again whose receiver's queue is full: the host tells only connected senders."""


class Message(NamedTuple):
    """A guest's struct msghdr."""

    name: int
    name_length: int
    vectors: list[tuple[int, int]]
    control: int
    control_length: int


MSGHDR: Final = Struct("<QI4xQQQQi4x")  # name, length, vectors, count, control, length, flags
NAME_LENGTH_AT, CONTROL_LENGTH_AT, FLAGS_AT = 8, 40, 48


def read_vectors(task: "Task", address: int, count: int) -> list[tuple[int, int]]:
    """(address, size) of each struct iovec."""
    if count > IOV_MAX:
        raise OSError(errno.EMSGSIZE, "")
    words = unpack(f"<{2 * count}Q", task.read(address, 16 * count))
    vectors = list(zip(words[::2], words[1::2], strict=True))
    if sum(size for _, size in vectors) >> 63:
        raise OSError(errno.EINVAL, "")
    return vectors


def read_message(task: "Task", address: int) -> Message:
    """A struct msghdr."""
    name, name_length, vectors, count, control, control_length, _ = MSGHDR.unpack(task.read(address, MSGHDR.size))
    if name_length >> 31:
        raise OSError(errno.EINVAL, "")
    return Message(name, name_length, read_vectors(task, vectors, count), control, control_length)


def read_address(task: "Task", address: int, length: int) -> bytes:
    """A socket address."""
    if not 0 <= length <= host_sockets.ADDRESS_MAX:
        raise OSError(errno.EINVAL, "")
    return task.read(address, length)


def store_address(task: "Task", address: int, length_at: int, raw: bytes) -> None:
    """Store a socket address as accept(2) does: cut to the room there is, with the length it has."""
    room = unpack("<i", task.read(length_at, 4))[0]
    if room < 0:
        raise OSError(errno.EINVAL, "")
    task.write(address, raw[:room])
    task.write(length_at, pack("<I", len(raw)))


def scatter(task: "Task", vectors: list[tuple[int, int]], data: bytes, skip: int = 0) -> None:
    """Store `data` over the vectors, `skip` bytes further on."""
    view = memoryview(data)
    for address, size in vectors:
        if skip >= size:
            skip -= size
            continue
        piece = view[: size - skip]
        if not piece:
            return
        task.write(address + skip, piece)
        view = view[len(piece) :]
        skip = 0


def gather(task: "Task", vectors: list[tuple[int, int]], skip: int, most: int) -> bytes:
    """Up to `most` bytes from the vectors, from `skip` on."""
    pieces = []
    for address, size in vectors:
        if skip >= size:
            skip -= size
            continue
        piece = task.read(address + skip, min(size - skip, most))
        pieces.append(piece)
        most -= len(piece)
        skip = 0
        if not most:
            break
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class Transfer:
    """One send or receive in progress. `step` goes on as far as it can and returns the call's result, or raises
    BlockingIOError; `done` bytes are what it has moved so far."""

    def __init__(self, task: "Task", file: SocketFile, vectors: list[tuple[int, int]], flags: int) -> None:
        self.task, self.file, self.vectors, self.flags = task, file, vectors, flags
        self.total = sum(size for _, size in vectors)
        self.done = 0

    def step(self) -> int:
        """Go on."""
        raise NotImplementedError

    def wait(self, deadline: int, restart: bool) -> Wait:
        """What to wait for."""
        raise NotImplementedError

    def finish(self) -> None:
        """The call has ended."""

    timeout = 0

    def run(self) -> "int | Blocking":
        """The call's result, or the way to it."""
        file = self.file
        try:
            result = self.step()
        except BlockingIOError:
            if not (file.nonblocking or self.flags & (MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB)):
                return self._later()
            self.finish()
            if self.done:
                return self.done
            raise
        except OSError:
            self.finish()
            if self.done:
                return self.done
            raise
        self.finish()
        return result

    def _later(self) -> Blocking:
        timeout = self.timeout
        deadline = after(timeout) if timeout else FOREVER
        self.file.hold()  # another thread may close the descriptor meanwhile
        try:
            while True:
                happened = yield self.wait(deadline, not timeout)
                try:
                    return self.step()
                except BlockingIOError:
                    if not happened and (not deadline or after(0) >= deadline):
                        raise
        except (OSError, Interrupted):
            if self.done:
                return self.done
            raise
        finally:
            self.finish()
            self.file.drop()


class Sending(Transfer):
    """send, sendto, sendmsg: streams go on until everything is taken, datagrams are taken as a whole."""

    def __init__(
        self, task: "Task", file: SocketFile, vectors: list[tuple[int, int]], flags: int, name: bytes, control: bytes
    ) -> None:
        super().__init__(task, file, vectors, flags)
        self.name, self.stand_ins = name, list[int]()
        self.timeout = file.send_timeout
        if file.family == AF_UNIX:
            self.name = unix_address(task, name)[0] if name else b""
        if control:
            if file.family == AF_UNIX:
                self.control, self.stand_ins = rights.outgoing(task, control, real=file.outside_peer())
            else:
                kept = [message for message in rights.parse(control) if message.level != rights.SOL_SOCKET]
                self.control = rights.compose(kept)
        else:
            self.control = b""

    def step(self) -> int:
        """See Transfer."""
        task, file = self.task, self.file
        if file.type != SOCK_STREAM:
            if self.total > DATAGRAM_MAX:
                raise OSError(errno.EMSGSIZE, "")
            data = gather(task, self.vectors, 0, self.total) if self.total else b""
            return file.send(task, data, self.flags, self.name, self.control)
        while True:
            data = gather(task, self.vectors, self.done, PIECE) if self.total else b""
            sent = file.send(task, data, self.flags, self.name, self.control)
            self.finish()  # control data goes with the first bytes
            self.control = b""
            self.done += sent
            if self.done >= self.total:
                return self.done

    def wait(self, deadline: int, restart: bool) -> Wait:
        """See Transfer."""
        if self.file.family == AF_UNIX and self.file.type == SOCK_DGRAM and self.name:
            retry = after(RETRY_NS)
            return Wait(deadline=min(retry, deadline) if deadline else retry, restart=restart)
        return Wait(writable=self.file.host, deadline=deadline, restart=restart)

    def finish(self) -> None:
        """See Transfer."""
        for host in self.stand_ins:
            os.close(host)
        self.stand_ins = []

    def _later(self) -> Blocking:
        if self.file.family == AF_UNIX and self.file.type == SOCK_DGRAM and self.name:
            return self._retrying()
        return super()._later()

    def _retrying(self) -> Blocking:
        deadline = after(self.timeout) if self.timeout else FOREVER
        self.file.hold()
        try:
            while True:
                yield self.wait(deadline, not self.timeout)
                try:
                    return self.step()
                except BlockingIOError:
                    if deadline and after(0) >= deadline:
                        raise
        finally:
            self.finish()
            self.file.drop()


class Receiving(Transfer):
    """recv, recvfrom, recvmsg. The guest's memory has the data when `step` returns; the rest stands in the fields."""

    def __init__(
        self, task: "Task", file: SocketFile, vectors: list[tuple[int, int]], flags: int, control_room: int = 0
    ) -> None:
        super().__init__(task, file, vectors, flags)
        self.timeout = file.receive_timeout
        self.control_room = min(control_room, CONTROL_MAX)
        self.address = self.control = b""
        self.out_flags = 0

    def step(self) -> int:
        """See Transfer."""
        flags = self.flags & ~(MSG_WAITALL | MSG_CMSG_CLOEXEC)
        if self.file.type != SOCK_STREAM:
            return self._receive(min(self.total, DATAGRAM_MAX), flags).size
        wanted = self.flags & MSG_WAITALL and not self.flags & MSG_OOB
        if self.flags & MSG_PEEK:
            return self._peek(flags, all_of_it=bool(wanted))
        while True:
            size = min(self.total - self.done, PIECE)
            try:
                received = self._receive(size, flags)
            except BlockingIOError:
                if self.done and not wanted:
                    return self.done
                raise
            self.done += len(received.data) or received.size  # MSG_TRUNC on a stream throws the data away
            if self.done >= self.total or not received.size or received.control:
                return self.done
            if not wanted and (received.size < size or flags & MSG_OOB):
                return self.done

    def _receive(self, size: int, flags: int) -> host_sockets.Received:
        received = host_sockets.receive(self.file.host, size, flags, control_size=self.control_room)
        if not (flags & MSG_TRUNC and self.file.type == SOCK_STREAM and self.file.family != AF_UNIX):
            scatter(self.task, self.vectors, received.data, self.done)
        self.address = received.address
        self.out_flags = received.flags
        if received.control:
            close_on_exec = bool(self.flags & MSG_CMSG_CLOEXEC)
            self.control, cut = rights.incoming(self.task, received.control, close_on_exec=close_on_exec)
            self.control = self.control[: self.control_room]
            if cut:
                self.out_flags |= rights.MSG_CTRUNC
            self.control_room = 0
        return received

    def _peek(self, flags: int, *, all_of_it: bool) -> int:
        wanted = min(self.total, PIECE)
        received = self._receive(wanted, flags)
        if all_of_it and 0 < len(received.data) < wanted and not self._ended():
            raise BlockingIOError(errno.EAGAIN, "")
        return len(received.data)

    def _ended(self) -> bool:
        poller = select.poll()
        poller.register(self.file.host, select.POLLRDHUP)
        return bool(poller.poll(0))

    def wait(self, deadline: int, restart: bool) -> Wait:
        """See Transfer."""
        if self.flags & MSG_PEEK and self.flags & MSG_WAITALL:
            retry = after(RETRY_NS)  # there is something to read already: the host would not let us sleep
            return Wait(deadline=min(retry, deadline) if deadline else retry, restart=restart)
        return Wait(readable=self.file.host, deadline=deadline, restart=restart)


def store_message(task: "Task", address: int, message: Message, receiving: Receiving) -> None:
    """Store what recvmsg(2) returns besides the data."""
    if message.name:
        task.write(message.name, receiving.address[: message.name_length])
        task.write(address + NAME_LENGTH_AT, pack("<I", len(receiving.address)))
    if receiving.control:
        task.write(message.control, receiving.control)
    flags = receiving.out_flags | receiving.flags & MSG_CMSG_CLOEXEC
    task.write(address + CONTROL_LENGTH_AT, pack("<Qi", len(receiving.control), flags))


def first_int(value: bytes) -> int:
    """The int at the start of an option's value; raises EINVAL."""
    if len(value) < 4:
        raise OSError(errno.EINVAL, "")
    number: int = unpack_from("<i", value)[0]
    return number

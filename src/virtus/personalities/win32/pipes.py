"""Pipes: anonymous ones, which are the host's, and named ones, which are sockets that listen under a name.

A named pipe's server end listens from its making on, with room for as many clients as it has instances that wait, so
that one client more is told ERROR_PIPE_BUSY; accepting is done when the server first uses the end. Names lie in the
host's abstract socket names of the box's network, and under a word that processes of one program share. (Microsoft:
Named Pipes, CreateNamedPipe, CreatePipe; Linux: unix(7).)
"""

import array
import ctypes
import errno
import fcntl
import hashlib
import os
import secrets
import socket
import struct
import termios
import time
from typing import Final

from virtus.personalities.win32 import completion, descriptors, errors, file_objects, state
from virtus.personalities.win32.completion import of_overlapped
from virtus.personalities.win32.file_objects import GENERIC_READ, GENERIC_WRITE, INVALID, TYPE_PIPE, File, error_of
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

PREFIX: Final = "\\PIPE\\"
OVERLAPPED, FIRST_INSTANCE = 0x4000_0000, 0x8_0000
INBOUND, OUTBOUND, DUPLEX = 1, 2, 3
TYPE_MESSAGE, READ_MESSAGE, NO_WAIT = 4, 2, 1
UNLIMITED: Final = 255
LONGEST_NAME: Final = 256
LONGEST_MESSAGE: Final = 1 << 20
BUFFER: Final = 4096
USE_DEFAULT, WAIT_FOREVER = 0, 0xFFFF_FFFF
DEFAULT_WAIT_MS: Final = 50
CLIENT_END, SERVER_END = 0, 1
ACCEPTS: Final = 0x1_0000
"""Of the flags in /proc/net/unix: the socket listens (net/unix/af_unix.c, __SO_ACCEPTCON)."""
POLL_NS: Final = 10_000_000


class NamedPipe(File):
    """One end of a named pipe. A server's end that nobody is connected to has the descriptor that listens."""

    def __init__(self, fd: int, name: str, *, server: bool, messages: bool, overlapped: bool, access: int) -> None:
        super().__init__(fd, "", access, overlapped=overlapped)
        self.name, self.server, self.messages = name, server, messages
        self.connected = not server
        self.no_wait = False
        self.limit = UNLIMITED
        self.shared: Server | None = None

    @property
    def kind(self) -> int:
        """FILE_TYPE_PIPE."""
        return TYPE_PIPE

    def prepare(self) -> int:
        """Take the client that has come."""
        error = accept(self)
        return 0 if error == errors.ERROR_PIPE_CONNECTED else error

    def receive(self, size: int, offset: int | None) -> bytes | int:
        """Of a message what fits; its rest stays."""
        if self.rest:
            data, self.rest = self.rest[:size], self.rest[size:]
            return data
        if not self.messages:
            return super().receive(size, offset)
        try:
            data = os.read(self.fd, LONGEST_MESSAGE)
        except OSError as failed:
            return error_of(failed, write=False)
        if not data:
            return errors.ERROR_BROKEN_PIPE
        self.rest = data[size:]
        return data[:size]

    def send(self, data: bytes, offset: int | None) -> int:
        """A whole message."""
        error = self.prepare()
        return error or super().send(data, offset)

    def closed(self) -> None:
        """With its last handle the end goes, and an instance that waited for a client waits no more."""
        super().closed()
        if self.handles <= 0 and self.shared is not None:
            self.shared.leave(self)


class Server:
    """A name's instances that wait for clients, on one socket that listens."""

    def __init__(self, names: "Names", name: str, *, messages: bool) -> None:
        self.names, self.name, self.messages = names, name, messages
        kind = socket.SOCK_SEQPACKET if messages else socket.SOCK_STREAM
        self.socket: socket.socket | None = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        self.socket.bind(names.address(name))
        self.socket.setblocking(False)
        self.free: list[NamedPipe] = []
        self.instances = 0

    def join(self, end: NamedPipe) -> None:
        """One more instance waits; its descriptor listens."""
        if self.socket is None:
            fresh = Server(self.names, self.name, messages=self.messages)
            self.socket = fresh.socket
        assert self.socket is not None
        self.free.append(end)
        self.socket.listen(len(self.free) - 1)  # a queue for n holds n + 1 (unix(7): the backlog is exceeded, not met)
        end.fd = os.dup(self.socket.fileno()) if end.fd < 0 else os.dup2(self.socket.fileno(), end.fd, False)

    def leave(self, end: NamedPipe) -> None:
        """An instance is connected, or closed."""
        if end in self.free:
            self.free.remove(end)
        if not end.handles:
            self.instances -= 1
            if not self.instances:
                self.names.servers.pop(self.name, None)
        if self.socket is not None:
            if self.free:
                self.socket.listen(len(self.free) - 1)
            else:
                self.socket.close()
                self.socket = None


class Names:
    """The process's named pipes. `word` keeps programs apart that share the host's network; children get it."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}
        self.word = secrets.token_hex(8)
        self.count = 0

    def address(self, name: str) -> bytes:
        """Where a name is listened for: it counts whatever its case; a long one is told by its digest."""
        return b"\0virtus-pipe-" + self.word.encode() + hashlib.sha256(name.upper().encode()).hexdigest()[:32].encode()


def name_of(path: str) -> str | None:
    """The name of a pipe of this machine in a path; None for any other path."""
    path = path.replace("/", "\\")
    for start in ("\\\\.", "\\\\?", "\\??", "\\DEVICE\\NAMEDPIPE"):
        if path.upper().startswith(start + PREFIX):
            return path[len(start) + len(PREFIX) :]
    return None


def accept(end: NamedPipe) -> int:
    """Connect a server's end with a client that has come: 0, or ERROR_PIPE_CONNECTED, _LISTENING or _NO_DATA."""
    if end.connected:
        return errors.ERROR_PIPE_CONNECTED
    try:
        with socket.socket(fileno=os.dup(end.fd)) as listening:
            connection, _ = listening.accept()
    except BlockingIOError:
        return errors.ERROR_PIPE_LISTENING
    except OSError:
        return errors.ERROR_NO_DATA
    with connection:
        os.dup2(connection.fileno(), end.fd, False)
        os.set_blocking(end.fd, True)
    end.connected = True
    if end.shared is not None:
        end.shared.leave(end)
    return 0


def connect(thread: Thread, name: str, access: int, *, overlapped: bool, inheritable: bool = False) -> int:
    """The client's end, as CreateFile gives it."""
    names = state.of(thread.process, Names)
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
        with socket.socket(socket.AF_UNIX, kind) as client:
            client.setblocking(False)
            try:
                client.connect(names.address(name))
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:  # a socket of the other kind may have the name
                    continue
                full = error.errno == errno.EAGAIN
                return thread.fail(errors.ERROR_PIPE_BUSY if full else errors.of_errno(error.errno or 0), INVALID)
            fd = client.detach()
            os.set_blocking(fd, True)
            messages = kind == socket.SOCK_SEQPACKET
            end = NamedPipe(fd, name, server=False, messages=messages, overlapped=overlapped, access=access)
            thread.last_error = errors.ERROR_SUCCESS
            thread.engine.wake()
            return file_objects.add(thread, end, inheritable=inheritable)
    busy = name.upper() in names.servers
    return thread.fail(errors.ERROR_PIPE_BUSY if busy else errors.ERROR_FILE_NOT_FOUND, INVALID)


def create(thread: Thread, name: str, mode: int, pipe_mode: int, limit: int, *, inheritable: bool) -> int:
    """A server's end: a handle, or INVALID with the last error set."""
    if not name or len(name) > LONGEST_NAME or not mode & DUPLEX or not 1 <= limit <= UNLIMITED:
        return thread.fail(errors.ERROR_INVALID_PARAMETER if name else errors.ERROR_INVALID_NAME, INVALID)
    names = state.of(thread.process, Names)
    server = names.servers.get(name.upper())
    messages = bool(pipe_mode & TYPE_MESSAGE)
    if server is not None:
        if mode & FIRST_INSTANCE or server.messages != messages:
            return thread.fail(errors.ERROR_ACCESS_DENIED, INVALID)
        if server.instances >= limit and limit != UNLIMITED:
            return thread.fail(errors.ERROR_PIPE_BUSY, INVALID)
    access = (GENERIC_READ if mode & INBOUND else 0) | (GENERIC_WRITE if mode & OUTBOUND else 0)
    end = NamedPipe(-1, name, server=True, messages=messages, overlapped=bool(mode & OVERLAPPED), access=access)
    end.no_wait, end.limit = bool(pipe_mode & NO_WAIT), limit
    try:
        if server is None:
            server = names.servers[name.upper()] = Server(names, name.upper(), messages=messages)
        server.join(end)
    except OSError as error:
        names.servers.pop(name.upper(), None)
        taken = error.errno == errno.EADDRINUSE
        return thread.fail(errors.ERROR_ACCESS_DENIED if taken else errors.of_errno(error.errno or 0), INVALID)
    server.instances += 1
    end.shared = server
    thread.last_error = errors.ERROR_SUCCESS
    return file_objects.add(thread, end, inheritable=inheritable)


def _create(thread: Thread, text: Text, path: int, mode: int, pipe_mode: int, limit: int, security: int) -> int:
    name = name_of(text.read(thread.memory, path))
    if name is None:
        return thread.fail(errors.ERROR_INVALID_NAME, INVALID)
    inherit = bool(security and thread.memory.u32(security + 16))
    return create(thread, name, mode, pipe_mode, limit, inheritable=inherit)


@api("HANDLE CreateNamedPipeW(LPCWSTR name, DWORD mode, DWORD pipe_mode, DWORD limit, DWORD out_size, DWORD in_size,"
     " DWORD timeout, LPVOID security)", "kernel32", "kernelbase")  # fmt: skip
def create_named_pipe_w(
    thread: Thread, name: int, mode: int, pipe_mode: int, limit: int, out_size: int, in_size: int, timeout: int,
    security: int,
) -> int:  # fmt: skip
    """A server's end of a named pipe, of its first instance or of one more."""
    return _create(thread, WIDE, name, mode, pipe_mode, limit, security)


@api("HANDLE CreateNamedPipeA(LPCSTR name, DWORD mode, DWORD pipe_mode, DWORD limit, DWORD out_size, DWORD in_size,"
     " DWORD timeout, LPVOID security)", "kernel32", "kernelbase")  # fmt: skip
def create_named_pipe_a(
    thread: Thread, name: int, mode: int, pipe_mode: int, limit: int, out_size: int, in_size: int, timeout: int,
    security: int,
) -> int:  # fmt: skip
    """A server's end of a named pipe, of its first instance or of one more."""
    return _create(thread, ANSI, name, mode, pipe_mode, limit, security)


@api("BOOL CreatePipe(HANDLE* read, HANDLE* write, LPVOID security, DWORD size)", "kernel32", "kernelbase")
def create_pipe(thread: Thread, read: int, write: int, security: int, size: int) -> int:
    """An anonymous pipe: what is written to one end is read from the other."""
    inherit = bool(security and thread.memory.u32(security + 16))
    try:
        reader, writer = os.pipe()
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    for address, fd, access in ((read, reader, GENERIC_READ), (write, writer, GENERIC_WRITE)):
        thread.memory.set_u64(address, file_objects.add(thread, File(fd, access=access), inheritable=inherit))
    return 1


def _server(thread: Thread, handle: int) -> NamedPipe | None:
    found = thread.process.handles.get(handle)
    return found if isinstance(found, NamedPipe) and found.server else None


@api("BOOL ConnectNamedPipe(HANDLE pipe, LPOVERLAPPED overlapped)", "kernel32", "kernelbase")
def connect_named_pipe(thread: Thread, pipe: int, overlapped: int) -> int:
    """Wait for a client; ERROR_PIPE_CONNECTED for one that has come already."""
    end = _server(thread, pipe)
    if end is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE if not thread.process.handles.get(pipe) else 1)
    if not end.connected and end.shared is not None and end not in end.shared.free:
        try:
            end.shared.join(end)  # it was disconnected, and serves the next one
        except OSError as error:
            return thread.fail(errors.of_errno(error.errno or 0))
    found = accept(end)
    if found != errors.ERROR_PIPE_LISTENING:
        return thread.fail(found or errors.ERROR_PIPE_CONNECTED)
    if end.no_wait:
        return thread.fail(errors.ERROR_PIPE_LISTENING)
    if end.overlapped and overlapped:

        def attempt() -> tuple[int, int] | None:
            found = accept(end)
            if found == errors.ERROR_PIPE_LISTENING:
                return None
            return 0, 0 if found in (0, errors.ERROR_PIPE_CONNECTED) else found

        begun = completion.start(thread, end, of_overlapped(thread, overlapped), attempt, write=False)
        return thread.fail(begun) if begun else 1
    while accept(end) == errors.ERROR_PIPE_LISTENING:
        descriptors.wait(thread, end.fd, write=False)
    return 1


@api("BOOL DisconnectNamedPipe(HANDLE pipe)", "kernel32", "kernelbase")
def disconnect_named_pipe(thread: Thread, pipe: int) -> int:
    """Send the client away; what it has not read is lost."""
    end = _server(thread, pipe)
    if end is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if end.connected:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, end.fd, False)
        os.close(null)
        end.connected, end.rest = False, b""
    return 1


def _waiting(fd: int) -> int:
    """Bytes that a pipe's end could read."""
    size = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, size)
    return size[0]


def _hung_up(fd: int) -> bool:
    return descriptors.ready(fd, write=False)


@api("BOOL PeekNamedPipe(HANDLE pipe, LPVOID buffer, DWORD size, DWORD* read, DWORD* available, DWORD* left)",
     "kernel32", "kernelbase")  # fmt: skip
def peek_named_pipe(thread: Thread, pipe: int, buffer: int, size: int, read: int, available: int, left: int) -> int:
    """What is there, which stays there. Of an anonymous pipe only how much: the host shows no more."""
    found = file_objects.of(thread, pipe)
    if found is None or found.kind != TYPE_PIPE:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if isinstance(found, NamedPipe) and accept(found) not in (0, errors.ERROR_PIPE_CONNECTED):
        return thread.fail(errors.ERROR_BAD_PIPE)
    data = found.rest
    try:
        count = len(data) + _waiting(found.fd)
        if buffer and size > len(data) and count:
            data += _peek(found.fd, size - len(data))
    except OSError as error:
        return thread.fail(error_of(error, write=False))
    if not count and _hung_up(found.fd):
        return thread.fail(errors.ERROR_BROKEN_PIPE)
    data = data[:size] if buffer else b""
    thread.memory.write(buffer, data)
    for address, value in ((read, len(data)), (available, count), (left, 0)):
        if address:
            thread.memory.set_u32(address, value)
    return 1


def _peek(fd: int, size: int) -> bytes:
    """What is next; raises OSError. A pipe's bytes are copied with tee(2), since it knows no other way to look."""
    try:
        with socket.socket(fileno=os.dup(fd)) as end:
            return end.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError as error:
        if error.errno != errno.ENOTSOCK:
            raise
    reader, writer = os.pipe()
    try:
        copied = ctypes.CDLL(None, use_errno=True).tee(fd, writer, ctypes.c_size_t(min(size, 65536)), 2)
        return os.read(reader, copied) if copied > 0 else b""
    finally:
        os.close(reader)
        os.close(writer)


@api("BOOL SetNamedPipeHandleState(HANDLE pipe, DWORD* mode, DWORD* count, DWORD* timeout)", "kernel32", "kernelbase")
def set_named_pipe_handle_state(thread: Thread, pipe: int, mode: int, count: int, timeout: int) -> int:
    """Whether messages are kept apart in reading, and whether operations wait."""
    found = file_objects.of(thread, pipe)
    if found is None or found.kind != TYPE_PIPE:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if mode:
        value = thread.memory.u32(mode)
        if value & ~(READ_MESSAGE | NO_WAIT) or (value & READ_MESSAGE and not found.messages):
            return thread.fail(errors.ERROR_INVALID_PARAMETER)
        if isinstance(found, NamedPipe):
            found.no_wait = bool(value & NO_WAIT)
    return 1


@api("BOOL GetNamedPipeHandleStateW(HANDLE pipe, DWORD* mode, DWORD* instances, DWORD* count, DWORD* timeout,"
     " LPWSTR user, DWORD size)", "kernel32", "kernelbase")  # fmt: skip
def get_named_pipe_handle_state_w(
    thread: Thread, pipe: int, mode: int, instances: int, count: int, timeout: int, user: int, size: int
) -> int:
    """How it reads, and how many instances there are."""
    found = file_objects.of(thread, pipe)
    if found is None or found.kind != TYPE_PIPE:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    shared = found.shared if isinstance(found, NamedPipe) else None
    waits = isinstance(found, NamedPipe) and found.no_wait
    for address, value in (
        (mode, (READ_MESSAGE if found.messages else 0) | waits), (instances, shared.instances if shared else 1),
        (count, 0), (timeout, 0),
    ):  # fmt: skip
        if address:
            thread.memory.set_u32(address, value)
    return 1


@api("BOOL GetNamedPipeInfo(HANDLE pipe, DWORD* flags, DWORD* out_size, DWORD* in_size, DWORD* limit)", "kernel32",
     "kernelbase")  # fmt: skip
def get_named_pipe_info(thread: Thread, pipe: int, flags: int, out_size: int, in_size: int, limit: int) -> int:
    """Which end it is, and of what kind."""
    found = file_objects.of(thread, pipe)
    if found is None or found.kind != TYPE_PIPE:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    server = isinstance(found, NamedPipe) and found.server
    most = found.limit if isinstance(found, NamedPipe) else 1
    kind = (SERVER_END if server else CLIENT_END) | (TYPE_MESSAGE if found.messages else 0)
    for address, value in ((flags, kind), (out_size, BUFFER), (in_size, BUFFER), (limit, most)):
        if address:
            thread.memory.set_u32(address, value)
    return 1


def listens(process: Process, name: str) -> bool | None:
    """Whether a client would be served; None where no pipe has the name."""
    names = state.of(process, Names)
    address = "@" + names.address(name)[1:].decode()
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
            found = [line.split() for line in table if line.rstrip().endswith(address)]
    except OSError:
        found = []
    if any(int(words[3], 16) & ACCEPTS for words in found):
        return True
    return False if found or name.upper() in names.servers else None


def _wait_named(thread: Thread, text: Text, path: int, milliseconds: int) -> int:
    name = name_of(text.read(thread.memory, path))
    if name is None:
        return thread.fail(errors.ERROR_INVALID_NAME)
    wait = DEFAULT_WAIT_MS if milliseconds == USE_DEFAULT else milliseconds
    deadline = None if wait == WAIT_FOREVER else time.monotonic_ns() + wait * 1_000_000
    while not (found := listens(thread.process, name)):
        if found is None:
            return thread.fail(errors.ERROR_FILE_NOT_FOUND)
        now = time.monotonic_ns()
        if deadline is not None and now >= deadline:
            return thread.fail(121)  # ERROR_SEM_TIMEOUT
        thread.engine.wait(lambda: False, now + POLL_NS)
    return 1


@api("BOOL WaitNamedPipeW(LPCWSTR name, DWORD milliseconds)", "kernel32", "kernelbase")
def wait_named_pipe_w(thread: Thread, name: int, milliseconds: int) -> int:
    """Until an instance waits for a client."""
    return _wait_named(thread, WIDE, name, milliseconds)


@api("BOOL WaitNamedPipeA(LPCSTR name, DWORD milliseconds)", "kernel32", "kernelbase")
def wait_named_pipe_a(thread: Thread, name: int, milliseconds: int) -> int:
    """Until an instance waits for a client."""
    return _wait_named(thread, ANSI, name, milliseconds)


def _peer(thread: Thread, pipe: int, result: int) -> int:
    found = thread.process.handles.get(pipe)
    if not isinstance(found, NamedPipe) or not found.connected:
        return thread.fail(errors.ERROR_PIPE_NOT_CONNECTED)
    try:
        with socket.socket(fileno=os.dup(found.fd)) as end:
            ident = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    except OSError as error:
        return thread.fail(error_of(error, write=False))
    thread.memory.set_u32(result, thread.process.ident if ident == os.getpid() else ident)
    return 1


@api("BOOL GetNamedPipeClientProcessId(HANDLE pipe, ULONG* process)", "kernel32", "kernelbase")
def get_named_pipe_client_process_id(thread: Thread, pipe: int, process: int) -> int:
    """Who is at the other end."""
    return _peer(thread, pipe, process)


@api("BOOL GetNamedPipeServerProcessId(HANDLE pipe, ULONG* process)", "kernel32", "kernelbase")
def get_named_pipe_server_process_id(thread: Thread, pipe: int, process: int) -> int:
    """Who is at the other end."""
    return _peer(thread, pipe, process)


def anonymous_name(process: Process) -> str:
    """A name for a pipe that is opened through its server's handle alone."""
    names = state.of(process, Names)
    names.count += 1
    return f"anonymous\\{os.getpid()}\\{names.count}"

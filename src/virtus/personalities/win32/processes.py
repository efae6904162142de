"""Starting programs: a child is a process of the host with an engine of its own, in the same box.

(Microsoft: CreateProcess.) What a child gets is in `inheritance.py`. A program is looked for as Windows does it, and
must be a Windows program: Linux programs and command scripts are refused with ERROR_BAD_EXE_FORMAT.
"""

import fcntl
import json
import os
import signal
import struct
import sys
import threading
from typing import Any, Final, NoReturn

from virtus.personalities.win32 import console_control, descriptors, environment, errors, inheritance, paths, state
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.pipes import Names
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

DEBUG_PROCESS, SUSPENDED, NEW_GROUP, UNICODE_ENVIRONMENT = 0x3, 0x4, 0x200, 0x400
EXTENDED_STARTUP: Final = 0x8_0000
USE_STREAMS: Final = 0x100
STARTUP: Final = struct.Struct("<I4xQQQ8IHH4xQQQQ")
"""STARTUPINFO: size, reserved, desktop, title, eight numbers (the last is flags), show, cbReserved2, four pointers."""
LONGEST_COMMAND: Final = 32_767
"""Characters of a command line (Microsoft: CreateProcess)."""
SIGNAL_CODES: Final = {signal.SIGSEGV: 0xC000_0005, signal.SIGILL: 0xC000_001D, signal.SIGFPE: 0xC000_0094,
                       signal.SIGABRT: 0xC000_0409, signal.SIGINT: 0xC000_013A}  # fmt: skip
# PROC_THREAD_ATTRIBUTE_* (winbase.h: number, and that it is an input)
ATTRIBUTE_HANDLE_LIST, ATTRIBUTE_JOB_LIST, ATTRIBUTE_PARENT = 0x2_0002, 0x2_000D, 0x2_0000
LIST_HEADER: Final = struct.Struct("<IIQ")
LIST_ENTRY: Final = struct.Struct("<QQQ")
MOST_ATTRIBUTES: Final = 64
EXECUTABLE: Final = b"MZ"
_spawning = threading.Lock()


class Child:
    """A process that this one has started, or has a handle of."""

    def __init__(self, process: Process, pid: int, report: int, go: int) -> None:
        self.pid = pid
        self._report, self._go = report, go
        self._lock = threading.Lock()
        self._killed: int | None = None
        self._code: int | None = None
        self.jobs: list[Any] = []
        engine = process.engine

        def ended() -> bool:
            if self.exit_code is None:
                return False
            for job in list(self.jobs):
                job.ended(self)
            engine.wake()
            return True

        descriptors.of(process).add(descriptors.Waiting(report, False, ended))

    @property
    def exit_code(self) -> int | None:
        """Windows' exit code; None while it runs."""
        with self._lock:
            if self._code is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._code = self._read(status)
            return self._code

    def _read(self, status: int) -> int:
        if self._killed is not None:
            return self._killed
        os.set_blocking(self._report, False)
        try:
            told = os.read(self._report, 4)
        except BlockingIOError:
            told = b""
        if len(told) == 4:
            return int.from_bytes(told, "little")
        if os.WIFSIGNALED(status):
            return SIGNAL_CODES.get(signal.Signals(os.WTERMSIG(status)), 1)
        return os.WEXITSTATUS(status)

    def signalled(self, thread: Thread) -> bool:
        """Whether it has ended."""
        return self.exit_code is not None

    def acquire(self, thread: Thread) -> bool | None:
        """Nothing changes."""
        return None

    def resume(self) -> int:
        """Let a child that was started suspended begin; the count before."""
        with self._lock:
            if self._go < 0:
                return 0
            os.close(self._go)
            self._go = -1
            return 1

    def terminate(self, status: int) -> None:
        """End it at once with an exit code."""
        with self._lock:
            if self._code is None and self._killed is None:
                self._killed = status & 0xFFFF_FFFF
                os.kill(self.pid, signal.SIGKILL)


class FirstThread:
    """A child's first thread, as far as the parent may do something with it."""

    def __init__(self, child: Child) -> None:
        self.child, self.ident = child, child.pid
        self.resume = child.resume
        self.signalled, self.acquire = child.signalled, child.acquire


class Children:
    """The processes that this one has started, by number."""

    def __init__(self) -> None:
        self.by_ident: dict[int, Child] = {}


class CannotStart(Exception):
    """`error` is Windows' number."""

    def __init__(self, error: int) -> None:
        super().__init__(error)
        self.error = error


def program_of(process: Process, application: str | None, line: str) -> str:
    """The host path of the program to start; raises CannotStart."""
    if application is not None:
        return _program(process, application) or _missing()
    if line.startswith('"'):
        candidates = [line[1:].partition('"')[0]]
    else:  # "C:\Program Files\tool x" may be "C:\Program", or any longer part that ends before a blank
        ends = [place for place, character in enumerate(line) if character in " \t"] + [len(line)]
        candidates = [line[:end] for end in ends if line[:end].strip()]
    for candidate in candidates:
        name = candidate.rpartition("\\")[2].rpartition("/")[2]
        found = _search(process, candidate if "." in name else candidate + ".exe")
        if found:
            return found
    return _missing()


def _missing() -> NoReturn:
    raise CannotStart(errors.ERROR_FILE_NOT_FOUND)


def _program(process: Process, name: str) -> str:
    try:
        path = paths.to_host(process, name)
    except paths.BadPath:
        return ""
    return path if os.path.isfile(path) else ""


def _search(process: Process, name: str) -> str:
    """Beside the program, in the current directory, along PATH (Microsoft: CreateProcess, lpApplicationName)."""
    if "\\" in name or "/" in name or name[1:2] == ":":
        return _program(process, name)
    modules = getattr(process, "modules", None)
    directories = [] if modules is None else [paths.to_windows(modules.directory)]
    directories += [process.directory, *(environment.value_of(process, "PATH") or "").split(";")]
    return next((found for each in directories if each and (found := _program(process, each + "\\" + name))), "")


def command() -> list[str]:
    """How a process of ours is started: as this one was, but for program and arguments."""
    own = sys.orig_argv
    module = "virtus.techniques.windows_process"
    if module in own:
        return [*own[: own.index(module) + 2]]
    return [sys.executable, "-P", "-m", module, "inprocess"]


def start(
    process: Process, program: str, line: str, words: dict[str, Any], handles: dict[int, Any], *, suspended: bool,
    group: bool,
) -> Child:  # fmt: skip
    """Start a program; `words` go to `inheritance` with what is added here. Raises CannotStart and OSError."""
    with open(program, "rb") as stream:
        if stream.read(2) != EXECUTABLE:
            raise CannotStart(errors.ERROR_BAD_EXE_FORMAT)
    opened: list[int] = []  # closed again, when the child has them
    streams = [_above(fd, opened) for fd in _streams(process, words["streams"])]
    described = [(handle, made) for handle, found in handles.items() if (made := inheritance.describe(found))]
    for _, made in described:
        made["fd"] = _above(made["fd"], opened)
    kept = {made["fd"] for _, made in described}
    report = begin = -1
    try:
        report, told = os.pipe()
        opened.append(told)
        go, begin = os.pipe() if suspended else (-1, -1)
        opened += [go] if suspended else []
        letter = os.memfd_create("child")
        opened.append(letter)
        kept |= {told, letter} | ({go} if suspended else set())
        numbers = {number for number, _ in described}
        words |= {
            "handles": described, "report": told, "go": go if suspended else None, "command_line": line,
            "streams": [number if number in numbers else None for number in words["streams"]],
            "pipes": state.of(process, Names).word, "ignores": state.of(process, console_control.Control).ignores,
        }  # fmt: skip
        data = json.dumps(words).encode()
        if os.write(letter, data) != len(data):
            raise CannotStart(errors.ERROR_NOT_ENOUGH_MEMORY)
        os.lseek(letter, 0, os.SEEK_SET)
        surroundings = {**os.environ, inheritance.VARIABLE: str(letter)}
        with _spawning:
            # Descriptors above the standard ones stay where they are: only these are handed on.
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)]
            actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in sorted(kept) if fd > 2]
            arguments = [*command(), program]
            if group:
                pid = os.posix_spawn(arguments[0], arguments, surroundings, file_actions=actions, setpgroup=0)
            else:
                pid = os.posix_spawn(arguments[0], arguments, surroundings, file_actions=actions)
    except BaseException:
        for fd in (report, begin):
            if fd >= 0:
                os.close(fd)
        raise
    finally:
        for fd in opened:
            os.close(fd)
    child = Child(process, pid, report, begin)
    state.of(process, Children).by_ident[pid] = child
    state.of(process, console_control.Control).children.add(pid)
    return child


def _above(fd: int, opened: list[int]) -> int:
    """The same file under a number that no standard stream of a child takes."""
    if fd > 2:
        return fd
    opened.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
    return opened[-1]


def _streams(process: Process, numbers: list[int]) -> list[int]:
    """The host's descriptors for a child's standard streams: of what the handles are of, else ours."""
    found = []
    for place, number in enumerate(numbers):
        fd = getattr(process.handles.get(number), "fd", -1)
        found.append(fd if isinstance(fd, int) and fd >= 0 else place)
    return found


def _attributes(thread: Thread, address: int) -> dict[int, bytes]:
    """A list made by InitializeProcThreadAttributeList: each attribute's value."""
    memory, found = thread.memory, {}
    room, count, _ = LIST_HEADER.unpack(memory.read(address, LIST_HEADER.size))
    for index in range(min(room, count, MOST_ATTRIBUTES)):
        number, value, size = LIST_ENTRY.unpack(memory.read(address + LIST_HEADER.size + index * LIST_ENTRY.size, 24))
        found[number] = memory.read(value, min(size, 1 << 16)) if number in (ATTRIBUTE_HANDLE_LIST, 0x2_000D) else b""
    return found


def _create(
    thread: Thread, text: Text, application: int, line: int, inherit: int, flags: int, block: int, directory: int,
    startup: int, result: int,
) -> int:  # fmt: skip
    process, memory = thread.process, thread.memory
    if flags & DEBUG_PROCESS:
        return thread.fail(errors.ERROR_NOT_SUPPORTED)
    name = text.read(memory, application) if application else None
    words = text.read(memory, line) if line else f'"{name}"'
    if (name is None and not line) or len(words) > LONGEST_COMMAND:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    fields = STARTUP.unpack(memory.read(startup, STARTUP.size))
    title, how, show, reserved_size, reserved = fields[3], fields[11], fields[12], fields[13], fields[14]
    streams = list(fields[15:18]) if how & USE_STREAMS else list(process.streams)
    handles = process.handles.inheritable() if inherit else {}
    attributes = _attributes(thread, memory.u64(startup + STARTUP.size)) if flags & EXTENDED_STARTUP else {}
    if ATTRIBUTE_HANDLE_LIST in attributes and inherit:
        listed = attributes[ATTRIBUTE_HANDLE_LIST]
        wanted = struct.unpack(f"<{len(listed) // 8}Q", listed[: len(listed) & ~7])
        handles = {number: found for number, found in handles.items() if number in wanted}
    variables = dict(process.environment)
    if block:
        variables = environment.read_block(thread, WIDE if flags & UNICODE_ENVIRONMENT else ANSI, block)
    try:
        where = paths.absolute(process, text.read(memory, directory)) if directory else process.directory
        if not os.path.isdir(paths.to_host(process, where)):
            return thread.fail(errors.ERROR_DIRECTORY)
        child = start(
            process,
            program_of(process, name, words),
            words,
            {
                "environment": variables, "directory": where, "streams": streams, "flags": how, "show": show,
                "title": text.read(memory, title) if title else "",
                "reserved": memory.read(reserved, reserved_size).hex() if reserved and inherit else "",
            },
            handles,
            suspended=bool(flags & SUSPENDED),
            group=bool(flags & NEW_GROUP),
        )  # fmt: skip
    except CannotStart as failed:
        return thread.fail(failed.error)
    except paths.BadPath as bad:
        return thread.fail(bad.error)
    except OSError as error:
        return thread.fail(errors.of_errno(error.errno or 0))
    for number in struct.unpack("<Q", attributes.get(ATTRIBUTE_JOB_LIST, b"")[:8].ljust(8, b"\0")):
        job = process.handles.get(number)
        if job is not None and hasattr(job, "assign"):
            job.assign(thread, child)
    first = FirstThread(child)
    memory.write(
        result,
        struct.pack("<QQII", process.handles.add(child), process.handles.add(first), child.pid, first.ident),
    )
    return 1


@api("BOOL CreateProcessW(LPCWSTR application, LPWSTR line, LPVOID process_security, LPVOID thread_security,"
     " BOOL inherit, DWORD flags, LPVOID environment, LPCWSTR directory, LPVOID startup, LPVOID result)", "kernel32",
     "kernelbase", note="Windows programs; no debugging; events and mutexes are not inherited")  # fmt: skip
def create_process_w(
    thread: Thread, application: int, line: int, process_security: int, thread_security: int, inherit: int,
    flags: int, environment: int, directory: int, startup: int, result: int,
) -> int:  # fmt: skip
    """Start a program."""
    return _create(thread, WIDE, application, line, inherit, flags, environment, directory, startup, result)


@api("BOOL CreateProcessA(LPCSTR application, LPSTR line, LPVOID process_security, LPVOID thread_security,"
     " BOOL inherit, DWORD flags, LPVOID environment, LPCSTR directory, LPVOID startup, LPVOID result)", "kernel32",
     "kernelbase", note="Windows programs; no debugging; events and mutexes are not inherited")  # fmt: skip
def create_process_a(
    thread: Thread, application: int, line: int, process_security: int, thread_security: int, inherit: int,
    flags: int, environment: int, directory: int, startup: int, result: int,
) -> int:  # fmt: skip
    """Start a program."""
    return _create(thread, ANSI, application, line, inherit, flags, environment, directory, startup, result)


@api("BOOL InitializeProcThreadAttributeList(LPVOID list, DWORD count, DWORD flags, SIZE_T *size)", "kernel32",
     "kernelbase")  # fmt: skip
def initialize_proc_thread_attribute_list(thread: Thread, list: int, count: int, flags: int, size: int) -> int:
    """An empty list, for which the caller has room; without one, how much it takes."""
    if flags or count > MOST_ATTRIBUTES:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    needed = LIST_HEADER.size + count * LIST_ENTRY.size
    room = thread.memory.u64(size)
    thread.memory.set_u64(size, needed)
    if not list or room < needed:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(list, LIST_HEADER.pack(count, 0, 0))
    return 1


@api("BOOL UpdateProcThreadAttribute(LPVOID list, DWORD flags, DWORD_PTR attribute, LPVOID value, SIZE_T size,"
     " LPVOID previous, SIZE_T *previous_size)", "kernel32", "kernelbase",
     note="obeyed are lists of handles and of jobs")  # fmt: skip
def update_proc_thread_attribute(
    thread: Thread, list: int, flags: int, attribute: int, value: int, size: int, previous: int, previous_size: int
) -> int:
    """Add an attribute, whose value must stay until the list is used."""
    memory = thread.memory
    room, count, rest = LIST_HEADER.unpack(memory.read(list, LIST_HEADER.size))
    if count >= room:
        return thread.fail(errors.ERROR_GEN_FAILURE)
    if attribute == ATTRIBUTE_PARENT:
        return thread.fail(errors.ERROR_NOT_SUPPORTED)
    memory.write(list + LIST_HEADER.size + count * LIST_ENTRY.size, LIST_ENTRY.pack(attribute, value, size))
    memory.write(list, LIST_HEADER.pack(room, count + 1, rest))
    return 1


@api("void DeleteProcThreadAttributeList(LPVOID list)", "kernel32", "kernelbase")
def delete_proc_thread_attribute_list(thread: Thread, list: int) -> None:
    """The list is the caller's memory; empty it."""
    try:
        thread.memory.set_u32(list + 4, 0)
    except AccessViolation:
        return  # as on Windows, where nothing of the list is looked at


@api("HANDLE OpenProcess(ACCESS_MASK access, BOOL inherit, DWORD ident)", "kernel32", "kernelbase",
     note="the process itself and its children")  # fmt: skip
def open_process(thread: Thread, access: int, inherit: int, ident: int) -> int:
    """A handle of a process by its number."""
    process = thread.process
    child = state.of(process, Children).by_ident.get(ident)
    found: Any = process if ident == process.ident else child
    if found is None or (child is not None and child.exit_code is not None):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    handle: int = process.handles.add(found, inheritable=bool(inherit))
    return handle


@api("DWORD GetProcessId(HANDLE process)", "kernel32", "kernelbase")
def get_process_id(thread: Thread, process: int) -> int:
    """Its number."""
    found = thread.process if process == (1 << 64) - 1 else thread.process.handles.get(process)
    if isinstance(found, Process):
        return found.ident
    return found.pid if isinstance(found, Child) else thread.fail(errors.ERROR_INVALID_HANDLE)

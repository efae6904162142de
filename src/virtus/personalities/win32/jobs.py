"""Job objects: children that are counted, limited in their end, and ended together.

A job has the children that were assigned to it, not what those start. (Microsoft: Job Objects.)
"""

import struct
from typing import Any, Final

from virtus.personalities.win32 import completion, errors, state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.processes import Child
from virtus.personalities.win32.synchronisation import Names
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text
from virtus.personalities.win32.waiting import lock

ACCOUNTING, BASIC_LIMIT, PROCESS_LIST, UI_RESTRICTIONS, PORT, ACCOUNTING_IO, EXTENDED_LIMIT = 1, 2, 3, 4, 7, 8, 9
CPU_RATE: Final = 15
LIMIT_KILL_ON_CLOSE: Final = 0x2000
BASIC_SIZE, EXTENDED_SIZE = 64, 144
SIZES: Final = {BASIC_LIMIT: BASIC_SIZE, EXTENDED_LIMIT: EXTENDED_SIZE, UI_RESTRICTIONS: 4, PORT: 16, CPU_RATE: 8}
LIMIT_FLAGS: Final = 16
"""Where the flags lie in the limits."""
MESSAGE_ALL_ENDED, MESSAGE_STARTED, MESSAGE_ENDED = 4, 6, 7
CURRENT_PROCESS: Final = (1 << 64) - 1


class Job:
    """One job."""

    def __init__(self, process: Process) -> None:
        self.children: list[Child] = []
        self.total = self.handles = 0
        self.limits = bytes(EXTENDED_SIZE)
        self.port: completion.Port | None = None
        self.key = 0
        self.owner = process
        self.thread: Thread | None = None

    @property
    def active(self) -> list[Child]:
        """Those that have not ended."""
        return [child for child in self.children if child.exit_code is None]

    def assign(self, thread: Thread, child: Child) -> None:
        """One more."""
        self.children.append(child)
        self.total += 1
        self.thread = thread
        child.jobs.append(self)
        self._tell(MESSAGE_STARTED, child.pid)

    def _tell(self, message: int, ident: int) -> None:
        if self.port is not None and self.thread is not None:
            completion.post(self.thread, self.port, self.key, ident, message, 0)

    def ended(self, child: Child) -> None:
        """A child has."""
        if child in self.children:
            self.children.remove(child)
            self._tell(MESSAGE_ENDED, child.pid)
            if not self.children:
                self._tell(MESSAGE_ALL_ENDED, 0)

    def terminate(self, status: int) -> None:
        """End all."""
        for child in self.active:
            child.terminate(status)

    def opened(self) -> None:
        """Another handle."""
        self.handles += 1

    def closed(self) -> None:
        """One handle less; with the last the children end where that is the job's limit."""
        self.handles -= 1
        if self.handles <= 0 and struct.unpack_from("<I", self.limits, LIMIT_FLAGS)[0] & LIMIT_KILL_ON_CLOSE:
            self.terminate(0)

    def forgotten(self) -> None:
        """The process ends, and with it all handles."""
        while self.handles > 0:
            self.closed()

    def signalled(self, thread: Thread) -> bool:
        """Jobs become signalled by time limits alone, which there are none of."""
        return False

    def acquire(self, thread: Thread) -> bool | None:
        """Nothing changes."""
        return None


def _job(thread: Thread, handle: int) -> Job | None:
    found = thread.process.handles.get(handle)
    return found if isinstance(found, Job) else None


def _create(thread: Thread, text: Text, security: int, name: int) -> int:
    process = thread.process
    known = text.read(thread.memory, name).removeprefix("Local\\").removeprefix("Global\\") if name else ""
    names = state.of(process, Names).objects
    with lock(process):
        found = names.get(known) if known else None
        if found is not None and not isinstance(found, Job):
            return thread.fail(errors.ERROR_INVALID_HANDLE)
        job = Job(process) if found is None else found
        if known:
            names[known] = job
    job.opened()
    if found is None:
        process.at_exit.append(job.forgotten)
    handle: int = process.handles.add(job, inheritable=bool(security and thread.memory.u32(security + 16)))
    thread.last_error = errors.ERROR_SUCCESS if found is None else errors.ERROR_ALREADY_EXISTS
    return handle


@api("HANDLE CreateJobObjectW(LPVOID security, LPCWSTR name)", "kernel32", "kernelbase",
     note="names are the process's own; a job has no grandchildren")  # fmt: skip
def create_job_object_w(thread: Thread, security: int, name: int) -> int:
    """A job without processes."""
    return _create(thread, WIDE, security, name)


@api("HANDLE CreateJobObjectA(LPVOID security, LPCSTR name)", "kernel32", "kernelbase",
     note="names are the process's own; a job has no grandchildren")  # fmt: skip
def create_job_object_a(thread: Thread, security: int, name: int) -> int:
    """A job without processes."""
    return _create(thread, ANSI, security, name)


@api("BOOL AssignProcessToJobObject(HANDLE job, HANDLE process)", "kernel32", "kernelbase")
def assign_process_to_job_object(thread: Thread, job: int, process: int) -> int:
    """Of a child. The process itself stays outside: its own end is nothing that it would have to be told."""
    found: Any = thread.process if process == CURRENT_PROCESS else thread.process.handles.get(process)
    target = _job(thread, job)
    if target is None or found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if isinstance(found, Process):
        return 1
    if not isinstance(found, Child):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if found.exit_code is not None:
        return thread.fail(errors.ERROR_ACCESS_DENIED)
    target.assign(thread, found)
    return 1


@api("BOOL TerminateJobObject(HANDLE job, UINT status)", "kernel32", "kernelbase")
def terminate_job_object(thread: Thread, job: int, status: int) -> int:
    """End its children."""
    found = _job(thread, job)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found.terminate(status)
    return 1


@api("BOOL SetInformationJobObject(HANDLE job, int kind, LPVOID data, DWORD size)", "kernel32", "kernelbase",
     note="of the limits, that children end with the job")  # fmt: skip
def set_information_job_object(thread: Thread, job: int, kind: int, data: int, size: int) -> int:
    """Limits, which are kept; and the port that is told of children."""
    found = _job(thread, job)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if kind not in SIZES:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if size < SIZES[kind]:
        return thread.fail(errors.ERROR_BAD_LENGTH)
    words = thread.memory.read(data, SIZES[kind])
    if kind in (BASIC_LIMIT, EXTENDED_LIMIT):
        found.limits = words + found.limits[len(words) :]
    elif kind == PORT:
        key, number = struct.unpack("<QQ", words)
        port = thread.process.handles.get(number)
        if not isinstance(port, completion.Port):
            return thread.fail(errors.ERROR_INVALID_HANDLE)
        found.port, found.key, found.thread = port, key, thread
    return 1


def _describe(job: Job, kind: int) -> bytes | None:
    active = job.active
    accounting = struct.pack("<4q4I", 0, 0, 0, 0, 0, job.total, len(active), 0)
    if kind == ACCOUNTING:
        return accounting
    if kind == ACCOUNTING_IO:
        return accounting + bytes(48)
    if kind == BASIC_LIMIT:
        return job.limits[:BASIC_SIZE]
    if kind == EXTENDED_LIMIT:
        return job.limits
    if kind == PROCESS_LIST:
        return struct.pack(f"<II{len(active)}Q", len(active), len(active), *(child.pid for child in active))
    return bytes(4) if kind == UI_RESTRICTIONS else None


@api("BOOL QueryInformationJobObject(HANDLE job, int kind, LPVOID data, DWORD size, DWORD *needed)", "kernel32",
     "kernelbase", note="times and transfers are not counted")  # fmt: skip
def query_information_job_object(thread: Thread, job: int, kind: int, data: int, size: int, needed: int) -> int:
    """Limits and children. The job of the calling process (no handle) is none, and without limits."""
    found = _job(thread, job) if job else Job(thread.process)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    stored = _describe(found, kind)
    if stored is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if needed:
        thread.memory.set_u32(needed, len(stored))
    if len(stored) > size:
        return thread.fail(errors.ERROR_MORE_DATA if kind == PROCESS_LIST else errors.ERROR_BAD_LENGTH)
    thread.memory.write(data, stored)
    return 1


@api("BOOL IsProcessInJob(HANDLE process, HANDLE job, BOOL *result)", "kernel32", "kernelbase")
def is_process_in_job(thread: Thread, process: int, job: int, result: int) -> int:
    """Whether a process belongs to a job, or to any."""
    found = thread.process if process == CURRENT_PROCESS else thread.process.handles.get(process)
    wanted = _job(thread, job) if job else None
    if found is None or (job and wanted is None):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    jobs = found.jobs if isinstance(found, Child) else []
    thread.memory.set_u32(result, int(wanted in jobs if wanted is not None else bool(jobs)))
    return 1

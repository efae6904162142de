"""execve(2): scripts, the ELF loader, and the stack a program starts on.

Sources: Linux fs/exec.c, fs/binfmt_elf.c and fs/binfmt_script.c for the order of things; System V ABI AMD64
supplement 3.4.1 for the initial stack. There is no vDSO: a guest address space holds nothing of the host.
"""

import errno
import mmap
import os
import stat
import struct
from typing import Final

from virtus.guests import elf
from virtus.isa.x86.layout import PAGE
from virtus.personalities.linux import identity_calls, lifecycle, limits_calls, paths, placement, randomness
from virtus.personalities.linux.abi.base import Abi
from virtus.personalities.linux.memory_calls import MAP_FIXED
from virtus.personalities.linux.results import NO_RESULT
from virtus.personalities.linux.table import Int, Word, call
from virtus.personalities.linux.task import Task

SCRIPT_LINE: Final = 256  # BINPRM_BUF_SIZE, include/uapi/linux/binfmts.h
MOST_INTERPRETERS: Final = 5  # fs/exec.c exec_binprm
ARGUMENT_PAGES_MAX: Final = 6 << 20  # the most that arguments may take (bprm_set_stack_limits: 3/4 of 8 MiB)
ARGUMENT_MAX: Final = 32 * PAGE  # MAX_ARG_STRLEN
RLIMIT_STACK: Final = 3
STACK_MAX: Final = 256 << 20
PROT_NONE: Final = 0
MAP_NORESERVE: Final = 0x4000
MAP_GROWSDOWN: Final = 0x100
AT_EMPTY_PATH: Final = 0x1000
COMM_BYTES: Final = 15
AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_BASE, AT_FLAGS, AT_ENTRY = 3, 4, 5, 6, 7, 8, 9
AT_UID, AT_EUID, AT_GID, AT_EGID, AT_PLATFORM, AT_CLKTCK = 11, 12, 13, 14, 15, 17
AT_SECURE, AT_RANDOM, AT_EXECFN = 23, 25, 31
FIXED_BASE: Final = 0x2A_AAAA_A000  # two thirds of 256 GiB: ELF_ET_DYN_BASE, arch/riscv/include/asm/elf.h


class Image:
    """An opened program: its host descriptor and what its headers say."""

    def __init__(self, host: int, path: str, abi: Abi) -> None:
        self.host, self.path = host, path
        size = os.fstat(host).st_size
        head = os.pread(host, PAGE, 0)
        if head[:4] != elf.MAGIC:
            raise OSError(errno.ENOEXEC, "")
        try:
            self.program = elf.parse(head, size)
        except elf.NotLoadable as error:
            raise OSError(errno.ENOEXEC, str(error)) from error
        if self.program.machine != abi.elf_machine or self.program.span[1] > abi.user_end:
            raise OSError(errno.ENOEXEC, "")

    def interpreter(self) -> str:
        """The path of the program interpreter, "" for a static program."""
        if self.program.interpreter is None:
            return ""
        offset, size = self.program.interpreter
        return os.fsdecode(os.pread(self.host, size, offset).split(b"\0", 1)[0])


def execute(task: Task, path: str, arguments: list[bytes], environment: list[bytes], host: int = -1) -> None:
    """Replace the task's program. Raises OSError before the point of no return; afterwards the process dies instead.

    `host` is a descriptor of the file when it is open already (execveat); it is not closed.
    """
    host = os.dup(host) if host >= 0 else _open(task, path)
    opened = [host]
    try:
        name = path
        script_path = path
        for _ in range(MOST_INTERPRETERS):
            line = os.pread(host, SCRIPT_LINE, 0)
            if line[:2] != b"#!":
                break
            interpreter, argument = script_line(line)
            arguments = [interpreter, *argument, os.fsencode(script_path), *arguments[1:]]
            script_path = os.fsdecode(interpreter)
            host = _open(task, script_path)
            opened.append(host)
        else:
            raise OSError(errno.ELOOP, "")
        abi = task.kernel.abi
        image = Image(host, script_path, abi)
        loader = None
        if image.program.interpreter is not None:
            loader_host = _open(task, image.interpreter())
            opened.append(loader_host)
            loader = Image(loader_host, image.interpreter(), abi)
        if (
            sum(map(len, arguments)) + sum(map(len, environment)) + 9 * len(arguments + environment)
            > ARGUMENT_PAGES_MAX
        ):
            raise OSError(errno.E2BIG, "")
        executable = os.readlink(f"self/fd/{host}", dir_fd=task.kernel.procfs)
        if executable.startswith("/proc/") or not executable.startswith("/"):
            executable = script_path
        _point_of_no_return(task)
        try:
            _load(task, image, loader, name, arguments, environment)
        except OSError as error:
            lifecycle.die(task, 11)  # SIGSEGV, as Linux when the new image cannot be set up
            raise ProgramLost from error
    finally:
        for descriptor in opened:
            os.close(descriptor)
    process = task.process
    process.executable = executable
    process.arguments, process.environment = arguments, environment
    process.has_execed = True
    task.name = os.path.basename(os.fsencode(path))[:COMM_BYTES]


class ProgramLost(Exception):
    """The process was ended because its new program could not be set up."""


def script_line(line: bytes) -> tuple[bytes, list[bytes]]:
    """Interpreter and at most one argument of a `#!` line (fs/binfmt_script.c); raises ENOEXEC."""
    end = line.find(b"\n")
    text = (line[2:end] if end >= 0 else line[2:]).split(b"\0", 1)[0].strip(b" \t")
    interpreter, _, argument = text.replace(b"\t", b" ").partition(b" ")
    if not interpreter or (end < 0 and not argument and len(line) == SCRIPT_LINE):
        raise OSError(errno.ENOEXEC, "")
    argument = argument.strip(b" ")
    return interpreter, [argument] if argument else []


def _open(task: Task, path: str) -> int:
    """Open a file for execution: it must be regular and executable for the task."""
    host = paths.open_host(task, path, os.O_RDONLY)
    try:
        status = os.fstat(host)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EACCES, "")
        credentials = task.credentials
        if credentials.fsuid == 0:
            allowed = status.st_mode & 0o111
        elif status.st_uid == credentials.fsuid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == credentials.fsgid or status.st_gid in credentials.groups:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            raise OSError(errno.EACCES, "")
    except OSError:
        os.close(host)
        raise
    return host


def _point_of_no_return(task: Task) -> None:
    """Leave the old program behind: other threads, the shared memory, handlers, close-on-exec descriptors."""
    lifecycle.end_other_threads(task)
    if task.memory.sharers > 1:
        fresh = task.context.fresh()
        old = task.context
        task.kernel.attach(task, fresh)
        old.kill()
        limits_calls.enforce_on_fresh(task)
    else:
        task.context.empty()
    lifecycle.leave_memory(task)
    task.descriptors = lifecycle.own_descriptors(task)
    task.descriptors.close_for_exec(task)
    task.process.actions = task.process.actions.copy()
    task.process.actions.reset_for_exec()
    task.alternate_stack = (0, 2, 0)
    task.clear_child_tid = 0
    task.robust_list = 0
    task.process.dumpable = 1
    task.credentials = identity_calls.after_exec(task.credentials)


def _map(task: Task, address: int, size: int, protection: int, flags: int, host: int = -1, offset: int = 0) -> int:
    result = placement.map_memory(task, address, size, protection, flags, host, offset)
    if -4095 <= result < 0:
        raise OSError(-result, "mapping a program")
    return result


def _load_image(task: Task, image: Image, base: int) -> int:
    """Map a program's segments; the bias that was added to its addresses. `base` is a hint for movable ones."""
    program = image.program
    low, high = program.span
    bias = 0
    if program.type == elf.ET_DYN:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        bias = _map(task, base, high - low, PROT_NONE, flags) - low
    for segment in program.segments:
        protection = _protection(segment.flags)
        start = (segment.address + bias) & -PAGE
        before = segment.address + bias - start
        in_file = segment.file_size + before if segment.file_size else 0
        if in_file:
            _map(task, start, in_file, protection, mmap.MAP_PRIVATE | MAP_FIXED, image.host, segment.offset - before)
        file_end = segment.address + bias + segment.file_size
        memory_end = segment.address + bias + segment.memory_size
        if memory_end > file_end or not in_file:
            page_end = -(-file_end // PAGE) * PAGE if in_file else start
            if in_file and segment.flags & elf.PF_W and page_end > file_end:
                task.write(file_end, bytes(page_end - file_end))  # to the page's end: loaders rely on it
            if memory_end > page_end:
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
                _map(task, page_end, memory_end - page_end, protection, flags)
    return bias


def _protection(flags: int) -> int:
    protection = 0
    if flags & elf.PF_R:
        protection |= mmap.PROT_READ
    if flags & elf.PF_W:
        protection |= mmap.PROT_WRITE
    if flags & elf.PF_X:
        protection |= mmap.PROT_EXEC
    return protection


def _load(
    task: Task, image: Image, loader: Image | None, path: str, arguments: list[bytes], environment: list[bytes]
) -> None:
    program = image.program
    abi = task.kernel.abi
    if abi.places:  # the same for each run: see `placement`
        base = FIXED_BASE if loader else 0
    else:
        base = 0x5555_0000_0000 + (randomness.bits(28) << 12) if loader else 0x7F00_0000_0000
    bias = _load_image(task, image, base)
    entry = program.entry + bias
    loader_bias = 0
    if loader is not None:
        loader_bias = _load_image(task, loader, 0)
        entry = loader.program.entry + loader_bias
    memory = task.memory
    memory.break_start = memory.break_end = program.span[1] + bias
    if not abi.places:
        memory.break_end = memory.break_start = memory.break_start + (randomness.bits(13) << 12)
    auxiliary = [
        (AT_PHDR, program.headers_at() + bias),
        (AT_PHENT, elf.PROGRAM_HEADER.size),
        (AT_PHNUM, program.header_count),
        (AT_PAGESZ, PAGE),
        (AT_BASE, loader_bias),
        (AT_FLAGS, 0),
        (AT_ENTRY, program.entry + bias),
        (AT_UID, task.credentials.uid),
        (AT_EUID, task.credentials.euid),
        (AT_GID, task.credentials.gid),
        (AT_EGID, task.credentials.egid),
        (AT_SECURE, 0),
        (AT_CLKTCK, 100),
    ]
    auxiliary += abi.auxiliary()
    abi.trampoline(task)
    stack = _map_stack(task, executable=program.executable_stack)
    pointer = build_stack(task, stack, os.fsencode(path), arguments, environment, auxiliary)
    abi.start(task.regs, entry, pointer)


def _map_stack(task: Task, *, executable: bool) -> int:
    """Map the main thread's stack; its top."""
    size = min(max(task.limit(RLIMIT_STACK), 128 << 10), STACK_MAX) & -PAGE
    abi = task.kernel.abi
    top = abi.user_end + PAGE - (16 << 20) & -(1 << 20)
    if not abi.places:
        top -= randomness.bits(22) << 12
    protection = mmap.PROT_READ | mmap.PROT_WRITE | (mmap.PROT_EXEC if executable else 0)
    _map(task, top - size, size, protection, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED)
    task.memory.stack_top = top
    return top


def build_stack(
    task: Task,
    top: int,
    path: bytes,
    arguments: list[bytes],
    environment: list[bytes],
    auxiliary: list[tuple[int, int]],
) -> int:
    """Write strings, auxiliary vector, environment and arguments; the stack pointer a program starts with."""
    memory = task.memory
    strings = bytearray()
    offsets: list[int] = []
    platform = task.kernel.abi.platform
    for text in (*arguments, *environment, path, platform or b""):
        offsets.append(len(strings))
        strings += text + b"\0"
    strings += os.urandom(16)
    start = (top - 8 - len(strings)) & -16
    places = [start + offset for offset in offsets]
    count = len(arguments)
    rows = [
        *auxiliary,
        (AT_RANDOM, start + len(strings) - 16),
        (AT_EXECFN, places[-2]),
        *([(AT_PLATFORM, places[-1])] if platform else []),
        (0, 0),
    ]
    words = [count, *places[:count], 0, *places[count : count + len(environment)], 0]
    task.process.auxiliary = b"".join(struct.pack("<QQ", key, value) for key, value in rows)
    block = struct.pack(f"<{len(words)}Q", *words) + task.process.auxiliary
    pointer = (start - len(block)) & -16
    task.write(pointer, block + bytes(start - pointer - len(block)) + strings)
    memory.arg_start = places[0]
    memory.arg_end = memory.env_start = places[count]
    memory.env_end = places[-2]
    return pointer


def _strings(task: Task, address: int) -> list[bytes]:
    """A NULL-terminated vector of strings."""
    texts: list[bytes] = []
    total = 0
    if not address:
        return texts
    while True:
        pointer = int.from_bytes(task.read(address, 8), "little")
        if not pointer:
            return texts
        try:
            texts.append(task.read_string(pointer, ARGUMENT_MAX))
        except OSError as error:
            raise OSError(errno.E2BIG if error.errno == errno.ENAMETOOLONG else error.errno, "") from None
        total += len(texts[-1]) + 9
        if total > ARGUMENT_PAGES_MAX:
            raise OSError(errno.E2BIG, "")
        address += 8


def _execute(task: Task, path: str, arguments: int, environment: int, host: int = -1) -> int:
    try:
        execute(task, path, _strings(task, arguments) or [b""], _strings(task, environment), host)
    except ProgramLost:
        pass  # the process is dead already
    return NO_RESULT


@call("execve", note="set-user-ID bits are ignored, as with no_new_privs")
def execve(task: Task, path: Word, arguments: Word, environment: Word) -> int:
    """execve(2)."""
    name = task.read_path(path)
    if not name:
        raise OSError(errno.ENOENT, "")
    return _execute(task, name, arguments, environment)


@call("execveat", note="set-user-ID bits are ignored, as with no_new_privs")
def execveat(task: Task, fd: Int, path: Word, arguments: Word, environment: Word, flags: Int) -> int:
    """execveat(2)."""
    name = task.read_path(path)
    if not name and flags & AT_EMPTY_PATH:
        file = task.descriptors.get(fd)
        host = os.open(f"self/fd/{file.host}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=task.kernel.procfs)
        try:
            return _execute(task, f"/dev/fd/{fd}", arguments, environment, host)
        finally:
            os.close(host)
    if not name:
        raise OSError(errno.ENOENT, "")
    host = paths.open_host(task, name, os.O_RDONLY, at=fd)
    try:
        shown = name if name.startswith("/") or fd == -100 else f"/dev/fd/{fd}/{name}"
        return _execute(task, shown, arguments, environment, host)
    finally:
        os.close(host)

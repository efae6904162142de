"""What the files in /proc/PID say, as proc(5) has it.

Figures come from the kernel's own tables, and those of memory and processor time from the host's.
"""

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from virtus.personalities.linux.proc.tree import read_host
from virtus.personalities.linux.task import ALL_CAPABILITIES, Credentials

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Process, Task

PAGE: Final = 4096
TICKS: Final = 100  # USER_HZ
STATES: Final = {"R": "running", "S": "sleeping", "D": "disk sleep", "T": "stopped", "Z": "zombie", "X": "dead"}
LIMITS: Final = (  # fs/proc/base.c lnames, in the order of RLIMIT_*
    ("Max cpu time", "seconds"), ("Max file size", "bytes"), ("Max data size", "bytes"), ("Max stack size", "bytes"),
    ("Max core file size", "bytes"), ("Max resident set", "bytes"), ("Max processes", "processes"),
    ("Max open files", "files"), ("Max locked memory", "bytes"), ("Max address space", "bytes"),
    ("Max file locks", "locks"), ("Max pending signals", "signals"), ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""), ("Max realtime priority", ""), ("Max realtime timeout", "us"),
)  # fmt: skip
RLIM_INFINITY: Final = 2**64 - 1
_RANGE: Final = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ")
_NO_STAT: Final = (b"0",) * 52


def owner(process: "Process") -> tuple[int, int]:
    """Whom the files of a process belong to."""
    for task in process.tasks.values():
        return task.credentials.euid, task.credentials.egid
    return 0, 0


def some_task(process: "Process") -> "Task | None":
    """A thread of the process, its leader if that lives; None for a zombie."""
    return process.leader or next(iter(process.tasks.values()), None)


def host_fields(kernel: "Kernel", task: "Task | None") -> tuple[bytes, ...]:
    """The fields of the host's stat of the stub that runs a thread, by their number in proc(5) less one."""
    if task is None:
        return _NO_STAT
    try:
        text = read_host(kernel, f"{task.context.ident}/stat")
    except OSError:
        return _NO_STAT
    return (b"0", b"", *text.rpartition(b")")[2].split())


def _ticks(kernel: "Kernel", process: "Process") -> tuple[int, int]:
    user, system = process.user_us * TICKS // 10**6, process.system_us * TICKS // 10**6
    for task in list(process.tasks.values()):
        fields = host_fields(kernel, task)
        user, system = user + int(fields[13]), system + int(fields[14])
    return user, system


def state_of(process: "Process", task: "Task | None") -> str:
    """The letter of the state."""
    if process is process.kernel.init:
        return "S"  # it has no thread of its own: the kernel does its work
    if task is None or not process.alive:
        return "Z"
    return "T" if process.stopped_by else task.state


def name_of_process(process: "Process", task: "Task | None") -> bytes:
    """Its `comm`."""
    if process.pid == 1 and task is None:
        return b"init"
    if task is not None:
        return task.name
    return os.fsencode(os.path.basename(process.executable))[:15]


def stat(process: "Process", task: "Task | None", pid: int) -> bytes:
    """proc(5) /proc/PID/stat."""
    kernel = process.kernel
    fields = list(host_fields(kernel, task))
    user, system = _ticks(kernel, process)
    terminal = process.terminal
    number = getattr(terminal, "device", 0) if terminal is not None else 0
    foreground = getattr(terminal, "foreground", -1) if terminal is not None else -1
    start = (process.start_ns or kernel.started_ns) * TICKS // 10**9
    parent = process.parent.pid if process.parent is not None else 0
    values: dict[int, Any] = {
        0: pid, 2: state_of(process, task), 3: parent, 4: process.group, 5: process.session, 6: number, 7: foreground,
        8: 0x400000, 13: user, 14: system, 15: process.children_user_us * TICKS // 10**6,
        16: process.children_system_us * TICKS // 10**6, 19: max(1, len(process.tasks)), 20: 0, 21: start,
    }  # fmt: skip
    if task is not None:
        memory = task.memory
        values |= {
            25: 0, 26: 0, 27: memory.stack_top, 28: 0, 29: 0, 30: task.pending.bits & 0x7FFFFFFF,
            31: task.blocked & 0x7FFFFFFF, 37: process.exit_signal, 46: memory.break_start, 47: memory.arg_start,
            48: memory.arg_end, 49: memory.env_start, 50: memory.env_end,
        }  # fmt: skip
        if len(fields) > 45:
            values |= {44: 0, 45: 0}
        if kernel.abi.places:
            values[22] = _sizes(kernel, task)[0]
    for at, value in values.items():
        if at < len(fields):
            fields[at] = str(value).encode()
    fields[1] = b"(" + name_of_process(process, task) + b")"
    if len(fields) > 51:
        fields[51] = b"%d" % (process.exit_status or 0)
    return b" ".join(fields) + b"\n"


def statm(process: "Process", task: "Task | None") -> bytes:
    """proc(5) /proc/PID/statm, in pages."""
    if task is None:
        return b"0 0 0 0 0 0 0\n"
    kernel = process.kernel
    try:
        text = read_host(kernel, f"{task.context.ident}/statm")
        if not kernel.abi.places:
            return text
        total, data = (figure // PAGE for figure in _sizes(kernel, task))
        resident, shared, code, *_ = text.split()[1:]
        return b"%d %b %b %b 0 %d 0\n" % (total, resident, shared, code, data)
    except OSError:
        return b"0 0 0 0 0 0 0\n"


def _sizes(kernel: "Kernel", task: "Task") -> tuple[int, int]:
    """Bytes of the guest's address space, and of what is private and writable in it; zeros when the stub is gone.

    What the host says of a stub is about more than its guest where `Abi.places`.
    """
    total = data = 0
    try:
        for start, end, line in guest_mappings(kernel, task, "maps"):
            total += end - start
            rights = line.split(b" ")[1]
            if b"w" in rights and b"p" in rights:
                data += end - start
    except OSError:
        return 0, 0
    return total, data


def _signal_sets(process: "Process") -> tuple[int, int]:
    ignored = caught = 0
    for number, action in process.actions.actions.items():
        if action.handler == 1:
            ignored |= 1 << (number - 1)
        elif action.handler:
            caught |= 1 << (number - 1)
    return ignored, caught


def status(process: "Process", task: "Task | None", pid: int) -> bytes:
    """proc(5) /proc/PID/status."""
    kernel = process.kernel
    state = state_of(process, task)
    parent = process.parent.pid if process.parent is not None else 0
    umask = f"Umask:\t{task.place.umask:04o}\n" if task is not None else ""
    lines = [
        f"Name:\t{name_of_process(process, task).decode(errors='replace')}\n{umask}State:\t{state} ({STATES[state]})",
        f"Tgid:\t{process.pid}\nNgid:\t0\nPid:\t{pid}\nPPid:\t{parent}\nTracerPid:\t0",
    ]
    if task is not None:
        who = task.credentials
        lines += [
            f"Uid:\t{who.uid}\t{who.euid}\t{who.suid}\t{who.fsuid}",
            f"Gid:\t{who.gid}\t{who.egid}\t{who.sgid}\t{who.fsgid}",
            f"FDSize:\t{max(64, len(task.descriptors.files))}",
            "Groups:\t" + "".join(f"{group} " for group in who.groups),
        ]
        lines += _memory_lines(kernel, task)
    else:
        lines += ["Uid:\t0\t0\t0\t0", "Gid:\t0\t0\t0\t0", "FDSize:\t0", "Groups:\t "]
    ignored, caught = _signal_sets(process)
    who = task.credentials if task is not None else Credentials(0, 0, ())
    lines += [
        f"Threads:\t{max(1, len(process.tasks))}\nSigQ:\t{len(process.pending.queue)}/65536",
        f"SigPnd:\t{task.pending.bits if task else 0:016x}\nShdPnd:\t{process.pending.bits:016x}",
        f"SigBlk:\t{task.blocked if task else 0:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}",
        f"CapInh:\t{0:016x}\nCapPrm:\t{who.permitted:016x}\nCapEff:\t{who.effective:016x}",
        f"CapBnd:\t{ALL_CAPABILITIES:016x}",
        f"CapAmb:\t{0:016x}\nNoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0",
    ]
    if task is not None:
        allowed = [number for number in range(task.processors.bit_length()) if task.processors >> number & 1]
        lines.append(f"Cpus_allowed:\t{task.processors:x}\nCpus_allowed_list:\t{','.join(map(str, allowed))}")
        lines += _host_lines(kernel, task, ("Mems_allowed", "Mems_allowed_list",
                                            "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"))  # fmt: skip
    return ("\n".join(lines) + "\n").encode()


def _host_lines(kernel: "Kernel", task: "Task", names: tuple[str, ...]) -> list[str]:
    try:
        text = read_host(kernel, f"{task.context.ident}/status").decode()
    except OSError:
        return []
    return [line for line in text.splitlines() if line.partition(":")[0] in names]


def _memory_lines(kernel: "Kernel", task: "Task") -> list[str]:
    names = ("VmPeak", "VmSize", "VmLck", "VmPin", "VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem", "VmData",
             "VmStk", "VmExe", "VmLib", "VmPTE", "VmSwap")  # fmt: skip
    lines = _host_lines(kernel, task, names)
    if not kernel.abi.places or not lines:
        return lines
    total, data = _sizes(kernel, task)
    own = {"VmPeak": total, "VmSize": total, "VmData": data}
    keys = [line.partition(":")[0] for line in lines]
    return [f"{key}:\t{own[key] // 1024:8} kB" if key in own else line for key, line in zip(keys, lines, strict=True)]


def guest_mappings(kernel: "Kernel", task: "Task", name: str) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, line) of the guest's mappings as the host shows them in `maps` or `smaps`: the stub's own page,
    and the host's vsyscall page, are not the guest's. Lines without a range belong to the mapping before them."""
    start = end = 0
    for line in read_host(kernel, f"{task.context.ident}/{name}").splitlines(keepends=True):
        found = _RANGE.match(line)
        if found:
            start, end = int(found[1], 16), int(found[2], 16)
        if start < kernel.abi.user_end:
            yield start, end, line


def maps(process: "Process", task: "Task | None", name: str = "maps") -> bytes:
    """proc(5) /proc/PID/maps (and smaps): with the kernel's names for heap and stack."""
    if task is None:
        return b""
    memory = task.memory
    lines = []
    try:
        for start, end, line in guest_mappings(process.kernel, task, name):
            anonymous = line.endswith((b" 0 \n", b" 0\n"))
            label = b""
            if anonymous and _RANGE.match(line):
                if start < memory.break_end and end > memory.break_start:
                    label = b"[heap]"
                elif start < memory.stack_top <= end:
                    label = b"[stack]"
            lines.append(line.rstrip().ljust(73) + label + b"\n" if label else line)
    except OSError:
        return b""
    return b"".join(lines)


def limits(process: "Process") -> bytes:
    """proc(5) /proc/PID/limits."""
    lines = [f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"]
    for number, (name, unit) in enumerate(LIMITS):
        soft, hard = process.limits.get(number, (RLIM_INFINITY, RLIM_INFINITY))
        shown = ["unlimited" if value == RLIM_INFINITY else str(value) for value in (soft, hard)]
        lines.append(f"{name:<25} {shown[0]:<20} {shown[1]:<20} {unit:<10}\n")
    return "".join(lines).encode()


def _joined(strings: list[bytes]) -> bytes:
    return b"".join(text + b"\0" for text in strings)


def command_line(process: "Process", task: "Task | None") -> bytes:
    """proc(5) /proc/PID/cmdline: from the guest's own memory, which it may change; nothing of a zombie."""
    if task is None:
        return b"init\0" if process.pid == 1 else b""
    return _from_stack(task, task.memory.arg_start, task.memory.arg_end) or _joined(process.arguments)


def environment(process: "Process", task: "Task | None") -> bytes:
    """proc(5) /proc/PID/environ."""
    if task is None:
        return b""
    return _from_stack(task, task.memory.env_start, task.memory.env_end) or _joined(process.environment)


def _from_stack(task: "Task", start: int, end: int) -> bytes:
    if not 0 < end - start < 1 << 22:
        return b""
    return bytes(task.context.read_partial(start, end - start))


def io(process: "Process", task: "Task | None") -> bytes:
    """What it has read and written: not counted."""
    return b"rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n"

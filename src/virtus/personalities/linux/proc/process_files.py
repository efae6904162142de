"""/proc/PID: the files, links and directories that a guest finds of its processes (`process_contents` fills them)."""

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from virtus.personalities.linux.names import name_of, name_of_host
from virtus.personalities.linux.proc.process_contents import (
    command_line,
    environment,
    io,
    limits,
    maps,
    name_of_process,
    owner,
    some_task,
    stat,
    statm,
    status,
)
from virtus.personalities.linux.proc.system_files import mount_information, mounts, network
from virtus.personalities.linux.proc.tree import (
    DT_DIR,
    DT_LNK,
    DT_REG,
    Directory,
    Link,
    Location,
    MagicLink,
    Maker,
    Node,
    Text,
    read_host,
)

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Process, Task


def _reader(produce: "Callable[[Process, Task | None], bytes]", mode: int = 0o444) -> "Callable[..., Node]":
    return lambda process, task, path: Text(path, lambda: produce(process, task), mode=mode, owner=owner(process))


def _fixed(content: bytes, mode: int = 0o444) -> "Callable[..., Node]":
    return lambda process, task, path: Text(path, lambda: content, mode=mode, owner=owner(process))


def _comm(process: "Process", task: "Task | None", path: str) -> Node:
    def accept(data: bytes) -> None:
        if task is not None:
            task.name = data.rstrip(b"\n")[:15]

    return Text(path, lambda: name_of_process(process, task) + b"\n", accept, owner=owner(process))


_adjustments: dict[int, int] = {}  # oom_score_adj by pid: remembered for the guest, of no effect


def _oom_adjustment(process: "Process", task: "Task | None", path: str) -> Node:
    def accept(data: bytes) -> None:
        try:
            value = int(data)
        except ValueError as error:
            raise OSError(errno.EINVAL, "") from error
        if not -1000 <= value <= 1000:
            raise OSError(errno.EINVAL, "")
        _adjustments[process.pid] = value

    return Text(path, lambda: b"%d\n" % _adjustments.get(process.pid, 0), accept, owner=owner(process))


def _host_of_kernel(name: str) -> "Callable[..., Node]":
    """Facts of the namespaces that the kernel process shares with its guest."""

    def make(process: "Process", task: "Task | None", path: str) -> Node:
        return Text(path, lambda: read_host(process.kernel, f"self/{name}"), owner=owner(process))

    return make


def _executable(process: "Process", task: "Task | None", path: str) -> Node:
    target = os.fsencode(process.executable)

    def text() -> bytes:
        if not target:
            raise OSError(errno.ENOENT, "")
        return target

    def leads() -> Location:
        return -100, text()

    return MagicLink(path, text, leads, owner(process))


def _working_directory(process: "Process", task: "Task | None", path: str) -> Node:
    def text() -> bytes:
        if task is None:
            raise OSError(errno.ENOENT, "")
        return name_of_host(task.kernel, task.place.directory) if task.place.directory >= 0 else task.place.cwd.encode()

    def leads() -> Location:
        if task is None:
            raise OSError(errno.ENOENT, "")
        if task.place.directory < 0:
            return -100, task.place.cwd.encode()
        return task.kernel.procfs, b"self/fd/%d" % task.place.directory

    return MagicLink(path, text, leads, owner(process))


def _root(process: "Process", task: "Task | None", path: str) -> Node:
    target = os.fsencode(task.place.root) if task is not None else b"/"
    return MagicLink(path, lambda: target, lambda: (-100, target), owner(process))


def _descriptor_number(task: "Task | None", name: str) -> int:
    if task is None or not name.isdecimal() or not name.isascii() or (name != "0" and name[0] == "0"):
        return -1
    fd = int(name)
    return fd if fd in task.descriptors.files else -1


def _descriptors(process: "Process", task: "Task | None", path: str) -> Node:
    def find(_: "Task", name: str) -> Node | None:
        fd = _descriptor_number(task, name)
        if fd < 0 or task is None:
            return None
        file = task.descriptors.files[fd]
        kernel = task.kernel

        def leads() -> Location | Node:
            node = getattr(file, "node", None)
            if isinstance(node, Node):
                return node
            if file.host < 0:
                raise OSError(errno.ENXIO, "")
            return kernel.procfs, b"self/fd/%d" % file.host

        mode = (0o500 if file.readable else 0o100) | (0o200 if file.writable else 0)
        link = MagicLink(f"{path}/{name}", lambda: name_of(kernel, file), leads, owner(process), mode)
        link.file = file
        return link

    def names(_: "Task") -> list[tuple[str, int]]:
        return [(str(fd), DT_LNK) for fd in task.descriptors] if task is not None else []

    return Directory(path, {}, names=names, find=find, owner=owner(process), mode=0o500)


def _descriptor_facts(process: "Process", task: "Task | None", path: str) -> Node:
    def find(_: "Task", name: str) -> Node | None:
        fd = _descriptor_number(task, name)
        if fd < 0 or task is None:
            return None
        file = task.descriptors.files[fd]
        close_on_exec = fd in task.descriptors.close_on_exec

        def produce() -> bytes:
            position = 0
            try:
                position = file.seek(0, os.SEEK_CUR)
            except OSError:
                pass  # a file without a position shows 0
            flags = file.flags | (os.O_CLOEXEC if close_on_exec else 0)
            lines = f"pos:\t{position}\nflags:\t0{flags:o}\nmnt_id:\t1\nino:\t{file.stat().st_ino}\n"
            more = getattr(file, "facts", None)
            return (lines + (more() if more is not None else "")).encode()

        return Text(f"{path}/{name}", produce, owner=owner(process), mode=0o400)

    def names(_: "Task") -> list[tuple[str, int]]:
        return [(str(fd), DT_REG) for fd in task.descriptors] if task is not None else []

    return Directory(path, {}, names=names, find=find, owner=owner(process), mode=0o500)


def _namespaces(process: "Process", task: "Task | None", path: str) -> Node:
    kernel = process.kernel
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")

    def maker(kind: str) -> Maker:
        def text() -> bytes:
            return os.readlink(f"self/ns/{kind}".encode(), dir_fd=kernel.procfs)

        def leads() -> Location:
            raise OSError(errno.EACCES, "")  # nothing of the sandbox's namespaces is to be had

        return lambda task, path: MagicLink(path, text, leads, owner(process))

    return Directory(path, {kind: maker(kind) for kind in kinds}, owner=owner(process), mode=0o511)


def _mounts(process: "Process", task: "Task | None") -> bytes:
    return mounts(process.kernel)


def _mount_information(process: "Process", task: "Task | None") -> bytes:
    return mount_information(process.kernel)


ENTRIES: Final[dict[str, Callable[..., Node]]] = {
    "auxv": _reader(lambda process, task: process.auxiliary, 0o400),
    "cgroup": _fixed(b"0::/\n"),
    "cmdline": _reader(command_line),
    "comm": _comm,
    "coredump_filter": _fixed(b"00000033\n", 0o644),
    "cwd": _working_directory,
    "environ": _reader(environment, 0o400),
    "exe": _executable,
    "fd": _descriptors,
    "fdinfo": _descriptor_facts,
    "gid_map": _host_of_kernel("gid_map"),
    "io": _reader(io, 0o400),
    "limits": _reader(lambda process, task: limits(process)),
    "loginuid": _fixed(b"4294967295"),
    "maps": _reader(maps),
    "mountinfo": _reader(_mount_information),
    "mounts": _reader(_mounts),
    "net": lambda process, task, path: network(task, path),
    "ns": _namespaces,
    "oom_adj": _fixed(b"0\n"),
    "oom_score": _fixed(b"0\n"),
    "oom_score_adj": _oom_adjustment,
    "personality": _fixed(b"00000000\n", 0o400),
    "projid_map": _host_of_kernel("projid_map"),
    "root": _root,
    "sessionid": _fixed(b"4294967295"),
    "setgroups": _host_of_kernel("setgroups"),
    "smaps": _reader(lambda process, task: maps(process, task, "smaps")),
    "statm": _reader(statm),
    "timerslack_ns": _fixed(b"50000\n", 0o666),
    "uid_map": _host_of_kernel("uid_map"),
    "wchan": _fixed(b"0"),
}
"""What a process's directory and a thread's have in common."""


def _thread_directory(process: "Process", task: "Task | None", path: str, pid: int, *, threads: bool) -> Directory:
    def maker(make: Callable[..., Node]) -> Maker:
        return lambda reader, child: make(process, task, child)

    children = {name: maker(make) for name, make in ENTRIES.items()}
    children["stat"] = maker(_reader(lambda process, task: stat(process, task, pid)))
    children["status"] = maker(_reader(lambda process, task: status(process, task, pid)))
    if threads:
        children["task"] = lambda reader, child: _threads(process, child)
    else:
        children["children"] = maker(_reader(_children))
    return Directory(path, children, owner=owner(process))


def _children(process: "Process", task: "Task | None") -> bytes:
    return b"".join(b"%d " % pid for pid in sorted(process.children))


def _threads(process: "Process", path: str) -> Node:
    def find(_: "Task", name: str) -> Node | None:
        tid = int(name) if name.isdecimal() and name.isascii() else -1
        task = process.tasks.get(tid)
        if task is None and not (tid == process.pid and not process.tasks):
            return None
        return _thread_directory(process, task, f"{path}/{tid}", tid, threads=False)

    def names(_: "Task") -> list[tuple[str, int]]:
        return [(str(tid), DT_DIR) for tid in sorted(process.tasks) or [process.pid]]

    return Directory(path, {}, names=names, find=find, owner=owner(process))


def process_directory(kernel: "Kernel", name: str) -> Node | None:
    """/proc/NAME for a process's or (hidden, as on Linux) a thread's number."""
    if not name.isdecimal() or not name.isascii() or name[0] == "0":
        return None
    number = int(name)
    process = kernel.processes.get(number)
    task = some_task(process) if process is not None else kernel.tasks.get(number)
    if process is None:
        if task is None:
            return None
        process = task.process
    return _thread_directory(process, task, f"/proc/{number}", number, threads=True)


def process_names(kernel: "Kernel") -> list[tuple[str, int]]:
    """The processes' directories."""
    return [(str(pid), DT_DIR) for pid in sorted(kernel.processes)]


def self_links(task: "Task") -> dict[str, Node]:
    """/proc/self and /proc/thread-self, which differ for each reader."""
    return {
        "self": Link("/proc/self", str(task.process.pid)),
        "thread-self": Link("/proc/thread-self", f"{task.process.pid}/task/{task.tid}"),
    }

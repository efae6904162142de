"""/proc outside of the processes' directories: the machine, its mounts, its tunables, its network."""

import os
from functools import cache
from typing import TYPE_CHECKING, Final

from virtus.personalities.linux import randomness
from virtus.personalities.linux.proc.tree import (
    DT_DIR,
    DT_REG,
    Directory,
    Link,
    Maker,
    Node,
    Text,
    constant,
    directory,
    has_host,
    of_host,
    of_kernel,
    read_host,
)

if TYPE_CHECKING:
    from virtus.personalities.linux.kernel import Kernel
    from virtus.personalities.linux.task import Task

LAYERS: Final = frozenset({"overlay"})
"""File systems whose options name directories of the host."""
NETWORK_FILES: Final = (
    "arp", "dev", "if_inet6", "igmp", "ipv6_route", "netlink", "netstat", "packet", "protocols", "raw", "raw6", "route",
    "snmp", "snmp6", "sockstat", "sockstat6", "tcp", "tcp6", "udp", "udp6", "unix",
)  # fmt: skip
FILE_SYSTEMS: Final = "nodev\tsysfs\nnodev\ttmpfs\nnodev\tproc\nnodev\tdevpts\nnodev\toverlay\n\text4\n"
DEVICES: Final = "Character devices:\n  1 mem\n  4 tty\n  5 /dev/tty\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n"


def _version(kernel: "Kernel") -> bytes:
    system = os.uname()
    return f"{system.sysname} version {system.release} (virtus@{kernel.hostname}) {system.version}\n".encode()


def _load_average(kernel: "Kernel") -> bytes:
    averages = read_host(kernel, "loadavg").split()[:3]
    running = sum(task.state == "R" for task in kernel.tasks.values())
    newest = max(kernel.tasks, default=1)
    return b" ".join(averages) + b" %d/%d %d\n" % (running, len(kernel.tasks), newest)


def mounts(kernel: "Kernel") -> bytes:
    """/proc/PID/mounts: the machine's own mounts, without what they say of the host."""
    lines = []
    proc_shown = False
    for line in read_host(kernel, "self/mounts").splitlines():
        source, target, kind, options, *rest = line.split(b" ")
        if target == b"/proc":
            if proc_shown:
                continue
            proc_shown = True
            source, kind, options = b"proc", b"proc", b"rw,nosuid,nodev,noexec,relatime"
        elif kind.decode() in LAYERS:
            source, options = b"overlay", plain_options(options)
        lines.append(b" ".join((source, target, kind, options, *rest)))
    return b"\n".join(lines) + b"\n"


def mount_information(kernel: "Kernel") -> bytes:
    """/proc/PID/mountinfo, likewise (proc(5))."""
    lines = []
    proc_shown = False
    for line in read_host(kernel, "self/mountinfo").splitlines():
        before, _, after = line.partition(b" - ")
        fields = before.split(b" ")
        kind, source, options = after.split(b" ", 2)
        if fields[4] == b"/proc":
            if proc_shown:
                continue
            proc_shown = True
            kind, source, options = b"proc", b"proc", b"rw"
        elif kind.decode() in LAYERS:
            source, options = b"overlay", plain_options(options)
        fields[3] = b"/" if fields[4] == b"/" else fields[3]
        lines.append(b" ".join(fields) + b" - " + b" ".join((kind, source, options)))
    return b"\n".join(lines) + b"\n"


def plain_options(options: bytes) -> bytes:
    """Mount options that are words: those with a value name the host's directories."""
    return b",".join(option for option in options.split(b",") if b"=" not in option)


def _hostname(task: "Task", path: str) -> Node:
    kernel = task.kernel

    def accept(data: bytes) -> None:
        kernel.hostname = os.fsdecode(data.strip()[:64])

    return Text(path, lambda: os.fsencode(kernel.hostname) + b"\n", accept)


def _domain_name(task: "Task", path: str) -> Node:
    kernel = task.kernel

    def accept(data: bytes) -> None:
        kernel.domainname = os.fsdecode(data.strip()[:64])

    return Text(path, lambda: os.fsencode(kernel.domainname) + b"\n", accept)


def _random_uuid(kernel: "Kernel") -> bytes:
    return f"{randomness.identifier()}\n".encode()


def _network(task: "Task", path: str) -> Node:
    """The kernel process's own network namespace is the guest's."""

    def find(task: "Task", name: str) -> Node | None:
        return of_host(f"self/net/{name}")(task, f"{path}/{name}") if name in NETWORK_FILES else None

    def names(task: "Task") -> list[tuple[str, int]]:
        return [(name, DT_REG) for name in NETWORK_FILES if has_host(task.kernel, f"self/net/{name}")]

    return Directory(path, {}, names=names, find=find)


def _host_tunables(*names: str) -> dict[str, Maker]:
    """Tunables a guest may read as the host has them (below /proc/sys), by their last name."""
    return {name.rpartition("/")[2]: of_host(f"sys/{name}") for name in names}


def _release(kernel: "Kernel") -> bytes:
    return os.uname().release.encode() + b"\n"


def _build(kernel: "Kernel") -> bytes:
    return os.uname().version.encode() + b"\n"


SYS: Final[dict[str, Maker]] = {
    "kernel": directory(
        {
            "hostname": _hostname,
            "domainname": _domain_name,
            "ostype": constant("Linux\n"),
            "osrelease": of_kernel(_release),
            "version": of_kernel(_build),
            "pid_max": constant("4194304\n"),
            "core_pattern": constant("core\n"),
            "core_uses_pid": constant("0\n"),
            "tainted": constant("0\n"),
            "random": directory(
                {
                    "boot_id": of_kernel(cache(_random_uuid)),
                    "uuid": of_kernel(_random_uuid),
                    "entropy_avail": constant("256\n"),
                    "poolsize": constant("256\n"),
                }
            ),
            "yama": directory(_host_tunables("kernel/yama/ptrace_scope")),
            **_host_tunables(
                "kernel/cap_last_cap", "kernel/ngroups_max", "kernel/threads-max", "kernel/overflowuid",
                "kernel/overflowgid", "kernel/randomize_va_space", "kernel/shmmax", "kernel/shmall", "kernel/shmmni",
                "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/printk",
                "kernel/perf_event_paranoid", "kernel/sched_rr_timeslice_ms",
            ),
        }
    ),
    "vm": directory(
        _host_tunables(
            "vm/overcommit_memory", "vm/overcommit_ratio", "vm/max_map_count", "vm/mmap_min_addr", "vm/swappiness",
            "vm/nr_hugepages", "vm/min_free_kbytes",
        )
    ),
    "fs": directory(
        {
            **_host_tunables(
                "fs/file-max", "fs/file-nr", "fs/nr_open", "fs/inode-nr", "fs/inode-state", "fs/pipe-max-size",
                "fs/pipe-user-pages-soft", "fs/pipe-user-pages-hard", "fs/aio-max-nr", "fs/overflowuid",
                "fs/overflowgid", "fs/protected_symlinks", "fs/protected_hardlinks", "fs/lease-break-time",
            ),
            "inotify": directory(
                _host_tunables(
                    "fs/inotify/max_user_watches", "fs/inotify/max_user_instances", "fs/inotify/max_queued_events"
                )
            ),
            "epoll": directory(_host_tunables("fs/epoll/max_user_watches")),
            "mqueue": directory(_host_tunables("fs/mqueue/msg_max", "fs/mqueue/msgsize_max", "fs/mqueue/queues_max")),
        }
    ),
    "net": directory(
        {
            "core": directory(
                _host_tunables("net/core/somaxconn", "net/core/rmem_max", "net/core/wmem_max", "net/core/rmem_default")
            ),
            "ipv4": directory(
                _host_tunables(
                    "net/ipv4/ip_local_port_range", "net/ipv4/tcp_fin_timeout", "net/ipv4/tcp_syncookies",
                    "net/ipv4/ip_forward", "net/ipv4/tcp_rmem", "net/ipv4/tcp_wmem", "net/ipv4/tcp_fastopen",
                    "net/ipv4/ip_unprivileged_port_start", "net/ipv4/ping_group_range",
                )
            ),
            "ipv6": directory(
                {"conf": directory({"all": directory(_host_tunables("net/ipv6/conf/all/disable_ipv6"))})}
            ),
            "unix": directory(_host_tunables("net/unix/max_dgram_qlen")),
        }
    ),
}  # fmt: skip


def _link(target: str) -> Maker:
    return lambda task, path: Link(path, target)


def _processors(kernel: "Kernel") -> bytes:
    found = kernel.abi.cpu_information()
    return read_host(kernel, "cpuinfo") if found is None else found


SYSTEM: Final[dict[str, Maker]] = {
    "cmdline": constant("virtus\n"),
    "consoles": constant(""),
    "cpuinfo": lambda task, path: Text(path, lambda: _processors(task.kernel)),
    "devices": constant(DEVICES),
    "diskstats": constant(""),
    "filesystems": constant(FILE_SYSTEMS),
    "interrupts": of_host("interrupts"),
    "loadavg": of_kernel(_load_average),
    "locks": constant(""),
    "meminfo": of_host("meminfo"),
    "misc": constant(""),
    "modules": constant(""),
    "mounts": _link("self/mounts"),
    "net": _link("self/net"),
    "partitions": constant("major minor  #blocks  name\n\n"),
    "stat": of_host("stat"),
    "swaps": constant("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"),
    "sys": directory(SYS),
    "uptime": of_host("uptime"),
    "version": of_kernel(_version),
    "vmstat": of_host("vmstat"),
    "zoneinfo": of_host("zoneinfo"),
}
"""What stands beside the processes."""

network = _network
__all__ = ["DT_DIR", "SYSTEM", "mount_information", "mounts", "network"]

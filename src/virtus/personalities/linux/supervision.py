"""How guests that the host's own kernel serves (technique `seccomp`) are supervised: one disposition per system call.

Native calls never leave the host's kernel: the box (namespaces, layers) makes them harmless. Calls about the number of
processes, and calls that are refused, are notified to the supervisor; so is every number that stands nowhere here.
Nothing is ever decided on memory that a guest could change in between (pointers are not looked at).
"""

import errno
from typing import Final

from virtus.isa.x86.linux_calls import NUMBERS

REFUSED: Final[dict[str, int]] = {
    **dict.fromkeys(("io_uring_setup", "io_uring_enter", "io_uring_register"), errno.ENOSYS),
    **dict.fromkeys(("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"), errno.EPERM),
    **dict.fromkeys(("bpf", "userfaultfd", "perf_event_open", "fanotify_init", "fanotify_mark"), errno.EPERM),
    **dict.fromkeys(("mount", "umount2", "pivot_root", "fsopen", "fsconfig", "fsmount", "fspick"), errno.EPERM),
    **dict.fromkeys(("open_tree", "move_mount", "mount_setattr", "open_tree_attr"), errno.EPERM),
    **dict.fromkeys(("statmount", "listmount"), errno.ENOSYS),
    **dict.fromkeys(("setns", "unshare", "pidfd_getfd"), errno.EPERM),
    **dict.fromkeys(("add_key", "request_key", "keyctl"), errno.ENOSYS),
    **dict.fromkeys(("init_module", "finit_module", "delete_module", "create_module"), errno.EPERM),
    **dict.fromkeys(("kexec_load", "kexec_file_load", "swapon", "swapoff", "acct", "quotactl"), errno.EPERM),
    **dict.fromkeys(("quotactl_fd", "open_by_handle_at", "syslog", "lookup_dcookie", "nfsservctl"), errno.EPERM),
    **dict.fromkeys(("settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "iopl", "ioperm"), errno.EPERM),
    **dict.fromkeys(("modify_ldt", "uselib", "_sysctl", "ustat", "sysfs", "vhangup"), errno.ENOSYS),
    **dict.fromkeys(("seccomp", "get_kernel_syms", "query_module", "vserver", "tuxcall"), errno.ENOSYS),
    **dict.fromkeys(("getpmsg", "putpmsg", "afs_syscall", "security", "epoll_ctl_old", "epoll_wait_old"), errno.ENOSYS),
    **dict.fromkeys(("map_shadow_stack", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules"), errno.ENOSYS),
    **dict.fromkeys(("set_thread_area", "get_thread_area", "remap_file_pages"), errno.ENOSYS),
    "clone3": errno.ENOSYS,  # its flags lie in memory; libraries fall back to clone
}
"""Calls a guest has no business with, and the errno it gets; each is counted in the meter."""
PROCESSES: Final = ("clone", "fork", "vfork")
"""Notified: the machine's limit of processes is kept here."""
POWER: Final = "reboot"
"""Notified: ends the machine."""
NAMESPACE_FLAGS: Final = 0x7E020080
"""CLONE_NEW* (include/uapi/linux/sched.h): a guest's clone with any of them gives EPERM in the filter itself."""
TIOCSTI, TIOCLINUX, TIOCCONS = 0x5412, 0x541C, 0x541D  # include/uapi/asm-generic/ioctls.h
SOCKET_FAMILIES: Final = (1, 2, 10, 16, 17)
"""AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET (include/linux/socket.h): those that a network namespace confines.

Others reach past it (AF_VSOCK speaks to the hypervisor) or are an attacker's field; they give EAFNOSUPPORT.
"""
NATIVE: Final = frozenset(NUMBERS) - set(REFUSED) - set(PROCESSES) - {POWER}
BY_ARGUMENT: Final = {
    "clone": "notified: process limit; flags for new namespaces: EPERM",
    "ioctl": "native; TIOCSTI, TIOCLINUX, TIOCCONS: EPERM",
    "socket": "native for Unix, IP, netlink and packet sockets; others: EAFNOSUPPORT",
}
"""What the filter says of calls in which an argument decides, in words for the documentation."""


def disposition(name: str) -> str:
    """How a call is treated, in words for the documentation."""
    if name in BY_ARGUMENT:
        return BY_ARGUMENT[name]
    if name in REFUSED:
        return f"refused: {errno.errorcode[REFUSED[name]]}"
    if name in PROCESSES:
        return "notified: process limit"
    if name == POWER:
        return "notified: ends the machine"
    return "native"

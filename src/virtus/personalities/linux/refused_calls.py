"""Calls that guests are refused, each with the errno a program knows how to live with, and the reason.

EPERM stands for what a machine's owner may do and a guest may not; ENOSYS for what is left out, as in a kernel that was
built without it, so that programs fall back on the calls there are.
"""

import errno
from typing import Final

from virtus.personalities.linux.results import INTERRUPTED
from virtus.personalities.linux.table import Uint, Word, call, refuse
from virtus.personalities.linux.task import Task

CAP_SYS_BOOT: Final = 1 << 22  # include/uapi/linux/capability.h
# include/uapi/linux/reboot.h
REBOOT_MAGIC1: Final = 0xFEE1DEAD
REBOOT_MAGIC2: Final = frozenset({672274793, 85072278, 369367448, 537993216})
REBOOT_CAD_ON: Final = 0x89ABCDEF
REBOOT_CAD_OFF: Final = 0
REBOOT_ENDS: Final = frozenset({0x01234567, 0xCDEF0123, 0x4321FEDC, 0xA1B2C3D4})  # restart, halt, power off, restart2

refuse(errno.EPERM, "the kernel takes no modules", "create_module", "init_module", "finit_module", "delete_module")
refuse(errno.EPERM, "there is no other kernel to start", "kexec_load", "kexec_file_load")
refuse(errno.EPERM, "memory is the host's to swap", "swapon", "swapoff")
refuse(errno.EPERM, "quotas are the host's", "quotactl", "quotactl_fd")
refuse(errno.EPERM, "accounting is the meter's", "acct")
refuse(
    errno.EPERM,
    "the layers of the root are set up before the guest starts",
    *("mount", "umount2", "pivot_root", "open_tree", "open_tree_attr", "move_mount", "fsopen", "fsconfig", "fsmount"),
    *("fspick", "mount_setattr"),
)
refuse(errno.ENOSYS, "mounts are read in /proc/self/mountinfo", "statmount", "listmount")
refuse(errno.EPERM, "the log is the host's", "syslog")
refuse(errno.EPERM, "no I/O ports", "iopl", "ioperm")
refuse(errno.EPERM, "the terminal is the caller's", "vhangup")
refuse(errno.ENOSYS, "no keyring", "add_key", "request_key", "keyctl")
refuse(errno.ENOSYS, "no programs inside the kernel", "bpf")
refuse(errno.ENOSYS, "no performance counters", "perf_event_open")
refuse(errno.ENOSYS, "no submission rings", "io_uring_setup", "io_uring_enter", "io_uring_register")
refuse(
    errno.ENOSYS,
    "no kernel asynchronous I/O; aio(7) of the C library works",
    *("io_setup", "io_destroy", "io_getevents", "io_pgetevents", "io_submit", "io_cancel"),
)
refuse(
    errno.ENOSYS,
    "no POSIX message queues",
    *("mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr"),
)
refuse(errno.ENOSYS, "no local descriptor table: only 64-bit programs run", "modify_ldt")
refuse(errno.ENOSYS, "for 32-bit programs", "set_thread_area", "get_thread_area")
refuse(errno.EINVAL, "no filters inside a guest, as in a kernel without them", "seccomp")
refuse(
    errno.ENOSYS,
    "no sandbox inside the sandbox",
    *("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"),
)
refuse(errno.ENOSYS, "no security modules", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules")
refuse(
    errno.ENOSYS,
    "memory calls of new kernels that programs do without",
    *("memfd_secret", "mseal", "cachestat", "map_shadow_stack", "process_madvise", "process_mrelease"),
)
refuse(
    errno.ENOSYS,
    "file calls of new kernels that programs do without",
    *("setxattrat", "getxattrat", "listxattrat", "removexattrat", "file_getattr", "file_setattr"),
)
refuse(errno.ENOSYS, "removed from Linux, or never in it", *(
    "uselib", "ustat", "sysfs", "_sysctl", "get_kernel_syms", "query_module", "nfsservctl", "getpmsg", "putpmsg",
    "afs_syscall", "tuxcall", "security", "lookup_dcookie", "epoll_ctl_old", "epoll_wait_old", "vserver",
))  # fmt: skip


@call("reboot", note="halt, restart and power-off all end the machine")
def reboot(task: Task, magic1: Uint, magic2: Uint, command: Uint, argument: Word) -> int:
    """reboot(2)."""
    if not task.credentials.effective & CAP_SYS_BOOT:
        raise OSError(errno.EPERM, "")
    if magic1 != REBOOT_MAGIC1 or magic2 not in REBOOT_MAGIC2:
        raise OSError(errno.EINVAL, "")
    if command in (REBOOT_CAD_ON, REBOOT_CAD_OFF):
        return 0
    if command not in REBOOT_ENDS:
        raise OSError(errno.EINVAL, "")
    task.kernel.finish(0)
    return 0


@call("restart_syscall")
def restart_syscall(task: Task) -> int:
    """restart_syscall(2): there is never a call to go on with; interrupted ones are made again from their start."""
    return INTERRUPTED

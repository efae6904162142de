"""What this host offers to virtual machines, found out by trying it in a child process, and how to get what it lacks.

Nothing a probe does outlives its child; none takes longer than a few milliseconds.
"""

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

from virtus.host import mounts, namespaces, protection_keys, ptrace, seccomp
from virtus.records import dataclass

KVM_GET_API_VERSION: Final = 0xAE00  # include/uapi/linux/kvm.h
KVM_CREATE_VM: Final = 0xAE01
KVM_API_VERSION: Final = 12  # the only one there has been since Linux 2.6.22
KVM_MODULES: Final = (("kvm_intel", "hardware (VMX)"), ("kvm_amd", "hardware (SVM)"), ("kvm_pvm", "software (PVM)"))
YAMA: Final = "/proc/sys/kernel/yama/ptrace_scope"
YAMA_SCOPES: Final = ("any process of the same user", "own children", "administrators only", "nobody")
SCRATCH: Final = "/tmp"
ALLOW_TRACING: Final = "allow ptrace(2): sysctl kernel.yama.ptrace_scope=1; in a container --cap-add SYS_PTRACE"
ALLOW_USERS: Final = (
    "sysctl user.max_user_namespaces=10000 kernel.unprivileged_userns_clone=1, on Ubuntu "
    "kernel.apparmor_restrict_unprivileged_userns=0; in a container --security-opt seccomp=unconfined"
)
EVERY_BOX: Final = "every Linux guest"
NAMESPACES: Final = (
    ("user namespace", 0),
    ("mount namespace", namespaces.CLONE_NEWNS),
    ("PID namespace", namespaces.CLONE_NEWPID),
    ("network namespace", namespaces.CLONE_NEWNET),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a host may offer. `detail` says what kind, or why not."""

    name: str
    there: bool
    detail: str
    needed_by: str
    remedy: str = ""


def findings() -> list[Finding]:
    """All of them, in the order in which techniques build on each other."""
    boxes = [namespace(name, flag) for name, flag in NAMESPACES]
    machines = [tracing(), emulated_calls(), yama(), notification()]
    return [*machines, *boxes, layers(), fuse(), kvm(), hidden_code()]


def tracing() -> Finding:
    """ptrace(2) of an own child."""
    trouble = _in_child(lambda: _trace(ptrace.PTRACE_SYSCALL))
    return Finding("ptrace", not trouble, trouble or "of own children", "uml-skas, uml-tt", trouble and ALLOW_TRACING)


def emulated_calls() -> Finding:
    """PTRACE_SYSEMU: system calls stop and are not executed."""
    trouble = _in_child(lambda: _trace(ptrace.PTRACE_SYSEMU))
    remedy = trouble and "a Linux kernel of its own, without a sandbox such as gVisor below"
    return Finding("PTRACE_SYSEMU", not trouble, trouble or "calls stop unexecuted", "uml-skas", remedy)


def yama() -> Finding:
    """Whom Yama lets trace (Documentation/admin-guide/LSM/Yama.rst)."""
    try:
        with open(YAMA) as stream:
            scope = int(stream.read())
    except OSError:
        return Finding("Yama", True, "not in this kernel: no restriction", "uml-skas, uml-tt")
    allowed = scope < 2 or (scope == 2 and os.geteuid() == 0)
    remedy = "" if allowed else "sysctl kernel.yama.ptrace_scope=1 (3 lasts until the next boot)"
    detail = f"ptrace_scope {scope}: {YAMA_SCOPES[min(scope, 3)]}"
    return Finding("Yama", allowed, detail, "uml-skas, uml-tt", remedy)


def notification() -> Finding:
    """seccomp(2) user notification, and how it wakes the supervisor."""
    trouble = _in_child(_notify)
    if trouble:
        remedy = "Linux 5.0 or newer; not inside another filter with notification"
        return Finding("seccomp notification", False, trouble, "seccomp", remedy)
    slow = _in_child(lambda: _notify(seccomp.SYNC_WAKE_UP))
    detail = "slower, without synchronous wake-up (Linux 6.6)" if slow else "with synchronous wake-up"
    return Finding("seccomp notification", True, detail, "seccomp")


def namespace(name: str, flag: int) -> Finding:
    """A namespace made inside a user namespace, as an ordinary user can."""
    trouble = _in_child(lambda: _enter(flag))
    return Finding(name, not trouble, trouble or "for any user", EVERY_BOX, trouble and ALLOW_USERS)


def layers() -> Finding:
    """overlayfs inside a user namespace, on a tmpfs."""
    trouble = _in_child(_overlay)
    remedy = trouble and "Linux 5.12 or newer with overlayfs (modprobe overlay)"
    return Finding("overlay", not trouble, trouble or "in a user namespace", EVERY_BOX, remedy)


def fuse() -> Finding:
    """Mounting FUSE inside a user namespace."""
    trouble = _in_child(_fuse)
    remedy = trouble and "modprobe fuse; chmod 666 /dev/fuse; in a container --device /dev/fuse"
    return Finding("FUSE", not trouble, trouble or "in a user namespace", "nothing yet", remedy)


def hidden_code() -> Finding:
    """Protection keys: pages that can be executed and not read."""
    needed_by = "prescan, which is weaker without"
    if protection_keys.can_hide_code():
        return Finding("protection keys", True, "code can be hidden from reads", needed_by)
    remedy = (
        "a processor with PKU; without, prescan keeps scanned code elsewhere, which a guest may find (docs/prescan.md)"
    )
    return Finding("protection keys", False, "no pages that are executable alone", needed_by, remedy)


def kvm() -> Finding:
    """KVM, and whether the processor or software runs its guests."""
    needed_by = "hvm, paravirt"
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        try:
            version = fcntl.ioctl(device, KVM_GET_API_VERSION, 0)
            os.close(fcntl.ioctl(device, KVM_CREATE_VM, 0))
        finally:
            os.close(device)
    except OSError as error:
        remedy = {
            errno.ENOENT: "enable VT-x or AMD-V in the firmware and modprobe kvm_intel or kvm_amd; inside a virtual "
            "machine, ask for nested virtualization",
            errno.EACCES: "usermod -aG kvm $USER, and log in again",
        }.get(error.errno or 0, "end other users of the virtualization hardware; dmesg tells more")
        return Finding("KVM", False, error.strerror or str(error), needed_by, remedy)
    if version != KVM_API_VERSION:
        return Finding("KVM", False, f"version {version}", needed_by, "boot a kernel newer than 2.6.22")
    with open("/proc/cpuinfo") as stream:
        flags = next((set(line.split()) for line in stream if line.startswith("flags")), set[str]())
    modules = {name for name, _ in KVM_MODULES if os.path.isdir(f"/sys/module/{name}")}
    return Finding("KVM", True, kvm_kind(modules, flags), needed_by)


def kvm_kind(modules: set[str], flags: set[str]) -> str:
    """What runs KVM's guests, by the modules that are loaded and the processor's flags: hardware or software."""
    for module, kind in KVM_MODULES:
        if module in modules:
            return f"{kind}, nested" if kind.startswith("hardware") and "hypervisor" in flags else kind
    if flags & {"vmx", "svm"}:
        return "hardware"
    return "software: the processor shows neither VMX nor SVM"


def _in_child(attempt: Callable[[], None]) -> str:
    """What went wrong in `attempt`, made in a child process of its own; "" when nothing did."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    told, tell = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            namespaces.die_with_parent(parent)
            attempt()
            status = 0
        except OSError as error:
            os.write(tell, str(error.strerror or error).encode())
        finally:  # also after a mistake of our own: no code of the parent may run twice
            os._exit(status)
    os.close(tell)
    with open(told, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return text or f"killed by signal {os.WTERMSIG(status)}"
    return text or ("the probe broke" if status else "")


def _trace(request: int) -> None:
    """Trace a grandchild up to its next system call, as the request has it."""
    tracee = os.fork()
    if tracee == 0:
        try:
            ptrace.ptrace(ptrace.PTRACE_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.getppid()
        finally:
            os._exit(0)
    try:
        _, status = os.waitpid(tracee, 0)
        if not os.WIFSTOPPED(status):
            raise OSError(errno.EPERM, "tracing own children is forbidden")
        ptrace.ptrace(request, tracee)
        _, status = os.waitpid(tracee, 0)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
            raise OSError(errno.ENOSYS, "a system call does not stop the traced process")
    finally:
        os.kill(tracee, signal.SIGKILL)


def _notify(flags: int = 0) -> None:
    listener = seccomp.install(seccomp.Filter().program(seccomp.RET_ALLOW))
    if flags:
        fcntl.ioctl(listener, seccomp.NOTIF_SET_FLAGS, flags)


def _enter(flag: int) -> None:
    """Be root of a new user namespace, with one more namespace, and use a right that only root has there."""
    user, group = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
        with open(f"/proc/self/{name}", "w") as stream:
            stream.write(text)
    if flag:
        namespaces.unshare(flag)
    if flag == namespaces.CLONE_NEWNS:
        mounts.mount("probe", SCRATCH, "tmpfs", 0, "size=64k")
    elif flag == namespaces.CLONE_NEWNET:
        namespaces.loopback_up()
    elif flag == namespaces.CLONE_NEWPID:
        first = os.fork()
        if first == 0:
            os._exit(os.getpid() != 1)
        if os.waitpid(first, 0)[1]:
            raise OSError(errno.EPERM, "its first process is not number 1")


def _overlay() -> None:
    _enter(namespaces.CLONE_NEWNS)
    os.chdir(SCRATCH)
    for directory in ("lower", "upper", "work", "root"):
        os.mkdir(directory)
    with open("lower/file", "w") as stream:
        stream.write("below")
    mounts.mount("probe", "root", "overlay", 0, "lowerdir=lower,upperdir=upper,workdir=work,userxattr")
    with open("root/file", "a") as stream:
        stream.write("above")


def _fuse() -> None:
    _enter(namespaces.CLONE_NEWNS)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)  # it counts in which user namespace it was opened
    mounts.mount("probe", SCRATCH, "fuse", 0, f"fd={device},rootmode=40000,user_id=0,group_id=0")

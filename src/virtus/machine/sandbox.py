"""The box around a machine: namespaces of its own, a root made of layers, and nothing left when any process dies.

    supervisor ── outer (owns the new user namespace) ── inner (PID 1 of the new PID namespace: runs `body`)

Each dies with its parent, and with PID 1 the host ends everything in the box; mounts go with their namespace.
"""

import os
import resource
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, Never

from virtus import errors
from virtus.errors import HostLacks, MachineBroken, UsageError, VirtusError
from virtus.host import channel, dispositions, mounts, namespaces
from virtus.host.channel import Channel
from virtus.machine import scratch, streams
from virtus.machine.devices_tree import HostNodes, hide_console, mask_proc, replace_inherited_devices
from virtus.machine.layers import Layers
from virtus.machine.meter import shell_status
from virtus.machine.spec import GuestSpec
from virtus.records import dataclass, replace

_BASE = (
    namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWIPC | namespaces.CLONE_NEWCGROUP
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Inside:
    """What PID 1 of the box is given."""

    procfs: int  # directory descriptor of a procfs of the new PID namespace
    control: Channel  # to the supervisor
    spec: GuestSpec
    uid: int
    gid: int
    groups: list[int]
    cwd: str
    outer: int  # pidfd of the process without which the box must not be

    def die_with_outer(self) -> None:
        """Have the host end the box when its outer process dies; again after every change of user or group."""
        namespaces.die_with(self.outer)


class SandboxProcess:
    """The supervisor's hold on the box."""

    def __init__(self, pid: int, control: Channel, changes: scratch.Directory | None) -> None:
        self.pid = pid
        self.control = control
        self._changes = changes
        self._ended: tuple[int, resource.struct_rusage] | None = None

    def wait(self) -> tuple[int, resource.struct_rusage]:
        """Wait until the box is gone: wait status of `body`'s exit, and what the whole tree used."""
        if self._ended is None:
            _, status, usage = os.wait4(self.pid, 0)
            self._ended = status, usage
            self.control.close()
            if self._changes is not None:
                self._changes.remove()
        return self._ended

    def kill(self) -> None:
        """End everything in the box at once."""
        if self._ended is None:
            os.kill(self.pid, signal.SIGKILL)


def probe() -> None:
    """Raises HostLacks when a box cannot be made here; makes one to find out."""
    process = start(GuestSpec(argv=["true"]), lambda inside: 0, proc="real")
    process.wait()


def start(
    spec: GuestSpec,
    body: Callable[[Inside], int],
    *,
    proc: Literal["real", "empty"],
) -> SandboxProcess:
    """Run `body` as PID 1 of a new box; returns when the box stands, raises VirtusError when it cannot be built.

    `proc`: a fresh procfs on /proc, or an empty directory that the personality answers itself. Modules that `body`
    needs must be imported before: the guest's root could supply others.
    """
    _check(spec)
    changes = scratch.Directory() if spec.keep is None and scratch.is_needed() else None
    if changes is not None:
        spec = replace(spec, keep=changes.path)
    control, inner_control = channel.pair()
    told, tell = os.pipe()
    go_out, go_in = os.pipe()
    cwd = spec.cwd or os.getcwd()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    supervisor = os.getpid()
    pid = os.fork()
    if pid == 0:
        control.close()
        os.close(told)
        os.close(go_in)
        _outer(supervisor, spec, body, proc, inner_control, tell, go_out, cwd)
    inner_control.close()
    os.close(tell)
    os.close(go_out)
    process = SandboxProcess(pid, control, changes)
    try:
        _hand_shake(spec, pid, told, go_in)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        os.close(told)
        os.close(go_in)
    return process


def _check(spec: GuestSpec) -> None:
    what = "preparing the guest's root"
    if not os.path.isdir(spec.root) or not os.access(spec.root, os.R_OK | os.X_OK):
        raise UsageError(what, f"--root {spec.root} is not a readable directory")
    for volume in spec.volumes:
        if not os.path.exists(volume.source):
            raise UsageError(what, f"--volume {volume.source}: no such file or directory")
        if not volume.target.startswith("/"):
            raise UsageError(what, f"--volume to {volume.target}: only Windows programs have drives", "name a path")
    if spec.keep is not None and not os.path.isdir(spec.keep):
        try:
            os.makedirs(spec.keep)
        except OSError as error:
            raise UsageError(what, f"--keep {spec.keep}: {error.strerror}", "give a directory to write to") from error


def _hand_shake(spec: GuestSpec, pid: int, told: int, go: int) -> None:
    """Map the users once the namespace is there; wait until the box stands."""
    message = os.read(told, 1)
    if message == b"u":
        user, group = _identity(spec)
        try:
            namespaces.map_users(pid, user, group)
        except OSError as error:
            raise _lacks(error) from error
        os.write(go, b"m")
        message = os.read(told, 1)
    if message == b"r":
        return
    text = message + b"".join(iter(lambda: os.read(told, 1 << 16), b""))
    if not text:
        raise MachineBroken("building the box", "its first process ended unexpectedly")
    raise errors.from_packed(text[1:])


def _identity(spec: GuestSpec) -> tuple[int, int]:
    user = os.geteuid() if spec.user is None else spec.user
    return user, os.getegid() if spec.user is None else spec.user


def _lacks(error: OSError) -> HostLacks:
    remedy = "run as root, or allow unprivileged user namespaces (sysctl user.max_user_namespaces"
    remedy += ", kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    return HostLacks("building the box", str(error), remedy)


def _fail(tell: int, error: VirtusError) -> Never:
    os.write(tell, b"e" + error.packed())
    os._exit(1)


def _outer(
    supervisor: int,
    spec: GuestSpec,
    body: Callable[[Inside], int],
    proc: str,
    control: Channel,
    tell: int,
    go: int,
    cwd: str,
) -> Never:
    """The process that owns the namespaces; it only waits for PID 1."""
    try:
        namespaces.die_with_parent(supervisor)
        dispositions.ignore((signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTERM, signal.SIGHUP))
        user, group = os.geteuid(), os.getegid()
        privileged = namespaces.is_host_root()
        inherited = streams.Inherited()
        if privileged:
            # before the user namespace: there the host's mounts are locked together, and trusted.* attributes gone
            namespaces.unshare(namespaces.CLONE_NEWNS)
            inherited.protect()
            _build_root(spec)
        net = namespaces.CLONE_NEWNET if spec.net != "host" else 0
        namespaces.unshare(_BASE | net)
        os.write(tell, b"u")
        if os.read(go, 1) != b"m":
            os._exit(1)
        namespaces.die_with_parent(supervisor)  # a change of credentials has cleared it
        if not privileged:
            inherited.protect()
        outer = os.pidfd_open(os.getpid())
        pid = os.fork()
    except OSError as error:
        _fail(tell, _lacks(error))
    except VirtusError as error:
        _fail(tell, error)
    if pid == 0:
        _inner(spec, body, proc, control, tell, cwd, (user, group), outer, inherited, root_stands=privileged)
    control.close()
    os.close(tell)
    _, status = os.waitpid(pid, 0)
    inherited.give_back()
    os._exit(shell_status(status))


def _inner(
    spec: GuestSpec,
    body: Callable[[Inside], int],
    proc: str,
    control: Channel,
    tell: int,
    cwd: str,
    caller: tuple[int, int],
    outer: int,
    inherited: streams.Inherited,
    *,
    root_stands: bool,
) -> Never:
    """PID 1 of the box."""
    status = 70  # EX_SOFTWARE
    confined = not root_stands and namespaces.are_confined()
    try:
        namespaces.die_with(outer)
        channel.sethostname(spec.hostname)
        if spec.net != "host":
            namespaces.loopback_up()
        if not root_stands:
            _build_root(spec)
        procfs = _mount_proc(proc)
        replace_inherited_devices()
        inherited.enter()
        _forbid_imports()
        inside = Inside(procfs, control, spec, *_who(spec, caller, procfs), _where(cwd), outer)
        os.write(tell, b"r")
        os.close(tell)
        tell = -1
        status = body(inside)
    except VirtusError as error:
        if tell >= 0:
            _fail(tell, error)
    except OSError as error:
        if tell >= 0:
            remedy = "overlay and user namespaces of Linux 5.12 or newer are needed"
            if confined:
                remedy = "run as root, or sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            _fail(tell, HostLacks("building the box", str(error), f"{remedy}; `virtus doctor` tells more"))
        os.write(2, f"virtus: the box broke: {error}\n".encode())
    except Exception:  # a mistake of our own: shown whole, since no caller is left to see it
        sys.__excepthook__(*sys.exc_info())
    finally:
        os._exit(status)


def _who(spec: GuestSpec, caller: tuple[int, int], procfs: int) -> tuple[int, int, list[int]]:
    with open(os.open("self/uid_map", os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)) as stream:
        single = all(line.split()[2] == "1" for line in stream)
    if spec.user is not None:
        return spec.user, spec.user, []
    return (*caller, [] if single else os.getgroups())


def _where(cwd: str) -> str:
    return cwd if os.path.isdir(cwd) else "/"


def _build_root(spec: GuestSpec) -> None:
    """Mount everything that does not depend on the new PID namespace, and pivot into it."""
    mounts.make_private()
    nodes = HostNodes()
    proc = mounts.copy_tree("/proc")
    volumes = [(mounts.copy_tree(os.fspath(volume.source)), volume) for volume in spec.volumes]
    layers = Layers(os.path.realpath(spec.root), os.path.realpath(spec.keep) if spec.keep else None)
    mounts.pivot_root(layers.root)
    nodes.populate()
    mounts.attach(proc, "/proc")  # a fresh one may only be mounted where one is visible
    for tree, volume in volumes:
        _show(tree, volume.target, read_only=volume.read_only)


def _mount_proc(proc: str) -> int:
    """Cover /proc as the personality wants it; the descriptor of a procfs of this PID namespace."""
    mounts.mount("proc", "/proc", "proc", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
    procfs = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if proc == "real":
        mask_proc()
        hide_console()
    else:
        mounts.mount("proc", "/proc", "tmpfs", mounts.MS_RDONLY, "mode=555,size=4k")
    return procfs


def _show(tree: int, target: str, *, read_only: bool) -> None:
    """Attach a volume inside the new root, making its mount point where there is none."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(target, exist_ok=True)
        mounts.restrict_copy(tree, mounts.MOUNT_ATTR_NODEV)  # one device may be asked for, by its own name
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target) or "/", exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    mounts.attach(tree, target)
    if read_only:
        mounts.make_read_only(target)


class _NoImports:
    """The files below are the guest's now: a module found there would be the guest's code in the kernel."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> None:
        """Refuse."""
        raise ImportError(f"{name} was to be imported inside a guest's root: import it before")


def _forbid_imports() -> None:
    sys.path.clear()
    sys.meta_path[:] = [_NoImports()]

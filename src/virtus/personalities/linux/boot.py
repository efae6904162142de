"""From a sandbox to a running guest: the kernel, its first process, its standard streams."""

import errno
import importlib
import os
import resource
import signal
import stat
from typing import Any, Final

from virtus.errors import GuestNotFound, GuestNotRunnable
from virtus.exits import Context
from virtus.guests.identify import DEFAULT_PATH
from virtus.host import capabilities
from virtus.personalities.linux import delivery, job_control, limits_calls, paths, program, stdio
from virtus.personalities.linux.abi import abi_of
from virtus.personalities.linux.impersonation import Impersonation
from virtus.personalities.linux.kernel import Kernel
from virtus.personalities.linux.task import Credentials, Place, Process, Task

HANDLERS: Final = (
    "events", "file_calls", "futex", "identity_calls", "interval_timers", "limits_calls", "locks", "memory_calls",
    "metadata_calls", "path_calls", "pipes", "poll_calls", "prctl_calls", "process_calls", "program",
    "refused_calls", "riscv_calls", "sched_calls", "session_calls", "signal_calls", "socket_calls", "stdio", "sysv",
    "time_calls", "wait_calls",
)  # fmt: skip
FIRST_PID: Final = 2


def load_handlers(machine: str = "x86_64") -> None:
    """Import every module that puts calls into the table: before the sandbox is entered, where nothing can be."""
    abi_of(machine)
    for name in HANDLERS:
        importlib.import_module(f"virtus.personalities.linux.{name}")


def make_kernel(meter: Any, inside: Any, *, machine: str = "x86_64") -> Kernel:
    """A kernel for the sandbox this process is in (`inside`: machine.sandbox.Inside), and for guests of a processor."""
    with os.fdopen(os.open("self/uid_map", os.O_RDONLY | os.O_CLOEXEC, dir_fd=inside.procfs)) as stream:
        mapped = sum(int(line.split()[2]) for line in stream)
    if mapped == 1 and inside.uid != 0:
        # files are opened by the kernel process on the guest's behalf: it must be refused what the guest's user is
        capabilities.give_up(capabilities.OVER_FILES)
    return Kernel(meter, inside.spec, inside.procfs, Impersonation(many_users=mapped > 1), machine)


def start_guest(kernel: Kernel, context: Context, inside: Any) -> Task:
    """Make the guest's first process (pid 2) and start its program; raises VirtusError when it cannot be."""
    spec = kernel.spec
    process = Process(kernel, kernel.next_pid(), kernel.init)
    process.group = process.session = process.pid
    process.start_ns = kernel.started_ns
    process.limits = limits_calls.initial_limits()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the kernel holds the open files of all processes
    kernel.init.children[process.pid] = process
    kernel.processes[process.pid] = process
    task = Task(kernel, process.pid, process, context)
    process.tasks[task.tid] = task
    kernel.attach(task, context)
    task.credentials = Credentials(inside.uid, inside.gid, tuple(inside.groups))
    umask = os.umask(0)
    os.umask(umask)
    cwd = inside.cwd
    task.place = Place(cwd, os.open(cwd, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), umask)
    task.descriptors.sharers = 1
    for fd in (0, 1, 2):
        try:
            task.descriptors.put(fd, stdio.standard_file(kernel, fd, process))
        except OSError as error:
            if error.errno != errno.EBADF:  # closed: as the caller has it
                raise
    environment = dict(os.environ) if spec.env is None else dict(spec.env)
    listed = [os.fsencode(f"{key}={value}") for key, value in environment.items()]
    arguments = [os.fsencode(argument) for argument in spec.argv]
    path = find_program(task, spec.argv[0], environment.get("PATH", DEFAULT_PATH))
    try:
        program.execute(task, path, arguments, listed)
    except program.ProgramLost as lost:
        raise GuestNotRunnable(f"starting {path}", str(lost.__cause__)) from lost
    except OSError as error:
        what = f"starting {path}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise GuestNotFound(what, "it, or the program interpreter it names, is not in the guest's root") from error
        if error.errno == errno.ENOEXEC:
            raise GuestNotRunnable(what, f"no Linux program for {kernel.abi.machine}, and no script with #!") from error
        raise GuestNotRunnable(what, os.strerror(error.errno or 0)) from error
    context = task.context
    context.resume()
    return task


def find_program(task: Task, name: str, search: str) -> str:
    """A command name's path in the guest's root, as a shell finds it; raises GuestNotFound."""
    if "/" in name:
        return name
    for directory in search.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            host = paths.open_host(task, candidate, os.O_PATH)
        except OSError:
            continue
        try:
            mode = os.fstat(host).st_mode
        finally:
            os.close(host)
        if stat.S_ISREG(mode) and mode & 0o111:
            return candidate
    raise GuestNotFound(
        f"looking for {name}", "no such command in the guest's PATH", "give its path, or --env PATH=..."
    )


def signal_from_outside(kernel: Kernel, number: int) -> None:
    """A signal for the machine as a whole: to the foreground of its terminal, or else to its first process."""
    if kernel.console is not None and number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH):
        kernel.console.signal(number)
        return
    first = kernel.processes.get(FIRST_PID)
    if first is None or not first.alive:
        return
    if number == signal.SIGCONT:
        delivery.post_group(kernel, first.group, number)  # what a shell's fg or bg means
    else:
        delivery.post(first, number)
        if number == signal.SIGHUP and kernel.console is not None and job_control.has_stopped(kernel, first.group):
            delivery.post_group(kernel, first.group, signal.SIGCONT)  # its shell is gone: nobody else will

"""The tracing process of User Mode Linux's TT mode: it alone traces the guest, and talks to the kernel process by pipe.

A guest's system call stops twice here. At its entry the call is nullified: overwritten with getpid(2), which the host
executes in its place; at its exit the kernel process is told, and what it answers becomes the call's result. A call
so takes four context switches instead of two: guest, tracing process, kernel process, and the same way back.

Between two messages exactly one of the two processes runs: the kernel after an exit, the tracing process after RUN.
"""

import ctypes
import os
import select
import signal
import struct
import traceback
from typing import Final

from virtus.exits import ENDED, SYSCALL, Exit, Reason
from virtus.host import ptrace
from virtus.isa.x86 import registers as r
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.ptrace import WAIT_STOPPED, PtraceVcpu, StubContext
from virtus.vcpus.stub import CLONE_FILES, PR_SET_PDEATHSIG

HEAD: Final = struct.Struct("<2qQq")  # operation or reason, context, two operands
MESSAGE: Final = HEAD.size + ptrace.REGISTER_BYTES
RUN, RESUME, INJECT, FORK, FRESH, EMPTY, FAULT, GET_STATE, SET_STATE, WATCH, BALANCE, FLUSH, CLOSE = range(13)
REASONS: Final = tuple(Reason)
FAILED: Final = -1
GETPID: Final = NUMBERS["getpid"]
_ENOSYS: Final = 2**64 - 38  # what RAX holds at a system call's entry
NO_REGISTERS: Final = bytes(ptrace.REGISTER_BYTES)


class NullifyingVcpu(PtraceVcpu):
    """Like `ptrace`, but each call goes through the host as a getpid (PTRACE_SYSCALL: entry stop and exit stop)."""

    request = ptrace.PTRACE_SYSCALL

    def run(self) -> Exit:
        """See Vcpu."""
        exit = super().run()
        if exit.reason is SYSCALL:
            status = self._nullify(exit.context)
            if status:
                exit.reason, exit.number = ENDED, status
        return exit

    def _nullify(self, context: StubContext) -> int:
        """Let the host execute getpid instead of the call; 0, or the wait status of a context that died of it."""
        regs, block = context.regs, self._block
        saved = regs.tobytes()
        regs[r.ORIG_RAX] = GETPID
        block[0], block[1], block[2], block[3] = context.ident, ptrace.PTRACE_SYSCALL, 0, context.address
        block[4], block[6] = context.ident, context.address
        self._stepper.step()
        status = block[5] & 0xFFFF
        if status & 0xFF != WAIT_STOPPED:
            self.contexts.pop(context.ident, None)
            return status
        regs.cast("B")[:] = saved
        regs[r.RAX] = _ENOSYS
        return 0


def read_exactly(fd: int, size: int) -> bytes:
    """`size` bytes of a pipe; raises EOFError when the other side is gone."""
    data = os.read(fd, size)
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            raise EOFError("the other process is gone")
        data += more
    return data


class TracingProcess:
    """Serves the kernel process: one request at a time, one message of fixed size each way."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._vcpu = NullifyingVcpu()

    def serve(self) -> None:
        """Until the kernel process says so or is gone."""
        self._answer(0, 0, 0)
        vcpu, contexts = self._vcpu, self._vcpu.contexts
        while True:
            message = read_exactly(self._requests, MESSAGE)
            operation, ident, first, second = HEAD.unpack_from(message)
            context = contexts.get(ident)
            if context is not None and operation in (RUN, RESUME, INJECT, FORK, EMPTY):
                context.regs.cast("B")[:] = message[HEAD.size :]
            if operation == RUN:
                if context is not None:
                    vcpu.resume(context)
                self._report(vcpu.run())
            elif operation == RESUME:
                if context is not None:
                    vcpu.resume(context)
            elif operation == FLUSH:
                vcpu.flush()
            elif operation == CLOSE:
                vcpu.close()
                self._answer(0, 0, 0)
                return
            else:
                self._request(operation, context, first, second)

    def _request(self, operation: int, context: StubContext | None, first: int, second: int) -> None:
        vcpu, regs, payload = self._vcpu, NO_REGISTERS, b""
        result = 0
        try:
            if operation == WATCH:
                vcpu.watch(select.epoll.fromfd(first))
            elif operation == BALANCE:
                vcpu.balance()
            elif operation == FRESH:
                child = vcpu.boot()
                result, regs = child.ident, child.regs.tobytes()
            elif context is None:
                raise ProcessLookupError(3, "no such context")
            elif operation == INJECT:
                # the registers hold the call's number and arguments; the kernel process keeps the guest's own
                values = [context.regs[index] for index in r.SYSCALL_ARGUMENTS]
                result = context.inject(context.regs[r.RAX], *values)
            elif operation == FORK:
                child = context.fork(share_memory=bool(first))
                result, regs = child.ident, child.regs.tobytes()
            elif operation == EMPTY:
                context.empty()
            elif operation == FAULT:
                payload = context.fault()
            elif operation == GET_STATE:
                payload = context.extended_state()
            elif operation == SET_STATE:
                context.set_extended_state(read_exactly(self._requests, first))
        except OSError as error:
            os.write(self._answers, HEAD.pack(FAILED, error.errno or 5, 0, 0) + NO_REGISTERS)
            return
        os.write(self._answers, HEAD.pack(0, result, vcpu.created, len(payload)) + regs + payload)

    def _report(self, exit: Exit) -> None:
        context = exit.context
        ident, regs = (0, NO_REGISTERS) if context is None else (context.ident, context.regs.tobytes())
        os.write(self._answers, HEAD.pack(REASONS.index(exit.reason), ident, exit.number, 0) + regs)

    def _answer(self, code: int, result: int, size: int) -> None:
        os.write(self._answers, HEAD.pack(code, result, self._vcpu.created, size) + NO_REGISTERS)


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
GONE: Final = int(signal.SIGRTMAX)
"""What the host sends to the kernel process when the tracing process ends."""
_exit: Final = ctypes.cast(_libc._exit, ctypes.c_void_p)
"""A handler of the C library's own: one of Python's would wait for the read that never ends."""


def outlive() -> None:
    """The tracing process may end from here on."""
    _libc.signal(GONE, int(signal.SIG_IGN))


def start() -> tuple[int, int, int]:
    """Start a tracing process that shares this process's descriptor table: (its pid, requests, answers).

    This process ends when that one does, unless `outlive` is called before: pipes whose ends both share never break.
    """
    requests_out, requests_in = os.pipe()
    answers_out, answers_in = os.pipe()
    _libc.signal(GONE, _exit)
    pid: int = _libc.syscall(ctypes.c_long(NUMBERS["clone"]), ctypes.c_ulong(CLONE_FILES | GONE), 0, 0, 0, 0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "starting the tracing process")
    if pid == 0:
        status = 1
        try:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            TracingProcess(requests_out, answers_in).serve()
            status = 0
        except EOFError:
            status = 0  # the kernel process is gone: so are the guests, by PTRACE_O_EXITKILL
        except BaseException:  # a mistake of our own: shown whole, since no caller is left to see it
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(status)
    return pid, requests_in, answers_out

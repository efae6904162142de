"""vCPU `ptrace`: guest instructions run natively in stub processes; system calls and faults come out by ptrace(2).

The kernel is itself the tracer (SKAS): PTRACE_SYSEMU stops a guest at its system call and lets the host forget the
call; two context switches. Guest address spaces hold nothing of the host but the stub's one page.
"""

import ctypes
import os
import select
import signal
from collections import deque
from typing import Final

from virtus.exits import ENDED, EVENT, SIGNAL, SYSCALL, Exit
from virtus.host import ptrace
from virtus.isa.x86 import registers as r
from virtus.isa.x86.layout import STUB_START
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus import stub
from virtus.vcpus.host_context import KICK, HostContext, HostVcpu

ANY: Final = 2**64 - 1
LOW_HALF: Final = 2**32 - 1
"""Of RAX: what the number of a system call is taken from (arch/x86/entry/entry_64.S, do_syscall_64)."""
WAIT_STOPPED: Final = 0x7F
_MUNMAP, _MMAP, _CLONE, _EPOLL_WAIT, _RSEQ = (
    NUMBERS[name] for name in ("munmap", "mmap", "clone", "epoll_wait", "rseq")
)


class StubContext(HostContext):
    """A guest thread on a stub process (see `virtus.exits.Context`)."""

    __slots__ = ("_array", "address")
    vcpu: "PtraceVcpu"

    def __init__(self, vcpu: "PtraceVcpu", ident: int) -> None:
        self._array = (ctypes.c_uint64 * r.COUNT)()
        self.address = ctypes.addressof(self._array)
        super().__init__(vcpu, ident, memoryview(self._array).cast("B").cast("Q"))

    def inject(self, number: int, *arguments: int) -> int:
        """See Context. One round trip: the stub executes `syscall; int3`."""
        regs = self.regs
        saved = regs.tobytes()
        for index, value in zip(r.SYSCALL_ARGUMENTS, arguments, strict=False):
            regs[index] = value & r.NO_SYSCALL
        regs[r.RAX], regs[r.ORIG_RAX], regs[r.RIP] = number, r.NO_SYSCALL, stub.SYSCALL_AT
        try:
            self.vcpu.run_injected(self)
            result = regs[r.RAX]
        finally:
            regs.cast("B")[:] = saved
        return result - 2**64 if result >> 63 else result

    def fork(self, *, share_memory: bool) -> "StubContext":
        """See Context."""
        flags = stub.CLONE_FILES | stub.CLONE_PARENT | stub.CLONE_PTRACE | signal.SIGCHLD
        tid = self.inject(_CLONE, flags | (stub.CLONE_VM if share_memory else 0), 0, 0, 0, 0)
        if tid < 0:
            raise OSError(-tid, os.strerror(-tid))
        child = self.vcpu.adopt(tid)
        child.regs[:] = self.regs
        return child

    def fresh(self) -> "StubContext":
        """See Context."""
        child = self.vcpu.zygote.fork(share_memory=False)
        stub.zero_registers(child.regs)
        return child

    def empty(self) -> None:
        """See Context."""
        self.inject(_MUNMAP, 0, STUB_START)
        self.set_extended_state(self.vcpu.initial_xstate)

    def fault(self) -> bytes:
        """See Context."""
        return ptrace.get_siginfo(self.ident)

    def extended_state(self) -> bytes:
        """See Context."""
        return ptrace.get_xstate(self.ident)

    def set_extended_state(self, state: bytes) -> None:
        """See Context."""
        ptrace.set_xstate(self.ident, state)


class PtraceVcpu(HostVcpu[StubContext]):
    """All contexts of one machine, and the wait for the next of them to come out."""

    def __init__(self) -> None:
        super().__init__()
        self._stepper = ptrace.Stepper()
        self._block = self._stepper.block
        self._scratch = (ctypes.c_uint64 * r.COUNT)()
        self._scratch_view = memoryview(self._scratch).cast("B").cast("Q")
        self._held: deque[tuple[StubContext, int]] = deque()  # what came out while injecting: see `_hold`
        self._epoll: select.epoll | None = None
        self._watcher: StubContext | None = None
        self.created = 0
        self.initial_xstate = b""
        self.zygote = self._make_zygote()

    def _make_zygote(self) -> StubContext:
        """The stub with an empty address space that `fresh` copies."""
        zygote = self._new(stub.spawn())
        ptrace.ptrace(ptrace.PTRACE_GETREGS, zygote.ident, 0, zygote.address)
        pointer, size, signature = stub.rseq_configuration(zygote.ident)
        if pointer and zygote.inject(_RSEQ, pointer, size, stub.RSEQ_FLAG_UNREGISTER, signature) < 0:
            raise OSError(1, "unregistering the stub's restartable sequences failed")
        stub.zero_registers(zygote.regs)
        self.initial_xstate = stub.clean_xstate(zygote.extended_state())
        zygote.empty()
        return zygote

    def _new(self, tid: int) -> StubContext:
        context = self.contexts[tid] = StubContext(self, tid)
        self.created += 1
        return context

    def boot(self) -> StubContext:
        """The first guest context: stopped, its address space empty."""
        return self.zygote.fresh()

    def watch(self, epoll: select.epoll) -> None:
        """From now on `run` also returns, with Reason.EVENT, when this epoll set has something ready."""
        self._epoll = epoll
        watcher = self._watcher = self.zygote.fresh()
        page = watcher.inject(_MMAP, 0, 4096, 3, 0x22, -1, 0)
        regs = watcher.regs
        regs[r.RAX], regs[r.RIP] = _EPOLL_WAIT, stub.SYSCALL_AT
        regs[r.RDI], regs[r.RSI], regs[r.RDX], regs[r.R10] = epoll.fileno(), page, 1, ANY
        self._watch_registers = regs.tobytes()

    def adopt(self, tid: int) -> StubContext:
        """Take over a stub that a stub has cloned: wait for its first stop."""
        child = self._new(tid)
        block = self._block
        block[0], block[4], block[6] = 0, tid, child.address
        self._stepper.step()
        return child

    def flush(self) -> None:
        """Resume now what was to be resumed with the next wait."""
        context, self._next = self._next, None
        if context is not None and not self._holds(context):
            self._let_go(context, self.request)

    def _hold(self, context: StubContext, status: int) -> None:
        """Keep what came out while a context was injecting: its end until the next `run`, a signal of the host's until
        it is to run again. A guest that its kernel has stopped does not come out."""
        self._held.append((context, status))

    def _holds(self, context: StubContext) -> bool:
        return any(held is context for held, _ in self._held)

    def _take_held(self) -> tuple[StubContext, int] | None:
        for entry in list(self._held):
            context, status = entry
            known = self.contexts.get(context.ident) is context
            if context.running or status & 0xFF != WAIT_STOPPED or not known:
                self._held.remove(entry)
                if known:
                    if self._next is context:
                        self._next = None
                    return entry
        return None

    request = ptrace.PTRACE_SYSEMU

    def _let_go(self, context: StubContext, request: int) -> None:
        try:
            ptrace.ptrace(ptrace.PTRACE_SETREGS, context.ident, 0, context.address)
            ptrace.ptrace(request, context.ident)
        except ProcessLookupError:
            pass  # killed while stopped: the wait will say so

    def run_injected(self, context: StubContext) -> None:
        """Run a context from its registers to the stub's trap."""
        block = self._block
        while True:
            block[0], block[1], block[2], block[3] = context.ident, ptrace.PTRACE_CONT, 0, context.address
            block[4], block[6] = context.ident, context.address
            if self._stepper.step() != context.ident:
                raise ProcessLookupError(3, f"stub {context.ident} vanished")
            status = block[5] & 0xFFFF
            if status & 0xFF != WAIT_STOPPED:
                self._hold(context, status)
                raise ProcessLookupError(3, f"stub {context.ident} was killed")
            number = status >> 8
            if number == signal.SIGTRAP:
                return
            if number not in (KICK, signal.SIGSTOP):
                self._hold(context, status)

    def run(self) -> Exit:
        """See Vcpu."""
        block, exit = self._block, self._exit
        while True:
            held = self._take_held() if self._held else None
            if held is not None:
                context, status = held
            else:
                if self._epoll is not None and self._watcher is not None:
                    if not self._running:
                        self._epoll_only()
                        exit.reason, exit.context, exit.number = EVENT, None, 0
                        if self._epoll.poll(0, 1):
                            return exit
                        continue
                    if not self._watcher.running:
                        self._watcher.regs.cast("B")[:] = self._watch_registers
                        self._watcher.running = True
                        self._let_go(self._watcher, ptrace.PTRACE_CONT)
                resumed, self._next = self._next, None
                if resumed is not None:
                    block[0], block[1], block[2] = resumed.ident, self.request, 0
                    block[3] = block[6] = resumed.address
                else:
                    block[0], block[6] = 0, ctypes.addressof(self._scratch)
                block[4] = ANY
                tid = self._stepper.step()
                found = self.contexts.get(tid)
                if found is None:
                    continue  # interrupted, or the rest of a context that was forgotten
                context = found
                status = block[5] & 0xFFFF
                if context is not resumed and status & 0xFF == WAIT_STOPPED:
                    context.regs[:] = self._scratch_view if resumed is None else resumed.regs
            if context is self._watcher:
                context.running = False
                if status & 0xFF != WAIT_STOPPED:
                    raise OSError(3, "the machine's I/O watcher was killed")
                exit.reason, exit.context, exit.number = EVENT, None, 0
                return exit
            self.came_out(context)
            exit.context = context
            if status & 0xFF != WAIT_STOPPED:
                del self.contexts[context.ident]
                exit.reason, exit.number = ENDED, status
                return exit
            number = status >> 8
            if number == ptrace.SYSCALL_STOP:
                exit.reason, exit.number = SYSCALL, context.regs[r.ORIG_RAX] & LOW_HALF
                return exit
            exit.reason = SIGNAL
            exit.number = 0 if number in (KICK, signal.SIGSTOP) else number
            return exit

    def _epoll_only(self) -> None:
        """Nobody runs: wait for the host alone, looking now and then whether a stub was killed from outside."""
        assert self._epoll is not None
        while not self._epoll.poll(1.0, 1):
            for context in list(self.contexts.values()):
                try:
                    pid, status = os.waitpid(context.ident, os.WNOHANG | ptrace.WALL)
                except ChildProcessError:
                    continue
                if pid and not os.WIFSTOPPED(status):
                    self._hold(context, status & 0xFFFF)
                    return

    def close(self) -> None:
        """See Vcpu."""
        for context in list(self.contexts.values()):
            self.kill(context)
        for tid in list(self.contexts):
            try:
                os.waitpid(tid, ptrace.WALL)
            except ChildProcessError:
                pass  # reaped before
        self.contexts.clear()

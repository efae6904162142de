"""vCPU `interpreter`: programs for another processor, executed instruction by instruction in this process.

A guest's address space is a stub process, as for the translator, whose place this vCPU can take; the guest's threads
take turns, a quantum of instructions each. It is slower by two orders of magnitude, and one can look at every
instruction: it is what tracing and debugging run on. For them it has breakpoints, single steps and watched accesses
(`context.Debugging`), and an observer that is told of all that happens.
"""

import errno
import os
import select
import signal
from collections import deque
from typing import Final, Protocol

from virtus.exits import Exit, Reason
from virtus.host import ptrace
from virtus.isa.instruction_set import InstructionSet
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.foreign import KEPT_BY_FORK, CallConvention
from virtus.vcpus.interpreter.blocks import BlockEvaluator
from virtus.vcpus.interpreter.context import AddressSpace, Halt, InterpretedContext
from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.interpreter.memory import MemoryFault
from virtus.vcpus.interpreter.pages import StoreFault
from virtus.vcpus.interpreter.watched import WatchedMemory
from virtus.vcpus.ptrace import PtraceVcpu, StubContext
from virtus.vcpus.translator import layout

QUANTUM: Final = 20_000
"""Instructions that a thread carries out before it is another's turn."""
IDLE_LOOK_S: Final = 1.0
"""How often it is looked, while nobody runs, whether a stub was killed from outside."""
ILL_ILLOPC, TRAP_BRKPT, TRAP_TRACE = 1, 1, 2  # si_code, include/uapi/asm-generic/siginfo.h
SEGV_MAPERR, SEGV_ACCERR, BUS_ADRALN, BUS_ADRERR = 1, 2, 1, 2
MS_ASYNC: Final = 1  # include/uapi/asm-generic/mman-common.h
MADV_POPULATE_READ, MADV_POPULATE_WRITE = 22, 23
_MSYNC, _MADVISE = NUMBERS["msync"], NUMBERS["madvise"]


class Observer(Protocol):
    """Who is told of all that a guest does; it must not change anything."""

    def evaluator(self, isa: InstructionSet, registers: "memoryview[int]", space: AddressSpace) -> Evaluator:
        """What a new thread is to be interpreted with."""
        ...

    def started(self, context: InterpretedContext, parent: InterpretedContext | None) -> None:
        """There is a new thread, a copy of `parent` or with an address space of its own."""
        ...

    def before(self, context: InterpretedContext) -> None:
        """The thread is about to execute the instruction at its PC."""
        ...

    def after(self, context: InterpretedContext) -> None:
        """It has executed it, or has come out at it."""
        ...

    def system_call(self, context: InterpretedContext, number: int) -> None:
        """The thread comes out with a system call."""
        ...

    def resumed(self, context: InterpretedContext) -> None:
        """The thread goes on; if it was inside a system call, with its result."""
        ...

    def faulted(self, context: InterpretedContext, number: int, address: int) -> None:
        """The thread comes out with a signal."""
        ...

    def mapped(self, context: InterpretedContext, start: int, end: int, descriptor: int, offset: int) -> None:
        """A part of a file has been mapped to be executed. The descriptor is this process's."""
        ...

    def emptied(self, context: InterpretedContext) -> None:
        """Its address space is a new program's."""
        ...

    def ended(self, context: InterpretedContext) -> None:
        """The thread is gone."""
        ...

    def close(self) -> None:
        """Nothing more will happen."""
        ...


class InterpreterVcpu:
    """All contexts of one machine; see the module, and `virtus.exits.Vcpu`."""

    def __init__(self, isa: InstructionSet, convention: CallConvention, observer: Observer | None = None) -> None:
        self.isa = isa
        self.observer = observer
        self.executed = 0
        self.last: InterpretedContext | None = None  # whose turn it was
        self.contexts: dict[int, InterpretedContext] = {}
        self._convention = convention
        self._host = PtraceVcpu()
        self._exit = Exit()
        self._ready: deque[InterpretedContext] = deque()
        self._ended: deque[tuple[InterpretedContext, int]] = deque()
        self._epoll: select.epoll | None = None
        self._just_told = False  # of an event: guests have a turn before the next

    @property
    def created(self) -> int:
        """Host threads made so far."""
        return self._host.created

    def boot(self) -> InterpretedContext:
        """The first guest context: stopped, its address space empty."""
        return self.fresh()

    def watch(self, epoll: select.epoll) -> None:
        """From now on `run` also returns, with Reason.EVENT, when this epoll set has something ready."""
        self._epoll = epoll

    def balance(self) -> None:
        """Look at where contexts run: here, all of them."""

    def fresh(self) -> InterpretedContext:
        """See Context."""
        host = self._host.zygote.fresh()
        return self._adopt(host, AddressSpace(self.isa, host.ident), None)

    def fork(self, parent: InterpretedContext, *, share_memory: bool) -> InterpretedContext:
        """See Context."""
        host = parent.host.fork(share_memory=share_memory)
        space = parent.space if share_memory else parent.space.copy(self.isa, host.ident)
        child = self._adopt(host, space, parent)
        for word in KEPT_BY_FORK:
            child.regs[word] = parent.regs[word]
        return child

    def _adopt(self, host: StubContext, space: AddressSpace, parent: InterpretedContext | None) -> InterpretedContext:
        context = self.contexts[host.ident] = InterpretedContext(self, host, space)
        if self.observer is not None:
            self.observer.started(context, parent)
        return context

    def evaluator(self, registers: "memoryview[int]", space: AddressSpace) -> Evaluator:
        """What a new thread is interpreted with."""
        if self.observer is not None:
            return self.observer.evaluator(self.isa, registers, space)
        return BlockEvaluator(self.isa, registers, space.seen, space.code)

    def resume(self, context: InterpretedContext) -> None:
        """See Context."""
        if self.contexts.get(context.ident) is context and not context.running:
            if self.observer is not None:
                self.observer.resumed(context)
            context.running = True
            self._ready.append(context)

    def kill(self, context: InterpretedContext) -> None:
        """See Context."""
        if self.contexts.get(context.ident) is not context:
            return
        self._host.kill(context.host)
        try:
            _, status = os.waitpid(context.ident, ptrace.WALL)
        except ChildProcessError:
            status = signal.SIGKILL
        self._gone(context, status)

    def _gone(self, context: InterpretedContext, status: int) -> None:
        """Its stub has been reaped."""
        del self.contexts[context.ident]
        self._host.contexts.pop(context.ident, None)
        context.space.contexts.remove(context)
        if context.running:
            context.running = False
            self._ready.remove(context)
        self._ended.append((context, status))
        if self.observer is not None:
            self.observer.ended(context)

    # Running

    def run(self) -> Exit:
        """See Vcpu. A context whose `debugging.halt` is set has come out for its debugger, with SIGTRAP."""
        exit = self._exit
        while True:
            if self._ended:
                exit.reason = Reason.ENDED
                exit.context, exit.number = self._ended.popleft()
                return exit
            context = self._next()
            if self._is_event(wait=context is None):
                exit.reason, exit.context, exit.number = Reason.EVENT, None, 0
                return exit
            if context is not None and self._turn(context):
                return exit

    def _next(self) -> InterpretedContext | None:
        """Whose turn it is; it stays in the queue."""
        ready = self._ready
        for _ in range(len(ready)):
            if not ready[0].debugging.held:
                return ready[0]
            ready.rotate(-1)
        return None

    def _is_event(self, *, wait: bool) -> bool:
        if wait:
            self._just_told = False
        elif self._just_told or self._epoll is None:
            self._just_told = False
            return False
        if self._epoll is None:
            raise OSError(errno.EDEADLK, "no guest thread can run, and nothing is waited for")
        found = bool(self._epoll.poll(IDLE_LOOK_S if wait else 0, 1))
        if not found and wait:
            self._look_for_killed()
        self._just_told = found
        return found

    def _look_for_killed(self) -> None:
        for context in list(self.contexts.values()):
            self._is_gone(context)

    def _is_gone(self, context: InterpretedContext) -> bool:
        """Whether somebody on the host has killed its stub; then that is its end."""
        try:
            pid, status = os.waitpid(context.ident, os.WNOHANG | ptrace.WALL)
        except ChildProcessError:
            pid, status = context.ident, int(signal.SIGKILL)
        if pid and not os.WIFSTOPPED(status):
            self._gone(context, status)
            return True
        return False

    def _turn(self, context: InterpretedContext) -> bool:
        """Let it run for a quantum; whether there is an exit."""
        if context.kicked:
            self._came_out(context)
            return self._signal(context, 0)
        debugging, space = context.debugging, context.space
        if debugging.stepped:
            return self._halt(context, Halt(context.regs[layout.PC], step=True))
        if context.regs[layout.PC] in space.breakpoints and not (debugging.step or debugging.free):
            return self._halt(context, Halt(context.regs[layout.PC]))
        self.last = context
        memory = context.evaluator.memory
        space.memory.ident = context.ident
        before = context.evaluator.executed
        fault: MemoryFault | None = None
        outcome = 0
        try:
            if self.observer is not None or debugging.step or isinstance(memory, WatchedMemory):
                outcome = self._step_by_step(context, 1 if debugging.step else QUANTUM)
            else:
                _, outcome = context.evaluator.run(QUANTUM)
        except MemoryFault as caught:
            fault = caught
        finally:
            self.executed += context.evaluator.executed - before
        try:
            space.memory.settle()
        except OSError:
            if not self._is_gone(context):
                raise
            return False
        if fault is not None:
            return not self._is_gone(context) and self._memory_fault(context, fault)
        return self._outcome(context, outcome)

    def _step_by_step(self, context: InterpretedContext, count: int) -> int:
        observer, evaluator, regs = self.observer, context.evaluator, context.regs
        breakpoints, memory = context.space.breakpoints, evaluator.memory
        watched = memory if isinstance(memory, WatchedMemory) else None
        for done in range(count):
            if done and regs[layout.PC] in breakpoints:
                break
            if observer is None:
                outcome = evaluator.step()
            else:
                observer.before(context)
                try:
                    outcome = evaluator.step()
                finally:
                    observer.after(context)
            if outcome or (watched is not None and watched.hit is not None):
                return outcome
        return 0

    def _outcome(self, context: InterpretedContext, outcome: int) -> bool:
        debugging, memory, regs = context.debugging, context.evaluator.memory, context.regs
        if isinstance(memory, WatchedMemory) and memory.hit is not None:
            (address, kind), memory.hit = memory.hit, None
            if outcome in (0, layout.EXIT_FLUSH):
                return self._halt(context, Halt(address, watched=kind))
        if outcome in (0, layout.EXIT_FLUSH):
            if debugging.step:
                return self._halt(context, Halt(regs[layout.PC], step=True))
            self._ready.rotate(-1)
            return False
        debugging.stepped = debugging.step
        if outcome == layout.EXIT_SYSCALL:
            return self._system_call(context)
        if outcome == layout.EXIT_ILLEGAL:
            return self._trap(context, signal.SIGILL, ILL_ILLOPC, regs[layout.PC])
        if outcome == layout.EXIT_BREAKPOINT:
            return self._trap(context, signal.SIGTRAP, TRAP_BRKPT, regs[layout.PC])
        self._came_out(context)
        self._exit.reason, self._exit.context = Reason.LEFT, context
        self._exit.number = outcome - layout.LEAVE_FIRST
        return True

    def _came_out(self, context: InterpretedContext) -> None:
        context.running = context.kicked = False
        self._ready.remove(context)

    def _system_call(self, context: InterpretedContext) -> bool:
        regs, exit = context.regs, self._exit
        number = regs[self._convention.number]
        regs[layout.SYSCALL_FIRST], regs[layout.SYSCALL_NUMBER] = regs[self._convention.first], number
        self._came_out(context)
        if self.observer is not None:
            self.observer.system_call(context, number)
        exit.reason, exit.context, exit.number = Reason.SYSCALL, context, number
        return True

    def _signal(self, context: InterpretedContext, number: int) -> bool:
        self._exit.reason, self._exit.context, self._exit.number = Reason.SIGNAL, context, number
        return True

    def _halt(self, context: InterpretedContext, halt: Halt) -> bool:
        context.debugging.halt = halt
        context.debugging.step = context.debugging.stepped = False
        context.set_fault(signal.SIGTRAP, TRAP_TRACE if halt.step else TRAP_BRKPT, halt.address)
        self._came_out(context)
        return self._signal(context, signal.SIGTRAP)

    def _trap(self, context: InterpretedContext, number: int, code: int, address: int) -> bool:
        """The guest's own fault, at its PC."""
        context.set_fault(number, code, address)
        self._came_out(context)
        if self.observer is not None:
            self.observer.faulted(context, number, address)
        return self._signal(context, number)

    def _memory_fault(self, context: InterpretedContext, fault: MemoryFault) -> bool:
        address = fault.address & 2**64 - 1
        context.debugging.stepped = context.debugging.step
        if fault.signal == signal.SIGBUS:
            return self._trap(context, signal.SIGBUS, BUS_ADRALN, address)
        return self._trap(context, *_kind(context, address, store=isinstance(fault, StoreFault)), address)

    def figures(self) -> dict[str, int]:
        """What the interpreter did, for the report."""
        return {"instructions interpreted": self.executed}

    def close(self) -> None:
        """See Vcpu."""
        if self.observer is not None:
            self.observer.close()
        self._host.close()


def _kind(context: InterpretedContext, address: int, *, store: bool) -> tuple[int, int]:
    """The signal and si_code of an access that failed: as the host finds when it is to do the same."""
    page = address & -layout.PAGE
    if address >= layout.GUEST_END or context.host.inject(_MSYNC, page, layout.PAGE, MS_ASYNC) == -errno.ENOMEM:
        return signal.SIGSEGV, SEGV_MAPERR
    populate = MADV_POPULATE_WRITE if store else MADV_POPULATE_READ
    if context.host.inject(_MADVISE, page, layout.PAGE, populate) == -errno.EFAULT:
        return signal.SIGBUS, BUS_ADRERR  # beyond the end of a file
    return signal.SIGSEGV, SEGV_ACCERR

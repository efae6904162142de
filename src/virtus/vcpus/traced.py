"""vCPU `traced`: the kernel process's side of TT mode, where a tracing process holds the guest (`tracing`)."""

import os
import select

from virtus.exits import Exit, Reason
from virtus.host import ptrace
from virtus.isa.x86 import registers as r
from virtus.vcpus import tracing
from virtus.vcpus.host_context import HostContext, HostVcpu


class TracedContext(HostContext):
    """A guest thread that another process traces (see `virtus.exits.Context`)."""

    __slots__ = ("_bytes",)
    vcpu: "TracedVcpu"

    def __init__(self, vcpu: "TracedVcpu", ident: int, registers: bytes) -> None:
        self._bytes = bytearray(registers)
        super().__init__(vcpu, ident, memoryview(self._bytes).cast("Q"))

    def inject(self, number: int, *arguments: int) -> int:
        """See Context."""
        regs = memoryview(bytearray(self._bytes)).cast("Q")
        regs[r.RAX] = number
        for index, value in zip(r.SYSCALL_ARGUMENTS, arguments, strict=False):
            regs[index] = value & r.NO_SYSCALL
        for index in r.SYSCALL_ARGUMENTS[len(arguments) :]:
            regs[index] = 0
        return self.vcpu.ask(tracing.INJECT, self, registers=regs.tobytes())[0]

    def fork(self, *, share_memory: bool) -> "TracedContext":
        """See Context."""
        ident, _, _ = self.vcpu.ask(tracing.FORK, self, int(share_memory), registers=bytes(self._bytes))
        return self.vcpu.new(ident, bytes(self._bytes))

    def fresh(self) -> "TracedContext":
        """See Context."""
        return self.vcpu.boot()

    def empty(self) -> None:
        """See Context."""
        self.vcpu.ask(tracing.EMPTY, self, registers=bytes(self._bytes))

    def fault(self) -> bytes:
        """See Context."""
        return self.vcpu.ask(tracing.FAULT, self)[2]

    def extended_state(self) -> bytes:
        """See Context."""
        return self.vcpu.ask(tracing.GET_STATE, self)[2]

    def set_extended_state(self, state: bytes) -> None:
        """See Context."""
        self.vcpu.ask(tracing.SET_STATE, self, len(state), payload=state)


class TracedVcpu(HostVcpu[TracedContext]):
    """All contexts of one machine, as the kernel process sees them."""

    def __init__(self) -> None:
        super().__init__()
        self._pid, self._requests, self._answers = tracing.start()
        self.created = 1
        self._head()

    def _head(self) -> tuple[int, int, int, int, bytes]:
        try:
            message = tracing.read_exactly(self._answers, tracing.MESSAGE)
        except EOFError as error:
            raise OSError(3, "the tracing process is gone") from error
        return (*tracing.HEAD.unpack_from(message), message[tracing.HEAD.size :])

    def _send(self, operation: int, ident: int, first: int, registers: bytes | bytearray, payload: bytes = b"") -> None:
        os.write(self._requests, tracing.HEAD.pack(operation, ident, first, 0) + registers)
        if payload:
            os.write(self._requests, payload)

    def ask(
        self,
        operation: int,
        context: TracedContext | None,
        first: int = 0,
        *,
        registers: bytes = tracing.NO_REGISTERS,
        payload: bytes = b"",
    ) -> tuple[int, bytes, bytes]:
        """One request and its answer: result, registers, payload. Raises the OSError that the other side met."""
        self._send(operation, context.ident if context is not None else 0, first, registers, payload)
        code, result, created, size, answered = self._head()
        if code == tracing.FAILED:
            raise OSError(result, os.strerror(result))
        self.created = created + 1
        return result, answered, tracing.read_exactly(self._answers, size) if size else b""

    def new(self, ident: int, registers: bytes) -> TracedContext:
        """Know a context that the tracing process has made."""
        context = self.contexts[ident] = TracedContext(self, ident, registers)
        return context

    def boot(self) -> TracedContext:
        """The first guest context: stopped, its address space empty."""
        ident, registers, _ = self.ask(tracing.FRESH, None)
        return self.new(ident, registers)

    def watch(self, epoll: select.epoll) -> None:
        """From now on `run` also returns, with Reason.EVENT, when this epoll set has something ready."""
        self.ask(tracing.WATCH, None, epoll.fileno())

    def flush(self) -> None:
        """Resume now what was to be resumed with the next wait."""
        context, self._next = self._next, None
        if context is not None:
            self._send(tracing.RESUME, context.ident, 0, context._bytes)
            self._send(tracing.FLUSH, 0, 0, tracing.NO_REGISTERS)

    def run(self) -> Exit:
        """See Vcpu."""
        exit = self._exit
        context, self._next = self._next, None
        while True:
            if context is not None:
                self._send(tracing.RUN, context.ident, 0, context._bytes)
            else:
                self._send(tracing.RUN, 0, 0, tracing.NO_REGISTERS)
            reason, ident, number, _, registers = self._head()
            found = self.contexts.get(ident)
            exit.reason, exit.context, exit.number = tracing.REASONS[reason], found, number
            if found is None and ident:
                context = None
                continue  # the rest of a context that was forgotten
            if found is not None:
                found._bytes[:] = registers
                self.came_out(found)
                if exit.reason is Reason.ENDED:
                    del self.contexts[ident]
            return exit

    def placed(self) -> list[int]:
        """See HostVcpu; the tracing process too."""
        return [self._pid, *self.contexts]

    def close(self) -> None:
        """See Vcpu."""
        tracing.outlive()
        try:
            self.ask(tracing.CLOSE, None)
            os.waitpid(self._pid, ptrace.WALL)
        except (OSError, ChildProcessError):
            pass  # it is gone already, and the guests with it
        self.contexts.clear()

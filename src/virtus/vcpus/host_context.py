"""What the vCPUs of the user-mode kernel have in common: guests are host processes, whoever of ours traces them.

`ptrace` traces by itself, `traced` has another process do it; memory, kicks, ends and the books on who runs are the
same for both.
"""

import os
import signal
from typing import Any, Final, Generic, TypeVar

from virtus.exits import Exit
from virtus.host import process_memory
from virtus.vcpus.placement import Placement

KICK: Final = int(signal.SIGUSR2)


class HostContext:
    """A guest thread on a host process (see `virtus.exits.Context`); `regs` are the subclass's."""

    __slots__ = ("ident", "regs", "running", "vcpu")

    def __init__(self, vcpu: Any, ident: int, regs: "memoryview[int]") -> None:
        self.vcpu = vcpu
        self.ident = ident
        self.regs = regs
        self.running = False

    def resume(self) -> None:
        """See Context."""
        self.vcpu.resume(self)

    def read(self, address: int, size: int) -> bytes:
        """See Context."""
        return process_memory.read(self.ident, address, size)

    def read_partial(self, address: int, size: int) -> bytes:
        """See Context."""
        return process_memory.read_partial(self.ident, address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """See Context."""
        process_memory.write(self.ident, address, data)

    def flush_instructions(self, start: int, size: int) -> None:
        """See Context. x86 processors see changes of code by themselves."""

    def precise_faults(self) -> None:
        """See Context. They always are."""

    def kick(self) -> None:
        """See Context."""
        if self.running:
            self.vcpu.flush()
            os.kill(self.ident, KICK)

    def kill(self) -> None:
        """See Context."""
        self.vcpu.kill(self)


_Context = TypeVar("_Context", bound=HostContext)


class HostVcpu(Generic[_Context]):
    """The contexts of one machine: who runs, and who is to be resumed together with the next wait."""

    def __init__(self) -> None:
        self._placement = Placement()  # what is forked from here on inherits the place
        self._exit = Exit()
        self._next: _Context | None = None
        self._running = 0
        self.contexts: dict[int, _Context] = {}

    def flush(self) -> None:
        """Resume now what was to be resumed with the next wait."""
        raise NotImplementedError

    def resume(self, context: _Context) -> None:
        """Let a context run; the last one resumed goes together with the next wait."""
        if self._next is not None:
            self.flush()
        self._next = context
        context.running = True
        self._running += 1

    def came_out(self, context: _Context) -> None:
        """A context has exited."""
        if context.running:
            context.running = False
            self._running -= 1

    def kill(self, context: _Context) -> None:
        """End a context; the process that traces it reaps what is left."""
        if self.contexts.get(context.ident) is not context:
            return  # it has ended, and its number may be another's by now
        if self._next is context:
            self._next = None
        try:
            os.kill(context.ident, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has been reaped already

    def balance(self) -> None:
        """Now and then: let guests that keep several processors busy have them (see `placement`)."""
        self._placement.balance(self._running, self.placed())

    def placed(self) -> list[int]:
        """The host threads that are placed with the kernel process."""
        return list(self.contexts)

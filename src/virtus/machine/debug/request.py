"""What a user asks for: a trace, GDB, or both; and the vCPU that does it.

A technique makes a `Request` before the box around the guest is built: the trace's file is the host's, and so is the
port. Inside the box it has the vCPU made, and joins it to the kernel before the guest starts.
"""

import contextlib
import os
import sys
from typing import Final

from virtus.errors import UsageError
from virtus.isa.instruction_set import InstructionSet
from virtus.machine.debug.connection import listen
from virtus.machine.debug.linux import LinuxCalls, LinuxSystem
from virtus.machine.debug.trace import Trace
from virtus.machine.debug.vcpu import DebuggedVcpu
from virtus.personalities.linux.kernel import Kernel
from virtus.vcpus.foreign import CallConvention
from virtus.vcpus.interpreter.vcpu import InterpreterVcpu

STANDARD_ERROR: Final = "-"
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


class Request:
    """`trace` is a file's path or `-` for standard error, `gdb` a port or the path of a socket. Raises UsageError.

    Says on standard error where GDB is waited for.
    """

    def __init__(
        self, isa: InstructionSet, convention: CallConvention, *, trace: str | None = None, gdb: str | None = None
    ) -> None:
        self._isa, self._convention = isa, convention
        isa.show(isa.decode(bytes(isa.longest), 0), 0)  # what it imports cannot be imported inside the box
        self._file = -1 if trace is None else _opened(trace)
        self._trace = None if trace is None else Trace(self._file, argument=convention.first)
        self._listener = None
        if gdb is not None:
            self._listener, name = listen(gdb)
            print(f"waiting for gdb on {name}", file=sys.stderr, flush=True)

    def vcpu(self) -> InterpreterVcpu | DebuggedVcpu:
        """A vCPU that traces and lets GDB in, as was asked for."""
        vcpu = InterpreterVcpu(self._isa, self._convention, self._trace)
        return vcpu if self._listener is None else DebuggedVcpu(vcpu, self._listener)

    def attach(self, kernel: Kernel, vcpu: InterpreterVcpu | DebuggedVcpu) -> None:
        """Join the vCPU to its kernel, before the guest starts."""
        if self._trace is not None:
            self._trace.attach(LinuxCalls(kernel))
        if isinstance(vcpu, DebuggedVcpu):
            vcpu.attach(LinuxSystem(kernel))

    def close(self) -> None:
        """The supervisor needs none of it any more, once the box is gone."""
        if self._listener is not None:
            path = self._listener.getsockname()
            self._listener.close()
            if isinstance(path, str):
                with contextlib.suppress(OSError):  # somebody has cleaned up
                    os.unlink(path)
        if self._file >= 0:
            os.close(self._file)


def _opened(trace: str) -> int:
    if trace == STANDARD_ERROR:
        return os.dup(sys.stderr.fileno())
    try:
        return os.open(trace, _WRITE, 0o666)
    except OSError as error:
        raise UsageError(f"writing a trace to {trace}", os.strerror(error.errno or 0)) from error

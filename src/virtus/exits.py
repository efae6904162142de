"""The seam between who runs the instructions (a vCPU) and who answers what they cannot do alone (a personality).

Every technique of virtus is a pair of the two, joined by one loop (`virtus.machine.loop`)::

    while personality.running:
        exit = vcpu.run()             # until the guest needs somebody
        personality.handle(exit)

A vCPU knows no personality and a personality no vCPU; both know this module and nothing else of each other.
"""

from enum import Enum
from typing import Any, Final, Protocol


class Reason(Enum):
    """Why a guest came out; the names are what `--meter` prints."""

    SYSCALL = "system call"
    HYPERCALL = "hypercall"  # a guest's kernel asks its hypervisor
    FAULT = "fault"  # an exception of the guest's processor, by vector
    SIGNAL = "signal"  # a fault of the guest's own, or a signal the host sent it
    ENDED = "ended"  # a context is gone: killed, or its address space torn down
    EVENT = "host event"  # a host descriptor or timer the personality waits for is ready
    PORT_IO = "port I/O"  # a guest's kernel uses an I/O port that its vCPU does not answer
    MEMORY_IO = "memory I/O"  # or an address where a device is, and no memory
    HALT = "halt"  # nothing to do until an interrupt
    API_CALL = "API call"  # a function of the guest's operating system, answered outside of it
    LEFT = "left"  # an instruction of a foreign processor came out for a reason of its instruction set's own


# What most exits are, by names of their own: to look a member up in its class costs Python 3.11 a tenth of a µs.
SYSCALL: Final = Reason.SYSCALL
HYPERCALL: Final = Reason.HYPERCALL
EVENT: Final = Reason.EVENT
SIGNAL: Final = Reason.SIGNAL
ENDED: Final = Reason.ENDED


class Exit:
    """One exit. The vCPU owns and reuses the object: a personality that needs it later copies what it needs.

    `context` is the vCPU's handle for the guest thread that came out (a `Context` where the vCPU has one);
    `number` the system call's number, the signal's number or the host's wait status, by `reason`. For PORT_IO and
    MEMORY_IO it is the port or the physical address; `size` is the number of bytes (1, 2, 4 or 8), `write` the
    direction, and `value` what the guest writes, or where the personality leaves what the guest reads. PORT_IO is done
    `count` times, for a string instruction: `value` has that many numbers behind each other, the first lowest.
    """

    __slots__ = ("context", "count", "number", "reason", "size", "value", "write")

    def __init__(self) -> None:
        self.reason = Reason.EVENT
        self.context: Any = None
        self.number = 0
        self.size = 0
        self.count = 1
        self.value = 0
        self.write = False


class Vcpu(Protocol):
    """Runs guest instructions until the guest needs somebody."""

    def run(self) -> Exit:
        """Let every context that may run go on; return at the next exit. Blocks without using the processor."""
        ...

    def close(self) -> None:
        """End every context and give back all the host holds for them. May be called twice."""
        ...


class Personality(Protocol):
    """Answers exits: the system that the guest believes it runs on."""

    @property
    def running(self) -> bool:
        """Whether the machine goes on."""
        ...

    def handle(self, exit: Exit) -> None:
        """Answer one exit, so that the vCPU may let its context go on, now or later."""
        ...

    def name_of(self, exit: Exit) -> str:
        """The meter's word for this exit's number, for example the system call's name."""
        ...


class Context(Protocol):
    """One thread of guest execution as a vCPU holds it: its registers, and its address space.

    All methods but `kick` and `kill` need the context stopped (it has exited and was not resumed).
    """

    @property
    def ident(self) -> int:
        """Unique while the machine runs; on ptrace vCPUs the host thread's id in the machine's PID namespace."""
        ...

    @property
    def running(self) -> bool:
        """Whether it was resumed and has not come out since."""
        ...

    regs: Any
    """A `memoryview` of unsigned 64-bit registers in the order of the instruction set's own layout
    (x86-64: `virtus.isa.x86.registers`, which is the host's `user_regs_struct`)."""

    def resume(self) -> None:
        """Let it go on with `regs` when the vCPU next runs."""
        ...

    def inject(self, number: int, *arguments: int) -> int:
        """Have the host execute one system call inside the context's address space; return its raw result
        (-4095..-1 is -errno). `regs` is preserved. The only calls of a guest address space that a host ever sees."""
        ...

    def fork(self, *, share_memory: bool) -> "Context":
        """A new, stopped context with a copy of the address space (copy-on-write), or the same one; same registers."""
        ...

    def fresh(self) -> "Context":
        """A new, stopped context with an empty address space and zeroed registers."""
        ...

    def empty(self) -> None:
        """Unmap everything of the guest in the address space. It must not be shared."""
        ...

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes of guest memory; raises OSError(EFAULT) where any of it is not readable."""
        ...

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store into guest memory, as the guest could; raises OSError(EFAULT) otherwise."""
        ...

    def read_partial(self, address: int, size: int) -> bytes:
        """Up to `size` bytes: as many as are readable, possibly none. Never raises for a bad address."""
        ...

    def fault(self) -> bytes:
        """The host's `siginfo_t` (128 bytes) of the signal this context exited with."""
        ...

    def extended_state(self) -> bytes:
        """Floating-point and vector state in the processor's XSAVE layout."""
        ...

    def set_extended_state(self, state: bytes) -> None:
        """Load what `extended_state` gave; raises OSError(EINVAL) for a state the processor refuses."""
        ...

    def flush_instructions(self, start: int, size: int) -> None:
        """Code in this range may have changed. Nothing to do for a processor that sees that by itself."""
        ...

    def precise_faults(self) -> None:
        """The guest looks at its faults itself from now on: they must find exact registers. `empty` ends this."""
        ...

    def kick(self) -> None:
        """Make a running context exit soon, with Reason.SIGNAL and number 0. Harmless when it is stopped."""
        ...

    def kill(self) -> None:
        """End the context. Its Reason.ENDED exit is delivered by `Vcpu.run`."""
        ...

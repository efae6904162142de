"""The personality `xen`: answers what a paravirtual domain comes out with."""

from typing import Final

from virtus.exits import Exit, Reason
from virtus.host.kvm import EXIT_NAMES
from virtus.personalities.xen import (  # noqa: F401  each registers its hypercalls
    cpu_calls,
    event_channels,
    grants,
    memory_calls,
    mmu_calls,
    toolstack,
)
from virtus.personalities.xen.abi import MASK64, DomainCrash
from virtus.personalities.xen.cpu import RUNNING, Cpu
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.page_tables import FIRST_OURS, LAST_OURS
from virtus.personalities.xen.table import NAMES, NUMBERS, TABLE, dispatch

RAX, RDX, RSI, RDI, R8, R9, R10, RIP = 0, 3, 4, 5, 8, 9, 10, 16
IRET: Final = NUMBERS["iret"]
UNDEFINED, PROTECTION, PAGE_FAULT = 6, 13, 14
WITH_ERROR: Final = frozenset({8, 10, 11, 12, 13, 17})
INTERRUPT_LENGTH: Final = 2  # of `int n`


class Hypervisor:
    """See Personality. It serves one domain whose memory is built and whose rings are connected."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._take(domain.cpu)
        domain.cpu.update_time()

    def _take(self, cpu: Cpu) -> None:
        self._cpu, self._regs = cpu, cpu.context.regs

    @property
    def running(self) -> bool:
        """See Personality."""
        return not self._domain.ended

    def name_of(self, exit: Exit) -> str:
        """See Personality: a hypercall, with its operation where it has one."""
        if exit.reason is not Reason.HYPERCALL:
            return "system call of a program"
        entry = TABLE.get(exit.number)
        if entry is None:
            return NAMES.get(exit.number, "unknown hypercall")
        operation = entry.operations.get(self._regs[RDI]) if entry.operations else None
        return f"{entry.name} {operation.name}" if operation is not None else entry.name

    def handle(self, exit: Exit) -> None:
        """See Personality."""
        if exit.context is not self._cpu.context:
            self._take(self._domain.cpus[exit.context.ident])
            self._domain.switch_to(self._cpu)
        domain, cpu, reason = self._domain, self._cpu, exit.reason
        context = exit.context
        domain.access.root = context.kernel_root if context.kernel else context.user_root
        try:
            if reason is Reason.HYPERCALL:
                if exit.number == IRET:
                    cpu.iret()
                else:
                    regs = self._regs
                    arguments = (regs[RDI], regs[RSI], regs[RDX], regs[R10], regs[R8], regs[R9])
                    regs[RAX] = dispatch(domain, exit.number, arguments) & MASK64
            elif reason is Reason.SYSCALL:
                cpu.system_call()
            elif reason is Reason.FAULT:
                self._fault(exit.number)
            elif reason is Reason.EVENT:
                cpu.set_state(RUNNING)
                domain.poll()
            else:
                why = EXIT_NAMES.get(exit.number, f"exit {exit.number}")
                raise DomainCrash(f"its processor stopped at {self._regs[RIP]:#x}: {why}")
            if domain.store.connection.answers:
                domain.store.flush()
            cpu.tick()
            cpu.deliver_event()
        except DomainCrash as crash:
            domain.crash(str(crash))

    def _fault(self, vector: int) -> None:
        cpu, context = self._cpu, self._cpu.context
        if context.kernel and FIRST_OURS <= self._regs[RIP] >> 39 & 511 <= LAST_OURS:
            raise DomainCrash(f"exception {vector} inside of the hypervisor's pages at {self._regs[RIP]:#x}")
        error = context.error_code
        if vector == PAGE_FAULT:
            if not (context.kernel and self._domain.pte_writes.store(context.fault_address, error)):
                cpu.page_fault(error)
        elif vector == PROTECTION:
            self._protection(error)
        elif vector == UNDEFINED and context.kernel and self._domain.privileged.forced():
            pass
        else:
            cpu.trap(vector, error if vector in WITH_ERROR else None)

    def _protection(self, error: int) -> None:
        """A general protection fault: an `int` without a gate of ours, a privileged instruction, or just a fault."""
        cpu, context = self._cpu, self._cpu.context
        if error & 2:  # an interrupt vector's error code
            handler = cpu.traps.get(error >> 3 & 0xFF)
            if handler is not None and (context.kernel or handler.ring == 3):
                self._regs[RIP] += INTERRUPT_LENGTH
                cpu.enter(handler)
                return
        if context.kernel and self._domain.privileged.execute():
            return
        cpu.trap(PROTECTION, error)

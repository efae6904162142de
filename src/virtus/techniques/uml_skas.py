"""uml-skas: User Mode Linux with a separate kernel address space. The kernel is the tracer; two context switches."""

from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec
from virtus.techniques import user_mode_kernel
from virtus.techniques.base import Availability
from virtus.vcpus.ptrace import PtraceVcpu


class UmlSkas:
    """See Technique."""

    name = "uml-skas"
    section = "3.2"
    vcpu = "ptrace (SYSEMU)"
    personality = "linux"
    summary = "a Linux kernel in user space, in an address space of its own, that is itself the tracer"

    def probe(self) -> Availability:
        """See Technique."""
        return user_mode_kernel.probe(PtraceVcpu)

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique."""
        return user_mode_kernel.run(self.name, PtraceVcpu, spec)


TECHNIQUE = UmlSkas()

"""uml-tt: User Mode Linux with a tracing thread. Each guest process is a host process; four context switches."""

from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec
from virtus.techniques import user_mode_kernel
from virtus.techniques.base import Availability
from virtus.vcpus.ptrace import PtraceVcpu
from virtus.vcpus.traced import TracedVcpu


class UmlTt:
    """See Technique."""

    name = "uml-tt"
    section = "3.1"
    vcpu = "ptrace, through a tracing process"
    personality = "linux"
    summary = "a Linux kernel in user space behind a tracing process that nullifies each call with getpid"

    def probe(self) -> Availability:
        """See Technique."""
        return user_mode_kernel.probe(PtraceVcpu)

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique."""
        return user_mode_kernel.run(self.name, TracedVcpu, spec)


TECHNIQUE = UmlTt()

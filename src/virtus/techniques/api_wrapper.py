"""api-wrapper: Windows programs on the processor itself, whose calls are redirected to Linux, as WINE does it."""

from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec
from virtus.techniques import windows
from virtus.techniques.base import Availability
from virtus.techniques.windows import IN_PROCESS


class ApiWrapper:
    """See Technique."""

    name = "api-wrapper"
    section = "2.2"
    vcpu = "inprocess"
    personality = "win32"
    summary = "Windows programs on the processor itself, as WINE"

    def probe(self) -> Availability:
        """See Technique."""
        return windows.probe()

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique."""
        return windows.run(self.name, IN_PROCESS, spec, meter=meter)


TECHNIQUE = ApiWrapper()

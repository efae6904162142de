"""api-emulation: Windows programs whose calls are redirected and whose instructions are emulated, as WABI's were."""

import sys

from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec
from virtus.techniques import windows
from virtus.techniques.base import Availability
from virtus.vcpus.emulated_x86 import library


class ApiEmulation:
    """See Technique."""

    name = "api-emulation"
    section = "2.2"
    vcpu = "emulated_x86"
    personality = "win32"
    summary = "Windows programs with emulated instructions, as WABI"

    def probe(self) -> Availability:
        """See Technique."""
        if library.find() is None:
            remedy = f"{sys.executable} -m pip install unicorn"
            return Availability(False, "the Python package unicorn is not installed", remedy)
        return windows.probe()

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique."""
        return windows.run(self.name, "emulated", spec, meter=meter)


TECHNIQUE = ApiEmulation()

"""Whether an outside program is there."""

import os
import shutil
from collections.abc import Callable

from virtus.techniques.base import Availability


def installed(program: str, package: str, *, root: bool = False) -> Callable[[], Availability]:
    """A probe for a program of a Debian package; `root`: for one that only root can run here."""

    def probe() -> Availability:
        if shutil.which(program) is None:
            return Availability(False, f"{program} is not installed", f"apt-get install {package}, or ./demo --peers")
        if root and os.geteuid():
            return Availability(False, f"{program} is run as root here", "run virtus as root to compare with it")
        return Availability(True)

    return probe

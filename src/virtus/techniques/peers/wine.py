"""Wine as a peer: Debian's, in a prefix of its own that every comparison shares, with its server running.

The prefix is made once, takes 0.7 GB and lies in the user's cache directory; nothing of the user's own Wine is touched.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from virtus.errors import HostLacks
from virtus.machine.spec import GuestSpec
from virtus.techniques.base import Availability
from virtus.techniques.peers import prng_dll

LOADERS: Final = ("/usr/lib/wine/wine64", "wine64", "wine")
"""Debian's `wine` is a script that asks for the 32-bit half on every start; what it starts stands first."""
SERVERS: Final = ("/usr/lib/wine/wineserver", "wineserver")
SERVER_STAYS_S: Final = 10
"""How long the server outlives its last program: from one run of a comparison to the next, and no longer."""
MAKING_TIMEOUT_S: Final = 300
_DONE: Final = ".virtus-made"


def probe() -> Availability:
    """Whether Wine is installed; the prefix is made when it is first needed."""
    if _found(LOADERS) is None:
        return Availability(False, "wine is not installed", "apt-get install wine64, or ./demo --peers")
    return Availability(True)


def command(spec: GuestSpec) -> list[str]:
    """What runs the guest, with its server warm. Raises HostLacks where no prefix can be made."""
    loader = _found(LOADERS)
    if loader is None:
        raise HostLacks("running Wine", "wine is not installed", "apt-get install wine64")
    environment = {**(os.environ if spec.env is None else spec.env)}
    place = prefix(environment)
    settings = _settings(place)
    server = _found(SERVERS)
    if server is not None:  # fails where the server already runs with another time, which is as good
        subprocess.run(
            [server, f"-p{SERVER_STAYS_S}"], env={**environment, **settings}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    program, *arguments = spec.argv
    found = shutil.which(program, path=environment.get("PATH")) or program
    return ["env", *(f"{name}={value}" for name, value in settings.items()), loader, found, *arguments]


def prefix(environment: dict[str, str]) -> Path:
    """Where our prefix is; makes it the first time. Raises HostLacks."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME") or "/", ".cache")
    place = Path(base, "virtus", "wine")
    doing = "making a prefix for Wine"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with (place.parent / "wine.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / _DONE).exists():
                _make(place, environment)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostLacks(doing, str(error), f"see whether {place} can be written to, and wine works") from error
    return place


def _make(place: Path, environment: dict[str, str]) -> None:
    loader, server = _found(LOADERS), _found(SERVERS)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    env = {**environment, **_settings(place)}
    subprocess.run([loader or "wine", "wineboot", "-i"], env=env, check=True, timeout=MAKING_TIMEOUT_S, **quiet)  # type: ignore[call-overload]  # the streams' three names
    if server is not None:
        subprocess.run([server, "-w"], env=env, check=True, timeout=MAKING_TIMEOUT_S, **quiet)  # type: ignore[call-overload]  # likewise
    system = place / "drive_c" / "windows" / "system32"
    missing = system / prng_dll.NAME.decode()
    if not missing.exists():
        missing.write_bytes(prng_dll.image())
    (place / _DONE).touch()


def _settings(place: Path) -> dict[str, str]:
    """No messages of Wine's own, no offers to download Mono and Gecko, no menu entries, no window system."""
    return {
        "WINEPREFIX": str(place),
        "WINEDEBUG": "-all",
        "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=",
        "DISPLAY": "",
    }


def _found(names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)

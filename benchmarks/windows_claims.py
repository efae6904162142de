"""The paper's comparison of WINE and WABI (section 2.2), measured again; a part of benchmarks.claims."""

import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.windows import COMPILER, EMULATION, WRAPPER, built, calls, command, interleaved
from virtus.techniques import registry

RUNS: Final = 3
MEMORY, REGISTERS, HOT, CALL = "stencil", "registers", "GetLastError", "GetConsoleCP"


def windows() -> dict[str, str]:
    """The same program with its own instructions and with emulated ones: loops, calls, and the least program."""
    missing = [name for name in (WRAPPER, EMULATION) if not registry.get(name).probe().works]
    if missing:
        raise SystemExit(f"windows: {', '.join(missing)} does not work here")
    try:
        with tempfile.TemporaryDirectory(prefix="virtus-claims-") as name:
            place = Path(name)
            costs = calls(RUNS, [WRAPPER, EMULATION], built(place, "windows_calls.c"), place)
            hello = built(place, "hello.c")
            pair = [WRAPPER, EMULATION]
            starts = interleaved(RUNS, pair, lambda who: command(who, hello, None, (), place), place)
    except FileNotFoundError as error:
        raise SystemExit(f"windows: {COMPILER}: {error}") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"windows: {error}") from error
    found = {
        f"windows {label}": f"{costs[EMULATION][key] / costs[WRAPPER][key]:.1f}"
        for label, key in (("memory", MEMORY), ("registers", REGISTERS), ("hot", HOT), ("call", CALL))
    }
    for who in (WRAPPER, EMULATION):
        found[f"windows start {who}"] = f"{1e3 * statistics.median(starts[who]):.0f}"
    return found

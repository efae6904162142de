"""Runs a monitor and says what came of it, as a line of JSON; for use on the nested host (benchmarks/hypervisor.py).

usage: nested_timing.py WORD COMMAND...    until the line with WORD is shown the guest boots; then it runs to its end
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

FIGURES = ("getpid", "process", "hash", "block", "network")
"""Those of guest_probe.c."""


def main() -> None:
    word, command = sys.argv[1], sys.argv[2:]
    found: dict[str, float] = {}
    started = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as monitor:
        assert monitor.stdout is not None
        for raw in monitor.stdout:
            line = raw.decode(errors="replace").strip()
            print(f"{time.perf_counter() - started:.1f} {line}", flush=True)  # where it stays, if it does not end
            if word in line and "boot" not in found:
                found["boot"] = time.perf_counter() - started
                status = Path(f"/proc/{monitor.pid}/status").read_text()
                sizes = {name: int(size) for name, size in re.findall(r"(\w+):\s+(\d+) kB", status)}
                # the guest's memory is shared in both monitors, and none of theirs
                found["memory"] = (sizes["RssAnon"] + sizes["RssFile"]) / 1024
            name, _, value = line.partition(" ")
            if name in FIGURES and re.fullmatch(r"[\d.]+", value):
                found[name] = float(value)
        ended = monitor.wait()
    print("timed", json.dumps(found))
    sys.exit(ended)


if __name__ == "__main__":
    main()

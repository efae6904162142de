"""CPython's own test modules, run natively and as guests, and compared test by test.

    python -m tests.guests.cpython uml-skas test_os test_time

prints what differs. The differences that are known, with their reasons, are the table in docs/cpython-tests.md.
"""

import fnmatch
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

DIFFERENCES: Final = Path(__file__).parents[2] / "docs" / "cpython-tests.md"
TIMEOUT: Final = 600.0
NO_REPORT: Final = "report"
"""Stands among the outcomes for a run that did not come to its end."""
IGNORED: Final = ("test_monotonic_settime", "ThreadedVSOCK*")
"""As root the one sets the host's clock forward by an hour, which other programs there do not like; the other, on a
host that is itself a virtual machine, waits for ever for its hypervisor, natively."""

Outcomes = dict[str, str]


class Unrunnable(Exception):
    """The interpreter has no test suite."""


def interpreter() -> str:
    """The Python whose test suite is run: the one this environment was made from."""
    return str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]  # what venv(1) itself goes by


def has_suite() -> bool:
    """Debian packs the tests apart from Python."""
    asked = subprocess.run([interpreter(), "-c", "import test.test_os"], capture_output=True, check=False)
    return asked.returncode == 0


def run(module: str, technique: str | None) -> Outcomes:
    """Every test of a module with its outcome; natively where no technique is given."""
    with tempfile.TemporaryDirectory(prefix="virtus-cpython-") as scratch:
        report = Path(scratch, "report.xml")
        ignored = [word for pattern in IGNORED for word in ("--ignore", pattern)]
        command = [interpreter(), "-m", "test", "--junit-xml", str(report), *ignored, module]
        if technique is not None:
            box = ["--with", technique, "--volume", f"{scratch}:{scratch}"]
            command = [sys.executable, "-m", "virtus", "run", *box, "--", *command]
        finished = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            cwd=scratch,
            preexec_fn=_hear_interrupts,
        )
        if not report.exists():
            return {NO_REPORT: f"no report: {(finished.stdout + finished.stderr)[-2000:]}"}
        return parse(report.read_text(encoding="utf-8"))


def _hear_interrupts() -> None:
    """Whoever runs in a shell's background has SIGINT ignored, and then some tests fail natively."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def parse(text: str) -> Outcomes:
    """Outcomes from regrtest's JUnit report."""
    outcomes: Outcomes = {}
    for case in ElementTree.fromstring(text).iter("testcase"):
        name = case.get("name", "")
        if case.find("error") is not None:
            outcome = "error"
        elif case.find("failure") is not None:
            outcome = "failure"
        else:
            outcome = "skipped" if case.find("skipped") is not None else case.get("result", "completed")
        outcomes[name] = outcome
    return outcomes


def differences(native: Outcomes, inside: Outcomes) -> dict[str, tuple[str, str]]:
    """Tests whose outcome is not the same, with both."""
    if NO_REPORT in native or NO_REPORT in inside:
        return {NO_REPORT: (native.get(NO_REPORT, "there"), inside.get(NO_REPORT, "there"))}
    return {
        name: (native.get(name, "absent"), inside.get(name, "absent"))
        for name in sorted(native.keys() | inside.keys())
        if native.get(name) != inside.get(name)
    }


def known(technique: str) -> list[str]:
    """Patterns of tests whose outcome is documented to differ under a technique."""
    patterns = []
    for line in DIFFERENCES.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if len(cells) == 5 and cells[1].startswith("test.") and fnmatch.fnmatch(technique, cells[0]):
            patterns.append(cells[1])
    return patterns


def unexplained(module: str, technique: str) -> dict[str, tuple[str, str]]:
    """What differs and is not documented, twice in a row: timing makes single tests of CPython fail anywhere."""
    patterns = known(technique)

    def once() -> dict[str, tuple[str, str]]:
        found = differences(run(module, None), run(module, technique))
        return {name: both for name, both in found.items() if not any(fnmatch.fnmatch(name, each) for each in patterns)}

    first = once()
    if not first:
        return first
    again = once()
    return {name: both for name, both in first.items() if name in again}


def main() -> None:
    """Print all that differs."""
    technique, *modules = sys.argv[1:]
    for module in modules:
        native, inside = run(module, None), run(module, technique)
        print(f"{module}: {len(native)} tests natively, {len(inside)} inside")
        for name, (one, other) in differences(native, inside).items():
            print(f"  {name}: {one} natively, {other} under {technique}")


if __name__ == "__main__":
    main()

"""The outside oracle: the 7070 of Open SIMH (I7000), where the environment names its program."""

import os
import re
import subprocess
from dataclasses import dataclass, field

PROGRAM = os.environ.get("VIRTUS_SIMH_I7070")
WHY_NOT = "VIRTUS_SIMH_I7070 names no simulator of the IBM 7070 (Open SIMH, i7070)"
CODE = 1000
_LINE = re.compile(r"^(?:sim> )*([A-Z0-9]+):\t\s*([+@#-]?[0-9]+)", re.MULTILINE)


@dataclass
class Case:
    """One instruction, and what is there before: locations (with signs + - @), accumulators 1 to 3."""

    instruction: str
    storage: dict[int, str] = field(default_factory=dict)
    accumulators: tuple[str, str, str] = ("+0000000000",) * 3
    indicators: str = "+0000000000"


@dataclass
class Outcome:
    """After one step: where it goes on, accumulators, the indicators' digits, the locations asked for."""

    counter: int
    accumulators: tuple[str, ...]
    indicators: str
    storage: dict[int, str]


def run(cases: list[Case], *, options: str = "") -> list[Outcome]:
    """Each case in a fresh state of one simulator."""
    commands = ["set cpu float", *options.splitlines()]
    for case in cases:
        commands += [f"dep {at} {word}" for at, word in case.storage.items()]
        commands += [f"dep ac{number} {word}" for number, word in enumerate(case.accumulators, start=1)]
        commands += [f"dep ind {case.indicators}", f"dep {CODE} {case.instruction}", f"dep ic {CODE}", "step 1"]
        commands += ["ex ic", "ex ac1", "ex ac2", "ex ac3", "ex ind"]
        commands += [f"ex {at}" for at in case.storage]
        commands += [f"dep {at} +0000000000" for at in case.storage]
    commands.append("exit")
    assert PROGRAM is not None
    done = subprocess.run(
        [PROGRAM], input="\n".join(commands) + "\n", capture_output=True, text=True, timeout=20, check=False
    )
    found = _LINE.findall(done.stdout.replace("sim> ", ""))
    outcomes: list[Outcome] = []
    at = 0
    for case in cases:
        count = 5 + len(case.storage)
        part = found[at : at + count]
        at += count
        values = [value for _, value in part]
        storage = dict(zip(case.storage, values[5:], strict=True))
        outcomes.append(Outcome(int(values[0]), tuple(values[1:4]), values[4], storage))
    return outcomes

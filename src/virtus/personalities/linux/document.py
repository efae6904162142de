"""docs/system-calls.md, written from the table itself: `python -m virtus.personalities.linux.document [FILE]`."""

import sys
from pathlib import Path

from virtus.isa.riscv64.linux_calls import NUMBERS as RISCV64
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.personalities.linux import boot, supervision
from virtus.personalities.linux.table import TABLE, Support, rows

HEAD = """# System calls

Every system call of x86-64 and of riscv64 Linux, as the table that dispatches them has it
(`src/virtus/personalities/linux/table.py`). This file is generated: `python -m virtus.personalities.linux.document`.

The columns *support* and *note* are about the user-mode kernel, which answers every call of a guest itself:
`uml-skas` and `uml-tt`, and for programs of riscv64 `emulation`. The numbers are those that guests of each processor
know it by. *partial* calls do what the manual says but for the note; *refused* ones always fail, and each attempt is
counted in the meter. Calls that stand nowhere give ENOSYS and a line in the meter.

Under `seccomp` the host's kernel serves the guest inside its namespaces: *native* calls go straight to it, *notified*
ones to the supervisor, *refused* ones fail with the errno given.

"""


def document() -> str:
    """The whole text."""
    boot.load_handlers()
    entries = list(rows())
    count = {support: sum(entry.support is support for entry in entries) for support in Support}
    absent = sorted((set(NUMBERS) | set(RISCV64)) - set(TABLE))
    lines = [
        f"{len(entries)} calls: {count[Support.FULL]} supported, {count[Support.PARTIAL]} partial, "
        f"{count[Support.REFUSED]} refused.",
        "",
        "| call | x86-64 | riscv64 | support | note | under seccomp |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{entry.name}` | {NUMBERS.get(entry.name, '')} | {RISCV64.get(entry.name, '')} | {entry.support.value} "
        f"| {entry.note} | {supervision.disposition(entry.name) if entry.name in NUMBERS else ''} |"
        for entry in entries
    ]
    if absent:
        lines += ["", "Not in the table: " + ", ".join(f"`{name}`" for name in absent) + "."]
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Write the file, docs/system-calls.md of the working directory by default."""
    Path(sys.argv[1] if len(sys.argv) > 1 else "docs/system-calls.md").write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()

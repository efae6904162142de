"""Reads the usual command lines of `virtus run` as its click command does, without importing click.

That import takes longer than an interpreter's start. Whatever is not in the tables below, errors and help above all, is
left to click: `read` gives None. A property test holds the two to the same values.
"""

from collections.abc import Sequence
from typing import Any, Final

TRACE, TRACE_HERE = "--trace", "-"
"""The option whose value may be left out, and what that means."""
DEFAULTS: Final[dict[str, Any]] = {
    "technique": None, "root": "/", "volumes": (), "net": "none", "hostname": "virtus", "user": None,
    "environment": (), "keep": None, "meter": False, "meter_json": None, "translate_only": False, "trace": None,
    "explain": False, "gdb": None, "memory": "256M", "cpus": 1, "initrd": None, "append": "", "disks": (),
    "cdrom": None, "floppy": None, "name": "", "console": None, "bios": None, "depth": None,
}  # fmt: skip
FLAGS: Final = {"--meter": "meter", "--explain": "explain", "--translate-only": "translate_only"}
ONCE: Final = {
    "--with": "technique", "--root": "root", "--net": "net", "--hostname": "hostname", "--keep": "keep",
    "--meter-json": "meter_json", TRACE: "trace",
}  # fmt: skip
OFTEN: Final = {"--volume": "volumes", "--env": "environment"}


def read(words: Sequence[str]) -> dict[str, Any] | None:
    """The values of the options and arguments after `virtus run`; None for what click must look at."""
    values, at = dict(DEFAULTS), 0
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        option, equals, value = words[at].partition("=")
        at += 1
        if option in FLAGS and not equals:
            values[FLAGS[option]] = True
            continue
        if option not in ONCE and option not in OFTEN:
            return None
        if option == TRACE and not equals:
            value = TRACE_HERE
        elif not equals:
            if at == len(words):
                return None
            value = words[at]
            at += 1
        if option in OFTEN:
            values[OFTEN[option]] += (value,)
        else:
            values[ONCE[option]] = value
    rest = words[at + 1 :] if words[at : at + 1] == ["--"] else words[at:]
    if not rest:
        return None
    return {**values, "guest": rest[0], "arguments": tuple(rest[1:])}

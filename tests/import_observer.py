"""Imports all modules of virtus, and prints which of them ask the host for something while they are imported.

Not the kernel's auxiliary vector: that is the same for all processes from one boot to the next.
"""

import builtins
import contextlib
import importlib
import os
import pkgutil
import sys
from typing import Any

import virtus

ASKED = (
    "getenv", "getcwd", "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "sched_getaffinity", "uname",
    "sysconf", "cpu_count", "urandom", "isatty", "listdir", "access", "readlink", "statvfs", "umask",
)  # fmt: skip
THE_SAME = {("open", "/proc/self/auxv")}
found: set[str] = set()


def note(what: str, first: Any) -> None:
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        "<frozen" in frame.f_code.co_filename or "_collections_abc" in frame.f_code.co_filename
    ):
        frame = frame.f_back
    name = frame.f_globals.get("__name__", "")
    if name.startswith("virtus.") and (what, first) not in THE_SAME:
        found.add(f"{name}: {what}({first!r})")


def watch(module: Any, name: str) -> None:
    function = getattr(module, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        note(name, arguments[0] if arguments else None)
        return function(*arguments, **options)

    setattr(module, name, watched)


for name in ASKED:
    watch(os, name)
watch(builtins, "open")
watch(type(os.environ), "__getitem__")
for module in pkgutil.walk_packages(virtus.__path__, "virtus."):
    if not module.name.endswith("__main__"):
        with contextlib.suppress(ImportError):  # needs a library that is not installed
            importlib.import_module(module.name)
print("\n".join(sorted(found)), end="")

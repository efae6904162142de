"""Libraries for a foreign processor: where a guest looks for a library it finds that of a sysroot, if there is one.

A guest for another processor sees the host's files, and among them the host's own libraries, which are of no use to it.
A sysroot, as cross compilers have one, holds the others under the same names. Only looking is redirected, never what
changes files, as the option -L of qemu-user has it; and not once a task has changed its root.
"""

import os
from typing import TYPE_CHECKING, Final

from virtus.host import path_calls as host

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

PLACES: Final = (b"/lib/", b"/lib64/", b"/usr/lib/", b"/etc/ld.so.")
"""How paths begin that may mean a sysroot's files: the loader itself, libraries, and what the loader reads."""
F_OK: Final = 0


def redirected(task: "Task", path: bytes) -> bytes:
    """The path to look up for a guest's own: that of the first sysroot that has such a file, else the same."""
    kernel = task.kernel
    if kernel.sysroots and path.startswith(PLACES) and task.place.root == "/":
        kernel.assume(task)
        for root in kernel.sysroots:
            found = os.fsencode(root) + path
            if host.faccessat2(host.AT_FDCWD, found, F_OK, host.AT_EACCESS) == 0:
                return found
    return path

"""What an open file is called: the text that /proc/PID/fd shows for it."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtus.personalities.linux.files import File
    from virtus.personalities.linux.kernel import Kernel


def name_of_host(kernel: "Kernel", host: int) -> bytes:
    """The guest's path of a host descriptor: the kernel process's root is the guest's, so the host's name is right."""
    return os.readlink(b"self/fd/%d" % host, dir_fd=kernel.procfs)


def name_of(kernel: "Kernel", file: "File") -> bytes:
    """The guest's name of an open file: its own word for it when it has one, else the host's."""
    if file.path:
        return os.fsencode(file.path)
    if file.host >= 0:
        return name_of_host(kernel, file.host)
    return b"anon_inode:[%s]" % file.kind.encode()

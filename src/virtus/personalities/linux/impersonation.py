"""The kernel process acting for a task: working directory, umask, and the identity the host checks files against.

The kernel process is the only one that touches files, for all guests; each host call it makes on a path must be made
as the guest would have made it. What is already so is not set again.
"""

import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from virtus.personalities.linux.task import Task

_libc = ctypes.CDLL(None, use_errno=True)


class Impersonation:
    """`many_users`: the user namespace maps more than one user, so that identities can differ at all."""

    def __init__(self, *, many_users: bool) -> None:
        self._many_users = many_users
        self._directory = -2
        self._place: object = None
        self._umask = -1
        self._credentials: object = None

    def assume(self, task: "Task") -> None:
        """Be this task for the host calls to come."""
        place = task.place
        if place is not self._place or place.directory != self._directory:
            self._place, self._directory = place, place.directory
            if place.directory >= 0:
                os.fchdir(place.directory)
            else:
                os.chdir("/")
        if place.umask != self._umask:
            self._umask = place.umask
            os.umask(place.umask)
        if task.credentials is not self._credentials and self._many_users:
            self._credentials = credentials = task.credentials
            _libc.setfsuid(0)  # with the capability to set the rest
            os.setgroups(list(credentials.groups))
            _libc.setfsgid(credentials.fsgid)
            _libc.setfsuid(credentials.fsuid)

    def forget(self) -> None:
        """The kernel process has changed directory or identity by itself."""
        self._place, self._directory, self._umask, self._credentials = None, -2, -1, None

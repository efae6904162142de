"""Results of system calls that are no number for the guest."""

from typing import Final

NO_RESULT: Final = 1 << 63
"""Returned by a handler that has set the registers itself (rt_sigreturn, execve), or whose task is gone (exit)."""

RESTART: Final = -512
"""ERESTARTSYS (include/linux/errno.h): a signal came; begin again, or EINTR when a handler without SA_RESTART runs."""

INTERRUPTED: Final = -514
"""ERESTARTNOHAND: a signal came; EINTR when any handler runs, begin again when none did after all."""

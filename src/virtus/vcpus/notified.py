"""vCPU `notified`: the host's processor and kernel run the guest; only what a seccomp filter names comes out."""

from collections.abc import Callable

from virtus.exits import ENDED, SYSCALL, Exit
from virtus.host.seccomp import Listener


class NotifiedVcpu:
    """Waits for notifications. An exit's context is the `Listener`, which answers the call.

    `ended` is asked whenever the wait is interrupted (SIGCHLD): whether the box is gone.
    """

    def __init__(self, listener: int, ended: Callable[[], bool]) -> None:
        self._listener = Listener(listener)
        self._receive = self._listener.receive
        self._ended = ended
        self._exit = Exit()
        self._exit.context = self._listener

    def run(self) -> Exit:
        """See Vcpu."""
        exit = self._exit
        while (number := self._receive()) < 0:
            if self._ended():
                exit.reason, exit.number = ENDED, 0
                return exit
        exit.reason, exit.number = SYSCALL, number
        return exit

    def close(self) -> None:
        """See Vcpu."""
        self._listener.close()

"""The user's signals, and the end of the box, noticed while the supervisor waits inside a call of the host's kernel.

A signal that comes just before such a wait interrupts nothing, and its handler has to wait too; a thread that reads
what the signals write (signal.set_wakeup_fd) does not.
"""

import os
import select
import signal
import threading
from typing import Any, Final

from virtus.host.channel import Channel
from virtus.machine.sandbox import SandboxProcess

FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
AGAIN_S: Final = 0.01
"""How soon the waiting thread is interrupted again once the box is gone."""


class Watch:
    """From `start` to `stop`: passes signals on to the box, one byte each, and interrupts the wait at the box's end.

    Signals are the main thread's: where the library is used from another one, only the end is noticed.
    """

    def __init__(self, box: SandboxProcess) -> None:
        self.ended = False
        self._control: Channel = box.control
        self._pidfd = os.pidfd_open(box.pid)
        self._waiter = threading.get_ident()
        self._stopping, self._stop = os.pipe()
        self._arrived, self._arrive = os.pipe()
        os.set_blocking(self._arrive, False)
        self._before: dict[int, Any] = {}
        self._wakeup = -1
        self._thread = threading.Thread(target=self._look, daemon=True)

    def start(self) -> None:
        """Take over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (*FORWARDED, signal.SIGCHLD):
                self._before[number] = signal.signal(number, lambda *_: None)
            self._wakeup = signal.set_wakeup_fd(self._arrive, warn_on_full_buffer=False)
        self._thread.start()

    def stop(self) -> None:
        """Signals are handled as before."""
        os.write(self._stop, b"x")
        self._thread.join()
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
        for fd in (self._pidfd, self._stopping, self._stop, self._arrived, self._arrive):
            os.close(fd)

    def _look(self) -> None:
        sources = [self._stopping, self._arrived, self._pidfd]
        while True:
            ready, _, _ = select.select(sources, [], [], AGAIN_S if self.ended else None)
            if self._stopping in ready:
                return
            if self._arrived in ready:
                self._pass_on(os.read(self._arrived, 512))
            if self._pidfd in ready:
                self.ended = True
                sources.remove(self._pidfd)
            if self.ended and self._before:
                signal.pthread_kill(self._waiter, signal.SIGCHLD)

    def _pass_on(self, numbers: bytes) -> None:
        wanted = bytes(number for number in numbers if number in FORWARDED)
        if wanted:
            try:
                self._control.send(wanted)
            except OSError:
                return  # the guest has just ended

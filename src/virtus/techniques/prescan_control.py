"""What `virtus domain` can have of a PC while it runs: its state, its console, a picture of its screen, its end."""

import os
import resource
import select
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from virtus.devices.console import Console
from virtus.errors import UsageError
from virtus.machine.control import ConsoleWanted, ControlSocket
from virtus.machine.machine_spec import MachineSpec
from virtus.personalities.pc.board import Board
from virtus.techniques.booting import default_name

DESTROYED: Final = 137
"""Status of a machine that was ended from outside: as of a program that was killed."""
LOOK_EVERY_S: Final = 0.2


class PcControl:
    """The control socket of a board; one of its services. Raises UsageError for a name that is taken."""

    def __init__(self, spec: MachineSpec, board: Board, console: Console) -> None:
        self._spec, self._board, self._console = spec, board, console
        self.name = spec.name or default_name(spec.kernel)
        self._began = time.monotonic()
        self._paused = False
        commands = {
            "describe": self._describe, "pause": self._pause, "unpause": self._unpause, "destroy": self._destroy,
            "shutdown": self._shutdown, "console": self._attach, "screenshot": self._screenshot,
        }  # fmt: skip
        self._socket = ControlSocket(self.name, commands)

    def descriptors(self) -> list[int]:
        """See Service."""
        return self._socket.descriptors()

    def poll(self) -> None:
        """See Service. While the machine is paused this does not return, and so the processor does not go on."""
        self._socket.poll()
        while self._paused and self._board.running:
            select.select(self._socket.descriptors(), [], [], LOOK_EVERY_S)
            self._socket.poll()

    def close(self) -> None:
        """Nobody can ask any more."""
        self._socket.close()

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "name": self.name, "technique": "prescan", "pid": os.getpid(),
            "state": "paused" if self._paused else "running", "processors": 1,
            "memory": self._spec.memory, "most_memory": self._spec.memory,
            "cpu_s": used.ru_utime + used.ru_stime, "up_s": time.monotonic() - self._began,
        }  # fmt: skip

    def _pause(self, request: Mapping[str, Any]) -> None:
        self._paused = True

    def _unpause(self, request: Mapping[str, Any]) -> None:
        self._paused = False

    def _destroy(self, request: Mapping[str, Any]) -> None:
        self._board.end("destroyed", DESTROYED)

    def _shutdown(self, request: Mapping[str, Any]) -> None:
        if request.get("how", "poweroff") != "poweroff":
            raise UsageError(f"shutting down {self.name}", "a PC has a power button, and no other", "leave it away")
        self._board.power.press_power_button()

    def _attach(self, request: Mapping[str, Any]) -> None:
        raise ConsoleWanted(self._console.attach)

    def _screenshot(self, request: Mapping[str, Any]) -> list[int]:
        """Width and height of the picture."""
        self._board.screen.screenshot(Path(str(request.get("path"))))
        return list(self._board.screen.picture()[:2])

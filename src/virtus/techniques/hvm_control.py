"""What `virtus domain` can ask of a hardware-assisted machine."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from virtus.devices.virtio.balloon import Balloon
from virtus.errors import UsageError, VirtusError
from virtus.machine.control import Command, ConsoleWanted, ControlSocket
from virtus.machine.machine_spec import MachineSpec, spec_as_json
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.records import replace
from virtus.techniques.booting import default_name
from virtus.techniques.hvm_machine import DESTROYED, RunningMachine


def control(running: RunningMachine, spec: MachineSpec, typed_at_virtio: bool) -> ControlSocket:
    """The machine's end of the control interface; raises UsageError for a name that is taken."""
    name = spec.name or default_name(spec.kernel)
    return ControlSocket(name, _Commands(running, replace(spec, name=name), typed_at_virtio).all())


class _Commands:
    def __init__(self, running: RunningMachine, spec: MachineSpec, typed_at_virtio: bool) -> None:
        self._running, self._spec, self._typed_at_virtio = running, spec, typed_at_virtio
        self._balloon = next(device for device in running.devices if isinstance(device, Balloon))

    def all(self) -> Mapping[str, Command]:
        """By name."""
        return {
            "describe": self.describe, "pause": lambda request: self._running.pause(), "destroy": self.destroy,
            "unpause": lambda request: self._running.unpause(), "memory": self.memory, "pin": self.pin,
            "console": self.console, "save": self.save,
        }  # fmt: skip

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What `virtus domain list` shows."""
        running, spec = self._running, self._spec
        return {
            "name": spec.name, "technique": "hvm", "pid": os.getpid(),
            "state": "paused" if running.paused else "running", "processors": len(running.machine.vcpus),
            "memory": spec.memory - (self._balloon.actual << FRAME_SHIFT), "most_memory": spec.memory,
            "cpu_s": running.cpu_s(), "up_s": time.monotonic() - running.began,
            "devices": [
                {"kind": device.name, "connected": device.queues[0].ready, "requests": device.requests,
                 "bytes": device.bytes, "excluded": device.memory.violations, "broken": device.broken}
                for device in running.devices
            ],
        }  # fmt: skip

    def destroy(self, request: Mapping[str, Any]) -> None:
        """As a power cut."""
        self._running.board.end("destroyed", DESTROYED)

    def memory(self, request: Mapping[str, Any]) -> None:
        """Ask the guest's balloon for more or less."""
        spec, board, size = self._spec, self._running.board, int(request.get("bytes", 0))
        if not 0 < size <= spec.memory:
            raise UsageError(f"resizing {spec.name}", f"{size >> 20} MiB", f"at most {spec.memory >> 20}M")
        with board.lock:
            self._balloon.target = spec.memory - size >> FRAME_SHIFT
            next(one for one in board.transports if one.device is self._balloon).configuration_changed()

    def pin(self, request: Mapping[str, Any]) -> None:
        """Which processors of the host it runs on."""
        wanted = {int(number) for number in request.get("processors", [])}
        try:
            for thread in os.listdir("/proc/self/task"):
                os.sched_setaffinity(int(thread), wanted)
        except (OSError, ValueError) as error:
            raise VirtusError(f"pinning {self._spec.name} to {sorted(wanted)}", str(error), "see lscpu") from error

    def console(self, request: Mapping[str, Any]) -> None:
        """Somebody else takes part."""
        raise ConsoleWanted(self._running.console.attach)

    def save(self, request: Mapping[str, Any]) -> None:
        """Into a file; the machine ends when that is on the disk, and goes on as before where it cannot be made."""
        running, spec, path = self._running, self._spec, Path(str(request.get("path")))
        from virtus.machine import saved_machine

        doing = f"saving {spec.name}"
        lost = [str(disk.path) for disk in spec.disks if disk.snapshot]
        if lost:
            raise UsageError(doing, f"what it wrote to {lost[0]} is thrown away", "use disks without snapshot")
        was_paused = running.paused
        running.pause()
        try:
            running.board.look_everywhere()
            known = {
                "technique": "hvm", "spec": spec_as_json(spec), "typed_at_virtio": self._typed_at_virtio,
                "machine": running.machine.save(), "board": running.board.save(),
            }  # fmt: skip
            saved_machine.write(path, known, running.machine.memory, touched(running.machine.memory))
        except (OSError, VirtusError) as error:
            if not was_paused:
                running.unpause()
            if isinstance(error, VirtusError):
                raise
            raise VirtusError(doing, error.strerror or str(error), "it goes on as before") from error
        running.board.end("saved", 0)  # no processor has run since


def touched(memory: GuestMemory) -> list[tuple[int, int]]:
    """The frames that the host has given so far, as ranges (first, count); all others are zero."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < memory.size:
        try:
            start = os.lseek(memory.fd, at, os.SEEK_DATA)
        except OSError:
            break  # ENXIO: only holes from here on
        if start >= memory.size:
            break
        at = min(os.lseek(memory.fd, start, os.SEEK_HOLE), memory.size)
        found.append((start >> FRAME_SHIFT, (at - start + PAGE - 1) >> FRAME_SHIFT))
    return found

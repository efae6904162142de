"""What the control domain can do with a domain: this process is it, and nobody else (xen/include/public/domctl.h).

A domain that asks for such things by hypercall is refused; its user's other processes ask through the machine's control
socket, whose commands these are.
"""

import os
import resource
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from virtus.errors import UsageError, VirtusError
from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.personalities.xen.abi import DOMID_CONTROL, EPERM, Refused
from virtus.personalities.xen.table import call
from virtus.personalities.xen.xenstore import StoreError

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain
    from virtus.personalities.xen.xenstore import Store

DESTROYED: Final = 137
"""The exit status of a machine that was destroyed, as a shell shows a program that was killed."""
LEAST_MEMORY: Final = 32 << 20
REQUESTS: Final = ("poweroff", "reboot", "halt")
"""What a guest can be asked for in control/shutdown (docs/misc/xenstore-paths.pandoc)."""


class Toolstack:
    """Acts on one domain, in the thread that runs it."""

    def __init__(self, domain: "Domain", store: "Store", name: str) -> None:
        self._domain, self._store, self.name = domain, store, name
        self._home = b"/local/domain/%d" % domain.ident
        self._began = time.monotonic()

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What `virtus domain list` shows. Sizes in bytes, times in seconds."""
        domain, used = self._domain, resource.getrusage(resource.RUSAGE_SELF)
        return {
            "name": self.name,
            "technique": "paravirt",
            "pid": os.getpid(),
            "state": "paused" if domain.paused else "running",
            "processors": len(domain.cpus),
            "memory": domain.frame_count << FRAME_SHIFT,
            "most_memory": domain.most_frames << FRAME_SHIFT,
            "cpu_s": used.ru_utime + used.ru_stime,
            "up_s": time.monotonic() - self._began,
            "devices": [
                {"kind": back_end.kind.decode(), "connected": back_end.connected, "requests": back_end.requests,
                 "bytes": back_end.bytes}
                for back_end in domain.back_ends
            ],
        }  # fmt: skip

    def pause(self, request: Mapping[str, Any]) -> None:
        """It does not run from here on."""
        self._domain.paused = True

    def unpause(self, request: Mapping[str, Any]) -> None:
        """It runs again."""
        self._domain.paused = False

    def destroy(self, request: Mapping[str, Any]) -> None:
        """It is no more, as after a power cut."""
        self._domain.ended, self._domain.status = "destroyed", DESTROYED

    def shutdown(self, request: Mapping[str, Any]) -> None:
        """Ask the guest to power off, or for what the request's `how` says."""
        how = str(request.get("how", "poweroff"))
        if how not in REQUESTS:
            raise UsageError(f"shutting {self.name} down", f"{how!r}", f"one of {', '.join(REQUESTS)}")
        self._store.write(DOMID_CONTROL, self._home + b"/control/shutdown", how.encode())

    def memory(self, request: Mapping[str, Any]) -> None:
        """Have the guest's balloon driver give memory back, or take it again, until it has `bytes`."""
        size, most = int(request.get("bytes", 0)), self._domain.most_frames << FRAME_SHIFT
        if not LEAST_MEMORY <= size <= most:
            bounds = f"between {LEAST_MEMORY >> 20}M and {most >> 20}M"
            raise UsageError(f"resizing {self.name}", f"{size >> 20} MiB", bounds)
        self._store.write(DOMID_CONTROL, self._home + b"/memory/target", b"%d" % (size >> 10))

    def pin(self, request: Mapping[str, Any]) -> None:
        """Have the domain run on these processors of the host alone."""
        wanted = {int(number) for number in request.get("processors", [])}
        try:
            os.sched_setaffinity(0, wanted)
        except (OSError, ValueError) as error:
            raise VirtusError(f"pinning {self.name} to {sorted(wanted)}", str(error), "see lscpu") from error

    def store(self, request: Mapping[str, Any]) -> Any:
        """Look into xenstore, or change it: `what` is ls, read, write or rm, of `path`, with `value`."""
        what, path = str(request.get("what")), str(request.get("path", "/"))
        at = path.encode() if path.startswith("/") else self._home + b"/" + path.encode()
        at = at.rstrip(b"/") or b"/"
        store = self._store
        try:
            if what == "ls":
                return {name.decode(errors="replace"): self._value(at, name) for name in store.directory(0, at)}
            if what == "read":
                return store.read(DOMID_CONTROL, at).decode(errors="replace")
            if what == "write":
                store.write(DOMID_CONTROL, at, str(request.get("value", "")).encode())
            elif what == "rm":
                store.remove(DOMID_CONTROL, at)
            else:
                raise UsageError(f"asking {self.name}'s store", f"{what!r}", "ls, read, write or rm")
        except StoreError as error:
            raise UsageError(f"asking {self.name}'s store for {path}", error.name) from error
        return None

    def _value(self, path: bytes, name: bytes) -> str:
        return self._store.read(DOMID_CONTROL, path.rstrip(b"/") + b"/" + name).decode(errors="replace")

    def commands(self) -> dict[str, Any]:
        """By the names that `virtus domain` uses."""
        return {
            "describe": self.describe, "pause": self.pause, "unpause": self.unpause, "destroy": self.destroy,
            "shutdown": self.shutdown, "memory": self.memory, "pin": self.pin, "store": self.store,
        }  # fmt: skip


def _refuse(domain: "Domain") -> int:
    domain.note("the domain asked for what only the control domain may do")
    raise Refused(EPERM)


for _name in ("platform_op", "domctl", "sysctl", "kexec_op"):
    call(_name, note="only the control domain may: EPERM")(_refuse)

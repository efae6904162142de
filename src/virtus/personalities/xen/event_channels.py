"""Event channels: a domain's interrupts. Two arrays of bits in its shared page, pending and masked, and a port table.

A port is bound to a virtual interrupt, to the domain itself (IPI), or to a port of another side: another domain, or a
back end of ours, which is a function to be called. Source: xen/include/public/event_channel.h, the two-level ABI.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.personalities.xen.abi import (
    DOMID_CONTROL,
    DOMID_SELF,
    EEXIST,
    EINVAL,
    ENOENT,
    ENOSPC,
    EPERM,
    ESRCH,
    PENDING_SELECTOR,
    SHARED_MASK,
    SHARED_PENDING,
    UPCALL_PENDING,
    VIRQ_DEBUG,
    VIRQ_TIMER,
    Refused,
)
from virtus.personalities.xen.table import operation
from virtus.records import dataclass

if TYPE_CHECKING:
    from virtus.personalities.xen.cpu import Cpu
    from virtus.personalities.xen.domain import Domain

PORTS: Final = 4096  # 64 words of 64 bits
VIRQS: Final = 24  # NR_VIRQS
PER_PROCESSOR: Final = frozenset((VIRQ_TIMER, VIRQ_DEBUG))


class Status(IntEnum):
    """EVTCHNSTAT_*."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    PIRQ = 3
    VIRQ = 4
    IPI = 5


@dataclass(slots=True)
class Port:
    """One event channel of a domain."""

    status: Status = Status.CLOSED
    remote_domain: int = 0
    remote_port: int = 0
    virq: int = 0
    cpu: int = 0  # the processor that is told
    notify: Callable[[], None] | None = None  # a back end of the control domain at the other end


class EventChannels:
    """The ports of one domain, whose shared page is the frame `shared`."""

    def __init__(self, domain: "Domain", shared: int) -> None:
        self._domain = domain
        base = shared << FRAME_SHIFT
        self._words = domain.memory.words
        self._pending, self._mask = base + SHARED_PENDING >> 3, base + SHARED_MASK >> 3
        self.ports: dict[int, Port] = {}
        self._virqs: dict[tuple[int, int], int] = {}  # virtual interrupt and processor: port

    def save(self) -> list[list[Any]]:
        """The ports. What back ends of ours are bound to, they bind again (`reconnect`)."""
        return [
            [number, port.status, port.remote_domain, port.remote_port, port.virq, port.cpu]
            for number, port in self.ports.items()
        ]

    def load(self, saved: list[list[Any]]) -> None:
        """What `save` gave."""
        self.ports = {
            number: Port(Status(status), remote, remote_port, virq, cpu)
            for number, status, remote, remote_port, virq, cpu in saved
        }
        virqs = [(number, port) for number, port in self.ports.items() if port.status is Status.VIRQ]
        self._virqs = {(port.virq, port.cpu): number for number, port in virqs}

    def reconnect(self, number: int, notify: Callable[[], None]) -> None:
        """Bind a back end of ours to a port that it was bound to when the domain was saved; raises ValueError."""
        port = self.ports.get(number)
        if port is None or port.status is not Status.INTERDOMAIN or port.remote_domain != DOMID_CONTROL:
            raise ValueError(f"port {number} is not the control domain's")
        port.notify = notify

    def allocate(self, port: Port) -> int:
        """A free port's number for this binding; raises Refused(ENOSPC). Port 0 is never used."""
        number = next((at for at in range(1, PORTS) if at not in self.ports), None)
        if number is None:
            raise Refused(ENOSPC, "no free event channel")
        self.ports[number] = port
        return number

    def connect(self, number: int, notify: Callable[[], None]) -> None:
        """Bind a back end of ours to a port that the domain has left open for us; raises Refused."""
        port = self.ports.get(number)
        if port is None or port.status is not Status.UNBOUND or port.remote_domain != DOMID_CONTROL:
            raise Refused(EINVAL, f"port {number} is not open for the control domain")
        port.status, port.notify = Status.INTERDOMAIN, notify

    def open_back_end(self, notify: Callable[[], None]) -> int:
        """A port that is bound to a back end of ours from the beginning."""
        return self.allocate(Port(Status.INTERDOMAIN, DOMID_CONTROL, notify=notify))

    def disconnect(self, number: int) -> None:
        """Our end of a channel goes away; the domain's stays, unbound."""
        port = self.ports.get(number)
        if port is not None and port.notify is not None:
            port.status, port.notify = Status.UNBOUND, None

    def raise_event(self, number: int) -> None:
        """Set a port's pending bit, and the ways to it unless it is masked."""
        words, bit, at = self._words, 1 << (number & 63), number >> 6
        if words[self._pending + at] & bit:
            return
        words[self._pending + at] |= bit
        port = self.ports.get(number)
        cpu = self._domain.cpus[port.cpu] if port is not None else self._domain.cpus[0]
        if not words[self._mask + at] & bit:
            self._select(at, cpu)
        elif number in cpu.polled:
            cpu.wake()

    def _select(self, word: int, cpu: "Cpu") -> None:
        info = cpu.info_at
        self._words[info + PENDING_SELECTOR >> 3] |= 1 << word
        self._domain.memory.bytes[info + UPCALL_PENDING] = 1
        if not cpu.context.running:
            cpu.wake()

    def is_pending(self, number: int) -> bool:
        """Whether a port's pending bit is set; False for ports that there cannot be."""
        return number < PORTS and bool(self._words[self._pending + (number >> 6)] >> (number & 63) & 1)

    def raise_virq(self, virq: int, cpu: int = 0) -> None:
        """A virtual interrupt happens to a processor; nothing when the domain has not bound it there."""
        port = self._virqs.get((virq, cpu))
        if port is not None:
            self.raise_event(port)

    def send(self, number: int) -> None:
        """The domain notifies the other end of a port; raises Refused."""
        port = self._open(number)
        if port.status is Status.IPI:
            self.raise_event(number)
        elif port.notify is not None:
            port.notify()
        elif port.status is Status.INTERDOMAIN:
            other = self._domain.peers.get(port.remote_domain)
            if other is not None:
                other.events.raise_event(port.remote_port)
        elif port.status is not Status.UNBOUND:
            raise Refused(EINVAL, f"port {number} is bound to no other end")

    def close(self, number: int) -> None:
        """Close a port; the other end of an interdomain channel becomes unbound. Raises Refused."""
        port = self._open(number)
        if port.status is Status.VIRQ:
            self._virqs.pop((port.virq, port.cpu), None)
        if port.status is Status.INTERDOMAIN and port.notify is None:
            other = self._domain.peers.get(port.remote_domain)
            remote = other.events.ports.get(port.remote_port) if other is not None else None
            if remote is not None and remote.status is Status.INTERDOMAIN:
                remote.status, remote.remote_domain, remote.remote_port = Status.UNBOUND, self._domain.ident, 0
        del self.ports[number]
        self._words[self._pending + (number >> 6)] &= ~(1 << (number & 63))

    def unmask(self, number: int) -> None:
        """Clear a port's mask bit, and bring on what was pending; raises Refused."""
        if number >= PORTS:
            raise Refused(EINVAL)
        bit, at = 1 << (number & 63), number >> 6
        self._words[self._mask + at] &= ~bit
        if self._words[self._pending + at] & bit:
            port = self.ports.get(number)
            self._select(at, self._domain.cpus[port.cpu if port is not None else 0])

    def bind_virq(self, virq: int, cpu: int = 0) -> int:
        """A port for a virtual interrupt of a processor; raises Refused."""
        if virq >= VIRQS or (cpu and virq not in PER_PROCESSOR):
            raise Refused(EINVAL)
        if (virq, cpu) in self._virqs:
            raise Refused(EEXIST)
        number = self.allocate(Port(Status.VIRQ, virq=virq, cpu=cpu))
        self._virqs[virq, cpu] = number
        return number

    def bind_cpu(self, number: int, cpu: int) -> None:
        """Have another processor told of a port; raises Refused for those that belong to one."""
        port = self._open(number)
        if port.status is Status.IPI or (port.status is Status.VIRQ and port.virq in PER_PROCESSOR):
            raise Refused(EINVAL, f"port {number} belongs to its processor")
        port.cpu = cpu
        if self.is_pending(number):
            self.unmask_if_open(number)

    def unmask_if_open(self, number: int) -> None:
        """Tell the port's processor of what is pending, unless the port is masked."""
        if not self._words[self._mask + (number >> 6)] >> (number & 63) & 1:
            self.unmask(number)

    def bind_interdomain(self, remote_domain: int, remote_port: int) -> int:
        """A port bound to one that another domain has left open for this one; raises Refused."""
        other = self._domain if remote_domain == self._domain.ident else self._domain.peers.get(remote_domain)
        if other is None:
            self._domain.note(f"bind_interdomain refused: domain {remote_domain} is not in this machine")
            raise Refused(ESRCH)
        remote = other.events.ports.get(remote_port)
        if remote is None or remote.status is not Status.UNBOUND or remote.remote_domain != self._domain.ident:
            raise Refused(EINVAL, f"port {remote_port} of domain {remote_domain} is not open for us")
        number = self.allocate(Port(Status.INTERDOMAIN, other.ident, remote_port))
        remote.status, remote.remote_domain, remote.remote_port = Status.INTERDOMAIN, self._domain.ident, number
        self.raise_event(number)  # what was sent before is not lost
        return number

    def _open(self, number: int) -> Port:
        port = self.ports.get(number)
        if port is None:
            raise Refused(EINVAL, f"port {number} is closed")
        return port


def _exists(domain: "Domain", cpu: int) -> int:
    if cpu >= len(domain.cpus):
        raise Refused(ENOENT, f"no processor {cpu}")
    return cpu


def _itself(domain: "Domain", named: int) -> None:
    if named not in (DOMID_SELF, domain.ident):
        raise Refused(EPERM)


@operation("event_channel_op", 0, "bind_interdomain")
def bind_interdomain(domain: "Domain", at: int) -> int:
    """struct evtchn_bind_interdomain."""
    remote, port = struct.unpack("<HxxI", domain.access.read(at, 8))
    domain.access.write_dword(at + 8, domain.events.bind_interdomain(remote, port))
    return 0


@operation("event_channel_op", 1, "bind_virq")
def bind_virq(domain: "Domain", at: int) -> int:
    """struct evtchn_bind_virq."""
    virq, cpu = struct.unpack("<II", domain.access.read(at, 8))
    domain.access.write_dword(at + 8, domain.events.bind_virq(virq, _exists(domain, cpu)))
    return 0


@operation("event_channel_op", 3, "close")
def close(domain: "Domain", at: int) -> int:
    """struct evtchn_close."""
    domain.events.close(domain.access.read_dword(at))
    return 0


@operation("event_channel_op", 4, "send")
def send(domain: "Domain", at: int) -> int:
    """struct evtchn_send."""
    domain.events.send(domain.access.read_dword(at))
    return 0


@operation("event_channel_op", 5, "status")
def status(domain: "Domain", at: int) -> int:
    """struct evtchn_status."""
    named, number = struct.unpack("<HxxI", domain.access.read(at, 8))
    _itself(domain, named)
    if number >= PORTS:
        raise Refused(EINVAL)
    port = domain.events.ports.get(number, Port())
    more = {Status.VIRQ: port.virq, Status.UNBOUND: port.remote_domain, Status.INTERDOMAIN: port.remote_domain}
    answer = struct.pack("<IIII", port.status, port.cpu, more.get(port.status, 0), port.remote_port)
    domain.access.write(at + 8, answer if port.status is Status.INTERDOMAIN else answer[:12])
    return 0


@operation("event_channel_op", 6, "alloc_unbound")
def alloc_unbound(domain: "Domain", at: int) -> int:
    """struct evtchn_alloc_unbound."""
    named, remote = struct.unpack("<HH", domain.access.read(at, 4))
    _itself(domain, named)
    remote = domain.ident if remote == DOMID_SELF else remote
    domain.access.write_dword(at + 4, domain.events.allocate(Port(Status.UNBOUND, remote)))
    return 0


@operation("event_channel_op", 7, "bind_ipi")
def bind_ipi(domain: "Domain", at: int) -> int:
    """struct evtchn_bind_ipi."""
    cpu = _exists(domain, domain.access.read_dword(at))
    domain.access.write_dword(at + 4, domain.events.allocate(Port(Status.IPI, cpu=cpu)))
    return 0


@operation("event_channel_op", 8, "bind_vcpu")
def bind_vcpu(domain: "Domain", at: int) -> int:
    """struct evtchn_bind_vcpu."""
    port, cpu = struct.unpack("<II", domain.access.read(at, 8))
    domain.events.bind_cpu(port, _exists(domain, cpu))
    return 0


@operation("event_channel_op", 9, "unmask")
def unmask(domain: "Domain", at: int) -> int:
    """struct evtchn_unmask."""
    domain.events.unmask(domain.access.read_dword(at))
    return 0

"""A domain as plain data beside its memory, and back: what the hypervisor knows of it.

The guest does not take part. Machine frames are the same afterwards, so nothing in its page tables has to change; its
front ends find the back ends as they left them, and time stands still in between.
"""

import hashlib
from typing import TYPE_CHECKING, Any, Final

from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.grants import FRAMES, STATUS_FRAMES

if TYPE_CHECKING:
    from virtus.devices.console import Console
    from virtus.personalities.xen.machine import XenMachine

VERSION: Final = 2


def _processor(domain: Domain) -> str:
    """What the guest has been told of its processor."""
    return hashlib.sha256(repr(sorted(domain.cpuid.leaves.items())).encode()).hexdigest()


def _place(machine: "XenMachine", domain: Domain) -> list[int]:
    """Where things are; the same for every machine of this size."""
    entries = [word for pair in sorted(machine.reserved.items()) for word in pair]
    return [machine.frames.count, domain.first_frame, domain.most_frames, domain.shared_frame, *entries]


def pieces(machine: "XenMachine", domain: Domain) -> list[tuple[int, int]]:
    """The frames whose contents belong to the domain: the first one, and how many."""
    return [
        machine.m2p_frames,
        (domain.shared_frame, 1),
        (domain.grants.first, FRAMES),
        (domain.grants.status, STATUS_FRAMES),
        (domain.first_frame, domain.most_frames),
    ]


def save(machine: "XenMachine", domain: Domain) -> dict[str, Any]:
    """All but memory; raises ValueError, saying why, while the domain is in the middle of something."""
    return {
        "version": VERSION,
        "processor": _processor(domain),
        "place": _place(machine, domain),
        "frames": machine.frames.save(),
        "tree": machine.store.save(domain.ident),
        "domain": {"frame_count": domain.frame_count, "uuid": domain.uuid.hex()},
        "tables": domain.tables.save(),
        "contexts": [cpu.context.save() for cpu in domain.cpus],
        "cpus": [cpu.save() for cpu in domain.cpus],
        "current": domain.cpu.number,
        "control": domain.privileged.save(),
        "extended": domain.cpuid.xcr0,
        "events": domain.events.save(),
        "grants": domain.grants.save(),
        "store": [domain.store.port, domain.store.frame, domain.store.connection.save()],
        "console": [domain.console.port, domain.console.frame],
        "back_ends": [back_end.save() for back_end in domain.back_ends],
    }


def load(machine: "XenMachine", domain: Domain, saved: dict[str, Any], console: "Console") -> None:
    """Into a new domain of the same size, whose memory is there again, before its back ends are made.

    Raises ValueError, KeyError, TypeError or OSError for what `save` never gives, or gave on another kind of host.
    """
    if saved["version"] != VERSION:
        raise ValueError(f"version {saved['version']} of the format")
    if saved["processor"] != _processor(domain):
        raise ValueError("a processor with other features")
    if saved["place"] != _place(machine, domain):
        raise ValueError("a machine that is laid out in another way")
    machine.frames.load(saved["frames"])
    domain.frame_count, domain.uuid = saved["domain"]["frame_count"], bytes.fromhex(saved["domain"]["uuid"])
    domain.tables.load(saved["tables"])
    domain.events.load(saved["events"])
    domain.grants.load(saved["grants"])
    domain.privileged.load(saved["control"])
    domain.cpuid.xcr0 = saved["extended"]
    if len(saved["cpus"]) != len(domain.cpus):
        raise ValueError("another number of processors")
    domain.cpu = domain.cpus[saved["current"]]
    for cpu, context, known in zip(domain.cpus, saved["contexts"], saved["cpus"], strict=True):
        cpu.context.load(context)
        cpu.load(known)
    store_port, store_frame, connection = saved["store"]
    console_port, console_frame = saved["console"]
    domain.reconnect(store_port, console_port, [store_frame, console_frame], machine.store, console)
    domain.store.connection.load(connection)
    machine.store.load(saved["tree"], domain.ident, domain.store.connection.fired)
    for cpu in domain.cpus:
        cpu.context.wake_at(0)  # time has passed, and something may be pending

"""Several processors of one machine that take turns in one thread of the host.

While one runs, no other does: what the hypervisor changes in page tables is seen by all before any of them goes on, and
nothing of the machine needs a lock. So a domain's processors are as many as its kernel likes, and as fast as one.
"""

import select
import time
from typing import Final

from virtus.exits import Exit
from virtus.host import segments
from virtus.vcpus.kvm import KvmVcpu

TURN: Final = 5_000_000
"""Nanoseconds that a processor runs while others could."""


class Turns:
    """See Vcpu. `vcpus` in the order of their numbers; those whose context is parked do not take part."""

    def __init__(self, vcpus: list[KvmVcpu]) -> None:
        self._vcpus = vcpus
        self._current = vcpus[0]
        self._turn_ends = 0
        self._selectors = dict.fromkeys(range(len(vcpus)), 0)

    def run(self) -> Exit:
        """See Vcpu: an exit of one of them. Whoever begins its turn comes out with Reason.EVENT first."""
        now = time.monotonic_ns()
        for vcpu in self._vcpus:
            sleeping = vcpu.context.sleeping
            if sleeping is not None and sleeping[1] is not None and sleeping[1] <= now:
                vcpu.context.wake()
        ready = [vcpu for vcpu in self._vcpus if vcpu.context.running]
        if not ready:
            return self._sleep(now)
        current = self._current
        if not current.context.running or (len(ready) > 1 and now >= self._turn_ends):
            after = [vcpu for vcpu in ready if vcpu.number > current.number]
            return self._begin((after or ready)[0], now)
        ends = self._next_deadline()
        if len(ready) > 1 and (ends is None or self._turn_ends < ends):
            ends = self._turn_ends
        if ends is not None:
            current.wake_at(ends)
        return current.run()

    def _begin(self, vcpu: KvmVcpu, now: int) -> Exit:
        if vcpu is not self._current:
            # where KVM does not keep them apart, Linux took another processor's FS for its thread's, and lost its base
            self._selectors[self._current.number] = segments.exchange(self._selectors[vcpu.number])
        self._current, self._turn_ends = vcpu, now + TURN
        return vcpu.event()

    def _next_deadline(self) -> int | None:
        """When the first of those that sleep wants to be woken."""
        wishes = [vcpu.context.sleeping[1] for vcpu in self._vcpus if vcpu.context.sleeping is not None]
        return min((wish for wish in wishes if wish is not None), default=None)

    def _sleep(self, now: int) -> Exit:
        """All sleep: until a deadline, or something can be read; the first of them looks what it is."""
        asleep = [vcpu for vcpu in self._vcpus if not vcpu.context.parked]
        descriptors = {fd for vcpu in asleep if vcpu.context.sleeping for fd in vcpu.context.sleeping[0]}
        until = self._next_deadline()
        found = select.select(descriptors, [], [], None if until is None else max(0, until - now) / 1e9)[0]
        woken = [vcpu for vcpu in asleep if vcpu.context.sleeping and vcpu.context.sleeping[1] == until]
        chosen = asleep[0] if found or not woken else woken[0]
        chosen.context.wake()
        return self._begin(chosen, now)

    def close(self) -> None:
        """See Vcpu."""
        for vcpu in reversed(self._vcpus):
            vcpu.close()

"""The one loop in which every vCPU meets every personality."""

from time import perf_counter_ns

from virtus.exits import HYPERCALL, SYSCALL, Personality, Vcpu
from virtus.machine.meter import Meter


def run(vcpu: Vcpu, personality: Personality, meter: Meter) -> None:
    """Run until the personality says the machine is done. Counts each exit, and the time on each side of it."""
    clock = perf_counter_ns
    exits, calls = meter.exits, meter.calls
    before = clock()
    while personality.running:
        exit = vcpu.run()
        out = clock()
        meter.guest_ns += out - before
        reason = exit.reason
        exits[reason._value_] += 1  # `value` is a function
        if reason is SYSCALL or reason is HYPERCALL:
            calls[personality.name_of(exit)] += 1
        personality.handle(exit)
        before = clock()
        meter.personality_ns += before - out

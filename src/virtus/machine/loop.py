"""The one loop in which every vCPU meets every personality."""

from time import perf_counter_ns

from virtus.exits import Personality, Reason, Vcpu
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
        exits[exit.reason.value] += 1
        if exit.reason is Reason.SYSCALL or exit.reason is Reason.HYPERCALL:
            calls[personality.name_of(exit)] += 1
        personality.handle(exit)
        before = clock()
        meter.personality_ns += before - out

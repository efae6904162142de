"""Whatever a guest writes where the machine itself has its parts, the guest ends or goes on, and virtus stays whole.

Translated code does not check addresses: a guest's store beyond its own address space reaches the parts of the machine
that stand in the same host process (`vcpus/translator/layout.py`). All it can spoil there is its own machine.
"""

import pytest

from tests.emulation import guests
from tests.guest_runs import need, virtus
from virtus.vcpus.translator import layout

SCRIBBLER = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words) {
    volatile uint64_t *base = (uint64_t *)strtoull(words[1], NULL, 0);
    uint64_t value = strtoull(words[2], NULL, 0);
    long number = atol(words[3]), sum = 0;
    for (long i = 0; i < number; i++) base[i] = value;
    puts("written");
    fflush(stdout);
    for (int i = 0; i < 1000; i++) sum += rand();
    printf("%d\n", sum != 0);
    return 0;
}
"""
ENDS = (0, 132, 133, 135, 139)  # its own way, or by SIGILL, SIGTRAP, SIGBUS, SIGSEGV


@pytest.mark.slow
@pytest.mark.parametrize("value", [1, layout.CODE + 0x10])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        (layout.STATES, 512),
        (layout.STATES + 8 * layout.EXIT, 1),
        (layout.STATES + 8 * layout.LEAVE_AT, 4),
        (layout.STATES + 8 * layout.STACK_LIMIT, 2),
        (layout.STACKS, 1000),
        (layout.STACKS + layout.STACK_BYTES - 4096, 512),
        (layout.TABLE, 1000),
        (layout.table_entry(0x10000), 100_000),  # of the guest's own code
        (layout.CODE, 1000),
        (layout.COUNTERS, 100_000),
        (layout.GUEST_END, 1),
        ((1 << 47) - 4096, 512),
        (2**64 - 4096, 8),
    ],
)
def test_a_guest_that_writes_beyond_its_own(place: int, words: int, value: int) -> None:
    need("emulation")
    program = guests.build_text(SCRIBBLER, level="-O1")
    done = virtus("run", "--with", "emulation", "--", program, hex(place), hex(value), str(words))
    assert done.returncode in ENDS, done.stderr
    assert done.stderr == b""

"""Loops that are hot: found by looking where the program is from time to time, and run as LLVM's code instead.

A load takes Unicorn about ten times, a store or an operation on floating-point numbers about a hundred times as long as
the processor; so a loop that is found again and again is translated, and a hook at its head runs the translation
between two of Unicorn's blocks. Loops that turn out to run few rounds at a time are given back.

It is done only where the environment asks for it (`SWITCH`): a large program has been seen to give other output with it
than without, and the cause is not known.
"""

import ctypes
import os
from collections import Counter
from typing import Any, Final

from virtus.records import dataclass
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.emulated_x86.library import Unicorn
from virtus.vcpus.emulated_x86.memory import AddressSpace

HOT_SAMPLES: Final = 3
"""A place seen so often is tried: with a look every ten milliseconds, what has run for some thirty."""
MOST_INSTRUCTIONS: Final = 400
SWITCH: Final = "VIRTUS_HOT_LOOPS"
"""The environment's variable, to be 1."""
FEWEST_TURNS: Final = 32
"""Rounds for each time that a loop is entered; below, reading and setting the registers costs more than is won."""
TRIAL_ENTRIES: Final = 1000
MXCSR_WORD, VECTORS_WORD, STATE_WORDS = 18, 20, 52
"""Of the state that a loop works on: see loop_code."""


@dataclass(slots=True)
class Translated:
    """A loop that runs as LLVM's code. `counts`: how often it was entered, and its rounds."""

    head: int
    addresses: list[int]
    hook: int
    counts: Any
    engine: Any


class Loops:
    """The hot loops of one processor. `stop` not 0: a loop that runs comes out soon, and none begins."""

    def __init__(self, unicorn: Unicorn, memory: AddressSpace, stop: ctypes.c_uint8) -> None:
        self._unicorn, self._memory = unicorn, memory
        self._seen: Counter[int] = Counter()
        self._refused: set[int] = set()
        self.translated: dict[int, Translated] = {}
        self._wanted = os.environ.get(SWITCH) == "1"
        self._stop = stop
        named = dict(enumerate((*library.GENERAL[:16], library.RFLAGS)))
        named[MXCSR_WORD] = library.MXCSR
        named |= {VECTORS_WORD + 2 * index: library.XMM0 + index for index in range(16)}
        self._state = (ctypes.c_uint64 * (STATE_WORDS + 1))()
        base = ctypes.addressof(self._state) + 15 & -16
        count = len(named)
        self._identifiers = (ctypes.c_int * count)(*named.values())
        self._places = (ctypes.c_void_p * count)(*(base + 8 * word for word in named))
        self._count, self._state_address = count, base

    def seen_at(self, address: int) -> None:
        """The program was there when it was looked at."""
        if not self._wanted:
            return
        for loop in list(self.translated.values()):
            entries, turns = loop.counts
            if entries > TRIAL_ENTRIES and turns < entries * FEWEST_TURNS:
                self._give_back(loop)
        if address in self._refused or address in self.translated:
            return
        self._seen[address] += 1
        if self._seen[address] >= HOT_SAMPLES:
            del self._seen[address]
            if not self.translate(address):
                self._refused.add(address)

    def code_changed(self, start: int, end: int) -> None:
        """Forget what was made of code there."""
        for loop in list(self.translated.values()):
            if any(start <= address < end for address in loop.addresses):
                self._remove(loop)
        self._refused = {address for address in self._refused if not start <= address < end}

    def _give_back(self, loop: Translated) -> None:
        self._remove(loop)
        self._refused.add(loop.head)

    def _remove(self, loop: Translated) -> None:
        self._unicorn.unhook(loop.hook)
        self._unicorn.flush_code(loop.head, loop.head + 1)
        del self.translated[loop.head]

    def translate(self, head: int) -> bool:
        """Run the loop with that address in it as LLVM's code from now on; whether it can be."""
        try:
            from virtus.vcpus.emulated_x86 import loop_build
        except ImportError:
            return False  # iced-x86 or llvmlite is not installed: Unicorn does it all
        built = loop_build.build(
            self._memory, head, MOST_INSTRUCTIONS,
            loop_build.Surroundings(
                state=self._state_address, stop=ctypes.addressof(self._stop), count=self._count,
                identifiers=ctypes.addressof(self._identifiers), places=ctypes.addressof(self._places),
                read=self._unicorn.address_of("uc_reg_read_batch"),
                write=self._unicorn.address_of("uc_reg_write_batch"),
                jump=self._unicorn.address_of("uc_reg_write"),
            ),
        )  # fmt: skip
        if built is None:
            return False
        self._unicorn.flush_code(head, head + 1)
        hook = self._unicorn.hook(library.HOOK_BLOCK, built.address, 0, head, head)
        self.translated[head] = Translated(head, built.addresses, hook, built.counts, built.engine)
        return True

"""Loops that are hot: found by looking where the program is from time to time, and run as LLVM's code instead.

A load takes Unicorn about ten times, a store or an operation on floating-point numbers about a hundred times as long as
the processor; so a loop that is found again and again is translated, and the hook before every block runs the
translation where that is its head. Loops that turn out to run few rounds at a time are given back.
"""

import ctypes
import time
from collections import Counter
from typing import Any, Final

from virtus.records import dataclass
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.emulated_x86.callbacks import Callbacks
from virtus.vcpus.emulated_x86.library import Unicorn
from virtus.vcpus.emulated_x86.memory import AddressSpace

HOT_SAMPLES: Final = 3
"""A place seen so often is tried: with a look every ten milliseconds, what has run for some thirty."""
MOST_INSTRUCTIONS: Final = 200
MOST_SPENT: Final = 0.25
"""Of the time that the program has run: what translating may take."""
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
    counts: Any
    engine: Any


class Loops:
    """The hot loops of one processor."""

    def __init__(self, unicorn: Unicorn, memory: AddressSpace, callbacks: Callbacks) -> None:
        self._unicorn, self._memory, self._callbacks = unicorn, memory, callbacks
        self._begun, self._spent = time.process_time(), 0.0
        self._seen: Counter[int] = Counter()
        self._refused: set[int] = set()
        self.translated: dict[int, Translated] = {}
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
        for loop in list(self.translated.values()):
            entries, turns = loop.counts
            if entries > TRIAL_ENTRIES and turns < entries * FEWEST_TURNS:
                self._give_back(loop)
        if address in self._refused or address in self.translated:
            return
        self._seen[address] += 1
        if self._seen[address] >= HOT_SAMPLES and self._spent <= MOST_SPENT * (time.process_time() - self._begun):
            before = time.thread_time()
            del self._seen[address]
            if not self.translate(address):
                self._refused.add(address)
            self._spent += time.thread_time() - before

    def code_changed(self, start: int, end: int) -> None:
        """Forget what was made of code there."""
        for loop in list(self.translated.values()):
            if any(start <= address < end for address in loop.addresses):
                self._remove(loop)
        self._refused = {address for address in self._refused if not start <= address < end}
        self._seen.clear()

    def _give_back(self, loop: Translated) -> None:
        self._remove(loop)
        self._refused.add(loop.head)

    def _remove(self, loop: Translated) -> None:
        self._callbacks.clear_loop(loop.head)
        del self.translated[loop.head]

    def translate(self, head: int) -> bool:
        """Run the loop with that address in it as LLVM's code from now on; whether it can be."""
        if head in self.translated:
            return True
        if self._memory.shared:
            return False  # LLVM keeps the order of stores for this processor only
        try:
            from virtus.vcpus.emulated_x86 import loop_build
        except ImportError:
            return False  # iced-x86 or llvmlite is not installed: Unicorn does it all
        built = loop_build.build(
            self._memory, head, MOST_INSTRUCTIONS,
            loop_build.Surroundings(
                state=self._state_address, stop=ctypes.addressof(self._callbacks.stop), count=self._count,
                identifiers=ctypes.addressof(self._identifiers), places=ctypes.addressof(self._places),
                read=self._unicorn.address_of("uc_reg_read_batch"),
                write=self._unicorn.address_of("uc_reg_write_batch"),
                jump=self._unicorn.address_of("uc_reg_write"),
            ),
        )  # fmt: skip
        if built is None or not self._callbacks.set_loop(head, built.address):
            return False
        self.translated[head] = Translated(head, built.addresses, built.counts, built.engine)
        return True

"""A guest address space as the translator sees it: its code, and which translations it uses.

The table itself lies in the guest's address space, private to it; a fork copies it. What stands in it is remembered
here, together with the guest code that each translation was made from, so that it can be taken back when that code
changes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from virtus.host import process_memory
from virtus.records import dataclass, field
from virtus.vcpus.translator import layout
from virtus.vcpus.translator.intervals import Intervals

if TYPE_CHECKING:
    from virtus.vcpus.translator.context import TranslatedContext

PAGE: Final = layout.PAGE
READ_AHEAD: Final = 16
"""Pages of code read at a time."""


@dataclass(eq=False, slots=True)
class Translation:
    """Translated code that has its place: made from `covers` of guest code that read `code`."""

    entries: dict[int, int]  # guest address: host address
    covers: list[tuple[int, int]]
    code: list[bytes]  # what each part of `covers` read
    optimised: bool = False
    precise: bool = True
    kept: bool = False  # from a former run
    start: int = 0  # host addresses
    end: int = 0
    instructions: Sequence[tuple[int, int]] = ()  # offset from start, guest address; sorted
    counters: dict[int, int] = field(default_factory=dict)  # guest address: counter
    fast: dict[int, int] = field(default_factory=dict)  # as `entries`: those that take registers along

    def pages(self) -> Iterable[int]:
        """The guest pages it was made from."""
        return {page for start, end in self.covers for page in range(start & -PAGE, end, PAGE)}


class AddressSpace:
    """The guest address space of one or more contexts."""

    def __init__(self) -> None:
        self.contexts: set[TranslatedContext] = set()
        self.executable = Intervals()
        self.reached = Intervals()  # what has had quick translations
        self.precise = False
        self.changed = False  # code has been seen that reads different later, or is gone: not what a file has
        self.entries: dict[int, Translation] = {}  # what stands in the table
        self.pages: dict[int, bytes] = {}  # code that has been looked at
        self.by_page: dict[int, set[Translation]] = {}
        self.waiting: list[Callable[[], None]] = []  # to be done when no context runs
        self.held: list[TranslatedContext] = []  # contexts that go on after that
        self.threads: list[Any] = []  # (virtual slot, state page) that have been mapped and are free again
        self.images: list[tuple[int, int, str]] = []  # executable mappings whose translations are kept, by name
        self.mapped: set[int] = set()  # virtual slots whose state and stack are mapped

    def copy(self) -> "AddressSpace":
        """What a fork of the address space begins with."""
        other = AddressSpace()
        other.executable = self.executable.copy()
        other.reached = self.reached.copy()
        other.precise, other.changed = self.precise, self.changed
        other.images = list(self.images)
        other.entries = dict(self.entries)
        other.pages = dict(self.pages)
        other.by_page = {page: set(found) for page, found in self.by_page.items()}
        return other

    def fetch(self, ident: int, address: int, size: int) -> bytes:
        """Up to `size` bytes of guest code at `address`: fewer where what follows may not be executed, possibly none.

        `ident` is a process whose memory this is.
        """
        piece = bytearray()
        while len(piece) < size:
            at = address + len(piece)
            page = self._page(ident, at & -PAGE)
            if not page:
                break
            offset = at & (PAGE - 1)
            piece += page[offset : offset + size - len(piece)]
        return bytes(piece)

    def _page(self, ident: int, page: int) -> bytes:
        found = self.pages.get(page)
        if found is not None:
            return found
        if page not in self.executable or page >= layout.GUEST_END:
            return b""
        got = process_memory.read_partial(ident, page, READ_AHEAD * PAGE)
        for offset in range(0, len(got) - PAGE + 1, PAGE):
            if page + offset in self.executable:
                self.pages.setdefault(page + offset, got[offset : offset + PAGE])
        return self.pages.get(page, b"")

    def has(self, ident: int, translation: Translation) -> bool:
        """Whether the code a translation was made from is this address space's code, too."""
        return all(
            self.fetch(ident, start, end - start) == code
            for (start, end), code in zip(translation.covers, translation.code, strict=True)
        )

    def install(self, ident: int, translation: Translation, *, over: bool = False) -> None:
        """Put a translation's entries into the table, where there is none yet or over what is there."""
        words = []
        for pc, address in translation.entries.items():
            if over or pc not in self.entries:
                self.entries[pc] = translation
                words.append((layout.table_entry(pc), address))
                if over:
                    words.append((layout.table_entry(pc, layout.FAST), translation.fast.get(pc, 0)))
        for page in translation.pages():
            self.by_page.setdefault(page, set()).add(translation)
        if not translation.optimised:
            for low, high in translation.covers:
                self.reached.add(low, high)
        process_memory.write_words(ident, words)

    def stale(self, ident: int, start: int, end: int) -> list[int]:
        """Pages of [start, end) with code that has been looked at and reads different now, or is gone."""
        if (end - start) // PAGE > len(self.pages):
            pages = [page for page in self.pages if start - PAGE < page < end]
        else:
            pages = [page for page in range(start & -PAGE, end, PAGE) if page in self.pages]
        return [
            page
            for page in pages
            if page not in self.executable or process_memory.read_partial(ident, page, PAGE) != self.pages[page]
        ]

    def forget(self, ident: int, pages: Iterable[int]) -> None:
        """Take back every translation that was made from these pages."""
        dropped: set[Translation] = set()
        self.changed = True
        for page in pages:
            self.pages.pop(page, None)
            self.reached.remove(page, page + PAGE)
            dropped |= self.by_page.pop(page, set())
        self._remove(ident, dropped)

    def forget_optimised(self, ident: int) -> None:
        """Take back what was optimised without exact faults."""
        found = {unit for units in self.by_page.values() for unit in units if unit.optimised and not unit.precise}
        self._remove(ident, found)

    def _remove(self, ident: int, dropped: set[Translation]) -> None:
        words = []
        for translation in dropped:
            for page in translation.pages():
                others = self.by_page.get(page)
                if others is not None:
                    others.discard(translation)
            for pc in translation.entries:
                if self.entries.get(pc) is translation:
                    del self.entries[pc]
                    words.append((layout.table_entry(pc), 0))
                    if translation.fast:
                        words.append((layout.table_entry(pc, layout.FAST), 0))
        process_memory.write_words(ident, words)

    def clear(self) -> None:
        """A new program: nothing is known; the table has been emptied."""
        self.entries.clear()
        self.pages.clear()
        self.by_page.clear()
        self.executable = Intervals()
        self.reached = Intervals()
        self.precise = self.changed = False
        self.images.clear()

    @property
    def busy(self) -> bool:
        """Whether any context runs."""
        return any(context.running for context in self.contexts)

"""From quick translations to optimised ones: what is worth it, who makes it, and when it takes the other's place.

A block that has run often is reported by its counter. The guest code around it goes to a background process, and the
guest runs on meanwhile. What comes back is installed while nobody runs in the address space; from then on the table
leads to it, and the counter of the quick block is left expired, so that a loop inside one call finds its way, too.

What has been made for an executable mapping, by either translator, is kept on disk under the mapping's content and
address (`cache`), and is there from the beginning the next time.
"""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from virtus.host import process_memory
from virtus.vcpus.translator import quick_image
from virtus.vcpus.translator.digest import checksum
from virtus.vcpus.translator.intervals import Intervals
from virtus.vcpus.translator.llvm.request import Farewell, Optimised, QuickCode, Request, Result, Urge
from virtus.vcpus.translator.quick_image import QuickImage
from virtus.vcpus.translator.space import AddressSpace, Translation

if TYPE_CHECKING:
    from virtus.vcpus.translator.context import TranslatedContext
    from virtus.vcpus.translator.vcpu import TranslatorVcpu

WINDOW: Final = 128 << 10
"""Bytes of guest code before and after a hot block that the optimising translator gets to see."""
STILL_HOT_AFTER: Final = 30_000
"""Further runs of a block that has been asked for, after which the request is more urgent than others."""
LARGEST_IMAGE: Final = 256 << 20
WORTH_KEEPING: Final = 32
"""New quick code is kept when it is at least this part of what is kept for its image already."""


class Background(Protocol):
    """Who optimises (`llvm.worker.Background`)."""

    def submit(self, request: Request | Urge | QuickCode | Farewell) -> None:
        """Have it made some time, or sooner; or kept."""
        ...

    def flush(self, *, wait: bool = False) -> None:
        """Send what could not be sent before; all of it, where there is no later."""
        ...

    def collect(self) -> list[Result]:
        """What has been made since."""
        ...

    def fileno(self) -> int:
        """Can be read when something has been made."""
        ...


class Store(Protocol):
    """Where translations of former runs are (`cache.Cache`)."""

    def load(self, image: str) -> list[Optimised]:
        """All optimised code that is kept for an image, possibly none."""
        ...

    def load_quick(self, image: str) -> QuickImage | None:
        """The quick code that is kept for an image, if any."""
        ...

    def drop_quick(self, image: str) -> None:
        """What is kept of quick code for an image is of no use."""
        ...

    def load_wishes(self, image: str) -> list[int]:
        """Guest addresses in an image that were hot in a former run, and had not been optimised at its end."""
        ...


class Tiers:
    """See the module, and `vcpu.Optimiser`."""

    def __init__(
        self,
        vcpu: "TranslatorVcpu",
        background: Background,
        store: Store | None = None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._vcpu = vcpu
        self._background = background
        self._store = store
        self._note = note  # called with what a user should know
        self._waiting: dict[int, tuple[AddressSpace, int, Translation | None]] = {}
        self._asked: dict[tuple[int, bool, int], int] = {}
        self._units: dict[tuple[int, bool], list[Translation]] = {}
        self._images: dict[str, list[Translation]] = {}
        self._quick: dict[str, Translation | None] = {}  # from former runs
        self._ranges: dict[str, tuple[int, int]] = {}  # of images
        self._kept_jumps: set[tuple[int, int]] = set()
        self._quick_made: dict[str, dict[int, Translation]] = {}  # by the place of each
        self._wishes: dict[str, list[int]] = {}  # by image, the first wanted most
        self._kept_covers = Intervals()
        self._number = 0
        self.made = self.kept = self.kept_quick = self.failed = 0

    # Asking

    def hot(self, context: "TranslatedContext", pc: int, translation: Translation) -> int:
        """See Optimiser."""
        space = context.space
        if self._wishes:  # not before it computes: most runs are short
            self._ask_for_wishes(context)
        key = (pc, space.precise, id(translation))
        number = self._asked.get(key)
        if number is not None:
            if number not in self._waiting:
                return 0
            self._background.submit(Urge(number))
            return STILL_HOT_AFTER
        self._asked[key] = 0
        for known in self._units.get((pc, space.precise), ()):
            if space.has(context.ident, known):
                self._install(space, known, context.ident)
                return 0
        number = self.ask(context, pc, translation)
        self._asked[key] = number
        return STILL_HOT_AFTER if number else 0

    def ask(self, context: "TranslatedContext", pc: int, translation: Translation | None = None) -> int:
        """Have the code at `pc` optimised; the request's number, 0 when there is no code."""
        code = self._code_around(context, pc, reached=translation is not None)
        if not code:
            return 0
        space = context.space
        low, high = code[0][0], code[-1][0] + len(code[-1][1])
        jumps = tuple((at, tuple(to)) for at, to in self._vcpu.jumps.items() if low <= at < high)
        self._number += 1
        self._waiting[self._number] = space, pc, translation
        image = self._image_at(context, pc, pc + 1)
        whole = translation is None
        covered = pc in self._kept_covers
        request = Request(
            self._number, self._vcpu.isa.name, pc, tuple(code), jumps, space.precise, image, whole, covered
        )
        self._background.submit(request)
        return self._number

    def _ask_for_wishes(self, context: "TranslatedContext") -> None:
        """What former runs left undone."""
        space, wishes = context.space, self._wishes
        if space.precise:
            return
        for image in [image for _, _, image in space.images if image in wishes]:
            quick = self._quick.get(image)
            for pc in wishes.pop(image, ()):
                found = space.entries.get(pc)
                if pc in space.executable and (pc, False) not in self._units and not (found and found.optimised):
                    number = self.ask(context, pc, quick)
                    if quick is not None:
                        self._asked[pc, False, id(quick)] = number

    def waiting(self) -> set[int]:
        """Requests that have not been answered."""
        return set(self._waiting)

    def fileno(self) -> int:
        """Can be read when answers have come."""
        return self._background.fileno()

    @staticmethod
    def _code_around(context: "TranslatedContext", pc: int, *, reached: bool) -> list[tuple[int, bytes]]:
        """The guest code near an address; with `reached`, only what the quick translator has been asked for, or has
        found near that. LLVM's time is for what runs, not for all that might."""
        space, ident, low, high = context.space, context.ident, max(pc - WINDOW, 0), pc + WINDOW
        found = []
        for first, last in space.executable.pieces(low, high):
            data = space.fetch(ident, first, last - first)
            pieces = space.reached.pieces(first, first + len(data)) if reached else [(first, first + len(data))]
            found += [(start, data[start - first : end - first]) for start, end in pieces]
        return [(start, data) for start, data in found if data]

    # Getting

    def collect(self) -> bool:
        """Take what has been made, and have it installed; False when there was nothing."""
        results = self._background.collect()
        for result in results:
            space, _, quick = self._waiting.pop(result.number)
            if result.optimised is None:
                if result.error:
                    self.failed += 1
                    self._note(f"some code stays as it was translated first: {result.error}")
                continue
            self.made += 1
            unit = self._place(result.optimised)
            for entry in unit.entries:
                self._units.setdefault((entry, unit.precise), []).append(unit)
            for context in space.contexts:
                if space.precise == unit.precise:
                    self._install(space, unit, context.ident, quick)
                break
        return bool(results)

    def _place(self, made: Optimised) -> Translation:
        start = self._vcpu.region.put(made.blob)
        unit = Translation(
            entries={pc: start + offset for pc, offset in made.entries.items()},
            covers=list(made.covers),
            code=list(made.code),
            optimised=True,
            precise=made.precise,
            start=start,
            end=start + len(made.blob),
            fast={pc: start + offset for pc, offset in made.fast.items()},
        )
        self._vcpu.place(unit)
        return unit

    def _install(self, space: AddressSpace, unit: Translation, ident: int, quick: Translation | None = None) -> None:
        def install() -> None:
            for someone in [context.ident for context in space.contexts]:
                if space.precise != unit.precise or not space.has(someone, unit):
                    return
                try:
                    space.install(someone, unit, over=True)
                except OSError as error:
                    if error.errno != errno.EFAULT:
                        raise
                    continue  # killed, and not yet reported as ended: through another one, if there is any
                for pc in unit.entries:
                    self._vcpu.lead_from(pc)
                return

        self._vcpu.when_quiet(space, install)

    def figures(self) -> dict[str, int]:
        """What was optimised, for the report."""
        return {
            "blocks kept from before": self.kept_quick,
            "optimised": self.made,
            "kept from before": self.kept,
            "not optimised": self.failed,
        }

    # Former runs

    def reuse(self, context: "TranslatedContext", translation: Translation) -> None:
        """See Optimiser."""
        self._lead_over(context.space, translation)
        if self._store is not None and translation.covers and not context.space.changed:
            image = self._image_at(context, translation.covers[0][0], translation.covers[-1][1])
            if image:
                self._quick_made.setdefault(image, {})[translation.start] = translation

    def _lead_over(self, space: AddressSpace, translation: Translation) -> None:
        """Where there is better code for some of it, have it go over to that."""
        for pc, counter in translation.counters.items():
            found = space.entries.get(pc)
            if found is not None and found.optimised:
                self._vcpu.region.expire(counter)

    def mapped(self, context: "TranslatedContext", start: int, end: int) -> None:
        """See Optimiser."""
        if self._store is None or end - start > LARGEST_IMAGE:
            return
        name = self._name(context, start, end)
        if not name:
            return
        space, ident = context.space, context.ident
        space.images.append((start, end, name))
        self._ranges[name] = start, end
        units = self._images.get(name)
        if units is None:
            units = self._images[name] = [self._place(made) for made in self._store.load(name)]
            self.kept += len(units)
            for low, high in (piece for unit in units for piece in unit.covers):
                self._kept_covers.add(low, high)
            if wishes := self._store.load_wishes(name):
                self._wishes[name] = wishes
            self._quick[name] = self._kept_quick(name)
        quick = self._quick[name]
        if quick is not None and not space.has(ident, quick):
            self._store.drop_quick(name)  # made from something else than the file, which the name stands for
            self._quick[name] = quick = None
        if quick is not None:
            space.install(ident, quick)
        for unit in units:
            if unit.precise == space.precise and space.has(ident, unit):
                space.install(ident, unit, over=True)
        if quick is not None:
            self._lead_over(space, quick)

    def _kept_quick(self, name: str) -> Translation | None:
        made = self._store.load_quick(name) if self._store is not None else None
        unit = self._vcpu.place_image(made) if made is not None else None
        if made is not None and unit is not None:
            self.kept_quick += len(made.entries)
            self._kept_jumps.update(made.jumps)
            for at, to in made.jumps:
                self._vcpu.jumps.setdefault(at, set()).add(to)
        return unit

    def ended(self) -> None:
        """See Optimiser."""
        jumps = {(at, to) for at, found in self._vcpu.jumps.items() for to in found} - self._kept_jumps
        for image, (low, high) in self._ranges.items():
            kept = self._quick.get(image)
            new = [unit for unit in self._quick_made.get(image, {}).values() if unit is not kept]
            learned = [jump for jump in jumps if low <= jump[0] < high]
            size = sum(unit.end - unit.start for unit in new)
            if learned or (size and (kept is None or size * WORTH_KEEPING >= kept.end - kept.start)):
                self._background.submit(QuickCode(image, quick_image.collect(new, self._vcpu.region, learned)))
        self._background.submit(Farewell())
        self._background.flush(wait=True)

    @staticmethod
    def _name(context: "TranslatedContext", start: int, end: int) -> str:
        pieces = [start.to_bytes(8, "little")]
        for at in range(start, end, process_memory.WINDOW):
            piece = context.host.read_partial(at, min(process_memory.WINDOW, end - at))
            if not piece:
                return ""
            pieces.append(piece)
        return checksum(pieces).hex()  # what is used is compared with the guest's code besides

    @staticmethod
    def _image_at(context: "TranslatedContext", low: int, high: int) -> str:
        """The executable mapping that contains a range of addresses."""
        for start, end, name in context.space.images:
            if start <= low and high <= end:
                return name
        return ""

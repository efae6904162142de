"""What is made of the guest's code pages: copies with scanned instructions alone, and breakpoints.

A copy starts as 0xCC all over, and only instructions that were scanned are copied in: what was not stops by itself. The
copies of a page frame are made for supervisor and user apart, since what must not run differs.
"""

from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory

INT3: Final = 0xCC
LONGEST: Final = 15
INTERIOR, START = 1, 2
SUPERVISOR, USER = 0, 1
RINGS: Final = 2
_COVER: Final = [bytes([START]) + bytes([INTERIOR]) * (length - 1) for length in range(LONGEST + 1)]


class CodePage:
    """The copy of one page frame. Offsets are within the page."""

    __slots__ = (
        "cleaned",
        "copy",
        "covered",
        "frame",
        "hard",
        "heads",
        "jumps",
        "numeric",
        "patched",
        "sites",
        "tail",
        "tail_at",
    )

    def __init__(self, frame: int, copy: memoryview) -> None:
        self.frame, self.copy = frame, copy
        copy[:] = bytes([INT3]) * PAGE
        self.covered = bytearray(PAGE)
        """INTERIOR for every byte of a scanned instruction but START for its first."""
        self.sites: set[int] = set()
        """Where instructions begin that must not run: breakpoints."""
        self.hard: set[int] = set()
        """Those of `sites` that would not trap by themselves."""
        self.numeric: dict[int, int] = {}
        """Where floating-point and vector instructions begin, with their first bytes: breakpoints until `open`."""
        self.patched: set[int] = set()
        """Where sensitive instructions begin that a patch does."""
        self.jumps: set[int] = set()
        """Every byte that a jump of ours lies over."""
        self.cleaned = -1, False
        """What `Scanner.clean` found when so many bytes were not scanned."""
        self.tail: CodePage | None = None
        """The page that the last instruction here ends in, which begins at `tail_at`."""
        self.tail_at = 0
        self.heads: set[CodePage] = set()
        """The pages whose last instruction ends here."""

    def scanned(self, offset: int) -> bool:
        """Whether an instruction that begins here was scanned."""
        return self.covered[offset] == START or offset in self.sites

    def plant(self, offset: int, length: int, *, hard: bool = True) -> None:
        """A breakpoint instead of an instruction; instructions that it lies within get one, too.

        Without `hard` it only saves time: the instruction would trap by itself.
        """
        if hard:
            self.hard.add(offset)
        covered = self.covered
        for before in range(max(offset - LONGEST + 1, 0), offset):
            if covered[before] == START and before not in self.sites:
                end = before + 1
                while end < PAGE and covered[end] == INTERIOR:
                    end += 1
                if end > offset:
                    self.sites.add(before)
                    self.copy[before] = INT3
        self.sites.add(offset)
        self.copy[offset] = INT3
        self._cover(offset, length)

    def put(self, offset: int, code: bytes | memoryview) -> None:
        """An instruction that may run, or the part of it that is in this page; a breakpoint if one lies within it."""
        length = len(code)
        if self.sites or self.numeric:
            inside = range(offset + 1, offset + length)
            if offset in self.sites or not (self.sites.isdisjoint(inside) and self.numeric.keys().isdisjoint(inside)):
                self.plant(offset, length)
                return
        self.copy[offset : offset + length] = code
        self._cover(offset, length)

    def put_numeric(self, offset: int, code: bytes) -> None:
        """A floating-point or vector instruction of the supervisor: it stops until `open`."""
        self.put(offset, code)
        if offset not in self.sites:
            self.numeric[offset] = code[0]
            self.copy[offset] = INT3

    def open(self) -> None:
        """The floating-point registers are there: let these instructions run."""
        for offset, byte in self.numeric.items():
            if offset not in self.sites:
                self.copy[offset] = byte

    def shut(self) -> None:
        """They have gone."""
        for offset in self.numeric:
            self.copy[offset] = INT3

    def _cover(self, offset: int, length: int) -> None:
        covered, end = self.covered, min(offset + length, PAGE)
        if covered.find(START, offset + 1, end) < 0:
            covered[offset:end] = _COVER[end - offset]
            return
        for inside in range(offset + 1, end):
            if covered[inside] != START:
                covered[inside] = INTERIOR
        covered[offset] = START


class CodePages:
    """All copies, in a memory file of their own: those for the supervisor first, then those for users."""

    def __init__(self, memory: GuestMemory, extra: int = 0) -> None:
        """`extra` bytes behind the copies are for others."""
        self.memory = memory
        self.code = GuestMemory(memory.size * RINGS + extra, "code")
        self.extra_at = memory.size * RINGS
        self.pages: tuple[dict[int, CodePage], dict[int, CodePage]] = ({}, {})
        self.made = self.dropped = 0

    def offset(self, frame: int, ring: int) -> int:
        """Where a frame's copy is in the memory file."""
        return ring * self.memory.size + (frame << FRAME_SHIFT)

    def is_code(self, frame: int) -> bool:
        """Whether a frame has a copy: then nobody may write to it without the monitor."""
        return frame in self.pages[SUPERVISOR] or frame in self.pages[USER]

    def make(self, frame: int, ring: int) -> CodePage:
        """A new copy."""
        at = self.offset(frame, ring)
        page = self.pages[ring][frame] = CodePage(frame, self.code.bytes[at : at + PAGE])
        self.made += 1
        return page

    def written(self, frame: int, offset: int, size: int) -> bool:
        """Whether a write to a frame changed instructions that were scanned."""
        for pages in self.pages:
            page = pages.get(frame)
            if page is not None and any(page.covered[offset : offset + size]):
                return True
        return False

    def drop(self, frame: int) -> list[tuple[int, int]]:
        """Forget the copies of a frame; every (frame, ring) that is gone: a page whose last instruction ended there
        goes, too. Nobody may execute from them any longer."""
        gone: list[tuple[int, int]] = []
        for ring, pages in enumerate(self.pages):
            work = [frame]
            while work:
                page = pages.pop(work.pop(), None)
                if page is None:
                    continue
                self.dropped += 1
                gone.append((page.frame, ring))
                page.copy[:] = bytes([INT3]) * PAGE
                if page.tail is not None:
                    page.tail.heads.discard(page)
                work += [head.frame for head in page.heads]
                page.copy.release()
        return gone

    def close(self) -> None:
        """Give the memory back."""
        for pages in self.pages:
            for page in pages.values():
                page.copy.release()
            pages.clear()
        self.code.close()

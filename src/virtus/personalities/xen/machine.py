"""The machine as the hypervisor divides it: its own frames, the machine-to-physical table, and the domains' frames."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.pool import FramePool
from virtus.memory.x86_paging import ENTRIES, PRESENT, USER, WRITABLE
from virtus.personalities.xen.abi import DOMID_XEN
from virtus.personalities.xen.frames import FrameTable
from virtus.personalities.xen.xenstore import Store

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

M2P_SLOT: Final = 258
M2P_ADDRESS: Final = 0xFFFF_8100_0000_0000
ENTRY_SIZE: Final = 8
LARGE_PAGE: Final = 2 << 20
MOST_NOTES: Final = 200
FIXED_FRAMES: Final = 1024
"""What the hypervisor needs apart from tables that grow with the memory."""


def own_frames(domain_bytes: int) -> int:
    """How many frames the hypervisor needs beside so much memory for domains: whole large pages."""
    frames = domain_bytes >> FRAME_SHIFT
    needed = FIXED_FRAMES + 2 * (frames * ENTRY_SIZE // PAGE + 1) + (domain_bytes >> 30)
    return -(-needed * PAGE // LARGE_PAGE) * LARGE_PAGE >> FRAME_SHIFT


class XenMachine:
    """Frames below the pool's end are the hypervisor's; `entries` are the L4 entries of whoever runs the processors."""

    def __init__(
        self, memory: GuestMemory, pool: FramePool, entries: dict[int, int], note: Callable[[str], None]
    ) -> None:
        self.memory, self._pool, self._note = memory, pool, note
        self._noted: set[str] = set()
        self.frames = FrameTable(memory.frames)
        self.frames.give(pool.first, pool.end - pool.first, DOMID_XEN)
        self.domains: dict[int, Domain] = {}
        self.store = Store()
        pages = -(-memory.frames * ENTRY_SIZE // PAGE)
        table = pool.take(pages)
        self.m2p_frames = (table, pages)
        self.m2p_words = memory.words[table << 9 : (table << 9) + memory.frames]
        self.m2p_range = (M2P_ADDRESS, M2P_ADDRESS + pages * PAGE)
        self.reserved = {**entries, M2P_SLOT: self._map_m2p(table, pages)}

    def note(self, line: str) -> None:
        """Remember something a user should know; of ever new lines only the first MOST_NOTES."""
        if line not in self._noted:
            if len(self._noted) >= MOST_NOTES:
                line = "more was noted than is shown"
            self._noted.add(line)
        self._note(line)

    def _map_m2p(self, table: int, pages: int) -> int:
        """An L4 entry through which every domain may read the table."""
        level3, level2, level1 = self._pool.take(), self._pool.take(), 0
        self.memory.entries(level3)[0] = level2 << FRAME_SHIFT | USER | WRITABLE | PRESENT
        for page in range(pages):
            if not page % ENTRIES:
                level1 = self._pool.take()
                self.memory.entries(level2)[page // ENTRIES] = level1 << FRAME_SHIFT | USER | WRITABLE | PRESENT
            self.memory.entries(level1)[page % ENTRIES] = (table + page) << FRAME_SHIFT | USER | PRESENT
        return level3 << FRAME_SHIFT | USER | WRITABLE | PRESENT

    def share_new_frames(self, domain: int, count: int = 1) -> int:
        """Frames of the hypervisor's that a domain may map writable; the first."""
        first = self._pool.take(count)
        for frame in range(first, first + count):
            self.frames.share(frame, domain)
        return first

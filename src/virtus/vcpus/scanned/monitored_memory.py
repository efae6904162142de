"""Memory as the evaluator uses it beside direct execution: what it changes of code and of translations is told on."""

from collections.abc import Callable
from typing import Final

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.vcpus.scanned.breakpoints import CodePages
from virtus.vcpus.scanned.cpu_state import CpuState
from virtus.vcpus.scanned.memory_access import Devices, PagedMemory, PhysicalSpace
from virtus.vcpus.scanned.shadow import Shadow

OFFSET: Final = PAGE - 1


class MonitoredMemory(PagedMemory):
    """A PagedMemory whose translations of code pages are never kept for writing."""

    def __init__(self, state: CpuState, space: PhysicalSpace, devices: Devices, codes: CodePages) -> None:
        super().__init__(state, space, devices)
        self._codes = codes
        self.shadow: Shadow | None = None
        self.code_written: Callable[[int, int, int], None] = lambda frame, offset, size: None
        """Called with frame, offset and size of what was written to a frame of code."""

    def flush(self) -> None:
        """See LinearMemory."""
        super().flush()
        if self.shadow is not None:
            self.shadow.flush()

    def flush_page(self, linear: int) -> None:
        """See LinearMemory."""
        super().flush()
        if self.shadow is not None:
            self.shadow.flush_page(linear)

    def _translate(self, linear: int, write: bool, user: bool) -> int:
        physical = super()._translate(linear, write, user)
        if self.shadow is not None:
            self.shadow.note_translation(linear >> FRAME_SHIFT)
        if write and self._codes.is_code(physical >> FRAME_SHIFT):
            self._writable[user].pop(linear >> FRAME_SHIFT, None)
        return physical

    def _write_parts(self, linear: int, size: int, value: int, user: bool) -> None:
        super()._write_parts(linear, size, value, user)
        physical = self._translate(linear, True, user)
        frame = physical >> FRAME_SHIFT
        if self._codes.is_code(frame):
            self.code_written(frame, physical & OFFSET, size)

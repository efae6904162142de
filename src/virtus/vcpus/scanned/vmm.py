"""The monitor (VMM): runs scanned code directly, and says what stopped it.

It holds everything between a CpuState and the children: shadow page tables, scanned code, breakpoints. Who evaluates
what trapped, and who answers for devices, is `vcpu.py`.
"""

import signal
from collections import Counter
from collections.abc import Callable
from enum import Enum
from time import perf_counter_ns
from typing import Final

from iced_x86 import Decoder

from virtus.errors import MachineBroken
from virtus.host import ptrace, timestamp
from virtus.isa.x86 import registers as r
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.vcpus.scanned import faults, registers
from virtus.vcpus.scanned.address_spaces import AddressSpace, AddressSpaces
from virtus.vcpus.scanned.breakpoints import INT3, START, SUPERVISOR, USER, CodePage, CodePages
from virtus.vcpus.scanned.cells import ROOT_LOADED, SHARED, USER_DESC_AT, Cells
from virtus.vcpus.scanned.child import BIASES, MEMORY_AT, code_selector, data_segment
from virtus.vcpus.scanned.cpu_state import (
    BIG,
    CR0_PE,
    CR4_TSD,
    CS,
    DS,
    ES,
    IF,
    MASK32,
    SS,
    TF,
    VM,
    CpuState,
)
from virtus.vcpus.scanned.faults import GuestFault
from virtus.vcpus.scanned.memory_access import WINDOW, PhysicalSpace, walk
from virtus.vcpus.scanned.monitored_memory import MonitoredMemory
from virtus.vcpus.scanned.open_pages import OpenPages
from virtus.vcpus.scanned.patches import AREA, Patches
from virtus.vcpus.scanned.scanner import DEFAULT_DEPTH, Scanner
from virtus.vcpus.scanned.shadow import Shadow
from virtus.vcpus.scanned.translations import translation
from virtus.vcpus.scanned.writes import Writes

OFFSET: Final = PAGE - 1
SI_KERNEL: Final = 128  # include/uapi/asm-generic/siginfo.h: #GP, #SS and the like, without an address
LONGEST: Final = 15
READ_WRITE_EXECUTE: Final = 7

NEAR: Final = 12
"""Bytes within which the next breakpoint is near."""
MOST_STEPS: Final = 200
_ON: Final = object()


class Stop(Enum):
    """Why direct execution stopped."""

    EVALUATE = "the instruction at EIP is for the evaluator"
    FAULT = "the guest's processor raises an exception"
    EMULATE = "the guest's code cannot run directly"
    TICK = "the monitor looks around"
    POSTED = "it could go on, but what was written to ports comes out first"


class Monitor:
    """Direct execution of one i386 processor. `state` is exact whenever `run` has returned."""

    def __init__(
        self,
        state: CpuState,
        space: PhysicalSpace,
        memory: MonitoredMemory,
        codes: CodePages,
        *,
        depth: int,
        hidden: bool,
    ) -> None:
        """`depth` is how many branches a scan follows; `hidden` whether this host can hide code from reads.

        Raises HostLacks.
        """
        self.state, self.space, self.memory, self.codes = state, space, memory, codes
        self.spaces = AddressSpaces(space.memory.fd, codes.code.fd)
        self.cells = Cells(state, codes.code.bytes[codes.extra_at : codes.extra_at + SHARED])
        self.shadow = Shadow(state, space, codes, self.spaces, self.cells, hidden=hidden)
        memory.shadow = self.shadow
        memory.code_written = self.code_written
        self.scanner = Scanner(space.memory, codes, depth=depth or DEFAULT_DEPTH)
        self.scanner.on_target = self._target_found
        self.scanner.on_overlap = lambda page: self._unpatched.append(page.frame)
        self.cells.known.with_base = self._segment_with_base
        self.patches = Patches(state, codes, self.cells)
        self.time_changed()
        self._write_decoder = Writes()
        self.open_pages = OpenPages(state, codes, self.scanner, self.shadow)
        self.pending: Callable[[], bool] = lambda: False
        """Whether an interrupt waits for the guest to allow it."""
        self._patched_epoch = -1
        self.fault: GuestFault | None = None
        """Of FAULT."""
        self._awaited: tuple[int, int, bool] | None = None
        """The CR3, the linear address and whether it was code of the last page that user code lacked."""
        self.counts: Counter[str] = Counter()
        self.direct_ns = 0
        self.numeric_error = False
        """Whether the last stop was for SIGFPE."""
        self._opened: list[CodePage] = []
        self._unpatched: list[int] = []
        self._snapshots: dict[int, bytes] = {}

    # what may run

    def can_run(self) -> bool:
        """Whether code at CS:EIP can run directly: 32-bit protected mode with flat segments at level 0 or 3."""
        state = self.state
        segments = state.segments
        code, stack = segments[CS], segments[SS]
        return (
            state.cr0 & CR0_PE != 0
            and not state.eflags & (VM | TF)
            and state.cpl in (0, 3)
            and code.base == 0
            and code.limit == MASK32
            and code.attributes & BIG != 0
            and stack.flat_write
            and stack.attributes & BIG != 0
            and (segments[DS].flat_read or not segments[DS].attributes)
            and (segments[ES].flat_read or not segments[ES].attributes)
        )

    def run(self) -> Stop:
        """Run until the guest needs somebody."""
        while True:
            space = self.shadow.current()
            stop = self._once(space)
            if stop is not None:
                return stop
            if self.cells.ports.waiting:
                return Stop.POSTED

    def _once(self, space: AddressSpace) -> Stop | None:
        """Enter the guest once; None when it can go on at once."""
        state, child = self.state, space.child
        if self._awaited is not None and state.cpl == 3:
            stop = self._bring(space)
            if stop is not None:
                return stop
        self.open_pages.choose(space, state.eip)
        if space is not self.spaces.owner and (space is not self.spaces.supervisor or space.flat):
            self._move_numeric_state(space)
        patches = self.patches
        patched = patches.made > 0 and space is self.spaces.supervisor
        if patched:
            if space.epoch != self._patched_epoch and not self._show_patches(space):
                patched = False
            self.cells.enter(not state.eflags & IF and self.pending(), bool(space.flushable))
        bias = 0 if space.flat else space.bias
        registers.load(child.regs, state, bias)
        before = perf_counter_ns()
        stopped = child.go()
        self.direct_ns += perf_counter_ns() - before
        regs = child.regs
        self.counts["stops"] += 1
        self.numeric_error = stopped == signal.SIGFPE
        if stopped == ptrace.SYSCALL_STOP:
            regs[r.RAX] = regs[r.ORIG_RAX]
        eip = registers.store(regs, state)
        if patched:
            self._leave_cells()
            inside = self._inside_patch(space, stopped, eip)
            if inside is not None:
                return inside if isinstance(inside, Stop) else None
        if regs[r.CS] != code_selector(bias):
            return self._escaped(eip)
        if stopped == signal.SIGTRAP:
            state.eip = eip = eip - 1 & MASK32
            return Stop.EVALUATE if space.flat else self._trapped(space, eip)
        state.eip = eip
        if stopped == signal.SIGSEGV:
            return self._segment_violation(space, eip)
        if stopped in (signal.SIGUSR1, signal.SIGVTALRM):
            self.open_pages.ticked(space, eip)
            return Stop.TICK
        if stopped == ptrace.SYSCALL_STOP:
            state.eip = eip - 2 & MASK32  # SYSCALL, SYSENTER and INT n are two bytes long
            self.counts["system calls refused"] += 1
        return Stop.EVALUATE

    def _leave_cells(self) -> None:
        """Take over what fragments have done."""
        done = self.cells.leave()
        if done & ROOT_LOADED:
            self.memory.flush()
        elif done:
            self.memory.forget()

    def _move_numeric_state(self, space: AddressSpace) -> None:
        """Floating-point and vector registers go where they are about to be used; the supervisor's code that does
        so stops again once they have gone."""
        ptrace.set_xstate(space.child.tid, ptrace.get_xstate(self.spaces.owner.child.tid))
        self.spaces.owner = space
        self.counts["floating-point moves"] += 1
        for page in self._opened:
            if self.codes.pages[SUPERVISOR].get(page.frame) is page:
                page.shut()
        self._opened.clear()

    # patches

    def _show_patches(self, space: AddressSpace) -> bool:
        """Map cells and fragments into the supervisor's child; where the guest has taken the place, all patches go."""
        if not self.shadow.is_free(self.patches.base):
            self.unpatch()
            return False
        self.shadow.reserve(space, self.patches.base, self.codes.extra_at, AREA)
        self._patched_epoch = space.epoch
        return True

    def _segment_with_base(self, number: int, base: int) -> int | None:
        """Give the supervisor's child one, behind those for code; its selector."""
        self.cells.put(USER_DESC_AT, data_segment(BIASES + number, base))
        return self.spaces.supervisor.child.set_data_segment(BIASES + number, self.patches.base + USER_DESC_AT)

    def unpatch(self) -> None:
        """Give up all patches: the pages that have them are scanned anew."""
        self.patches.forget()
        for frame in list(self.codes.pages[SUPERVISOR]):
            self.drop_code(frame)
        self.spaces.supervisor.unmap_all()
        self.shadow.reserved = range(0)
        self._patched_epoch = -1

    def count_trap(self, instruction_at: int) -> bool:
        """The evaluator is about to do the instruction at a site: the supervisor's hot ones become patches.

        True if it has just become one: then it can run.
        """
        if self.state.cpl or not self.patches.hot(instruction_at):
            return False
        busy = self.patches.is_busy(instruction_at)
        if busy is not None:
            self.drop_code(busy.frame)
            return False
        space = self.shadow.current()
        page = self._page_at(space, instruction_at)
        offset = instruction_at & OFFSET
        if page is None or offset not in page.sites:
            return False
        code = self._contents(page.frame)
        if translation(Decoder(32, code[offset : offset + LONGEST]).decode()) is None:
            return False
        if self.patches.full:
            self.unpatch()
            return False
        if not self.patches.made:
            base = self.shadow.free_range()
            if base is None:
                return False
            self.patches.settle(base)
            self._patched_epoch = -1
        return self.patches.make(page, instruction_at, code, self.scanner.targets)

    def uncover(self) -> bool:
        """Take the patch away whose jump lies over the instruction at EIP, if there is one."""
        page = self.patches.interior.get(self.state.eip)
        if page is None or self.state.cpl:
            return False
        self.drop_code(page.frame)
        return True

    def _target_found(self, linear: int) -> None:
        """A branch goes under a jump of ours: that page is scanned anew, and keeps its breakpoints there."""
        page = self.patches.interior.get(linear)
        if page is None or self.codes.pages[SUPERVISOR].get(page.frame) is not page:
            return
        if page.copy[linear & OFFSET] != INT3:  # otherwise it stops there
            self._unpatched.append(page.frame)

    def _inside_patch(self, space: AddressSpace, stopped: int, eip: int) -> Stop | object | None:
        """Stopped in a fragment: None if not so; `_ON` to go on; else the stop, with the guest at its instruction."""
        patches, state = self.patches, self.state
        trap = patches.traps.get(eip - 1) if stopped == signal.SIGTRAP else None
        if trap is not None:
            state.eip = trap.eip
            state.interrupt_shadow = trap.shadow
            return Stop.TICK if trap.window else Stop.EVALUATE
        if not patches.inside(eip):
            return None
        if stopped == signal.SIGSEGV:
            state.eip = eip
            code, address = space.child.siginfo()
            seen = space.pages.get(address >> FRAME_SHIFT)
            if code != SI_KERNEL and not address >> 32 and (seen is None or not seen.code):
                try:
                    if self.shadow.fill(space, address, write=seen is not None):
                        return _ON
                except GuestFault:
                    pass  # the evaluator finds it again, at the guest's own instruction
        elif stopped in (signal.SIGUSR1, signal.SIGVTALRM, signal.SIGTRAP):
            return self._finish_patch(space)
        state.eip = patches.roll_back(eip)
        return Stop.EVALUATE

    def _finish_patch(self, space: AddressSpace) -> Stop | object | None:
        """A tick came inside a fragment: step to its end, or to what stops it."""
        state, child = self.state, space.child
        regs = child.regs
        for _ in range(MOST_STEPS):
            between = self.patches.boundary(regs[r.RIP] & MASK32)
            if between is not None:
                state.eip = between
                return Stop.TICK
            stopped = child.go(ptrace.PTRACE_SINGLESTEP)
            eip = registers.store(regs, state)
            self._leave_cells()
            self.cells.hide_trap_flag()
            if stopped == signal.SIGTRAP and child.siginfo()[0] != SI_KERNEL:  # a step, no breakpoint
                if not self.patches.inside(eip):
                    state.eip = eip
                    return Stop.TICK
            elif stopped not in (signal.SIGUSR1, signal.SIGVTALRM):
                return self._inside_patch(space, stopped, eip)
        raise MachineBroken("running the guest", "a patch does not come to its end")

    def _escaped(self, eip: int) -> Stop:
        """Unscanned bytes led to 64-bit code, where filter and empty address space hold it: #GP to the guest."""
        self.counts["escapes to 64-bit code"] += 1
        self.state.eip = eip
        self.fault = GuestFault(faults.GP, 0)
        return Stop.FAULT

    # code

    def _page_at(self, space: AddressSpace, linear: int) -> CodePage | None:
        """The scanned page that is executable at a linear address."""
        seen = space.pages.get(self.shadow.code_page(space, linear))
        if seen is None or not seen.code:
            return None
        ring = USER if self.state.cpl == 3 else SUPERVISOR
        return self.codes.pages[ring].get(seen.frame)

    def is_site(self) -> bool:
        """Whether the instruction at EIP cannot run where it is: it has a breakpoint, or lies under a patch."""
        if self.state.eip in self.patches.interior and not self.state.cpl:
            return True
        page = self._page_at(self.shadow.current(), self.state.eip)
        return page is not None and self.state.eip & OFFSET in page.sites

    def site_is_near(self) -> bool:
        """Whether the supervisor is at an instruction for the evaluator with a breakpoint close behind it."""
        page = None if self.state.cpl else self._page_at(self.shadow.current(), self.state.eip)
        at = self.state.eip & OFFSET
        if page is None or page.sites.isdisjoint(range(at + 1, at + NEAR)):
            return False
        return page.covered[at] == START and at not in page.numeric

    def _trapped(self, space: AddressSpace, eip: int) -> Stop | None:
        page = self._page_at(space, eip)
        if page is not None and not page.scanned(eip & OFFSET):
            self.counts["stops to scan"] += 1
            page = self._scan(eip)
            return None if page is not None and page.scanned(eip & OFFSET) else Stop.EVALUATE
        if page is not None and eip & OFFSET in page.numeric and eip & OFFSET not in page.sites:
            if self.spaces.owner is not space:
                self._move_numeric_state(space)
            page.open()
            self._opened.append(page)
            return None
        return Stop.EVALUATE

    def _scan(self, eip: int) -> CodePage | None:
        """Scan from here on; the page that is in, None where there is no memory to run from."""
        user = self.state.cpl == 3
        made = self.codes.made
        page = self.scanner.scan(eip, USER if user else SUPERVISOR, lambda linear: self.shadow.peek(linear, user=user))
        if self.codes.made != made:
            self._protect_new()
        self._unpatched += self.open_pages.spoilt()
        while self._unpatched:
            self.drop_code(self._unpatched.pop())
        return (
            page
            if page is not None and self.codes.pages[USER if user else SUPERVISOR].get(page.frame) is page
            else None
        )

    def _protect_new(self) -> None:
        """Frames that have become code: nobody may go on to write to them unseen."""
        self.memory.forget()
        for pages in self.codes.pages:
            for frame in pages.keys() - self._snapshots.keys():
                self._snapshots[frame] = self._contents(frame)
                self.shadow.protect(frame)

    def _contents(self, frame: int) -> bytes:
        return bytes(self.space.memory.frame(frame))

    def _fetch_fault(self, space: AddressSpace, linear: int, eip: int) -> Stop | None:
        """Code at `linear` is not mapped: scan it from EIP on, and show it."""
        state = self.state
        if linear == eip and space.returning and self.open_pages.runs(space, eip):
            return None  # it goes on in the flat segment
        try:
            found = walk(state, self.space.memory, linear, write=False, user=state.cpl == 3)
        except GuestFault as fault:
            self.fault = fault
            return Stop.FAULT
        frame = found.physical >> FRAME_SHIFT
        if not self.space.is_memory(frame) or linear >> FRAME_SHIFT in self.shadow.reserved:
            return Stop.EMULATE
        ring = USER if state.cpl == 3 else SUPERVISOR
        page = self.codes.pages[ring].get(frame)
        if linear == eip and (page is None or not page.scanned(eip & OFFSET)):
            self._scan(eip)
            page = self.codes.pages[ring].get(frame)
        if page is None:
            self.codes.make(frame, ring)
            self._protect_new()
        mapped = self.shadow.map_code(space, linear, frame)
        if not mapped:
            return Stop.EMULATE
        for number in mapped:
            self._check_straddling(space, number)
        return None

    def _check_straddling(self, space: AddressSpace, linear_page: int) -> None:
        """An instruction that goes on in the next page must find the frame there that it was scanned with."""
        for first in (linear_page - 1, linear_page):
            seen = space.pages.get(self.shadow.code_page(space, first << FRAME_SHIFT))
            following = space.pages.get(self.shadow.code_page(space, first + 1 << FRAME_SHIFT))
            if seen is None or following is None or not (seen.code and following.code):
                continue
            page = self._page_at(space, first << FRAME_SHIFT)
            if page is not None and page.tail is not None and page.tail.frame != following.frame:
                self.drop_code(page.frame)

    def code_written(self, frame: int, offset: int, size: int) -> None:
        """The evaluator has written to a frame of code: scanned instructions that it changed go."""
        if self.codes.written(frame, offset, size) or self.open_pages.is_open(frame):
            self.drop_code(frame)
            return
        self._snapshots[frame] = self._contents(frame)

    def drop_code(self, frame: int) -> None:
        """A frame of code was changed: forget what was made of it."""
        pages = self.codes.pages[SUPERVISOR]
        for linear, page in list(self.patches.interior.items()):
            if page.frame == frame or pages.get(page.frame) is not page:
                del self.patches.interior[linear]
        gone = self.codes.drop(frame)
        frames = [dropped for dropped, _ in gone]
        for dropped in frames:
            self._snapshots.pop(dropped, None)
        self.shadow.drop_code(frames)

    def time_changed(self) -> None:
        """RDTSC shows the host's counter, or must not: code that has one is scanned anew."""
        state = self.state
        supervisor = timestamp.invariant() and state.tsc_offset == 0
        runs = [supervisor, supervisor and not state.cr4 & CR4_TSD]
        if runs != self.scanner.time_runs:
            self.scanner.time_runs = runs
            for pages in self.codes.pages:
                for frame in list(pages):
                    self.drop_code(frame)

    def written(self, start: int, size: int) -> None:
        """Physical memory was changed by a device."""
        for frame in range(start >> FRAME_SHIFT, (start + size - 1 >> FRAME_SHIFT) + 1):
            if self.codes.is_code(frame):
                self.drop_code(frame)

    def compare_code(self) -> None:
        """Somebody else ran the guest, and may have changed code: what differs is dropped."""
        for frame, before in list(self._snapshots.items()):
            if self._contents(frame) != before:
                self.drop_code(frame)

    # data

    def lacks(self, fault: GuestFault) -> None:
        """An exception is about to be delivered: if user code lacks a page, that may be there when it goes on."""
        state = self.state
        if state.cpl == 3 and fault.vector == faults.PF and fault.address is not None:
            self._awaited = state.cr3, fault.address, fault.address == state.eip

    def _bring(self, space: AddressSpace) -> Stop | None:
        """User code goes on: if that is behind a page fault, the page that it lacked is likely there now."""
        assert self._awaited is not None
        (root, linear, code), self._awaited = self._awaited, None
        if root != self.state.cr3:
            return None
        if not code:
            self.shadow.bring(space, linear)
        elif linear == self.state.eip and self.shadow.code_page(space, linear) not in space.pages:
            return self._fetch_fault(space, linear, linear) if self.shadow.peek(linear, user=True) is not None else None
        return None

    def _segment_violation(self, space: AddressSpace, eip: int) -> Stop | None:
        code, address = space.child.siginfo()
        if code == SI_KERNEL or address >> 32:
            return Stop.EVALUATE
        seen = space.pages.get(address >> FRAME_SHIFT)
        if space.flat:
            if not self.open_pages.runs(space, eip):
                if not self.open_pages.show(space, eip):
                    self.open_pages.left(space)
                return None
            if address == (eip | OFFSET) + 1 and address - eip < LONGEST and not self.open_pages.runs(space, address):
                if not self.open_pages.show(space, address):
                    self.open_pages.left(space)  # perhaps an instruction that goes on there: the other way shows
                return None
        page = None if space.flat else self._page_at(space, eip)
        if page is None and not space.flat:
            return self._fetch_fault(space, eip, eip)
        if page is not None and page.tail is not None and page.tail_at == eip & OFFSET:
            following = (eip | OFFSET) + 1 & MASK32
            there = space.pages.get(self.shadow.code_page(space, following))
            if there is None or not there.code:
                return self._fetch_fault(space, following, eip)
        if seen is not None and seen.code and seen.source == address >> FRAME_SHIFT:
            return Stop.EVALUATE  # code is written, or read where it is hidden
        write = seen is not None and not seen.code
        try:
            if self.shadow.fill(space, address, write=write or self._writes(eip, address)):
                return None
        except GuestFault as fault:
            if seen is not None and not seen.code:
                self.fault = fault
                return Stop.FAULT
        return Stop.EVALUATE  # whoever evaluates it knows whether it reads or writes

    def _writes(self, eip: int, address: int) -> bool:
        """Whether the instruction at EIP, which cannot access an address, would write there."""
        return self._write_decoder.writes(self.memory.fetch(eip, WINDOW), address, self.state.registers)

    def frame_of(self, linear: int) -> int:
        """The page frame behind a linear address that is about to be written; raises GuestFault(#PF)."""
        found = walk(self.state, self.space.memory, linear, write=True, user=self.state.cpl == 3)
        return found.physical >> FRAME_SHIFT

    def before_emulation(self) -> None:
        """Somebody else is to run the guest: who keeps translations has not seen what patches have done to them."""
        if self.patches.made:
            self.memory.flush()

    def after_emulation(self) -> None:
        """Somebody else ran the guest: translations may have changed, and code."""
        self.shadow.flush()
        self.compare_code()

    def step_natively(self, address: int) -> bool:
        """Execute the one instruction at EIP, which was scanned, with code at `address` writable: for what the
        evaluator does not know. False where that did not help."""
        space = self.shadow.current()
        state, child = self.state, space.child
        page = address >> FRAME_SHIFT
        frame = self.frame_of(address)
        if not self.space.is_memory(frame):
            return False
        space.unmap(page)
        if not child.map(page << FRAME_SHIFT, PAGE, READ_WRITE_EXECUTE, MEMORY_AT, frame << FRAME_SHIFT):
            return False
        registers.load(child.regs, state, space.bias)
        stopped = child.go(ptrace.PTRACE_SINGLESTEP)
        child.unmap(page << FRAME_SHIFT, PAGE)
        self.drop_code(frame)
        regs = child.regs
        if stopped != signal.SIGTRAP:
            return False
        state.eip = registers.store(regs, state)
        return True

    def kick(self) -> None:
        """Have `run` return soon; from any thread."""
        for space in self.spaces.all():
            space.child.kick()

    def close(self) -> None:
        """End all children. May be called twice."""
        self.spaces.close()
        self.shadow.close()
        self.patches.close()
        self.cells.close()

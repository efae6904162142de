"""Scan before execution: decodes a guest's code ahead of the processor, and plants breakpoints at what must not run.

It follows code along both sides of conditional jumps, and into what is called, up to a depth in branches. It stops
where code stops: at returns, indirect jumps, far jumps, and at INT3 and UD2, behind which there may be anything.

Which instructions trap by themselves at privilege level 3 and which do not: Robin and Irvine, "Analysis of the Intel
Pentium's Ability to Support a Secure Virtual Machine Monitor" (2000); Intel SDM volume 2.
"""

from collections.abc import Callable
from typing import Final

from iced_x86 import CpuidFeature, Decoder, FlowControl, Instruction, Mnemonic, OpKind, Register

from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.vcpus.scanned.breakpoints import LONGEST, START, SUPERVISOR, CodePage, CodePages

OFFSET: Final = PAGE - 1
MASK32: Final = 0xFFFF_FFFF
DEFAULT_DEPTH: Final = 2
MOST_STRAIGHT: Final = 256
"""Instructions that a scan follows without a branch: beyond, they are hardly code."""
MOST_AT_ONCE: Final = 4096
"""Instructions of one scan."""

RUNS, TRAPS, SILENTLY, LEAVES, STOPS, NUMERIC, TIME = range(7)
"""What becomes of an instruction: it may run; it gets a breakpoint, though it would trap by itself; it gets one, since
it would not; it gets one, and the scan does not go past it; it raises an exception, and
the scan does not go past it; it uses floating-point or vector registers; it reads the time stamp counter."""

_M = Mnemonic
TRAPS_BY_ITSELF: Final = {
    _M.CLI, _M.STI, _M.IN, _M.OUT, _M.INSB, _M.INSW, _M.INSD, _M.OUTSB, _M.OUTSW, _M.OUTSD, _M.LGDT, _M.LIDT,
    _M.LLDT, _M.LTR, _M.LMSW, _M.INVLPG, _M.INVD, _M.WBINVD, _M.RDMSR, _M.WRMSR, _M.RDPMC, _M.CLTS, _M.INT, _M.INTO,
    _M.MONITOR, _M.MWAIT, _M.HLT, _M.XSETBV,
}  # fmt: skip
SILENT: Final = {
    _M.PUSHF, _M.PUSHFD, _M.POPF, _M.POPFD, _M.SGDT, _M.SIDT, _M.SLDT, _M.STR, _M.SMSW, _M.LAR, _M.LSL, _M.VERR,
    _M.VERW, _M.CPUID, _M.RDTSCP, _M.XGETBV, _M.LDS, _M.LES, _M.LFS, _M.LGS, _M.LSS, _M.RDFSBASE,
    _M.RDGSBASE, _M.WRFSBASE, _M.WRGSBASE, _M.RDPID, _M.ARPL, _M.INT1, _M.RDPKRU, _M.WRPKRU, _M.XBEGIN,
    _M.XSAVE, _M.XSAVEOPT, _M.XSAVEC, _M.XSAVES, _M.XRSTOR, _M.XRSTORS,
}  # fmt: skip
ELSEWHERE: Final = {_M.IRET, _M.IRETD, _M.RETF, _M.SYSENTER, _M.SYSEXIT, _M.SYSCALL, _M.SYSRET, _M.RSM}
RAISES: Final = {_M.INT3, _M.UD0, _M.UD1, _M.UD2, _M.INVALID, _M.VMCALL, _M.VMMCALL}  # fmt: skip
_INTEGER: Final = {
    CpuidFeature.INTEL8086, CpuidFeature.INTEL8086_ONLY, CpuidFeature.INTEL186, CpuidFeature.INTEL286,
    CpuidFeature.INTEL386, CpuidFeature.INTEL386_ONLY, CpuidFeature.INTEL486, CpuidFeature.CX8, CpuidFeature.CMOV,
    CpuidFeature.MULTIBYTENOP, CpuidFeature.PAUSE, CpuidFeature.POPCNT, CpuidFeature.BMI1, CpuidFeature.BMI2,
    CpuidFeature.LZCNT, CpuidFeature.MOVBE, CpuidFeature.CLFSH, CpuidFeature.CLFLUSHOPT, CpuidFeature.ADX,
    CpuidFeature.PREFETCHW, CpuidFeature.CET_IBT,
}  # fmt: skip
_WITHOUT_VECTORS: Final = {
    _M.LFENCE, _M.MFENCE, _M.SFENCE, _M.MOVNTI, _M.CRC32, _M.PREFETCHT0, _M.PREFETCHT1, _M.PREFETCHT2, _M.PREFETCHNTA,
}  # fmt: skip
"""Instructions that came with SSE, and use general registers and memory alone."""
_SPECIAL: Final = {
    *range(Register.ES, Register.GS + 1),
    *range(Register.CR0, Register.CR0 + 16),
    *range(Register.DR0, Register.DR0 + 16),
}
_FLOWING: Final = {FlowControl.CONDITIONAL_BRANCH, FlowControl.UNCONDITIONAL_BRANCH, FlowControl.CALL}
_ENDING: Final = {FlowControl.UNCONDITIONAL_BRANCH, FlowControl.INDIRECT_BRANCH, FlowControl.RETURN}
_NEAR: Final = {OpKind.NEAR_BRANCH16, OpKind.NEAR_BRANCH32}


def classify(instruction: Instruction) -> int:
    """What becomes of it; the same for all instructions of one `code`."""
    mnemonic = instruction.mnemonic
    if mnemonic in ELSEWHERE:
        return LEAVES
    if mnemonic == Mnemonic.RDTSC:
        return TIME
    if mnemonic in RAISES:
        return STOPS
    if mnemonic in TRAPS_BY_ITSELF:
        return TRAPS
    if mnemonic in SILENT:
        return SILENTLY
    if mnemonic in (Mnemonic.MOV, Mnemonic.PUSH, Mnemonic.POP):
        for index in range(instruction.op_count):
            if instruction.op_kind(index) == OpKind.REGISTER and instruction.op_register(index) in _SPECIAL:
                return SILENTLY
    if mnemonic in (Mnemonic.JMP, Mnemonic.CALL) and (
        instruction.is_jmp_far
        or instruction.is_jmp_far_indirect
        or instruction.is_call_far
        or instruction.is_call_far_indirect
    ):
        return LEAVES if mnemonic == Mnemonic.JMP else SILENTLY
    if mnemonic in _WITHOUT_VECTORS or _INTEGER.issuperset(instruction.cpuid_features()):
        return RUNS
    return NUMERIC


class Scanner:
    """Fills code pages. `translate` gives the physical address that code at a linear one may be scanned at, or None."""

    def __init__(self, memory: GuestMemory, pages: CodePages, *, depth: int = DEFAULT_DEPTH) -> None:
        self._memory, self._pages, self.depth = memory, pages, depth
        self._classes: dict[int, int] = {}
        self.time_runs = [False, False]
        """Whether RDTSC may run, for the supervisor and for users."""
        self.targets: set[int] = set()
        """Where scanned branches and calls go, by linear address."""
        self.on_target: Callable[[int], None] | None = None
        self.on_overlap: Callable[[CodePage], None] | None = None
        """Called with a page whose patches must go before it can be scanned on."""
        self._flows: dict[int, tuple[bool, bool]] = {}
        self.instructions = self.planted = self.scans = self.deepest = 0

    def scan(self, start: int, ring: int, translate: Callable[[int], int | None]) -> CodePage | None:
        """Scan from a linear address, at which code is about to run; the page it is in, None if there is no memory."""
        self.scans += 1
        first: CodePage | None = None
        work = [(start, 0)]
        frames: dict[int, int] = {}
        limit = self.instructions + MOST_AT_ONCE
        while work and (first is None or self.instructions < limit):
            address, depth = work.pop()
            self.deepest = max(self.deepest, depth)
            page = self._straight(address, depth, ring, translate, frames, work)
            if first is None:
                first = page
                if page is None:
                    return None
        return first

    def _page(
        self, linear: int, ring: int, translate: Callable[[int], int | None], frames: dict[int, int]
    ) -> CodePage | None:
        frame = frames.get(linear >> FRAME_SHIFT)
        if frame is None:
            physical = translate(linear)
            if physical is None:
                return None
            frame = frames[linear >> FRAME_SHIFT] = physical >> FRAME_SHIFT
        page = self._pages.pages[ring].get(frame)
        return page if page is not None else self._pages.make(frame, ring)

    def _straight(
        self,
        address: int,
        depth: int,
        ring: int,
        translate: Callable[[int], int | None],
        frames: dict[int, int],
        work: list[tuple[int, int]],
    ) -> CodePage | None:
        """Scan instructions until one that does not go on to the next; targets of branches go to `work`."""
        first: CodePage | None = None
        limit = self.instructions + MOST_STRAIGHT
        while True:
            page = self._page(address, ring, translate, frames)
            first = first or page
            if page is None:
                return first
            at = address & OFFSET
            ram = page.frame << FRAME_SHIFT
            window = bytes(self._memory.bytes[ram : ram + PAGE])
            decoder = Decoder(32, window, ip=address & ~OFFSET)
            decoder.position = at
            decoder.ip = address
            while at < PAGE:
                if page.scanned(at) or self.instructions >= limit:
                    return first
                instruction = decoder.decode()
                length = instruction.len
                if instruction.is_invalid and PAGE - at < LONGEST:
                    if page.jumps and self._overlaps(page, at, PAGE - at):
                        return first
                    crossing = self._crossing(page, address & ~OFFSET | at, window[at:], ring, translate, frames)
                    if crossing is None:
                        return first
                    instruction, length = crossing, crossing.len
                    if self._flow(instruction, depth, work):
                        return first
                    at += length
                    break
                self.instructions += 1
                if page.jumps and self._overlaps(page, at, length):
                    return first
                code = instruction.code
                kind = self._classes.get(code)
                if kind is None:
                    kind = self._classes[code] = classify(instruction)
                if kind == RUNS and instruction.memory_segment == Register.CS:
                    kind = SILENTLY  # it reads data where code is
                elif kind == TIME:
                    kind = RUNS if self.time_runs[ring] else SILENTLY
                if kind == NUMERIC and ring == SUPERVISOR:
                    page.put_numeric(at, window[at : at + length])
                elif kind in (RUNS, NUMERIC):
                    page.put(at, window[at : at + length])
                    if self._flow(instruction, depth, work):
                        return first
                elif kind == STOPS:
                    page.put(at, window[at : at + length])
                    return first
                else:
                    page.plant(at, length, hard=kind != TRAPS)
                    self.planted += 1
                    if kind == LEAVES:
                        return first
                at += length
            address = (address & ~OFFSET) + at & MASK32

    def _overlaps(self, page: CodePage, at: int, length: int) -> bool:
        """Whether an instruction lies under a jump of a patch, though it was not there when that was made."""
        found = not page.jumps.isdisjoint(range(at, at + length))
        if found and self.on_overlap is not None:
            self.on_overlap(page)
        return found

    def _flow(self, instruction: Instruction, depth: int, work: list[tuple[int, int]]) -> bool:
        """Note where a branch goes to; whether code does not go on behind this instruction."""
        code = instruction.code
        flow = self._flows.get(code)
        if flow is None:
            control = instruction.flow_control
            near = instruction.op_count > 0 and instruction.op0_kind in _NEAR
            flow = self._flows[code] = (control in _FLOWING and near, control in _ENDING)
        if flow[0]:
            target = instruction.near_branch_target & MASK32
            self.targets.add(target)
            if self.on_target is not None:
                self.on_target(target)
            if depth < self.depth:
                work.append((target, depth + 1))
        return flow[1]

    def _crossing(
        self,
        page: CodePage,
        address: int,
        head: bytes,
        ring: int,
        translate: Callable[[int], int | None],
        frames: dict[int, int],
    ) -> Instruction | None:
        """The last instruction of a page, if it goes on in the next: both parts are put, or a breakpoint."""
        offset = address & OFFSET
        following = address + len(head) & MASK32
        physical = translate(following)
        if physical is None or following == 0:
            return None  # whoever evaluates it finds the page fault, or makes it possible to scan on
        tail = bytes(self._memory.bytes[physical : physical + LONGEST])
        instruction = Decoder(32, head + tail, ip=address).decode()
        self.instructions += 1
        kind = classify(instruction) if instruction.memory_segment != Register.CS else SILENTLY
        beyond = instruction.len - len(head)
        numeric = kind == NUMERIC
        kind = RUNS if numeric else kind
        if kind != RUNS or instruction.is_invalid or beyond <= 0:
            page.plant(offset, len(head))
            self.planted += 1
            return instruction if kind in (TRAPS, SILENTLY) else None
        other = self._page(following, ring, translate, frames)
        if other is None or other is page or not (other.sites | other.jumps).isdisjoint(range(beyond)):
            page.plant(offset, len(head))
            return instruction
        if numeric and ring == SUPERVISOR:
            page.put_numeric(offset, head)
        else:
            page.put(offset, head)
        other.copy[:beyond] = tail[:beyond]
        for inside in range(beyond):
            other.covered[inside] = other.covered[inside] or 1
        page.tail, page.tail_at = other, offset
        other.heads.add(page)
        return instruction

    def clean(self, page: CodePage, *, user: bool) -> bool:
        """Whether nothing in a page must be stopped: no breakpoint, and none found between what was scanned.

        Floating-point instructions are none of it: whoever opens a page sees to those registers.
        """
        if page.hard or page.patched:
            return False
        missing = page.covered.count(0)
        if page.cleaned[0] != missing:
            page.cleaned = missing, self._clean_between(page, user)
        return page.cleaned[1]

    def _clean_between(self, page: CodePage, user: bool) -> bool:
        """Where what was not scanned begins is known but at a page's start: there may be an instruction's end."""
        covered, at = page.covered, page.covered.find(0)
        ram = page.frame << FRAME_SHIFT
        window = bytes(self._memory.bytes[ram : ram + PAGE])
        while at >= 0:
            end = covered.find(START, at)
            end = PAGE if end < 0 else end
            starts = range(min(LONGEST, end)) if at == 0 else (at,)
            if not any(self._clean_from(window, start, end, user) for start in starts):
                return False
            at = covered.find(0, end)
        return True

    def _clean_from(self, window: bytes, position: int, end: int, user: bool) -> bool:
        decoder = Decoder(32, window, ip=position)
        decoder.position = position
        while position < end:
            instruction = decoder.decode()
            if instruction.is_invalid:
                if PAGE - position < LONGEST:
                    return True  # it goes on in the next page
                position += 1
                decoder.position = position
                continue
            kind = self._classes.get(instruction.code)
            if kind is None:
                kind = classify(instruction)
            if kind in (SILENTLY, LEAVES) or (kind == TIME and not self.time_runs[user]):
                return False
            position += instruction.len
        return True

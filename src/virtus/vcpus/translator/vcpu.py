"""vCPU `translator`: programs for another processor, as translated code in stub processes.

What runs is code made from the guest's, at the host's own speed; the guest's address space is a stub process, as for
the user-mode kernel (`vcpus/ptrace.py`), so that processes, threads, memory and files are the host's and the kernel's
affair. Out come system calls, faults, and what concerns only the translator: code that has no translation yet, blocks
that have become hot, single instructions that translated code leaves to the interpreter.

Two translators serve it. `baseline` is quick, and keeps registers in memory; whatever runs for the first time runs in
what it makes. What becomes hot is handed to a background process (`llvm.worker`), and replaced when that is done.
"""

import select
import signal
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from virtus.exits import Exit, Reason
from virtus.isa.instruction_set import InstructionSet
from virtus.isa.x86 import registers as r
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.foreign import KEPT_BY_FORK
from virtus.vcpus.foreign import CallConvention as CallConvention  # who makes this vCPU needs it
from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.interpreter.memory import MemoryFault
from virtus.vcpus.ptrace import PtraceVcpu, StubContext
from virtus.vcpus.translator import baseline, float_state, layout
from virtus.vcpus.translator.call_stubs import CallStubs
from virtus.vcpus.translator.context import (
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    TranslatedContext,
    private_mapping,
    shared_mapping,
)
from virtus.vcpus.translator.quick_image import QuickImage
from virtus.vcpus.translator.region import Region
from virtus.vcpus.translator.remote import RemoteMemory
from virtus.vcpus.translator.space import AddressSpace, Translation
from virtus.vcpus.translator.stubs import Stubs

_MUNMAP: Final = NUMBERS["munmap"]
NO_SYSCALL: Final = 2**64 - 1
FETCH_AHEAD: Final = 1024
"""Bytes of code that the quick translator is given at a time."""
MOST_TARGETS: Final = 1024
"""Of one computed jump."""
HOT_AFTER: Final = 10_000
"""How often a block runs before it is worth optimising."""
MOST_KNOWN: Final = 4
"""Translations from one address that are remembered, for other programs that have the same code there."""
MOST_INTERPRETED: Final = 10_000_000
MOST_ASTRAY: Final = 1000
"""How often a thread may run into what is no code of ours before that is its own fault."""
ILL_ILLOPC, TRAP_BRKPT, SEGV_MAPERR, SEGV_ACCERR, BUS_ADRALN = 1, 1, 1, 2, 1  # include/uapi/asm-generic/siginfo.h


class Optimiser(Protocol):
    """Who makes better code of what is hot, in the background."""

    def hot(self, context: TranslatedContext, pc: int, translation: Translation) -> int:
        """The block at `pc` has run often in this address space. After how many more runs to say so again; 0: never."""
        ...

    def reuse(self, context: TranslatedContext, translation: Translation) -> None:
        """A translation has been installed; there may be better code for some of it already."""
        ...

    def mapped(self, context: TranslatedContext, start: int, end: int) -> None:
        """A file has been mapped to be executed."""
        ...

    def ended(self) -> None:
        """The machine ends."""
        ...


class TranslatorVcpu:
    """All contexts of one machine; see the module, and `virtus.exits.Vcpu`."""

    def __init__(self, isa: InstructionSet, convention: CallConvention) -> None:
        self.isa = isa
        self.region = Region()
        self.stubs = Stubs(self.region.place)
        self.region.put(self.stubs.code)
        calls = CallStubs(isa.call_registers)
        start = self.region.put(calls.code)
        self.stubs.words.update({word: start + offset for word, offset in calls.words.items()})
        self.optimiser: Optimiser | None = None
        self.translated = self.interpreted = 0  # blocks and instructions, for the meter
        self._convention = convention
        self._host = PtraceVcpu()
        self._exit = Exit()
        self._contexts: dict[int, TranslatedContext] = {}
        self._known: dict[int, deque[Translation]] = {}  # what `baseline` made, by the address it begins at
        self.jumps: dict[int, set[int]] = {}  # where computed jumps have led, by their addresses
        self._starts: list[int] = []  # of all translations, by place
        self._placed: list[Translation] = []
        self._outcomes: dict[int, Callable[[TranslatedContext], bool]] = {
            layout.EXIT_SYSCALL: self._system_call,
            layout.EXIT_MISS: self._miss,
            layout.EXIT_JUMP_MISS: self._jump_miss,
            layout.EXIT_HOT: self._hot,
            layout.EXIT_INTERRUPT: self._interrupted,
            layout.EXIT_ILLEGAL: lambda context: self._trap(context, signal.SIGILL, ILL_ILLOPC),
            layout.EXIT_BREAKPOINT: lambda context: self._trap(context, signal.SIGTRAP, TRAP_BRKPT),
            layout.EXIT_FLUSH: self._flush,
            layout.EXIT_INTERPRET: self._interpret,
        }
        self._share_memory(self._host.zygote)

    def _share_memory(self, zygote: StubContext) -> None:
        """What every address space begins with."""
        region = self.region
        code, counters = region.code_descriptor, region.counters_descriptor
        shared_mapping(zygote, layout.CODE, layout.CODE_BYTES, PROT_READ | PROT_EXEC, code, 0)
        shared_mapping(zygote, layout.COUNTERS, layout.COUNTERS_BYTES, PROT_READ | PROT_WRITE, counters, 0)
        private_mapping(zygote, layout.TABLE, layout.TABLE_BYTES)
        private_mapping(zygote, layout.FAST, layout.TABLE_BYTES)

    @property
    def created(self) -> int:
        """Host threads made so far."""
        return self._host.created

    def boot(self) -> TranslatedContext:
        """The first guest context: stopped, its address space empty."""
        return self.fresh()

    def watch(self, epoll: select.epoll) -> None:
        """From now on `run` also returns, with Reason.EVENT, when this epoll set has something ready."""
        self._host.watch(epoll)

    def balance(self) -> None:
        """Look at where contexts run."""
        self._host.balance()

    def fresh(self) -> TranslatedContext:
        """See Context."""
        context = self._adopt(self._host.zygote.fresh(), AddressSpace())
        page = self.region.take_state()
        context.map_slot(0, page)
        context.settle(0, page)
        context.enter()
        return context

    def fork(self, parent: TranslatedContext, *, share_memory: bool) -> TranslatedContext:
        """See Context."""
        host = parent.host.fork(share_memory=share_memory)
        space = parent.space if share_memory else parent.space.copy()
        child = self._adopt(host, space)
        if share_memory:
            if space.threads:
                slot, page = space.threads.pop()
            else:
                slot, page = max(space.mapped) + 1, self.region.take_state()
                child.map_slot(slot, page)
        else:
            slot, page = parent.slot, self.region.take_state()
            space.mapped = {slot}
            self._leave_only(child, slot, parent.space.mapped)
            child.map_slot(slot, page)
        child.settle(slot, page)
        for word in KEPT_BY_FORK:
            child.regs[word] = parent.regs[word]
        child.enter()
        return child

    @staticmethod
    def _leave_only(child: TranslatedContext, slot: int, mapped: set[int]) -> None:
        """A copied address space keeps nothing of the other threads of the one it was copied from."""
        for other in mapped - {slot}:
            child.host.inject(_MUNMAP, layout.STATES + other * layout.STATE_BYTES, layout.STATE_BYTES)
            child.host.inject(_MUNMAP, layout.STACKS + other * layout.STACK_BYTES, layout.STACK_BYTES)

    def _adopt(self, host: StubContext, space: AddressSpace) -> TranslatedContext:
        context = self._contexts[host.ident] = TranslatedContext(self, host, space)
        return context

    def _ended(self, context: TranslatedContext) -> None:
        """A context is gone: its place may be another's."""
        space = context.space
        del self._contexts[context.ident]
        space.contexts.discard(context)
        if space.contexts:
            space.threads.append((context.slot, context.page))
        else:
            for _, page in space.threads:
                self.region.give_state(page)
            self.region.give_state(context.page)

    # Running

    def go_on(self, context: TranslatedContext) -> None:
        """Let a context run, unless its address space has something to be done while nobody runs in it."""
        if context.space.waiting:
            context.space.held.append(context)
            self._settle_waiting(context.space)
        else:
            self._resume(context)

    @staticmethod
    def _resume(context: TranslatedContext) -> None:
        context.host.regs[r.ORIG_RAX] = NO_SYSCALL
        context.host.resume()

    def when_quiet(self, space: AddressSpace, action: Callable[[], None]) -> None:
        """Do something to an address space while none of its contexts run, soon."""
        space.waiting.append(action)
        for context in space.contexts:
            context.kick()
        self._settle_waiting(space)

    def _settle_waiting(self, space: AddressSpace) -> None:
        if not space.waiting or space.busy:
            return
        actions, space.waiting = space.waiting, []
        for action in actions:
            action()
        held, space.held = space.held, []
        for context in held:
            if context in space.contexts:
                self._resume(context)

    def run(self) -> Exit:
        """See Vcpu."""
        exit = self._exit
        while True:
            found = self._host.run()
            if found.reason is Reason.EVENT:
                return found
            context = self._contexts.get(found.context.ident)
            if context is None:
                continue
            exit.context = context
            if found.reason is Reason.ENDED:
                self._ended(context)
            if context.space.waiting:
                self._settle_waiting(context.space)
            if found.reason is Reason.ENDED:
                exit.reason, exit.number = Reason.ENDED, found.number
                return exit
            if self._is_for_others(context, found):
                return exit

    def _is_for_others(self, context: TranslatedContext, found: Exit) -> bool:
        """Deal with what concerns the translator alone; else fill in the exit."""
        if found.reason is Reason.SYSCALL:
            if context.host.regs[r.RIP] not in self.stubs.system_calls:
                return self._trap(context, signal.SIGILL, ILL_ILLOPC)  # never by code of ours
            return self._came_out(context, context.regs[layout.EXIT])
        if not found.number:
            self.go_on(context)  # a signal from outside that means nothing to it
            return False
        return self._fault(context, found.number)

    def _came_out(self, context: TranslatedContext, why: int) -> bool:
        outcome = self._outcomes.get(why)
        if outcome is not None:
            return outcome(context)
        self._exit.reason, self._exit.number = Reason.LEFT, why - layout.LEAVE_FIRST
        return True

    def _system_call(self, context: TranslatedContext) -> bool:
        regs, exit = context.regs, self._exit
        number = regs[self._convention.number]
        regs[layout.SYSCALL_FIRST], regs[layout.SYSCALL_NUMBER] = regs[self._convention.first], number
        exit.reason, exit.number = Reason.SYSCALL, number
        return True

    def _interrupted(self, context: TranslatedContext) -> bool:
        context.quiet()
        if context.space.waiting:
            self.go_on(context)
            return False
        self._exit.reason, self._exit.number = Reason.SIGNAL, 0
        return True

    def _trap(self, context: TranslatedContext, number: int, code: int, address: int = -1) -> bool:
        """The guest's own fault, at its PC."""
        context.set_fault(number, code, context.regs[layout.PC] if address < 0 else address)
        context.enter()
        self._exit.reason, self._exit.number = Reason.SIGNAL, number
        return True

    def _fault(self, context: TranslatedContext, number: int) -> bool:
        """The host found a fault in translated code: it is the guest's."""
        at = context.host.regs[r.RIP]
        index = bisect_right(self._starts, at) - 1
        unit = self._placed[index] if index >= 0 else None
        if unit is None or at >= unit.end:
            if at < layout.CODE or at >= layout.CODE + layout.CODE_BYTES:
                context.save_control()
                context.astray += 1
                if context.astray > MOST_ASTRAY:  # the guest has written to the table, or to its state
                    return self._trap(context, signal.SIGSEGV, SEGV_MAPERR)
                context.enter()  # through an entry of the table that was only half written: all is in the state
                self.go_on(context)
                return False
        elif unit.instructions:
            place = bisect_right(unit.instructions, (at - unit.start, NO_SYSCALL)) - 1
            context.regs[layout.PC] = unit.instructions[max(place, 0)][1]
        context.save_control()
        context.clear_fault()
        info = context.fault()
        address = int.from_bytes(info[16:24], "little")
        code = int.from_bytes(info[8:12], "little")
        return self._trap(context, number, code, address)

    # Translating

    def _miss(self, context: TranslatedContext) -> bool:
        pc, space = context.regs[layout.PC], context.space
        if pc >= layout.GUEST_END or pc & 1 or not space.fetch(context.ident, pc, 2):
            mapped = pc < layout.GUEST_END and bool(context.host.read_partial(pc, 1))
            return self._trap(context, signal.SIGSEGV, SEGV_ACCERR if mapped else SEGV_MAPERR)
        unit = next((known for known in self._known.get(pc, ()) if space.has(context.ident, known)), None)
        if unit is None:
            unit = self._translate(context, pc)
        space.install(context.ident, unit)
        if self.optimiser is not None:
            self.optimiser.reuse(context, unit)
        self.go_on(context)
        return False

    def _jump_miss(self, context: TranslatedContext) -> bool:
        """A computed jump has led somewhere new."""
        found = self.jumps.setdefault(context.regs[layout.JUMP_FROM], set())
        if len(found) < MOST_TARGETS:
            found.add(context.regs[layout.PC])
        return self._miss(context)

    def lead_from(self, pc: int) -> None:
        """There is better code for `pc` now: have quick blocks there go over to it."""
        for unit in self._placed:
            counter = unit.counters.get(pc)
            if counter is not None:
                self.region.expire(counter)

    def _translate(self, context: TranslatedContext, pc: int) -> Translation:
        space, region = context.space, self.region
        made = baseline.translate(
            self.isa,
            lambda address: space.fetch(context.ident, address, FETCH_AHEAD),
            pc,
            place=region.place,
            counter=lambda: region.counter(HOT_AFTER),
            known=space.entries,
        )
        start = region.put(made.code)
        unit = Translation(
            entries={address: start + offset for address, offset in made.entries.items()},
            covers=made.covers,
            code=[space.fetch(context.ident, low, high - low) for low, high in made.covers],
            start=start,
            end=start + len(made.code),
            instructions=made.map,
            counters=made.counters,
        )
        self.place(unit)
        self._known.setdefault(pc, deque(maxlen=MOST_KNOWN)).append(unit)
        self.translated += 1
        return unit

    def place_image(self, image: QuickImage) -> Translation | None:
        """Give kept code a place; None where there is none left."""
        unit = image.place(self.region, HOT_AFTER)
        if unit is not None:
            self.place(unit)
        return unit

    def place(self, unit: Translation) -> None:
        """Remember where a translation lies; called in the order of places."""
        self._starts.append(unit.start)
        self._placed.append(unit)

    def _hot(self, context: TranslatedContext) -> bool:
        pc = context.regs[layout.PC]
        unit = context.space.entries.get(pc)
        if unit is not None:
            count = self.optimiser.hot(context, pc, unit) if self.optimiser is not None else 0
            counter = unit.counters.get(pc)
            if counter is not None:
                self.region.rest(counter, count)
        self.go_on(context)
        return False

    def _flush(self, context: TranslatedContext) -> bool:
        """All that was written may be executed from here on."""
        context.flush_instructions(0, layout.GUEST_END)
        self.go_on(context)
        return False

    def _interpret(self, context: TranslatedContext) -> bool:
        """One instruction that translated code leaves to the interpreter.

        While the guest rounds in a way that the host cannot, all further ones, too; for `MOST_INTERPRETED` at most,
        since nobody else of the machine runs meanwhile.
        """
        regs = context.regs
        evaluator = Evaluator(self.isa, regs, RemoteMemory(context))
        try:
            why = evaluator.step()
            while not (why or float_state.is_native(regs[layout.ROUNDING])):
                if evaluator.executed > MOST_INTERPRETED:
                    return self._trap(context, signal.SIGILL, ILL_ILLOPC)
                _, why = evaluator.run(MOST_INTERPRETED // 100)
        except MemoryFault as fault:
            mapped = fault.address < layout.GUEST_END and bool(context.host.read_partial(fault.address, 1))
            code = SEGV_ACCERR if mapped else SEGV_MAPERR
            if fault.signal == signal.SIGBUS:
                code = BUS_ADRALN
            return self._trap(context, fault.signal, code, fault.address)
        finally:
            self.interpreted += evaluator.executed
        if why:
            regs[layout.EXIT] = why
            return self._came_out(context, why)
        self.go_on(context)
        return False

    def figures(self) -> dict[str, int]:
        """What the translator did, for the report."""
        return {
            "translated blocks": sum(len(unit.entries) for unit in self._placed if not (unit.optimised or unit.kept)),
            "instructions interpreted": self.interpreted,
        }

    def close(self) -> None:
        """See Vcpu."""
        if self.optimiser is not None:
            self.optimiser.ended()
        self._host.close()
        self.region.close()

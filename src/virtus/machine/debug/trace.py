"""What a guest does, instruction by instruction: a line for each, with the registers it sets; calls; system calls.

A line of an instruction has its address, its text and what it set. Calls and returns are indented by how deep the calls
are, and named as the program names its functions. A system call is a line of its own, as strace(1) prints it::

    000106dc  jal ra, 0x10650                   ra=00000000000106e0
                fib(0x5)
    00010650  addi sp, sp, -48                  sp=0000003ffefff690
"""

import errno
import os
import select
from typing import Any, Final, Protocol

from virtus.errors import MachineBroken
from virtus.guests.symbols import Map
from virtus.isa.builder import Format
from virtus.isa.instruction_set import InstructionSet
from virtus.records import dataclass, field
from virtus.vcpus.interpreter.context import AddressSpace, InterpretedContext
from virtus.vcpus.interpreter.evaluator import Evaluator
from virtus.vcpus.interpreter.memory import MemoryFault
from virtus.vcpus.translator.layout import PC

TEXT_COLUMNS: Final = 32
DEEPEST_INDENT: Final = 40
MOST_FRAMES: Final = 10_000
"""Of a thread's calls that are remembered; whoever goes deeper is shown at this depth."""
BUFFER: Final = 1 << 16
SHOWN_ARGUMENTS: Final = 3
"""Of a call: how many there are, the program does not say."""
_ERRORS: Final = 4096
"""Results from -4095 to -1 are error numbers."""


class TracedSystem(Protocol):
    """What a personality knows of a guest that is traced."""

    def thread(self, ident: int) -> int:
        """The number that the guest knows a context by."""
        ...

    def show(self, number: int, registers: "memoryview[int]") -> str:
        """The call with its arguments, for example `write(1, 0x2a0, 6)`."""
        ...


class TracedEvaluator(Evaluator):
    """An evaluator that remembers what an instruction has set, and whether it has called or returned."""

    def __init__(self, isa: InstructionSet, space: AddressSpace, registers: "memoryview[int]") -> None:
        super().__init__(isa, registers, space.seen, space.code)
        self.written: list[int] = []
        self.called: int | None = None  # the address that it comes back to
        self.returned = False
        plain = self.set

        def remember(register: int, value: int) -> None:
            plain(register, value)
            self.written.append(register)

        self.set = remember

    def set_float(self, register: int, value: int, format: Format) -> None:
        """See Builder."""
        super().set_float(register, value, format)
        self.written.append(register)

    def call(self, target: int, link: int) -> None:
        """See Builder."""
        super().call(target, link)
        self.called = link

    def call_to(self, target: int, link: int) -> None:
        """See Builder."""
        super().call_to(target, link)
        self.called = link

    def jump_to(self, target: int, *, is_return: bool = False) -> None:
        """See Builder."""
        super().jump_to(target)
        self.returned = is_return


@dataclass(slots=True)
class _Thread:
    """What is remembered of a thread."""

    functions: Map
    pc: int = 0
    text: str = ""
    links: list[int] = field(default_factory=list)  # where calls come back to, the innermost last
    call: str = ""  # the system call it is inside of


class Trace:
    """Writes a trace to a descriptor; see the module, and `virtus.vcpus.interpreter.vcpu.Observer`.

    `argument` is the register of a function's first argument and of its result. `attach` has to be called before the
    guest runs.
    """

    def __init__(self, descriptor: int, *, argument: int) -> None:
        self._descriptor = descriptor
        self._system: TracedSystem | None = None
        self._argument = argument
        self._lines: list[str] = []
        self._size = 0
        self._threads: dict[int, _Thread] = {}
        self._current: int | None = None
        self._unfinished: int | None = None  # whose system call stands at the end, its result still to come
        self._texts: dict[tuple[int, Any], str] = {}

    def attach(self, system: TracedSystem) -> None:
        """This is the system whose guest is traced."""
        self._system = system

    # As an observer

    def evaluator(self, isa: InstructionSet, registers: "memoryview[int]", space: AddressSpace) -> Evaluator:
        """See Observer."""
        return TracedEvaluator(isa, space, registers)

    def started(self, context: InterpretedContext, parent: InterpretedContext | None) -> None:
        """See Observer."""
        if parent is None:
            self._threads[context.ident] = _Thread(Map())
            return
        before = self._threads[parent.ident]
        functions = before.functions if context.space is parent.space else before.functions.copy()
        self._threads[context.ident] = _Thread(functions, links=list(before.links))

    def before(self, context: InterpretedContext) -> None:
        """See Observer."""
        evaluator, thread = context.evaluator, self._threads[context.ident]
        pc = thread.pc = context.regs[PC]
        thread.text = "?"
        try:
            _, instruction, _ = evaluator.code.instructions.get(pc) or evaluator.code.decode(evaluator.memory, pc)
        except MemoryFault:
            return
        key = pc, instruction
        text = self._texts.get(key)
        if text is None:
            if len(self._texts) > BUFFER:
                self._texts.clear()
            text = self._texts[key] = context.vcpu.isa.show(instruction, pc)
        thread.text = text

    def after(self, context: InterpretedContext) -> None:
        """See Observer."""
        evaluator, thread = context.evaluator, self._threads[context.ident]
        assert isinstance(evaluator, TracedEvaluator)
        names, regs = evaluator.isa.register_names, context.regs
        changed = " ".join(f"{names[register]}={regs[register]:016x}" for register in evaluator.written)
        self._line(context, f"{thread.pc:08x}  {thread.text:<{TEXT_COLUMNS}}  {changed}".rstrip())
        evaluator.written.clear()
        if evaluator.called is not None:
            self._call(context, thread, evaluator.called)
            evaluator.called = None
        elif evaluator.returned:
            self._return(context, thread)
        evaluator.returned = False

    def _call(self, context: InterpretedContext, thread: _Thread, link: int) -> None:
        if len(thread.links) < MOST_FRAMES:
            thread.links.append(link)
        regs = context.regs
        arguments = ", ".join(f"{regs[self._argument + index]:#x}" for index in range(SHOWN_ARGUMENTS))
        self._line(context, f"{self._indent(thread)}{thread.functions.show(regs[PC])}({arguments})")

    def _return(self, context: InterpretedContext, thread: _Thread) -> None:
        pc, links = context.regs[PC], thread.links
        if pc in links[-DEEPEST_INDENT:]:  # it may skip some, as after a tail call or longjmp(3)
            indent = self._indent(thread)
            while links.pop() != pc:
                indent = self._indent(thread)
            result = context.regs[self._argument]
            self._line(context, f"{indent}= {result:#x}, back in {thread.functions.show(pc)}")

    @staticmethod
    def _indent(thread: _Thread) -> str:
        return "          " + "  " * min(len(thread.links), DEEPEST_INDENT)

    def system_call(self, context: InterpretedContext, number: int) -> None:
        """See Observer."""
        thread = self._threads[context.ident]
        assert self._system is not None, "nothing runs before attach"
        thread.call, thread.pc = self._system.show(number, context.regs), context.regs[PC]
        self._line(context, thread.call, end="")
        self._unfinished = context.ident
        self.flush()

    def resumed(self, context: InterpretedContext) -> None:
        """See Observer."""
        thread = self._threads[context.ident]
        call, thread.call = thread.call, ""
        if call:
            pc = context.regs[PC]
            if pc == thread.pc:
                text = f" = {_result(context.regs[self._argument])}"
            else:  # a handler, what a handler has interrupted, or the call once more: the register is not its result
                text = f" goes on at {thread.functions.show(pc)}"
            if self._unfinished == context.ident:
                self._put(f"{text}\n")
                self._unfinished = None
            else:
                self._line(context, f"... {call}{text}")

    def faulted(self, context: InterpretedContext, number: int, address: int) -> None:
        """See Observer."""
        self._line(context, f"--- signal {number} at {address:#x} ---")

    def mapped(self, context: InterpretedContext, start: int, end: int, descriptor: int, offset: int) -> None:
        """See Observer."""
        self._threads[context.ident].functions.add(start, end, descriptor, offset)

    def emptied(self, context: InterpretedContext) -> None:
        """See Observer."""
        thread = self._threads[context.ident]
        thread.functions.clear()
        thread.links.clear()

    def ended(self, context: InterpretedContext) -> None:
        """See Observer."""
        thread = self._threads.pop(context.ident)
        if self._unfinished == context.ident:
            self._put(" = ?\n")
            self._unfinished = None
        elif thread.call:
            self._line(context, f"... {thread.call} = ?")

    def close(self) -> None:
        """See Observer."""
        if self._unfinished is not None:
            self._put(" = ?\n")
        self.flush()

    # Writing

    def _line(self, context: InterpretedContext, text: str, end: str = "\n") -> None:
        if self._unfinished is not None:
            self._put(" ...\n")
            self._unfinished = None
        if self._current != context.ident:
            if self._current is not None and self._system is not None:
                self._put(f"--- thread {self._system.thread(context.ident)} ---\n")
            self._current = context.ident
        self._put(text + end)

    def _put(self, text: str) -> None:
        self._lines.append(text)
        self._size += len(text)
        if self._size > BUFFER:
            self.flush()

    def flush(self) -> None:
        """Write out what there is; raises MachineBroken."""
        data = memoryview("".join(self._lines).encode())
        self._lines.clear()
        self._size = 0
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # somebody has set it so; the trace is to be whole
                select.select([], [self._descriptor], [])
            except OSError as error:
                raise MachineBroken("writing the trace", os.strerror(error.errno or 0)) from error


def _result(word: int) -> str:
    """The result of a system call: an error by its name."""
    value = word - 2**64 if word >> 63 else word
    if -_ERRORS < value < 0:
        return f"{value} {errno.errorcode.get(-value, '')}".rstrip()
    return f"{value:#x}" if value > 0xFFFF else str(value)

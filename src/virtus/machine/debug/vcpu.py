"""A vCPU with a debugger between it and the machine's loop: GDB decides when the guest runs.

The guest starts stopped at its first instruction, and waits for GDB. While it is stopped everything in the machine is,
the other processes, too. Breakpoints, steps and watched accesses are nobody's but GDB's and stay here; faults of the
process that is debugged go on to the personality when GDB says so. When GDB leaves, the guest goes on by itself, and
another GDB may come.
"""

import contextlib
import select
import signal
import socket
from typing import Any, Final

from virtus.exits import Exit, Reason
from virtus.machine.debug.commands import Commands, Parting, end_reply
from virtus.machine.debug.connection import Connection
from virtus.machine.debug.debuggee import Action, Resume, Stop, System
from virtus.machine.debug.files import Files
from virtus.machine.debug.packets import Control
from virtus.vcpus.interpreter.context import AddressSpace, Halt, InterpretedContext
from virtus.vcpus.interpreter.vcpu import InterpreterVcpu
from virtus.vcpus.interpreter.watched import Watchpoint

ALL: Final = Resume({}, Action())
_EVENTS: Final = 4


class DebuggedVcpu:
    """See the module, `virtus.exits.Vcpu`, and `virtus.machine.debug.debuggee.Debuggee`.

    `attach` has to be called before the guest runs.
    """

    def __init__(self, vcpu: InterpreterVcpu, listener: socket.socket) -> None:
        self.vcpu = vcpu
        self._listener = listener
        self._connection: Connection | None = None
        self._commands: Commands | None = None
        self._files: Files | None = None
        self._outer = select.epoll()
        self._outer.register(listener.fileno(), select.EPOLLIN)
        self._kernel: select.epoll | None = None
        self._exit = Exit()
        self._stopped: Stop | None = Stop(0, signal.SIGTRAP)
        self._resume = ALL
        self._signals: dict[int, int] = {}  # by context: a signal it came out with, which GDB has to decide on
        self._reported: dict[int, int] = {}  # by thread: a signal it is about to take, likewise
        self._passed: frozenset[int] = frozenset()
        self._deliver: list[tuple[InterpretedContext, int]] = []  # what it has decided
        self._space: AddressSpace | None = None
        self._program = -1
        self._system: System | None = None
        self._killed = False
        self._decided = False  # on a reported signal: the personality may have come to its end by that

    def attach(self, system: System) -> None:
        """This is the process to debug."""
        self._system = system

    @property
    def system(self) -> System:
        """What is debugged."""
        assert self._system is not None, "nothing runs before attach"
        return self._system

    # As a vCPU

    @property
    def created(self) -> int:
        """Host threads made so far."""
        return self.vcpu.created

    def boot(self) -> InterpretedContext:
        """The first guest context: stopped, its address space empty."""
        return self.vcpu.boot()

    def watch(self, epoll: select.epoll) -> None:
        """From now on `run` also returns, with Reason.EVENT, when this epoll set has something ready."""
        self._kernel = epoll
        self._outer.register(epoll.fileno(), select.EPOLLIN)
        self.vcpu.watch(self._outer)

    def balance(self) -> None:
        """Look at where contexts run."""
        self.vcpu.balance()

    def figures(self) -> dict[str, int]:
        """What the vCPU did, for the report."""
        return self.vcpu.figures()

    def run(self) -> Exit:
        """See Vcpu."""
        self._follow_program()
        while True:
            self._look_at_reported()
            if self._killed or self._decided:
                self._decided = False
                return self._event()
            if self._stopped is None and self._deliver:
                return self._delivery()
            self._hold()
            exit = self.vcpu.run()
            if exit.reason is Reason.EVENT:
                if self._served():
                    return self._event()
            elif exit.reason is not Reason.SIGNAL or not exit.number or not self._is_kept(exit):
                return exit

    def close(self) -> None:
        """See Vcpu. GDB is told how the guest has ended."""
        if self._connection is not None:
            status = self.system.status()
            self._connection.send(end_reply(signal.SIGKILL if status is None else status))
            self._hang_up()
        self._listener.close()
        self._outer.close()
        self.vcpu.close()

    def _event(self) -> Exit:
        self._exit.reason, self._exit.context, self._exit.number = Reason.EVENT, None, 0
        return self._exit

    def _delivery(self) -> Exit:
        context, number = self._deliver.pop()
        self._exit.reason, self._exit.context, self._exit.number = Reason.SIGNAL, context, number
        return self._exit

    def _hold(self) -> None:
        """Let those run that are to; before GDB has come, also those that only look at their signals."""
        ours = {id(context): thread for thread, context in self.system.contexts().items()}
        for context in self.vcpu.contexts.values():
            if self._stopped is not None:
                held = self._connection is not None or not context.kicked
            else:
                held = id(context) in ours and self._resume.action(ours[id(context)]) is None
            context.debugging.held = held

    def _is_kept(self, exit: Exit) -> bool:
        """Whether a signal is GDB's to decide on; then the guest is stopped."""
        context: InterpretedContext = exit.context
        halt, context.debugging.halt = context.debugging.halt, None
        thread = self._thread_of(context)
        if thread is None:
            if halt is None:
                return False
            context.debugging.free = True  # it shares memory with what is debugged, as after vfork(2)
            context.resume()
            return True
        if halt is None and self._connection is None:
            return False
        self._signals[context.ident] = 0 if halt is not None else exit.number
        self._stop(Stop(thread, exit.number, _detail(halt)))
        return True

    def _thread_of(self, context: InterpretedContext) -> int | None:
        return next((number for number, other in self.system.contexts().items() if other is context), None)

    def _follow_program(self) -> None:
        """Notice that the process has become another program: whatever was set for the last one means nothing now."""
        contexts = self.system.contexts()
        space: AddressSpace | None = next((context.space for context in contexts.values()), None)
        if space is None or (space is self._space and space.programs == self._program):
            return
        first = self._space is None
        if self._space is not None:
            self._space.stop_at(frozenset())
            self._space.watch(frozenset())
        self._space, self._program = space, space.programs
        space.stop_at(frozenset())
        space.watch(frozenset())
        if self._commands is not None:
            self._commands.forget_points()
        if not first and self._connection is not None:
            path = self.system.executable().encode(errors="surrogateescape").hex()
            self._stop(Stop(next(iter(contexts)), signal.SIGTRAP, f"exec:{path}"))

    def _is_about_to_take(self, thread: int, number: int) -> None:
        """The personality reports a signal."""
        self._reported[thread] = number

    def _look_at_reported(self) -> None:
        """Have GDB decide on one signal; those that it does not want to see go on."""
        for thread, number in list(self._reported.items()):
            if number in self._passed:
                self._decide(thread, number)
            elif self._stopped is None:
                self._stop(Stop(thread, number))

    def _decide(self, thread: int, number: int) -> None:
        del self._reported[thread]
        if thread in self.threads():
            self.system.decide(thread, number)
            self._decided = True

    # Stopping and going on

    def _stop(self, stop: Stop) -> None:
        self._stopped = stop
        for context in self.vcpu.contexts.values():
            context.debugging.step = context.debugging.stepped = False
        if self._commands is not None and self._connection is not None:
            self._connection.send(self._commands.stop(stop))

    def _go_on(self, resume: Resume) -> None:
        stopped = None if self._stopped is None else self._stopped.thread
        self._stopped, self._resume = None, resume
        for thread, context in self.system.contexts().items():
            action = resume.action(thread)
            if action is None:
                continue
            context.debugging.step = action.step
            if thread in self._reported:
                if thread == stopped:  # else GDB has not been told of it yet
                    self._decide(thread, action.signal)
                continue
            came_out_with = self._signals.pop(context.ident, None)
            if action.signal and action.signal == came_out_with:
                self._deliver.append((context, action.signal))
                continue
            if came_out_with is not None:
                context.resume()
            if action.signal and thread in self.threads():  # what was decided on another one may have ended all
                self.system.signal(thread, action.signal)

    def _leave(self) -> None:
        """GDB is gone: nothing of it is left in the guest."""
        self._hang_up()
        if self._space is not None:
            self._space.stop_at(frozenset())
            self._space.watch(frozenset())
        self.system.report_signals(None)
        for context in self.vcpu.contexts.values():
            context.debugging.step = context.debugging.stepped = False
        for thread, number in list(self._reported.items()):
            self._decide(thread, number)
        came_out = {
            thread: Action(signal=self._signals.get(context.ident, 0))
            for thread, context in self.system.contexts().items()
        }
        self._go_on(Resume(came_out, Action()))

    def _hang_up(self) -> None:
        connection, self._connection, self._commands = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(OSError):
                self._outer.unregister(connection.fileno())
            connection.close()
        if self._files is not None:
            self._files.close()
            self._files = None

    # The client

    def _served(self) -> bool:
        """Answer the client; whether the personality has something to answer, too."""
        ready = {descriptor for descriptor, _ in self._outer.poll(0, _EVENTS)}
        if self._connection is not None and self._connection.fileno() in ready:
            self._converse(self._connection)
        elif self._listener.fileno() in ready:
            self._accept()
        return self._killed or (self._kernel is not None and self._kernel.fileno() in ready)

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # it has hung up again
        if self._connection is not None:
            peer.close()
            return
        threads = self.threads()
        stop = self._stopped
        if stop is None or stop.thread not in threads:
            stop = Stop(threads[0] if threads else 0, signal.SIGTRAP if stop is not None else 0)
        self._connection = Connection(peer)
        self._passed = frozenset()
        self.system.report_signals(self._is_about_to_take)
        self._files = Files(self.system.open)
        self._commands = Commands(self, self._files, stop)
        self._stopped = stop
        self._outer.register(peer.fileno(), select.EPOLLIN)

    def _converse(self, connection: Connection) -> None:
        commands = self._commands
        assert commands is not None
        for found in connection.receive():
            if isinstance(found, bytes):
                if commands.acknowledged:
                    connection.acknowledge(whole=True)
                self._request(connection, commands, found)
            elif found is Control.INTERRUPT:
                self._interrupt()
            elif commands.acknowledged and found is Control.REFUSED:
                connection.repeat()
            elif commands.acknowledged and found is Control.DAMAGED:
                connection.acknowledge(whole=False)
            if connection.closed or self._connection is None:
                break
        if connection.closed and self._connection is connection:
            self._leave()

    def _request(self, connection: Connection, commands: Commands, request: bytes) -> None:
        if self._stopped is None:
            return  # nothing but an interrupt is sent to a guest that runs
        answer = commands.handle(request)
        if isinstance(answer, bytes):
            connection.send(answer)
        elif isinstance(answer, Resume):
            self._go_on(answer)
        elif answer is Parting.DETACH:
            connection.send(b"OK")
            self._leave()
        else:
            if request.startswith(b"v"):
                connection.send(b"OK")
            self.system.kill()
            self._killed = True

    def _interrupt(self) -> None:
        if self._stopped is None:
            last = self._thread_of(self.vcpu.last) if self.vcpu.last is not None else None
            threads = self.threads()
            self._stop(Stop(last or (threads[0] if threads else 0), signal.SIGINT))

    # As a debuggee

    def threads(self) -> list[int]:
        """See Debuggee."""
        return list(self.system.contexts())

    def _context(self, thread: int) -> InterpretedContext:
        context: InterpretedContext = self.system.contexts()[thread]
        return context

    def registers(self, thread: int) -> "memoryview[int]":
        """See Debuggee."""
        return self._context(thread).regs

    def may_change(self, thread: int) -> bool:
        """See Debuggee."""
        context = self._context(thread)
        return context.running or context.ident in self._signals or thread in self._reported

    def describe(self, thread: int) -> str:
        """See Debuggee."""
        return self.system.describe(thread)

    def _any(self) -> Any:
        context = next(iter(self.system.contexts().values()), None)
        if context is None:
            raise ProcessLookupError(3, "the process has ended")
        return context

    def read(self, address: int, size: int) -> bytes:
        """See Debuggee."""
        found: bytes = self._any().read_partial(address, size)
        return found

    def write(self, address: int, data: bytes) -> None:
        """See Debuggee."""
        context = self._any()
        context.write(address, data)
        context.flush_instructions(address, len(data))

    def set_breakpoints(self, addresses: frozenset[int]) -> None:
        """See Debuggee."""
        if self._space is not None:
            self._space.stop_at(addresses)

    def set_watchpoints(self, watchpoints: frozenset[tuple[str, int, int]]) -> None:
        """See Debuggee."""
        if self._space is not None:
            self._space.watch(frozenset(Watchpoint(*point) for point in watchpoints))

    def pass_signals(self, numbers: frozenset[int]) -> None:
        """See Debuggee."""
        self._passed = numbers

    def executable(self) -> str:
        """See Debuggee."""
        return self.system.executable()

    def auxiliary(self) -> bytes:
        """See Debuggee."""
        return self.system.auxiliary()

    def signal_information(self, thread: int) -> bytes:
        """See Debuggee."""
        context = self._context(thread)
        return context.fault() if context.ident in self._signals else self.system.information(thread)


def _detail(halt: Halt | None) -> str:
    """GDB's words for a halt."""
    if halt is None or halt.step:
        return ""
    return f"{halt.watched}:{halt.address:x}" if halt.watched else "swbreak:"

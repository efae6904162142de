"""A Windows program on the emulated processor: engine `vcpus/emulated_x86` and personality `win32`, joined here."""

import os
import threading
from collections.abc import Callable
from typing import Final

from virtus.errors import MachineBroken
from virtus.personalities.win32 import catalogue, console_control, marshalling, startup, threads
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Process, Thread
from virtus.techniques import windows_meter, windows_process
from virtus.vcpus.emulated_x86.engine import EmulatedX86, Entry, ThreadEnd
from virtus.vcpus.program_state import CpuContext, CpuFault

MAIN_STACK: Final = 8 << 20
"""Of the host thread that the program's first thread is: our own frames only."""


class Emulated:
    """One program. `trace` is told of its calls, all of which then reach us."""

    def __init__(self, program: str, arguments: list[str], trace: Callable[[str], object] | None) -> None:
        self._program, self._arguments, self._trace = program, arguments, trace
        self._meter = windows_meter.from_environment()
        self._ready = threading.Event()
        self.process: Process

    def run(self) -> None:
        """Run it; the host's signals are served meanwhile. Does not return."""
        before = threading.stack_size(MAIN_STACK)
        threading.Thread(target=self._first_thread, daemon=True).start()
        threading.stack_size(before)
        self._ready.wait()
        console_control.listen(self.process, self._new_thread)
        while True:
            threading.Event().wait()  # the process ends with an exit of its own

    def _new_thread(self, body: Callable[[Thread], None]) -> None:
        def run(thread: Thread) -> int:
            body(thread)
            return 0

        threads.new_thread(self.process, 0, run)

    def _first_thread(self) -> None:
        try:
            engine = self._engine = EmulatedX86(
                lambda address, write: AccessViolation(address, write=write), self._lookup, self._fault, self._ended,
                self._failed, every_call=self._trace is not None or self._meter is not None,
            )  # fmt: skip
            process = self.process = Process(engine)
            if self._meter is not None:
                process.at_exit.append(self._meter.write)
            self._ready.set()
            features = startup.EMULATED_FEATURES
            main = startup.prepare(process, self._program, self._arguments, os.environ, features, self._missing)
            assert main.image is not None
            engine.make_stack(main.image.stack_reserve)
            startup.adopt(process, engine.stack())
            self._ended(startup.run(process, main))
        except ThreadEnd:
            engine.turns.end()  # others go on; the last one ends the process
            if engine.turns.count == 0:
                self._ended(0)
        except BaseException as error:
            self._failed(error)

    def _lookup(self, dll: str, name: str) -> Entry | None:
        """A function of ours, its module imported when it is first called."""
        if not catalogue.exists(name):
            return None
        made: list[Entry] = []

        def call(frame: int) -> int:
            if not made:
                made.append(self._make(name))
            try:
                return made[0](frame)
            except AccessViolation as bad:
                windows_process.deliver_bad_access(self.process, bad)

        return call

    def _make(self, name: str) -> Entry:
        function = catalogue.find(name)
        if function is None:
            raise MachineBroken(f"calling {name}", "the catalogue of functions has it, and no module")
        call: Entry = marshalling.entry(function, self._engine.memory, lambda: self.process.current, self._engine)
        if self._meter is not None:
            call = self._meter.counted(name, call)
        if self._trace is not None:
            call = marshalling.traced(function, self._engine.memory, call, self._trace)
        return call

    def _fault(self, fault: CpuFault, context: CpuContext) -> CpuContext:
        return windows_process.deliver(self.process, fault, context)

    def _missing(self, dll: str, name: str) -> int:
        return self._engine.entry_point(lambda frame: windows_process.unimplemented(self.process, dll, name, frame))

    def _ended(self, status: int) -> None:
        windows_process.end(self.process, status)

    def _failed(self, error: BaseException) -> None:
        windows_process.failed(error, self._ended)


def run(program: str, arguments: list[str], trace: Callable[[str], object] | None = None) -> None:
    """Run a program; `trace` is told of its calls. Does not return."""
    Emulated(program, arguments, trace).run()

"""A Windows program on the processor itself: engine `vcpus/inprocess` and personality `win32`, joined here."""

import os
import threading
from collections.abc import Callable
from typing import Final

from virtus.errors import MachineBroken
from virtus.personalities.win32 import catalogue, console_control, crash, marshalling, startup, threads
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Process, ProcessEnd, Thread
from virtus.personalities.win32.table import Function
from virtus.techniques import windows_meter, windows_process
from virtus.vcpus.inprocess import HOST_STACK, InProcess, Row, ThreadEnd

MAIN_STACK: Final = 8 << 20
"""Of the host thread that the program's first thread is: our own frames only."""


def is_plain(function: Function) -> bool:
    """Whether all its arguments are integers, and their number is known: then a call needs no marshalling."""
    floating = function.result.floating or any(parameter.type.floating for parameter in function.parameters)
    return not floating and not function.variadic


def guest_thread(process: Process, body: Callable[[Thread], None]) -> None:
    """Run something on a guest thread of its own."""

    def run(thread: Thread) -> int:
        body(thread)
        return 0

    threads.new_thread(process, 0, run)


def run(program: str, arguments: list[str], trace: Callable[[str], object] | None = None) -> None:
    """Run a program; `trace` is told of its calls, all of which then reach us. Does not return."""
    end = windows_process.end

    def lookup(engine: InProcess, dll: str, name: str) -> int | None:
        return engine.lazy_entry_point(lambda: made(engine, name)) if catalogue.exists(name) else None

    def made(engine: InProcess, name: str) -> Row:
        function = catalogue.find(name)
        if function is None:
            raise MachineBroken(f"calling {name}", "the catalogue of functions has it, and no module")
        if trace is None and is_plain(function):
            types = [(parameter.type.size, parameter.type.signed) for parameter in function.parameters]
            body = function.implementation if meter is None else meter.counted(name, function.implementation)
            return engine.typed(body, current, types)
        call = marshalling.entry(function, engine.memory, current, engine)
        if meter is not None:
            call = meter.counted(name, call)
        return engine.placed(call if trace is None else marshalling.traced(function, engine.memory, call, trace))

    def trouble(error: BaseException) -> int:
        """A function of ours has not returned. Access to bad memory on the guest's behalf is its own exception."""
        if isinstance(error, AccessViolation):
            windows_process.deliver_bad_access(process, error)
        if not isinstance(error, ProcessEnd):
            crash.tell(crash.whole(error))
            end(process, windows_process.BROKEN_STATUS)
        raise error

    def missing(dll: str, name: str) -> int:
        return engine.entry_point(lambda frame: windows_process.unimplemented(process, dll, name, frame))

    def failed(error: BaseException) -> None:
        windows_process.failed(error, lambda status: end(process, status))

    def first_thread() -> None:
        try:
            main = startup.prepare(process, program, arguments, os.environ, startup.EMULATED_FEATURES, missing)
            assert main.image is not None
            engine.make_stack(main.image.stack_reserve)
            startup.adopt(process, engine.stack())
            end(process, startup.run(process, main))
        except ThreadEnd:
            return  # others go on
        except BaseException as error:
            failed(error)

    engine = InProcess(
        lambda address, write: AccessViolation(address, write=write), lookup,
        lambda fault, context: windows_process.deliver(process, fault, context),
        lambda status: end(process, status), trouble, failed,
    )  # fmt: skip
    engine.hot = trace is None
    meter = windows_meter.from_environment()
    process = Process(engine)
    current = process.getter()
    if meter is not None:
        process.at_exit.append(meter.write)
    before = threading.stack_size(MAIN_STACK)
    thread = threading.Thread(target=first_thread, daemon=True)
    thread.start()
    threading.stack_size(before or HOST_STACK)
    console_control.listen(process, lambda body: guest_thread(process, body))
    thread.join()  # here, the host's signals are served meanwhile
    while True:
        threading.Event().wait()  # the first thread has ended, others go on

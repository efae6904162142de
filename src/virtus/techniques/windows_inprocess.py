"""A Windows program on the processor itself: engine `vcpus/inprocess` and personality `win32`, joined here."""

import os
import threading
import traceback
from collections.abc import Callable
from typing import Final

from virtus.errors import MachineBroken, VirtusError
from virtus.personalities.win32 import catalogue, console_control, crash, exceptions, marshalling, startup, threads
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.process import Process, ProcessEnd, Thread
from virtus.personalities.win32.table import Function
from virtus.techniques import windows_meter, windows_process
from virtus.vcpus.inprocess import HOST_STACK, InProcess, Row, ThreadEnd
from virtus.vcpus.program_state import FAST_FAIL, FETCH, WRITE, CpuContext, CpuFault

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

    def fault(fault: CpuFault, context: CpuContext) -> CpuContext:
        code = crash.code(fault.vector)
        if fault.vector == FAST_FAIL:
            crash.tell(crash.exception_words(process, code, (), context.general))
            raise ProcessEnd(code)
        access = {WRITE: 1, FETCH: 8}.get(fault.kind, 0)
        parameters = (access, fault.page) if fault.vector < 0 else ()
        exceptions.dispatch(process.current, code, 0, parameters, context.general, context.vectors, context.mxcsr)

    def trouble(error: BaseException) -> int:
        """A function of ours has not returned. Access to bad memory on the guest's behalf is its own exception."""
        if isinstance(error, AccessViolation):
            parameters = int(error.write), error.address
            exceptions.raise_here(process.current, crash.STATUS_ACCESS_VIOLATION, 0, parameters)
        if not isinstance(error, ProcessEnd):
            crash.tell("".join(traceback.format_exception(error)))
            end(process, windows_process.BROKEN_STATUS)
        raise error

    def missing(dll: str, name: str) -> int:
        def called(frame: int) -> int:
            crash.tell(crash.unimplemented(process, dll, name, frame))
            end(process, windows_process.UNIMPLEMENTED_STATUS)
            raise AssertionError

        return engine.entry_point(called)

    def failed(error: BaseException) -> None:
        """A guest thread has ended otherwise than by its return or by ExitThread: so does the process."""
        try:
            if isinstance(error, ProcessEnd):
                end(process, error.status)
            if isinstance(error, VirtusError):
                crash.tell(f"virtus: {error}\n")
                os._exit(error.exit_status)
            crash.tell("".join(traceback.format_exception(error)))  # a mistake of our own
        finally:
            os._exit(windows_process.BROKEN_STATUS)

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
        lambda address, write: AccessViolation(address, write=write), lookup, fault,
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

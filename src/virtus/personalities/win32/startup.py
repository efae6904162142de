"""Starting a program and its threads: modules, blocks, TLS, the order in which libraries are told."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from virtus.personalities.win32 import environment as variables
from virtus.personalities.win32 import heaps, inheritance, paths, process_blocks, sharing, virtual_memory
from virtus.personalities.win32.command_line import join
from virtus.personalities.win32.commit_journal import CommitJournal
from virtus.personalities.win32.guest import AccessViolation
from virtus.personalities.win32.handle_functions import standard_streams
from virtus.personalities.win32.modules import Module, Modules
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.regions import PAGE_READWRITE, Kind, Region

DLL_PROCESS_ATTACH, DLL_THREAD_ATTACH, DLL_THREAD_DETACH, DLL_PROCESS_DETACH = 1, 2, 3, 0
EMULATED_FEATURES: Final = (process_blocks.SSSE3, process_blocks.SSE41, process_blocks.SSE42)
"""What the emulated processor has beyond any x86-64."""
MOST_CALLBACKS: Final = 1000
DEFAULTS: Final = {
    "SystemRoot": "C:\\Windows", "windir": "C:\\Windows", "SystemDrive": "C:",
    "ComSpec": "C:\\Windows\\System32\\cmd.exe",
    "PATHEXT": ".COM;.EXE;.BAT;.CMD", "OS": "Windows_NT", "PROCESSOR_ARCHITECTURE": "AMD64",
    "USERPROFILE": "Z:\\root", "APPDATA": "Z:\\tmp", "LOCALAPPDATA": "Z:\\tmp", "TEMP": "Z:\\tmp", "TMP": "Z:\\tmp",
    "ProgramData": "C:\\ProgramData", "PUBLIC": "C:\\Users\\Public", "USERNAME": "root",
}  # fmt: skip


def windows_path(path: str) -> str:
    """A host path as the guest sees it."""
    return paths.to_windows(os.path.abspath(path))


def windows_environment(host: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables, with those that every Windows program expects; PATH and HOME as Windows writes them."""
    result = {name: value for name, value in host.items() if name.upper() not in ("PATH", "TEMP", "TMP")}
    result = {**DEFAULTS, **result}
    result["USERPROFILE"] = windows_path(host.get("HOME") or "/")
    result["PATH"] = ";".join(windows_path(part) for part in host.get("PATH", "").split(":") if part)
    return result


def prepare(
    process: Process,
    program: str,
    arguments: Sequence[str],
    host_environment: Mapping[str, str],
    features: tuple[int, ...],
    missing: Callable[[str, str], int],
) -> Module:
    """Load a program with its libraries and lay out what it reads of itself. Raises GuestNotRunnable."""
    memory = process.memory
    process_blocks.make_shared_data(memory, features)
    process_blocks.keep_time(memory)
    process.modules = Modules(process.engine, missing, virtual_memory.regions(process))
    process.environment = windows_environment(host_environment)
    process.command_line = join([windows_path(program), *arguments])
    process.directory = windows_path(os.getcwd())
    process.streams = standard_streams(process)
    inheritance.adopt(process)
    main = process.modules.map(os.path.abspath(program))
    process.peb = process_blocks.make_peb(
        memory, main.base, windows_path(main.path), process.command_line, process.directory,
        variables.block(process), process.streams,
    )  # fmt: skip
    words = memory.u64(process.peb + process_blocks.PEB_HANDLES)
    journal = CommitJournal(memory, memory.u64(process.peb + process_blocks.PEB_COMMITS))
    virtual_memory.regions(process).publish(journal)
    sharing.serve_machine_code(process, memory.u64(process.peb + process_blocks.PEB_FILES), words)
    memory.set_u64(process.peb + process_blocks.PEB_HEAP, heaps.process_heap(process).handle)
    return main


def adopt(process: Process, stack: tuple[int, int]) -> Thread:
    """Make the calling guest thread one of the process: its block and its TLS."""
    ident = process.new_ident()
    low, high = stack
    region = Region(low, high - low, Kind.PRIVATE, PAGE_READWRITE)
    region.set(low, high, PAGE_READWRITE)
    virtual_memory.regions(process).add(region)
    teb = process_blocks.make_teb(process.memory, process.peb, stack, process.ident, ident)
    process.engine.set_teb(teb)
    thread = Thread(process, teb, ident)
    process.current = thread
    process_blocks.make_tls(process.memory, teb, [template(process.modules, module) for module in process.modules.tls])
    return thread


def template(modules: Modules, module: Module) -> tuple[int, int, int]:
    """Where a module's TLS is copied from."""
    assert module.image is not None
    tls = module.image.tls()
    assert tls is not None
    return modules.relocated(module, tls.start), modules.relocated(module, tls.end), tls.zeros


def attach(process: Process, reason: int) -> None:
    """Tell libraries and TLS callbacks that the process or a thread begins, or ends, in the loader's order."""
    modules = [module for module in process.modules.order if module.image is not None]
    modules.sort(key=lambda module: module.image is not None and not module.image.is_dll)  # the program is the last
    for module in modules if reason in (DLL_PROCESS_ATTACH, DLL_THREAD_ATTACH) else reversed(modules):
        if reason == DLL_PROCESS_ATTACH:
            if module.started:
                continue
            module.started = True
        _callbacks(process, module, reason)
        assert module.image is not None
        if module.image.is_dll and module.entry:
            process.engine.call(module.entry, module.base, reason, 1 if reason == DLL_PROCESS_ATTACH else 0)


def _callbacks(process: Process, module: Module, reason: int) -> None:
    assert module.image is not None
    tls = module.image.tls()
    if tls is None or not tls.callbacks:
        return
    place = process.modules.relocated(module, tls.callbacks)
    for _ in range(MOST_CALLBACKS):
        try:
            callback = process.memory.u64(place)
        except AccessViolation:
            raise module.image.damaged("its callbacks for threads cannot be read") from None
        if not callback:
            return
        process.engine.call(callback, module.base, reason, 0)
        place += 8


def run(process: Process, main: Module) -> int:
    """Run the program on the calling guest thread, to the return of its start; its exit code."""
    attach(process, DLL_PROCESS_ATTACH)
    return process.engine.call(main.entry, process.peb) & 0xFFFF_FFFF

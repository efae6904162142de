"""The console as a whole: its title and code pages, its processes, and Ctrl-C.

A terminal's interrupt reaches the process as a signal of the host; it becomes the event of the same meaning, which
handlers get on a thread of their own, the last that was added first. (Microsoft: SetConsoleCtrlHandler,
HandlerRoutine.)
"""

import os
import signal
import struct
import threading
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import code_pages, console, errors, state
from virtus.personalities.win32.file_objects import File
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.process_blocks import PEB_PAGES
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, length, store

CTRL_C, CTRL_BREAK, CTRL_CLOSE = 0, 1, 2
EVENTS: Final = {signal.SIGINT: CTRL_C, signal.SIGQUIT: CTRL_BREAK, signal.SIGHUP: CTRL_CLOSE}
SIGNALS: Final = {CTRL_C: signal.SIGINT, CTRL_BREAK: signal.SIGQUIT}
STATUS_CONTROL_C_EXIT: Final = 0xC000_013A
NO_CONSOLE_WINDOW: Final = 0


class Control:
    """The process's handlers, and whether Ctrl-C is ignored."""

    def __init__(self) -> None:
        self.handlers: list[int] = []
        self.ignores = False
        self.listening = False
        self.children: set[int] = set()
        """Process ids of the host, of children that may be told of events."""


def listen(process: Process, new_thread: Callable[[Callable[[Thread], None]], None]) -> None:
    """Have signals of the terminal become events from now on. The calling thread must be the host's main one.

    `new_thread` runs something on a new guest thread.
    """
    control = state.of(process, Control)
    if control.listening or threading.current_thread() is not threading.main_thread():
        return
    control.listening = True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in EVENTS:
        signal.signal(number, _noted)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while received := os.read(reader, 1):
            event = EVENTS.get(signal.Signals(received[0]))
            if event is None or (event == CTRL_C and control.ignores):
                continue
            if control.handlers:
                new_thread(lambda thread, event=event: handle(thread, event))  # type: ignore[misc]  # bound at once
            else:
                process.engine.exit(STATUS_CONTROL_C_EXIT)

    threading.Thread(target=watch, daemon=True).start()


def _noted(number: int, frame: object) -> None:
    """The descriptor that signals are written to does the rest."""


def handle(thread: Thread, event: int) -> None:
    """Call the handlers until one has dealt with an event; ends the process if none does."""
    for routine in list(reversed(state.of(thread.process, Control).handlers)):
        if thread.engine.call(routine, event) & 0xFFFF_FFFF:
            if event != CTRL_CLOSE:
                return
            break  # whoever closes a console ends the process, after its handlers
    thread.engine.exit(STATUS_CONTROL_C_EXIT)


@api("BOOL SetConsoleCtrlHandler(FARPROC routine, BOOL add)", "kernel32", "kernelbase")
def set_console_ctrl_handler(thread: Thread, routine: int, add: int) -> int:
    """Add or take away a handler; without one, whether Ctrl-C is ignored, which children inherit."""
    control = state.of(thread.process, Control)
    if not routine:
        control.ignores = bool(add)
    elif add:
        control.handlers.append(routine)
    elif routine in control.handlers:
        place = len(control.handlers) - 1 - control.handlers[::-1].index(routine)
        del control.handlers[place]
    else:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return 1


@api("BOOL GenerateConsoleCtrlEvent(DWORD event, DWORD group)", "kernel32", "kernelbase")
def generate_console_ctrl_event(thread: Thread, event: int, group: int) -> int:
    """To all of the console's processes for group 0, else to a group that the process has made."""
    if event not in SIGNALS:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    control = state.of(thread.process, Control)
    if group not in (0, thread.process.ident) and group not in control.children:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    for child in control.children if not group else control.children & {group}:
        try:
            os.kill(child, SIGNALS[event])
        except ProcessLookupError:
            continue  # it has ended
    if group in (0, thread.process.ident) and not (event == CTRL_C and control.ignores):
        os.kill(os.getpid(), SIGNALS[event])
    return 1


def _set_title(thread: Thread, text: Text, title: int) -> int:
    words = text.read(thread.memory, title)
    shared = console.of(thread.process)
    shared.title = words
    found = thread.process.handles.get(thread.process.streams[1])
    if getattr(found, "is_console", False):
        # Operating system command 2 sets the window's title (xterm: Control Sequences); controls end it.
        console.emit(found, f"\x1b]2;{''.join(character for character in words if character.isprintable())}\x07")
    return 1


@api("BOOL SetConsoleTitleW(LPCWSTR title)", "kernel32", "kernelbase")
def set_console_title_w(thread: Thread, title: int) -> int:
    """The window's title, where standard output is a terminal."""
    return _set_title(thread, WIDE, title)


@api("BOOL SetConsoleTitleA(LPCSTR title)", "kernel32", "kernelbase")
def set_console_title_a(thread: Thread, title: int) -> int:
    """The window's title, where standard output is a terminal."""
    return _set_title(thread, ANSI, title)


def _title(thread: Thread, text: Text, buffer: int, capacity: int) -> int:
    title = console.of(thread.process).title
    if capacity:
        while length(text, title) >= capacity:
            title = title[:-1]
        store(thread.memory, text, buffer, title)
    return length(text, title)


@api("DWORD GetConsoleTitleW(LPWSTR buffer, DWORD capacity)", "kernel32", "kernelbase")
def get_console_title_w(thread: Thread, buffer: int, capacity: int) -> int:
    """What the program has set, cut to the buffer."""
    return _title(thread, WIDE, buffer, capacity)


@api("DWORD GetConsoleTitleA(LPSTR buffer, DWORD capacity)", "kernel32", "kernelbase")
def get_console_title_a(thread: Thread, buffer: int, capacity: int) -> int:
    """What the program has set, cut to the buffer."""
    return _title(thread, ANSI, buffer, capacity)


@api("UINT GetConsoleCP(void)", "kernel32", "kernelbase")
def get_console_cp(thread: Thread) -> int:
    """The code page of narrow input: UTF-8 until the program sets another."""
    return console.of(thread.process).input_page


@api("UINT GetConsoleOutputCP(void)", "kernel32", "kernelbase")
def get_console_output_cp(thread: Thread) -> int:
    """The code page of narrow output: UTF-8 until the program sets another."""
    return console.of(thread.process).output_page


@api("BOOL SetConsoleCP(UINT page)", "kernel32", "kernelbase")
def set_console_cp(thread: Thread, page: int) -> int:
    """Another code page for narrow input."""
    if code_pages.code_page(page) is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    console.of(thread.process).input_page = page
    thread.memory.set_u32(thread.process.peb + PEB_PAGES, page)
    return 1


@api("BOOL SetConsoleOutputCP(UINT page)", "kernel32", "kernelbase")
def set_console_output_cp(thread: Thread, page: int) -> int:
    """Another code page for narrow output."""
    if code_pages.code_page(page) is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    console.of(thread.process).output_page = page
    thread.memory.set_u32(thread.process.peb + PEB_PAGES + 4, page)
    return 1


def has_console(process: Process) -> bool:
    """Whether any of the standard streams is a terminal."""
    return any(getattr(process.handles.get(handle), "is_console", False) for handle in process.streams)


@api("HWND GetConsoleWindow(void)", "kernel32", "kernelbase")
def get_console_window(thread: Thread) -> int:
    """None: a terminal is no window of Windows' (as under a pseudoconsole)."""
    return NO_CONSOLE_WINDOW


@api("BOOL AllocConsole(void)", "kernel32", "kernelbase")
def alloc_console(thread: Thread) -> int:
    """Refused: a process has the console that it was started with, if any."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("BOOL AttachConsole(DWORD process)", "kernel32", "kernelbase")
def attach_console(thread: Thread, process: int) -> int:
    """Refused: it is attached to one already, or there is none."""
    return thread.fail(errors.ERROR_ACCESS_DENIED if has_console(thread.process) else errors.ERROR_INVALID_HANDLE)


@api("BOOL FreeConsole(void)", "kernel32", "kernelbase")
def free_console(thread: Thread) -> int:
    """The terminal stays open for standard streams that are it."""
    return 1 if has_console(thread.process) else thread.fail(errors.ERROR_INVALID_PARAMETER)


@api("DWORD GetConsoleProcessList(DWORD* list, DWORD room)", "kernel32", "kernelbase")
def get_console_process_list(thread: Thread, list: int, room: int) -> int:
    """The process and its children; stored only if all of them fit."""
    if not list or not room:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if not has_console(thread.process):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    idents = [thread.process.ident, *sorted(state.of(thread.process, Control).children)]
    if len(idents) <= room:
        thread.memory.write(list, struct.pack(f"<{len(idents)}I", *idents))
    return len(idents)


@api("BOOL VerifyConsoleIoHandle(HANDLE console)", "kernel32", "kernelbase")
def verify_console_io_handle(thread: Thread, handle: int) -> int:
    """Whether it is a console's."""
    return int(console.terminal(thread, handle) is not None)


@api("BOOL SetConsoleScreenBufferSize(HANDLE console, COORD size)", "kernel32", "kernelbase",
     note="only to the size that the terminal has")  # fmt: skip
def set_console_screen_buffer_size(thread: Thread, handle: int, size: int) -> int:
    """A terminal's size is its user's."""
    found = console.terminal(thread, handle)
    if found is None:
        return 0
    if console.place(size) != console.screen(found):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    return 1


@api("HANDLE CreateConsoleScreenBuffer(DWORD access, DWORD share, LPVOID security, DWORD flags, LPVOID data)",
     "kernel32", "kernelbase", note="the terminal's alternate screen")  # fmt: skip
def create_console_screen_buffer(thread: Thread, access: int, share: int, security: int, flags: int, data: int) -> int:
    """A second screen: what is written to it is seen while it is active."""
    found = thread.process.handles.get(thread.process.streams[1])
    if not getattr(found, "is_console", False):
        return thread.fail(errors.ERROR_INVALID_HANDLE, (1 << 64) - 1)
    screen = File(os.dup(found.fd), path="CONOUT$")
    screen.opened()
    handle = thread.process.handles.add(screen)
    state.of(thread.process, Screens).others.add(handle)
    return handle


class Screens:
    """Handles of screens beside the first one."""

    def __init__(self) -> None:
        self.others: set[int] = set()


@api("BOOL SetConsoleActiveScreenBuffer(HANDLE console)", "kernel32", "kernelbase")
def set_console_active_screen_buffer(thread: Thread, handle: int) -> int:
    """Show a screen: of the terminal's two, the alternate one for any but the first."""
    found = console.terminal(thread, handle)
    if found is None:
        return 0
    console.emit(found, "\x1b[?1049h" if handle in state.of(thread.process, Screens).others else "\x1b[?1049l")
    return 1

"""Functions about modules: handles, names, addresses of functions, and libraries loaded while a program runs."""

from typing import Final

from virtus.errors import GuestNotRunnable
from virtus.personalities.win32 import errors, process_blocks, startup
from virtus.personalities.win32.modules import Module
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

BY_ADDRESS: Final = 4
"""GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS."""
LOAD_AS_DATA: Final = 0x2 | 0x20 | 0x40
"""LOAD_LIBRARY_AS_DATAFILE, ..._AS_IMAGE_RESOURCE, ..._AS_DATAFILE_EXCLUSIVE."""
ORDINAL_LIMIT: Final = 0x10000


def host_path(name: str) -> str:
    """A library's name as the guest wrote it, on the host: names without a directory stay as they are."""
    name = name.removeprefix("\\\\?\\")
    if len(name) > 2 and name[1] == ":":
        return name[2:].replace("\\", "/")
    return name.replace("\\", "/")


def _find(thread: Thread, name: str) -> Module | None:
    modules = thread.process.modules
    return modules.loaded(name) or next((m for m in modules.order if m.path and m.path == host_path(name)), None)


def _handle(thread: Thread, text: Text, name: int) -> int:
    if not name:
        return thread.process.modules.program.base
    found = _find(thread, text.read(thread.memory, name))
    if found is None and text.read(thread.memory, name).lower().removesuffix(".dll") in (
        "kernel32",
        "ntdll",
        "kernelbase",
    ):
        found = thread.process.modules.load(text.read(thread.memory, name))  # every process has these
    return thread.fail(errors.ERROR_MOD_NOT_FOUND) if found is None else found.base


@api("HMODULE GetModuleHandleW(LPCWSTR name)", "kernel32", "kernelbase")
def get_module_handle_w(thread: Thread, name: int) -> int:
    """A module that is loaded; the program's own for null."""
    return _handle(thread, WIDE, name)


@api("HMODULE GetModuleHandleA(LPCSTR name)", "kernel32", "kernelbase")
def get_module_handle_a(thread: Thread, name: int) -> int:
    """A module that is loaded; the program's own for null."""
    return _handle(thread, ANSI, name)


def _handle_ex(thread: Thread, flags: int, text: Text, name: int, result: int) -> int:
    if flags & BY_ADDRESS:
        found = thread.process.modules.at(name)
        base = thread.fail(errors.ERROR_MOD_NOT_FOUND) if found is None else found.base
    else:
        base = _handle(thread, text, name)
    thread.memory.set_u64(result, base)
    return int(base != 0)


@api("BOOL GetModuleHandleExW(DWORD flags, LPCWSTR name, HMODULE* module)", "kernel32", "kernelbase")
def get_module_handle_ex_w(thread: Thread, flags: int, name: int, module: int) -> int:
    """The same, or by an address in it."""
    return _handle_ex(thread, flags, WIDE, name, module)


@api("BOOL GetModuleHandleExA(DWORD flags, LPCSTR name, HMODULE* module)", "kernel32", "kernelbase")
def get_module_handle_ex_a(thread: Thread, flags: int, name: int, module: int) -> int:
    """The same, or by an address in it."""
    return _handle_ex(thread, flags, ANSI, name, module)


def _load(thread: Thread, name: str, flags: int) -> int:
    process = thread.process
    found = _find(thread, name)
    if found is None:
        try:
            found = process.modules.load(host_path(name))
        except GuestNotRunnable:
            return thread.fail(errors.ERROR_BAD_EXE_FORMAT)
    if found is None:
        return thread.fail(errors.ERROR_MOD_NOT_FOUND)
    if not flags & LOAD_AS_DATA and not found.started:
        for module in process.modules.tls:
            if not module.started:
                for other in list(process.threads.values()):
                    place = startup.template(process.modules, module)
                    process_blocks.add_tls(thread.memory, other.teb, module.tls_index, place)
        startup.attach(process, startup.DLL_PROCESS_ATTACH)
    return found.base


@api("HMODULE LoadLibraryW(LPCWSTR name)", "kernel32", "kernelbase")
def load_library_w(thread: Thread, name: int) -> int:
    """Load a library with what it needs, and start it."""
    return _load(thread, WIDE.read(thread.memory, name), 0)


@api("HMODULE LoadLibraryA(LPCSTR name)", "kernel32", "kernelbase")
def load_library_a(thread: Thread, name: int) -> int:
    """Load a library with what it needs, and start it."""
    return _load(thread, ANSI.read(thread.memory, name), 0)


@api("HMODULE LoadLibraryExW(LPCWSTR name, HANDLE file, DWORD flags)", "kernel32", "kernelbase")
def load_library_ex_w(thread: Thread, name: int, file: int, flags: int) -> int:
    """The same; where it is looked for does not depend on the flags."""
    return _load(thread, WIDE.read(thread.memory, name), flags)


@api("HMODULE LoadLibraryExA(LPCSTR name, HANDLE file, DWORD flags)", "kernel32", "kernelbase")
def load_library_ex_a(thread: Thread, name: int, file: int, flags: int) -> int:
    """The same; where it is looked for does not depend on the flags."""
    return _load(thread, ANSI.read(thread.memory, name), flags)


@api("BOOL FreeLibrary(HMODULE module)", "kernel32", "kernelbase", note="the library stays until the process ends")
def free_library(thread: Thread, module: int) -> int:
    """Whether it is one."""
    return 1 if thread.process.modules.by_base(module) else thread.fail(errors.ERROR_MOD_NOT_FOUND)


@api("BOOL DisableThreadLibraryCalls(HMODULE module)", "kernel32", "kernelbase")
def disable_thread_library_calls(thread: Thread, module: int) -> int:
    """Whether it is one."""
    return free_library(thread, module)


@api("FARPROC GetProcAddress(HMODULE module, LPCSTR name)", "kernel32", "kernelbase")
def get_proc_address(thread: Thread, module: int, name: int) -> int:
    """A function of a module by name or ordinal. Functions that we do not have are not there."""
    modules = thread.process.modules
    found = modules.program if not module else modules.by_base(module)
    if found is None:
        return thread.fail(errors.ERROR_MOD_NOT_FOUND)
    word = f"#{name}" if name < ORDINAL_LIMIT else thread.memory.string(name).decode("latin-1")
    try:
        address = modules.address_of(found, word)
    except GuestNotRunnable:  # its table of exports is damaged
        return thread.fail(errors.ERROR_BAD_EXE_FORMAT)
    return thread.fail(errors.ERROR_PROC_NOT_FOUND) if address is None else address


def _file_name(thread: Thread, text: Text, module: int, buffer: int, size: int) -> int:
    modules = thread.process.modules
    found = modules.program if not module else modules.by_base(module)
    if found is None:
        return thread.fail(errors.ERROR_MOD_NOT_FOUND)
    path = startup.windows_path(found.path) if found.path else f"C:\\Windows\\System32\\{found.name}"
    encoded = text.encode(path)
    unit = text.unit
    if not size:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    kept = encoded[: (size - 1) * unit]
    thread.memory.write(buffer, kept + bytes(unit))
    if len(kept) < len(encoded):
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER, size)
    return len(kept) // unit


@api("DWORD GetModuleFileNameW(HMODULE module, LPWSTR buffer, DWORD size)", "kernel32", "kernelbase")
def get_module_file_name_w(thread: Thread, module: int, buffer: int, size: int) -> int:
    """A module's path, cut to the buffer."""
    return _file_name(thread, WIDE, module, buffer, size)


@api("DWORD GetModuleFileNameA(HMODULE module, LPSTR buffer, DWORD size)", "kernel32", "kernelbase")
def get_module_file_name_a(thread: Thread, module: int, buffer: int, size: int) -> int:
    """A module's path, cut to the buffer."""
    return _file_name(thread, ANSI, module, buffer, size)


@api("LPVOID RtlPcToFileHeader(LPVOID address, LPVOID* base)", "kernel32", "ntdll")
def rtl_pc_to_file_header(thread: Thread, address: int, base: int) -> int:
    """The base of the module that an address lies in, 0 for none."""
    found = thread.process.modules.at(address)
    value = 0 if found is None or found.image is None else found.base
    thread.memory.set_u64(base, value)
    return value

"""The environment's variables and the command line. Names are found whatever their case."""

import re
from typing import Final

from virtus.personalities.win32 import errors, heaps, state
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give, length

LONGEST_VARIABLE: Final = 32_767
"""Characters of a variable's value (Microsoft: SetEnvironmentVariable)."""


def find(process: Process, name: str) -> str | None:
    """A variable's name as the environment has it, None where it is not there."""
    if name in process.environment:
        return name
    wanted = name.upper()
    return next((key for key in process.environment if key.upper() == wanted), None)


def value_of(process: Process, name: str) -> str | None:
    """A variable's value."""
    found = find(process, name)
    return None if found is None else process.environment.get(found)


def set_variable(process: Process, name: str, value: str | None) -> None:
    """Set a variable, or take it away for None."""
    found = find(process, name)
    if value is None:
        if found is not None:
            process.environment.pop(found, None)
    else:
        process.environment[name if found is None else found] = value


def block(process: Process) -> str:
    """All variables as an environment block: sorted, each and the whole ended by a zero."""
    items = sorted(process.environment.items(), key=lambda item: item[0].upper())
    return "".join(f"{name}={value}\0" for name, value in items) + "\0"


def parse_block(text: str) -> dict[str, str]:
    """The variables of a block. A name may begin with "=", as the drives' current directories do."""
    variables = {}
    for line in text.split("\0"):
        place = line.find("=", 1)
        if place > 0:
            variables[line[:place]] = line[place + 1 :]
    return variables


def expand(process: Process, text: str) -> str:
    """%NAME% as the value of NAME; names that are not there stay."""

    def replace(match: re.Match[str]) -> str:
        value = value_of(process, match[1])
        return match[0] if value is None else value

    return re.sub("%([^%]+)%", replace, text)


def _get(thread: Thread, text: Text, name: int, buffer: int, capacity: int) -> int:
    value = value_of(thread.process, text.read(thread.memory, name)) if name else None
    if value is None:
        return thread.fail(errors.ERROR_ENVVAR_NOT_FOUND)
    thread.last_error = errors.ERROR_SUCCESS
    return give(thread.memory, text, buffer, capacity, value)


@api("DWORD GetEnvironmentVariableW(LPCWSTR name, LPWSTR buffer, DWORD capacity)", "kernel32", "kernelbase")
def get_environment_variable_w(thread: Thread, name: int, buffer: int, capacity: int) -> int:
    """The length, or the capacity needed; 0 and ERROR_ENVVAR_NOT_FOUND."""
    return _get(thread, WIDE, name, buffer, capacity)


@api("DWORD GetEnvironmentVariableA(LPCSTR name, LPSTR buffer, DWORD capacity)", "kernel32", "kernelbase")
def get_environment_variable_a(thread: Thread, name: int, buffer: int, capacity: int) -> int:
    """The length, or the capacity needed."""
    return _get(thread, ANSI, name, buffer, capacity)


def _set(thread: Thread, text: Text, name: int, value: int) -> int:
    key = text.read(thread.memory, name) if name else ""
    if not key or "=" in key[1:]:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    content = text.read(thread.memory, value) if value else None
    if content is None and find(thread.process, key) is None:
        return thread.fail(errors.ERROR_ENVVAR_NOT_FOUND)
    if content is not None and len(content) > LONGEST_VARIABLE:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    set_variable(thread.process, key, content)
    return 1


@api("BOOL SetEnvironmentVariableW(LPCWSTR name, LPCWSTR value)", "kernel32", "kernelbase")
def set_environment_variable_w(thread: Thread, name: int, value: int) -> int:
    """A null pointer takes the variable away."""
    return _set(thread, WIDE, name, value)


@api("BOOL SetEnvironmentVariableA(LPCSTR name, LPCSTR value)", "kernel32", "kernelbase")
def set_environment_variable_a(thread: Thread, name: int, value: int) -> int:
    """A null pointer takes the variable away."""
    return _set(thread, ANSI, name, value)


@api("LPWCH GetEnvironmentStringsW(void)", "kernel32", "kernelbase")
def get_environment_strings_w(thread: Thread) -> int:
    """A copy, which the caller frees."""
    return heaps.allocate(thread.process, WIDE.encode(block(thread.process)))


@api("LPCH GetEnvironmentStringsA(void)", "kernel32", "kernelbase")
def get_environment_strings_a(thread: Thread) -> int:
    """A copy, which the caller frees."""
    return heaps.allocate(thread.process, ANSI.encode(block(thread.process)))


@api("LPCH GetEnvironmentStrings(void)", "kernel32", "kernelbase")
def get_environment_strings(thread: Thread) -> int:
    """The narrow one."""
    return get_environment_strings_a(thread)


@api("BOOL FreeEnvironmentStringsW(LPWCH strings)", "kernel32", "kernelbase")
def free_environment_strings_w(thread: Thread, strings: int) -> int:
    """What GetEnvironmentStrings gave."""
    return int(heaps.free(thread.process, strings))


@api("BOOL FreeEnvironmentStringsA(LPCH strings)", "kernel32", "kernelbase")
def free_environment_strings_a(thread: Thread, strings: int) -> int:
    """What GetEnvironmentStrings gave."""
    return int(heaps.free(thread.process, strings))


def read_block(thread: Thread, text: Text, address: int) -> dict[str, str]:
    """The variables of a block in the guest's memory; raises AccessViolation."""
    lines = []
    while line := text.read(thread.memory, address):
        lines.append(line)
        address += len(text.encode(line)) + text.unit
    return parse_block("\0".join(lines))


@api("BOOL SetEnvironmentStringsW(LPWCH strings)", "kernel32", "kernelbase")
def set_environment_strings_w(thread: Thread, strings: int) -> int:
    """Another environment altogether."""
    variables = read_block(thread, WIDE, strings)
    thread.process.environment.clear()
    thread.process.environment.update(variables)
    return 1


def _expand(thread: Thread, text: Text, source: int, buffer: int, capacity: int) -> int:
    made = expand(thread.process, text.read(thread.memory, source))
    give(thread.memory, text, buffer, capacity, made)
    return length(text, made) + 1


@api("DWORD ExpandEnvironmentStringsW(LPCWSTR source, LPWSTR buffer, DWORD capacity)", "kernel32", "kernelbase")
def expand_environment_strings_w(thread: Thread, source: int, buffer: int, capacity: int) -> int:
    """The capacity needed, whether it was there or not."""
    return _expand(thread, WIDE, source, buffer, capacity)


@api("DWORD ExpandEnvironmentStringsA(LPCSTR source, LPSTR buffer, DWORD capacity)", "kernel32", "kernelbase")
def expand_environment_strings_a(thread: Thread, source: int, buffer: int, capacity: int) -> int:
    """The capacity needed, whether it was there or not."""
    return _expand(thread, ANSI, source, buffer, capacity)


class _CommandLine:
    """Where the command line lies, once for wide and once for narrow."""

    def __init__(self) -> None:
        self.addresses: dict[int, int] = {}


def command_line(process: Process, text: Text) -> int:
    """The command line in the guest's memory, for good."""
    addresses = state.of(process, _CommandLine).addresses
    if text.unit not in addresses:
        addresses[text.unit] = heaps.allocate(process, text.encode(process.command_line + "\0"))
    return addresses[text.unit]


@api("LPWSTR GetCommandLineW(void)", "kernel32", "kernelbase")
def get_command_line_w(thread: Thread) -> int:
    """Always the same address."""
    return command_line(thread.process, WIDE)


@api("LPSTR GetCommandLineA(void)", "kernel32", "kernelbase")
def get_command_line_a(thread: Thread) -> int:
    """Always the same address."""
    return command_line(thread.process, ANSI)


@api("NTSTATUS RtlQueryEnvironmentVariable(LPVOID environment, LPCWSTR name, SIZE_T name_length, LPWSTR buffer,"
     " SIZE_T capacity, SIZE_T *length)", "ntdll")  # fmt: skip
def rtl_query_environment_variable(
    thread: Thread, environment: int, name: int, name_length: int, buffer: int, capacity: int, length: int
) -> int:
    """Of the process's environment."""
    value = value_of(thread.process, WIDE.read(thread.memory, name, name_length))
    if value is None:
        return -0x3FFFFF00  # STATUS_VARIABLE_NOT_FOUND, 0xC0000100
    count = give(thread.memory, WIDE, buffer, capacity, value)
    thread.memory.set_u64(length, count)
    return 0 if count < capacity else -0x3FFFFFDD  # STATUS_BUFFER_TOO_SMALL, 0xC0000023

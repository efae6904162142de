"""File mappings: sections of memory that are a file's, or shared, and their views.

A section is a descriptor of the host, of the file or of memory without a name; a view maps it. So stores to a shared
view are the file's at once, for every process of the host. (Microsoft: CreateFileMapping, MapViewOfFile.)
"""

import fcntl
import os
from typing import Final

from virtus.personalities.win32 import errors, file_objects, ntstatus, state
from virtus.personalities.win32.file_objects import INVALID, TYPE_DISK
from virtus.personalities.win32.ntstatus import Refused
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.regions import (
    GRANULARITY,
    PAGE,
    PAGE_EXECUTE_READ,
    PAGE_EXECUTE_READWRITE,
    PAGE_EXECUTE_WRITECOPY,
    PAGE_READONLY,
    PAGE_READWRITE,
    PAGE_WRITECOPY,
    Kind,
    Region,
    rights,
)  # fmt: skip
from virtus.personalities.win32.synchronisation import Names
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text
from virtus.personalities.win32.virtual_memory import regions
from virtus.personalities.win32.waiting import lock

SEC_IMAGE: Final = 0x100_0000
SEC_FLAGS: Final = 0xFF80_0000 | 0x0400_0000 | 0x0800_0000
MAP_COPY, MAP_WRITE, MAP_READ, MAP_EXECUTE = 1, 2, 4, 0x20
PROTECTIONS: Final = frozenset(
    (PAGE_READONLY, PAGE_READWRITE, PAGE_WRITECOPY, PAGE_EXECUTE_READ, PAGE_EXECUTE_READWRITE, PAGE_EXECUTE_WRITECOPY)
)
WRITABLE: Final = frozenset((PAGE_READWRITE, PAGE_EXECUTE_READWRITE))
COPIED: Final = frozenset((PAGE_WRITECOPY, PAGE_EXECUTE_WRITECOPY))
ERROR_FILE_INVALID, ERROR_MAPPED_ALIGNMENT = 1006, 1132
STATUS_MAPPED_FILE_SIZE_ZERO, STATUS_SECTION_TOO_BIG = 0xC000_011E, 0xC000_0040
STATUS_MAPPED_ALIGNMENT, STATUS_INVALID_VIEW_SIZE, STATUS_NOT_MAPPED_VIEW = 0xC000_0220, 0xC000_001F, 0xC000_0019
LARGEST: Final = 1 << 46
NT_CURRENT_PROCESS: Final = (1 << 64) - 1


class Section:
    """What can be mapped: `size` bytes of a descriptor, which it owns, with at most the rights of `protection`."""

    def __init__(self, fd: int, size: int, protection: int) -> None:
        self.fd, self.size, self.protection = fd, size, protection
        self.handles = 0

    def opened(self) -> None:
        """Another handle."""
        self.handles += 1

    def closed(self) -> None:
        """One handle less; views stay what they are."""
        self.handles -= 1
        if not self.handles:
            os.close(self.fd)


def make_section(thread: Thread, file: int, size: int, protection: int) -> Section:
    """A section of a file, or of memory where `file` is INVALID or 0; raises Refused."""
    base = protection & 0xFF
    if base not in PROTECTIONS or protection & ~(0xFF | SEC_FLAGS):
        raise Refused(ntstatus.INVALID_PARAMETER)
    if protection & SEC_IMAGE:
        raise Refused(ntstatus.NOT_SUPPORTED)  # images are the loader's
    if size > LARGEST:
        raise Refused(ntstatus.NO_MEMORY)
    try:
        if file in (0, INVALID):
            if not size:
                raise Refused(ntstatus.INVALID_PARAMETER)
            fd = os.memfd_create("section", os.MFD_CLOEXEC)
            os.ftruncate(fd, -(-size // PAGE) * PAGE)
            return Section(fd, size, base)
        found = file_objects.of(thread, file)
        if found is None or found.kind != TYPE_DISK:
            raise Refused(ntstatus.INVALID_HANDLE)
        writable = fcntl.fcntl(found.fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if base in WRITABLE and not writable:
            raise Refused(ntstatus.ACCESS_DENIED)
        length = os.fstat(found.fd).st_size
        if not size and not length:
            raise Refused(STATUS_MAPPED_FILE_SIZE_ZERO)
        if size > length:
            if base not in WRITABLE:
                raise Refused(STATUS_SECTION_TOO_BIG)
            os.ftruncate(found.fd, size)
        return Section(fcntl.fcntl(found.fd, fcntl.F_DUPFD_CLOEXEC, 3), size or length, base)
    except OSError as error:
        raise Refused(ntstatus.NO_MEMORY if error.errno != 13 else ntstatus.ACCESS_DENIED) from error


def map_view(process: Process, section: Section, address: int, offset: int, size: int, protection: int) -> Region:
    """Map a part of a section (up to its end for a size of 0); raises Refused."""
    if offset % GRANULARITY or address % GRANULARITY:
        raise Refused(STATUS_MAPPED_ALIGNMENT)
    size = size or section.size - offset
    if size <= 0 or offset + size > -(-section.size // PAGE) * PAGE:
        raise Refused(STATUS_INVALID_VIEW_SIZE)
    base = protection & 0xFF
    if base in WRITABLE and section.protection not in WRITABLE:
        raise Refused(ntstatus.ACCESS_DENIED)
    size = -(-size // PAGE) * PAGE
    # A view that nobody can store to may be a copy, which a file that becomes shorter takes nothing away from.
    shared = base not in COPIED and section.protection in WRITABLE
    table = regions(process)
    with table.lock:
        if address and not table.free(address, address + size):
            raise Refused(ntstatus.CONFLICTING_ADDRESSES)
        try:
            start = process.memory.map_file(address, size, rights(base), section.fd, offset, private=not shared)
        except OSError:
            raise Refused(ntstatus.CONFLICTING_ADDRESSES if address else ntstatus.NO_MEMORY) from None
        region = Region(start, size, Kind.MAPPED, base)
        region.set(start, start + size, base)
        return table.add(region)


def unmap_view(process: Process, address: int) -> None:
    """Take away the view that an address lies in; raises Refused where none is."""
    table = regions(process)
    with table.lock:
        region = table.find(address)
        if region is None or region.kind is not Kind.MAPPED:
            raise Refused(STATUS_NOT_MAPPED_VIEW)
        process.memory.unmap(region.base, region.size)
        table.remove(region)


def _error(refused: Refused) -> int:
    special = {STATUS_MAPPED_FILE_SIZE_ZERO: ERROR_FILE_INVALID, STATUS_SECTION_TOO_BIG: 8,
               STATUS_MAPPED_ALIGNMENT: ERROR_MAPPED_ALIGNMENT, ntstatus.NOT_SUPPORTED: 50}  # fmt: skip
    return special.get(refused.status, refused.error)


def _section(thread: Thread, handle: int) -> Section | None:
    found = thread.process.handles.get(handle)
    return found if isinstance(found, Section) else None


def add_section(thread: Thread, section: Section, *, inheritable: bool) -> int:
    """A new handle."""
    section.opened()
    handle: int = thread.process.handles.add(section, inheritable=inheritable)
    return handle


def _create(
    thread: Thread, text: Text, file: int, security: int, protection: int, high: int, low: int, name: int
) -> int:
    known = text.read(thread.memory, name) if name else ""
    known = known.removeprefix("Local\\").removeprefix("Global\\")
    names = state.of(thread.process, Names).objects
    inheritable = bool(security and thread.memory.u32(security + 16))
    with lock(thread.process):
        found = names.get(known) if known else None
        if isinstance(found, Section) and found.handles:
            thread.last_error = errors.ERROR_ALREADY_EXISTS
            return add_section(thread, found, inheritable=inheritable)
        if found is not None and not isinstance(found, Section):
            return thread.fail(errors.ERROR_INVALID_HANDLE)
        try:
            section = make_section(thread, file, high << 32 | low, protection)
        except Refused as refused:
            return thread.fail(_error(refused))
        if known:
            names[known] = section
    thread.last_error = errors.ERROR_SUCCESS
    return add_section(thread, section, inheritable=inheritable)


@api("HANDLE CreateFileMappingW(HANDLE file, LPVOID security, DWORD protection, DWORD high, DWORD low, LPCWSTR name)",
     "kernel32", "kernelbase", note="names are the process's own")  # fmt: skip
def create_file_mapping_w(
    thread: Thread, file: int, security: int, protection: int, high: int, low: int, name: int
) -> int:
    """A section of a file, which grows where it is too short, or of memory for INVALID_HANDLE_VALUE."""
    return _create(thread, WIDE, file, security, protection, high, low, name)


@api("HANDLE CreateFileMappingA(HANDLE file, LPVOID security, DWORD protection, DWORD high, DWORD low, LPCSTR name)",
     "kernel32", "kernelbase", note="names are the process's own")  # fmt: skip
def create_file_mapping_a(
    thread: Thread, file: int, security: int, protection: int, high: int, low: int, name: int
) -> int:
    """A section of a file, which grows where it is too short, or of memory for INVALID_HANDLE_VALUE."""
    return _create(thread, ANSI, file, security, protection, high, low, name)


def _open(thread: Thread, text: Text, inherit: int, name: int) -> int:
    known = text.read(thread.memory, name).removeprefix("Local\\").removeprefix("Global\\")
    found = state.of(thread.process, Names).objects.get(known)
    if not isinstance(found, Section) or not found.handles:
        return thread.fail(errors.ERROR_FILE_NOT_FOUND)
    return add_section(thread, found, inheritable=bool(inherit))


@api("HANDLE OpenFileMappingW(DWORD access, BOOL inherit, LPCWSTR name)", "kernel32", "kernelbase",
     note="names are the process's own")  # fmt: skip
def open_file_mapping_w(thread: Thread, access: int, inherit: int, name: int) -> int:
    """A section by its name."""
    return _open(thread, WIDE, inherit, name)


@api("HANDLE OpenFileMappingA(DWORD access, BOOL inherit, LPCSTR name)", "kernel32", "kernelbase",
     note="names are the process's own")  # fmt: skip
def open_file_mapping_a(thread: Thread, access: int, inherit: int, name: int) -> int:
    """A section by its name."""
    return _open(thread, ANSI, inherit, name)


def protection_of(access: int) -> int:
    """A view's protection for FILE_MAP_* access; 0 for none."""
    execute = bool(access & MAP_EXECUTE)
    if access & MAP_WRITE:
        return PAGE_EXECUTE_READWRITE if execute else PAGE_READWRITE
    if access & MAP_COPY:
        return PAGE_EXECUTE_WRITECOPY if execute else PAGE_WRITECOPY
    if access & MAP_READ:
        return PAGE_EXECUTE_READ if execute else PAGE_READONLY
    return 0


@api("LPVOID MapViewOfFileEx(HANDLE section, DWORD access, DWORD high, DWORD low, SIZE_T size, LPVOID address)",
     "kernel32", "kernelbase")  # fmt: skip
def map_view_of_file_ex(thread: Thread, section: int, access: int, high: int, low: int, size: int, address: int) -> int:
    """The address where a part of a section is mapped."""
    found, protection = _section(thread, section), protection_of(access)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if not protection:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    try:
        return map_view(thread.process, found, address, high << 32 | low, size, protection).base
    except Refused as refused:
        return thread.fail(_error(refused))


@api("LPVOID MapViewOfFile(HANDLE section, DWORD access, DWORD high, DWORD low, SIZE_T size)", "kernel32",
     "kernelbase")  # fmt: skip
def map_view_of_file(thread: Thread, section: int, access: int, high: int, low: int, size: int) -> int:
    """The same anywhere."""
    return map_view_of_file_ex(thread, section, access, high, low, size, 0)


@api("BOOL UnmapViewOfFile(LPVOID address)", "kernel32", "kernelbase")
def unmap_view_of_file(thread: Thread, address: int) -> int:
    """Take a view away; ERROR_INVALID_ADDRESS where none is."""
    try:
        unmap_view(thread.process, address)
    except Refused as refused:
        return thread.fail(refused.error)
    return 1


@api("BOOL UnmapViewOfFileEx(LPVOID address, ULONG flags)", "kernel32", "kernelbase")
def unmap_view_of_file_ex(thread: Thread, address: int, flags: int) -> int:
    """Take a view away."""
    return unmap_view_of_file(thread, address)


@api("BOOL FlushViewOfFile(LPVOID address, SIZE_T size)", "kernel32", "kernelbase")
def flush_view_of_file(thread: Thread, address: int, size: int) -> int:
    """A view and its file are the same memory of the host: nothing has to be copied. (The disk: FlushFileBuffers.)"""
    region = regions(thread.process).find(address)
    if region is None or region.kind is not Kind.MAPPED or address + size > region.end:
        return thread.fail(errors.ERROR_INVALID_ADDRESS)
    return 1


@api("NTSTATUS NtCreateSection(HANDLE *section, ACCESS_MASK access, LPVOID attributes, LARGE_INTEGER *size,"
     " ULONG protection, ULONG allocation, HANDLE file)", "ntdll", note="no names, no images")  # fmt: skip
def nt_create_section(
    thread: Thread, section: int, access: int, attributes: int, size: int, protection: int, allocation: int, file: int
) -> int:
    """The native CreateFileMapping."""
    try:
        made = make_section(thread, file, thread.memory.u64(size) if size else 0, protection | allocation & SEC_FLAGS)
    except Refused as refused:
        return refused.status
    inherit = bool(attributes and thread.memory.u32(attributes + 24) & 2)  # OBJ_INHERIT
    thread.memory.set_u64(section, add_section(thread, made, inheritable=inherit))
    return ntstatus.SUCCESS


@api("NTSTATUS NtMapViewOfSection(HANDLE section, HANDLE process, LPVOID *address, ULONG_PTR zero, SIZE_T commit,"
     " LARGE_INTEGER *offset, SIZE_T *size, ULONG inherit, ULONG allocation, ULONG protection)", "ntdll")  # fmt: skip
def nt_map_view_of_section(
    thread: Thread, section: int, process: int, address: int, zero: int, commit: int, offset: int, size: int,
    inherit: int, allocation: int, protection: int,
) -> int:  # fmt: skip
    """The native MapViewOfFile."""
    found, memory = _section(thread, section), thread.memory
    if found is None or process != NT_CURRENT_PROCESS:
        return ntstatus.INVALID_HANDLE
    if protection & 0xFF not in PROTECTIONS:
        return ntstatus.INVALID_PAGE_PROTECTION
    place = memory.u64(offset) if offset else 0
    try:
        region = map_view(thread.process, found, memory.u64(address), place, memory.u64(size), protection)
    except Refused as refused:
        return refused.status
    memory.set_u64(address, region.base)
    memory.set_u64(size, region.size)
    return ntstatus.SUCCESS


@api("NTSTATUS NtUnmapViewOfSection(HANDLE process, LPVOID address)", "ntdll")
def nt_unmap_view_of_section(thread: Thread, process: int, address: int) -> int:
    """The native UnmapViewOfFile."""
    if process != NT_CURRENT_PROCESS:
        return ntstatus.INVALID_HANDLE
    try:
        unmap_view(thread.process, address)
    except Refused as refused:
        return refused.status
    return ntstatus.SUCCESS

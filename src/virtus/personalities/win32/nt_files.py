"""Files by native functions, as Rust, Go and Zig call them: names of the object manager, statuses instead of errors.

(Microsoft: NtCreateFile, NtQueryInformationFile; [MS-FSCC] 2.4.) What they have in common with the API is done there.
"""

import os
import struct
from typing import Final

from virtus.personalities.win32 import (
    errors,
    file_changes,
    file_information,
    file_objects,
    files,
    ntstatus,
    paths,
    pipes,
)
from virtus.personalities.win32.code_pages import from_utf16
from virtus.personalities.win32.directory_entries import (
    BOTH,
    DIRECTORY,
    FULL,
    ID_BOTH,
    ID_EXTENDED,
    ID_FULL,
    NAMES,
    Search,
    pack,
)  # fmt: skip
from virtus.personalities.win32.file_objects import INVALID, TYPE_DISK, File
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

SUPERSEDE, OPEN, CREATE, OPEN_IF, OVERWRITE, OVERWRITE_IF = range(6)
DISPOSITIONS: Final = {
    SUPERSEDE: files.CREATE_ALWAYS, OPEN: files.OPEN_EXISTING, CREATE: files.CREATE_NEW, OPEN_IF: files.OPEN_ALWAYS,
    OVERWRITE: files.TRUNCATE_EXISTING, OVERWRITE_IF: files.CREATE_ALWAYS,
}  # fmt: skip
DIRECTORY_FILE, SYNCHRONOUS, NON_DIRECTORY_FILE, DELETE_ON_CLOSE, OPEN_LINK = 0x1, 0x30, 0x40, 0x1000, 0x20_0000
OPENED, CREATED, OVERWRITTEN = 1, 2, 3
"""What the status block tells of success."""
OBJ_INHERIT: Final = 2
NAMED_PIPES: Final = "\\DEVICE\\NAMEDPIPE\\"
STATUSES: Final = {
    errors.ERROR_FILE_NOT_FOUND: 0xC000_0034, errors.ERROR_PATH_NOT_FOUND: 0xC000_003A,
    errors.ERROR_ACCESS_DENIED: ntstatus.ACCESS_DENIED, errors.ERROR_SHARING_VIOLATION: 0xC000_0043,
    errors.ERROR_FILE_EXISTS: 0xC000_0035, errors.ERROR_ALREADY_EXISTS: 0xC000_0035,
    errors.ERROR_INVALID_NAME: 0xC000_0033, errors.ERROR_INVALID_HANDLE: ntstatus.INVALID_HANDLE,
    errors.ERROR_DIR_NOT_EMPTY: 0xC000_0101, errors.ERROR_INVALID_PARAMETER: ntstatus.INVALID_PARAMETER,
    errors.ERROR_BAD_LENGTH: ntstatus.INFO_LENGTH_MISMATCH, errors.ERROR_NOT_SAME_DEVICE: 0xC000_00D4,
    errors.ERROR_DISK_FULL: 0xC000_007F, errors.ERROR_BAD_NETPATH: 0xC000_00BE, errors.ERROR_DIRECTORY: 0xC000_0103,
    errors.ERROR_PIPE_BUSY: 0xC000_00AC, errors.ERROR_TOO_MANY_OPEN_FILES: 0xC000_011F,
    errors.ERROR_NOT_ENOUGH_MEMORY: ntstatus.NO_MEMORY,
}  # fmt: skip
# FILE_INFORMATION_CLASS (wdm.h), and the API's kinds of the same structures
SAME_KINDS: Final = {
    4: file_information.BASIC, 5: file_information.STANDARD, 9: file_information.NAME, 10: file_information.RENAME,
    13: file_information.DISPOSITION, 17: file_information.ALIGNMENT, 19: file_information.ALLOCATION,
    20: file_information.END_OF_FILE, 22: file_information.STREAM, 28: file_information.COMPRESSION,
    35: file_information.ATTRIBUTE_TAG, 59: file_information.ID_INFO, 64: file_information.DISPOSITION_EX,
    65: file_information.RENAME_EX,
}  # fmt: skip
INTERNAL, EXTENDED_ATTRIBUTES, ACCESS, POSITION, MODE, ALL, PIPE, NETWORK_OPEN = 6, 7, 8, 14, 16, 18, 23, 34
DIRECTORY_KINDS: Final = frozenset((DIRECTORY, FULL, BOTH, NAMES, ID_BOTH, ID_FULL, ID_EXTENDED))
RESTART_SCAN, SINGLE_ENTRY = 1, 2
LONGEST_NAME: Final = 0x7FFF

AFD: Final = "\\DEVICE\\AFD"


class PipeRoot:
    """The directory of all named pipes, which a name may be relative to."""


def status_of(error: int) -> int:
    """The status that opening or changing a file ends with, for the API's error."""
    return STATUSES.get(error, ntstatus.UNSUCCESSFUL) if error else 0


def read_name(thread: Thread, attributes: int) -> tuple[int, str, bool]:
    """OBJECT_ATTRIBUTES: the root's handle, the name, and whether the handle is inherited."""
    memory = thread.memory
    text = memory.u64(attributes + 16)
    name = ""
    if text:
        name = from_utf16(memory.read(memory.u64(text + 8), min(memory.u16(text), 2 * LONGEST_NAME)))
    return memory.u64(attributes + 8), name, bool(memory.u32(attributes + 24) & OBJ_INHERIT)


def host_path(thread: Thread, root: int, name: str) -> str:
    """The host's path of a name, relative to an open directory or not; raises BadPath."""
    if not root:
        if not name.startswith("\\??\\"):
            raise paths.BadPath(errors.ERROR_INVALID_NAME if not name.startswith("\\") else errors.ERROR_PATH_NOT_FOUND)
        return paths.to_host(thread.process, name)
    opened = file_objects.of(thread, root)
    if opened is None:
        raise paths.BadPath(errors.ERROR_INVALID_HANDLE)
    parts = name.split("\\") if name else []
    if "." in parts or ".." in parts:
        raise paths.BadPath(errors.ERROR_INVALID_NAME)
    return paths.find(os.path.join(opened.path, *paths.host_names(parts)))


def _finish(thread: Thread, block: int, status: int, information: int = 0) -> int:
    if status >> 30 != 3:  # an error leaves the block alone
        thread.memory.write(block, struct.pack("<QQ", status, information))
    return status


def _opened(thread: Thread, result: int, block: int, handle: int, information: int) -> int:
    thread.memory.set_u64(result, handle)
    return _finish(thread, block, 0, information)


def _create(
    thread: Thread, result: int, access: int, attributes: int, block: int, bits: int, share: int, disposition: int,
    options: int,
) -> int:  # fmt: skip
    root, name, inherit = read_name(thread, attributes)
    overlapped = not options & SYNCHRONOUS
    parent = thread.process.handles.get(root) if root else None
    pipe = pipes.name_of(name) if not root else None
    if isinstance(parent, pipes.NamedPipe) and not name:
        pipe = parent.name
    elif isinstance(parent, PipeRoot):
        pipe = name
    if pipe:
        handle = pipes.connect(thread, pipe, access, overlapped=overlapped, inheritable=inherit)
        if handle == INVALID:
            return status_of(thread.last_error)
        return _opened(thread, result, block, handle, OPENED)
    if name.upper() + "\\" in (NAMED_PIPES, NAMED_PIPES + "\\") and not root:
        return _opened(thread, result, block, thread.process.handles.add(PipeRoot(), inheritable=inherit), OPENED)
    if not root and name.upper().startswith(AFD):
        from virtus.personalities.win32 import socket_polls  # few programs have sockets

        return _opened(thread, result, block, socket_polls.open_device(thread, inheritable=inherit), OPENED)
    if disposition not in DISPOSITIONS:
        return ntstatus.INVALID_PARAMETER
    try:
        path = host_path(thread, root, name)
    except paths.BadPath as bad:
        return status_of(bad.error)
    there = os.path.lexists(path)
    directory = os.path.isdir(path)
    if options & DIRECTORY_FILE:
        if there and not directory:
            return 0xC000_0103  # STATUS_NOT_A_DIRECTORY
        if not there and disposition in (CREATE, OPEN_IF):
            try:
                os.mkdir(path)
            except OSError as error:
                return status_of(paths.error_of(error, path))
        elif there and disposition == CREATE:
            return 0xC000_0035
        disposition = OPEN
    elif directory and options & NON_DIRECTORY_FILE and not (options & OPEN_LINK and os.path.islink(path)):
        return 0xC000_00BA  # STATUS_FILE_IS_A_DIRECTORY
    flags = files.FLAG_BACKUP | (files.FLAG_OVERLAPPED if overlapped else 0) | bits & files.ATTRIBUTE_READ_ONLY
    flags |= files.FLAG_DELETE if options & DELETE_ON_CLOSE else 0
    flags |= files.FLAG_OPEN_LINK if options & OPEN_LINK else 0
    handle, failure = files.open_file(
        thread, path, access, share, DISPOSITIONS[disposition], flags, inheritable=inherit
    )
    if not handle:
        return status_of(failure)
    replaced = disposition in (SUPERSEDE, OVERWRITE, OVERWRITE_IF)
    return _opened(thread, result, block, handle, (OVERWRITTEN if replaced else OPENED) if there else CREATED)


@api("NTSTATUS NtCreateFile(HANDLE *file, ACCESS_MASK access, LPVOID attributes, LPVOID block, LARGE_INTEGER *size,"
     " ULONG bits, ULONG share, ULONG disposition, ULONG options, LPVOID extended, ULONG extended_size)", "ntdll",
     note=files.SHARING_NOTE)  # fmt: skip
def nt_create_file(
    thread: Thread, file: int, access: int, attributes: int, block: int, size: int, bits: int, share: int,
    disposition: int, options: int, extended: int, extended_size: int,
) -> int:  # fmt: skip
    """Open or make a file, directory, pipe's end or device."""
    return _create(thread, file, access, attributes, block, bits, share, disposition, options)


@api("NTSTATUS NtOpenFile(HANDLE *file, ACCESS_MASK access, LPVOID attributes, LPVOID block, ULONG share,"
     " ULONG options)", "ntdll", note=files.SHARING_NOTE)  # fmt: skip
def nt_open_file(thread: Thread, file: int, access: int, attributes: int, block: int, share: int, options: int) -> int:
    """Open what is there."""
    return _create(thread, file, access, attributes, block, 0, share, OPEN, options)


@api("NTSTATUS NtCreateNamedPipeFile(HANDLE *pipe, ULONG access, LPVOID attributes, LPVOID block, ULONG share,"
     " ULONG disposition, ULONG options, ULONG kind, ULONG reading, ULONG completion, ULONG limit, ULONG in_size,"
     " ULONG out_size, LARGE_INTEGER *timeout)", "ntdll")  # fmt: skip
def nt_create_named_pipe_file(
    thread: Thread, pipe: int, access: int, attributes: int, block: int, share: int, disposition: int, options: int,
    kind: int, reading: int, completion: int, limit: int, in_size: int, out_size: int, timeout: int,
) -> int:  # fmt: skip
    """A server's end of a named pipe; without a name, of one that only its handle can be opened through."""
    root, name, inherit = read_name(thread, attributes)
    if isinstance(thread.process.handles.get(root), PipeRoot):
        name = name or pipes.anonymous_name(thread.process)
    else:
        name = pipes.name_of(name) or ""
    # What the client may do, share tells: who lets it write reads.
    mode = (pipes.INBOUND if share & 2 else 0) | (pipes.OUTBOUND if share & 1 else 0)
    mode |= 0 if options & SYNCHRONOUS else pipes.OVERLAPPED
    pipe_mode = (pipes.TYPE_MESSAGE if kind else 0) | (pipes.NO_WAIT if completion else 0)
    handle = pipes.create(thread, name, mode, pipe_mode, min(limit, pipes.UNLIMITED), inheritable=inherit)
    if handle == INVALID:
        return status_of(thread.last_error)
    return _opened(thread, pipe, block, handle, CREATED)


def _information(thread: Thread, opened: File, status: os.stat_result, kind: int) -> bytes | None:
    times, value = file_information.times(status), file_information.attributes(status)
    allocated = status.st_blocks * 512
    standing = os.lseek(opened.fd, 0, os.SEEK_CUR) if kind in (POSITION, ALL) and opened.kind == TYPE_DISK else 0
    mode = 0 if opened.overlapped else 0x20
    if kind == INTERNAL:
        return struct.pack("<Q", status.st_ino)
    if kind in (EXTENDED_ATTRIBUTES, ACCESS):
        return struct.pack("<I", opened.access if kind == ACCESS else 0)
    if kind == POSITION:
        return struct.pack("<Q", standing)
    if kind == MODE:
        return struct.pack("<I", mode)
    if kind == NETWORK_OPEN:
        return struct.pack("<6QII", *times, allocated, status.st_size, value, 0)
    if kind == PIPE:
        return struct.pack("<II", opened.messages, 0) if opened.kind == file_objects.TYPE_PIPE else None
    if kind == ALL:
        parts = [file_information.information(opened, status, each) or b"" for each in (0, 1)]
        name = file_information.information(opened, status, file_information.NAME) or b""
        middle = struct.pack("<QIIQII", status.st_ino, 0, opened.access, standing, mode, 0)
        return b"".join(parts) + middle + name
    same = SAME_KINDS.get(kind)
    return None if same is None else file_information.information(opened, status, same)


@api("NTSTATUS NtQueryInformationFile(HANDLE file, LPVOID block, LPVOID data, ULONG size, int kind)", "ntdll")
def nt_query_information_file(thread: Thread, file: int, block: int, data: int, size: int, kind: int) -> int:
    """One of many structures; of a name that does not fit, its beginning."""
    opened = file_objects.of(thread, file)
    if opened is None:
        return ntstatus.INVALID_HANDLE
    try:
        stored = _information(thread, opened, os.fstat(opened.fd), kind)
    except OSError:  # a handle of a link itself has no position
        return ntstatus.INVALID_PARAMETER
    if stored is None:
        return ntstatus.INVALID_INFO_CLASS
    if len(stored) > size:
        if kind not in (9, ALL) or size < 8:
            return ntstatus.INFO_LENGTH_MISMATCH
        thread.memory.write(data, stored[:size])
        return _finish(thread, block, ntstatus.BUFFER_OVERFLOW, size)
    thread.memory.write(data, stored)
    return _finish(thread, block, 0, len(stored))


@api("NTSTATUS NtSetInformationFile(HANDLE file, LPVOID block, LPVOID data, ULONG size, int kind)", "ntdll")
def nt_set_information_file(thread: Thread, file: int, block: int, data: int, size: int, kind: int) -> int:
    """Times, size, position, name, deletion."""
    opened = file_objects.of(thread, file)
    if opened is None:
        return ntstatus.INVALID_HANDLE
    if kind == POSITION:
        if size < 8:
            return ntstatus.INFO_LENGTH_MISMATCH
        try:
            os.lseek(opened.fd, min(thread.memory.u64(data), (1 << 63) - 1), os.SEEK_SET)
        except OSError:
            return ntstatus.INVALID_PARAMETER
        return _finish(thread, block, 0)
    if kind == PIPE:
        if isinstance(opened, pipes.NamedPipe) and size >= 8:
            opened.no_wait = bool(thread.memory.u32(data + 4))
        return _finish(thread, block, 0) if opened.kind == file_objects.TYPE_PIPE else ntstatus.INVALID_PARAMETER
    if kind not in SAME_KINDS:
        return ntstatus.INVALID_INFO_CLASS
    error = file_changes.change(thread, opened, SAME_KINDS[kind], data, size)
    return status_of(error) if error else _finish(thread, block, 0)


def _attributes(thread: Thread, attributes: int, data: int, *, full: bool) -> int:
    root, name, _ = read_name(thread, attributes)
    try:
        path = host_path(thread, root, name)
        status = os.lstat(path)
    except paths.BadPath as bad:
        return status_of(bad.error)
    except OSError as error:
        return status_of(paths.error_of(error, path))
    value, times = file_information.attributes_at(path, status), file_information.times(status)
    if full:
        stored = struct.pack("<6QII", *times, status.st_blocks * 512, status.st_size, value, 0)
    else:
        stored = struct.pack("<4QII", *times, value, 0)
    thread.memory.write(data, stored)
    return 0


@api("NTSTATUS NtQueryAttributesFile(LPVOID attributes, LPVOID data)", "ntdll")
def nt_query_attributes_file(thread: Thread, attributes: int, data: int) -> int:
    """FILE_BASIC_INFORMATION by name."""
    return _attributes(thread, attributes, data, full=False)


@api("NTSTATUS NtQueryFullAttributesFile(LPVOID attributes, LPVOID data)", "ntdll")
def nt_query_full_attributes_file(thread: Thread, attributes: int, data: int) -> int:
    """FILE_NETWORK_OPEN_INFORMATION by name."""
    return _attributes(thread, attributes, data, full=True)


@api("NTSTATUS NtDeleteFile(LPVOID attributes)", "ntdll")
def nt_delete_file(thread: Thread, attributes: int) -> int:
    """By name."""
    root, name, _ = read_name(thread, attributes)
    path = ""
    try:
        path = host_path(thread, root, name)
        (os.rmdir if os.path.isdir(path) and not os.path.islink(path) else os.unlink)(path)
    except paths.BadPath as bad:
        return status_of(bad.error)
    except OSError as error:
        return status_of(paths.error_of(error, path))
    return 0


def _list(
    thread: Thread, file: int, block: int, data: int, size: int, kind: int, pattern: int, *, single: bool, restart: bool
) -> int:
    opened = file_objects.of(thread, file)
    if opened is None:
        return ntstatus.INVALID_HANDLE
    if kind not in DIRECTORY_KINDS:
        return ntstatus.INVALID_INFO_CLASS
    first = opened.listing is None or restart
    try:
        if first:
            memory, expression = thread.memory, "*"
            if pattern and memory.u16(pattern):
                expression = from_utf16(memory.read(memory.u64(pattern + 8), memory.u16(pattern)))
            opened.listing = Search(opened.path, expression)
    except NotADirectoryError:
        return ntstatus.INVALID_PARAMETER
    except OSError as error:
        return status_of(errors.of_errno(error.errno or 0))
    stored = pack(opened.listing, kind, size, single=single)
    if stored is None:
        return ntstatus.BUFFER_OVERFLOW
    if not stored:
        return 0xC000_000F if first else ntstatus.NO_MORE_FILES  # STATUS_NO_SUCH_FILE
    thread.memory.write(data, stored)
    return _finish(thread, block, 0, len(stored))


@api("NTSTATUS NtQueryDirectoryFile(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block,"
     " LPVOID data, ULONG size, int kind, BOOLEAN single, LPVOID pattern, BOOLEAN restart)", "ntdll")  # fmt: skip
def nt_query_directory_file(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, data: int, size: int, kind: int,
    single: int, pattern: int, restart: int,
) -> int:  # fmt: skip
    """Entries of a directory, as many as fit."""
    return _list(thread, file, block, data, size, kind, pattern, single=bool(single), restart=bool(restart))


@api("NTSTATUS NtQueryDirectoryFileEx(HANDLE file, HANDLE event, LPVOID routine, LPVOID context, LPVOID block,"
     " LPVOID data, ULONG size, int kind, ULONG flags, LPVOID pattern)", "ntdll")  # fmt: skip
def nt_query_directory_file_ex(
    thread: Thread, file: int, event: int, routine: int, context: int, block: int, data: int, size: int, kind: int,
    flags: int, pattern: int,
) -> int:  # fmt: skip
    """The same with flags."""
    single, restart = bool(flags & SINGLE_ENTRY), bool(flags & RESTART_SCAN)
    return _list(thread, file, block, data, size, kind, pattern, single=single, restart=restart)


@api("NTSTATUS NtFlushBuffersFile(HANDLE file, LPVOID block)", "ntdll")
def nt_flush_buffers_file(thread: Thread, file: int, block: int) -> int:
    """To the disk, where it is on one."""
    opened = file_objects.of(thread, file)
    if opened is None:
        return ntstatus.INVALID_HANDLE
    if opened.kind == TYPE_DISK:
        try:
            os.fsync(opened.fd)
        except OSError as error:
            return status_of(errors.of_errno(error.errno or 0))
    return _finish(thread, block, 0)

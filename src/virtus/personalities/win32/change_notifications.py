"""Being told of changes in a directory: the host's inotify as records of changes, or as a handle to wait for.

(Microsoft: ReadDirectoryChangesW, FindFirstChangeNotification; Linux: inotify(7).) Of a tree, directories that are
there at the start are watched, and those that appear later from then on.
"""

import ctypes
import os
import struct
from typing import Final

from virtus.personalities.win32 import completion, descriptors, errors, file_objects, paths
from virtus.personalities.win32.code_pages import utf16
from virtus.personalities.win32.file_objects import INVALID, ready
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text

# inotify(7)
IN_MODIFY, IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 2, 4, 0x40, 0x80, 0x100, 0x200
IN_ISDIR, IN_Q_OVERFLOW, IN_NONBLOCK, IN_CLOEXEC = 0x4000_0000, 0x4000, 0o4000, 0o2000000
EVENT: Final = struct.Struct("iIII")
# FILE_NOTIFY_CHANGE_*
CHANGE_FILE_NAME, CHANGE_DIR_NAME, CHANGE_ATTRIBUTES, CHANGE_SIZE, CHANGE_LAST_WRITE = 1, 2, 4, 8, 0x10
ADDED, REMOVED, MODIFIED, RENAMED_FROM, RENAMED_TO = 1, 2, 3, 4, 5
ACTIONS: Final = {IN_CREATE: ADDED, IN_DELETE: REMOVED, IN_MODIFY: MODIFIED, IN_ATTRIB: MODIFIED,
                  IN_MOVED_FROM: RENAMED_FROM, IN_MOVED_TO: RENAMED_TO}  # fmt: skip
NAMES: Final = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO
MOST_WATCHES: Final = 8192
ALIGNMENT: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """One directory, or tree, that is watched from now on. Raises OSError."""

    def __init__(self, directory: str, mask: int, *, tree: bool) -> None:
        self.fd = _libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "inotify")
        self.directory, self.mask, self.tree = directory, mask, tree
        self._places: dict[int, str] = {}
        self._add("")

    def _add(self, place: str) -> None:
        """Watch a directory by its path below the first, and those in it."""
        path = os.path.join(self.directory, place)
        if len(self._places) >= MOST_WATCHES:
            return
        number = _libc.inotify_add_watch(self.fd, os.fsencode(path), self.mask | (NAMES if self.tree else 0))
        if number < 0:
            if not place:
                number = ctypes.get_errno()
                self.close()
                raise OSError(number, "inotify")
            return  # it has gone meanwhile
        self._places[number] = place
        if self.tree:
            try:
                inside = [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
            except OSError:
                return
            for name in inside:
                self._add(os.path.join(place, name))

    def changes(self) -> list[tuple[int, str]] | None:
        """What has happened since: actions and names; None where it was too much to keep."""
        found: list[tuple[int, str]] = []
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return found
        place = 0
        while place < len(data):
            number, mask, _, length = EVENT.unpack_from(data, place)
            name = os.fsdecode(data[place + EVENT.size : place + EVENT.size + length].rstrip(b"\0"))
            place += EVENT.size + length
            if mask & IN_Q_OVERFLOW:
                return None
            inside = os.path.join(self._places.get(number, ""), name)
            if self.tree and mask & IN_ISDIR and mask & (IN_CREATE | IN_MOVED_TO):
                self._add(inside)
            action = next((action for bit, action in ACTIONS.items() if mask & bit & self.mask), 0)
            if action and name and (not found or found[-1] != (action, inside)):
                found.append((action, inside.replace("/", "\\")))
        return found

    def close(self) -> None:
        """Watch no more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Notification(Watch):
    """A watch as a handle: signalled from a change on, until the next is asked for."""

    changed = False
    handles = 0

    def signalled(self, thread: Thread) -> bool:
        """Whether something has changed."""
        if not self.changed and ready(self.fd, write=False):
            self.changed = self.changes() != []
        return self.changed

    def acquire(self, thread: Thread) -> bool | None:
        """It stays so."""
        return None

    def closed(self) -> None:
        """Its handle is closed."""
        self.close()


def mask_of(wanted: int) -> int:
    """inotify's events for FILE_NOTIFY_CHANGE_*; 0 for none."""
    mask = NAMES if wanted & (CHANGE_FILE_NAME | CHANGE_DIR_NAME) else 0
    if wanted & (CHANGE_SIZE | CHANGE_LAST_WRITE):
        mask |= IN_MODIFY
    return mask | (IN_ATTRIB if wanted & CHANGE_ATTRIBUTES else 0)


def pack(changes: list[tuple[int, str]], size: int) -> bytes:
    """FILE_NOTIFY_INFORMATION records; nothing where they do not fit, which tells the caller to look itself."""
    result, last = bytearray(), -1
    for action, name in changes:
        encoded = utf16(name)
        start = -(-len(result) // ALIGNMENT) * ALIGNMENT
        result += bytes(start - len(result))
        if last >= 0:
            struct.pack_into("<I", result, last, start - last)
        last = start
        result += struct.pack("<III", 0, action, len(encoded)) + encoded
    return bytes(result) if len(result) <= size else b""


@api("BOOL ReadDirectoryChangesW(HANDLE directory, LPVOID buffer, DWORD size, BOOL tree, DWORD filter, DWORD* count,"
     " LPOVERLAPPED overlapped, FARPROC routine)", "kernel32", "kernelbase",
     note="times of access and creation, security: not told")  # fmt: skip
def read_directory_changes_w(
    thread: Thread, directory: int, buffer: int, size: int, tree: int, filter: int, count: int, overlapped: int,
    routine: int,
) -> int:  # fmt: skip
    """Changes since the last call with the handle, or the next ones."""
    opened = file_objects.of(thread, directory)
    if opened is None:
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    if not os.path.isdir(opened.path):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    watch = opened.listing if isinstance(opened.listing, Watch) else None
    if watch is None:
        try:
            watch = opened.listing = Watch(opened.path, mask_of(filter), tree=bool(tree))
        except OSError as error:
            return thread.fail(errors.of_errno(error.errno or 0))

    def attempt() -> tuple[int, int] | None:
        if not ready(watch.fd, write=False):
            return None
        changes = watch.changes()
        if changes == []:
            return None
        data = pack(changes or [], size)
        thread.memory.write(buffer, data)
        return len(data), 0

    if overlapped and opened.overlapped:

        def call(thread: Thread, error: int, count: int) -> None:
            thread.engine.call(routine, error, count, overlapped)

        request = completion.of_overlapped(thread, overlapped, call if routine else None)
        begun = completion.start(thread, opened, request, attempt, write=False, fd=watch.fd)
        going_on = begun in (0, errors.ERROR_IO_PENDING)
        thread.last_error = 0 if going_on else begun
        return int(going_on)
    while (done := attempt()) is None:
        descriptors.wait(thread, watch.fd, write=False)
    if count:
        thread.memory.set_u32(count, done[0])
    return 1


def _first(thread: Thread, text: Text, name: int, tree: int, wanted: int) -> int:
    mask = mask_of(wanted)
    if not mask:
        return thread.fail(errors.ERROR_INVALID_PARAMETER, INVALID)
    path = ""
    try:
        path = paths.to_host(thread.process, text.read(thread.memory, name))
        handle: int = thread.process.handles.add(Notification(path, mask, tree=bool(tree)))
    except paths.BadPath as bad:
        return thread.fail(bad.error, INVALID)
    except OSError as error:
        return thread.fail(paths.error_of(error, path), INVALID)
    return handle


@api("HANDLE FindFirstChangeNotificationW(LPCWSTR name, BOOL tree, DWORD filter)", "kernel32", "kernelbase")
def find_first_change_notification_w(thread: Thread, name: int, tree: int, filter: int) -> int:
    """A handle that is signalled when something changes."""
    return _first(thread, WIDE, name, tree, filter)


@api("HANDLE FindFirstChangeNotificationA(LPCSTR name, BOOL tree, DWORD filter)", "kernel32", "kernelbase")
def find_first_change_notification_a(thread: Thread, name: int, tree: int, filter: int) -> int:
    """A handle that is signalled when something changes."""
    return _first(thread, ANSI, name, tree, filter)


@api("BOOL FindNextChangeNotification(HANDLE change)", "kernel32", "kernelbase")
def find_next_change_notification(thread: Thread, change: int) -> int:
    """Be signalled by the next change."""
    found = thread.process.handles.get(change)
    if not isinstance(found, Notification):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    found.changed = False
    return 1


@api("BOOL FindCloseChangeNotification(HANDLE change)", "kernel32", "kernelbase")
def find_close_change_notification(thread: Thread, change: int) -> int:
    """Watch no more."""
    found = thread.process.handles.get(change)
    if not isinstance(found, Notification):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    thread.process.handles.close(change)
    found.close()
    return 1

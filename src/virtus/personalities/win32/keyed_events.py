"""Keyed events: the native rendezvous of two threads that name the same key."""

from virtus.personalities.win32 import ntstatus, state
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api
from virtus.personalities.win32.waiting import Waitable, lock, native_deadline, object_of, wait


class KeyedEvent:
    """Where one thread releases another that waits with the same key; both wait for each other."""

    def __init__(self) -> None:
        self.waiting: dict[int, list[object]] = {}
        self.releasing: dict[int, list[object]] = {}


def _meet(
    thread: Thread, mine: dict[int, list[object]], theirs: dict[int, list[object]], key: int,
    alertable: int, timeout: int,
) -> int:  # fmt: skip
    """Pair with one of the other side, now or when one comes."""
    token = object()
    with lock(thread.process):
        met_at_once = bool(theirs.get(key))
        if met_at_once:
            theirs[key].pop(0)
        else:
            mine.setdefault(key, []).append(token)
    if met_at_once:
        thread.engine.wake()
        return 0

    class Met:
        def signalled(self, thread: Thread) -> bool:
            return token not in mine.get(key, ())

        def acquire(self, thread: Thread) -> None:
            return None

    met: Waitable = Met()
    result = wait(thread, (met,), native_deadline(thread, timeout), alertable=bool(alertable))
    with lock(thread.process):
        if token in mine.get(key, ()):
            mine[key].remove(token)
        elif result:
            result = 0
        if not mine.get(key):
            mine.pop(key, None)
    return result


@api("NTSTATUS NtCreateKeyedEvent(HANDLE *result, ACCESS_MASK access, LPVOID attributes, ULONG flags)", "ntdll")
def nt_create_keyed_event(thread: Thread, result: int, access: int, attributes: int, flags: int) -> int:
    """A keyed event."""
    thread.memory.set_u64(result, thread.process.handles.add(KeyedEvent()))
    return 0


def _keyed(thread: Thread, handle: int) -> KeyedEvent | None:
    """A null handle is the process's own keyed event."""
    found = object_of(thread, handle) if handle else state.of(thread.process, KeyedEvent)
    return found if isinstance(found, KeyedEvent) else None


@api("NTSTATUS NtWaitForKeyedEvent(HANDLE event, LPVOID key, BOOLEAN alertable, LARGE_INTEGER *timeout)", "ntdll")
def nt_wait_for_keyed_event(thread: Thread, event: int, key: int, alertable: int, timeout: int) -> int:
    """Until one releases the key."""
    found = _keyed(thread, event)
    if found is None or key & 1:
        return ntstatus.INVALID_HANDLE if found is None else ntstatus.INVALID_PARAMETER_2
    return _meet(thread, found.waiting, found.releasing, key, alertable, timeout)


@api("NTSTATUS NtReleaseKeyedEvent(HANDLE event, LPVOID key, BOOLEAN alertable, LARGE_INTEGER *timeout)", "ntdll")
def nt_release_keyed_event(thread: Thread, event: int, key: int, alertable: int, timeout: int) -> int:
    """Release one that waits with the key, or wait for one."""
    found = _keyed(thread, event)
    if found is None or key & 1:
        return ntstatus.INVALID_HANDLE if found is None else ntstatus.INVALID_PARAMETER_2
    return _meet(thread, found.releasing, found.waiting, key, alertable, timeout)

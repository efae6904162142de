"""The native runtime (ntdll's Rtl*): bitmaps, strings, and what C runtimes of Wine ask of it."""

import struct
from typing import Final

from virtus.personalities.win32 import characters, crt_format, heaps, locks, ntstatus, process_accounting
from virtus.personalities.win32 import system_information as system
from virtus.personalities.win32.code_pages import from_utf16, system_decode, system_encode, utf16
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.regions import GRANULARITY, HIGHEST, LOWEST
from virtus.personalities.win32.table import api
from virtus.personalities.win32.time import now
from virtus.personalities.win32.waiting import native_deadline

MOST_BITS: Final = 1 << 24
LONGEST_UNICODE_STRING: Final = 0xFFFE


def _bits(thread: Thread, bitmap: int, start: int, count: int) -> tuple[int, int, int] | None:
    """Where a run of bits lies: address, the bytes as a number, and the mask of the run; None outside the map."""
    size, buffer = thread.memory.u32(bitmap), thread.memory.u64(bitmap + 8)
    if not count or start + count > size or count > MOST_BITS:
        return None
    first, last = start // 8, (start + count + 7) // 8
    number = int.from_bytes(thread.memory.read(buffer + first, last - first), "little")
    return buffer + first, number, ((1 << count) - 1) << start % 8


@api("void RtlInitializeBitMap(LPVOID bitmap, PULONG buffer, ULONG size)", "ntdll")
def rtl_initialize_bit_map(thread: Thread, bitmap: int, buffer: int, size: int) -> None:
    """Of a number of bits, which stay as they are."""
    thread.memory.write(bitmap, struct.pack("<I4xQ", size, buffer))


@api("BOOLEAN RtlAreBitsSet(LPVOID bitmap, ULONG start, ULONG count)", "ntdll")
def rtl_are_bits_set(thread: Thread, bitmap: int, start: int, count: int) -> int:
    """Whether all of a run are set."""
    found = _bits(thread, bitmap, start, count)
    return int(found is not None and found[1] & found[2] == found[2])


@api("BOOLEAN RtlAreBitsClear(LPVOID bitmap, ULONG start, ULONG count)", "ntdll")
def rtl_are_bits_clear(thread: Thread, bitmap: int, start: int, count: int) -> int:
    """Whether none of a run is set."""
    found = _bits(thread, bitmap, start, count)
    return int(found is not None and not found[1] & found[2])


def _change_bits(thread: Thread, bitmap: int, start: int, count: int, *, set: bool) -> None:
    found = _bits(thread, bitmap, start, count)
    if found is not None:
        address, number, mask = found
        size = (mask.bit_length() + 7) // 8
        number = number | mask if set else number & ~mask
        thread.memory.write(address, (number & (1 << 8 * size) - 1).to_bytes(size, "little"))


@api("void RtlSetBits(LPVOID bitmap, ULONG start, ULONG count)", "ntdll")
def rtl_set_bits(thread: Thread, bitmap: int, start: int, count: int) -> None:
    """Set a run."""
    _change_bits(thread, bitmap, start, count, set=True)


@api("void RtlClearBits(LPVOID bitmap, ULONG start, ULONG count)", "ntdll")
def rtl_clear_bits(thread: Thread, bitmap: int, start: int, count: int) -> None:
    """Clear a run."""
    _change_bits(thread, bitmap, start, count, set=False)


@api("NTSTATUS RtlWaitOnAddress(LPVOID address, LPVOID compare, SIZE_T size, LARGE_INTEGER *timeout)", "ntdll")
def rtl_wait_on_address(thread: Thread, address: int, compare: int, size: int, timeout: int) -> int:
    """WaitOnAddress with a native timeout."""
    if size not in (1, 2, 4, 8):
        return ntstatus.INVALID_PARAMETER
    woken = locks.sleep_on(thread, address, compare, size, native_deadline(thread, timeout))
    return 0 if woken else ntstatus.TIMEOUT


@api("void RtlWakeAddressSingle(LPVOID address)", "ntdll")
def rtl_wake_address_single(thread: Thread, address: int) -> None:
    """The first that waits."""
    locks.wake_by_address_single(thread, address)


@api("void RtlWakeAddressAll(LPVOID address)", "ntdll")
def rtl_wake_address_all(thread: Thread, address: int) -> None:
    """All that wait."""
    locks.wake_by_address_all(thread, address)


def read_unicode_string(thread: Thread, address: int) -> str:
    """A UNICODE_STRING: length in bytes, capacity, and where it lies."""
    length, buffer = thread.memory.u16(address), thread.memory.u64(address + 8)
    return from_utf16(thread.memory.read(buffer, length)) if length else ""


@api("void RtlInitUnicodeString(LPVOID target, LPCWSTR source)", "ntdll")
def rtl_init_unicode_string(thread: Thread, target: int, source: int) -> None:
    """Points to a text; one that is too long is cut."""
    size = min(len(utf16(thread.memory.wide(source))), LONGEST_UNICODE_STRING - 2) if source else 0
    thread.memory.write(target, struct.pack("<HH4xQ", size, size + 2 if source else 0, source))


@api("void RtlInitAnsiString(LPVOID target, LPCSTR source)", "ntdll")
def rtl_init_ansi_string(thread: Thread, target: int, source: int) -> None:
    """Points to a text."""
    size = min(len(thread.memory.string(source)), LONGEST_UNICODE_STRING) if source else 0
    thread.memory.write(target, struct.pack("<HH4xQ", size, min(size + 1, 0xFFFF) if source else 0, source))


@api("void RtlFreeUnicodeString(LPVOID text)", "ntdll")
def rtl_free_unicode_string(thread: Thread, text: int) -> None:
    """Of those that were allocated here."""
    heaps.free(thread.process, thread.memory.u64(text + 8))
    thread.memory.write(text, bytes(16))


@api("LONG RtlCompareUnicodeString(LPVOID one, LPVOID other, BOOLEAN ignore_case)", "ntdll")
def rtl_compare_unicode_string(thread: Thread, one: int, other: int, ignore_case: int) -> int:
    """By UTF-16 units."""
    first, second = read_unicode_string(thread, one), read_unicode_string(thread, other)
    if ignore_case:
        first, second = characters.to_upper(first), characters.to_upper(second)
    keys = first.encode("utf-16-be", "surrogatepass"), second.encode("utf-16-be", "surrogatepass")
    return (keys[0] > keys[1]) - (keys[0] < keys[1])


@api("BOOLEAN RtlEqualUnicodeString(LPVOID one, LPVOID other, BOOLEAN ignore_case)", "ntdll")
def rtl_equal_unicode_string(thread: Thread, one: int, other: int, ignore_case: int) -> int:
    """Whether they are the same."""
    return int(rtl_compare_unicode_string(thread, one, other, ignore_case) == 0)


def _converted(thread: Thread, data: bytes, target: int, capacity: int, length: int) -> int:
    if length:
        thread.memory.set_u32(length, min(len(data), capacity) if target else len(data))
    if target:
        thread.memory.write(target, data[:capacity])
    return ntstatus.BUFFER_TOO_SMALL if target and len(data) > capacity else 0


@api("NTSTATUS RtlUnicodeToUTF8N(LPSTR target, ULONG capacity, PULONG length, LPCWSTR source, ULONG size)", "ntdll")
def rtl_unicode_to_utf8_n(thread: Thread, target: int, capacity: int, length: int, source: int, size: int) -> int:
    """Sizes are of bytes."""
    return _converted(thread, system_encode(from_utf16(thread.memory.read(source, size))), target, capacity, length)


@api("NTSTATUS RtlUTF8ToUnicodeN(LPWSTR target, ULONG capacity, PULONG length, LPCSTR source, ULONG size)", "ntdll")
def rtl_utf8_to_unicode_n(thread: Thread, target: int, capacity: int, length: int, source: int, size: int) -> int:
    """Sizes are of bytes."""
    return _converted(thread, utf16(system_decode(thread.memory.read(source, size))), target, capacity, length)


@api("WCHAR RtlUpcaseUnicodeChar(WCHAR unit)", "ntdll")
def rtl_upcase_unicode_char(thread: Thread, unit: int) -> int:
    """In upper case."""
    return ord(characters.upper(chr(unit)))


@api("ULONG RtlRandomEx(PULONG seed)", "ntdll")
def rtl_random_ex(thread: Thread, seed: int) -> int:
    """Numbers below 2^31 - 1, from a seed that changes: the minimal standard generator of Park and Miller."""
    value = (thread.memory.u32(seed) * 48_271 + 1) % 0x7FFF_FFFF
    thread.memory.set_u32(seed, value)
    return value


@api("ULONG RtlUniform(PULONG seed)", "ntdll")
def rtl_uniform(thread: Thread, seed: int) -> int:
    """The same."""
    return rtl_random_ex(thread, seed)


@api("USHORT RtlCaptureStackBackTrace(ULONG skip, ULONG count, LPVOID *frames, PULONG hash)", "ntdll", "kernel32",
     note="no frames")  # fmt: skip
def rtl_capture_stack_back_trace(thread: Thread, skip: int, count: int, frames: int, hash: int) -> int:
    """None: traces are a wish."""
    if hash:
        thread.memory.set_u32(hash, 0)
    return 0


@api("NTSTATUS RtlGetSystemBootStatus(ULONG kind, LPVOID data, ULONG size, PULONG length)", "ntdll")
def rtl_get_system_boot_status(thread: Thread, kind: int, data: int, size: int, length: int) -> int:
    """Not told."""
    return ntstatus.NOT_SUPPORTED


@api("int _vsnprintf(LPSTR buffer, SIZE_T capacity, LPCSTR format, LPVOID arguments)", "ntdll", "msvcrt")
def vsnprintf(thread: Thread, buffer: int, capacity: int, format: int, arguments: int) -> int:
    """The length, or -1 where it does not fit; a zero only where there is room for it."""

    def take() -> int:
        nonlocal arguments
        arguments += 8
        return thread.memory.u64(arguments - 8)

    data = crt_format.format(thread.memory, thread.memory.string(format), take)
    thread.memory.write(buffer, (data + b"\0")[:capacity])
    return len(data) if len(data) <= capacity else -1


# NtQuerySystemInformation's classes that programs without a driver ask for (winternl.h)
BASIC, PERFORMANCE, TIME_OF_DAY, PROCESSOR_TIMES = 0, 2, 3, 8
TIMER_RESOLUTION: Final = 156_250


@api("NTSTATUS NtQuerySystemInformation(int class, LPVOID buffer, ULONG size, PULONG length)", "ntdll",
     note="classes 0 (basic), 3 (time of day), 8 (processor times)")  # fmt: skip
def nt_query_system_information(thread: Thread, kind: int, buffer: int, size: int, length: int) -> int:
    """Pages, processors, start, times."""
    if kind == BASIC:
        pages = min(system.memory_bytes()[0] // 4096, 0xFFFF_FFFF)
        data = struct.pack(
            "<7I4xQQQB7x", 0, TIMER_RESOLUTION, 4096, pages, 1, pages, GRANULARITY, LOWEST, HIGHEST,
            system.all_processors(), system.processors(),
        )  # fmt: skip
    elif kind == TIME_OF_DAY:
        data = struct.pack("<qqqIIqq", now(), now(), 0, 0, 0, 0, 0)
    elif kind == PROCESSOR_TIMES:
        data = b"".join(struct.pack("<qqqqqI4x", *times) for times in process_accounting.processor_times())
    else:
        return ntstatus.INVALID_INFO_CLASS
    if length:
        thread.memory.set_u32(length, len(data))
    if size < len(data):
        return ntstatus.INFO_LENGTH_MISMATCH
    thread.memory.write(buffer, data)
    return 0


@api("NTSTATUS NtQueryInformationProcess(HANDLE process, int class, LPVOID buffer, ULONG size, PULONG length)",
     "ntdll", note="of the caller's own process; classes 0, 7, 26, 27, 30, 31, 37")  # fmt: skip
def nt_query_information_process(thread: Thread, process: int, kind: int, buffer: int, size: int, length: int) -> int:
    """Its block and number, that nobody debugs it, that it is no 32-bit one, and its cookie."""
    own = thread.process
    if process != (1 << 64) - 1 and own.handles.get(process) is not own:
        return ntstatus.ACCESS_DENIED
    if kind == 0:
        data = struct.pack("<I4xQQi4xQQ", 259, own.peb, 3, 8, own.ident, 1)
    elif kind in (7, 26, 30):
        data = bytes(8)
    elif kind == 31:
        data = struct.pack("<I", 1)
    elif kind == 37:
        data = struct.pack("<I", 0x5A5A_1234)
    else:
        return ntstatus.INVALID_INFO_CLASS
    if length:
        thread.memory.set_u32(length, len(data))
    if size < len(data):
        return ntstatus.INFO_LENGTH_MISMATCH
    thread.memory.write(buffer, data)
    return 0


@api("NTSTATUS NtSetInformationProcess(HANDLE process, int class, LPVOID buffer, ULONG size)", "ntdll",
     note="changes nothing")  # fmt: skip
def nt_set_information_process(thread: Thread, process: int, kind: int, buffer: int, size: int) -> int:
    """Priorities and power: wishes."""
    return 0


@api("NTSTATUS NtSetInformationThread(HANDLE target, int class, LPVOID buffer, ULONG size)", "ntdll",
     note="changes nothing")  # fmt: skip
def nt_set_information_thread(thread: Thread, target: int, kind: int, buffer: int, size: int) -> int:
    """Priorities and names: wishes."""
    return 0

"""What programs ask of the system: version, processors, memory, names, directories, error modes, power."""

import os
import struct
import time
from collections.abc import Callable
from typing import Final

from virtus.personalities.win32 import errors, state
from virtus.personalities.win32.environment import value_of
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.regions import GRANULARITY, HIGHEST, LOWEST, PAGE
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give, give_counted

MAJOR, MINOR, BUILD = 10, 0, 19045
"""Windows 10 22H2."""
PLATFORM_NT, SUITE_SINGLE_USER, PRODUCT_WORKSTATION, PRODUCT_PROFESSIONAL = 2, 0x100, 1, 0x30
PROCESSOR_AMD64: Final = 9
PROCESSOR_TYPE_AMD64: Final = 8664
SHARED_DATA_FEATURES: Final = 0x7FFE_0274
"""KUSER_SHARED_DATA.ProcessorFeatures, where IsProcessorFeaturePresent looks too."""
PROCESSOR_FEATURES: Final = 64
MASK_32: Final = 0xFFFF_FFFF
WINDOWS_DIRECTORY, SYSTEM_DIRECTORY = "C:\\Windows", "C:\\Windows\\System32"
LONGEST_NETBIOS_NAME: Final = 15


def processors() -> int:
    """How many processors the guest may use; a group has at most 64."""
    return min(64, len(os.sched_getaffinity(0)))


def all_processors() -> int:
    """The mask of them."""
    return (1 << processors()) - 1


def memory_bytes() -> tuple[int, int]:
    """Physical memory: in all, and what is available (proc(5), meminfo)."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    available = int(line.split()[1]) * 1024
    except OSError:
        pass  # without /proc what sysconf says has to do
    return total, min(available, total)


@api("void GetSystemInfo(LPVOID result)", "kernel32", "kernelbase")
def get_system_info(thread: Thread, result: int) -> None:
    """Pages, addresses and processors."""
    count = processors()
    data = struct.pack(
        "<HHIQQQIIIHH", PROCESSOR_AMD64, 0, PAGE, LOWEST, HIGHEST, all_processors(), count, PROCESSOR_TYPE_AMD64,
        GRANULARITY, 6, 0,
    )  # fmt: skip
    thread.memory.write(result, data)


@api("void GetNativeSystemInfo(LPVOID result)", "kernel32", "kernelbase")
def get_native_system_info(thread: Thread, result: int) -> None:
    """The same for a 64-bit program."""
    get_system_info(thread, result)


@api("DWORD GetVersion(void)", "kernel32", "kernelbase")
def get_version(thread: Thread) -> int:
    """Major, minor, build."""
    return BUILD << 16 | MINOR << 8 | MAJOR


def _version(thread: Thread, text: Text, result: int) -> None:
    """OSVERSIONINFO(EX), of which the caller tells the size."""
    head, tail = 20 + 128 * text.unit, 8
    data = struct.pack("<IIII", MAJOR, MINOR, BUILD, PLATFORM_NT) + bytes(128 * text.unit)
    if thread.memory.u32(result) >= head + tail:
        data += struct.pack("<HHHBB", 0, 0, SUITE_SINGLE_USER, PRODUCT_WORKSTATION, 0)
    thread.memory.write(result + 4, data)


@api("BOOL GetVersionExW(LPVOID result)", "kernel32", "kernelbase")
def get_version_ex_w(thread: Thread, result: int) -> int:
    """ERROR_INSUFFICIENT_BUFFER for another structure."""
    if thread.memory.u32(result) not in (276, 284):
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    _version(thread, WIDE, result)
    return 1


@api("BOOL GetVersionExA(LPVOID result)", "kernel32", "kernelbase")
def get_version_ex_a(thread: Thread, result: int) -> int:
    """ERROR_INSUFFICIENT_BUFFER for another structure."""
    if thread.memory.u32(result) not in (148, 156):
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    _version(thread, ANSI, result)
    return 1


@api("NTSTATUS RtlGetVersion(LPVOID result)", "ntdll")
def rtl_get_version(thread: Thread, result: int) -> int:
    """The same natively."""
    _version(thread, WIDE, result)
    return 0


@api("void RtlGetNtVersionNumbers(LPDWORD major, LPDWORD minor, LPDWORD build)", "ntdll")
def rtl_get_nt_version_numbers(thread: Thread, major: int, minor: int, build: int) -> None:
    """The build has a mark for a free one."""
    for address, value in ((major, MAJOR), (minor, MINOR), (build, 0xF000_0000 | BUILD)):
        if address:
            thread.memory.set_u32(address, value)


# VerifyVersionInfo: what to compare (VER_*), and how, in three bits each of the mask (winnt.h)
VERSION_FIELDS: Final = {0x02: (4, 4), 0x01: (8, 4), 0x04: (12, 4), 0x08: (16, 4), 0x20: (276, 2), 0x10: (278, 2),
                         0x40: (280, 2), 0x80: (282, 1)}  # fmt: skip
COMPARISONS: Final[dict[int, Callable[[int, int], bool]]] = {
    1: lambda own, wanted: own == wanted,
    2: lambda own, wanted: own > wanted,
    3: lambda own, wanted: own >= wanted,
    4: lambda own, wanted: own < wanted,
    5: lambda own, wanted: own <= wanted,
    6: lambda own, wanted: own & wanted == wanted,
    7: lambda own, wanted: bool(own & wanted),
}


@api("ULONGLONG VerSetConditionMask(ULONGLONG mask, DWORD kind, BYTE condition)", "kernel32", "ntdll", "kernelbase")
def ver_set_condition_mask(thread: Thread, mask: int, kind: int, condition: int) -> int:
    """Add a comparison for each field that is named."""
    for bit in range(8):
        if kind >> bit & 1:
            mask |= (condition & 7) << 3 * bit
    return mask


def verify_version(wanted: dict[int, int], mask: int) -> bool:
    """Whether the version meets conditions on fields, by VER_* bit."""
    own = {0x02: MAJOR, 0x01: MINOR, 0x04: BUILD, 0x08: PLATFORM_NT, 0x20: 0, 0x10: 0, 0x40: SUITE_SINGLE_USER,
           0x80: PRODUCT_WORKSTATION}  # fmt: skip
    hierarchy = [bit for bit in (0x02, 0x01, 0x20, 0x10) if bit in wanted]
    for bit, value in wanted.items():
        if bit not in hierarchy:
            condition = COMPARISONS.get(mask >> 3 * (bit.bit_length() - 1) & 7)
            if condition is None or not condition(own[bit], value):
                return False
    for bit in hierarchy:
        condition = COMPARISONS.get(mask >> 3 * (bit.bit_length() - 1) & 7)
        if condition is None:
            return False
        if own[bit] != wanted[bit]:  # a greater major version decides, whatever the minor one is
            return condition(own[bit], wanted[bit])
        if bit == hierarchy[-1]:
            return condition(own[bit], wanted[bit])
    return True


def _verify(thread: Thread, information: int, kinds: int, mask: int, unit: int) -> int:
    if not kinds or not mask:
        return thread.fail(errors.ERROR_BAD_ARGUMENTS)
    wanted = {}
    for bit, (offset, size) in VERSION_FIELDS.items():
        if kinds & bit:
            place = information + offset - (128 if unit == 1 and offset > 20 else 0)
            wanted[bit] = int.from_bytes(thread.memory.read(place, size), "little")
    return 1 if verify_version(wanted, mask) else thread.fail(errors.ERROR_OLD_WIN_VERSION)


@api("BOOL VerifyVersionInfoW(LPVOID information, DWORD kinds, DWORDLONG mask)", "kernel32")
def verify_version_info_w(thread: Thread, information: int, kinds: int, mask: int) -> int:
    """ERROR_OLD_WIN_VERSION where a condition is not met."""
    return _verify(thread, information, kinds, mask, 2)


@api("BOOL VerifyVersionInfoA(LPVOID information, DWORD kinds, DWORDLONG mask)", "kernel32")
def verify_version_info_a(thread: Thread, information: int, kinds: int, mask: int) -> int:
    """ERROR_OLD_WIN_VERSION where a condition is not met."""
    return _verify(thread, information, kinds, mask, 1)


@api("BOOL GetProductInfo(DWORD major, DWORD minor, DWORD service_major, DWORD service_minor, LPDWORD result)",
     "kernel32", "kernelbase")  # fmt: skip
def get_product_info(
    thread: Thread, major: int, minor: int, service_major: int, service_minor: int, result: int
) -> int:
    """Professional."""
    thread.memory.set_u32(result, PRODUCT_PROFESSIONAL)
    return 1


@api("BOOL IsProcessorFeaturePresent(DWORD feature)", "kernel32", "kernelbase")
def is_processor_feature_present(thread: Thread, feature: int) -> int:
    """What the page that is shared with the system says."""
    return thread.memory.read(SHARED_DATA_FEATURES + feature, 1)[0] if feature < PROCESSOR_FEATURES else 0


@api("ULONGLONG GetEnabledXStateFeatures(void)", "kernel32", "kernelbase")
def get_enabled_x_state_features(thread: Thread) -> int:
    """x87, SSE and AVX."""
    return 7


@api("BOOL GlobalMemoryStatusEx(LPVOID result)", "kernel32", "kernelbase")
def global_memory_status_ex(thread: Thread, result: int) -> int:
    """The host's memory, and all addresses."""
    if thread.memory.u32(result) != 64:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    total, available = memory_bytes()
    used = 100 - 100 * available // max(1, total)
    data = struct.pack("<IQQQQQQQ", used, total, available, total, available, HIGHEST + 1, HIGHEST - total, 0)
    thread.memory.write(result + 4, data)
    return 1


@api("BOOL GetPhysicallyInstalledSystemMemory(PULONGLONG result)", "kernel32", "kernelbase")
def get_physically_installed_system_memory(thread: Thread, result: int) -> int:
    """In KiB."""
    thread.memory.set_u64(result, memory_bytes()[0] // 1024)
    return 1


@api("BOOL IsWow64Process(HANDLE process, BOOL *result)", "kernel32", "kernelbase")
def is_wow64_process(thread: Thread, process: int, result: int) -> int:
    """Never: programs are of 64 bits."""
    thread.memory.set_u32(result, 0)
    return 1


@api("BOOL IsWow64Process2(HANDLE process, PUSHORT guest, PUSHORT native)", "kernel32", "kernelbase")
def is_wow64_process2(thread: Thread, process: int, guest: int, native: int) -> int:
    """IMAGE_FILE_MACHINE_AMD64, natively."""
    thread.memory.set_u16(guest, 0)
    if native:
        thread.memory.set_u16(native, 0x8664)
    return 1


def _directory(thread: Thread, text: Text, buffer: int, capacity: int, path: str) -> int:
    return give(thread.memory, text, buffer, capacity, path)


@api("UINT GetSystemDirectoryW(LPWSTR buffer, UINT capacity)", "kernel32", "kernelbase")
def get_system_directory_w(thread: Thread, buffer: int, capacity: int) -> int:
    r"""C:\Windows\System32."""
    return _directory(thread, WIDE, buffer, capacity, SYSTEM_DIRECTORY)


@api("UINT GetSystemDirectoryA(LPSTR buffer, UINT capacity)", "kernel32", "kernelbase")
def get_system_directory_a(thread: Thread, buffer: int, capacity: int) -> int:
    r"""C:\Windows\System32."""
    return _directory(thread, ANSI, buffer, capacity, SYSTEM_DIRECTORY)


@api("UINT GetWindowsDirectoryW(LPWSTR buffer, UINT capacity)", "kernel32", "kernelbase")
def get_windows_directory_w(thread: Thread, buffer: int, capacity: int) -> int:
    r"""C:\Windows."""
    return _directory(thread, WIDE, buffer, capacity, WINDOWS_DIRECTORY)


@api("UINT GetWindowsDirectoryA(LPSTR buffer, UINT capacity)", "kernel32", "kernelbase")
def get_windows_directory_a(thread: Thread, buffer: int, capacity: int) -> int:
    r"""C:\Windows."""
    return _directory(thread, ANSI, buffer, capacity, WINDOWS_DIRECTORY)


@api("UINT GetSystemWindowsDirectoryW(LPWSTR buffer, UINT capacity)", "kernel32", "kernelbase")
def get_system_windows_directory_w(thread: Thread, buffer: int, capacity: int) -> int:
    r"""C:\Windows."""
    return _directory(thread, WIDE, buffer, capacity, WINDOWS_DIRECTORY)


def computer_name(*, dns: bool = False) -> str:
    """The host's name: its first part, in capitals and cut as NetBIOS has it unless `dns`."""
    name = os.uname().nodename.partition(".")[0]
    return name if dns else name.upper()[:LONGEST_NETBIOS_NAME]


def _computer(thread: Thread, text: Text, kind: int, buffer: int, size: int) -> int:
    names = {0: computer_name(), 4: computer_name(), 1: computer_name(dns=True), 5: computer_name(dns=True),
             2: "", 6: "", 3: computer_name(dns=True), 7: computer_name(dns=True)}  # fmt: skip
    if kind not in names:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    if give_counted(thread.memory, text, buffer, size, names[kind], terminated=False):
        return 1
    return thread.fail(errors.ERROR_MORE_DATA)


@api("BOOL GetComputerNameExW(int kind, LPWSTR buffer, LPDWORD size)", "kernel32", "kernelbase")
def get_computer_name_ex_w(thread: Thread, kind: int, buffer: int, size: int) -> int:
    """One of the host's names."""
    return _computer(thread, WIDE, kind, buffer, size)


@api("BOOL GetComputerNameExA(int kind, LPSTR buffer, LPDWORD size)", "kernel32", "kernelbase")
def get_computer_name_ex_a(thread: Thread, kind: int, buffer: int, size: int) -> int:
    """One of the host's names."""
    return _computer(thread, ANSI, kind, buffer, size)


@api("BOOL GetComputerNameW(LPWSTR buffer, LPDWORD size)", "kernel32")
def get_computer_name_w(thread: Thread, buffer: int, size: int) -> int:
    """The NetBIOS name; ERROR_BUFFER_OVERFLOW."""
    if give_counted(thread.memory, WIDE, buffer, size, computer_name(), terminated=False):
        return 1
    return thread.fail(errors.ERROR_BUFFER_OVERFLOW)


@api("BOOL GetComputerNameA(LPSTR buffer, LPDWORD size)", "kernel32")
def get_computer_name_a(thread: Thread, buffer: int, size: int) -> int:
    """The NetBIOS name; ERROR_BUFFER_OVERFLOW."""
    if give_counted(thread.memory, ANSI, buffer, size, computer_name(), terminated=False):
        return 1
    return thread.fail(errors.ERROR_BUFFER_OVERFLOW)


def user_name(thread: Thread) -> str:
    """What the environment says, as that is what a sandbox shows."""
    process = thread.process
    return value_of(process, "USERNAME") or value_of(process, "USER") or "user"


class ErrorMode:
    """A process's or a thread's error mode, which only the guest looks at."""

    def __init__(self) -> None:
        self.value = 0


@api("UINT SetErrorMode(UINT mode)", "kernel32", "kernelbase")
def set_error_mode(thread: Thread, mode: int) -> int:
    """The mode before. No boxes are ever shown."""
    own = state.of(thread.process, ErrorMode)
    before, own.value = own.value, mode
    return before


@api("UINT GetErrorMode(void)", "kernel32", "kernelbase")
def get_error_mode(thread: Thread) -> int:
    """As set."""
    return state.of(thread.process, ErrorMode).value


@api("BOOL SetThreadErrorMode(DWORD mode, LPDWORD before)", "kernel32", "kernelbase")
def set_thread_error_mode(thread: Thread, mode: int, before: int) -> int:
    """No boxes are ever shown."""
    own = state.of(thread, ErrorMode)
    if before:
        thread.memory.set_u32(before, own.value)
    own.value = mode
    return 1


@api("DWORD GetThreadErrorMode(void)", "kernel32", "kernelbase")
def get_thread_error_mode(thread: Thread) -> int:
    """As set."""
    return state.of(thread, ErrorMode).value


@api("HRESULT WerSetFlags(DWORD flags)", "kernel32", "kernelbase")
def wer_set_flags(thread: Thread, flags: int) -> int:
    """Errors are reported to nobody."""
    return 0


@api("HRESULT WerGetFlags(HANDLE process, LPDWORD flags)", "kernel32", "kernelbase")
def wer_get_flags(thread: Thread, process: int, flags: int) -> int:
    """None."""
    thread.memory.set_u32(flags, 0)
    return 0


@api("LPVOID EncodePointer(LPVOID pointer)", "kernel32", "kernelbase")
def encode_pointer(thread: Thread, pointer: int) -> int:
    """Rotated, so that one that was not decoded is not used by mistake."""
    value = (pointer ^ 0x5F37_59DF_8A2E_61C4) & (1 << 64) - 1
    return (value >> 17 | value << 47) & (1 << 64) - 1


@api("LPVOID DecodePointer(LPVOID pointer)", "kernel32", "kernelbase")
def decode_pointer(thread: Thread, pointer: int) -> int:
    """The inverse."""
    value = (pointer << 17 | pointer >> 47) & (1 << 64) - 1
    return value ^ 0x5F37_59DF_8A2E_61C4


@api("BOOL IsDebuggerPresent(void)", "kernel32", "kernelbase")
def is_debugger_present(thread: Thread) -> int:
    """No."""
    return 0


@api("BOOL CheckRemoteDebuggerPresent(HANDLE process, BOOL *result)", "kernel32", "kernelbase")
def check_remote_debugger_present(thread: Thread, process: int, result: int) -> int:
    """No."""
    thread.memory.set_u32(result, 0)
    return 1


@api("void OutputDebugStringW(LPCWSTR text)", "kernel32", "kernelbase")
def output_debug_string_w(thread: Thread, text: int) -> None:
    """Nobody listens. The text is read, as a debugger would."""
    if text:
        thread.memory.wide(text)


@api("void OutputDebugStringA(LPCSTR text)", "kernel32", "kernelbase")
def output_debug_string_a(thread: Thread, text: int) -> None:
    """Nobody listens."""
    if text:
        thread.memory.string(text)


@api("BOOL Beep(DWORD frequency, DWORD duration)", "kernel32", "kernelbase", note="makes no sound")
def beep(thread: Thread, frequency: int, duration: int) -> int:
    """Takes its time."""
    if not 37 <= frequency <= 32767:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.engine.wait(lambda: False, time.monotonic_ns() + duration * 1_000_000)
    return 1


@api("BOOL GetSystemPowerStatus(LPVOID result)", "kernel32")
def get_system_power_status(thread: Thread, result: int) -> int:
    """Mains, no battery."""
    thread.memory.write(result, struct.pack("<BBBBII", 1, 128, 255, 0, MASK_32, MASK_32))
    return 1


@api("DWORD SetThreadExecutionState(DWORD flags)", "kernel32", "kernelbase")
def set_thread_execution_state(thread: Thread, flags: int) -> int:
    """The host's sleep is the host's affair; ES_CONTINUOUS before."""
    return 0x8000_0000


@api("NTSTATUS CallNtPowerInformation(int level, LPVOID input, ULONG input_size, LPVOID output, ULONG output_size)",
     "powrprof")  # fmt: skip
def call_nt_power_information(
    thread: Thread, level: int, input: int, input_size: int, output: int, output_size: int
) -> int:
    """ProcessorInformation (11): the frequency of each processor, by proc(5)."""
    if level != 11:
        return -0x3FFFFF45  # STATUS_NOT_SUPPORTED
    megahertz = _megahertz()
    data = b"".join(struct.pack("<6I", number, *[megahertz] * 3, 0, 0) for number in range(processors()))
    if output_size < len(data):
        return -0x3FFFFFDD  # STATUS_BUFFER_TOO_SMALL
    thread.memory.write(output, data)
    return 0


def _megahertz() -> int:
    try:
        with open("/proc/cpuinfo") as file:
            return int(next(float(line.partition(":")[2]) for line in file if line.startswith("cpu MHz")))
    except (OSError, StopIteration, ValueError):
        return 1000


@api("int GetSystemMetrics(int index)", "user32", note="there is no screen")
def get_system_metrics(thread: Thread, index: int) -> int:
    """A machine without a screen or pointer, started normally."""
    return {75: 0, 67: 0, 0x1000: 0, 63: 3}.get(index, 0)

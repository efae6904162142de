"""Tokens, security identifiers and accounts: one user without special privileges, whose files are his own.

Who may do what is the host's and the sandbox's decision, made where something is opened. So descriptors that are asked
for say that the user owns everything, and those that are set change nothing.
"""

import struct
from typing import Final

from virtus.personalities.win32 import errors, heaps
from virtus.personalities.win32 import security_identifiers as sids
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.security_identifiers import BadSid, Sid
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text
from virtus.personalities.win32.waiting import object_of

CURRENT_PROCESS_TOKEN, CURRENT_THREAD_TOKEN, CURRENT_EFFECTIVE_TOKEN = (1 << 64) - 4, (1 << 64) - 5, (1 << 64) - 6
SE_GROUP_ENABLED: Final = 7
SE_GROUP_INTEGRITY: Final = 0x60
SE_PRIVILEGE_ENABLED: Final = 3
LONGEST_SID: Final = 68
PRIVILEGES: Final = (
    "SeCreateTokenPrivilege", "SeAssignPrimaryTokenPrivilege", "SeLockMemoryPrivilege",
    "SeIncreaseQuotaPrivilege", "SeMachineAccountPrivilege", "SeTcbPrivilege", "SeSecurityPrivilege",
    "SeTakeOwnershipPrivilege", "SeLoadDriverPrivilege", "SeSystemProfilePrivilege", "SeSystemtimePrivilege",
    "SeProfileSingleProcessPrivilege", "SeIncreaseBasePriorityPrivilege", "SeCreatePagefilePrivilege",
    "SeCreatePermanentPrivilege", "SeBackupPrivilege", "SeRestorePrivilege", "SeShutdownPrivilege",
    "SeDebugPrivilege", "SeAuditPrivilege", "SeSystemEnvironmentPrivilege", "SeChangeNotifyPrivilege",
    "SeRemoteShutdownPrivilege", "SeUndockPrivilege", "SeSyncAgentPrivilege", "SeEnableDelegationPrivilege",
    "SeManageVolumePrivilege", "SeImpersonatePrivilege", "SeCreateGlobalPrivilege",
    "SeTrustedCredManAccessPrivilege", "SeRelabelPrivilege", "SeIncreaseWorkingSetPrivilege",
    "SeTimeZonePrivilege", "SeCreateSymbolicLinkPrivilege",
)  # fmt: skip
"""In the order of their numbers, from 2 ([MS-LSAD] 3.1.1.2.1)."""
HELD: Final = ("SeChangeNotifyPrivilege", "SeCreateSymbolicLinkPrivilege", "SeIncreaseWorkingSetPrivilege")

# TOKEN_INFORMATION_CLASS (winnt.h)
TOKEN_USER, TOKEN_GROUPS, TOKEN_PRIVILEGES, TOKEN_OWNER, TOKEN_PRIMARY_GROUP, TOKEN_TYPE = 1, 2, 3, 4, 5, 8
TOKEN_STATISTICS, TOKEN_SESSION_ID, TOKEN_ELEVATION_TYPE, TOKEN_ELEVATION, TOKEN_INTEGRITY_LEVEL = 10, 12, 18, 20, 25
TOKEN_IS_APP_CONTAINER: Final = 29


class Token:
    """The user's token."""


@api("BOOL OpenProcessToken(HANDLE process, DWORD access, HANDLE *result)", "advapi32", "kernelbase")
def open_process_token(thread: Thread, process: int, access: int, result: int) -> int:
    """The same for every process."""
    if not isinstance(object_of(thread, process), Process):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    thread.memory.set_u64(result, thread.process.handles.add(Token()))
    return 1


@api("BOOL OpenThreadToken(HANDLE target, DWORD access, BOOL self, HANDLE *result)", "advapi32", "kernelbase")
def open_thread_token(thread: Thread, target: int, access: int, self: int, result: int) -> int:
    """No thread has one of its own."""
    return thread.fail(errors.ERROR_NO_TOKEN)


@api("BOOL DuplicateTokenEx(HANDLE token, DWORD access, LPSECURITY_ATTRIBUTES security, int level, int kind,"
     " HANDLE *result)", "advapi32", "kernelbase")  # fmt: skip
def duplicate_token_ex(
    thread: Thread, token: int, access: int, security: int, level: int, kind: int, result: int
) -> int:
    """Another handle."""
    if not _is_token(thread, token):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    thread.memory.set_u64(result, thread.process.handles.add(Token()))
    return 1


def _is_token(thread: Thread, handle: int) -> bool:
    known = (CURRENT_PROCESS_TOKEN, CURRENT_THREAD_TOKEN, CURRENT_EFFECTIVE_TOKEN)
    return handle in known or isinstance(thread.process.handles.get(handle), Token)


def _with_sids(buffer: int, entries: list[tuple[Sid, int | None]], count: bool) -> bytes:
    """SIDs behind an array of pointers to them, with attributes where there are some, and a number in front."""
    head = 8 if count else 0
    size = 16 if entries[0][1] is not None else 8
    place = buffer + head + size * len(entries)
    made, tail = [struct.pack("<Q", len(entries))] if count else [], []
    for sid, attributes in entries:
        made.append(struct.pack("<Q", place) if attributes is None else struct.pack("<QQ", place, attributes))
        data = sid.pack()
        tail.append(data)
        place += len(data)
    return b"".join(made + tail)


def luid_of(name: str) -> int:
    """A privilege's number; raises ValueError."""
    return next(place for place, known in enumerate(PRIVILEGES) if known.lower() == name.lower()) + 2


def _token_information(kind: int, buffer: int) -> bytes | None:
    """What a token says, for a class; pointers are into the caller's buffer."""
    groups: list[tuple[Sid, int | None]] = [
        (sids.NO_GROUP, SE_GROUP_ENABLED), (sids.EVERYONE, SE_GROUP_ENABLED), (sids.USERS, SE_GROUP_ENABLED),
        (sids.INTERACTIVE, SE_GROUP_ENABLED), (sids.AUTHENTICATED_USERS, SE_GROUP_ENABLED),
    ]  # fmt: skip
    if kind == TOKEN_USER:
        return _with_sids(buffer, [(sids.USER, 0)], count=False)
    if kind == TOKEN_GROUPS:
        return _with_sids(buffer, groups, count=True)
    if kind == TOKEN_PRIVILEGES:
        held = b"".join(struct.pack("<QI", luid_of(name), SE_PRIVILEGE_ENABLED) for name in HELD)
        return struct.pack("<I", len(HELD)) + held
    if kind in (TOKEN_OWNER, TOKEN_PRIMARY_GROUP):
        return _with_sids(buffer, [(sids.USER if kind == TOKEN_OWNER else sids.NO_GROUP, None)], count=False)
    if kind == TOKEN_INTEGRITY_LEVEL:
        return _with_sids(buffer, [(sids.MEDIUM_INTEGRITY, SE_GROUP_INTEGRITY)], count=False)
    if kind == TOKEN_STATISTICS:
        return struct.pack("<QQqIIIIIIQ", 0x1000, 0x3E8, -1, 1, 0, 0, 0, len(groups), len(HELD), 0x1001)
    numbers = {TOKEN_TYPE: 1, TOKEN_SESSION_ID: 1, TOKEN_ELEVATION_TYPE: 1, TOKEN_ELEVATION: 0,
               TOKEN_IS_APP_CONTAINER: 0}  # fmt: skip
    return struct.pack("<I", numbers[kind]) if kind in numbers else None


@api("BOOL GetTokenInformation(HANDLE token, int class, LPVOID buffer, DWORD size, LPDWORD length)", "advapi32",
     "kernelbase")  # fmt: skip
def get_token_information(thread: Thread, token: int, kind: int, buffer: int, size: int, length: int) -> int:
    """User, groups, privileges, elevation (none), integrity (medium)."""
    if not _is_token(thread, token):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    data = _token_information(kind, buffer)
    if data is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.set_u32(length, len(data))
    if size < len(data):
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(buffer, data)
    return 1


def _lookup_privilege(thread: Thread, text: Text, name: int, result: int) -> int:
    try:
        number = luid_of(text.read(thread.memory, name))
    except StopIteration:
        return thread.fail(errors.ERROR_NO_SUCH_PRIVILEGE)
    thread.memory.set_u64(result, number)
    return 1


@api("BOOL LookupPrivilegeValueW(LPCWSTR system, LPCWSTR name, LPVOID result)", "advapi32")
def lookup_privilege_value_w(thread: Thread, system: int, name: int, result: int) -> int:
    """A privilege's number."""
    return _lookup_privilege(thread, WIDE, name, result)


@api("BOOL LookupPrivilegeValueA(LPCSTR system, LPCSTR name, LPVOID result)", "advapi32")
def lookup_privilege_value_a(thread: Thread, system: int, name: int, result: int) -> int:
    """A privilege's number."""
    return _lookup_privilege(thread, ANSI, name, result)


@api("BOOL AdjustTokenPrivileges(HANDLE token, BOOL disable_all, LPVOID wanted, DWORD size, LPVOID before,"
     " LPDWORD length)", "advapi32", "kernelbase")  # fmt: skip
def adjust_token_privileges(
    thread: Thread, token: int, disable_all: int, wanted: int, size: int, before: int, length: int
) -> int:
    """True with ERROR_NOT_ALL_ASSIGNED for privileges that the user has not."""
    if not _is_token(thread, token):
        return thread.fail(errors.ERROR_INVALID_HANDLE)
    missing = False
    if wanted and not disable_all:
        held = {luid_of(name) for name in HELD}
        for number in range(min(thread.memory.u32(wanted), 64)):
            luid, attributes = struct.unpack("<QI", thread.memory.read(wanted + 4 + 12 * number, 12))
            missing |= bool(attributes & 2) and luid not in held
    if before and size >= 4:
        thread.memory.set_u32(before, 0)
    if length:
        thread.memory.set_u32(length, 4)
    thread.last_error = errors.ERROR_NOT_ALL_ASSIGNED if missing else errors.ERROR_SUCCESS
    return 1


@api("BOOL PrivilegeCheck(HANDLE token, LPVOID wanted, BOOL *result)", "advapi32", "kernelbase")
def privilege_check(thread: Thread, token: int, wanted: int, result: int) -> int:
    """Whether all, or any, of some privileges are held."""
    count, every = struct.unpack("<II", thread.memory.read(wanted, 8))
    held = {luid_of(name) for name in HELD}
    found = [thread.memory.u64(wanted + 8 + 12 * number) in held for number in range(min(count, 64))]
    thread.memory.set_u32(result, all(found) if every else any(found))
    return 1


@api("BOOL CheckTokenMembership(HANDLE token, LPVOID sid, BOOL *result)", "advapi32", "kernelbase")
def check_token_membership(thread: Thread, token: int, sid: int, result: int) -> int:
    """Whether the user is in a group; he is no administrator."""
    found = sid_at(thread, sid)
    groups = (sids.USER, sids.NO_GROUP, sids.EVERYONE, sids.USERS, sids.INTERACTIVE, sids.AUTHENTICATED_USERS)
    thread.memory.set_u32(result, found in groups)
    return 1


def sid_at(thread: Thread, address: int) -> Sid | None:
    """The identifier at an address, None for what is none."""
    try:
        head = thread.memory.read(address, 8)
        return sids.unpack(thread.memory.read(address, 8 + 4 * min(head[1], sids.MOST_AUTHORITIES)))
    except BadSid:
        return None


@api("BOOL IsValidSid(LPVOID sid)", "advapi32", "kernelbase")
def is_valid_sid(thread: Thread, sid: int) -> int:
    """Whether it is one."""
    return int(bool(sid) and sid_at(thread, sid) is not None)


@api("DWORD GetLengthSid(LPVOID sid)", "advapi32", "kernelbase")
def get_length_sid(thread: Thread, sid: int) -> int:
    """Bytes."""
    return 8 + 4 * thread.memory.read(sid + 1, 1)[0]


@api("DWORD GetSidLengthRequired(BYTE count)", "advapi32", "kernelbase")
def get_sid_length_required(thread: Thread, count: int) -> int:
    """Bytes."""
    return 8 + 4 * count


@api("BOOL CopySid(DWORD size, LPVOID target, LPVOID source)", "advapi32", "kernelbase")
def copy_sid(thread: Thread, size: int, target: int, source: int) -> int:
    """ERROR_INSUFFICIENT_BUFFER."""
    data = thread.memory.read(source, get_length_sid(thread, source))
    if len(data) > size:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(target, data)
    return 1


@api("BOOL EqualSid(LPVOID one, LPVOID other)", "advapi32", "kernelbase")
def equal_sid(thread: Thread, one: int, other: int) -> int:
    """Whether they are the same."""
    first = sid_at(thread, one)
    return int(first is not None and first == sid_at(thread, other))


@api("BOOL CreateWellKnownSid(int kind, LPVOID domain, LPVOID result, LPDWORD size)", "advapi32", "kernelbase")
def create_well_known_sid(thread: Thread, kind: int, domain: int, result: int, size: int) -> int:
    """Those that need no domain."""
    sid = sids.WELL_KNOWN.get(kind)
    if sid is None:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    data, room = sid.pack(), thread.memory.u32(size)
    thread.memory.set_u32(size, len(data))
    if room < len(data) or not result:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(result, data)
    return 1


@api("BOOL AllocateAndInitializeSid(LPVOID authority, BYTE count, DWORD a, DWORD b, DWORD c, DWORD d, DWORD e,"
     " DWORD f, DWORD g, DWORD h, LPVOID *result)", "advapi32", "kernelbase")  # fmt: skip
def allocate_and_initialize_sid(thread: Thread, authority: int, count: int, *numbers: int) -> int:
    """Of up to eight numbers."""
    if count > 8:
        return thread.fail(errors.ERROR_INVALID_SID)
    sid = Sid(int.from_bytes(thread.memory.read(authority, 6), "big"), numbers[:count])
    address = heaps.allocate(thread.process, sid.pack())
    thread.memory.set_u64(numbers[8], address)
    return 1 if address else thread.fail(errors.ERROR_NOT_ENOUGH_MEMORY)


@api("BOOL InitializeSid(LPVOID sid, LPVOID authority, BYTE count)", "advapi32", "kernelbase")
def initialize_sid(thread: Thread, sid: int, authority: int, count: int) -> int:
    """Its numbers are set through GetSidSubAuthority."""
    if count > sids.MOST_AUTHORITIES:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.write(sid, bytes([1, count]) + thread.memory.read(authority, 6))
    return 1


@api("PDWORD GetSidSubAuthority(LPVOID sid, DWORD place)", "advapi32", "kernelbase")
def get_sid_sub_authority(thread: Thread, sid: int, place: int) -> int:
    """Where a number stands."""
    return sid + 8 + 4 * place


@api("PUCHAR GetSidSubAuthorityCount(LPVOID sid)", "advapi32", "kernelbase")
def get_sid_sub_authority_count(thread: Thread, sid: int) -> int:
    """Where their number stands."""
    return sid + 1


@api("LPVOID FreeSid(LPVOID sid)", "advapi32", "kernelbase")
def free_sid(thread: Thread, sid: int) -> int:
    """What AllocateAndInitializeSid gave."""
    heaps.free(thread.process, sid)
    return 0


def _sid_to_string(thread: Thread, text: Text, sid: int, result: int) -> int:
    found = sid_at(thread, sid)
    if found is None:
        return thread.fail(errors.ERROR_INVALID_SID)
    thread.memory.set_u64(result, heaps.allocate(thread.process, text.encode(f"{found}\0")))
    return 1


@api("BOOL ConvertSidToStringSidW(LPVOID sid, LPWSTR *result)", "advapi32")
def convert_sid_to_string_sid_w(thread: Thread, sid: int, result: int) -> int:
    """The caller frees it with LocalFree."""
    return _sid_to_string(thread, WIDE, sid, result)


@api("BOOL ConvertSidToStringSidA(LPVOID sid, LPSTR *result)", "advapi32")
def convert_sid_to_string_sid_a(thread: Thread, sid: int, result: int) -> int:
    """The caller frees it with LocalFree."""
    return _sid_to_string(thread, ANSI, sid, result)


@api("BOOL ConvertStringSidToSidW(LPCWSTR text, LPVOID *result)", "advapi32")
def convert_string_sid_to_sid_w(thread: Thread, text: int, result: int) -> int:
    """The caller frees it with LocalFree."""
    try:
        sid = sids.parse(thread.memory.wide(text))
    except BadSid:
        return thread.fail(errors.ERROR_INVALID_SID)
    thread.memory.set_u64(result, heaps.allocate(thread.process, sid.pack()))
    return 1

"""Accounts by name and identifier, and security descriptors."""

import struct

from virtus.personalities.win32 import errors, heaps
from virtus.personalities.win32 import security_identifiers as sids
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.security import sid_at
from virtus.personalities.win32.system_information import computer_name, user_name
from virtus.personalities.win32.table import api
from virtus.personalities.win32.text import ANSI, WIDE, Text, give_counted


@api("BOOL LookupAccountSidW(LPCWSTR system, LPVOID sid, LPWSTR name, LPDWORD name_size, LPWSTR domain,"
     " LPDWORD domain_size, LPDWORD use)", "advapi32")  # fmt: skip
def lookup_account_sid_w(
    thread: Thread, system: int, sid: int, name: int, name_size: int, domain: int, domain_size: int, use: int
) -> int:
    """Of the user and the well-known groups."""
    found = sid_at(thread, sid)
    known = sids.ACCOUNTS.get(found) if found is not None else None
    if found == sids.USER:
        known = user_name(thread), computer_name(), 1
    if known is None:
        return thread.fail(errors.ERROR_NONE_MAPPED)
    fits = [
        give_counted(thread.memory, WIDE, where, size, value, terminated=False)
        for where, size, value in ((name, name_size, known[0]), (domain, domain_size, known[1]))
    ]
    if not all(fits):
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.set_u32(use, known[2])
    return 1


@api("BOOL LookupAccountNameW(LPCWSTR system, LPCWSTR name, LPVOID sid, LPDWORD sid_size, LPWSTR domain,"
     " LPDWORD domain_size, LPDWORD use)", "advapi32")  # fmt: skip
def lookup_account_name_w(
    thread: Thread, system: int, name: int, sid: int, sid_size: int, domain: int, domain_size: int, use: int
) -> int:
    """The inverse."""
    wanted = thread.memory.wide(name).rpartition("\\")[2].lower()
    accounts = {**sids.ACCOUNTS, sids.USER: (user_name(thread), computer_name(), 1)}
    found = next((entry for entry in accounts.items() if entry[1][0].lower() == wanted), None)
    if found is None:
        return thread.fail(errors.ERROR_NONE_MAPPED)
    data, room = found[0].pack(), thread.memory.u32(sid_size)
    thread.memory.set_u32(sid_size, len(data))
    fits = give_counted(thread.memory, WIDE, domain, domain_size, found[1][1], terminated=False)
    if room < len(data) or not sid or not fits:
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(sid, data)
    thread.memory.set_u32(use, found[1][2])
    return 1


def _user(thread: Thread, text: Text, buffer: int, size: int, name: str) -> int:
    if give_counted(thread.memory, text, buffer, size, name, terminated=True):
        return 1
    return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)


@api("BOOL GetUserNameW(LPWSTR buffer, LPDWORD size)", "advapi32")
def get_user_name_w(thread: Thread, buffer: int, size: int) -> int:
    """As the environment says."""
    return _user(thread, WIDE, buffer, size, user_name(thread))


@api("BOOL GetUserNameA(LPSTR buffer, LPDWORD size)", "advapi32")
def get_user_name_a(thread: Thread, buffer: int, size: int) -> int:
    """As the environment says."""
    return _user(thread, ANSI, buffer, size, user_name(thread))


@api("BOOLEAN GetUserNameExW(int format, LPWSTR buffer, PULONG size)", "secur32")
def get_user_name_ex_w(thread: Thread, format: int, buffer: int, size: int) -> int:
    """NameSamCompatible (2) only: there is no directory service."""
    if format != 2:
        return thread.fail(errors.ERROR_NONE_MAPPED)
    if give_counted(thread.memory, WIDE, buffer, size, rf"{computer_name()}\{user_name(thread)}", terminated=False):
        return 1
    return thread.fail(errors.ERROR_MORE_DATA)


def descriptor() -> bytes:
    """A self-relative security descriptor: the user owns it, and all may do all ([MS-DTYP] 2.4.6)."""
    owner, group, everyone = sids.USER.pack(), sids.NO_GROUP.pack(), sids.EVERYONE.pack()
    entry = struct.pack("<BBHI", 0, 0, 8 + len(everyone), 0x001F_01FF) + everyone
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entry), 1, 0) + entry
    offset = 20 + len(acl)
    head = struct.pack("<BBHIIII", 1, 0, 0x8004, offset, offset + len(owner), 0, 20)
    return head + acl + owner + group


def _security(thread: Thread, buffer: int, size: int, length: int) -> int:
    data = descriptor()
    thread.memory.set_u32(length, len(data))
    if size < len(data):
        return thread.fail(errors.ERROR_INSUFFICIENT_BUFFER)
    thread.memory.write(buffer, data)
    return 1


@api("BOOL GetFileSecurityW(LPCWSTR name, DWORD wanted, LPVOID buffer, DWORD size, LPDWORD length)", "advapi32",
     "kernelbase", note="says that the user owns everything")  # fmt: skip
def get_file_security_w(thread: Thread, name: int, wanted: int, buffer: int, size: int, length: int) -> int:
    """The one descriptor."""
    return _security(thread, buffer, size, length)


@api("BOOL SetFileSecurityW(LPCWSTR name, DWORD given, LPVOID descriptor)", "advapi32", "kernelbase",
     note="changes nothing: access is the host's decision")  # fmt: skip
def set_file_security_w(thread: Thread, name: int, given: int, descriptor: int) -> int:
    """Succeeds."""
    return 1


@api("BOOL GetKernelObjectSecurity(HANDLE handle, DWORD wanted, LPVOID buffer, DWORD size, LPDWORD length)",
     "advapi32", "kernelbase", note="says that the user owns everything")  # fmt: skip
def get_kernel_object_security(thread: Thread, handle: int, wanted: int, buffer: int, size: int, length: int) -> int:
    """The one descriptor."""
    return _security(thread, buffer, size, length)


@api("DWORD GetNamedSecurityInfoW(LPCWSTR name, int kind, DWORD wanted, LPVOID *owner, LPVOID *group, LPVOID *dacl,"
     " LPVOID *sacl, LPVOID *descriptor)", "advapi32", note="says that the user owns everything")  # fmt: skip
def get_named_security_info_w(
    thread: Thread, name: int, kind: int, wanted: int, owner: int, group: int, dacl: int, sacl: int, result: int
) -> int:
    """The one descriptor, and pointers into it."""
    data = descriptor()
    address = heaps.allocate(thread.process, data)
    offsets = struct.unpack_from("<4I", data, 4)
    for pointer, offset in zip((owner, group, sacl, dacl), offsets, strict=True):
        if pointer:
            thread.memory.set_u64(pointer, address + offset if offset else 0)
    if result:
        thread.memory.set_u64(result, address)
    return 0 if address else errors.ERROR_NOT_ENOUGH_MEMORY


@api("DWORD GetSecurityInfo(HANDLE handle, int kind, DWORD wanted, LPVOID *owner, LPVOID *group, LPVOID *dacl,"
     " LPVOID *sacl, LPVOID *descriptor)", "advapi32", note="says that the user owns everything")  # fmt: skip
def get_security_info(
    thread: Thread, handle: int, kind: int, wanted: int, owner: int, group: int, dacl: int, sacl: int, result: int
) -> int:
    """The one descriptor, and pointers into it."""
    return get_named_security_info_w(thread, handle, kind, wanted, owner, group, dacl, sacl, result)


@api("BOOL InitializeSecurityDescriptor(LPVOID descriptor, DWORD revision)", "advapi32", "kernelbase")
def initialize_security_descriptor(thread: Thread, descriptor: int, revision: int) -> int:
    """An absolute one, empty."""
    if revision != 1:
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.memory.write(descriptor, bytes([1]) + bytes(39))
    return 1


@api("BOOL SetSecurityDescriptorDacl(LPVOID descriptor, BOOL present, LPVOID acl, BOOL defaulted)", "advapi32",
     "kernelbase")  # fmt: skip
def set_security_descriptor_dacl(thread: Thread, descriptor: int, present: int, acl: int, defaulted: int) -> int:
    """Into an absolute descriptor."""
    control = thread.memory.u16(descriptor + 2) & ~0xC | (4 if present else 0) | (8 if defaulted else 0)
    thread.memory.set_u16(descriptor + 2, control)
    thread.memory.set_u64(descriptor + 32, acl if present else 0)
    return 1


@api("BOOL SetSecurityDescriptorOwner(LPVOID descriptor, LPVOID owner, BOOL defaulted)", "advapi32", "kernelbase")
def set_security_descriptor_owner(thread: Thread, descriptor: int, owner: int, defaulted: int) -> int:
    """Into an absolute descriptor."""
    thread.memory.set_u64(descriptor + 8, owner)
    return 1


@api("BOOL AccessCheck(LPVOID descriptor, HANDLE token, DWORD wanted, LPVOID mapping, LPVOID privileges,"
     " LPDWORD size, LPDWORD granted, BOOL *result)", "advapi32", "kernelbase",
     note="grants what is wanted: access is the host's decision")  # fmt: skip
def access_check(
    thread: Thread, descriptor: int, token: int, wanted: int, mapping: int, privileges: int, size: int, granted: int,
    result: int,
) -> int:  # fmt: skip
    """The real check is made when something is opened."""
    thread.memory.set_u32(granted, wanted)
    thread.memory.set_u32(result, 1)
    return 1


@api("BOOL ImpersonateSelf(int level)", "advapi32", "kernelbase")
def impersonate_self(thread: Thread, level: int) -> int:
    """The thread is the user's already."""
    return 1


@api("BOOL RevertToSelf(void)", "advapi32", "kernelbase")
def revert_to_self(thread: Thread) -> int:
    """The thread is the user's already."""
    return 1

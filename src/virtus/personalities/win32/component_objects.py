"""COM, as far as programs without it go: starting it, and being told that no class is there. BSTRs and VARIANTs."""

import os
import struct
import uuid
from typing import Final

from virtus.personalities.win32 import heaps, state
from virtus.personalities.win32.code_pages import utf16
from virtus.personalities.win32.process import Process, Thread
from virtus.personalities.win32.table import api

S_OK, S_FALSE = 0, 1
REGDB_E_CLASSNOTREG: Final = -0x7FFB_FEAC
E_INVALIDARG: Final = -0x7FF8_FFA9
CO_E_CLASSSTRING: Final = -0x7FFB_FE0D
DISP_E_BADVARTYPE: Final = -0x7FFD_FFF8
E_NOTIMPL: Final = -0x7FFF_BFFF
VT_BSTR: Final = 8
VARIANT_SIZE: Final = 24
PLAIN_VARIANTS: Final = frozenset((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23, 64))
"""VARTYPEs whose value lies in the VARIANT itself."""


class Apartment:
    """How often a thread has started COM."""

    def __init__(self) -> None:
        self.count = 0


@api("HRESULT CoInitializeEx(LPVOID reserved, DWORD flags)", "ole32", "combase")
def co_initialize_ex(thread: Thread, reserved: int, flags: int) -> int:
    """S_FALSE if the thread has done so already."""
    apartment = state.of(thread, Apartment)
    apartment.count += 1
    return S_OK if apartment.count == 1 else S_FALSE


@api("HRESULT CoInitialize(LPVOID reserved)", "ole32")
def co_initialize(thread: Thread, reserved: int) -> int:
    """S_FALSE if the thread has done so already."""
    return co_initialize_ex(thread, reserved, 2)


@api("void CoUninitialize(void)", "ole32", "combase")
def co_uninitialize(thread: Thread) -> None:
    """Once for each start."""
    apartment = state.of(thread, Apartment)
    apartment.count = max(0, apartment.count - 1)


@api(
    "HRESULT CoInitializeSecurity(LPVOID descriptor, LONG count, LPVOID services, LPVOID reserved, DWORD level,"
    " DWORD impersonation, LPVOID authentication, DWORD capabilities, LPVOID reserved_too)",
    "ole32",
    "combase",
)
def co_initialize_security(thread: Thread, *arguments: int) -> int:
    """Nobody calls."""
    return S_OK


@api("HRESULT CoCreateInstance(LPVOID class, LPVOID outer, DWORD context, LPVOID interface, LPVOID *result)", "ole32",
     "combase", note="no classes are there")  # fmt: skip
def co_create_instance(thread: Thread, kind: int, outer: int, context: int, interface: int, result: int) -> int:
    """REGDB_E_CLASSNOTREG."""
    thread.memory.set_u64(result, 0)
    return REGDB_E_CLASSNOTREG


@api("HRESULT CoCreateGuid(LPVOID result)", "ole32", "combase")
def co_create_guid(thread: Thread, result: int) -> int:
    """A random one."""
    thread.memory.write(result, uuid.UUID(bytes=os.urandom(16), version=4).bytes_le)
    return S_OK


@api("LONG UuidCreate(LPVOID result)", "rpcrt4")
def uuid_create(thread: Thread, result: int) -> int:
    """A random one."""
    return co_create_guid(thread, result)


@api("LONG UuidCreateSequential(LPVOID result)", "rpcrt4", note="as random as the others")
def uuid_create_sequential(thread: Thread, result: int) -> int:
    """A random one."""
    return co_create_guid(thread, result)


@api("LONG UuidToStringW(LPVOID value, LPWSTR *result)", "rpcrt4")
def uuid_to_string_w(thread: Thread, value: int, result: int) -> int:
    """The caller frees it with RpcStringFree."""
    text = str(uuid.UUID(bytes_le=thread.memory.read(value, 16)))
    thread.memory.set_u64(result, heaps.allocate(thread.process, utf16(text + "\0")))
    return 0


@api("LONG UuidToStringA(LPVOID value, LPSTR *result)", "rpcrt4")
def uuid_to_string_a(thread: Thread, value: int, result: int) -> int:
    """The caller frees it with RpcStringFree."""
    text = str(uuid.UUID(bytes_le=thread.memory.read(value, 16)))
    thread.memory.set_u64(result, heaps.allocate(thread.process, text.encode() + b"\0"))
    return 0


@api("LONG RpcStringFreeW(LPWSTR *text)", "rpcrt4")
def rpc_string_free_w(thread: Thread, text: int) -> int:
    """The pointer becomes null."""
    heaps.free(thread.process, thread.memory.u64(text))
    thread.memory.set_u64(text, 0)
    return 0


@api("LONG RpcStringFreeA(LPSTR *text)", "rpcrt4")
def rpc_string_free_a(thread: Thread, text: int) -> int:
    """The pointer becomes null."""
    return rpc_string_free_w(thread, text)


@api("int StringFromGUID2(LPVOID value, LPWSTR buffer, int capacity)", "ole32", "combase")
def string_from_guid2(thread: Thread, value: int, buffer: int, capacity: int) -> int:
    """39 characters with the zero, 0 where there is no room."""
    if capacity < 39:
        return 0
    text = f"{{{uuid.UUID(bytes_le=thread.memory.read(value, 16))}}}".upper()
    thread.memory.write(buffer, utf16(text + "\0"))
    return 39


@api("HRESULT CLSIDFromString(LPCWSTR text, LPVOID result)", "ole32", "combase")
def clsid_from_string(thread: Thread, text: int, result: int) -> int:
    """Of braces and digits; names of classes are not known."""
    content = thread.memory.wide(text)
    try:
        if len(content) != 38 or content[0] + content[-1] != "{}":
            raise ValueError
        thread.memory.write(result, uuid.UUID(content[1:-1]).bytes_le)
    except ValueError:
        return CO_E_CLASSSTRING
    return S_OK


def new_bstr(process: Process, data: bytes) -> int:
    """A BSTR: its length in bytes stands before it, a zero behind it. 0 for no memory."""
    block = heaps.allocate(process, struct.pack("<12xI", len(data)) + data + b"\0\0")
    return block and block + 16


@api("LPWSTR SysAllocString(LPCWSTR text)", "oleaut32")
def sys_alloc_string(thread: Thread, text: int) -> int:
    """0 for a null pointer."""
    return new_bstr(thread.process, utf16(thread.memory.wide(text))) if text else 0


@api("LPWSTR SysAllocStringLen(LPCWSTR text, UINT count)", "oleaut32")
def sys_alloc_string_len(thread: Thread, text: int, count: int) -> int:
    """With contents from a text if there is one."""
    return new_bstr(thread.process, thread.memory.read(text, 2 * count) if text else bytes(2 * count))


@api("LPWSTR SysAllocStringByteLen(LPCSTR data, UINT size)", "oleaut32")
def sys_alloc_string_byte_len(thread: Thread, data: int, size: int) -> int:
    """With contents from bytes if there are some."""
    return new_bstr(thread.process, thread.memory.read(data, size) if data else bytes(size))


@api("void SysFreeString(LPWSTR text)", "oleaut32")
def sys_free_string(thread: Thread, text: int) -> None:
    """A null pointer is no mistake."""
    if text:
        heaps.free(thread.process, text - 16)


@api("UINT SysStringLen(LPWSTR text)", "oleaut32")
def sys_string_len(thread: Thread, text: int) -> int:
    """Characters."""
    return thread.memory.u32(text - 4) // 2 if text else 0


@api("UINT SysStringByteLen(LPWSTR text)", "oleaut32")
def sys_string_byte_len(thread: Thread, text: int) -> int:
    """Bytes."""
    return thread.memory.u32(text - 4) if text else 0


@api("int SysReAllocStringLen(LPWSTR *text, LPCWSTR content, UINT count)", "oleaut32")
def sys_re_alloc_string_len(thread: Thread, text: int, content: int, count: int) -> int:
    """Another text in place of one."""
    fresh = sys_alloc_string_len(thread, content, count)
    if not fresh:
        return 0
    sys_free_string(thread, thread.memory.u64(text))
    thread.memory.set_u64(text, fresh)
    return 1


@api("void VariantInit(LPVOID variant)", "oleaut32")
def variant_init(thread: Thread, variant: int) -> None:
    """VT_EMPTY."""
    thread.memory.set_u16(variant, 0)


@api("HRESULT VariantClear(LPVOID variant)", "oleaut32", note="of plain values and strings")
def variant_clear(thread: Thread, variant: int) -> int:
    """Frees a string."""
    kind = thread.memory.u16(variant)
    if kind == VT_BSTR:
        sys_free_string(thread, thread.memory.u64(variant + 8))
    elif kind not in PLAIN_VARIANTS:
        return DISP_E_BADVARTYPE
    thread.memory.set_u16(variant, 0)
    return S_OK


@api("HRESULT VariantCopy(LPVOID target, LPVOID source)", "oleaut32", note="of plain values and strings")
def variant_copy(thread: Thread, target: int, source: int) -> int:
    """Copies a string."""
    kind = thread.memory.u16(source)
    if kind != VT_BSTR and kind not in PLAIN_VARIANTS:
        return DISP_E_BADVARTYPE
    if target == source:
        return S_OK
    error = variant_clear(thread, target)
    if error:
        return error
    data = thread.memory.read(source, VARIANT_SIZE)
    if kind == VT_BSTR:
        text = thread.memory.u64(source + 8)
        copy = sys_alloc_string_byte_len(thread, text, sys_string_byte_len(thread, text)) if text else 0
        data = data[:8] + struct.pack("<Q", copy) + data[16:]
    thread.memory.write(target, data)
    return S_OK


@api("HRESULT GetErrorInfo(ULONG reserved, LPVOID *result)", "oleaut32")
def get_error_info(thread: Thread, reserved: int, result: int) -> int:
    """S_FALSE: none."""
    thread.memory.set_u64(result, 0)
    return S_FALSE


@api("HRESULT SetErrorInfo(ULONG reserved, LPVOID info)", "oleaut32")
def set_error_info(thread: Thread, reserved: int, info: int) -> int:
    """Only none."""
    return S_OK if not info else E_NOTIMPL


@api("HRESULT RoInitialize(DWORD kind)", "combase", "api-ms-win-core-winrt-l1-1-0")
def ro_initialize(thread: Thread, kind: int) -> int:
    """As CoInitializeEx."""
    return co_initialize_ex(thread, 0, 0)


@api("BOOL IsEqualGUID(LPVOID one, LPVOID other)", "ole32")
def is_equal_guid(thread: Thread, one: int, other: int) -> int:
    """Whether they are the same."""
    return int(thread.memory.read(one, 16) == thread.memory.read(other, 16))

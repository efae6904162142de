"""What is refused because there is no desktop, no certificate store, no symbol server: with the documented errors.

A program that only links to these functions runs; one that needs them is told that they failed.
"""

from typing import Final

from virtus.personalities.win32 import errors
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

CRYPT_E_NOT_FOUND: Final = 0x8009_2004
STORE: Final = 0x1000_0001
NO_DESKTOP: Final = "there is no desktop"
NO_STORE: Final = "a store without certificates"


@api("int MessageBoxW(HWND window, LPCWSTR text, LPCWSTR caption, UINT kind)", "user32", note=NO_DESKTOP)
def message_box_w(thread: Thread, window: int, text: int, caption: int, kind: int) -> int:
    """Fails: nobody would answer it."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("int MessageBoxA(HWND window, LPCSTR text, LPCSTR caption, UINT kind)", "user32", note=NO_DESKTOP)
def message_box_a(thread: Thread, window: int, text: int, caption: int, kind: int) -> int:
    """Fails: nobody would answer it."""
    return thread.fail(errors.ERROR_ACCESS_DENIED)


@api("HWND GetForegroundWindow(void)", "user32", note=NO_DESKTOP)
def get_foreground_window(thread: Thread) -> int:
    """None."""
    return 0


@api("HWND GetActiveWindow(void)", "user32", note=NO_DESKTOP)
def get_active_window(thread: Thread) -> int:
    """None."""
    return 0


@api("HWND GetDesktopWindow(void)", "user32", note=NO_DESKTOP)
def get_desktop_window(thread: Thread) -> int:
    """None."""
    return 0


@api("DWORD GetWindowThreadProcessId(HWND window, LPDWORD process)", "user32", note=NO_DESKTOP)
def get_window_thread_process_id(thread: Thread, window: int, process: int) -> int:
    """No window."""
    return thread.fail(errors.ERROR_INVALID_WINDOW_HANDLE)


@api("HANDLE GetProcessWindowStation(void)", "user32", note=NO_DESKTOP)
def get_process_window_station(thread: Thread) -> int:
    """None: then C runtimes take the program for a service, and show no boxes."""
    return 0


@api("BOOL GetUserObjectInformationW(HANDLE object, int index, LPVOID data, DWORD size, LPDWORD needed)", "user32",
     note=NO_DESKTOP)  # fmt: skip
def get_user_object_information_w(thread: Thread, object: int, index: int, data: int, size: int, needed: int) -> int:
    """No object."""
    return thread.fail(errors.ERROR_INVALID_HANDLE)


@api("LRESULT SendMessageTimeoutW(HWND window, UINT message, WPARAM first, LPARAM second, UINT flags, UINT timeout,"
     " ULONG_PTR *result)", "user32", note=NO_DESKTOP)  # fmt: skip
def send_message_timeout_w(
    thread: Thread, window: int, message: int, first: int, second: int, flags: int, timeout: int, result: int
) -> int:
    """Nobody takes it."""
    return thread.fail(errors.ERROR_TIMEOUT)


@api("BOOL PeekMessageW(LPVOID result, HWND window, UINT first, UINT last, UINT remove)", "user32", note=NO_DESKTOP)
def peek_message_w(thread: Thread, result: int, window: int, first: int, last: int, remove: int) -> int:
    """No messages."""
    return 0


@api("BOOL IsUserAnAdmin(void)", "shell32")
def is_user_an_admin(thread: Thread) -> int:
    """No."""
    return 0


@api("HANDLE CertOpenStore(LPCSTR provider, DWORD encoding, HANDLE crypt, DWORD flags, LPCVOID parameter)", "crypt32",
     note=NO_STORE)  # fmt: skip
def cert_open_store(thread: Thread, provider: int, encoding: int, crypt: int, flags: int, parameter: int) -> int:
    """An empty one."""
    return STORE


@api("HANDLE CertOpenSystemStoreW(HANDLE provider, LPCWSTR name)", "crypt32", note=NO_STORE)
def cert_open_system_store_w(thread: Thread, provider: int, name: int) -> int:
    """An empty one."""
    return STORE


@api("LPVOID CertEnumCertificatesInStore(HANDLE store, LPVOID before)", "crypt32", note=NO_STORE)
def cert_enum_certificates_in_store(thread: Thread, store: int, before: int) -> int:
    """None."""
    return thread.fail(CRYPT_E_NOT_FOUND)


@api("LPVOID CertFindCertificateInStore(HANDLE store, DWORD encoding, DWORD flags, DWORD kind, LPCVOID parameter,"
     " LPVOID before)", "crypt32", note=NO_STORE)  # fmt: skip
def cert_find_certificate_in_store(
    thread: Thread, store: int, encoding: int, flags: int, kind: int, parameter: int, before: int
) -> int:
    """None."""
    return thread.fail(CRYPT_E_NOT_FOUND)


@api("BOOL CertCloseStore(HANDLE store, DWORD flags)", "crypt32", note=NO_STORE)
def cert_close_store(thread: Thread, store: int, flags: int) -> int:
    """Nothing to close."""
    return 1


@api("BOOL CertFreeCertificateContext(LPVOID context)", "crypt32", note=NO_STORE)
def cert_free_certificate_context(thread: Thread, context: int) -> int:
    """Nothing to free."""
    return 1


@api("BOOL CertGetCertificateChain(HANDLE engine, LPVOID certificate, LPFILETIME time, HANDLE store, LPVOID parameters,"
     " DWORD flags, LPVOID reserved, LPVOID *result)", "crypt32", note=NO_STORE)  # fmt: skip
def cert_get_certificate_chain(
    thread: Thread, engine: int, certificate: int, time: int, store: int, parameters: int, flags: int, reserved: int,
    result: int,
) -> int:  # fmt: skip
    """Nothing is trusted."""
    return thread.fail(CRYPT_E_NOT_FOUND)


@api("BOOL SymInitialize(HANDLE process, LPCSTR path, BOOL invade)", "dbghelp", note="no symbols")
def sym_initialize(thread: Thread, process: int, path: int, invade: int) -> int:
    """Fails: then programs show addresses."""
    return thread.fail(errors.ERROR_NOT_SUPPORTED)


@api("DWORD SymSetOptions(DWORD options)", "dbghelp", note="no symbols")
def sym_set_options(thread: Thread, options: int) -> int:
    """As set."""
    return options


@api("DWORD SymGetOptions(void)", "dbghelp", note="no symbols")
def sym_get_options(thread: Thread) -> int:
    """None."""
    return 0


@api("BOOL SymFromAddr(HANDLE process, DWORD64 address, LPVOID displacement, LPVOID symbol)", "dbghelp",
     note="no symbols")  # fmt: skip
def sym_from_addr(thread: Thread, process: int, address: int, displacement: int, symbol: int) -> int:
    """None."""
    return thread.fail(errors.ERROR_NOT_FOUND)


@api("BOOL SymGetLineFromAddr64(HANDLE process, DWORD64 address, LPDWORD displacement, LPVOID line)", "dbghelp",
     note="no symbols")  # fmt: skip
def sym_get_line_from_addr64(thread: Thread, process: int, address: int, displacement: int, line: int) -> int:
    """None."""
    return thread.fail(errors.ERROR_NOT_FOUND)


@api("BOOL MiniDumpWriteDump(HANDLE process, DWORD ident, HANDLE file, int kind, LPVOID exception, LPVOID streams,"
     " LPVOID callback)", "dbghelp", note="refused")  # fmt: skip
def mini_dump_write_dump(
    thread: Thread, process: int, ident: int, file: int, kind: int, exception: int, streams: int, callback: int
) -> int:
    """The report of a crash is written anyway."""
    return thread.fail(errors.ERROR_NOT_SUPPORTED)


@api("DWORD GetFileVersionInfoSizeW(LPCWSTR name, LPDWORD handle)", "version", note="no versions of files")
def get_file_version_info_size_w(thread: Thread, name: int, handle: int) -> int:
    """None."""
    return thread.fail(errors.ERROR_RESOURCE_TYPE_NOT_FOUND)


@api("BOOL GetFileVersionInfoW(LPCWSTR name, DWORD handle, DWORD size, LPVOID data)", "version",
     note="no versions of files")  # fmt: skip
def get_file_version_info_w(thread: Thread, name: int, handle: int, size: int, data: int) -> int:
    """None."""
    return thread.fail(errors.ERROR_RESOURCE_TYPE_NOT_FOUND)


@api("BOOL VerQueryValueW(LPCVOID block, LPCWSTR path, LPVOID *result, PUINT size)", "version",
     note="no versions of files")  # fmt: skip
def ver_query_value_w(thread: Thread, block: int, path: int, result: int, size: int) -> int:
    """None."""
    return thread.fail(errors.ERROR_RESOURCE_TYPE_NOT_FOUND)


@api(
    "BOOL CredReadW(LPCWSTR name, DWORD kind, DWORD flags, LPVOID *result)", "advapi32", note="no credentials are kept"
)
def cred_read_w(thread: Thread, name: int, kind: int, flags: int, result: int) -> int:
    """None."""
    return thread.fail(errors.ERROR_NOT_FOUND)


@api("BOOL CredWriteW(LPVOID credential, DWORD flags)", "advapi32", note="no credentials are kept")
def cred_write_w(thread: Thread, credential: int, flags: int) -> int:
    """Refused."""
    return thread.fail(errors.ERROR_NOT_SUPPORTED)


@api("BOOL CredDeleteW(LPCWSTR name, DWORD kind, DWORD flags)", "advapi32", note="no credentials are kept")
def cred_delete_w(thread: Thread, name: int, kind: int, flags: int) -> int:
    """None."""
    return thread.fail(errors.ERROR_NOT_FOUND)


@api("void CredFree(LPVOID buffer)", "advapi32")
def cred_free(thread: Thread, buffer: int) -> None:
    """Nothing was given."""

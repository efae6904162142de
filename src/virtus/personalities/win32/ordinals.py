"""Functions that programs import by number: what the number is called.

Only of DLLs whose numbers are fixed: oleaut32 and ws2_32 (their import libraries have them), shell32, shlwapi.
"""

from typing import Final

ORDINALS: Final[dict[str, dict[int, str]]] = {
    "oleaut32": {
        2: "SysAllocString", 4: "SysAllocStringLen", 5: "SysReAllocStringLen", 6: "SysFreeString", 7: "SysStringLen",
        8: "VariantInit", 9: "VariantClear", 10: "VariantCopy", 16: "SafeArrayDestroy", 149: "SysStringByteLen",
        150: "SysAllocStringByteLen", 200: "GetErrorInfo", 201: "SetErrorInfo",
    },
    "ws2_32": {
        1: "accept", 2: "bind", 3: "closesocket", 4: "connect", 5: "getpeername", 6: "getsockname", 7: "getsockopt",
        8: "htonl", 9: "htons", 10: "ioctlsocket", 11: "inet_addr", 12: "inet_ntoa", 13: "listen", 14: "ntohl",
        15: "ntohs", 16: "recv", 17: "recvfrom", 18: "select", 19: "send", 20: "sendto", 21: "setsockopt",
        22: "shutdown", 23: "socket", 51: "gethostbyaddr", 52: "gethostbyname", 53: "getprotobyname",
        54: "getprotobynumber", 55: "getservbyname", 56: "getservbyport", 57: "gethostname", 111: "WSAGetLastError",
        112: "WSASetLastError", 115: "WSAStartup", 116: "WSACleanup", 151: "__WSAFDIsSet",
    },
    "shell32": {680: "IsUserAnAdmin"},
}  # fmt: skip


def named(dll: str, name: str) -> str:
    """A function's name for "#number", or the name as it is."""
    if not name.startswith("#") or not name[1:].isdecimal():
        return name
    return ORDINALS.get(dll.removesuffix(".dll"), {}).get(int(name[1:]), name)

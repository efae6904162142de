"""The processor's own CPUID (Intel SDM volume 2A, CPUID), asked from this process."""

import ctypes
from functools import cache

from virtus.host.machine_code import MachineCode

#   push rbx;  mov r8, rdx;  mov eax, edi;  mov ecx, esi;  cpuid
#   mov [r8], eax;  mov [r8+4], ebx;  mov [r8+8], ecx;  mov [r8+12], edx;  pop rbx;  ret
_CODE = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")

Leaf = tuple[int, int, int, int]


@cache
def _code() -> MachineCode:
    return MachineCode(_CODE)


def leaf(number: int, index: int = 0) -> Leaf:
    """EAX, EBX, ECX and EDX of a leaf and subleaf."""
    registers = (ctypes.c_uint32 * 4)()
    _code().function(ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p)(number, index, ctypes.addressof(registers))
    eax, ebx, ecx, edx = registers
    return eax, ebx, ecx, edx

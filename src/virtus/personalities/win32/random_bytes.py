"""Random bytes under the names that Windows has for them, all of them the host's."""

import os
from typing import Final

from virtus.personalities.win32 import ntstatus
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

LARGEST_STEP: Final = 1 << 20
BCRYPT_USE_SYSTEM_PREFERRED_RNG: Final = 2


def fill(thread: Thread, buffer: int, size: int) -> None:
    """Random bytes into a guest's buffer, made a part at a time: it may not be as large as it is said to be."""
    for start in range(0, size, LARGEST_STEP):
        thread.memory.write(buffer + start, os.urandom(min(LARGEST_STEP, size - start)))


@api("BOOL ProcessPrng(LPBYTE buffer, SIZE_T size)", "bcryptprimitives")
def process_prng(thread: Thread, buffer: int, size: int) -> int:
    """Always true."""
    fill(thread, buffer, size)
    return 1


@api("BOOLEAN SystemFunction036(LPVOID buffer, ULONG size)", "advapi32", "cryptbase")
def system_function_036(thread: Thread, buffer: int, size: int) -> int:
    """RtlGenRandom."""
    fill(thread, buffer, size)
    return 1


@api("NTSTATUS BCryptGenRandom(BCRYPT_ALG_HANDLE algorithm, PUCHAR buffer, ULONG size, ULONG flags)", "bcrypt")
def bcrypt_gen_random(thread: Thread, algorithm: int, buffer: int, size: int, flags: int) -> int:
    """Without an algorithm only with BCRYPT_USE_SYSTEM_PREFERRED_RNG."""
    if not algorithm and not flags & BCRYPT_USE_SYSTEM_PREFERRED_RNG:
        return ntstatus.INVALID_HANDLE
    fill(thread, buffer, size)
    return 0


@api("BOOL CryptGenRandom(HCRYPTPROV provider, DWORD size, LPBYTE buffer)", "advapi32")
def crypt_gen_random(thread: Thread, provider: int, size: int, buffer: int) -> int:
    """Of any provider."""
    fill(thread, buffer, size)
    return 1

"""Hashes and HMACs, by the newer (bcrypt) and the older (CryptoAPI) names. Ciphers and keys are refused."""

import hashlib
import hmac
import struct
from typing import Any, Final

from virtus.personalities.win32 import errors, ntstatus
from virtus.personalities.win32.process import Thread
from virtus.personalities.win32.table import api

ALGORITHMS: Final = {"MD5": "md5", "SHA1": "sha1", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}
"""BCRYPT_*_ALGORITHM, and hashlib's."""
BLOCK_SIZES: Final = {"md5": 64, "sha1": 64, "sha256": 64, "sha384": 128, "sha512": 128}
BCRYPT_ALG_HANDLE_HMAC_FLAG: Final = 8
BCRYPT_HASH_REUSABLE_FLAG: Final = 0x20
RANDOM: Final = "RNG"
# CALG_* (wincrypt.h)
OLD_ALGORITHMS: Final = {0x8003: "md5", 0x8004: "sha1", 0x800C: "sha256", 0x800D: "sha384", 0x800E: "sha512"}
HP_ALGID, HP_HASHVAL, HP_HASHSIZE = 1, 2, 4
NTE_BAD_ALGID, NTE_BAD_FLAGS, NTE_BAD_TYPE, NTE_BAD_HASH = 0x8009_0008, 0x8009_0009, 0x8009_000A, 0x8009_0002
STEP: Final = 1 << 20
OBJECT_LENGTH: Final = 512
"""Bytes that callers are to set aside for a hash, and that are not used."""


class Algorithm:
    """An algorithm that has been opened; `hmac` makes its hashes keyed ones."""

    def __init__(self, name: str, *, hmac: bool) -> None:
        self.name, self.hmac = name, hmac


class Provider:
    """A provider of the older interface: only its handle counts."""


class Hash:
    """A hash that takes data until it is finished."""

    def __init__(self, name: str, key: bytes | None, *, reusable: bool = False) -> None:
        self.name, self._key, self._reusable = name, key, reusable
        self._state: Any = None
        self.value: bytes | None = None
        self._begin()

    def _begin(self) -> None:
        if self._key is None:
            self._state = hashlib.new(self.name, usedforsecurity=False)
        else:
            self._state = hmac.new(self._key, digestmod=self.name)

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return int(self._state.digest_size)

    def update(self, data: bytes) -> None:
        """More data."""
        self._state.update(data)

    def finish(self) -> bytes:
        """The value; a reusable one begins anew."""
        value: bytes = self._state.digest()
        if self._reusable:
            self._begin()
        return value

    def copy(self) -> "Hash":
        """Another one at the same place."""
        twin = Hash(self.name, self._key, reusable=self._reusable)
        twin._state, twin.value = self._state.copy(), self.value
        return twin


def _feed(thread: Thread, hash: Hash, data: int, size: int) -> None:
    for start in range(0, size, STEP):
        hash.update(thread.memory.read(data + start, min(STEP, size - start)))


# Pseudo handles of algorithms (bcrypt.h: BCRYPT_MD5_ALG_HANDLE and so on)
PSEUDO: Final = {
    0x21: ("md5", False), 0x31: ("sha1", False), 0x41: ("sha256", False), 0x51: ("sha384", False),
    0x61: ("sha512", False), 0x91: ("md5", True), 0xA1: ("sha1", True), 0xB1: ("sha256", True),
    0xC1: ("sha384", True), 0xD1: ("sha512", True),
}  # fmt: skip


def _algorithm(thread: Thread, handle: int) -> Algorithm | None:
    if handle in PSEUDO:
        name, keyed = PSEUDO[handle]
        return Algorithm(name, hmac=keyed)
    found = thread.process.handles.get(handle)
    return found if isinstance(found, Algorithm) else None


def _hash(thread: Thread, handle: int) -> Hash | None:
    found = thread.process.handles.get(handle)
    return found if isinstance(found, Hash) else None


@api("NTSTATUS BCryptOpenAlgorithmProvider(BCRYPT_ALG_HANDLE *result, LPCWSTR name, LPCWSTR provider, ULONG flags)",
     "bcrypt", note="hashes and random numbers; no ciphers")  # fmt: skip
def bcrypt_open_algorithm_provider(thread: Thread, result: int, name: int, provider: int, flags: int) -> int:
    """MD5, SHA1 to SHA512, RNG."""
    wanted = thread.memory.wide(name).upper()
    if wanted != RANDOM and wanted not in ALGORITHMS:
        return ntstatus.NOT_FOUND
    algorithm = Algorithm(ALGORITHMS.get(wanted, RANDOM), hmac=bool(flags & BCRYPT_ALG_HANDLE_HMAC_FLAG))
    thread.memory.set_u64(result, thread.process.handles.add(algorithm))
    return 0


@api("NTSTATUS BCryptCloseAlgorithmProvider(BCRYPT_ALG_HANDLE algorithm, ULONG flags)", "bcrypt")
def bcrypt_close_algorithm_provider(thread: Thread, algorithm: int, flags: int) -> int:
    """Its hashes go on."""
    if algorithm in PSEUDO:
        return 0
    if not isinstance(thread.process.handles.get(algorithm), Algorithm):
        return ntstatus.INVALID_HANDLE
    thread.process.handles.close(algorithm)
    return 0


@api("NTSTATUS BCryptGetProperty(HANDLE object, LPCWSTR name, PUCHAR buffer, ULONG size, PULONG length, ULONG flags)",
     "bcrypt")  # fmt: skip
def bcrypt_get_property(thread: Thread, object: int, name: int, buffer: int, size: int, length: int, flags: int) -> int:
    """ObjectLength, HashDigestLength, HashBlockLength, AlgorithmName."""
    found = _algorithm(thread, object) or _hash(thread, object)
    if found is None:
        return ntstatus.INVALID_HANDLE
    wanted = thread.memory.wide(name)
    if wanted == "AlgorithmName":
        data = (found.name.upper() + "\0").encode("utf-16-le")
    elif found.name == RANDOM:
        return ntstatus.NOT_SUPPORTED
    elif wanted == "ObjectLength":
        data = struct.pack("<I", OBJECT_LENGTH)
    elif wanted == "HashDigestLength":
        data = struct.pack("<I", hashlib.new(found.name, usedforsecurity=False).digest_size)
    elif wanted == "HashBlockLength":
        data = struct.pack("<I", BLOCK_SIZES[found.name])
    else:
        return ntstatus.NOT_SUPPORTED
    thread.memory.set_u32(length, len(data))
    if buffer:
        if size < len(data):
            return ntstatus.BUFFER_TOO_SMALL
        thread.memory.write(buffer, data)
    return 0


@api("NTSTATUS BCryptCreateHash(BCRYPT_ALG_HANDLE algorithm, HANDLE *result, PUCHAR object, ULONG object_size,"
     " PUCHAR secret, ULONG secret_size, ULONG flags)", "bcrypt")  # fmt: skip
def bcrypt_create_hash(
    thread: Thread, algorithm: int, result: int, object: int, object_size: int, secret: int, secret_size: int,
    flags: int,
) -> int:  # fmt: skip
    """With a secret a keyed one, if the algorithm was opened so."""
    found = _algorithm(thread, algorithm)
    if found is None or found.name == RANDOM:
        return ntstatus.INVALID_HANDLE if found is None else ntstatus.NOT_SUPPORTED
    if secret_size > STEP or (secret_size and not found.hmac):
        return ntstatus.INVALID_PARAMETER
    key = (thread.memory.read(secret, secret_size) if secret_size else b"") if found.hmac else None
    made = Hash(found.name, key, reusable=bool(flags & BCRYPT_HASH_REUSABLE_FLAG))
    thread.memory.set_u64(result, thread.process.handles.add(made))
    return 0


@api("NTSTATUS BCryptHashData(HANDLE hash, PUCHAR data, ULONG size, ULONG flags)", "bcrypt")
def bcrypt_hash_data(thread: Thread, hash: int, data: int, size: int, flags: int) -> int:
    """More data."""
    found = _hash(thread, hash)
    if found is None:
        return ntstatus.INVALID_HANDLE
    _feed(thread, found, data, size)
    return 0


@api("NTSTATUS BCryptFinishHash(HANDLE hash, PUCHAR result, ULONG size, ULONG flags)", "bcrypt")
def bcrypt_finish_hash(thread: Thread, hash: int, result: int, size: int, flags: int) -> int:
    """The value, of exactly its size."""
    found = _hash(thread, hash)
    if found is None:
        return ntstatus.INVALID_HANDLE
    if size != found.size:
        return ntstatus.INVALID_PARAMETER
    thread.memory.write(result, found.finish())
    return 0


@api("NTSTATUS BCryptDuplicateHash(HANDLE hash, HANDLE *result, PUCHAR object, ULONG object_size, ULONG flags)",
     "bcrypt")  # fmt: skip
def bcrypt_duplicate_hash(thread: Thread, hash: int, result: int, object: int, object_size: int, flags: int) -> int:
    """Another one at the same place."""
    found = _hash(thread, hash)
    if found is None:
        return ntstatus.INVALID_HANDLE
    thread.memory.set_u64(result, thread.process.handles.add(found.copy()))
    return 0


@api("NTSTATUS BCryptDestroyHash(HANDLE hash)", "bcrypt")
def bcrypt_destroy_hash(thread: Thread, hash: int) -> int:
    """Forget it."""
    if _hash(thread, hash) is None:
        return ntstatus.INVALID_HANDLE
    thread.process.handles.close(hash)
    return 0


@api("NTSTATUS BCryptHash(BCRYPT_ALG_HANDLE algorithm, PUCHAR secret, ULONG secret_size, PUCHAR data, ULONG size,"
     " PUCHAR result, ULONG result_size)", "bcrypt")  # fmt: skip
def bcrypt_hash(
    thread: Thread, algorithm: int, secret: int, secret_size: int, data: int, size: int, result: int, result_size: int
) -> int:
    """All at once."""
    found = _algorithm(thread, algorithm)
    if found is None or found.name == RANDOM or secret_size > STEP:
        return ntstatus.INVALID_HANDLE if found is None else ntstatus.INVALID_PARAMETER
    key = (thread.memory.read(secret, secret_size) if secret_size else b"") if found.hmac else None
    hash = Hash(found.name, key)
    _feed(thread, hash, data, size)
    if result_size != hash.size:
        return ntstatus.INVALID_PARAMETER
    thread.memory.write(result, hash.finish())
    return 0


@api("BOOL CryptAcquireContextW(HCRYPTPROV *result, LPCWSTR container, LPCWSTR provider, DWORD kind, DWORD flags)",
     "advapi32", note="for hashes and random numbers; keys are not kept")  # fmt: skip
def crypt_acquire_context_w(thread: Thread, result: int, container: int, provider: int, kind: int, flags: int) -> int:
    """Any provider."""
    thread.memory.set_u64(result, thread.process.handles.add(Provider()))
    return 1


@api("BOOL CryptAcquireContextA(HCRYPTPROV *result, LPCSTR container, LPCSTR provider, DWORD kind, DWORD flags)",
     "advapi32", note="for hashes and random numbers; keys are not kept")  # fmt: skip
def crypt_acquire_context_a(thread: Thread, result: int, container: int, provider: int, kind: int, flags: int) -> int:
    """Any provider."""
    return crypt_acquire_context_w(thread, result, container, provider, kind, flags)


@api("BOOL CryptReleaseContext(HCRYPTPROV provider, DWORD flags)", "advapi32")
def crypt_release_context(thread: Thread, provider: int, flags: int) -> int:
    """ERROR_INVALID_PARAMETER for what is none."""
    if not isinstance(thread.process.handles.get(provider), Provider):
        return thread.fail(errors.ERROR_INVALID_PARAMETER)
    thread.process.handles.close(provider)
    return 1


@api("BOOL CryptCreateHash(HCRYPTPROV provider, UINT algorithm, HANDLE key, DWORD flags, HANDLE *result)", "advapi32")
def crypt_create_hash(thread: Thread, provider: int, algorithm: int, key: int, flags: int, result: int) -> int:
    """MD5 and SHA."""
    if algorithm not in OLD_ALGORITHMS or key:
        return thread.fail(NTE_BAD_ALGID)
    thread.memory.set_u64(result, thread.process.handles.add(Hash(OLD_ALGORITHMS[algorithm], None)))
    return 1


@api("BOOL CryptHashData(HANDLE hash, LPBYTE data, DWORD size, DWORD flags)", "advapi32")
def crypt_hash_data(thread: Thread, hash: int, data: int, size: int, flags: int) -> int:
    """More data, until its value was asked for."""
    found = _hash(thread, hash)
    if found is None or found.value is not None:
        return thread.fail(NTE_BAD_HASH)
    _feed(thread, found, data, size)
    return 1


@api("BOOL CryptGetHashParam(HANDLE hash, DWORD what, LPBYTE buffer, LPDWORD size, DWORD flags)", "advapi32")
def crypt_get_hash_param(thread: Thread, hash: int, what: int, buffer: int, size: int, flags: int) -> int:
    """Its algorithm, size or value."""
    found = _hash(thread, hash)
    if found is None:
        return thread.fail(NTE_BAD_HASH)
    if what == HP_HASHVAL:
        if found.value is None and buffer:
            found.value = found.finish()
        data = found.value or bytes(found.size)
    elif what == HP_HASHSIZE:
        data = struct.pack("<I", found.size)
    elif what == HP_ALGID:
        data = struct.pack("<I", next(number for number, name in OLD_ALGORITHMS.items() if name == found.name))
    else:
        return thread.fail(NTE_BAD_TYPE)
    room = thread.memory.u32(size)
    thread.memory.set_u32(size, len(data))
    if buffer:
        if room < len(data):
            return thread.fail(errors.ERROR_MORE_DATA)
        thread.memory.write(buffer, data)
    return 1


@api("BOOL CryptDestroyHash(HANDLE hash)", "advapi32")
def crypt_destroy_hash(thread: Thread, hash: int) -> int:
    """Forget it."""
    if _hash(thread, hash) is None:
        return thread.fail(NTE_BAD_HASH)
    thread.process.handles.close(hash)
    return 1

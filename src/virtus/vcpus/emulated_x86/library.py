"""Unicorn's library, called directly: few calls, each with arguments made beforehand.

Source: unicorn/unicorn.h and unicorn/x86.h of Unicorn 2.1.
"""

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any, Final

from virtus.errors import HostLacks

ARCH_X86: Final = 4
MODE_64: Final = 8
PROT_ALL: Final = 7
HOOK_INTR: Final = 1
HOOK_INSN_INVALID: Final = 1 << 14
HOOK_BLOCK: Final = 1 << 3
HOOK_TLB_FILL: Final = 1 << 17
HOOK_INSN: Final = 2
OK: Final = 0
ERROR_EXCEPTION: Final = 21
ERROR_INVALID_INSTRUCTION: Final = 10
TLB_VIRTUAL: Final = 1
CPU_HASWELL: Final = 19
"""An x86-64 processor with SSE 4.2 and BMI. Unicorn has no AVX, and its CPUID claims none; of its models, those without
XSAVE begin with SSE switched off."""

_CTL_CPU_MODEL, _CTL_REMOVE_CACHE, _CTL_FLUSH_TB, _CTL_FLUSH_TLB, _CTL_TLB_TYPE = 7, 9, 10, 11, 12
_WRITE: Final = 1

# enum uc_x86_reg of x86.h
RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, RIP, RFLAGS = 35, 38, 40, 37, 44, 36, 43, 39, 106, 41, 253
XMM0: Final = 122
MXCSR: Final = 249
GS_BASE: Final = 251
GENERAL: Final = (RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, *range(R8, R8 + 8), RIP, RFLAGS)
"""In the order of the processor's numbers, as Windows' CONTEXT has them from Rax to Rip; then the flags."""


def find() -> Path | None:
    """Where the library is, found without loading anything; None where the package unicorn is not installed."""
    spec = importlib.util.find_spec("unicorn")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for found in sorted((Path(place) / "lib").glob("libunicorn.so*")):
            return found
    return None


class Registers:
    """A fixed list of registers that is read or written at once. `words` holds them, 8 bytes each; vectors 16."""

    def __init__(self, identifiers: tuple[int, ...], size: int = 8) -> None:
        count = len(identifiers)
        self.data = (ctypes.c_uint64 * (count * size // 8))()
        self.words: Any = memoryview(self.data).cast("B").cast("Q")
        self.count = count
        self.identifiers = (ctypes.c_int * count)(*identifiers)
        base = ctypes.addressof(self.data)
        self.pointers = (ctypes.c_void_p * count)(*(base + size * index for index in range(count)))


class Unicorn:
    """One processor; raises HostLacks where the library is not installed."""

    def __init__(self) -> None:
        path = find()
        if path is None:
            raise HostLacks(
                "emulating an x86-64 processor",
                "the Python package unicorn is not installed",
                f"{sys.executable} -m pip install unicorn",
            )
        library = ctypes.CDLL(str(path))
        self._library = library
        library.uc_strerror.restype = ctypes.c_char_p
        self._start = library.uc_emu_start
        self._start.argtypes = [ctypes.c_void_p] + [ctypes.c_uint64] * 3 + [ctypes.c_size_t]
        locked = ctypes.PyDLL(str(path))  # calls that take less time than giving up the interpreter's lock
        self._read, self._write, self._stop = locked.uc_reg_read_batch, locked.uc_reg_write_batch, locked.uc_emu_stop
        for call in (self._read, self._write):
            call.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._stop.argtypes = [ctypes.c_void_p]
        self._ctl = locked.uc_ctl
        self._context_save, self._context_restore = locked.uc_context_save, locked.uc_context_restore
        for call in (self._context_save, self._context_restore):
            call.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        handle = ctypes.c_void_p()
        self._check(library.uc_open(ARCH_X86, MODE_64, ctypes.byref(handle)))
        self.handle: int = handle.value or 0
        self._control(_CTL_CPU_MODEL, CPU_HASWELL)
        self._control(_CTL_TLB_TYPE, TLB_VIRTUAL)
        self._kept: list[Any] = []

    def _check(self, error: int) -> None:
        if error != OK:
            words = self._library.uc_strerror(error).decode()
            raise HostLacks("emulating an x86-64 processor", f"Unicorn says: {words}", "install unicorn 2.1 or newer")

    def _control(self, what: int, *arguments: int) -> None:
        word = what | len(arguments) << 26 | _WRITE << 30
        self._check(self._ctl(ctypes.c_void_p(self.handle), word, *map(ctypes.c_uint64, arguments)))

    def address_of(self, name: str) -> int:
        """Where a function of the library is, for machine code that calls it."""
        return ctypes.cast(getattr(self._library, name), ctypes.c_void_p).value or 0

    def map_host(self, address: int, size: int, host: int) -> None:
        """All of the host's memory at `host` is the guest's physical memory at `address`."""
        self._library.uc_mem_map_ptr.argtypes = [
            ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p,
        ]  # fmt: skip
        self._check(self._library.uc_mem_map_ptr(self.handle, address, size, PROT_ALL, host))

    def hook(self, kind: int, code: int, data: int = 0, start: int = 1, end: int = 0, *extra: int) -> int:
        """Have the machine code at `code` called; returns the hook. Without `start` and `end`, for every address."""
        hook = ctypes.c_size_t()
        arguments = [ctypes.c_void_p(code), ctypes.c_void_p(data), ctypes.c_uint64(start), ctypes.c_uint64(end)]
        arguments += [ctypes.c_uint64(word) for word in extra]
        self._check(self._library.uc_hook_add(ctypes.c_void_p(self.handle), ctypes.byref(hook), kind, *arguments))
        return hook.value

    def run(self, address: int) -> int:
        """Run from there to the next stop; the error of the library, OK for `stop` and HLT."""
        error: int = self._start(self.handle, address, 0, 0, 0)
        return error

    def stop(self) -> None:
        """End `run` soon: for hooks. From another thread, instructions of a block may run twice; see Callbacks.stop."""
        self._stop(self.handle)

    def load(self, registers: Registers) -> None:
        """Read the processor's registers into ours."""
        self._read(self.handle, registers.identifiers, registers.pointers, registers.count)

    def store(self, registers: Registers) -> None:
        """Set the processor's registers from ours."""
        self._write(self.handle, registers.identifiers, registers.pointers, registers.count)

    def new_context(self) -> int:
        """Room for all registers; for the life of the processor."""
        context = ctypes.c_void_p()
        self._check(self._library.uc_context_alloc(ctypes.c_void_p(self.handle), ctypes.byref(context)))
        return context.value or 0

    def free_context(self, context: int) -> None:
        """Give that room back."""
        self._library.uc_context_free(ctypes.c_void_p(context))

    def save(self, context: int) -> None:
        """All registers into a context."""
        self._context_save(self.handle, context)

    def restore(self, context: int) -> None:
        """And back."""
        self._context_restore(self.handle, context)

    def flush_rights(self) -> None:
        """Pages have lost rights."""
        self._control(_CTL_FLUSH_TLB)

    def flush_code(self, start: int, end: int) -> None:
        """Code there may have changed."""
        self._control(_CTL_REMOVE_CACHE, start, end)

    def flush_all_code(self) -> None:
        """Code anywhere may have changed."""
        self._control(_CTL_FLUSH_TB)

    def close(self) -> None:
        """End it. May be called twice."""
        if self.handle:
            self._library.uc_close(ctypes.c_void_p(self.handle))
            self.handle = 0

"""A few bytes of machine code as Python callables, for loops that are too hot for a call per host call."""

import ctypes
import mmap
from collections.abc import Callable


class MachineCode:
    """Position-independent x86-64 code of at most a page in memory of its own, executable and no longer writable."""

    def __init__(self, code: bytes, *, data: int = 0) -> None:
        """With so many bytes for the code to write, from the next page on."""
        size = mmap.PAGESIZE + data if data else len(code)
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.write(code)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if libc.mprotect(self.address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "making generated code executable")

    def function(self, *arguments: type, waits: bool = False) -> Callable[..., int]:
        """The code as a function of the System V ABI that returns a signed 64-bit integer.

        It keeps the interpreter's lock, unless it `waits` and other threads must run meanwhile.
        """
        prototype = ctypes.CFUNCTYPE if waits else ctypes.PYFUNCTYPE
        call: Callable[..., int] = prototype(ctypes.c_int64, *arguments)(self.address)
        return call

"""One 32-bit processor of Unicorn's library, called directly: few calls, each with few arguments.

Source: unicorn/unicorn.h and unicorn/x86.h of Unicorn 2.1.
"""

import ctypes
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from virtus.errors import HostLacks
from virtus.vcpus.emulated_x86.library import find

ARCH_X86, MODE_32 = 4, 4
PROT_READ, PROT_ALL, PROT_EXEC = 1, 7, 4
HOOK_INTR, HOOK_INSN, HOOK_CODE = 1, 2, 4
INS_IN, INS_OUT, INS_CPUID, INS_RDTSC, INS_SYSCALL, INS_SYSENTER = 218, 500, 113, 608, 699, 700
OK, ERROR_INVALID_INSTRUCTION = 0, 10
CPU_QEMU32: Final = 4
_SET_CPU_MODEL: Final = 7 | 1 << 26 | 1 << 30  # uc_ctl: what, the number of arguments, and that it is a change
_USE_EXITS: Final = 4 | 1 << 26 | 1 << 30
_SET_BUFFER: Final = 13 | 1 << 26 | 1 << 30
BUFFER: Final = 32 << 20
"""Bytes for translations: of its own Unicorn takes 1 GiB, and fills it before it throws any away."""
_REMOVE_CACHE: Final = 9 | 2 << 26 | 1 << 30

# enum uc_x86_reg
EFLAGS, EIP, CR2, CR3, DR0, IDTR, GDTR, LDTR, TR, MSR = 25, 26, 52, 53, 66, 242, 243, 244, 245, 248
GENERAL: Final = (19, 22, 24, 21, 30, 20, 29, 23)
"""EAX to EDI in the order of their encodings."""
MEMORY_REGISTER: Final = struct.Struct("<H6xQII")
"""struct uc_x86_mmr: selector, base, limit, flags."""
MODEL_REGISTER: Final = struct.Struct("<I4xQ")
"""struct uc_x86_msr: number, value."""

OnInterrupt = Callable[[int], None]
OnIn = Callable[[int, int], None]
OnOut = Callable[[int, int, int], None]
OnQuery = Callable[[], None]


class Engine:
    """One processor; raises HostLacks where the library is not installed or too old."""

    def __init__(self) -> None:
        path = find()
        if path is None:
            raise HostLacks(
                "emulating a PC's processor",
                "the Python package unicorn is not installed",
                f"{sys.executable} -m pip install unicorn",
            )
        free, locked = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
        free.uc_strerror.restype = ctypes.c_char_p
        self._library = free
        self._start = free.uc_emu_start
        self._start.argtypes = [ctypes.c_void_p] + [ctypes.c_uint64] * 3 + [ctypes.c_size_t]
        self._read, self._write = locked.uc_reg_read, locked.uc_reg_write
        for access in (self._read, self._write):
            access.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
        self._read_batch = locked.uc_reg_read_batch
        self._read_batch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._save, self._restore = locked.uc_context_save, locked.uc_context_restore
        for move in (self._save, self._restore):
            move.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._stop = locked.uc_emu_stop
        self._stop.argtypes = [ctypes.c_void_p]
        self._ctl = locked.uc_ctl
        handle = ctypes.c_void_p()
        self._check(free.uc_open(ARCH_X86, MODE_32, ctypes.byref(handle)))
        self._handle: int = handle.value or 0
        self._check(free.uc_ctl(ctypes.c_void_p(self._handle), _SET_CPU_MODEL, ctypes.c_int(CPU_QEMU32)))
        free.uc_ctl(ctypes.c_void_p(self._handle), _SET_BUFFER, ctypes.c_uint32(BUFFER))  # from Unicorn 2.1.2 on
        # a list of addresses to stop at, empty: of the single one, the library looks up the page after every run
        self._check(free.uc_ctl(ctypes.c_void_p(self._handle), _USE_EXITS, ctypes.c_int(1)))
        self._buffer = ctypes.create_string_buffer(64)
        self._kept: list[Any] = []  # callbacks live as long as the processor
        context = ctypes.c_void_p()
        self._check(free.uc_context_alloc(ctypes.c_void_p(self._handle), ctypes.byref(context)))
        self._context: int = context.value or 0
        free.uc_context_size.restype = ctypes.c_size_t
        size = free.uc_context_size(ctypes.c_void_p(self._handle))
        self.context = memoryview((ctypes.c_char * size).from_address(self._context)).cast("B")
        """What `save` and `restore` move: all the processor's registers, as the library keeps them."""

    def _check(self, error: int) -> None:
        if error != OK:
            words = self._library.uc_strerror(error).decode()
            raise HostLacks("emulating a PC's processor", f"Unicorn says: {words}", "install unicorn 2.1 or newer")

    def address_of(self, name: str) -> int:
        """Where a function of the library is, for machine code that calls it."""
        return ctypes.cast(getattr(self._library, name), ctypes.c_void_p).value or 0

    def map_host(self, address: int, size: int, host: int, rights: int = PROT_ALL) -> None:
        """All of the host's memory at `host` is the guest's physical memory at `address`."""
        call = self._library.uc_mem_map_ptr
        self._check(
            call(
                ctypes.c_void_p(self._handle),
                ctypes.c_uint64(address),
                ctypes.c_uint64(size),
                rights,
                ctypes.c_void_p(host),
            )
        )

    def hook_machine_code(self, code: int, data: int) -> None:
        """Call machine code before every instruction: void (*)(handle, address, size, data)."""
        self._hook(HOOK_CODE, ctypes.c_void_p(code), data)

    def hook_interrupts(self, function: OnInterrupt) -> None:
        """Call for exceptions and software interrupts, which the processor does not deliver itself."""
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
        self._hook(HOOK_INTR, prototype(lambda _, vector, __: function(vector)))

    def hook_ports(self, on_in: OnIn, on_out: OnOut) -> None:
        """Call for ports: port and size, and what is written. What is read is 0."""

        def read(_: int, port: int, size: int, __: int) -> int:
            on_in(port, size)
            return 0

        number = ctypes.c_uint32
        prototype = ctypes.CFUNCTYPE(number, ctypes.c_void_p, number, ctypes.c_int, ctypes.c_void_p)
        self._hook(HOOK_INSN, prototype(read), 0, INS_IN)
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, number, ctypes.c_int, number, ctypes.c_void_p)
        self._hook(HOOK_INSN, prototype(lambda _, port, size, value, __: on_out(port, size, value)), 0, INS_OUT)

    def hook_query(self, instruction: int, function: OnQuery) -> None:
        """Call instead of CPUID, RDTSC, SYSCALL or SYSENTER, which the processor then skips."""

        def answer(_: int, __: int) -> int:  # whose result the last two do not look at
            function()
            return 1

        prototype = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._hook(HOOK_INSN, prototype(answer), 0, instruction)

    def _hook(self, kind: int, callback: Any, data: int = 0, *extra: int) -> None:
        self._kept.append(callback)
        hook = ctypes.c_size_t()
        everywhere = ctypes.c_uint64(1), ctypes.c_uint64(0)
        arguments = [ctypes.c_void_p(data), *everywhere, *map(ctypes.c_uint64, extra)]
        self._check(
            self._library.uc_hook_add(ctypes.c_void_p(self._handle), ctypes.byref(hook), kind, callback, *arguments)
        )

    def run(self, eip: int) -> int:
        """Run from an offset in the code segment to the next stop; the library's error, OK for `stop` and HLT."""
        error: int = self._start(self._handle, eip, 0, 0, 0)
        return error

    def stop(self) -> None:
        """End `run` at the next instruction; for callbacks."""
        self._stop(self._handle)

    def read(self, register: int) -> int:
        """A register of 32 bits."""
        self._read(self._handle, register, self._buffer)
        return int.from_bytes(self._buffer.raw[:4], "little")

    def reader(self, registers: tuple[int, ...]) -> Callable[[], tuple[int, ...]]:
        """What reads several registers at once."""
        count = len(registers)
        layout = struct.Struct("<" + "I4x" * count)
        values = ctypes.create_string_buffer(layout.size)
        start = ctypes.addressof(values)
        pointers = (ctypes.c_void_p * count)(*range(start, start + layout.size, 8))
        names = (ctypes.c_int * count)(*registers)

        def read() -> tuple[int, ...]:
            self._read_batch(self._handle, names, pointers, count)
            return layout.unpack_from(values)

        return read

    def write(self, register: int, value: int) -> None:
        """Set one."""
        struct.pack_into("<Q", self._buffer, 0, value)
        self._write(self._handle, register, self._buffer)

    def write_memory_register(self, register: int, selector: int, base: int, limit: int, flags: int) -> None:
        """Set GDTR, IDTR, LDTR or TR."""
        MEMORY_REGISTER.pack_into(self._buffer, 0, selector, base, limit, flags)
        self._write(self._handle, register, self._buffer)

    def read_model_register(self, number: int) -> int:
        """A model-specific register."""
        MODEL_REGISTER.pack_into(self._buffer, 0, number, 0)
        self._read(self._handle, MSR, self._buffer)
        value: int = MODEL_REGISTER.unpack_from(self._buffer)[1]
        return value

    def write_model_register(self, number: int, value: int) -> None:
        """Set one."""
        MODEL_REGISTER.pack_into(self._buffer, 0, number, value)
        self._write(self._handle, MSR, self._buffer)

    def save(self) -> None:
        """All registers into `context`."""
        self._save(self._handle, self._context)

    def restore(self) -> None:
        """And back."""
        self._restore(self._handle, self._context)

    def forget_code(self, address: int, size: int) -> None:
        """Drop translations of code at a linear address: it may have changed."""
        self._ctl(
            ctypes.c_void_p(self._handle), _REMOVE_CACHE, ctypes.c_uint64(address), ctypes.c_uint64(address + size)
        )

    def close(self) -> None:
        """End it. May be called twice."""
        if self._handle:
            self.context.release()
            self._library.uc_context_free(ctypes.c_void_p(self._context))
            self._library.uc_close(ctypes.c_void_p(self._handle))
            self._handle = 0

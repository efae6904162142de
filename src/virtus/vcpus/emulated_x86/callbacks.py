"""What Unicorn asks while it runs: whether a page may be used, whether to stop, and what to do about an exception.

The first is asked at every miss of its look-aside buffer, the second before every block; so they are machine code of
the host where the host is x86-64, and Python elsewhere. Source of the signatures: uc_cb_tlbevent_t, uc_tlb_entry,
uc_cb_hookcode_t and uc_cb_hookintr_t of unicorn.h.
"""

import ctypes
import platform
from typing import Any, Final

from virtus.host.machine_code import MachineCode
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.emulated_x86.library import Unicorn
from virtus.vcpus.emulated_x86.memory import PAGE, SPACE, AddressSpace
from virtus.vcpus.program_state import NO_VECTOR, READ

# bool fill(uc_engine *rdi, uint64_t address rsi, uc_mem_type kind edx, uc_tlb_entry *entry rcx, void *record r8)
FILL_CODE: Final = bytes.fromhex(
    "4889f0"  # mov    rax, rsi
    "48c1e82a"  # shr    rax, 42             SPACE
    "7528"  # jne    refused
    "4889f0"  # mov    rax, rsi
    "48c1e80c"  # shr    rax, 12
    "4d8b08"  # mov    r9, [r8]            the map of rights
    "410fb60401"  # movzx  eax, byte [r9+rax]
    "83e007"  # and    eax, 7
    "448d52f0"  # lea    r10d, [rdx-16]      READ
    "440fa3d0"  # bt     eax, r10d
    "730c"  # jnc    refused
    "488931"  # mov    [rcx], rsi          the physical address is the same
    "894108"  # mov    [rcx+8], eax
    "b801000000"  # mov    eax, 1
    "c3"  # ret
    "49897008"  # refused: mov [r8+8], rsi
    "49895010"  # mov    [r8+16], rdx
    "31c0"  # xor    eax, eax
    "c3"  # ret
)
# void block(uc_engine *rdi, uint64_t address rsi, uint32_t size edx, void *record rcx)
BLOCK_CODE: Final = bytes.fromhex(
    "803900"  # cmp    byte [rcx], 0       whether somebody wants a stop
    "7517"  # jne    stop
    "89f0"  # mov    eax, esi
    "25ff030000"  # and    eax, 1023           LOOP_SLOTS
    "c1e004"  # shl    eax, 4
    "48034110"  # add    rax, [rcx+16]
    "483930"  # cmp    [rax], rsi
    "7503"  # jne    done
    "ff6008"  # jmp    [rax+8]             with the same arguments
    "c3"  # done: ret
    "ff6108"  # stop: jmp [rcx+8]          uc_emu_stop(uc_engine *rdi)
)
LOOP_SLOTS: Final = 1024
"""Places for loops that are not Unicorn's, by the low bits of their address; each an address and a function."""
_FILL: Final = ctypes.CFUNCTYPE(
    ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_int, ctypes.POINTER(ctypes.c_uint64), ctypes.c_void_p
)
_BLOCK: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p)
_INTERRUPT: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p)
_INVALID: Final = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)


class Callbacks:
    """Hooks of one processor on one address space, and what they have seen last."""

    def __init__(self, unicorn: Unicorn, memory: AddressSpace) -> None:
        self._unicorn = unicorn
        self._memory = memory
        self._record = (ctypes.c_uint64 * 3)(memory.rights_address, 0, 0)
        record = ctypes.addressof(self._record)
        self.vector = NO_VECTOR
        self._kept: list[Any] = []
        self._loops = (ctypes.c_uint64 * (2 * LOOP_SLOTS))()
        self._stop = (ctypes.c_uint64 * 3)(0, unicorn.address_of("uc_emu_stop"), ctypes.addressof(self._loops))
        self.stop = ctypes.c_uint8.from_buffer(self._stop)
        """Not 0: the processor stops before the next block. Any thread may set it, where it must not call Unicorn's
        stop: that ends a block after any access to memory, and goes on at the block's beginning."""
        if platform.machine() == "x86_64":
            codes = [MachineCode(FILL_CODE), MachineCode(BLOCK_CODE)]
            self._kept += codes
            fill, block = (code.address for code in codes)
        else:
            fill, block = self._keep(_FILL(self._fill)), self._keep(_BLOCK(self._block))
        unicorn.hook(library.HOOK_TLB_FILL, fill, record)
        unicorn.hook(library.HOOK_BLOCK, block, ctypes.addressof(self._stop))
        unicorn.hook(library.HOOK_INTR, self._keep(_INTERRUPT(self._interrupt)))

    def set_loop(self, address: int, function: int) -> bool:
        """Have a function of the host called, as a block hook, before the block there; whether there is a place."""
        slot = 2 * (address % LOOP_SLOTS)
        if self._loops[slot]:
            return False
        self._loops[slot], self._loops[slot + 1] = address, function
        return True

    def clear_loop(self, address: int) -> None:
        """Take back what `set_loop` has set."""
        self._loops[2 * (address % LOOP_SLOTS)] = 0

    def take_vector(self) -> int:
        """The vector of the exception that stopped the processor (Intel SDM volume 3, 6.3.1), NO_VECTOR for none."""
        vector, self.vector = self.vector, NO_VECTOR
        return vector

    def take_refused(self) -> tuple[int, int] | None:
        """Page address and kind of the access that was refused last."""
        address, kind = self._record[1], self._record[2]
        self._record[2] = 0
        return (address, kind) if kind else None

    def _keep(self, callback: Any) -> int:
        self._kept.append(callback)
        return ctypes.cast(callback, ctypes.c_void_p).value or 0

    def _fill(self, _uc: int, address: int, kind: int, entry: Any, _data: int) -> bool:
        if address < SPACE:
            rights = self._memory.rights_of(address // PAGE) & 7
            if rights >> kind - READ & 1:
                entry[0] = address
                ctypes.cast(entry, ctypes.POINTER(ctypes.c_uint32))[2] = rights
                return True
        self._record[1], self._record[2] = address, kind
        return False

    def _block(self, uc: int, address: int, size: int, data: int) -> None:
        slot = 2 * (address % LOOP_SLOTS)
        if self.stop.value:
            self._unicorn.stop()
        elif self._loops[slot] == address:
            _BLOCK(self._loops[slot + 1])(uc, address, size, data)

    def _interrupt(self, _uc: int, vector: int, _data: int) -> None:
        self.vector = vector
        self._unicorn.stop()

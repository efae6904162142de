"""A process of one thread as a program that goes on where it stood: its memory in an ELF file, its registers, its
place.

As with checkpoints of batch systems (Condor; "unexec" of editors), the file's memory is mapped at the addresses where
it was, from the page cache, and copied where it is written. The program is a loader that does this: it moves the vDSO,
which the kernel lays out by chance, to where it was, and registers anew what the kernel keeps for a thread. Where
something of this fails, or a place is taken, it executes another program in its place. Good for processes without
other threads, children, memory that is shared and written, or descriptors but 0 to 2; and until the next boot: the vDSO
is this kernel's, and code that was chosen for the processor this processor's.

Sources: System V ABI, generic and AMD64 (ELF; initial stack); linux/fs/binfmt_elf.c; rseq(2), vdso(7).
"""

import ctypes
import mmap
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from virtus.host.direct_call import direct_call
from virtus.host.machine_code import MachineCode

PARK: Final = """
park:
  488d15f90f0000         # lea rdx, [rip + park + 4096]
  48891a                 # mov [rdx], rbx
  48896a08               # mov [rdx + 8], rbp
  4c896210               # mov [rdx + 16], r12
  4c896a18               # mov [rdx + 24], r13
  4c897220               # mov [rdx + 32], r14
  4c897a28               # mov [rdx + 40], r15
  48896230               # mov [rdx + 48], rsp
  b827000000             # mov eax, 39  ; getpid
  0f05                   # syscall
  89c7                   # mov edi, eax
  be13000000             # mov esi, 19  ; SIGSTOP
  b83e000000             # mov eax, 62  ; kill
  0f05                   # syscall
  31c0                   # xor eax, eax
  c3                     # ret
"""
LOAD: Final = """
load:
  4989e7                 # mov r15, rsp
  488d1df60f0000         # lea rbx, [rip + load + 4096]
  488d7b48               # lea rdi, [rbx + 72]  ; /proc/self/exe
  31f6                   # xor esi, esi
  31d2                   # xor edx, edx
  b802000000             # mov eax, 2  ; open
  0f05                   # syscall
  85c0                   # test eax, eax
  0f8854010000           # js failed
  4989c4                 # mov r12, rax
  4c8dab00080000         # lea r13, [rbx + 2048]
segment:
  498b7508               # mov rsi, [r13 + 8]
  4885f6                 # test rsi, rsi
  7429                   # jz mapped
  498b7d00               # mov rdi, [r13]
  498b5510               # mov rdx, [r13 + 16]
  4d8b5518               # mov r10, [r13 + 24]
  4d89e0                 # mov r8, r12
  4d8b4d20               # mov r9, [r13 + 32]
  b809000000             # mov eax, 9  ; mmap
  0f05                   # syscall
  4839f8                 # cmp rax, rdi
  0f851e010000           # jne failed
  4983c528               # add r13, 40
  ebce                   # jmp segment
mapped:
  4c89e7                 # mov rdi, r12
  b803000000             # mov eax, 3  ; close
  0f05                   # syscall
  bf02100000             # mov edi, 0x1002  ; ARCH_SET_FS
  488b7308               # mov rsi, [rbx + 8]
  b89e000000             # mov eax, 158  ; arch_prctl
  0f05                   # syscall
  85c0                   # test eax, eax
  0f85f6000000           # jnz failed
  488b7b10               # mov rdi, [rbx + 16]
  b8da000000             # mov eax, 218  ; set_tid_address
  0f05                   # syscall
  488b7b10               # mov rdi, [rbx + 16]
  8907                   # mov [rdi], eax
  488b7b18               # mov rdi, [rbx + 24]
  be18000000             # mov esi, 24
  b811010000             # mov eax, 273  ; set_robust_list
  0f05                   # syscall
  85c0                   # test eax, eax
  0f85cd000000           # jnz failed
  488b7b20               # mov rdi, [rbx + 32]
  4885ff                 # test rdi, rdi
  741c                   # jz auxiliary_vector
  be20000000             # mov esi, 32
  31d2                   # xor edx, edx
  41ba53300553           # mov r10d, 0x53053053  ; RSEQ_SIG
  b84e010000             # mov eax, 334  ; rseq
  0f05                   # syscall
  85c0                   # test eax, eax
  0f85a8000000           # jnz failed
auxiliary_vector:
  498b0f                 # mov rcx, [r15]
  498d74cf10             # lea rsi, [r15 + rcx*8 + 16]
environment:
  48ad                   # lodsq
  4885c0                 # test rax, rax
  75f9                   # jnz environment
entry:
  48ad                   # lodsq
  4889c2                 # mov rdx, rax
  48ad                   # lodsq
  83fa21                 # cmp edx, 33  ; AT_SYSINFO_EHDR
  7409                   # je found
  85d2                   # test edx, edx
  75f0                   # jnz entry
  e984000000             # jmp failed
found:
  4989c6                 # mov r14, rax
  4c3b7328               # cmp r14, [rbx + 40]
  7459                   # je done
  488b7b30               # mov rdi, [rbx + 48]  ; its place, taken by nobody
  488b7338               # mov rsi, [rbx + 56]
  31d2                   # xor edx, edx
  41ba22401000           # mov r10d, 0x104022  ; MAP_FIXED_NOREPLACE MAP_NORESERVE MAP_ANONYMOUS MAP_PRIVATE
  49c7c0ffffffff         # mov r8, -1
  4531c9                 # xor r9d, r9d
  b809000000             # mov eax, 9  ; mmap
  0f05                   # syscall
  4839f8                 # cmp rax, rdi
  7555                   # jne failed
  4c8d6b58               # lea r13, [rbx + 88]
move:
  498b7508               # mov rsi, [r13 + 8]
  4885f6                 # test rsi, rsi
  7426                   # jz done
  498b7d00               # mov rdi, [r13]
  4c01f7                 # add rdi, r14
  4889f2                 # mov rdx, rsi
  41ba03000000           # mov r10d, 3  ; MREMAP_FIXED MREMAP_MAYMOVE
  4d8b4510               # mov r8, [r13 + 16]
  b819000000             # mov eax, 25  ; mremap
  0f05                   # syscall
  4c39c0                 # cmp rax, r8
  7528                   # jne failed
  4983c518               # add r13, 24
  ebd1                   # jmp move
done:
  4c89f8                 # mov rax, r15
  488b13                 # mov rdx, [rbx]
  488b1a                 # mov rbx, [rdx]
  488b6a08               # mov rbp, [rdx + 8]
  4c8b6210               # mov r12, [rdx + 16]
  4c8b6a18               # mov r13, [rdx + 24]
  4c8b7220               # mov r14, [rdx + 32]
  4c8b7a28               # mov r15, [rdx + 40]
  488b6230               # mov rsp, [rdx + 48]
  c3                     # ret
failed:
  488b7b40               # mov rdi, [rbx + 64]
  498d7708               # lea rsi, [r15 + 8]
  498b0f                 # mov rcx, [r15]
  488d54ce08             # lea rdx, [rsi + rcx*8 + 8]
  b83b000000             # mov eax, 59  ; execve
  0f05                   # syscall
  bf7e000000             # mov edi, 126
  b8e7000000             # mov eax, 231  ; exit_group
  0f05                   # syscall
"""


def code_of(listing: str) -> bytes:
    """The machine code of a listing."""
    return bytes.fromhex("".join(line.partition("#")[0] for line in listing.split("\n") if "#" in line))


PAGE: Final = mmap.PAGESIZE
REGISTERS: Final = 7 * 8
"""Bytes that PARK stores."""
STACK_BYTES: Final = 8 << 20
"""What the stack may grow to."""
LARGEST: Final = 256 << 20
LOADER: Final = 0x5000_0000_0000
"""Where the loader is: above what guests use in a process with their kernel, below where Linux places anything. The
kernel lets the heap begin behind it: that must be below the process's own, or brk(2) seems to succeed there."""
WORDS: Final = struct.Struct("<9Q")
"""What LOAD reads first of its data: addresses of the saved registers, of the thread (base of FS), of its number, of
its list of robust mutexes, of its rseq area or 0; where the vDSO is to be; place and bytes of it with its data; and
the address of the fallback's name."""
OWN_NAME: Final = b"/proc/self/exe\0"
MOVE: Final = struct.Struct("<3Q")
"""Where a part of the vDSO is, from its base on; bytes; where it was."""
MAP: Final = struct.Struct("<5Q")
"""Arguments of mmap(2): address, bytes, protection, flags, offset in the file."""
NAME_AT, MOVES_AT, FALLBACK_AT, MAPS_AT = 72, 88, 256, 2048
MOST_MOVES: Final = (FALLBACK_AT - MOVES_AT) // MOVE.size - 1
MAP_FIXED, MAP_NORESERVE, MAP_FIXED_NOREPLACE = 0x10, 0x4000, 0x10_0000  # include/uapi/asm-generic/mman*.h
ARCH_GET_FS: Final = 0x1003  # arch/x86/include/uapi/asm/prctl.h
ARCH_PRCTL, GET_ROBUST_LIST = 158, 274  # arch/x86/entry/syscalls/syscall_64.tbl
PTHREAD_BYTES: Final = 4096
"""glibc's struct pthread begins at FS and is shorter."""
KERNEL: Final = 1 << 47
"""Addresses from here on are the kernel's: the vsyscall page."""
PROTECTION: Final = {"r": mmap.PROT_READ, "w": mmap.PROT_WRITE, "x": mmap.PROT_EXEC}
WINDOW: Final = 1 << 16
MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) [0-9a-f]+ \S+ \d+ *(.*)")

ET_EXEC, EM_X86_64, PT_LOAD, PT_GNU_STACK = 2, 62, 1, 0x6474E551  # System V ABI
PF_X, PF_W, PF_R = 1, 2, 4
ELF_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")


class NotPossible(Exception):
    """The process has something that a file cannot hold."""


@dataclass(frozen=True)
class Mapping:
    """A line of /proc/PID/maps (proc(5))."""

    start: int
    end: int
    permissions: str
    name: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start


def mappings(pid: int) -> list[Mapping]:
    """A process's memory below the kernel's, in order."""
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as stream:
        found = [MAPPING.fullmatch(line.rstrip("\n")) for line in stream]
    lines = [Mapping(int(each[1], 16), int(each[2], 16), each[3], each[4]) for each in found if each]
    return [line for line in lines if line.start < KERNEL]


class Parking:
    """Where a process stops to be written, and goes on when it has been started from its file."""

    def __init__(self) -> None:
        self._code = MachineCode(code_of(PARK), data=REGISTERS)
        self.park = self._code.function()
        """Stop this process (SIGSTOP). 0 when it is continued; in a process started from the file, the address of what
        the kernel put on its stack: the number of arguments, their addresses, 0, those of the environment, 0."""
        self._registers = self._code.address + PAGE
        base, head, size = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_uint64()
        direct_call(ARCH_PRCTL, ARCH_GET_FS, ctypes.addressof(base))
        direct_call(GET_ROBUST_LIST, 0, ctypes.addressof(head), ctypes.addressof(size))
        self._thread, self._robust_list, self._rseq = base.value, head.value, 0
        self._pid, self._struct = os.getpid(), ctypes.string_at(self._thread, PTHREAD_BYTES)
        libc = ctypes.CDLL(None)
        if hasattr(libc, "__rseq_offset"):  # since glibc 2.35, which registers one
            self._rseq = self._thread + ctypes.c_ssize_t.in_dll(libc, "__rseq_offset").value

    def thread(self, pid: int, memory: int) -> tuple[int, int, int, int, int]:
        """The addresses that LOAD wants first, of a child that is parked here, its memory open as `memory`. Raises
        NotPossible."""
        theirs = os.pread(memory, PTHREAD_BYTES, self._thread)
        pairs = zip(struct.iter_unpack("<I", self._struct), struct.iter_unpack("<I", theirs), strict=True)
        found = [number for number, pair in enumerate(pairs) if pair == ((self._pid,), (pid,))]
        if len(found) != 1:
            raise NotPossible(f"glibc keeps a thread's number at {len(found)} places")
        return self._registers, self._thread, self._thread + 4 * found[0], self._robust_list, self._rseq


def write(pid: int, parking: Parking, stream: BinaryIO, fallback: str) -> None:
    """Write a child that stands in `Parking.park` as a program.

    `fallback` is a program to execute in its place, with the same arguments, where going on fails. Raises NotPossible,
    OSError.
    """
    lines = mappings(pid)
    special = [line for line in lines if line.name.startswith("[v")]  # the vDSO and its data
    kept = [line for line in lines if line not in special and line.permissions[0] == "r"]  # no guard pages
    stack = next((line for line in kept if line.name == "[stack]"), None)
    if stack is None or any(line.permissions[1] == "w" and line.permissions[3] == "s" for line in kept):
        raise NotPossible("its stack is elsewhere, or it writes memory that others may have")
    if sum(line.size for line in kept) > LARGEST:
        raise NotPossible("it is too large")
    below = max((line.end for line in lines if line.end <= stack.start), default=0)
    low = max(stack.end - STACK_BYTES, below + PAGE)
    room = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE
    maps = [(low, stack.end - low, mmap.PROT_READ | mmap.PROT_WRITE, room, 0)]
    data_bytes = -(-(MAPS_AT + (len(kept) + 2) * MAP.size) // PAGE) * PAGE
    offset = 2 * PAGE + data_bytes
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for line in kept:
            protection = sum(bit for sign, bit in PROTECTION.items() if sign in line.permissions)
            flags = mmap.MAP_PRIVATE | (MAP_FIXED if line is stack else MAP_FIXED_NOREPLACE)
            maps.append((line.start, line.size, protection, flags, offset))
            for at, data in _pages(memory, line):
                stream.seek(offset + at)
                stream.write(data)
            offset += line.size
        words = parking.thread(pid, memory)
    finally:
        os.close(memory)
    stream.truncate(offset)
    stream.seek(0)
    stream.write(_headers(data_bytes).ljust(PAGE, b"\0") + code_of(LOAD).ljust(PAGE, b"\0"))
    stream.write(_data(words, special, fallback, maps).ljust(data_bytes, b"\0"))


def _pages(memory: int, line: Mapping) -> Iterator[tuple[int, bytes]]:
    """A mapping's contents but for zeros, which files need not hold, with where they are in it."""
    for at in range(0, line.size, WINDOW):
        wanted = min(WINDOW, line.size - at)
        data = os.pread(memory, wanted, line.start + at)
        if len(data) != wanted:
            raise NotPossible(f"{len(data)} of {wanted} bytes at {line.start + at:#x} can be read")
        if data.count(0) != wanted:
            yield at, data


def _data(
    thread: tuple[int, int, int, int, int],
    special: list[Mapping],
    fallback: str,
    maps: list[tuple[int, int, int, int, int]],
) -> bytes:
    """What LOAD reads."""
    base = next((line.start for line in special if line.name == "[vdso]"), 0)
    name = os.fsencode(fallback) + b"\0"
    if not base or len(special) > MOST_MOVES or len(name) > MAPS_AT - FALLBACK_AT:
        raise NotPossible("its vDSO is not as expected, or the fallback's name is too long")
    page = bytearray(MAPS_AT)
    whole = special[-1].end - special[0].start
    WORDS.pack_into(page, 0, *thread, base, special[0].start, whole, LOADER + PAGE + FALLBACK_AT)
    page[NAME_AT : NAME_AT + len(OWN_NAME)] = OWN_NAME
    page[FALLBACK_AT : FALLBACK_AT + len(name)] = name
    for number, line in enumerate(special):
        MOVE.pack_into(page, MOVES_AT + number * MOVE.size, (line.start - base) % (1 << 64), line.size, line.start)
    return bytes(page) + b"".join(MAP.pack(*each) for each in maps)


def _headers(data_bytes: int) -> bytes:
    """The loader's: its code, its data, and that its stack is not executable."""
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sizes = ELF_HEADER.size, PROGRAM_HEADER.size, 3, 64, 0, 0
    segments = (
        (PT_LOAD, PF_R | PF_X, PAGE, LOADER, LOADER, PAGE, PAGE, PAGE),
        (PT_LOAD, PF_R | PF_W, 2 * PAGE, LOADER + PAGE, LOADER + PAGE, data_bytes, data_bytes, PAGE),
        (PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16),
    )
    head = ELF_HEADER.pack(identity, ET_EXEC, EM_X86_64, 1, LOADER, ELF_HEADER.size, 0, 0, *sizes)
    return head + b"".join(PROGRAM_HEADER.pack(*segment) for segment in segments)

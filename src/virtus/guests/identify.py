"""What a file is that a user wants to run: a glance at its first bytes, and a clear word where it cannot be run."""

import os
import stat
import struct
from enum import Enum
from typing import Final

from virtus.errors import GuestNotFound, GuestNotRunnable
from virtus.records import StrPath, dataclass

HEAD_BYTES: Final = 9 << 12  # as far as a CD's first volume descriptor, and a multiboot header's last place
ELF_MACHINES: Final = {
    2: "SPARC", 3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC 64", 22: "S/390", 40: "ARM", 42: "SuperH",
    43: "SPARC 64", 50: "IA-64", 62: "x86-64", 183: "AArch64", 243: "RISC-V", 258: "LoongArch",
}  # fmt: skip
"""e_machine (System V gABI, chapter 4)."""
PE_MACHINES: Final = {0x14C: "i386", 0x8664: "x86-64", 0xAA64: "AArch64", 0x1C4: "ARM"}
"""IMAGE_FILE_HEADER.Machine (Microsoft PE format)."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are looked for when the guest's environment has no PATH."""
DECK_SUFFIX: Final = ".7070"
BOOT_MAGIC: Final = b"HdrS"  # at 0x202 of a bzImage (Documentation/arch/x86/boot.rst)
BOOT_MAGIC_AT: Final = 0x202
LOAD_FLAGS_AT: Final = 0x236  # xloadflags, from protocol 2.12 on
HAS_64_BIT_ENTRY: Final = 1  # XLF_KERNEL_64
KERNEL_SPACE: Final = 0xFFFFFFFF80000000  # __START_KERNEL_map: where x86-64 Linux is linked
MULTIBOOT: Final = (0x1BADB002, 8192)  # magic, and how far its header may lie (Multiboot 0.6.96, 3.1)
MULTIBOOT2: Final = (0xE85250D6, 32768)  # likewise (Multiboot2 2.0, 3.1.1)
BOOT_SECTOR: Final = (510, b"\x55\xaa")
PARTITIONS: Final = range(446, 510, 16)  # of a master boot record: status, CHS, type, CHS, first sector, sectors
PARTITION_STATUS: Final = (0, 0x80)
QCOW2: Final = b"QFI\xfb"
CD_DESCRIPTOR: Final = (0x8001, b"CD001")  # ECMA-119, 8.1


class Kind(Enum):
    """Kinds of guests."""

    ELF = "ELF program"
    SCRIPT = "script"
    PE = "Windows program"
    KERNEL = "kernel image"
    DECK = "IBM 7070 program"
    MULTIBOOT = "multiboot kernel"
    DISK = "disk image"
    CDROM = "CD image"


COMMANDS: Final = frozenset({Kind.ELF, Kind.SCRIPT})
"""What shells run by its name, and only from PATH."""


@dataclass(frozen=True, slots=True)
class Guest:
    """An identified guest."""

    path: str
    kind: Kind
    machine: str = ""  # ELF, PE and kernels: the processor
    bits: int = 0
    interpreter: str = ""  # scripts

    @property
    def is_native(self) -> bool:
        """Whether the host's processor and kernel interface are the guest's own."""
        return self.kind is Kind.SCRIPT or (self.kind is Kind.ELF and self.machine == "x86-64" and self.bits == 64)


def find(name: str, search: str, root: StrPath = "/", cwd: str = "/") -> str:
    """The host path of a command or file name as the guest's root has it; raises GuestNotFound.

    A name alone is a command, as in a shell: a program in `cwd` needs a path. Whatever no shell runs by its name, a
    kernel or a Windows program, is found there, too.
    """
    if "/" in name:
        path = _inside(root, os.path.join(cwd, name))
        if not os.path.lexists(path):
            raise GuestNotFound(f"running {name}", "no such file", "give the path of a program, or a command's name")
        return path
    for directory in search.split(":"):
        path = _inside(root, os.path.join(cwd, directory or ".", name))
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    path = _inside(root, os.path.join(cwd, name))
    remedy = "install it, or give a path"
    if os.path.isfile(path):
        try:
            if identify(path).kind not in COMMANDS:
                return path
            remedy = f"write ./{name} for the file here"
        except (GuestNotFound, GuestNotRunnable):
            pass  # something else of that name
    raise GuestNotFound(f"running {name}", "no such command in the guest's PATH", remedy)


def _inside(root: StrPath, path: str) -> str:
    """A guest path as a host path, symbolic links resolved within the root."""
    root = os.path.normpath(root)
    if root == "/":
        return path
    resolved, pending, hops = root, [part for part in path.split("/") if part], 0
    while pending:
        part = pending.pop(0)
        if part == "..":
            resolved = os.path.dirname(resolved) if resolved != root else root
            continue
        candidate = os.path.join(resolved, part)
        if os.path.islink(candidate) and hops < 40:  # MAXSYMLINKS
            hops += 1
            target = os.readlink(candidate)
            pending = [piece for piece in target.split("/") if piece and piece != "."] + pending
            if target.startswith("/"):
                resolved = root
        elif part != ".":
            resolved = candidate
    return resolved


def identify(path: StrPath) -> Guest:
    """What `path` is. Raises GuestNotFound (127) or GuestNotRunnable (126) with the remedy."""
    doing = f"running {path}"
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise GuestNotRunnable(doing, "a directory", "name a program in it")
        if not stat.S_ISREG(status.st_mode):
            raise GuestNotRunnable(doing, "not a regular file")
        with open(path, "rb") as stream:
            head = stream.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise GuestNotFound(doing, "no such file") from error
    except OSError as error:
        raise GuestNotRunnable(doing, error.strerror or str(error), f"chmod +r {path}") from error
    return classify(path, head, status.st_size)


def classify(path: StrPath, head: bytes, size: int) -> Guest:
    """The same from the first bytes and the size."""
    path = os.fspath(path)
    doing = f"running {path}"
    if not head:
        raise GuestNotRunnable(doing, "an empty file")
    if head.startswith(b"\x7fELF"):
        return _elf(path, head, size)
    if head.startswith(QCOW2):
        return Guest(path, Kind.DISK)
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        if not words:
            raise GuestNotRunnable(doing, "a script whose first line names no interpreter", "write #!/bin/sh there")
        return Guest(path, Kind.SCRIPT, interpreter=os.fsdecode(words[0]))
    if head[BOOT_MAGIC_AT : BOOT_MAGIC_AT + 4] == BOOT_MAGIC:
        return _bzimage(path, head)
    if head.startswith(b"MZ"):
        return _pe(path, head)
    if path.endswith(DECK_SUFFIX) or (b"\0" not in head and _is_deck(head)):
        return Guest(path, Kind.DECK, machine="IBM 7070")
    if head[CD_DESCRIPTOR[0] :].startswith(CD_DESCRIPTOR[1]):
        return Guest(path, Kind.CDROM)
    if _has_multiboot_header(head) and not _has_partitions(head):
        return Guest(path, Kind.MULTIBOOT, "i386", 32)
    if head[BOOT_SECTOR[0] :].startswith(BOOT_SECTOR[1]):
        return Guest(path, Kind.DISK)
    if b"\0" not in head:
        raise GuestNotRunnable(doing, "a text file without #!", f"put #!/bin/sh on its first line, or run sh {path}")
    raise GuestNotRunnable(doing, "no kind of guest that virtus knows (ELF, script, PE, kernel, disk or CD image)")


def _is_deck(head: bytes) -> bool:
    from virtus.guests.ibm7070_deck import is_deck  # only for texts: programs start without it

    return is_deck(head.split(b"\n", 1)[0].decode("utf-8", "replace"))


def _elf(path: str, head: bytes, size: int) -> Guest:
    doing = f"running {path}"
    if len(head) < 52 or size < 52:
        raise GuestNotRunnable(doing, "a truncated ELF file", "copy or build it again")
    bits, order = {1: 32, 2: 64}.get(head[4], 0), {1: "<", 2: ">"}.get(head[5], "")
    if not bits or not order:
        raise GuestNotRunnable(doing, "a damaged ELF file: unknown class or byte order", "copy or build it again")
    kind, machine = struct.unpack_from(order + "HH", head, 16)
    name = ELF_MACHINES.get(machine, f"processor {machine}")
    if name == "i386" and _has_multiboot_header(head):
        return Guest(path, Kind.MULTIBOOT, name, bits)
    if name == "x86-64" and _is_linked_as_kernel(head):
        return Guest(path, Kind.KERNEL, name, bits)
    if kind not in (2, 3):  # ET_EXEC, ET_DYN
        raise GuestNotRunnable(doing, "an ELF file, but no program", "link it first")
    return Guest(path, Kind.ELF, name, bits)


def _bzimage(path: str, head: bytes) -> Guest:
    """A kernel for x86-64 is one with an entry for 64-bit loaders."""
    flags = struct.unpack_from("<H", head, LOAD_FLAGS_AT)[0] if len(head) >= LOAD_FLAGS_AT + 2 else 0
    bits = 64 if flags & HAS_64_BIT_ENTRY else 32
    return Guest(path, Kind.KERNEL, "x86-64" if bits == 64 else "i386", bits)


def _is_linked_as_kernel(head: bytes) -> bool:
    """Whether a 64-bit ELF file's first loadable segment lies where x86-64 Linux does."""
    start, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    for at in range(start, min(start + size * count, len(head) - 56 + 1), max(size, 56)):
        kind, _, _, address = struct.unpack_from("<IIQQ", head, at)
        if kind == 1:  # PT_LOAD
            return bool(address >= KERNEL_SPACE)
    return False


def _has_multiboot_header(head: bytes) -> bool:
    for magic, end in (MULTIBOOT, MULTIBOOT2):
        word = struct.pack("<I", magic)
        at = head.find(word, 0, end)
        while at >= 0:
            fields = struct.unpack_from("<4I", head, at) if at + 16 <= len(head) else (0,) * 4
            summed = sum(fields[:3]) if magic == MULTIBOOT[0] else sum(fields)
            if at % 4 == 0 and fields[0] and summed & 0xFFFFFFFF == 0:
                return True
            at = head.find(word, at + 1, end)
    return False


def _has_partitions(head: bytes) -> bool:
    """Whether this is a disk with a partition table: behind that GRUB's image may lie, which has a multiboot header."""
    if len(head) < PARTITIONS.stop or not head[BOOT_SECTOR[0] :].startswith(BOOT_SECTOR[1]):
        return False
    entries = [struct.unpack_from("<B3xB3x4xI", head, at) for at in PARTITIONS]
    return all(status in PARTITION_STATUS for status, _, _ in entries) and any(
        kind and size for _, kind, size in entries
    )


def _pe(path: str, head: bytes) -> Guest:
    doing = f"running {path}"
    if len(head) < 0x40:
        raise GuestNotRunnable(doing, "a truncated DOS or Windows program")
    at = struct.unpack_from("<I", head, 0x3C)[0]
    if head[at : at + 4] != b"PE\0\0" or len(head) < at + 6:
        raise GuestNotRunnable(doing, "a DOS program, or a damaged Windows program")
    machine = struct.unpack_from("<H", head, at + 4)[0]
    return Guest(path, Kind.PE, PE_MACHINES.get(machine, f"processor {machine:#x}"))

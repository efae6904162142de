"""A kernel of a few hundred bytes for machines of virtio: it does what is typed, a letter each. Needs GNU as and ld.

c  count, and say whether it agrees in a register and in memory      q  power off      t  triple fault
w  write number after number to the first disk, flushing after each, and show those that are certain, until it is ended
x  have the disk read into the machine's tables, then say whether the device needs a reset
"""

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

from virtus.guests import elf
from virtus.guests.identify import KERNEL_SPACE
from virtus.personalities.virtual_pc.boot import NOTE_PVH

START: Final = 0x100000

SOURCE = """
.intel_syntax noprefix
.text
.set DISK, 0xD0000000
.set TABLE, 0x200000
.set AVAILABLE, 0x201000
.set USED, 0x202000
.set REQUEST, 0x203000
.set DATA, 0x204000
.set STATUS, 0x205000
start:
  mov esp, 0x300000
  xor esi, esi
  lea edi, [ready]
  call say
again:
  inc esi
  inc dword ptr [counter]
  mov edx, 0x3FD
  in al, dx
  test al, 1
  jz again
  mov edx, 0x3F8
  in al, dx
  cmp al, 'c'
  je count
  cmp al, 'q'
  je off
  cmp al, 't'
  je fault
  cmp al, 'w'
  je writes
  cmp al, 'x'
  je hostile
  jmp again
count:
  lea edi, [differ]
  cmp esi, [counter]
  jne 1f
  lea edi, [agree]
1:call say
  mov eax, esi
  call number
  jmp again
off:
  mov edx, 0x604
  mov al, 0x34
  out dx, al
1:hlt
  jmp 1b
fault:
  lidt [nothing]
  ud2
say:                         # the text at edi
  mov edx, 0x3F8
1:mov al, [edi]
  test al, al
  jz 2f
  out dx, al
  inc edi
  jmp 1b
2:ret
number:                      # eax, in eight digits of base 16, and a new line
  mov ecx, 8
  mov edx, 0x3F8
1:rol eax, 4
  push eax
  and al, 15
  add al, 'A'
  out dx, al
  pop eax
  loop 1b
  mov al, 10
  out dx, al
  ret
disk:                        # get the disk going
  mov ebx, DISK
  mov dword ptr [ebx+0x70], 0
  mov dword ptr [ebx+0x70], 3
  mov dword ptr [ebx+0x24], 0
  mov dword ptr [ebx+0x20], 0x200
  mov dword ptr [ebx+0x24], 1
  mov dword ptr [ebx+0x20], 1
  mov dword ptr [ebx+0x70], 11
  mov dword ptr [ebx+0x30], 0
  mov dword ptr [ebx+0x38], 8
  mov dword ptr [ebx+0x80], TABLE
  mov dword ptr [ebx+0x90], AVAILABLE
  mov dword ptr [ebx+0xA0], USED
  mov dword ptr [ebx+0x44], 1
  mov dword ptr [ebx+0x70], 15
  mov dword ptr [TABLE], REQUEST
  mov dword ptr [TABLE+8], 16
  mov dword ptr [TABLE+16], DATA
  mov dword ptr [TABLE+24], 512
  mov dword ptr [TABLE+32], STATUS
  mov dword ptr [TABLE+40], 1
  mov dword ptr [TABLE+44], 2
  ret
request:                     # of the kind eax, for sector edx; ecx: flags and next of the head, edi: of the data
  mov [REQUEST], eax
  mov [REQUEST+8], edx
  mov [TABLE+12], ecx
  mov [TABLE+28], edi
  mov byte ptr [STATUS], 255
  inc word ptr [AVAILABLE+2]
  mov dword ptr [DISK+0x50], 0
1:pause
  mov ax, [USED+2]
  test dword ptr [DISK+0x70], 64
  jnz 2f
  cmp ax, [AVAILABLE+2]
  jne 1b
2:ret
writes:
  call disk
  xor esi, esi
1:inc esi
  mov [DATA], esi
  mov edx, esi
  and edx, 1023
  mov eax, 1
  mov ecx, 0x10001
  mov edi, 0x20001
  call request
  cmp byte ptr [STATUS], 0
  jne 3f
  mov eax, 4
  xor edx, edx
  mov ecx, 0x20001
  call request
  cmp byte ptr [STATUS], 0
  jne 3f
  mov eax, esi
  call number
  jmp 1b
3:lea edi, [refused]
  call say
  jmp again
hostile:
  call disk
  mov dword ptr [TABLE+16], 0xE0000
  xor eax, eax
  xor edx, edx
  mov ecx, 0x10001
  mov edi, 0x20003
  call request
  lea edi, [served]
  test dword ptr [DISK+0x70], 64
  jz 1f
  lea edi, [broken]
1:call say
  jmp again
counter: .long 0
nothing: .quad 0
ready: .asciz "ready\\n"
agree: .asciz "agree "
differ: .asciz "differ "
refused: .asciz "refused\\n"
served: .asciz "served\\n"
broken: .asciz "needs reset\\n"
"""


def kernel(place: Path) -> Path:
    """The kernel, as an ELF file in a directory; skips where it cannot be made."""
    if shutil.which("as") is None or shutil.which("ld") is None:
        pytest.skip("no kernel to boot: GNU as and ld are not installed (Debian: binutils)")
    source, made, binary, image = (place / f"tiny.{suffix}" for suffix in ("s", "o", "bin", "elf"))
    source.write_text(SOURCE)
    subprocess.run(["as", "--32", source, "-o", made], check=True)
    words: list[str | Path] = [
        "ld",
        "-m",
        "elf_i386",
        "-N",
        "-Ttext",
        hex(START),
        "--oformat",
        "binary",
        made,
        "-o",
        binary,
    ]
    subprocess.run([*words, "-e", hex(START)], check=True, stderr=subprocess.DEVNULL)
    code = binary.read_bytes()
    note = struct.pack("<III4sI", 4, 4, NOTE_PVH, b"Xen\0", START)
    head = struct.pack("<16sHHIQQQIHHHHHH", elf.MAGIC + bytes((2, 1, 1)), 2, 62, 1, START, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    note_at, code_at = 64 + 2 * 56, 4096
    head += struct.pack("<IIQQQQQQ", 1, 7, code_at, KERNEL_SPACE + START, START, len(code), len(code), 4096)
    head += struct.pack("<IIQQQQQQ", 4, 4, note_at, 0, 0, len(note), len(note), 4)
    image.write_bytes((head + note).ljust(code_at, b"\0") + code)
    return image

"""Scan before execution beside QEMU's translation and the bare processor: `python -m benchmarks.prescan`.

usage: python -m benchmarks.prescan [--rounds N] [--system-rounds N] [--document]

Each guest is a few instructions in flat protected mode, assembled here by GNU as: for the monitor as they are, for
QEMU behind a multiboot header, for the processor itself as a program where nothing in them is privileged. Rounds are
interleaved; the best of each counts, start-up taken off by a guest that does nothing. What is compared is processor
time, user's and system's, of all processes that take part: other work on the machine shows less in that.
"""

import argparse
import resource
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import prescan_system
from benchmarks.published import DOCS, Published
from virtus.exits import Reason
from virtus.machine.machine_spec import MIB, MachineSpec
from virtus.machine.vm_driver import VmDriver
from virtus.vcpus.scanned import cpu_state
from virtus.vcpus.scanned.interrupts import NoInterrupts

START: Final = 0x100000
END_PORT: Final = 0xF4
FLAT_CODE, FLAT_DATA = 0xC09B, 0xC093  # attributes of flat 32-bit segments (Intel SDM volume 3A, 3.4.5)
QEMU: Final = "qemu-system-i386"
MULTIBOOT: Final = ".align 4; .long 0x1BADB002, 0, -0x1BADB002"

GUESTS: Final = {
    "nothing": "nop",
    "compute, 10^8 rounds": """
        mov $100000000, %ecx; mov $12345, %eax; xor %edx, %edx
        1: imul $1103515245, %eax, %eax; add $12345, %eax; mov %eax, %ebx; shr $8, %ebx; and $1023, %ebx
        add table(, %ebx, 4), %edx; mov %edx, table(, %ebx, 4); dec %ecx; jnz 1b""",
    "calls, 3 * 10^7": "mov $30000000, %ecx; jmp 1f; 2: ret; 1: call 2b; dec %ecx; jnz 1b",
    "sorting 32768 words": """
        mov $32768, %ecx; mov $12345, %eax; mov $words, %edi
        1: imul $1103515245, %eax, %eax; add $12345, %eax; mov %eax, (%edi); add $4, %edi; dec %ecx; jnz 1b
        mov $words + 4, %esi
        2: mov (%esi), %eax; mov %esi, %edi
        3: cmp $words, %edi; je 4f; mov -4(%edi), %edx; cmp %eax, %edx; jbe 4f
        mov %edx, (%edi); sub $4, %edi; jmp 3b
        4: mov %eax, (%edi); add $4, %esi; cmp $words + 131072, %esi; jne 2b""",
    "150000 pushf, cli, popf": "mov $50000, %ecx; 1: pushf; pop %eax; cli; push %eax; popf; dec %ecx; jnz 1b",
}
PUBLISHED: Final = Published(DOCS / "prescan.md", "prescan")
LEAST_MS: Final = 20
"""Less is too little to be compared with."""
PRIVILEGED: Final = {"150000 pushf, cli, popf"}
END: Final = {"guest": f"out %al, ${END_PORT}; 9: hlt; jmp 9b", "native": "mov $1, %eax; xor %ebx, %ebx; int $0x80"}


def build(source: str, directory: Path, kind: str) -> Path:
    """An ELF of a guest at START, for QEMU and the monitor ("guest") or the processor itself ("native")."""
    name = f"{abs(hash((source, kind)))}"
    text = f".code32\n.globl _start\n.text\n{MULTIBOOT}\n_start: mov $stack, %esp\n{source}\n{END[kind]}\n"
    text += ".data\n.align 4096\ntable: .fill 1024, 4, 1\n.fill 1024, 4, 0\nstack: .long 0\n"
    text += "words: .fill 32768, 4, 0\n"
    (directory / f"{name}.s").write_text(text)
    subprocess.run(["as", "--32", f"{name}.s", "-o", f"{name}.o"], cwd=directory, check=True)
    link = ["ld", "-m", "elf_i386", "-z", "noexecstack", "-Ttext", hex(START), f"{name}.o", "-o", name]
    subprocess.run(link, cwd=directory, check=True, stderr=subprocess.DEVNULL)
    return directory / name


def monitored(program: Path) -> None:
    """Run it under the monitor."""
    driver = VmDriver(MachineSpec(program, memory=64 * MIB))
    try:
        entry = load(program.read_bytes(), driver.memory.bytes)
        vcpu = driver.start(NoInterrupts())
        state = vcpu.state
        state.cr0, state.eip = cpu_state.CR0_PE | cpu_state.CR0_ET, entry
        for number, segment in enumerate(state.segments):
            segment.load(8, 0, 0xFFFF_FFFF, FLAT_CODE if number == cpu_state.CS else FLAT_DATA)
        while True:
            found = vcpu.run()
            if found.reason is Reason.PORT_IO and found.number == END_PORT:
                return
            if found.reason is not Reason.EVENT:
                raise RuntimeError(f"{found.reason.value}\n{state.describe()}")
    finally:
        driver.close()


def load(image: bytes, memory: memoryview) -> int:
    """Put an ELF's segments into physical memory; its entry (ELF-32: gABI, chapters 4 and 5)."""
    entry, headers = struct.unpack_from("<II", image, 24)
    (count,) = struct.unpack_from("<H", image, 44)
    for number in range(count):
        kind, offset, _, address, size = struct.unpack_from("<5I", image, headers + 32 * number)
        if kind == 1:
            memory[address : address + size] = image[offset : offset + size]
    found: int = entry
    return found


def emulated(program: Path) -> None:
    """Run it under QEMU's translator."""
    words = [QEMU, "-accel", "tcg", "-m", "64", "-display", "none", "-kernel", str(program)]
    subprocess.run([*words, "-device", f"isa-debug-exit,iobase={END_PORT},iosize=1"], timeout=300)


def native(program: Path) -> None:
    """Run it as a program."""
    subprocess.run([str(program)], check=True, timeout=300)


def processor_time() -> float:
    """Seconds of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(rounds: int, ways: dict[str, tuple[str, Callable[[Path], None]]]) -> dict[tuple[str, str], float]:
    """Least seconds by guest and way, interleaved."""
    best: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(rounds):
            for guest, source in GUESTS.items():
                for way, (kind, run) in ways.items():
                    if way == "native" and guest in PRIVILEGED:
                        continue
                    program = build(source, Path(name), kind)
                    before = processor_time()
                    run(program)
                    took = processor_time() - before
                    best[guest, way] = min(took, best.get((guest, way), took))
    return best


def table(guests: dict[tuple[str, str], float], systems: dict[tuple[str, str], float], ways: list[str]) -> str:
    """In Markdown: milliseconds, and what prescan takes as multiples of the others."""
    rows = [
        (
            guest,
            {way: 1000 * max(guests[guest, way] - guests["nothing", way], 0) for way in ways if (guest, way) in guests},
        )
        for guest in GUESTS
        if guest != "nothing"
    ]
    rows.insert(0, ("start and end", {way: 1000 * guests["nothing", way] for way in ways}))
    parts = dict.fromkeys(part for part, _ in systems)
    rows += [(part, {way: 1000 * systems[part, way] for way in ways if (part, way) in systems}) for part in parts]
    others = [way for way in ways if way != "prescan"]
    lines = [f"| ms | {' | '.join(ways)} | {' | '.join(f'times {way}' for way in others)} |"]
    lines.append("|---|" + "---|" * (len(ways) + len(others)))
    for name, took in rows:
        cells = [f"{took[way]:.1f}" if way in took else "-" for way in ways]
        cells += [f"{took['prescan'] / took[way]:.2f}" if took.get(way, 0) >= LEAST_MS else "-" for way in others]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--system-rounds", type=int, default=2, help="of Linux; 0 leaves it out")
    parser.add_argument("--document", action="store_true", help="put the table into docs/prescan.md")
    options = parser.parse_args()
    ways: dict[str, tuple[str, Callable[[Path], None]]] = {
        "prescan": ("guest", monitored),
        "native": ("native", native),
    }
    if shutil.which(QEMU):
        ways["QEMU TCG"] = ("guest", emulated)
    guests = measure(options.rounds, ways)
    systems = prescan_system.measure(options.system_rounds, qemu="QEMU TCG" in ways)
    found = table(guests, systems, list(ways))
    print(found)
    if options.document:
        PUBLISHED.put(found)


if __name__ == "__main__":
    main()

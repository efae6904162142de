"""The paper's claims on emulation (section 2.1, and on WABI in 2.2), measured again; a part of benchmarks.claims."""

import io
import json
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import emulated_programs
from benchmarks.emulated_programs import STEADY, NotBuildable
from benchmarks.emulation import ALL as CANDIDATES
from benchmarks.emulation import COLD, FIRST_OUTPUT, OURS, Caches, Candidate, steady_us
from benchmarks.emulation import start_s as timed_start
from benchmarks.installed import virtus
from virtus.comparison.measure import measure
from virtus.guests import elf
from virtus.techniques import ibm7070, registry
from virtus.vcpus.translator import baseline, layout
from virtus.vcpus.translator.llvm.compile import optimise
from virtus.vcpus.translator.llvm.flow import Shape, explore
from virtus.vcpus.translator.llvm.request import Request

DECK: Final = Path(__file__).parent.parent / "examples" / "ibm7070" / "payroll.7070"
CARDS: Final = DECK.with_suffix(".cards")
CYCLE_S: Final = 6e-6
"""A cycle of the IBM 7070; where its times come from says isa/ibm7070/timing.py."""
COMPUTING: Final = ("fib", "sieve", "matmul", "sha256", "bytecode", "coremark_like", "lua_mix")
TRANSLATED: Final = "coremark_like"
DIRECT, SAME_KERNEL = "seccomp", "uml-skas"
RUNS: Final = 3
STARTS: Final = 5
MOST_INSTRUCTIONS: Final = 8000
"""In one unit, as ahead of time."""
FETCHED: Final = 1024
_OPCODE: Final = re.compile(r"^\s*[0-9a-f]+:\t", re.MULTILINE)


def _virtus(technique: str, *argv: str) -> list[str]:
    return virtus("run", "--with", technique, "--", *argv)


def architecture() -> dict[str, str]:
    """Emulation may change the architecture, virtualization may not; and an IBM 7070's program goes on running."""
    hello = str(emulated_programs.build("hello"))
    runs: list[str] = []
    refused: list[str] = []
    for name in registry.names():
        if registry.get(name).probe().works:
            done = subprocess.run(_virtus(name, hello), capture_output=True, check=False)
            (runs if done.stdout == b"hello\n" and done.returncode == 0 else refused).append(name)
    return {
        "architecture": f"{', '.join(runs)}; refused by {', '.join(sorted(refused))}",
        "ibm7070": _deck(),
    }


def _deck() -> str:
    """How long the machine of 1960 had for a payroll, and how long it takes here."""
    took = []
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as directory:
        report = Path(directory) / "meter.json"
        command = virtus("run", "--meter-json", str(report), str(DECK))
        for _ in range(RUNS):
            subprocess.run([*command, "--cards", str(CARDS)], check=True, capture_output=True)
            data: dict[str, Any] = json.loads(report.read_text())
            took.append(data["wall_s"])
    then = data["details"]["cycles"] * CYCLE_S
    now = statistics.median(took)
    return f"{then:.1f} s on the machine, its devices included, {now:.2f} s here, without the start of Python"


@dataclass
class _Made:
    """What a translator made of some guest code."""

    instructions: int = 0
    seconds: float = 0.0
    guest_bytes: int = 0
    code: bytearray = field(default_factory=bytearray)

    def add(self, instructions: int, seconds: float, guest_bytes: int, code: bytes) -> None:
        self.instructions += instructions
        self.seconds += seconds
        self.guest_bytes += guest_bytes
        self.code += code

    def expansion(self) -> str:
        host = _host_instructions(bytes(self.code)) / self.instructions
        return f"{host:.1f} ({len(self.code) / self.instructions:.0f} bytes)"


def _host_instructions(code: bytes) -> int:
    """As binutils' disassembler counts them. The few constants that LLVM puts beside its code count as well."""
    if shutil.which("objdump") is None:
        raise NotBuildable("host instructions are counted by objdump, which is not installed (Debian: binutils)")
    with tempfile.NamedTemporaryFile(prefix="virtus-claims-") as file:
        file.write(code)
        file.flush()
        command = ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "--no-show-raw-insn", file.name]
        listed = subprocess.run(command, check=True, capture_output=True, text=True)
    return len(_OPCODE.findall(listed.stdout))


Code = tuple[tuple[int, bytes], ...]


def _fetched(code: Code, address: int, size: int) -> bytes:
    for start, data in code:
        if 0 <= address - start < len(data):
            return data[address - start : address - start + size]
    return b""


def _functions(isa: Any, code: Code, entry: int) -> Iterator[Shape]:
    """What can be found from an entry by calls and by addresses in code."""
    todo, seen = [entry], set[int]()
    while todo:
        pc = todo.pop(0)
        if pc in seen or not _fetched(code, pc, isa.longest):
            continue
        shape = explore(isa, lambda at: _fetched(code, at, isa.longest), pc, {}, MOST_INSTRUCTIONS)
        if shape.instructions:
            seen |= shape.instructions.keys()
            yield shape
            todo += sorted(shape.calls | shape.mentioned)


def _at_once(isa: Any, code: Code, starts: Iterable[int]) -> _Made:
    made, done = _Made(), set[int]()
    for pc in starts:
        if pc in done or not _fetched(code, pc, isa.longest):
            continue
        begin = time.perf_counter()
        unit = baseline.translate(
            isa, lambda at: _fetched(code, at, FETCHED), pc, place=layout.CODE, counter=lambda: 0, known=done
        )
        took = time.perf_counter() - begin
        done |= {address for _, address in unit.map}
        made.add(len(unit.map), took, sum(high - low for low, high in unit.covers), unit.code)
    return made


def _optimised(isa: Any, code: Code, shapes: list[Shape]) -> _Made:
    made = _Made()
    optimise(isa, Request(0, isa.name, shapes[0].entry, code))  # LLVM itself gets loaded
    for shape in shapes:
        begin = time.perf_counter()
        unit, instructions = optimise(isa, Request(0, isa.name, shape.entry, code))
        took = time.perf_counter() - begin
        made.add(instructions, took, sum(high - low for low, high in unit.covers), unit.blob)
    return made


def _riscv64() -> tuple[Any, Code, int]:
    from virtus.isa.riscv64 import RISCV64

    data = emulated_programs.build(TRANSLATED).read_bytes()
    program = elf.parse(data[:4096], len(data))
    code = tuple(
        (segment.address, data[segment.offset : segment.offset + segment.file_size])
        for segment in program.segments
        if segment.flags & elf.PF_X
    )
    return RISCV64, code, program.entry


def _payroll() -> tuple[Any, Code, list[int]]:
    """The deck's words, and the addresses of those that a run carries out."""
    from virtus.isa.ibm7070 import IBM7070
    from virtus.isa.ibm7070.layout import CORE, WORD

    words = ibm7070.load(str(DECK)).words
    code = tuple((CORE + at * WORD, word.to_bytes(WORD, "little")) for at, word in sorted(words.items()))
    trace = io.StringIO()
    spec = ibm7070.DeckSpec(str(DECK), cards=str(CARDS), trace=True)
    ibm7070.run_deck(spec, out=io.StringIO(), console=io.StringIO(), trace=trace)
    locations = dict.fromkeys(int(line.split()[0]) for line in trace.getvalue().splitlines())
    return IBM7070, code, [CORE + at * WORD for at in locations]


def instructions() -> dict[str, str]:
    """Each old instruction becomes new ones: how many, and how long that takes."""
    isa, code, entry = _riscv64()
    shapes = list(_functions(isa, code, entry))
    at_once = _at_once(isa, code, (pc for shape in shapes for pc in (shape.entry, *sorted(shape.leaders))))
    optimised = _optimised(isa, code, shapes)
    old = _at_once(*_payroll())
    return {
        "instructions at once": at_once.expansion(),
        "instructions optimised": optimised.expansion(),
        "instructions ibm7070": old.expansion(),
        "instructions old": f"{old.instructions:,}",
        "instructions found": f"{at_once.instructions:,}",
        "instructions guest bytes": f"{at_once.guest_bytes / at_once.instructions:.1f}",
        "translating at once": f"{at_once.seconds / at_once.instructions * 1e6:.0f}",
        "translating optimised": f"{optimised.seconds / optimised.instructions * 1e6:.0f}",
    }


def _native_under(technique: str) -> Candidate:
    return Candidate(technique, lambda name, words: _virtus(technique, *_candidate("native").command(name, words)))


def _candidate(name: str) -> Candidate:
    return next(each for each in CANDIDATES if each.name == name)


def direct() -> dict[str, str]:
    """Virtualization, with its direct access, is faster: the same sources native, under one of its ways, emulated."""
    candidates = (_candidate("native"), _native_under(DIRECT), _candidate(OURS))
    ratios: dict[str, dict[str, float]] = {DIRECT: {}, OURS: {}}
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as directory:
        base = Path(directory)
        environment = Caches(base).environment(empty=False)
        for name in COMPUTING:
            command = _candidate(OURS).command(name, (str(STEADY[name]),))
            measure(command, environment, base)  # translations come to be kept
            rounds: dict[str, list[float]] = {each.name: [] for each in candidates}
            for _ in range(RUNS):
                for each in candidates:
                    run = measure(each.command(name, (str(STEADY[name]),)), environment, base)
                    rounds[each.name].append(steady_us(run.stderr))
            for technique, found in ratios.items():
                pairs = zip(rounds[technique], rounds["native"], strict=True)
                found[name] = statistics.median(own / least for own, least in pairs)
    figures = {f"direct {technique}": _of_all(found) for technique, found in ratios.items()}
    figures["direct programs"] = ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios[OURS].items())
    return figures


def _of_all(found: dict[str, float]) -> str:
    values = list(found.values())
    return f"{statistics.geometric_mean(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def first_output() -> dict[str, str]:
    """Translating comes before computing: until a large program's first byte, in milliseconds."""
    candidates = (_candidate("native"), _native_under(SAME_KERNEL), _candidate(OURS), _candidate(COLD))
    found: dict[str, list[float]] = {each.name: [] for each in candidates}
    with tempfile.TemporaryDirectory(prefix="virtus-claims-") as directory:
        caches = Caches(Path(directory))
        for turn in range(STARTS + 1):
            for each in candidates:
                command = each.command(FIRST_OUTPUT[0], FIRST_OUTPUT[1:])
                first, _ = timed_start(command, caches.environment(empty=each.empty))
                if turn:
                    found[each.name].append(first * 1e3)
    names = {OURS: "kept", COLD: "anew"}
    medians = {names.get(name, name): statistics.median(values) for name, values in found.items()}
    return {f"first-output {name}": f"{median:.0f}" for name, median in medians.items()}


CLAIMS: Final = {
    "architecture": architecture,
    "instructions": instructions,
    "direct": direct,
    "first-output": first_output,
}

"""An IBM 7070 with its programs: Autocoder source or object decks, on a machine in this process."""

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any, Final, TextIO

from virtus.devices.card_punch import CardPunch
from virtus.devices.card_reader import CardReader
from virtus.devices.line_printer import LinePrinter
from virtus.devices.tape import Reel
from virtus.devices.typewriter import Typewriter
from virtus.errors import GuestNotFound, GuestNotRunnable, UsageError
from virtus.guests import ibm7070_deck
from virtus.guests.ibm7070_deck import Program
from virtus.isa.ibm7070 import IBM7070, layout
from virtus.isa.ibm7070.characters import Arrangement as Characters
from virtus.isa.ibm7070.decode import decode_word, show_instruction
from virtus.isa.ibm7070.machine import constants
from virtus.machine.loop import run
from virtus.machine.meter import Meter, Report
from virtus.machine.spec import GuestSpec
from virtus.personalities.ibm7070.personality import SWITCHES, Equipment, Ibm7070Machine
from virtus.records import dataclass, field
from virtus.vcpus.resident import ResidentVcpu
from virtus.vcpus.resident_memory import Arrangement

NAME: Final = "emulation"
LARGEST: Final = 16 << 20
"""Bytes of a source or deck."""
ARRANGEMENT: Final = Arrangement(
    start=layout.CORE,
    size=layout.SIZE,
    locations=layout.LOCATIONS,
    storage=layout.STORAGE,
    covered=layout.COVERED,
    registers={address: layout.AC1 + number - 1 for address, number in layout.ACCUMULATOR_ADDRESSES.items()},
    register_addressed=layout.REGISTER_ADDRESSED,
    modified=layout.MODIFIED,
    resolve=layout.RESOLVE,
    operand=layout.OPERAND,
    illegal=layout.INVALID_OPERATION,
    no_such_location=layout.NO_SUCH_LOCATION,
)


@dataclass(frozen=True, slots=True)
class DeckSpec:
    """A program for the 7070 and what is attached to the machine.

    `printer` and `punch` are files to be written; without a printer file lines go to standard output, and without a
    punch file there is no punch. `cards` is a file of cards to read, else those behind the program in its deck.
    `tapes` has files by channel and unit (10 to 49), `switches` the alteration switches that are on (1 to 4). What the
    typewriter types goes to standard error; `keyboard` is a file with lines that are typed.
    """

    path: str
    cards: str | None = None
    printer: str | None = None
    punch: str | None = None
    keyboard: str | None = None
    tapes: Mapping[int, str] = field(default_factory=dict)
    read_only_tapes: frozenset[int] = frozenset()
    switches: frozenset[int] = frozenset()
    characters: Characters = "commercial"
    interpret: bool = False
    trace: bool = False


OPTIONS: Final = ("cards", "printer", "punch", "keyboard", "tapes", "switches", "characters", "interpret", "trace")
"""What `GuestSpec.extra` may say for a deck."""


def deck_of(spec: GuestSpec) -> DeckSpec:
    """A guest and its options, as words, for this machine: `tapes` are UNIT=FILE[:ro] and `switches` numbers, parted by
    commas. Raises UsageError.
    """
    words = {name: value for name, value in spec.extra.items() if value}
    tapes: dict[int, str] = {}
    protected: set[int] = set()
    for word in words.pop("tapes", "").split(","):
        number, equals, path = word.partition("=")
        if word and not (equals and number.isascii() and number.isdigit() and path):
            raise UsageError("mounting tapes", f"{word!r} is not of the form UNIT=FILE[:ro]")
        if word:
            tapes[int(number)] = path.removesuffix(":ro")
            protected |= {int(number)} if path.endswith(":ro") else set()
    switches = words.pop("switches", "")
    if not all(digit.isascii() and digit.isdigit() for digit in switches.split(",") if digit):
        raise UsageError("setting alteration switches", f"{switches!r} are no numbers", "they are 1 to 4")
    characters: Any = words.pop("characters", "commercial")
    return DeckSpec(
        path=spec.argv[0],
        tapes=tapes,
        read_only_tapes=frozenset(protected),
        switches=frozenset(int(digit) for digit in switches.split(",") if digit),
        characters=characters,
        interpret="interpret" in words,
        trace="trace" in words,
        **{name: words[name] for name in ("cards", "printer", "punch", "keyboard") if name in words},
    )


def is_program(head: bytes) -> bool:
    """Whether a file that begins like this is Autocoder source or an object deck."""
    text = head.decode("utf-8", "replace")
    if "\0" in text:
        return False
    from virtus.guests.autocoder import is_source

    return ibm7070_deck.is_deck(text.partition("\n")[0]) or is_source(text)


def load(path: str) -> Program:
    """The program in a file. Raises GuestNotFound or GuestNotRunnable."""
    text = _text(path)
    lines = text.splitlines()
    if lines and ibm7070_deck.is_deck(lines[0]):
        return ibm7070_deck.read(lines, Path(path).name)
    from virtus.guests.autocoder import assemble, is_source

    if not is_source(text):
        raise GuestNotRunnable(
            f"running {path}", "neither Autocoder source nor an object deck", "docs/ibm7070.md says what they look like"
        )
    return assemble(text, Path(path).name).program


def _text(path: str) -> str:
    doing = f"running {path}"
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise GuestNotFound(doing, "no such file") from error
    except OSError as error:
        raise GuestNotRunnable(doing, error.strerror or str(error)) from error
    if len(content) > LARGEST:
        raise GuestNotRunnable(doing, f"more than {LARGEST >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise GuestNotRunnable(doing, "it is no text") from error


def run_deck(
    spec: DeckSpec, *, out: TextIO | None = None, console: TextIO | None = None, trace: TextIO | None = None
) -> Report:
    """Run a program to its halt. `out` takes printed lines where there is no printer file, `console` what the
    typewriter and the operator's panel show; they are standard output and standard error if not given. The report's
    `details` have the machine's cycles of 6 microseconds. Raises VirtusError where it cannot start.
    """
    started = perf_counter()
    console = sys.stderr if console is None else console
    program = load(spec.path)
    meter = Meter()
    with ExitStack() as stack:
        equipment = _equipment(spec, program, stack, sys.stdout if out is None else out, console)
        machine = Ibm7070Machine(equipment, console)
        vcpu = ResidentVcpu(IBM7070, ARRANGEMENT, constants(), translate=not spec.interpret)
        stack.callback(vcpu.close)
        for location, word in program.words.items():
            vcpu.context.store(location, word)
        vcpu.context.pc = program.start
        if spec.trace:
            vcpu.watcher = _tracer(vcpu, console if trace is None else trace)
        machine.start(vcpu.context)
        run(vcpu, machine, meter)
        usage = getrusage(RUSAGE_SELF)
        return Report(
            technique=NAME,
            status=machine.status,
            wall_s=perf_counter() - started,
            cpu_s=usage.ru_utime + usage.ru_stime,
            context_switches=usage.ru_nvcsw + usage.ru_nivcsw,
            host_processes=1,
            exits=dict(meter.exits),
            notes=dict(meter.notes),
            guest_s=meter.guest_ns / 1e9,
            personality_s=meter.personality_ns / 1e9,
            details=_details(vcpu, equipment),
        )


def _details(vcpu: ResidentVcpu, equipment: Equipment) -> dict[str, int]:
    details = {
        "cycles": vcpu.context.regs[layout.CYCLES],
        "translations": vcpu.translated,
        "translations dropped": vcpu.dropped,
        "instructions interpreted": vcpu.interpreted,
    }
    if equipment.reader is not None:
        details["cards read"] = equipment.reader.cards
    if equipment.printer is not None:
        details["lines printed"] = equipment.printer.lines
    return details


def _equipment(spec: DeckSpec, program: Program, stack: ExitStack, out: TextIO, console: TextIO) -> Equipment:
    def opened(path: str, mode: str, what: str) -> TextIO:
        try:
            stream: TextIO = open(path, mode, encoding="utf-8", errors="replace")  # type: ignore[assignment] # a text mode
            return stack.enter_context(stream)
        except OSError as error:
            raise UsageError(f"opening {what} {path}", error.strerror or str(error)) from error

    unknown = spec.switches - set(SWITCHES)
    if unknown:
        raise UsageError("setting alteration switches", f"there is no switch {min(unknown)}", "they are 1 to 4")
    tapes: dict[tuple[int, int], Reel] = {}
    for number, path in spec.tapes.items():
        if not 10 <= number <= 49:
            raise UsageError(
                "mounting tapes", f"there is no unit {number}", "10 to 49: the channel, 1 to 4, and the unit"
            )
        reel = Reel(path, writable=number not in spec.read_only_tapes)
        stack.callback(reel.close)
        tapes[divmod(number, 10)] = reel
    lines: Iterable[str] | None = None
    if spec.cards is not None:
        lines = opened(spec.cards, "r", "cards")
    elif program.data:
        lines = program.data
    keyboard = opened(spec.keyboard, "r", "what is typed") if spec.keyboard is not None else ()
    return Equipment(
        reader=CardReader(lines) if lines is not None else None,
        punch=CardPunch(opened(spec.punch, "w", "the punch's file")) if spec.punch is not None else None,
        printer=LinePrinter(opened(spec.printer, "w", "the printer's file") if spec.printer is not None else out),
        typewriter=Typewriter(console, keyboard),
        tapes=tapes,
        switches=spec.switches,
        arrangement=spec.characters,
    )


def _tracer(vcpu: ResidentVcpu, stream: TextIO) -> Callable[[], None]:
    """Writes a line for each instruction: its location, and how it is written."""
    context = vcpu.context

    def trace() -> None:
        location = context.pc
        regs = context.regs
        if regs[layout.PHASE] or regs[layout.CYCLES] >= regs[layout.DEADLINE]:
            return  # within an instruction, or before an event
        try:
            text = show_instruction(decode_word(context.load(location)))
        except IndexError:
            text = "(no storage)"
        stream.write(f"{location:04d}  {text}\n")

    return trace

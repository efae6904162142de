"""The commands of GDB's remote protocol: a request in, a reply out, or what is to happen to the guest.

Nothing here waits or speaks to a connection (`session` does). Whatever the other side sends is checked: a request that
makes no sense is answered by an error, and one that is not known by an empty reply, as the protocol wants it.

Source: Debugging with GDB, appendix "GDB Remote Serial Protocol": "Packets", "Stop Reply Packets", "General Query
Packets".
"""

import errno
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from virtus.machine.debug import target_xml
from virtus.machine.debug.debuggee import Action, Debuggee, Resume, Stop
from virtus.machine.debug.files import Files
from virtus.machine.debug.gdb_signals import FROM_GDB, from_gdb, to_gdb
from virtus.machine.debug.packets import MOST_BYTES, binary, number
from virtus.machine.debug.target_xml import REGISTERS, Register

MOST_MEMORY: Final = MOST_BYTES // 2 - 16
"""Bytes of memory of one request."""
MOST_BREAKPOINTS: Final = 10_000
MOST_WATCHED: Final = 4096
WATCH_KINDS: Final = {2: "watch", 3: "rwatch", 4: "awatch"}
MEMORY_ERROR, BAD_REQUEST, NO_SUCH = b"E%02x" % errno.EFAULT, b"E%02x" % errno.EINVAL, b"E%02x" % errno.ESRCH
OK: Final = b"OK"
FEATURES: Final = (
    b"PacketSize=%x;QStartNoAckMode+;QPassSignals+;vContSupported+;swbreak+;hwbreak+;exec-events+;qXfer:features:read+;"
    b"qXfer:auxv:read+;qXfer:exec-file:read+;qXfer:siginfo:read+" % MOST_BYTES
)
MONITOR_HELP: Final = "help: this list\nfigures: what the guest did so far\n"


class Parting(Enum):
    """How GDB leaves."""

    DETACH = "the guest goes on by itself"
    KILL = "the guest ends"


Answer = bytes | Resume | Parting


class Commands:
    """The commands for one connection. `stopped` is why the guest stands, `acknowledged` whether packets still are."""

    def __init__(self, debuggee: Debuggee, files: Files, stop: Stop) -> None:
        self.stopped = stop
        self.acknowledged = True
        self._debuggee = debuggee
        self._files = files
        self._thread = stop.thread  # of registers and memory
        self._continued = 0  # the thread of `c` and `s`; 0 for all
        self._breakpoints: set[int] = set()
        self._watchpoints: set[tuple[str, int, int]] = set()
        self._by_letter: dict[bytes, Callable[[bytes], Answer]] = {
            b"?": lambda rest: stop_reply(self.stopped),
            b"g": self._read_registers,
            b"G": self._write_registers,
            b"p": self._read_register,
            b"P": self._write_register,
            b"m": self._read_memory,
            b"M": self._write_memory,
            b"X": self._write_binary,
            b"Z": lambda rest: self._point(rest, insert=True),
            b"z": lambda rest: self._point(rest, insert=False),
            b"c": lambda rest: self._go(rest, step=False, signalled=False),
            b"C": lambda rest: self._go(rest, step=False, signalled=True),
            b"s": lambda rest: self._go(rest, step=True, signalled=False),
            b"S": lambda rest: self._go(rest, step=True, signalled=True),
            b"H": self._select,
            b"T": self._is_alive,
            b"D": lambda rest: Parting.DETACH,
            b"k": lambda rest: Parting.KILL,
        }
        self._by_name: dict[bytes, Callable[[bytes], Answer]] = {
            b"qSupported": lambda rest: FEATURES,
            b"QStartNoAckMode": self._start_no_acknowledgements,
            b"QNonStop": lambda rest: OK if rest == b"0" else BAD_REQUEST,
            b"QPassSignals": self._pass_signals,
            b"qXfer": self._transfer,
            b"qfThreadInfo": lambda rest: b"m" + b",".join(b"%x" % thread for thread in self._debuggee.threads()),
            b"qsThreadInfo": lambda rest: b"l",
            b"qThreadExtraInfo": lambda rest: self._debuggee.describe(self._number(rest)).encode().hex().encode(),
            b"qC": lambda rest: b"QC%x" % self._thread,
            b"qAttached": lambda rest: b"0",
            b"qSymbol": lambda rest: OK,
            b"qRcmd": self._monitor,
            b"vCont?": lambda rest: b"vCont;c;C;s;S",
            b"vCont": self._continue,
            b"vKill": lambda rest: Parting.KILL,
            b"vFile": self._files.answer,
        }

    def handle(self, request: bytes) -> Answer:
        """Answer one request."""
        try:
            if request[:1] in (b"q", b"Q", b"v"):
                name, rest = _name(request)
                command = self._by_name.get(name)
            else:
                command, rest = self._by_letter.get(request[:1]), request[1:]
            return b"" if command is None else command(rest)
        except ValueError:
            return BAD_REQUEST
        except KeyError:
            return NO_SUCH
        except OSError:
            return MEMORY_ERROR

    def stop(self, stop: Stop) -> bytes:
        """The guest stands: what GDB is told."""
        self.stopped = stop
        self._thread = stop.thread
        return stop_reply(stop)

    def forget_points(self) -> None:
        """There are no breakpoints any more: the program is another one."""
        self._breakpoints.clear()
        self._watchpoints.clear()

    def _start_no_acknowledgements(self, rest: bytes) -> bytes:
        self.acknowledged = False
        return OK

    # Threads

    def _number(self, word: bytes) -> int:
        """A thread that there is; 0 and -1 stand for any."""
        if word in (b"0", b"-1"):
            return self._thread
        thread = number(word)
        if thread not in self._debuggee.threads():
            raise KeyError(thread)
        return thread

    def _select(self, rest: bytes) -> bytes:
        operation, word = rest[:1], rest[1:]
        if operation == b"g":
            self._thread = self._number(word)
        elif operation == b"c":
            self._continued = 0 if word in (b"0", b"-1") else self._number(word)
        else:
            return BAD_REQUEST
        return OK

    def _is_alive(self, rest: bytes) -> bytes:
        self._number(rest)
        return OK

    # Registers

    def _read_registers(self, rest: bytes) -> bytes:
        words = self._debuggee.registers(self._thread)
        return b"".join(_value(register, words) for register in REGISTERS)

    def _changeable(self) -> "memoryview[int]":
        if not self._debuggee.may_change(self._thread):
            raise ValueError("the thread is inside a system call")
        return self._debuggee.registers(self._thread)

    def _write_registers(self, rest: bytes) -> bytes:
        data, at = binary(rest), 0
        if len(data) != sum(register.size for register in REGISTERS):
            return BAD_REQUEST
        words = self._changeable()
        for register in REGISTERS:
            register.set(words, int.from_bytes(data[at : at + register.size], "little"))
            at += register.size
        return OK

    def _read_register(self, rest: bytes) -> bytes:
        register = _register(rest)
        return _value(register, self._debuggee.registers(self._thread))

    def _write_register(self, rest: bytes) -> bytes:
        name, _, digits = rest.partition(b"=")
        register, data = _register(name), binary(digits)
        if len(data) != register.size:
            return BAD_REQUEST
        register.set(self._changeable(), int.from_bytes(data, "little"))
        return OK

    # Memory

    def _read_memory(self, rest: bytes) -> bytes:
        address, size = map(number, rest.split(b","))
        data = self._debuggee.read(address, min(size, MOST_MEMORY))
        return data.hex().encode() if data or not size else MEMORY_ERROR

    def _write_memory(self, rest: bytes) -> bytes:
        where, _, digits = rest.partition(b":")
        return self._write(where, binary(digits))

    def _write_binary(self, rest: bytes) -> bytes:
        where, _, data = rest.partition(b":")
        return self._write(where, data)

    def _write(self, where: bytes, data: bytes) -> bytes:
        address, size = map(number, where.split(b","))
        if size != len(data):
            return BAD_REQUEST
        if data:
            self._debuggee.write(address, data)
        return OK

    # Where to stop

    def _point(self, rest: bytes, *, insert: bool) -> bytes:
        place, *conditions = rest.split(b";")
        kind, address, size = map(number, place.split(b","))
        if conditions:
            return BAD_REQUEST  # conditions are GDB's to evaluate: it was not told otherwise
        if kind in (0, 1):
            _change(self._breakpoints, address, insert=insert)
            self._debuggee.set_breakpoints(frozenset(self._breakpoints))
        elif kind in WATCH_KINDS:
            if not 0 < size <= MOST_WATCHED:
                return BAD_REQUEST
            _change(self._watchpoints, (WATCH_KINDS[kind], address, size), insert=insert)
            self._debuggee.set_watchpoints(frozenset(self._watchpoints))
        else:
            return b""
        return OK

    # Going on

    def _go(self, rest: bytes, *, step: bool, signalled: bool) -> Answer:
        """`c`, `s`, and with a signal `C`, `S`: an address to go on at may follow."""
        signal = 0
        if signalled:
            digits, _, rest = rest.partition(b";")
            signal = from_gdb(number(digits))
        chosen = self._number(b"%x" % self._continued) if self._continued else self._thread
        if rest:
            REGISTERS[target_xml.PC].set(self._changeable(), number(rest))
        others = None if self._continued else Action()
        return Resume({chosen: Action(step, signal)}, others)

    def _continue(self, rest: bytes) -> Answer:
        """`vCont`: actions, each for a thread or for all that have none yet."""
        threads: dict[int, Action] = {}
        others: Action | None = None
        for part in rest.split(b";"):
            what, _, who = part.partition(b":")
            letter, digits = what[:1], what[1:]
            signal = from_gdb(number(digits)) if letter in (b"C", b"S") else 0
            if letter not in (b"c", b"C", b"s", b"S") or (digits and not signal):
                return BAD_REQUEST
            action = Action(step=letter in (b"s", b"S"), signal=signal)
            if who in (b"", b"-1"):
                others = others or action
            else:
                threads.setdefault(self._number(who), action)
        return Resume(threads, others)

    def _pass_signals(self, rest: bytes) -> bytes:
        known = (FROM_GDB.get(number(word)) for word in rest.split(b";") if word)
        self._debuggee.pass_signals(frozenset(signal for signal in known if signal))
        return OK

    # Questions

    def _transfer(self, rest: bytes) -> bytes:
        """`qXfer:OBJECT:read:ANNEX:OFFSET,SIZE`: a part of one of several documents."""
        kind, operation, annex, place = rest.split(b":")
        if operation != b"read":
            return b""
        document = self._document(kind, annex)
        if document is None:
            return b"E00" if kind == b"features" else b""
        offset, size = map(number, place.split(b","))
        piece = document[offset : offset + min(size, MOST_MEMORY)]
        return (b"m" if offset + len(piece) < len(document) else b"l") + piece

    def _document(self, kind: bytes, annex: bytes) -> bytes | None:
        if kind == b"features":
            return target_xml.RISCV64 if annex == b"target.xml" else None
        if kind == b"auxv":
            return self._debuggee.auxiliary()
        if kind == b"exec-file":
            return self._debuggee.executable().encode(errors="surrogateescape")
        if kind == b"siginfo":
            return self._debuggee.signal_information(self._thread)
        return None

    def _monitor(self, rest: bytes) -> bytes:
        word = binary(rest).decode(errors="replace").strip()
        if word == "figures":
            text = "".join(f"{name}: {count:,}\n" for name, count in self._debuggee.figures().items())
        elif word == "help":
            text = MONITOR_HELP
        else:
            text = f"no command {word!r}; there are\n{MONITOR_HELP}"
        return text.encode().hex().encode()


def stop_reply(stop: Stop) -> bytes:
    """The packet that says why the guest stands."""
    return b"T%02xthread:%x;%b" % (
        to_gdb(stop.signal),
        stop.thread,
        stop.detail.encode() + b";" if stop.detail else b"",
    )


def end_reply(status: int) -> bytes:
    """The packet that says how the guest has ended; a status as wait4(2) has it."""
    signal = status & 0x7F
    return b"X%02x" % to_gdb(signal) if signal else b"W%02x" % (status >> 8 & 0xFF)


def _name(request: bytes) -> tuple[bytes, bytes]:
    """A query's name, and what follows the character that ends it."""
    if request == b"vCont?":
        return request, b""
    for at, character in enumerate(request):
        if character in b":;,":
            return request[:at], request[at + 1 :]
    return request, b""


def _register(digits: bytes) -> Register:
    index = number(digits)
    if index >= len(REGISTERS):
        raise ValueError(f"no register {index}")
    return REGISTERS[index]


def _value(register: Register, words: "memoryview[int]") -> bytes:
    return register.get(words).to_bytes(register.size, "little").hex().encode()


def _change(points: set[Any], point: Any, *, insert: bool) -> None:
    if not insert:
        points.discard(point)
    elif len(points) < MOST_BREAKPOINTS:
        points.add(point)
    else:
        raise ValueError("too many")

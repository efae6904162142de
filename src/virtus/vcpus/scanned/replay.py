"""Accesses to devices that somebody else answers: an instruction is evaluated again when the answer is there."""

from virtus.vcpus.scanned.faults import IoNeeded


class Replay:
    """Devices that are asked outside of the evaluator: an access raises IoNeeded the first time, and when the
    instruction is evaluated again has the answer. `port` tells its two uses apart.

    Whoever evaluates calls `begin` before every try, and `finish` when the instruction (or one round of a repeated one)
    is done, by the registers or by a fault.
    """

    def __init__(self) -> None:
        self._answers: list[int] = []
        self._next = 0
        self.wanted: tuple[bool, int, int, bool, int] | None = None
        """What IoNeeded asks for: whether it is a port, the port or address, size, whether a write, the value."""
        self.count = 1
        """How many times: `wanted` has the size of one, and the values of all, the first lowest."""

    def begin(self) -> None:
        """The instruction is evaluated from its start."""
        self._next = 0

    def finish(self) -> None:
        """The instruction is done."""
        if self._answers:
            self._answers.clear()
        self._next = 0

    def forget(self) -> None:
        """The instruction will not be evaluated again: an interrupt comes first, or somebody changed EIP."""
        self._answers.clear()
        self._next, self.wanted = 0, None

    def answer(self, value: int) -> None:
        """What `wanted` reads; any value for a write."""
        self._answers.append(value)
        self.wanted = None

    def access(self, port: bool, number: int, size: int, write: bool, value: int, count: int = 1) -> int:
        """One access, or several at once, in the order of the instruction."""
        if self._next < len(self._answers):
            self._next += 1
            return self._answers[self._next - 1]
        self.wanted, self.count = (port, number, size, write, value), count
        raise IoNeeded


class ReplayDevices:
    """One of the two Devices of a Replay: ports, or memory."""

    def __init__(self, replay: Replay, *, port: bool) -> None:
        self._replay, self._port = replay, port

    def read(self, address: int, size: int) -> int:
        """See Devices."""
        return self._replay.access(self._port, address, size, False, 0)

    def write(self, address: int, size: int, value: int) -> None:
        """See Devices."""
        self._replay.access(self._port, address, size, True, value)

    def repeat(self, address: int, size: int, count: int, write: bool, value: int) -> int:
        """Several accesses to the same port; see `Execution.repeat_port`."""
        return self._replay.access(self._port, address, size, write, value, count)

"""What an instruction of an i386 guest may end in instead of being done."""

from typing import Final

# vectors (Intel SDM volume 3A, table 6-1)
DE, DB, NMI, BP, OF, BR, UD, NM, DF = range(9)
TS, NP, SS, GP, PF = 10, 11, 12, 13, 14
MF, AC, MC, XM = 16, 17, 18, 19
WITH_ERROR_CODE: Final = frozenset({DF, TS, NP, SS, GP, PF, AC})
NAMES: Final = {
    DE: "#DE", DB: "#DB", NMI: "NMI", BP: "#BP", OF: "#OF", BR: "#BR", UD: "#UD", NM: "#NM", DF: "#DF", TS: "#TS",
    NP: "#NP", SS: "#SS", GP: "#GP", PF: "#PF", MF: "#MF", AC: "#AC", MC: "#MC", XM: "#XM",
}  # fmt: skip

# error codes of page faults (Intel SDM volume 3A, 4.7)
PF_PRESENT, PF_WRITE, PF_USER = 1, 2, 4


class GuestFault(Exception):
    """An exception of the guest's processor: the instruction has had no effect and EIP is still at it.

    `error_code` is None for vectors without one; `address` is the linear address of a page fault, which belongs
    into CR2 when the fault is delivered.
    """

    def __init__(self, vector: int, error_code: int | None = None, address: int | None = None) -> None:
        self.vector, self.error_code, self.address = vector, error_code, address
        super().__init__(vector, error_code, address)

    def __str__(self) -> str:
        code = "" if self.error_code is None else f"({self.error_code:#x})"
        where = "" if self.address is None else f" at {self.address:#x}"
        return f"{NAMES.get(self.vector, self.vector)}{code}{where}"


class TripleFault(Exception):
    """A fault on the way to the double fault handler: the processor shuts down (Intel SDM volume 3A, 6.15)."""


class NotEvaluated(Exception):
    """An instruction that others must execute: of the floating-point unit, MMX, SSE, or unknown to the evaluator.

    Nothing has changed and EIP is still at it.
    """


class IoNeeded(Exception):
    """An access to a port or a device, whose answer must be had first; nothing has changed and EIP is still at it.

    The instruction is evaluated again after `Replay.answer`.
    """

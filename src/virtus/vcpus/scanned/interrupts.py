"""The interrupt controller as its processor sees it."""

from typing import Protocol


class Interrupts(Protocol):
    """What a processor asks: whether there is an interrupt, and which."""

    def pending(self) -> bool:
        """Whether an interrupt waits."""
        ...

    def acknowledge(self) -> int:
        """Its vector; it is then in service (the 8259's INTA cycle)."""
        ...


class NoInterrupts:
    """No controller."""

    def pending(self) -> bool:
        """Never."""
        return False

    def acknowledge(self) -> int:
        """Nothing to acknowledge."""
        raise LookupError("no interrupt is pending")

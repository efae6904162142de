"""virtus runs any guest under any virtualization technique, and shows what it costs.

    >>> import virtus
    >>> report = virtus.run(["make", "-j2"], technique="uml-skas")
    >>> report.status, report.exit_count
    >>> print(virtus.compare(["sort", "words"], runs=5).as_json())

Everything public is listed in `__all__`; it is imported when first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than a start may
if TYPE_CHECKING:
    from typing import Any, Final

    from virtus.errors import VirtusError
    from virtus.library import Machine, State, compare, run
    from virtus.machine.meter import Report
    from virtus.machine.spec import GuestSpec, Volume

__all__ = ["run", "compare", "Machine", "State", "GuestSpec", "Volume", "Report", "VirtusError"]

_HOMES: Final = {
    "run": "virtus.library",
    "compare": "virtus.library",
    "Machine": "virtus.library",
    "State": "virtus.library",
    "GuestSpec": "virtus.machine.spec",
    "Volume": "virtus.machine.spec",
    "Report": "virtus.machine.meter",
    "VirtusError": "virtus.errors",
}


def __getattr__(name: str) -> Any:
    """Import what is public when it is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'virtus' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

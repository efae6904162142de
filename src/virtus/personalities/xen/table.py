"""The one table of hypercalls: it dispatches, and it documents itself (`document`).

A handler `(domain, ...)` takes the call's arguments as unsigned 64-bit words, returns the result, and refuses by
raising Refused. Calls made of operations, such as memory_op, register each operation; the documentation lists them.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from virtus.personalities.xen.abi import ENOSYS, Refused
from virtus.records import dataclass, field

NAMES: Final = {
    number: name
    for number, name in enumerate(
        [
            "set_trap_table",
            "mmu_update",
            "set_gdt",
            "stack_switch",
            "set_callbacks",
            "fpu_taskswitch",
            "sched_op_compat",
            "platform_op",
            "set_debugreg",
            "get_debugreg",
            "update_descriptor",
            "-",
            "memory_op",
            "multicall",
            "update_va_mapping",
            "set_timer_op",
            "event_channel_op_compat",
            "xen_version",
            "console_io",
            "physdev_op_compat",
            "grant_table_op",
            "vm_assist",
            "update_va_mapping_otherdomain",
            "iret",
            "vcpu_op",
            "set_segment_base",
            "mmuext_op",
            "xsm_op",
            "nmi_op",
            "sched_op",
            "callback_op",
            "xenoprof_op",
            "event_channel_op",
            "physdev_op",
            "hvm_op",
            "sysctl",
            "domctl",
            "kexec_op",
            "tmem_op",
            "argo_op",
            "xenpmu_op",
        ]
    )
    if name != "-"
}
"""By number: __HYPERVISOR_* in xen/include/public/xen.h."""
NUMBERS: Final = {name: number for number, name in NAMES.items()}

Handler = Callable[..., int]
_F = TypeVar("_F", bound=Handler)


@dataclass(slots=True)
class Call:
    """One hypercall, and its operations by number where it has any."""

    name: str
    handler: Handler
    arguments: int
    note: str
    operations: dict[int, "Operation"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a hypercall; the handler takes the arguments behind the operation's number."""

    name: str
    handler: Handler
    arguments: int
    note: str


TABLE: Final[dict[int, Call]] = {}


def _arguments(handler: Handler) -> int:
    return handler.__code__.co_argcount - 1


def call(name: str, *, note: str = "") -> Callable[[_F], _F]:
    """Register a hypercall's handler `(domain, ...)`. A note says what is not as under Xen."""

    def register(handler: _F) -> _F:
        TABLE[NUMBERS[name]] = Call(name, handler, _arguments(handler), note)
        return handler

    return register


def operation(call_name: str, number: int, name: str, *, note: str = "") -> Callable[[_F], _F]:
    """Register an operation `(domain, ...)` of a hypercall whose first argument is the operation's number."""

    def register(handler: _F) -> _F:
        at = NUMBERS[call_name]
        if at not in TABLE:
            TABLE[at] = Call(call_name, _of_operations(call_name), 6, "")
        TABLE[at].operations[number] = Operation(name, handler, _arguments(handler), note)
        return handler

    return register


def _of_operations(name: str) -> Handler:
    number = NUMBERS[name]

    def handler(domain: Any, chosen: int, one: int, two: int, three: int, four: int, five: int) -> int:
        entry = TABLE[number].operations.get(chosen & 0xFFFFFFFF)
        if entry is None:
            domain.note(f"{name}: operation {chosen & 0xFFFFFFFF} is not there")
            raise Refused(ENOSYS)
        return entry.handler(domain, *(one, two, three, four, five)[: entry.arguments])

    return handler


def dispatch(domain: Any, number: int, arguments: tuple[int, ...]) -> int:
    """Answer one hypercall; the result as the guest gets it, -errno where it is refused."""
    entry = TABLE.get(number)
    if entry is None:
        domain.note(f"hypercall {NAMES.get(number, number)} is not there")
        return -ENOSYS
    try:
        return entry.handler(domain, *arguments[: entry.arguments])
    except Refused as refusal:
        return -refusal.error


def document() -> str:
    """The table as Markdown."""
    lines = ["| hypercall | operation | what is not as under Xen |", "|---|---|---|"]
    for number, name in NAMES.items():
        entry = TABLE.get(number)
        if entry is None:
            lines.append(f"| {number} {name} | | not there: ENOSYS |")
            continue
        if not entry.operations:
            lines.append(f"| {number} {name} | | {entry.note} |")
        for at, one in sorted(entry.operations.items()):
            lines.append(f"| {number} {name} | {at} {one.name} | {one.note} |")
    return "\n".join(lines) + "\n"

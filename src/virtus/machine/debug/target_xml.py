"""A riscv64 processor as GDB is told of it: the names, sizes and order of registers, and their values in a state block.

Source: Debugging with GDB, "Target Description Format" and "RISC-V Features".
"""

from collections.abc import Callable
from typing import Final

from virtus.isa.riscv64.registers import F_NAMES, X_NAMES, F
from virtus.records import dataclass
from virtus.vcpus.translator import float_state, layout

_MASK: Final = 2**64 - 1
_FLAGS: Final = 31
_MODE: Final = 7
Words = memoryview


@dataclass(frozen=True, slots=True)
class Register:
    """One of GDB's registers; `get` and `set` work on the words of a state block."""

    name: str
    size: int
    """Bytes."""
    type: str
    get: Callable[[Words], int]
    set: Callable[[Words, int], None]


def _word(name: str, index: int, type: str) -> Register:
    def get(words: Words) -> int:
        return int(words[index])

    def put(words: Words, value: int) -> None:
        if index:  # x0 is always 0
            words[index] = value & _MASK

    return Register(name, 8, type, get, put)


def _flags(words: Words) -> int:
    return float_state.flags(words[layout.MXCSR])


def _set_flags(words: Words, value: int) -> None:
    words[layout.MXCSR] = float_state.with_flags(words[layout.MXCSR], value & _FLAGS)


def _mode(words: Words) -> int:
    return int(words[layout.ROUNDING])


def _set_mode(words: Words, value: int) -> None:
    words[layout.ROUNDING] = value & _MODE
    words[layout.MXCSR] = float_state.with_rounding(words[layout.MXCSR], value & _MODE)


def _set_control(words: Words, value: int) -> None:
    _set_flags(words, value)
    _set_mode(words, value >> 5)


_POINTERS: Final = {"sp": "data_ptr", "gp": "data_ptr", "tp": "data_ptr", "ra": "code_ptr"}
CPU: Final = (
    *(_word(name, index, _POINTERS.get(name, "int")) for index, name in enumerate(X_NAMES)),
    _word("pc", layout.PC, "code_ptr"),
)
FPU: Final = (
    *(_word(name, F + index, "riscv_double") for index, name in enumerate(F_NAMES)),
    Register("fflags", 4, "int", _flags, _set_flags),
    Register("frm", 4, "int", _mode, _set_mode),
    Register("fcsr", 4, "int", lambda words: _flags(words) | _mode(words) << 5, _set_control),
)
REGISTERS: Final = (*CPU, *FPU)
"""By GDB's numbers."""
PC: Final = len(X_NAMES)
"""GDB's number of the program counter."""
SP: Final = X_NAMES.index("sp")


def _lines(registers: tuple[Register, ...], first: int) -> str:
    return "".join(
        f'<reg name="{register.name}" bitsize="{8 * register.size}" type="{register.type}" regnum="{number}"/>\n'
        for number, register in enumerate(registers, first)
    )


RISCV64: Final = f"""\
<?xml version="1.0"?>
<!DOCTYPE target SYSTEM "gdb-target.dtd">
<target version="1.0">
<architecture>riscv:rv64</architecture>
<osabi>GNU/Linux</osabi>
<feature name="org.gnu.gdb.riscv.cpu">
{_lines(CPU, 0)}</feature>
<feature name="org.gnu.gdb.riscv.fpu">
<union id="riscv_double"><field name="float" type="ieee_single"/><field name="double" type="ieee_double"/></union>
{_lines(FPU, len(CPU))}</feature>
</target>
""".encode()

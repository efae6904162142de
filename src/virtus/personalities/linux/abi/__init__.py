"""What the kernel's interface looks like on one processor or another: numbers, registers, structures, signal frames.

The handlers of system calls are the same for all; `abi_of` gives the one object they ask where processors differ.
"""

from virtus.personalities.linux.abi.base import Abi


def abi_of(machine: str) -> Abi:
    """The interface of a processor, by the name that uname(2) has for it."""
    if machine == "x86_64":
        from virtus.personalities.linux.abi.x86_64 import X86_64

        return X86_64
    from virtus.personalities.linux.abi.riscv64 import RISCV64

    assert machine == "riscv64"
    return RISCV64

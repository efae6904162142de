"""Whether the instruction that faulted was writing: a host tells the address of an access, but not its kind."""

from typing import Final

from iced_x86 import Decoder, Instruction, InstructionInfoFactory, Mnemonic, OpAccess

from virtus.vcpus.scanned.cpu_state import EDI, MASK32

READS, WRITES, MOVES = range(3)
"""All accesses read, if any writes one does not know; all write; it moves from one place to another."""
WRITING: Final = {OpAccess.WRITE, OpAccess.READ_WRITE, OpAccess.COND_WRITE, OpAccess.READ_COND_WRITE}
_MOVES: Final = {Mnemonic.MOVSB, Mnemonic.MOVSW, Mnemonic.MOVSD}
LARGEST: Final = 4
KEPT: Final = 1 << 14


class Writes:
    """Remembers by the bytes of instructions."""

    def __init__(self) -> None:
        self._information = InstructionInfoFactory()
        self._kept: dict[bytes, int] = {}

    def writes(self, code: bytes, address: int, registers: list[int]) -> bool:
        """Whether the 32-bit instruction that `code` begins with writes to an address; False where that is unclear."""
        kind = self._kept.get(code)
        if kind is None:
            if len(self._kept) >= KEPT:
                self._kept.clear()
            kind = self._kept[code] = self._kind(Decoder(32, code).decode())
        if kind == MOVES:
            return address - registers[EDI] + LARGEST & MASK32 < 2 * LARGEST
        return kind == WRITES

    def _kind(self, instruction: Instruction) -> int:
        if instruction.is_string_instruction and instruction.mnemonic in _MOVES:
            return MOVES
        used = self._information.info(instruction).used_memory()
        return WRITES if used and all(access.access in WRITING for access in used) else READS

"""Walking a guest's stack with the tables that its compiler has left: one frame at a time.

Source: Microsoft, x64 exception handling (RUNTIME_FUNCTION, UNWIND_INFO, UNWIND_CODE).
"""

import struct
from typing import Final

from virtus.guests import pe
from virtus.personalities.win32.guest import Memory
from virtus.personalities.win32.modules import Module
from virtus.records import dataclass

RSP, RIP = 4, 16
ENTRY_SIZE: Final = 12
FLAG_EXCEPTION, FLAG_UNWIND, FLAG_CHAINED = 1, 2, 4
PUSH, ALLOC_LARGE, ALLOC_SMALL, SET_FRAME, SAVE, SAVE_FAR, EPILOG, SPARE, SAVE_VECTOR, SAVE_VECTOR_FAR, MACHINE = range(
    11
)
MOST_CHAINED: Final = 32
VECTOR: Final = 16


@dataclass(slots=True)
class Frame:
    """What one step found: who handles exceptions of the function (0: nobody), its data, and its frame's address."""

    handler: int
    data: int
    establisher: int
    flags: int


def function_entry(memory: Memory, module: Module, address: int) -> int:
    """The guest address of the RUNTIME_FUNCTION that an address belongs to; 0 for a leaf function."""
    assert module.image is not None
    table, size = module.image.directories[pe.EXCEPTION]
    offset = address - module.base
    low, high = 0, size // ENTRY_SIZE
    while low < high:
        middle = (low + high) // 2
        place = module.base + table + ENTRY_SIZE * middle
        if offset < memory.u32(place):
            high = middle
        elif offset >= memory.u32(place + 4):
            low = middle + 1
        else:
            return place
    return 0


def step_leaf(memory: Memory, general: list[int]) -> None:
    """Leave a function that has touched neither the stack nor registers."""
    general[RIP] = memory.u64(general[RSP])
    general[RSP] += 8


def step(memory: Memory, base: int, entry: int, general: list[int], vectors: bytearray) -> Frame:
    """Leave the function of a RUNTIME_FUNCTION: registers become its caller's. Raises AccessViolation."""
    begin, _, info = struct.unpack("<3I", memory.read(entry, ENTRY_SIZE))
    offset = general[RIP] - base - begin
    frame: Frame | None = None
    for _ in range(MOST_CHAINED):
        head, _prologue, count, register = memory.read(base + info, 4)
        flags = head >> 3
        codes = memory.read(base + info + 4, 2 * count)
        behind = base + info + 4 + 2 * (count + count % 2)
        if frame is None:
            frame = _frame(memory, base, codes, count, register, offset, general, flags, behind)
        returned = _apply(memory, codes, count, register, offset, general, vectors, frame.establisher)
        if not flags & FLAG_CHAINED:
            if not returned:
                step_leaf(memory, general)
            return frame
        begin, _, info = struct.unpack("<3I", memory.read(behind, ENTRY_SIZE))
        offset = 1 << 30  # all of what a chained entry describes has been done
    return frame if frame is not None else Frame(0, 0, general[RSP], 0)


def _frame(
    memory: Memory, base: int, codes: bytes, count: int, register: int, offset: int, general: list[int], flags: int,
    behind: int,
) -> Frame:  # fmt: skip
    establisher = general[RSP]
    if register & 15:
        done = any(codes[2 * i] <= offset and codes[2 * i + 1] & 15 == SET_FRAME for i in range(count))
        if done or flags & FLAG_CHAINED:
            establisher = general[register & 15] - (register >> 4) * 16
    handler = data = 0
    if flags & (FLAG_EXCEPTION | FLAG_UNWIND) and not flags & FLAG_CHAINED:
        handler, data = base + memory.u32(behind), behind + 4
    return Frame(handler, data, establisher, flags)


def _apply(
    memory: Memory, codes: bytes, count: int, register: int, offset: int, general: list[int], vectors: bytearray,
    establisher: int,
) -> bool:  # fmt: skip
    """Undo the prologue as far as it was done; whether that gave RIP too (a machine frame)."""
    index = 0

    def word(place: int) -> int:
        return int.from_bytes(codes[2 * place : 2 * place + 2], "little")

    while index < count:
        at, operation = codes[2 * index], codes[2 * index + 1]
        number, code = operation >> 4, operation & 15
        done = at <= offset
        far = word(index + 1) | word(index + 2) << 16 if index + 2 < count else word(index + 1)
        index += 1
        if code == PUSH:
            if done:
                general[number] = memory.u64(general[RSP])
                general[RSP] += 8
        elif code == ALLOC_LARGE:
            if done:
                general[RSP] += far if number else word(index) * 8
            index += 2 if number else 1
        elif code == ALLOC_SMALL:
            general[RSP] += 8 * number + 8 if done else 0
        elif code == SET_FRAME:
            if done:
                general[RSP] = general[register & 15] - (register >> 4) * 16
        elif code in (SAVE, SAVE_FAR):
            if done:
                general[number] = memory.u64(establisher + (far if code == SAVE_FAR else word(index) * 8))
            index += 2 if code == SAVE_FAR else 1
        elif code in (SAVE_VECTOR, SAVE_VECTOR_FAR):
            if done:
                place = establisher + (far if code == SAVE_VECTOR_FAR else word(index) * 16)
                vectors[VECTOR * number : VECTOR * number + VECTOR] = memory.read(place, VECTOR)
            index += 2 if code == SAVE_VECTOR_FAR else 1
        elif code == MACHINE:
            if done:
                place = general[RSP] + (8 if number else 0)
                general[RIP], general[RSP] = memory.u64(place), memory.u64(place + 24)
                return True
        elif code == SPARE:
            index += 2
        elif code == EPILOG and index < count and codes[2 * index + 1] & 15 == EPILOG:
            index += 1
    return False

"""From an address to a loop that runs: its instructions, LLVM's code of them, and the hook around that."""

import ctypes
from typing import Any, Final

import llvmlite.binding as llvm
from iced_x86 import Decoder, FlowControl, Instruction
from llvmlite import ir

from virtus.records import dataclass
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.emulated_x86.loop_code import Loop, known
from virtus.vcpus.emulated_x86.loop_state import I32, I64, MXCSR_WORD, RIP_WORD, Refused
from virtus.vcpus.emulated_x86.memory import PAGE, WRITE, AddressSpace

LONGEST_INSTRUCTION: Final = 15
MOST_ATTEMPTS: Final = 12
MXCSR_MASKED: Final = 0x1F80
MXCSR_CONTROL: Final = 0xFFC0
"""MXCSR's rounding, its masks and flushing to zero (Intel SDM volume 1, 10.2.3), without the status."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Addresses on the host that a loop's hook works with."""

    state: int
    stop: int
    count: int
    identifiers: int
    places: int
    read: int
    write: int
    jump: int


@dataclass(frozen=True, slots=True)
class Built:
    """A hook's machine code; `counts` are its entries and its rounds, `addresses` where its instructions lie."""

    address: int
    addresses: list[int]
    counts: Any
    engine: Any


def build(memory: AddressSpace, head: int, most: int, surroundings: Surroundings) -> Built | None:
    """A loop by the address of a block in it; None where there is none that can be translated."""
    bad: set[int] = set()
    for _ in range(MOST_ATTEMPTS):
        found = discover(memory, head, most, bad)
        if found is None:
            return None
        blocks = blocks_of(found, head)
        counts = (ctypes.c_uint64 * 2)()
        try:
            loop = Loop(
                blocks, head, base=memory.base, rights=memory.rights_address, stop=surroundings.stop,
                name=f"loop_{head:x}",
            )  # fmt: skip
        except Refused as refused:
            place = refused.args[1] if len(refused.args) > 1 else head
            if place in bad or place == head:
                return None
            bad.add(place)
            continue
        _hook(loop, head, surroundings, ctypes.addressof(counts))
        engine, address = _compile(loop.module, f"hook_{head:x}")
        return Built(address, sorted(found), counts, engine)
    return None


def discover(memory: AddressSpace, head: int, most: int, bad: set[int]) -> dict[int, Instruction] | None:
    """The instructions from which the head can be reached again, by address; None where it cannot be."""
    found: dict[int, Instruction] = {}
    following: dict[int, list[int]] = {}
    waiting = [head]
    while waiting and len(found) < most:
        address = waiting.pop()
        if address in found or address in bad:
            continue
        instruction = _decode(memory, address)
        if instruction is None:
            continue
        flow = instruction.flow_control
        if flow == FlowControl.NEXT:
            if not known(instruction):
                continue
            successors = [instruction.next_ip]
        elif flow == FlowControl.UNCONDITIONAL_BRANCH:
            successors = [instruction.near_branch_target]
        elif flow == FlowControl.CONDITIONAL_BRANCH:
            successors = [instruction.next_ip, instruction.near_branch_target]
        else:
            continue
        found[address] = instruction
        following[address] = successors
        waiting += successors
    reaching: set[int] = set()
    changed = True
    while changed:
        changed = False
        for address, successors in following.items():
            if address not in reaching and any(s == head or s in reaching for s in successors):
                reaching.add(address)
                changed = True
    return {address: found[address] for address in reaching} if head in reaching else None


def _decode(memory: AddressSpace, address: int) -> Instruction | None:
    if not memory.executable(address) or memory.rights_of(address // PAGE) & WRITE:
        return None  # where code may be stored at any time, Unicorn sees to that
    room = PAGE - address % PAGE
    size = LONGEST_INSTRUCTION if room >= LONGEST_INSTRUCTION or memory.executable(address + room) else room
    instruction = Decoder(64, memory.code(address, size), ip=address).decode()
    return None if instruction.is_invalid else instruction


def blocks_of(found: dict[int, Instruction], head: int) -> dict[int, list[Instruction]]:
    """Runs of instructions that are entered at their beginning only."""
    leaders = {head}
    for instruction in found.values():
        if instruction.flow_control != FlowControl.NEXT:
            leaders |= {instruction.near_branch_target, instruction.next_ip}
    before = {instruction.next_ip for instruction in found.values() if instruction.flow_control == FlowControl.NEXT}
    leaders |= {address for address in found if address not in before}
    blocks: dict[int, list[Instruction]] = {}
    for leader in sorted(leaders & set(found)):
        run = [found[leader]]
        while run[-1].flow_control == FlowControl.NEXT:
            after = run[-1].next_ip
            if after in leaders or after not in found:
                break
            run.append(found[after])
        blocks[leader] = run
    return blocks


def _hook(loop: Loop, head: int, surroundings: Surroundings, counts: int) -> None:
    """The function that Unicorn calls: registers in, the loop, registers out."""
    module = loop.module
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, I64, I32, pointer])
    hook = ir.Function(module, kind, name=f"hook_{head:x}")
    b = ir.IRBuilder(hook.append_basic_block())
    call = ir.FunctionType(I32, [pointer, I64, I64, I32])
    state = b.inttoptr(I64(surroundings.state), I64.as_pointer())
    identifiers, places = I64(surroundings.identifiers), I64(surroundings.places)
    end = hook.append_basic_block("end")

    def go_on_if(condition: Any) -> None:
        block = hook.append_basic_block()
        b.cbranch(condition, block, end)
        b.position_at_end(block)

    read = b.inttoptr(I64(surroundings.read), call.as_pointer())
    b.call(read, [hook.args[0], identifiers, places, I32(surroundings.count)])
    mxcsr = b.and_(b.load(b.gep(state, [I64(MXCSR_WORD)])), I64(MXCSR_CONTROL))
    go_on_if(b.icmp_unsigned("==", mxcsr, I64(MXCSR_MASKED)))
    turns = b.call(loop.function, [state])
    for index, more in ((0, I64(1)), (1, turns)):
        place = b.inttoptr(I64(counts + 8 * index), I64.as_pointer())
        b.store(b.add(b.load(place), more), place)
    still = b.icmp_unsigned("==", b.load(b.gep(state, [I64(RIP_WORD)])), I64(head))
    go_on_if(b.not_(b.and_(still, b.icmp_unsigned("==", turns, I64(0)))))
    write = b.inttoptr(I64(surroundings.write), call.as_pointer())
    b.call(write, [hook.args[0], identifiers, places, I32(surroundings.count)])
    one = ir.FunctionType(I32, [pointer, I32, I64.as_pointer()])
    rip = b.gep(state, [I64(RIP_WORD)])  # by itself: only so does Unicorn go on there
    b.call(b.inttoptr(I64(surroundings.jump), one.as_pointer()), [hook.args[0], I32(library.RIP), rip])
    b.branch(end)
    b.position_at_end(end)
    b.ret_void()


def _compile(module: ir.Module, name: str) -> tuple[Any, int]:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, jit=True)
    passes = llvm.create_pass_builder(
        machine, llvm.create_pipeline_tuning_options(speed_level=2)
    ).getModulePassManager()
    passes.run(parsed, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2)))
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine, engine.get_function_address(name)

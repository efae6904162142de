"""From the text of functions to host code, by LLVM (llvmlite)."""

from bisect import bisect_right
from functools import cache
from typing import Any, Final

from virtus.isa.instruction_set import InstructionSet
from virtus.vcpus.translator.llvm.flow import Shape, explore
from virtus.vcpus.translator.llvm.objects import Blob, blob_of
from virtus.vcpus.translator.llvm.request import Optimised, Request
from virtus.vcpus.translator.llvm.text import unit_text

MOST_INSTRUCTIONS: Final = 8000
"""In one unit."""
MOST_NEARBY: Final = 500
"""In a unit for code in the middle of a function that has been made, but is run from where it cannot be entered."""
MOST_INSIDE: Final = 80
"""Instructions of a called function that is made part of the same module."""
MOST_TOGETHER: Final = 400
"""Instructions of all of them."""
SPEED: Final = 1
"""LLVM's O1: O2 takes longer and its code is no faster here."""
LARGE: Final = 600
"""Units of more instructions get only the passes that matter most, in a tenth of the time: what takes so much code is
seldom a loop whose invariants could be moved."""

_FLOATS: Final = (("f32", "float"), ("f64", "double"))
_STRICT: Final = "metadata, metadata"
DECLARATIONS: Final = "".join(
    [
        "declare i64 @llvm.read_register.i64(metadata)\n",
        *(f"declare i{bits} @llvm.{name}.i{bits}(i{bits}, i1)\n" for name in ("ctlz", "cttz") for bits in (32, 64)),
        "declare i64 @llvm.ctpop.i64(i64)\ndeclare i64 @llvm.bswap.i64(i64)\n",
        *(
            f"declare {kind} @llvm.experimental.constrained.{name}.{suffix}({kind}, {kind}, {_STRICT})\n"
            for name in ("fadd", "fsub", "fmul", "fdiv")
            for suffix, kind in _FLOATS
        ),
        *(
            f"declare {kind} @llvm.experimental.constrained.sqrt.{suffix}({kind}, {_STRICT})\n"
            f"declare {kind} @llvm.experimental.constrained.fma.{suffix}({kind}, {kind}, {kind}, {_STRICT})\n"
            f"declare i1 @llvm.experimental.constrained.fcmp.{suffix}({kind}, {kind}, {_STRICT})\n"
            f"declare i1 @llvm.experimental.constrained.fcmps.{suffix}({kind}, {kind}, {_STRICT})\n"
            f"declare i1 @llvm.is.fpclass.{suffix}({kind}, i32)\n"
            for suffix, kind in _FLOATS
        ),
        *(
            f"declare {kind} @llvm.experimental.constrained.sitofp.{suffix}.{size}({size}, {_STRICT})\n"
            for suffix, kind in _FLOATS
            for size in ("i32", "i64")
        ),
        "declare double @llvm.experimental.constrained.fpext.f64.f32(float, metadata)\n",
        f"declare float @llvm.experimental.constrained.fptrunc.f32.f64(double, {_STRICT})\n",
        *(
            f"declare {size} @llvm.x86.{name}{wide}(<{lanes} x {kind}>)\n"
            for name, lanes, kind in (
                ("sse2.cvttsd2si", 2, "double"),
                ("sse2.cvtsd2si", 2, "double"),
                ("sse.cvttss2si", 4, "float"),
                ("sse.cvtss2si", 4, "float"),
            )
            for size, wide in (("i32", ""), ("i64", "64"))
        ),
    ]
)
METADATA: Final = """
!0 = !{!0}
!1 = !{!2}
!2 = !{!2, !0}
!7 = !{!"rsp\\00"}
!8 = !{!"branch_weights", i32 1, i32 100000}
!9 = !{!"branch_weights", i32 100000, i32 1}
"""


@cache
def _target() -> tuple[Any, Any, str]:
    """LLVM, the host as a target machine, and the attributes of functions."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=name, features=features, opt=2, reloc="pic", codemodel="small", jit=False
    )
    attributes = (
        f'attributes #0 = {{ nounwind null_pointer_is_valid strictfp "no-builtins" "frame-pointer"="none" '
        f'"target-cpu"="{name}" "target-features"="{features}" }}\n'
    )
    return llvm, machine, attributes


def host() -> str:
    """The processor that code is made for, with its features: code for one may not run on another."""
    import llvmlite.binding as llvm

    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


def optimise(isa: InstructionSet, request: Request, *, nearby: bool = False) -> tuple[Optimised, int]:
    """The optimised code of a request, and of how many guest instructions it was made.

    `nearby`: not of the whole function, but of what is near the entry.
    """
    fetch = _fetcher(request.code, isa.longest)
    main = explore(isa, fetch, request.entry, dict(request.jumps), MOST_NEARBY if nearby else MOST_INSTRUCTIONS)
    if not main.instructions:
        raise ValueError(f"there is no code at {request.entry:#x}")
    shapes = {request.entry: main, **_called(isa, fetch, main)}
    internal = frozenset(shapes)
    text = "".join(unit_text(isa, shape, internal, precise=request.precise) for shape in shapes.values())
    count = sum(len(shape.instructions) for shape in shapes.values())
    blob = compile_text(text, large=count > LARGE)
    covers = tuple(sorted({piece for shape in shapes.values() for piece in shape.covers()}))
    made = Optimised(
        blob.code,
        _addresses(blob, "u"),
        covers,
        tuple(_piece(request.code, start, end) for start, end in covers),
        request.precise,
        _addresses(blob, "f"),
    )
    return made, count


def _addresses(blob: Blob, letter: str) -> dict[int, int]:
    """The offsets of functions whose names are a letter and a guest address."""
    return {int(name[1:], 16): offset for name, offset in blob.symbols.items() if name.startswith(letter)}


def _called(isa: InstructionSet, fetch: Any, main: Shape) -> dict[int, Shape]:
    """Small functions that a unit calls, and those that they call."""
    shapes: dict[int, Shape] = {}
    todo = sorted(main.calls)
    together = 0
    while todo:
        pc = todo.pop(0)
        if pc in shapes or pc == main.entry:
            continue
        shape = explore(isa, fetch, pc, {}, MOST_INSIDE + 1)
        size = len(shape.instructions)
        if not size or size > MOST_INSIDE or shape.has_computed or together + size > MOST_TOGETHER:
            continue
        together += size
        shapes[pc] = shape
        todo += sorted(shape.calls)
    return shapes


def _fetcher(code: tuple[tuple[int, bytes], ...], longest: int) -> Any:
    starts = [start for start, _ in code]

    def fetch(address: int) -> bytes:
        index = bisect_right(starts, address) - 1
        if index < 0:
            return b""
        start, data = code[index]
        return data[address - start : address - start + longest]

    return fetch


def _piece(code: tuple[tuple[int, bytes], ...], start: int, end: int) -> bytes:
    for first, data in code:
        if first <= start and end <= first + len(data):
            return data[start - first : end - first]
    raise ValueError(f"the code from {start:#x} to {end:#x} is in more than one piece")


def compile_text(text: str, *, large: bool = False) -> Blob:
    """Host code for functions in LLVM's language; `large` ones are optimised less."""
    llvm, machine, attributes = _target()
    module = llvm.parse_assembly(DECLARATIONS + text + attributes + METADATA)
    options = llvm.create_pipeline_tuning_options(speed_level=SPEED)
    options.loop_vectorization = options.slp_vectorization = False
    builder = llvm.create_pass_builder(machine, options)
    if large:
        passes = llvm.create_new_module_pass_manager()
        passes.add_sroa_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.add_dead_store_elimination_pass()
    else:
        passes = builder.getModulePassManager()
    passes.run(module, builder)
    return blob_of(machine.emit_object(module))

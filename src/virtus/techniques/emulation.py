"""emulation: a program for another processor, translated while it runs; the user-mode kernel answers its calls."""

import os
import select
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from virtus.errors import UsageError
from virtus.guests.identify import Kind
from virtus.machine.meter import Report
from virtus.machine.spec import GuestSpec
from virtus.personalities.linux.kernel import Kernel
from virtus.personalities.linux.proc.process_contents import guest_mappings
from virtus.techniques import choose, user_mode_kernel
from virtus.techniques.base import Availability
from virtus.vcpus.ptrace import PtraceVcpu

MACHINE: Final = "riscv64"
USUAL_SYSROOT: Final = "/usr/riscv64-linux-gnu"
"""Where Debian's cross packages put the libraries of riscv64 programs (libc6-riscv64-cross)."""


def sysroots(spec: GuestSpec) -> tuple[str, ...]:
    """Guest directories in which a dynamic program's libraries are looked for first; VIRTUS_SYSROOT names another."""
    environment = os.environ if spec.env is None else spec.env
    named = environment.get("VIRTUS_SYSROOT")
    if named:
        return (named,)
    return (USUAL_SYSROOT,) if os.path.isdir(os.path.join(spec.root, USUAL_SYSROOT[1:])) else ()


def _translate_ahead(kernel: Kernel, translate: Callable[..., int]) -> None:
    """With `translate` set to `only`: the program is loaded, and what it consists of is translated and kept."""
    task = next(iter(kernel.tasks.values()))
    context: Any = task.context
    data = [
        (int(low, 16), int(high, 16))
        for low, high in (
            line.split(b" ", 1)[0].split(b"-") for _, _, line in guest_mappings(kernel, task, "maps") if b" r" in line
        )
    ]
    translate(context, context.vcpu.optimiser, data, _show)


def _show(done: int, of: int) -> None:
    if os.isatty(2):
        os.write(2, f"\rtranslating functions: {done} of {of}".encode() + (b"\n" if done == of else b""))


def _take(tiers: Any) -> None:
    tiers.collect()


def _run_deck(spec: GuestSpec) -> Report:
    from virtus.techniques import ibm7070

    if "gdb" in spec.extra:
        raise UsageError(f"running {spec.argv[0]}", "GDB knows no IBM 7070", "--trace shows what it does")
    deck, path = ibm7070.deck_of(spec), spec.extra.get("trace")
    if path in (None, "-", "yes"):
        return ibm7070.run_deck(deck)
    try:
        with open(path, "w", encoding="utf-8") as trace:
            return ibm7070.run_deck(deck, trace=trace)
    except OSError as error:
        raise UsageError(f"running {spec.argv[0]}, its trace in {path}", os.strerror(error.errno or 0)) from error


class Emulation:
    """See Technique."""

    name = "emulation"
    section = "2.1"
    vcpu = "translator, interpreter"
    personality = "linux"
    summary = "programs for another processor (riscv64), translated while they run"

    def probe(self) -> Availability:
        """See Technique."""
        return user_mode_kernel.probe(PtraceVcpu)

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique."""
        if choose.guest_of(spec).kind is Kind.DECK:
            return _run_deck(spec)
        if "trace" in spec.extra or "gdb" in spec.extra:
            return self._run_interpreted(spec)
        from virtus.isa.riscv64 import RISCV64
        from virtus.isa.x86.assembler import host_has
        from virtus.vcpus.translator.cache import Cache, directory
        from virtus.vcpus.translator.llvm.worker import Background
        from virtus.vcpus.translator.tiers import Tiers
        from virtus.vcpus.translator.vcpu import CallConvention, TranslatorVcpu

        host_has()  # looks at the processor, which cannot be done where the guest's root is
        libraries = sysroots(spec)
        kept = Cache(RISCV64, directory(os.environ))
        background = Background(RISCV64, kept if kept.usable else None)

        def make() -> TranslatorVcpu:
            return TranslatorVcpu(RISCV64, CallConvention(number=17, first=10))

        instead = None
        if spec.extra.get("translate") == "only":
            from virtus.vcpus.translator.ahead import translate

            instead = partial(_translate_ahead, translate=translate)

        def attach(kernel: Kernel, vcpu: Any) -> Any:
            kernel.sysroots = libraries
            background.enter()
            tiers = vcpu.optimiser = Tiers(vcpu, background, kept, kernel.meter.note)
            kernel.scheduler.watch(background.fileno(), select.EPOLLIN, lambda events: _take(tiers))
            return lambda: {**vcpu.figures(), **tiers.figures()}

        try:
            return user_mode_kernel.run(
                self.name, make, spec, machine=MACHINE, attach=attach, instead=instead, standby=background
            )
        finally:
            background.close()
            kept.close()

    def _run_interpreted(self, spec: GuestSpec) -> Report:
        """To be looked into: `trace` names a file, or `-` for standard error, `gdb` where GDB is waited for."""
        from virtus.isa.riscv64 import RISCV64
        from virtus.machine.debug.request import Request
        from virtus.vcpus.foreign import CallConvention

        if "translate" in spec.extra:
            raise UsageError(f"running {spec.argv[0]}", "what is traced or debugged is interpreted, not translated")
        libraries = sysroots(spec)
        request = Request(
            RISCV64, CallConvention(number=17, first=10), trace=spec.extra.get("trace"), gdb=spec.extra.get("gdb")
        )

        def attach(kernel: Kernel, vcpu: Any) -> Any:
            kernel.sysroots = libraries
            request.attach(kernel, vcpu)
            return vcpu.figures

        try:
            return user_mode_kernel.run(self.name, request.vcpu, spec, machine=MACHINE, attach=attach)
        finally:
            request.close()


TECHNIQUE = Emulation()

"""paravirt: a kernel that knows it has a hypervisor, as under Xen; it runs at ring 3, and asks by hypercall."""

import contextlib
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from virtus.devices import network
from virtus.devices.console import Console
from virtus.devices.disk import Disk
from virtus.errors import GuestNotRunnable, UsageError, VirtusError
from virtus.guests import linux_image
from virtus.guests.elf import NotLoadable
from virtus.machine import loop, saved_machine
from virtus.machine.control import ConsoleWanted, ControlSocket
from virtus.machine.machine_spec import LEAST_MEMORY, MachineSpec, saved_spec, spec_as_json
from virtus.machine.meter import Meter, Report
from virtus.machine.saved_machine import SavedMachine
from virtus.machine.spec import GuestSpec
from virtus.memory.guest_memory import FRAME_SHIFT, GuestMemory
from virtus.memory.pool import FramePool
from virtus.personalities.xen import builder, saving
from virtus.personalities.xen.abi import DOMID_CONTROL
from virtus.personalities.xen.block import BlockBackEnd
from virtus.personalities.xen.cpuid import INDEXED, CpuidPolicy
from virtus.personalities.xen.domain import Domain
from virtus.personalities.xen.hypervisor import Hypervisor
from virtus.personalities.xen.machine import XenMachine, own_frames
from virtus.personalities.xen.network import NetworkBackEnd
from virtus.personalities.xen.toolstack import Toolstack
from virtus.personalities.xen.xenstore import Permissions, StoreError
from virtus.records import replace
from virtus.techniques.base import Availability
from virtus.techniques.booting import default_name, ended_by_signals, ethernet_address, open_disk, read_image
from virtus.vcpus import kvm as vcpus
from virtus.vcpus.kvm_turns import Turns
from virtus.vcpus.monitor_pages import MOST_PROCESSORS

DOMAIN = 1
XEN_OUI = b"\x00\x16\x3e"  # Xen's users may give them out as they like
HINTS = {"nr_cpus": "nr_cpus={}", "noreplace-smp": "noreplace-smp"}
"""Parameters of Linux that a domain is given unless its user names them. Without the first, the
kernel asks for each processor that it could have, 8192 times; without the second, it patches thousands of lock prefixes
out of its code, at three hypercalls each."""


class Paravirt:
    """See Technique; `boot` is its `run` for machines."""

    name = "paravirt"
    section = "3.4"
    vcpu = "kvm at ring 3"
    personality = "xen"
    summary = "paravirtual domains, as Xen"

    def probe(self) -> Availability:
        """See Technique: starts a processor and executes a few instructions at ring 3."""
        lacking = vcpus.usable()
        if lacking:
            return Availability(False, lacking, "load kvm_amd or kvm_intel, and join the group kvm")
        memory = GuestMemory(own_frames(LEAST_MEMORY) << FRAME_SHIFT, "probe")
        try:
            _start_processor(memory, FramePool(0, memory.frames)).close()
        except VirtusError as error:
            return Availability(False, error.found, error.remedy)
        finally:
            memory.close()
        return Availability(True)

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique: the guest is a kernel image, and its arguments are its command line."""
        return self.boot(MachineSpec(kernel=Path(spec.argv[0]), append=" ".join(spec.argv[1:])))

    def boot(self, spec: MachineSpec) -> Report:
        """Boot a kernel, and serve it until the domain ends; raises VirtusError where it cannot start.

        The report's status is 0 when the domain powered off or was saved, 1 when it crashed, 130 when the user left by
        Ctrl-], 137 when it was destroyed.
        """
        if spec.cpus > MOST_PROCESSORS:
            raise UsageError("reading --cpus", f"{spec.cpus} processors", f"at most {MOST_PROCESSORS}")
        kernel = _kernel(spec.kernel)
        ramdisk = b"" if spec.initrd is None else read_image(spec.initrd)

        def build(machine: XenMachine, domain: Domain, console: Console) -> list[Any]:
            _introduce(machine, domain)
            try:
                builder.build(domain, kernel, ramdisk, command_line(spec.append, spec.cpus), machine.store, console)
            except NotLoadable as error:
                raise GuestNotRunnable(f"booting {spec.kernel}", str(error)) from error
            return []

        return self._run(spec, build)

    def restore(self, path: Path, console_in: int = 0, console_out: int = 1) -> Report:
        """Go on with a machine that `virtus domain save` has put into a file; raises VirtusError."""
        saved = SavedMachine(path)
        doing = f"restoring from {path}"
        try:
            spec = saved_spec(saved.known["spec"], console_in, console_out)
        except (KeyError, TypeError, ValueError) as error:
            saved.close()
            raise GuestNotRunnable(doing, f"a damaged file: {error!r}") from error

        def load(machine: XenMachine, domain: Domain, console: Console) -> list[Any]:
            saved.fill(machine.memory, saving.pieces(machine, domain))
            try:
                saving.load(machine, domain, saved.known, console)
                return list(saved.known["back_ends"])
            except (KeyError, TypeError, ValueError, IndexError, OSError, OverflowError, StoreError) as error:
                raise GuestNotRunnable(doing, f"it does not fit this machine: {error}") from error
            finally:
                saved.close()

        return self._run(spec, load)

    def _run(self, spec: MachineSpec, begin: Callable[[XenMachine, Domain, Console], list[Any]]) -> Report:
        """`begin` fills the domain, and gives what back ends have saved, if any."""
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        counted = Meter()
        with contextlib.ExitStack() as open_things:
            disks = [
                open_disk(disk.path, open_things, read_only=disk.read_only, snapshot=disk.snapshot, form=disk.form)
                for disk in spec.disks
            ]
            own = own_frames(spec.memory)
            memory = GuestMemory((own << FRAME_SHIFT) + spec.memory)
            open_things.callback(memory.close)
            pool = FramePool(0, own)
            first = _start_processor(memory, pool, spec.cpus)
            open_things.callback(first.close)
            processors = [first, *(first.another() for _ in range(spec.cpus - 1))]
            vcpu = first if spec.cpus == 1 else Turns(processors)
            open_things.callback(vcpu.close)
            machine = XenMachine(memory, pool, first.pages.entries, counted.note)
            contexts = [one.context for one in processors]
            domain = Domain(machine, DOMAIN, own, spec.memory >> FRAME_SHIFT, *contexts)
            machine.domains[DOMAIN] = domain
            console = Console(spec.console_in, spec.console_out)
            link = network.attach(spec.net)
            if link is not None:
                open_things.callback(link.close)
                first.context.watch(link.fileno())
            kept = begin(machine, domain, console)
            try:
                _plug_in(machine, domain, spec, disks, link, kept)
            except (KeyError, TypeError, ValueError) as error:
                raise GuestNotRunnable(f"restoring {spec.name}", f"a damaged file: {error!r}") from error
            personality = Hypervisor(domain)
            _control(open_things, domain, machine, spec, console)
            open_things.enter_context(ended_by_signals())
            open_things.callback(console.stop)
            console.start()
            loop.run(vcpu, personality, counted)
            domain.console.close()
            for disk in disks:
                disk.flush()
            details = {
                f"{name} {what}": sum(getattr(back_end, what) for back_end in domain.back_ends if back_end.kind == kind)
                for name, kind in (("block", b"vbd"), ("network", b"vif"))
                for what in ("requests", "bytes")
            }
        after = resource.getrusage(resource.RUSAGE_SELF)
        return Report(
            technique=self.name,
            status=domain.status,
            wall_s=time.perf_counter() - started,
            cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            context_switches=after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
            host_processes=1,
            exits=dict(counted.exits),
            calls=dict(counted.calls),
            notes=dict(counted.notes),
            guest_s=counted.guest_ns / 1e9,
            personality_s=counted.personality_ns / 1e9,
            details=details,
        )


def command_line(append: str, processors: int = 1) -> str:
    """The kernel's command line: the user's, and the HINTS that it does not name."""
    named = {word.partition("=")[0] for word in append.split()}
    hints = [hint.format(processors) for name, hint in HINTS.items() if name not in named]
    return " ".join([append, *hints]).strip()


def _control(
    open_things: contextlib.ExitStack, domain: Domain, machine: XenMachine, spec: MachineSpec, console: Console
) -> None:
    """Let the user's other processes ask for things (`virtus domain`)."""
    name = spec.name or default_name(spec.kernel)
    commands = Toolstack(domain, machine.store, name).commands()

    def save(request: Mapping[str, Any]) -> None:
        path = Path(str(request.get("path")))
        lost = [str(disk.path) for disk in spec.disks if disk.snapshot]
        if lost:
            raise UsageError(
                f"saving {name}", f"what it wrote to {lost[0]} is thrown away", "use disks without snapshot"
            )
        try:
            known = saving.save(machine, domain)
        except ValueError as error:
            raise VirtusError(f"saving {name}", str(error), "try again in a moment") from error
        for back_end in domain.back_ends:
            back_end.flush()
        known |= {"technique": "paravirt", "spec": spec_as_json(replace(spec, name=name))}
        saved_machine.write(path, known, machine.memory, saving.pieces(machine, domain))
        domain.ended = "saved"

    def wanted(request: object) -> None:
        raise ConsoleWanted(console.attach)

    control = ControlSocket(name, {**commands, "console": wanted, "save": save})
    open_things.callback(control.close)
    control.watch = domain.cpu.context.watch
    for descriptor in control.descriptors():
        control.watch(descriptor)
    domain.services.append(control)


def _plug_in(
    machine: XenMachine,
    domain: Domain,
    spec: MachineSpec,
    disks: list[Disk],
    link: network.Link | None,
    kept: list[Any],
) -> None:
    """Make the back ends, which go on from what was `kept` of them, in this order."""
    saved = iter(kept)
    for number, disk in enumerate(disks):
        domain.back_ends.append(BlockBackEnd(domain, machine.store, disk, number, next(saved, None)))
    if link is not None:
        address = ethernet_address(XEN_OUI, spec.name)
        domain.back_ends.append(NetworkBackEnd(domain, machine.store, link, 0, address, next(saved, None)))


def _start_processor(memory: GuestMemory, pool: FramePool, processors: int = 1) -> vcpus.KvmVcpu:
    policy = CpuidPolicy()
    return vcpus.KvmVcpu(memory, pool, policy.leaves, INDEXED, processors)


def _kernel(path: Path) -> linux_image.KernelImage:
    try:
        return linux_image.read(read_image(path))
    except NotLoadable as error:
        raise GuestNotRunnable(f"booting {path}", str(error)) from error


def _introduce(machine: XenMachine, domain: Domain) -> None:
    """What every domain finds of itself in xenstore."""
    home, store = b"/local/domain/%d" % domain.ident, machine.store
    theirs = Permissions(domain.ident, "n")
    pages = domain.frame_count << FRAME_SHIFT >> 10
    for name, value in {
        b"": b"",
        b"/domid": b"%d" % domain.ident,
        b"/name": b"guest",
        b"/memory/target": b"%d" % pages,
    }.items():
        store.write(DOMID_CONTROL, home + name, value)
    for name in (b"", b"/memory", b"/memory/target", b"/domid", b"/name"):
        store.set_permissions(DOMID_CONTROL, home + name, theirs)
    for number in range(len(domain.cpus)):
        store.write(DOMID_CONTROL, b"%s/cpu/%d/availability" % (home, number), b"online")
        store.set_permissions(DOMID_CONTROL, b"%s/cpu/%d/availability" % (home, number), theirs)
    for name in (b"/control", b"/data", b"/device", b"/error", b"/drivers", b"/attr"):
        store.make_directory(DOMID_CONTROL, home + name)
        store.set_permissions(DOMID_CONTROL, home + name, theirs)


TECHNIQUE = Paravirt()

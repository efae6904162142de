"""hvm: an unmodified system on a virtual machine of the processor's own making, VMX or SVM, through KVM."""

import contextlib
import os
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from virtus.devices import network
from virtus.devices.console import Console
from virtus.devices.virtio.balloon import Balloon
from virtus.devices.virtio.block import Block
from virtus.devices.virtio.console import VirtioConsole
from virtus.devices.virtio.device import Device
from virtus.devices.virtio.network import Network
from virtus.devices.virtio.queue import BadRing
from virtus.devices.virtio.rng import Entropy
from virtus.errors import GuestNotRunnable, HostLacks, UsageError
from virtus.guests.elf import NotLoadable
from virtus.host import kvm_devices
from virtus.host.kvm_state import NotRestored
from virtus.machine.machine_spec import MachineSpec, saved_spec
from virtus.machine.meter import Meter, Report
from virtus.machine.spec import GuestSpec
from virtus.memory.guest_memory import GuestMemory
from virtus.personalities.virtual_pc import boot, boot64
from virtus.personalities.virtual_pc.acpi_tables import SERIAL_INTERRUPT
from virtus.personalities.virtual_pc.board import HOLE, LINES, Board
from virtus.techniques import hvm_control
from virtus.techniques.base import Availability
from virtus.techniques.booting import ethernet_address, open_disk, read_image
from virtus.techniques.hvm_machine import EVENT, RunningMachine
from virtus.vcpus import ring0_speed
from virtus.vcpus.hardware import HardwareMachine

OUI: Final = b"\x52\x54\x00"  # locally administered, as virtual machines' cards have them
CONSOLE: Final = "console=ttyS0"
MOST_PROCESSORS: Final = 16


class Hvm:
    """See Technique; `boot` is its `run` for machines."""

    name = "hvm"
    section = "3.5"
    vcpu = "kvm"
    personality = "pc with virtio"
    summary = "hardware-assisted virtual machines"

    def probe(self) -> Availability:
        """See Technique: runs some instructions at ring 0, and looks how long that takes."""
        try:
            speed = ring0_speed.measure()
        except OSError as error:
            return Availability(False, f"/dev/kvm: {error.strerror or error}", "load kvm_amd or kvm_intel")
        if speed < ring0_speed.SOFTWARE_BELOW:
            found = f"its KVM emulates ring 0 ({speed / 1e6:.1f} M instructions a second)"
            return Availability(False, found, "use paravirt, or a host with VMX or SVM")
        return Availability(True)

    def run(self, spec: GuestSpec, *, meter: bool = False) -> Report:
        """See Technique: the guest is a kernel image, and its arguments are its command line."""
        return self.boot(MachineSpec(kernel=Path(spec.argv[0]), append=" ".join(spec.argv[1:])))

    def boot(self, spec: MachineSpec) -> Report:
        """Boot a kernel, and serve it until it ends; raises VirtusError where it cannot start.

        The report's status is 0 for a power-off or a reboot, or when it was saved, 1 when a processor stopped (a triple
        fault), 130 when the user left by Ctrl-], 137 when it was destroyed.
        """
        image = read_image(spec.kernel)
        ramdisk = b"" if spec.initrd is None else read_image(spec.initrd)
        command = _command_line(spec.append)

        def load(machine: HardwareMachine, board: Board) -> None:
            try:
                _load(machine, image, ramdisk, command, board.tables(spec.cpus))
            except NotLoadable as error:
                raise GuestNotRunnable(f"booting {spec.kernel}", str(error)) from error

        return self._run(spec, load, typed_at_virtio=_main_console(command).startswith("hvc"))

    def restore(self, path: Path, console_in: int = 0, console_out: int = 1) -> Report:
        """Go on with a machine that `virtus domain save` has put into a file; raises VirtusError."""
        from virtus.machine.saved_machine import SavedMachine

        saved = SavedMachine(path)
        doing = f"restoring from {path}"

        def load(machine: HardwareMachine, board: Board) -> None:
            try:
                pieces = [(int(first), int(count)) for first, count in saved.known["pieces"]]
                if any(first < 0 or count < 0 or first + count > machine.memory.frames for first, count in pieces):
                    raise ValueError("memory beyond its end")
                saved.fill(machine.memory, pieces)
                machine.load(saved.known["machine"])
                board.load(saved.known["board"])
            except NotRestored as error:
                raise HostLacks(doing, str(error), "restore it on a host like the one where it was saved") from error
            except (OSError, KeyError, TypeError, ValueError, struct.error, BadRing) as error:
                raise GuestNotRunnable(doing, f"a damaged file: {error!r}") from error

        try:
            try:
                spec = saved_spec(saved.known["spec"], console_in, console_out)
                typed_at_virtio = bool(saved.known["typed_at_virtio"])
            except (KeyError, TypeError, ValueError) as error:
                raise GuestNotRunnable(doing, f"a damaged file: {error!r}") from error
            return self._run(spec, load, typed_at_virtio=typed_at_virtio)
        finally:
            saved.close()

    def _run(
        self, spec: MachineSpec, load: Callable[[HardwareMachine, Board], None], *, typed_at_virtio: bool
    ) -> Report:
        """Make a machine, have `load` fill it, and run it."""
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        if spec.cpus > MOST_PROCESSORS:
            raise UsageError("reading --cpus", f"{spec.cpus} processors", f"at most {MOST_PROCESSORS}")
        with contextlib.ExitStack() as open_things:
            memory = GuestMemory(spec.memory, hole=HOLE)
            open_things.callback(memory.close)
            machine = HardwareMachine(memory, spec.cpus)
            open_things.callback(machine.close)
            console = Console(spec.console_in, spec.console_out)
            devices = _devices(open_things, memory, spec, console)
            lines = [_line(open_things, machine, number) for number in LINES[: len(devices)]]
            serial_line = _line(open_things, machine, SERIAL_INTERRUPT)
            keyboard = next(device for device in devices if isinstance(device, VirtioConsole))
            board = Board(console, devices, lines, serial_line, keyboard if typed_at_virtio else None)
            _exclude(memory, devices)
            load(machine, board)
            board.look_everywhere()
            began = time.perf_counter()
            running = RunningMachine(machine, board, devices, console)
            control = hvm_control.control(running, spec, typed_at_virtio)
            open_things.callback(control.close)
            meters = running.run(open_things, control)
            counters = _world_switches(machine)
        after = resource.getrusage(resource.RUSAGE_SELF)
        total = _sum(meters)
        broken = [f"its {device.name} device: {device.broken}" for device in devices if device.broken]
        broken += sorted(failure for device in devices for failure in device.failures)
        return Report(
            technique=self.name,
            status=board.status,
            wall_s=time.perf_counter() - started,
            cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            context_switches=after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
            host_processes=1,
            exits=dict(total.exits),
            calls={},
            notes=dict.fromkeys([*([board.ended] if board.status == 1 else []), *broken], 1),
            guest_s=total.guest_ns / 1e9,
            personality_s=total.personality_ns / 1e9,
            details={
                "start_us": int((began - started) * 1e6),
                **{f"world switches: {name}": value for name, value in counters.items()},
                **{
                    f"{device.name} {what}": getattr(device, what)
                    for device in devices
                    for what in ("requests", "bytes")
                },
                "excluded accesses": board.excluded(),
            },
        )


def _world_switches(machine: HardwareMachine) -> dict[str, int]:
    """The host's own counters of what made processors leave the guest, summed up; those that are 0 left out."""
    total: Counter[str] = Counter()
    for vcpu in machine.vcpus:
        total.update(vcpu.counters.read())
    return {name: value for name, value in total.items() if value}


def _load(machine: HardwareMachine, image: bytes, ramdisk: bytes, command: str, tables: dict[int, bytes]) -> None:
    """Put a kernel into memory, and have the first processor begin there; raises NotLoadable."""
    first = machine.vcpus[0]
    if boot64.can(image):
        entry = boot64.load(machine.memory, image, ramdisk, command, tables)
        first.start_long(entry, boot64.ZERO_PAGE, boot64.TABLES, boot64.DESCRIPTORS, boot64.STACK)
    else:
        from virtus.guests import linux_image

        entry = boot.load(machine.memory, linux_image.read(image), ramdisk, command, tables)
        first.start(entry, boot.START_AT)


def _sum(meters: list[Meter]) -> Meter:
    total = Meter()
    for meter in meters:
        for reason, count in meter.exits.items():
            total.exits[reason] += count
        total.guest_ns += meter.guest_ns
        total.personality_ns += meter.personality_ns
    return total


def _command_line(append: str) -> str:
    """The user's, and where the console is unless it says."""
    return append if "console=" in append else f"{append} {CONSOLE}".strip()


def _main_console(command: str) -> str:
    """What a command line has as the kernel's main console, which is the one named last."""
    named = [word for word in command.split() if word.startswith("console=")]
    return named[-1].removeprefix("console=") if named else ""


def _exclude(memory: GuestMemory, devices: list[Device]) -> None:
    """What is no memory of the system's is none of its devices': tables, and the rest of a PC's first megabyte."""
    devices[0].memory.shared.exclude(boot.LOW_END, boot.HIGH_START - boot.LOW_END)


def _devices(
    open_things: contextlib.ExitStack, memory: GuestMemory, spec: MachineSpec, console: Console
) -> list[Device]:
    devices: list[Device] = []
    for disk in spec.disks:
        opened = open_disk(disk.path, open_things, read_only=disk.read_only, snapshot=disk.snapshot, form=disk.form)
        devices.append(Block(memory, opened))
    link = network.attach(spec.net)
    if link is not None:
        open_things.callback(link.close)
        devices.append(Network(memory, link, ethernet_address(OUI, spec.name)))
    devices += (VirtioConsole(memory, console.write, console.size), Entropy(memory), Balloon(memory))
    if len(devices) > len(LINES):
        raise UsageError("reading --disk", f"{len(devices)} devices", f"at most {len(LINES)}")
    return devices


def _line(open_things: contextlib.ExitStack, machine: HardwareMachine, number: int) -> Callable[[], None]:
    try:
        fd = kvm_devices.interrupt_line(machine.vm, number)
    except OSError as error:
        raise HostLacks("connecting an interrupt", f"KVM: {error.strerror}") from error
    open_things.callback(os.close, fd)

    def pulse() -> None:
        os.write(fd, EVENT)

    return pulse


TECHNIQUE = Hvm()

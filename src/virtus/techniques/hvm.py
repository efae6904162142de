"""hvm: an unmodified system on a virtual machine of the processor's own making, VMX or SVM, through KVM."""

import contextlib
import os
import resource
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from virtus.devices import network
from virtus.devices.console import Console
from virtus.devices.virtio.balloon import Balloon
from virtus.devices.virtio.block import Block
from virtus.devices.virtio.device import Device
from virtus.devices.virtio.mmio import QUEUE_NOTIFY
from virtus.devices.virtio.network import Network
from virtus.devices.virtio.rng import Entropy
from virtus.errors import GuestNotRunnable, HostLacks, UsageError, VirtusError
from virtus.guests import linux_image
from virtus.guests.elf import NotLoadable
from virtus.host import kvm_devices
from virtus.machine import loop
from virtus.machine.control import ConsoleWanted, ControlSocket
from virtus.machine.machine_spec import MachineSpec
from virtus.machine.meter import Meter, Report
from virtus.machine.spec import GuestSpec
from virtus.memory.guest_memory import FRAME_SHIFT, GuestMemory
from virtus.personalities.virtual_pc import boot, boot64
from virtus.personalities.virtual_pc.acpi_tables import SERIAL_INTERRUPT
from virtus.personalities.virtual_pc.board import LINES, MOST_MEMORY, Board
from virtus.techniques.base import Availability
from virtus.techniques.booting import default_name, ended_by_signals, ethernet_address, open_disk, read_image
from virtus.vcpus import ring0_speed
from virtus.vcpus.hardware import HardwareMachine, HardwareVcpu

OUI: Final = b"\x52\x54\x00"  # locally administered, as virtual machines' cards have them
CONSOLE: Final = "console=ttyS0"
MOST_PROCESSORS: Final = 16
DESTROYED: Final = 137
SWITCH_INTERVAL_S: Final = 5e-5
"""How long one of our threads keeps the interpreter while another waits: processors that come out wait for it."""
EVENT: Final = (1).to_bytes(8, "little")


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

        The report's status is 0 for a power-off or a reboot, 1 when a processor stopped (a triple fault), 130 when the
        user left by Ctrl-], 137 when it was destroyed.
        """
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        if spec.cpus > MOST_PROCESSORS:
            raise UsageError("reading --cpus", f"{spec.cpus} processors", f"at most {MOST_PROCESSORS}")
        if spec.memory > MOST_MEMORY:
            raise UsageError("reading --memory", f"{spec.memory >> 20}M", f"at most {MOST_MEMORY >> 20}M so far")
        image = read_image(spec.kernel)
        ramdisk = b"" if spec.initrd is None else read_image(spec.initrd)
        with contextlib.ExitStack() as open_things:
            memory = GuestMemory(spec.memory)
            open_things.callback(memory.close)
            machine = HardwareMachine(memory, spec.cpus)
            open_things.callback(machine.close)
            console = Console(spec.console_in, spec.console_out)
            devices = _devices(open_things, memory, spec)
            lines = [_line(open_things, machine, number) for number in LINES[: len(devices)]]
            board = Board(console, devices, lines, _line(open_things, machine, SERIAL_INTERRUPT))
            try:
                _load(machine, image, ramdisk, _command_line(spec.append), board.tables(spec.cpus))
            except NotLoadable as error:
                raise GuestNotRunnable(f"booting {spec.kernel}", str(error)) from error
            del image, ramdisk
            began = time.perf_counter()
            meters = _Run(machine, board, devices, console, spec).run(open_things)
            counters = _world_switches(machine)
        after = resource.getrusage(resource.RUSAGE_SELF)
        total = _sum(meters)
        return Report(
            technique=self.name,
            status=board.status,
            wall_s=time.perf_counter() - started,
            cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            context_switches=after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw,
            host_processes=1,
            exits=dict(total.exits),
            calls={},
            notes={board.ended: 1} if board.status == 1 else {},
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
                "excluded accesses": sum(device.memory.violations for device in devices),
            },
        )


class _Run:
    """The threads of one machine: one a processor, and this one for what comes from outside."""

    def __init__(
        self, machine: HardwareMachine, board: Board, devices: list[Device], console: Console, spec: MachineSpec
    ) -> None:
        self._machine, self._board, self._devices, self._console, self._spec = machine, board, devices, console, spec
        self._doorbells: dict[int, Callable[[], None]] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._failed: list[BaseException] = []
        self._going = threading.Event()
        self._going.set()
        board.stopped = self._stop

    def run(self, open_things: contextlib.ExitStack) -> list[Meter]:
        """Until the machine has ended; what each processor's meter says."""
        open_things.callback(os.close, self._wake)
        self._hang_doorbells(open_things)
        control = self._control()
        open_things.callback(control.close)
        open_things.enter_context(ended_by_signals())
        open_things.callback(self._console.stop)
        self._console.start()
        open_things.callback(_switch_interval, _switch_interval(SWITCH_INTERVAL_S))
        meters = [Meter() for _ in self._machine.vcpus]
        threads = [
            threading.Thread(target=self._processor, args=(vcpu, meter), name=f"processor {vcpu.number}", daemon=True)
            for vcpu, meter in zip(self._machine.vcpus, meters, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            while self._board.running:
                self._serve(control)
        finally:
            self._board.end("left", DESTROYED)
            self._stop()
            for thread in threads:
                while thread.is_alive():
                    self._stop()
                    thread.join(0.05)
        for device in self._devices:
            device.flush()
        if self._failed:
            raise self._failed[0]
        return meters

    def _processor(self, vcpu: HardwareVcpu, meter: Meter) -> None:
        try:
            vcpu.begin()
            loop.run(vcpu, _Patient(self._board, self._going), meter)
        except BaseException as error:  # whatever ends a processor ends the machine, and is raised there
            self._failed.append(error)
            self._board.end("broken", 1)

    def _hang_doorbells(self, open_things: contextlib.ExitStack) -> None:
        """Notifications of queues come as events, not as exits."""
        for transport in self._board.transports:
            for number in range(len(transport.device.queues)):
                fd = kvm_devices.doorbell(self._machine.vm, transport.base + QUEUE_NOTIFY, number)
                open_things.callback(os.close, fd)

                def rung(transport: Any = transport, number: int = number) -> None:
                    with self._board.lock:
                        transport.notified(number)

                self._doorbells[fd] = rung

    def _serve(self, control: ControlSocket) -> None:
        """Wait until something comes, and answer it."""
        watched = [*self._doorbells, self._wake, *self._board.descriptors(), *control.descriptors()]
        ready = select.select(watched, [], [])[0]
        others = False
        for fd in ready:
            rung = self._doorbells.get(fd)
            if rung is None:
                others = True
                continue
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 8)
            rung()
        if others:
            self._board.poll()
            control.poll()

    def _stop(self) -> None:
        """Have everybody look whether the machine still runs."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake, EVENT)
        if not self._board.running:
            self._going.set()
        for vcpu in self._machine.vcpus:
            vcpu.kick()

    def _control(self) -> ControlSocket:
        spec, board = self._spec, self._board
        name = spec.name or default_name(spec.kernel)
        began = time.monotonic()

        def describe(request: Mapping[str, Any]) -> dict[str, Any]:
            used = resource.getrusage(resource.RUSAGE_SELF)
            return {
                "name": name, "technique": "hvm", "pid": os.getpid(),
                "state": "running" if self._going.is_set() else "paused", "processors": len(self._machine.vcpus),
                "memory": spec.memory - (balloon.actual << FRAME_SHIFT), "most_memory": spec.memory,
                "cpu_s": used.ru_utime + used.ru_stime, "up_s": time.monotonic() - began,
                "devices": [
                    {"kind": device.name, "connected": device.queues[0].ready, "requests": device.requests,
                     "bytes": device.bytes}
                    for device in self._devices
                ],
            }  # fmt: skip

        balloon = next(device for device in self._devices if isinstance(device, Balloon))

        def pause(request: Mapping[str, Any]) -> None:
            self._going.clear()
            self._stop()

        def unpause(request: Mapping[str, Any]) -> None:
            self._going.set()

        def destroy(request: Mapping[str, Any]) -> None:
            board.end("destroyed", DESTROYED)

        def memory(request: Mapping[str, Any]) -> None:
            size = int(request.get("bytes", 0))
            if not 0 < size <= spec.memory:
                raise UsageError(f"resizing {name}", f"{size >> 20} MiB", f"at most {spec.memory >> 20}M")
            with board.lock:
                balloon.target = spec.memory - size >> FRAME_SHIFT
                transport = next(one for one in board.transports if one.device is balloon)
                transport.configuration_changed()

        def pin(request: Mapping[str, Any]) -> None:
            wanted = {int(number) for number in request.get("processors", [])}
            try:
                for thread in os.listdir("/proc/self/task"):
                    os.sched_setaffinity(int(thread), wanted)
            except (OSError, ValueError) as error:
                raise VirtusError(f"pinning {name} to {sorted(wanted)}", str(error), "see lscpu") from error

        def console(request: Mapping[str, Any]) -> None:
            raise ConsoleWanted(self._console.attach)

        commands = {
            "describe": describe, "pause": pause, "unpause": unpause, "destroy": destroy, "memory": memory, "pin": pin,
            "console": console,
        }  # fmt: skip
        return ControlSocket(name, commands)


class _Patient:
    """The board as a processor sees it that does not go on while the machine is paused. See Personality."""

    def __init__(self, board: Board, going: threading.Event) -> None:
        self._board, self._going = board, going
        self.name_of = board.name_of

    @property
    def running(self) -> bool:
        """See Personality."""
        if not self._going.is_set():
            self._going.wait()
        return self._board.running

    def handle(self, exit: Any) -> None:
        """See Personality."""
        self._board.handle(exit)


def _switch_interval(seconds: float) -> float:
    """Set how long a thread keeps the interpreter, in seconds; what it was before."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    return before


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


def _devices(open_things: contextlib.ExitStack, memory: GuestMemory, spec: MachineSpec) -> list[Device]:
    devices: list[Device] = []
    for disk in spec.disks:
        opened = open_disk(disk.path, open_things, read_only=disk.read_only, snapshot=disk.snapshot, form=disk.form)
        devices.append(Block(memory, opened))
    link = network.attach(spec.net)
    if link is not None:
        open_things.callback(link.close)
        devices.append(Network(memory, link, ethernet_address(OUI, spec.name)))
    devices += (Entropy(memory), Balloon(memory))
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

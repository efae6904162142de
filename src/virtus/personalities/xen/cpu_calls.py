"""Hypercalls about the virtual processor: traps, callbacks, stacks, segments, timers, blocking and shutting down.

Sources: xen/include/public/{callback,vcpu,sched}.h, arch-x86/xen.h, arch-x86/xen-x86_64.h.
"""

import struct
import time
from typing import TYPE_CHECKING, Final

from virtus.memory.guest_memory import FRAME_SHIFT
from virtus.memory.x86_paging import is_canonical
from virtus.personalities.xen import descriptors
from virtus.personalities.xen.abi import EEXIST, EINVAL, ENOENT, DomainCrash, Refused
from virtus.personalities.xen.cpu import (
    CALLBACK_EVENT,
    CALLBACK_FAILSAFE,
    CALLBACK_NMI,
    CALLBACK_SYSCALL,
    CALLBACK_SYSCALL32,
    Cpu,
    Handler,
)
from virtus.personalities.xen.table import NUMBERS, call, dispatch, operation

if TYPE_CHECKING:
    from virtus.personalities.xen.domain import Domain

TRAP: Final = struct.Struct("<BBHxxxxQ")  # struct trap_info: vector, flags, cs, address
TRAP_MASKS: Final = 4
MOST_TRAPS: Final = 257
CALLBACK: Final = struct.Struct("<HHxxxxQ")  # struct callback_register: type, flags, address
CALLBACKS: Final = frozenset({CALLBACK_EVENT, CALLBACK_FAILSAFE, CALLBACK_SYSCALL, CALLBACK_NMI, CALLBACK_SYSCALL32})
MASK_EVENTS: Final = 1  # CALLBACKF_mask_events
SEGBASE_FS, SEGBASE_GS_USER, SEGBASE_GS_KERNEL, SEGBASE_GS_USER_SELECTOR = range(4)
USER_REGISTERS: Final = struct.Struct("<15Q8sQ8sQQ5Q")  # struct cpu_user_regs
GUEST_CONTEXT_SIZE: Final = 5168  # struct vcpu_guest_context: x87, flags, registers, traps, tables, control, callbacks
REGISTERS_AT, TRAPS_AT, LDT_AT, GDT_FRAMES_AT, CONTROL_AT, CALLBACKS_AT = 520, 720, 4816, 4832, 4984, 5112
SYSCALL_MASKS: Final = 1 << 4  # VGCF_syscall_disables_events
MOST_POLLED: Final = 128
LONGEST_POLL: Final = 10_000_000  # nanoseconds: whoever waits for no particular time looks again
SHORTEST_PERIOD: Final = 1_000_000  # nanoseconds; vcpu.h


def _canonical(address: int) -> int:
    if not is_canonical(address):
        raise Refused(EINVAL, f"{address:#x} is no address")
    return address


@call("set_trap_table")
def set_trap_table(domain: "Domain", at: int) -> int:
    """Register exception handlers; an address of 0 ends the list, a list at 0 takes all away."""
    cpu = domain.cpu
    try:
        if not at:
            cpu.traps.clear()
            return 0
        for entry in range(MOST_TRAPS):
            vector, flags, _, address = TRAP.unpack(domain.access.read(at + TRAP.size * entry, TRAP.size))
            if not address:
                return 0
            cpu.traps[vector] = Handler(_canonical(address), bool(flags & TRAP_MASKS), flags & 3)
        raise Refused(EINVAL)
    finally:
        cpu.entries_changed()


@call("set_callbacks")
def set_callbacks(domain: "Domain", event: int, failsafe: int, syscall: int) -> int:
    """The old form of callback_op."""
    for kind, address in ((CALLBACK_EVENT, event), (CALLBACK_FAILSAFE, failsafe), (CALLBACK_SYSCALL, syscall)):
        domain.cpu.callbacks[kind] = Handler(_canonical(address), True)
    domain.cpu.entries_changed()
    return 0


@operation("callback_op", 0, "register", note="no sysenter: programs use syscall")
def register_callback(domain: "Domain", at: int) -> int:
    """struct callback_register."""
    kind, flags, address = CALLBACK.unpack(domain.access.read(at, CALLBACK.size))
    if kind not in CALLBACKS or (kind == CALLBACK_SYSCALL32 and not domain.cpu.context.has_syscall32):
        raise Refused(EINVAL)
    domain.cpu.callbacks[kind] = Handler(_canonical(address), kind == CALLBACK_EVENT or bool(flags & MASK_EVENTS))
    domain.cpu.entries_changed()
    return 0


@operation("callback_op", 1, "unregister")
def unregister_callback(domain: "Domain", at: int) -> int:
    """struct callback_unregister; the entries that a kernel cannot live without stay."""
    kind = struct.unpack("<H", domain.access.read(at, 2))[0]
    if kind not in (CALLBACK_NMI, CALLBACK_SYSCALL32):
        raise Refused(EINVAL)
    domain.cpu.callbacks.pop(kind, None)
    return 0


@call("stack_switch")
def stack_switch(domain: "Domain", segment: int, pointer: int) -> int:
    """The stack on which the kernel is entered from programs."""
    domain.cpu.kernel_stack = _canonical(pointer)
    return 0


@call("fpu_taskswitch", note="floating-point state is always loaded: no lazy switch")
def fpu_taskswitch(domain: "Domain", set_flag: int) -> int:
    """The task-switched flag of CR0."""
    return 0


@call("set_debugreg", note="kept, and not armed: hardware breakpoints never strike")
def set_debugreg(domain: "Domain", number: int, value: int) -> int:
    """Store a debug register."""
    if number not in domain.cpu.debug_registers:
        raise Refused(EINVAL)
    domain.cpu.debug_registers[number] = value
    return 0


@call("get_debugreg", note="as set_debugreg")
def get_debugreg(domain: "Domain", number: int) -> int:
    """What a debug register holds."""
    fixed = {6: 0xFFFF0FF0, 7: 0x400}  # bits that are always set
    if number not in domain.cpu.debug_registers:
        raise Refused(EINVAL)
    return domain.cpu.debug_registers[number] | fixed.get(number, 0)


@call("set_segment_base")
def set_segment_base(domain: "Domain", which: int, base: int) -> int:
    """The bases of FS and GS."""
    context = domain.cpu.context
    if which == SEGBASE_GS_USER_SELECTOR:
        selector = base & 0xFFFF
        context.load_user_gs(selector, domain.cpu.descriptor(selector) if selector & ~3 else 0)
    elif which == SEGBASE_FS:
        context.fs_base = _canonical(base)
    elif which == SEGBASE_GS_USER:
        context.user_gs_base = _canonical(base)
    elif which == SEGBASE_GS_KERNEL:
        context.gs_base = _canonical(base)
    else:
        raise Refused(EINVAL)
    return 0


@call("vm_assist", note="accepted: nothing that 64-bit guests ask for needs doing")
def vm_assist(domain: "Domain", command: int, kind: int) -> int:
    """Switch an assist on or off."""
    return 0


# time


@call("set_timer_op")
def set_timer_op(domain: "Domain", deadline: int) -> int:
    """VIRQ_TIMER at a system time; 0: not any more."""
    domain.cpu.set_deadline(deadline or None)
    return 0


def _cpu(domain: "Domain", number: int) -> Cpu:
    if number >= len(domain.cpus):
        raise Refused(ENOENT, f"no processor {number}")
    return domain.cpus[number]


def _current(domain: "Domain", number: int) -> Cpu:
    """Timers are for whoever asks: Xen refuses others, too."""
    if _cpu(domain, number) is not domain.cpu:
        raise Refused(EINVAL, "another processor's timer")
    return domain.cpu


@operation("vcpu_op", 0, "initialise")
def initialise(domain: "Domain", number: int, at: int) -> int:
    """struct vcpu_guest_context: how a further processor begins, once it is up."""
    cpu = _cpu(domain, number)
    if cpu.initialised:
        raise Refused(EEXIST)
    data = domain.access.read(at, GUEST_CONTEXT_SIZE)
    traps = {
        vector: Handler(_canonical(address), bool(flags & TRAP_MASKS), flags & 3)
        for vector, flags, _, address in TRAP.iter_unpack(data[TRAPS_AT:LDT_AT])
        if address
    }
    *frames, entries, _, stack = struct.unpack_from("<16QQQQ", data, GDT_FRAMES_AT)
    control = struct.unpack_from("<8Q", data, CONTROL_AT)
    event, failsafe, syscall, _, fs_base, gs_kernel, gs_user = struct.unpack_from("<7Q", data, CALLBACKS_AT)
    for address in (event, failsafe, syscall, fs_base, gs_kernel, gs_user, stack):
        _canonical(address)
    if entries > cpu.MOST_GDT_ENTRIES:
        raise Refused(EINVAL)
    regs = USER_REGISTERS.unpack_from(data, REGISTERS_AT)
    r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, _, rip, _, _, rsp, *_ = regs
    cpu.set_gdt(list(frames[: -(-entries // descriptors.PER_PAGE)]))
    cpu.set_kernel_root(control[3] >> FRAME_SHIFT)
    if control[1]:
        cpu.set_user_root(control[1] >> FRAME_SHIFT)
    context = cpu.context
    context.start(context.kernel_root, _canonical(rip), rsp)
    values = (rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip)
    for index, value in enumerate(values):
        context.regs[index] = value
    context.fs_base, context.gs_base, context.user_gs_base = fs_base, gs_kernel, gs_user
    cpu.traps, cpu.kernel_stack = traps, stack
    cpu.callbacks = {
        CALLBACK_EVENT: Handler(event, True), CALLBACK_FAILSAFE: Handler(failsafe, True),
        CALLBACK_SYSCALL: Handler(syscall, bool(struct.unpack_from("<Q", data, 512)[0] & SYSCALL_MASKS)),
    }  # fmt: skip
    cpu.entries_changed()
    cpu.masked = True
    cpu.initialised = True
    return 0


@operation("vcpu_op", 1, "up")
def up(domain: "Domain", number: int) -> int:
    """Let a processor run."""
    cpu = _cpu(domain, number)
    if not cpu.initialised:
        raise Refused(EINVAL, f"processor {number} has not been initialised")
    cpu.context.parked = False
    cpu.update_time()
    return 0


@operation("vcpu_op", 2, "down")
def down(domain: "Domain", number: int) -> int:
    """Let it run no more, until it is brought up again."""
    _cpu(domain, number).context.parked = True
    return 0


@operation("vcpu_op", 3, "is_up")
def is_up(domain: "Domain", number: int) -> int:
    """Whether a processor runs."""
    return int(not _cpu(domain, number).context.parked)


@operation("vcpu_op", 4, "get_runstate_info")
def get_runstate_info(domain: "Domain", number: int, at: int) -> int:
    """struct vcpu_runstate_info, now."""
    domain.access.write(at, _cpu(domain, number).runstate())
    return 0


@operation("vcpu_op", 5, "register_runstate_memory_area")
def register_runstate(domain: "Domain", number: int, at: int) -> int:
    """Where struct vcpu_runstate_info is to be kept up to date."""
    cpu = _cpu(domain, number)
    address = domain.access.read_qword(at)
    domain.access.write(address, cpu.runstate())
    cpu.runstate_at = address
    return 0


@operation("vcpu_op", 6, "set_periodic_timer")
def set_periodic_timer(domain: "Domain", number: int, at: int) -> int:
    """VIRQ_TIMER again and again."""
    cpu = _cpu(domain, number)
    period = domain.access.read_qword(at)
    if period < SHORTEST_PERIOD:
        raise Refused(EINVAL)
    cpu.period = period
    cpu.set_deadline(cpu.now() + period)
    return 0


@operation("vcpu_op", 7, "stop_periodic_timer")
def stop_periodic_timer(domain: "Domain", number: int) -> int:
    """No more of them."""
    cpu = _cpu(domain, number)
    if cpu.period:
        cpu.period = 0
        cpu.set_deadline(None)
    return 0


@operation("vcpu_op", 8, "set_singleshot_timer", note="a time in the past is now, also with VCPU_SSHOTTMR_future")
def set_singleshot_timer(domain: "Domain", number: int, at: int) -> int:
    """VIRQ_TIMER once."""
    _current(domain, number).set_deadline(domain.access.read_qword(at))
    return 0


@operation("vcpu_op", 9, "stop_singleshot_timer")
def stop_singleshot_timer(domain: "Domain", number: int) -> int:
    """Not any more."""
    _current(domain, number).set_deadline(None)
    return 0


@operation("vcpu_op", 10, "register_vcpu_info")
def register_vcpu_info(domain: "Domain", number: int, at: int) -> int:
    """struct vcpu_register_vcpu_info."""
    frame, offset = struct.unpack("<QI", domain.access.read(at, 12))
    _cpu(domain, number).register_info(frame, offset)
    return 0


# scheduling


@operation("sched_op", 0, "yield")
def yield_(domain: "Domain") -> int:
    """Let others run; the host does that anyway."""
    return 0


@operation("sched_op", 1, "block")
def block(domain: "Domain") -> int:
    """Unmask events, and wait for one."""
    domain.cpu.masked = False
    domain.poll()
    domain.wait()
    return 0


@operation("sched_op", 2, "shutdown")
def shutdown(domain: "Domain", at: int) -> int:
    """The domain ends: power-off, reboot, suspend, crash, watchdog."""
    domain.end(domain.access.read_dword(at))
    return 0


@operation("sched_op", 3, "poll")
def poll(domain: "Domain", at: int) -> int:
    """Wait until one of some masked ports is pending, or for a time: what a spinning processor does."""
    ports_at, count, timeout = struct.unpack("<QIxxxxQ", domain.access.read(at, 24))
    if count > MOST_POLLED:
        raise Refused(EINVAL)
    ports = struct.unpack(f"<{count}I", domain.access.read(ports_at, 4 * count)) if count else ()
    domain.poll()
    cpu = domain.cpu
    if not cpu.event_waits and not any(map(domain.events.is_pending, ports)):
        cpu.polled = frozenset(ports)
        until = cpu.monotonic(timeout) if timeout else time.monotonic_ns() + LONGEST_POLL
        cpu.context.sleep(domain.descriptors(), until)
    return 0


@call("iret")
def iret(domain: "Domain") -> int:
    """Only `Hypervisor.handle` knows what it returns to."""
    raise DomainCrash("iret inside of a multicall")


@call("multicall")
def multicall(domain: "Domain", at: int, count: int) -> int:
    """Several hypercalls in one; each result goes into its entry."""
    if count > 1 << 12:
        raise Refused(EINVAL)
    size = MULTICALL.size
    for number, entry in enumerate(MULTICALL.iter_unpack(domain.access.read(at, size * count))):
        nested = entry[0] & 0xFFFFFFFF == NUMBERS["multicall"]
        result = -EINVAL if nested else dispatch(domain, entry[0] & 0xFFFFFFFF, entry[2:])
        domain.access.write(at + size * number + 8, struct.pack("<q", result))
    return 0


MULTICALL: Final = struct.Struct("<8Q")  # struct multicall_entry: op, result, six arguments

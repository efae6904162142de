"""vCPU "kvm at ring 3": a guest's kernel and its programs both run at ring 3 under KVM; every gate leads out.

Where the host's KVM is real, memory is walked by the processor. Where it is software (the guest's ring 3 runs natively
on shadow page tables), the shadow does not see what we store into a page table: such entries are stored once more by a
few instructions inside the guest machine, in an address space of ours. Which of the two it is, is found by trying.
"""

import copy
import fcntl
import os
import select
import signal
import struct
import threading
import time
from typing import Final

from virtus.errors import HostLacks, MachineBroken
from virtus.exits import Exit, Reason
from virtus.host import kvm
from virtus.host.cpuid import Leaf
from virtus.host.thread_timer import ThreadTimer
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE, GuestMemory
from virtus.memory.pool import FramePool
from virtus.vcpus import inner_gates
from virtus.vcpus import monitor_pages as pages
from virtus.vcpus.kvm_context import FIXED_FLAGS, NULL, R11, RAX, RBX, RCX, RFLAGS, RIP, RSI, RSP, KvmContext
from virtus.vcpus.monitor_pages import MonitorPages

KICK: Final = signal.SIGRTMIN
KICKS: Final = frozenset({KICK, signal.SIGIO})
"""What has the guest come out: a timer of ours or somebody who asks for it, and descriptors (`watch`)."""
LIST_PAGES: Final = 8
LIST_ENTRIES: Final = LIST_PAGES * PAGE // 16
F_SETOWN_EX, F_OWNER_TID = 15, 0  # linux/fcntl.h
CR4_GLOBAL_PAGES: Final = 1 << 7
CR0: Final = 0x8005_0033  # PE MP ET NE WP AM PG
CR4: Final = 0x6A0  # PAE PGE OSFXSR OSXMMEXCPT
CR4_OSXSAVE: Final = 1 << 18
XSAVE: Final = 1 << 26  # CPUID.1:ECX
XSAVE_LEAF, X87 = 0xD, 1
EFER: Final = 0xD01  # SCE LME LMA NXE
MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SYSCALL_MASK = 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084
SYSCALL_MASK: Final = 0x47700  # the flags that syscall clears: AC NT DF IF TF and the I/O privilege level
FLAGS_OF_RING3: Final = 0x250DD5 & ~0x3000  # what a guest may set: no interrupt flag, no I/O privilege level
USER_CODE32: Final = 0x23
SOON: Final = 500_000
"""Nanoseconds after which to interrupt the guest again, when it could not be answered."""
IMMEDIATE_PORT: Final = (b"\xe4", b"\xe5", b"\xe6", b"\xe7")  # in and out with the port in the instruction


def _segment(selector: int, type_: int, *, long: int = 0, size: int = 0, limit: int = 0xFFFFFFFF) -> bytes:
    return kvm.SEGMENT.pack(0, limit, selector, type_, 1, 3, size, 1, long, 1, 0, 0, 0)


KERNEL_CODE: Final = _segment(pages.CODE3, 11, long=1)
KERNEL_STACK: Final = _segment(pages.DATA3, 3, size=1)
USER_CODE: Final = _segment(0x33, 11, long=1)
USER_CODE_32: Final = _segment(USER_CODE32, 11, size=1)
USER_STACK: Final = _segment(0x2B, 3, size=1)
TASK: Final = kvm.SEGMENT.pack(pages.TSS, pages.TSS_LIMIT, pages.TASK, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0)
NO_LDT: Final = kvm.SEGMENT.pack(0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0)


class KvmVcpu:
    """One processor of a machine whose physical memory is `memory`; `pool` has frames for the pages it needs."""

    def __init__(
        self,
        memory: GuestMemory,
        pool: FramePool,
        cpuid: dict[tuple[int, int], Leaf],
        indexed: frozenset[int],
        processors: int = 1,
    ) -> None:
        """`cpuid` is what CPUID answers by leaf and subleaf, where the host can decide that; see CpuidPolicy.

        This is the first of so many `processors`; the others are made by `another`.
        """
        self.memory, self._cpuid, self._indexed = memory, cpuid, indexed
        self.number, self.siblings = 0, [self]
        self.pages = MonitorPages(memory, pool, processors)
        try:
            self._vm = kvm.Vm()
        except OSError as error:
            raise HostLacks("starting a virtual processor", f"/dev/kvm: {error}", "see `virtus doctor`") from error
        try:
            self._vm.set_memory(0, 0, memory.size, memory.address)
            self.processor = kvm.VirtualProcessor(self._vm)
        except OSError as error:
            self._vm.close()
            raise HostLacks("starting a virtual processor", f"/dev/kvm: {error}", "see `virtus doctor`") from error
        self.changed: list[int] = []  # physical addresses of page table entries
        self._thread = threading.get_native_id()
        self._ident = threading.get_ident()
        self._masked = signal.pthread_sigmask(signal.SIG_BLOCK, KICKS)
        self._begin()
        self._direct_root = self.pages.make_direct_root()
        self._list = pool.take(LIST_PAGES)
        self.shadowed = self.has_syscall32 = False
        self.gates: memoryview | None = None  # the words of inner_gates, where its gates are open
        try:
            self._set_up(cpuid, indexed)
            self.shadowed = self._find_shadow(pool)
            if self.shadowed and self._stays_at_ring3:
                self._open_gates()
        except (HostLacks, MachineBroken):
            self.close()
            raise

    def _begin(self) -> None:
        """What each processor has for itself."""
        self._exit = Exit()
        self.flush_wanted = False
        self.processor.admit_signals(KICKS)
        self._timer = ThreadTimer(KICK, self._thread)
        self._wake_at: int | None = None
        self.context = KvmContext(self)
        self._exit.context = self.context
        self._comes_out_behind = False  # whether KVM shows RIP behind a port instruction, or at it

    def another(self) -> "KvmVcpu":
        """A further processor of the same machine, to run in the same thread; close it before this one."""
        made = copy.copy(self)
        made.number = len(self.siblings)
        made.processor = kvm.VirtualProcessor(self._vm, made.number)
        made._begin()
        made._set_up(self._cpuid, self._indexed)
        if self.gates is not None:
            made._open_gates()
        self.siblings.append(made)
        return made

    def _open_gates(self) -> None:
        call, idt, self.gates = self.pages.open_inner_gates(self.number)
        self.processor.set_msrs({MSR_LSTAR: call})
        kvm.DESCRIPTOR_TABLE.pack_into(self.processor.sregs, kvm.IDT_AT, idt, 16 * (pages.INT80 + 1) - 1)

    def want_flush(self) -> None:
        """No processor uses what it remembers of page tables once it goes on."""
        for one in self.siblings:
            one.flush_wanted = True

    def event(self) -> Exit:
        """An exit with Reason.EVENT, without having run."""
        self._wake_at = None
        self._exit.reason, self._exit.number = Reason.EVENT, 0
        return self._exit

    def _set_up(self, cpuid: dict[tuple[int, int], Leaf], indexed: frozenset[int]) -> None:
        processor = self.processor
        saves = bool(cpuid[1, 0][2] & XSAVE)
        sregs = processor.get_sregs()
        for at in (kvm.DS_AT, kvm.ES_AT, kvm.FS_AT, kvm.GS_AT):
            sregs[at : at + 24] = NULL
        sregs[kvm.CS_AT : kvm.CS_AT + 24] = KERNEL_CODE
        sregs[kvm.SS_AT : kvm.SS_AT + 24] = KERNEL_STACK
        sregs[kvm.TR_AT : kvm.TR_AT + 24] = TASK
        sregs[kvm.LDT_AT : kvm.LDT_AT + 24] = NO_LDT
        kvm.DESCRIPTOR_TABLE.pack_into(sregs, kvm.GDT_AT, pages.gdt(self.number), pages.GDT_PAGES * PAGE - 1)
        kvm.DESCRIPTOR_TABLE.pack_into(sregs, kvm.IDT_AT, pages.IDT, 16 * (pages.INT80 + 1) - 1)
        struct.pack_into("<QQQQQQ", sregs, kvm.CONTROL_AT, CR0, 0, 0, CR4 | (CR4_OSXSAVE if saves else 0), 0, EFER)
        try:
            processor.set_cpuid(cpuid, indexed)
            processor.set_sregs(sregs)
            if saves:  # else VMX and SVM run it with the x87's alone, whatever the guest's XSETBV says
                processor.set_xcr0(cpuid.get((XSAVE_LEAF, 0), (X87, 0, 0, 0))[0])
            processor.set_msrs(
                {
                    MSR_STAR: (pages.CODE3_32 & 0xFFFF) << 48 | pages.CODE0 << 32,
                    MSR_LSTAR: pages.STUBS,
                    MSR_SYSCALL_MASK: SYSCALL_MASK,
                }
            )
        except OSError as error:
            raise HostLacks("starting a virtual processor", f"KVM refuses long mode at ring 3: {error}") from error
        try:
            processor.set_msrs({MSR_CSTAR: pages.STUBS + pages.SYSCALL32_STUB * pages.STUB_SIZE})
            self.has_syscall32 = True
        except OSError:
            self.has_syscall32 = False  # 32-bit programs use int 0x80
        processor.sregs[:] = bytes(sregs)

    def _find_shadow(self, pool: FramePool) -> bool:
        """Whether the host remembers a page table entry that we have changed and flushed: then it shadows them.

        A few instructions at ring 3 read a page, come out, and read it again after its entry leads elsewhere.
        """
        root, level3, level2, level1, code, one, other = (pool.take() for _ in range(7))
        memory, inside = self.memory, pages.PRESENT | pages.WRITABLE | pages.USER
        memory.frame(code)[:8] = bytes.fromhex("488b03 0f05 ebf9 f4")  # again: mov rax, [rbx];  syscall;  jmp again
        memory.entries(one)[0], memory.entries(other)[0] = 1, 2
        for slot, entry in self.pages.entries.items():
            memory.entries(root)[slot] = entry
        memory.entries(root)[0] = level3 << FRAME_SHIFT | inside
        memory.entries(level3)[0] = level2 << FRAME_SHIFT | inside
        memory.entries(level2)[0] = level1 << FRAME_SHIFT | inside
        memory.entries(level1)[1] = code << FRAME_SHIFT | inside
        memory.entries(level1)[2] = one << FRAME_SHIFT | inside
        self.context.start(root << FRAME_SHIFT, PAGE, 0)
        self.context.regs[RBX] = 2 * PAGE
        seen = []
        for _ in range(2):
            if self.run().reason is not Reason.HYPERCALL:
                raise HostLacks("starting a virtual processor", "KVM does not run ring 3 as this technique needs it")
            self._stays_at_ring3 = bool(self.processor.sregs[kvm.CS_AT + 12] & 3)  # where `syscall` leads to
            seen.append(self.context.regs[RAX])
            memory.entries(level1)[2] = other << FRAME_SHIFT | inside
            self.context.flush()
        if seen[0] != 1:
            raise MachineBroken("trying the virtual processor", f"memory reads as {seen[0]:#x}")
        return seen[1] != 2

    def run(self) -> Exit:
        """See Vcpu. The exits are HYPERCALL and SYSCALL (by who was running), FAULT, EVENT and ENDED."""
        context, processor = self.context, self.processor
        if context.sleeping is not None:
            return self._sleep(context.sleeping)
        if self.gates is not None:
            context.give_state(self.gates)
        if self.flush_wanted:
            if self.changed and self.shadowed:
                self._store_again()
            self.changed.clear()
            self.flush_wanted = False
            processor.sregs_words[kvm.CR4_WORD] ^= CR4_GLOBAL_PAGES  # KVM drops all translations
        self._load_segments()
        while True:
            try:
                fcntl.ioctl(processor.fd, kvm.KVM_RUN, 0)
            except InterruptedError:
                signal.sigtimedwait(KICKS, 0)
                self._wake_at = None
                if self.gates is not None:
                    context.take_state(self.gates)
                if self._must_go_on():
                    self._timer.set(SOON)  # it need not come out by itself
                    continue
                self._exit.reason, self._exit.number = Reason.EVENT, 0
                self._take_selectors()
                return self._exit
            except OSError as error:
                raise MachineBroken("running the guest", f"KVM_RUN: {error.strerror}") from error
            if self.gates is not None:
                context.take_state(self.gates)
            reason = processor.exit_reason[0]
            if reason == kvm.EXIT_IO:
                return self._through_gate()
            if reason != kvm.EXIT_INTR:
                self._exit.reason, self._exit.number = Reason.ENDED, reason
                return self._exit

    def _load_segments(self) -> None:
        """Code and stack segments of whoever is to run; all registers count."""
        context, sregs = self.context, self.processor.sregs
        if context.kernel and not context.inner:
            sregs[kvm.CS_AT : kvm.CS_AT + 24] = KERNEL_CODE
            sregs[kvm.SS_AT : kvm.SS_AT + 24] = KERNEL_STACK
        elif context.kernel:  # as its programs: an inner gate leads from one to the other with what is loaded
            sregs[kvm.CS_AT : kvm.CS_AT + 24] = USER_CODE
            sregs[kvm.SS_AT : kvm.SS_AT + 24] = USER_STACK
        else:
            sregs[kvm.CS_AT : kvm.CS_AT + 24] = USER_CODE_32 if context.code_selector == USER_CODE32 else USER_CODE
            sregs[kvm.SS_AT : kvm.SS_AT + 24] = USER_STACK
        context.regs[RFLAGS] = context.regs[RFLAGS] & FLAGS_OF_RING3 | FIXED_FLAGS
        self.processor.dirty[0] = kvm.SYNC_REGS | kvm.SYNC_SREGS

    def _must_go_on(self) -> bool:
        """Interrupted between two worlds: an exception is on its way, or a stub has not yet come out."""
        processor = self.processor
        injected, pending = processor.events[0], processor.events[3]  # of struct kvm_vcpu_events
        return bool(injected or pending) or processor.regs[RIP] >> 39 == pages.BASE >> 39

    def _take_selectors(self) -> None:
        context, sregs = self.context, self.processor.sregs
        if not context.kernel:
            context.code_selector = struct.unpack_from("<H", sregs, kvm.CS_AT + 12)[0]
            context.stack_selector = struct.unpack_from("<H", sregs, kvm.SS_AT + 12)[0]

    def _through_gate(self) -> Exit:
        """Some stub wrote to the port: which one, and what the guest's registers were before it."""
        exit, context, regs = self._exit, self.context, self.context.regs
        stub, beyond = divmod(regs[RIP] - pages.STUBS, pages.STUB_SIZE)
        if not 0 <= stub <= pages.INT80_STUB or beyond > 2 or self.processor.io_port[0] != pages.PORT:
            return self._foreign_port()
        if stub == pages.RETURN_STUB and context.kernel and regs[RSP] - pages.STACK in range(PAGE):
            regs[RSP], regs[RAX] = regs[RAX], inner_gates.RETURN_CALL
            exit.reason, exit.number = Reason.HYPERCALL, inner_gates.RETURN_CALL
            return exit
        if stub in (pages.SYSCALL_STUB, pages.SYSCALL32_STUB):
            self._comes_out_behind = beyond > 0
            exit.reason, exit.number = (Reason.HYPERCALL if context.kernel else Reason.SYSCALL), regs[RAX] & 0xFFFFFFFF
            context.compatibility = stub == pages.SYSCALL32_STUB
            context.code_selector = USER_CODE32 if context.compatibility else 0x33
            context.stack_selector = 0x2B
            regs[RIP], regs[RFLAGS] = regs[RCX], regs[R11]
            return exit
        vector = pages.INT80 if stub == pages.INT80_STUB else stub - pages.VECTOR_STUB
        if vector < 0 or regs[RSP] - pages.STACK not in range(PAGE):
            return self._foreign_port()
        words = 5 + (vector in pages.ERROR_CODE_VECTORS)
        frame = self.pages.trap_frame(regs[RSP], words)
        context.error_code = frame[0] if words == 6 else 0
        regs[RIP], context.code_selector, flags, regs[RSP], context.stack_selector = frame[-5:]
        regs[RFLAGS] = flags & ~0x10000  # RF is set for the return to a faulting instruction
        context.code_selector &= 0xFFFF
        exit.reason, exit.number = Reason.FAULT, vector
        if vector == 6:
            self._recognise_interrupt()
        return exit

    def _foreign_port(self) -> Exit:
        """The guest itself used our port, from code of its own: to it, there is no such port."""
        exit, context, regs = self._exit, self.context, self.context.regs
        self._take_selectors()
        if self._comes_out_behind:
            before = self._bytes_at(regs[RIP] - 2, 2)
            immediate = before[:1] in IMMEDIATE_PORT and before[1:] == bytes((pages.PORT,))
            regs[RIP] -= 2 if immediate else 1
        context.error_code = 0
        exit.reason, exit.number = Reason.FAULT, 13
        return exit

    def _recognise_interrupt(self) -> None:
        """Software KVM reports `int n` as an undefined instruction; it is the interrupt that the guest asked for."""
        code = self._bytes_at(self.context.regs[RIP], 2)
        if code[:1] == b"\xcd" and len(code) == 2:
            if code[1] == pages.INT80:
                self._exit.number = pages.INT80
                self.context.regs[RIP] += 2
            else:
                self._exit.number, self.context.error_code = 13, code[1] << 3 | 2  # as from a gate that is not there

    def _bytes_at(self, address: int, size: int) -> bytes:
        try:
            return self.context.read(address, size)
        except OSError:
            return b""

    def _store_again(self) -> None:
        """Have the guest machine itself store the changed entries once more, so that the shadow learns of them."""
        processor, memory = self.processor, self.memory
        regs, sregs = bytes(processor.regs_bytes), bytes(processor.sregs)
        addresses = list(dict.fromkeys(self.changed))
        words, first = memory.words, self._list << 9
        for start in range(0, len(addresses), LIST_ENTRIES):
            piece = addresses[start : start + LIST_ENTRIES]
            for at, address in enumerate(piece):
                words[first + 2 * at] = pages.DIRECT + address
                words[first + 2 * at + 1] = words[address >> 3]
            processor.regs[RIP] = pages.STUBS + pages.WRITER_STUB * pages.STUB_SIZE
            processor.regs[RFLAGS], processor.regs[RCX] = FIXED_FLAGS, len(piece)
            processor.regs[RSI] = pages.DIRECT + (self._list << FRAME_SHIFT)
            processor.sregs_words[kvm.CR3_WORD] = self._direct_root
            processor.sregs[kvm.CS_AT : kvm.CS_AT + 24] = KERNEL_CODE
            processor.sregs[kvm.SS_AT : kvm.SS_AT + 24] = KERNEL_STACK
            processor.dirty[0] = kvm.SYNC_REGS | kvm.SYNC_SREGS
            self._run_writer()
        processor.regs_bytes[:], processor.sregs[:] = regs, sregs

    def _run_writer(self) -> None:
        processor, kicked = self.processor, False
        while True:
            try:
                fcntl.ioctl(processor.fd, kvm.KVM_RUN, 0)
            except InterruptedError:
                signal.sigtimedwait(KICKS, 0)
                kicked = True
                continue
            break
        if processor.exit_reason[0] != kvm.EXIT_IO or not 0 <= processor.regs[RIP] - pages.WRITER_END <= 2:
            raise MachineBroken("storing page table entries", f"KVM exit {processor.exit_reason[0]}")
        if kicked:
            self.kick()

    def _sleep(self, sleeping: tuple[list[int], int | None]) -> Exit:
        descriptors, until = sleeping
        left = None if until is None else max(0.0, (until - time.monotonic_ns()) / 1e9)
        select.select(descriptors, [], [], left)
        self.context.sleeping = None
        self._exit.reason, self._exit.number = Reason.EVENT, 0
        return self._exit

    def wake_at(self, monotonic_ns: int) -> None:
        """See KvmContext."""
        if self._wake_at is None or monotonic_ns < self._wake_at:
            self._wake_at = monotonic_ns
            self._timer.set(monotonic_ns - time.monotonic_ns())

    def watch(self, descriptor: int) -> None:
        """See KvmContext."""
        fcntl.fcntl(descriptor, F_SETOWN_EX, struct.pack("<ii", F_OWNER_TID, self._thread))
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)

    def kick(self) -> None:
        """See KvmContext."""
        signal.pthread_kill(self._ident, KICK)

    def close(self) -> None:
        """See Vcpu."""
        if self.processor.fd < 0:
            return
        self._timer.close()
        self.context.__dict__.clear()
        self.processor.close()
        if self.number:
            return
        while signal.sigtimedwait(KICKS, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masked)
        self._vm.close()


def usable() -> str:
    """Why this host's KVM cannot be used, "" when it can be opened."""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "no /dev/kvm"
    except OSError as error:
        return f"/dev/kvm: {error.strerror}"
    return ""

"""The thread of execution of a vCPU at ring 3, as a hypervisor holds it: registers, address spaces, changed entries."""

import errno
from typing import TYPE_CHECKING, Any, Final

from virtus.host import kvm
from virtus.memory.guest_memory import FRAME_SHIFT, PAGE
from virtus.memory.x86_paging import FRAME_MASK, NO_EXECUTE, translate
from virtus.vcpus import inner_gates
from virtus.vcpus import monitor_pages as pages

if TYPE_CHECKING:
    from virtus.vcpus.kvm import KvmVcpu

RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP = range(8)
R8, R9, R10, R11, R12, R13, R14, R15, RIP, RFLAGS = range(8, 18)
ACCESSED_AND_DIRTY: Final = 0x60
FLAT_CODE: Final = 0x0020_F800_0000_0000  # present, ring 3, code, 64-bit
FLAT_DATA: Final = 0x0000_F200_0000_0000  # present, ring 3, writable data
FIXED_FLAGS: Final = 0x202  # interrupts stay on for the host; bit 1 is always set
MSR_TSC: Final = 0x10
MSR_KERNEL_GS_BASE: Final = 0xC0000102
MOST_CHANGED: Final = 1 << 16
"""Entries after which a guest that changes them and never asks for a flush gets one."""
NULL: Final = kvm.SEGMENT.pack(0, 0xFFFFFFFF, 0, 3, 1, 3, 1, 1, 0, 1, 0, 0, 0)


class KvmContext:
    """The one thread of execution, as a hypervisor sees it: two address spaces, and whose registers these are.

    `regs` are those of struct kvm_regs (`virtus.host.kvm.REGISTER_NAMES`). `kernel` tells whether the guest's kernel is
    running, or a program of it. After Reason.FAULT, `error_code` and `fault_address` are the processor's.
    """

    def __init__(self, vcpu: "KvmVcpu") -> None:
        self._vcpu = vcpu
        self.ident = vcpu.number
        self.parked = False  # switched off
        self._sregs, self._words = vcpu.processor.sregs, vcpu.processor.sregs_words
        self.regs = vcpu.processor.regs
        self.kernel = True
        self.kernel_root = self.user_root = 0  # guest physical addresses of the two L4 tables
        self.error_code = 0
        self.code_selector, self.stack_selector = pages.CODE3, pages.DATA3
        self.compatibility = False  # the SYSCALL came from 32-bit code
        self._gs_kept: int | None = 0  # the other base of GS, None: only the processor knows it
        self._gs_to_load = False
        self._entries = (0, 0, 0, 0)
        self._selectors_fit = False
        self._info_shown = 0
        self.sleeping: tuple[list[int], int | None] | None = None

    @property
    def has_syscall32(self) -> bool:
        """Whether a `syscall` of 32-bit code comes out."""
        return self._vcpu.has_syscall32

    @property
    def running(self) -> bool:
        """Whether it goes on when the vCPU next runs."""
        return self.sleeping is None and not self.parked

    @property
    def fault_address(self) -> int:
        """CR2."""
        address: int = self._words[kvm.CR2_WORD]
        return address

    @property
    def fs_base(self) -> int:
        """The base of FS."""
        base: int = self._words[kvm.FS_BASE_WORD]
        return base

    @fs_base.setter
    def fs_base(self, base: int) -> None:
        self._words[kvm.FS_BASE_WORD] = base

    @property
    def gs_base(self) -> int:
        """The base of GS, of whoever is running."""
        base: int = self._words[kvm.GS_BASE_WORD]
        return base

    @gs_base.setter
    def gs_base(self, base: int) -> None:
        self._words[kvm.GS_BASE_WORD] = base

    @property
    def user_gs_base(self) -> int:
        """The base of GS that programs have, seen while the kernel runs."""
        return self._other_gs_base

    @user_gs_base.setter
    def user_gs_base(self, base: int) -> None:
        self._other_gs_base = base

    @property
    def _other_gs_base(self) -> int:
        if self._gs_kept is None:
            self._gs_kept = self._vcpu.processor.get_msr(MSR_KERNEL_GS_BASE)
        return self._gs_kept

    @_other_gs_base.setter
    def _other_gs_base(self, base: int) -> None:
        self._gs_kept, self._gs_to_load = base, True

    def enter_at(self, stack: int, call: int, fault: int, info: int) -> None:
        """Where the guest's kernel wants to be entered for a call and a page fault of its programs (0: nowhere), its
        stack then, and the physical address of its struct vcpu_info. Both entries mask events."""
        self._entries = (stack & ~15, call, fault, info)

    def stack_at(self, stack: int) -> None:
        """Another stack to enter on."""
        self._entries = (stack & ~15, *self._entries[1:])

    @property
    def inner(self) -> bool:
        """Whether a gate of `inner_gates` may lead from the guest's kernel to its program."""
        return self._vcpu.gates is not None and all(self._entries) and self._selectors_fit and bool(self.user_root)

    def give_state(self, words: memoryview) -> None:
        """Before the guest goes on: what its inner gates are to know."""
        word, vcpu = inner_gates.WORD, self._vcpu
        stack, call, fault, info = self._entries
        words[word["stack"]], words[word["call"]], words[word["fault"]] = stack, call, fault
        if info != self._info_shown:
            entry = vcpu.pages.show_info(info, vcpu.number)
            if self._info_shown:
                vcpu.changed.append(entry)
                vcpu.want_flush()
            self._info_shown = info
        words[word["kernel_root"]], words[word["user_root"]] = self.kernel_root, self.user_root
        inner = self.inner
        if self.kernel:
            words[0] = inner_gates.KERNEL_READY if inner else inner_gates.KERNEL
        else:
            fits = inner and self.code_selector == inner_gates.USER_CODE
            fits = fits and self.stack_selector == inner_gates.USER_STACK
            fits = fits and not vcpu.memory.bytes[self._entries[3] + inner_gates.MASK_AT]
            words[0] = inner_gates.PROGRAM if fits else inner_gates.PROGRAM_LEAVES
        if self._gs_to_load:
            vcpu.processor.set_msrs({MSR_KERNEL_GS_BASE: self._gs_kept or 0})
            self._gs_to_load = False

    def take_state(self, words: memoryview) -> None:
        """The guest has come out: who was running."""
        self.kernel = words[0] in inner_gates.OF_KERNEL
        self._gs_kept = None

    def load_user_gs(self, selector: int, descriptor: int) -> None:
        """Load the programs' GS from a segment descriptor, or make it null (selector 0), while the kernel runs.

        As between two swapgs: selector, limit and attributes are there at once, the base when programs run.
        """
        if not selector & ~3:
            self._load_gs(NULL)
            return
        base = descriptor >> 16 & 0xFFFFFF | descriptor >> 32 & 0xFF000000
        limit = descriptor & 0xFFFF | descriptor >> 32 & 0xF0000
        granular = descriptor >> 55 & 1
        if granular:
            limit = limit << 12 | 0xFFF
        segment = kvm.SEGMENT.pack(
            base, limit, selector, descriptor >> 40 & 15 | 1, descriptor >> 47 & 1, descriptor >> 45 & 3,
            descriptor >> 54 & 1, descriptor >> 44 & 1, descriptor >> 53 & 1, granular, descriptor >> 52 & 1, 0, 0,
        )  # fmt: skip
        self._load_gs(segment)

    def _load_gs(self, segment: bytes) -> None:
        kernels = self.gs_base
        self._sregs[kvm.GS_AT : kvm.GS_AT + 24] = segment
        self._other_gs_base, self.gs_base = self.gs_base, kernels

    def switch(self) -> None:
        """From the guest's kernel to its program, or back: the other address space, and what swapgs does."""
        self.kernel = not self.kernel
        words = self._words
        words[kvm.GS_BASE_WORD], self._other_gs_base = self._other_gs_base, words[kvm.GS_BASE_WORD]
        self.load_root()

    def load_root(self) -> None:
        """Take up a changed `kernel_root` or `user_root`."""
        self._words[kvm.CR3_WORD] = self.kernel_root if self.kernel else self.user_root

    def start(self, root: int, entry: int, stack: int) -> None:
        """Begin with the guest's kernel at `entry`."""
        self.kernel_root = root
        self.load_root()
        regs = self.regs
        regs[:] = memoryview(bytes(8 * len(regs))).cast("Q")
        regs[RIP], regs[RSP], regs[RFLAGS] = entry, stack, FIXED_FLAGS

    PLAIN: Final = (
        "kernel", "kernel_root", "user_root", "code_selector", "stack_selector", "compatibility", "_other_gs_base",
        "parked",
    )  # fmt: skip
    """Attributes that are saved as they are."""

    def save(self) -> dict[str, Any]:
        """Registers and whose they are, as plain data; the guest is out because of an event."""
        processor = self._vcpu.processor
        return {
            **{name: getattr(self, name) for name in self.PLAIN},
            "registers": bytes(processor.regs_bytes).hex(),
            "segments": bytes(self._sregs).hex(),
            "extended": processor.get_xsave().hex(),
            "time_stamp": self.time_stamp(),
        }

    def load(self, saved: dict[str, Any]) -> None:
        """What `save` gave; raises ValueError or OSError for what this processor cannot hold."""
        processor = self._vcpu.processor
        registers, segments = bytes.fromhex(saved["registers"]), bytes.fromhex(saved["segments"])
        if len(registers) != len(processor.regs_bytes) or len(segments) != len(self._sregs):
            raise ValueError("registers of another kind of processor")
        for name in self.PLAIN:
            setattr(self, name, saved[name])
        processor.regs_bytes[:] = registers
        # control registers and tables are this machine's own
        for at in (kvm.DS_AT, kvm.ES_AT, kvm.FS_AT, kvm.GS_AT):
            self._sregs[at : at + 24] = segments[at : at + 24]
        self.load_root()
        processor.set_xsave(bytes.fromhex(saved["extended"]))
        try:
            processor.set_msrs({MSR_TSC: saved["time_stamp"]})
        except OSError:
            pass  # the guest is told how the counter and its time relate

    def set_gdt(self, frames: list[int]) -> None:
        """The guest's segment descriptors, page by page; whoever gives them has checked each."""
        self._vcpu.changed += self._vcpu.pages.set_gdt(frames, self.ident)
        self._vcpu.want_flush()
        first = self._vcpu.memory.entries(frames[0]) if frames else [0] * 7
        code, data = first[inner_gates.USER_CODE >> 3], first[inner_gates.USER_STACK >> 3]
        self._selectors_fit = code & FLAT_CODE == FLAT_CODE and data & FLAT_DATA == FLAT_DATA

    def entry_changed(self, address: int, old: int, new: int) -> None:
        """A page table entry at this physical address was changed by us, and the guest may have been using it.

        It takes effect at the latest when `flush` is called.
        """
        if not old & 1:
            return  # nothing of it was remembered
        kept = old & ~ACCESSED_AND_DIRTY & ~NO_EXECUTE
        same_frame = not (old ^ new) & FRAME_MASK
        if same_frame and new & kept == kept and not new & ~old & NO_EXECUTE and not old & ~new & ACCESSED_AND_DIRTY:
            return  # it only allows more: the processor will look again before it refuses
        self._vcpu.changed.append(address)
        if len(self._vcpu.changed) > MOST_CHANGED:
            self._vcpu.want_flush()

    def page_overwritten(self, frame: int) -> None:
        """A frame becomes a page table whose old translations may be remembered from an earlier life."""
        first = frame << FRAME_SHIFT
        self._vcpu.changed.extend(range(first, first + PAGE, 8))
        self._vcpu.want_flush()

    def flush(self) -> None:
        """No translation that was changed is used any more once the guest goes on; nothing to do where none was."""
        if self._vcpu.changed:
            self._vcpu.want_flush()

    def table_returns(self) -> None:
        """A frame is used as a table again: nothing that was remembered of its earlier life counts."""
        self._vcpu.want_flush()

    @property
    def flush_pending(self) -> bool:
        """Whether entries were changed since the last flush."""
        return bool(self._vcpu.changed)

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a virtual address of whoever is running; raises OSError(EFAULT)."""
        data, memory, root = b"", self._vcpu.memory, self._words[kvm.CR3_WORD]
        while size:
            physical = translate(memory, root, address)
            if physical is None:
                raise OSError(errno.EFAULT, f"nothing at {address:#x}")
            piece = min(size, PAGE - address % PAGE)
            data += memory.bytes[physical : physical + piece]
            address, size = address + piece, size - piece
        return data

    def time_stamp(self) -> int:
        """The guest's time stamp counter."""
        return self._vcpu.processor.get_msr(MSR_TSC)

    def time_stamp_khz(self) -> int:
        """Its rate."""
        return self._vcpu.processor.tsc_khz()

    def wake_at(self, monotonic_ns: int) -> None:
        """Come out with Reason.EVENT at this time of the monotonic clock, or before; the earliest wish counts."""
        self._vcpu.wake_at(monotonic_ns)

    def sleep(self, descriptors: list[int], until_ns: int | None) -> None:
        """Do not run before one of the descriptors is readable or the monotonic clock has come so far."""
        self.sleeping = (descriptors, until_ns)

    def wake(self) -> None:
        """Sleep no longer."""
        self.sleeping = None

    def watch(self, descriptor: int) -> None:
        """Come out with Reason.EVENT when this descriptor becomes readable, until it is closed."""
        self._vcpu.watch(descriptor)

    def kick(self) -> None:
        """Come out with Reason.EVENT soon; any thread may ask."""
        self._vcpu.kick()

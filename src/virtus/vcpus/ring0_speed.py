"""How fast this host's KVM runs a guest at ring 0: some hosts have the device, and emulate what is privileged."""

import fcntl
import struct
import time
from typing import Final

from virtus.host import kvm
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.vcpus.hardware import FLAT_CODE, FLAT_DATA, PROTECTED, RESERVED_FLAG, RIP, TASK

COUNT, ROUNDS = 20_000, 3
#   again: dec ecx;  jnz again;  out 0, al
LOOP: Final = bytes.fromhex("49 75fd e600")
RCX: Final = 2
SOFTWARE_BELOW: Final = 6e6
"""Instructions a second: software that looks at each makes a few million, a processor a thousand times as many."""


def _run(processor: kvm.VirtualProcessor) -> float:
    """Seconds that the loop takes once; raises OSError."""
    regs = [0] * len(kvm.REGISTER_NAMES)
    regs[RCX], regs[RIP], regs[17] = COUNT, PAGE, RESERVED_FLAG
    processor.set_registers(struct.pack(f"<{len(regs)}Q", *regs))
    started = time.perf_counter()
    while True:
        try:
            fcntl.ioctl(processor.fd, kvm.KVM_RUN, 0)
        except InterruptedError:
            continue
        break
    took = time.perf_counter() - started
    if processor.exit_reason[0] != kvm.EXIT_IO:
        raise OSError(0, f"KVM does not run ring 0 (exit {processor.exit_reason[0]})")
    return took


def measure() -> float:
    """Instructions a second at ring 0; raises OSError where there is no KVM."""
    memory = GuestMemory(16 * PAGE, "probe")
    vm = kvm.Vm()
    try:
        vm.set_memory(0, 0, memory.size, memory.address)
        processor = kvm.VirtualProcessor(vm)
        try:
            processor.valid[0] = 0
            memory.bytes[PAGE : PAGE + len(LOOP)] = LOOP
            sregs = processor.get_sregs()
            sregs[kvm.CS_AT : kvm.CS_AT + 24] = FLAT_CODE
            for at in (kvm.DS_AT, kvm.ES_AT, kvm.FS_AT, kvm.GS_AT, kvm.SS_AT):
                sregs[at : at + 24] = FLAT_DATA
            sregs[kvm.TR_AT : kvm.TR_AT + 24] = TASK
            struct.pack_into("<QQQQQQ", sregs, kvm.CONTROL_AT, PROTECTED, 0, 0, 0, 0, 0)
            processor.set_sregs(sregs)
            return 2 * COUNT / min(_run(processor) for _ in range(ROUNDS))
        finally:
            processor.close()
    finally:
        vm.close()
        memory.close()

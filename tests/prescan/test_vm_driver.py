"""The VMDriver: what it refuses, what it counts, and that a device's writes to code are seen."""

from pathlib import Path

import pytest

from tests.prescan.machines import FLAT_CODE, FLAT_DATA, START, assemble, needs_assembler
from virtus.errors import UsageError
from virtus.exits import Reason
from virtus.machine.machine_spec import MachineSpec
from virtus.machine.vm_driver import VmDriver, scan_depth
from virtus.vcpus.scanned import cpu_state
from virtus.vcpus.scanned.interrupts import NoInterrupts

KERNEL = Path("kernel")


@pytest.mark.parametrize(
    "spec",
    [
        MachineSpec(KERNEL, memory=4 << 30),
        MachineSpec(KERNEL, cpus=2),
        MachineSpec(KERNEL, extra={"depth": "0"}),
        MachineSpec(KERNEL, extra={"depth": "deep"}),
    ],
)
def test_what_it_cannot_have_is_told_in_a_line(spec: MachineSpec) -> None:
    with pytest.raises(UsageError, match="reading --"):
        VmDriver(spec)


def test_the_depth_is_an_option() -> None:
    assert scan_depth(MachineSpec(KERNEL, extra={"depth": "3"})) == 3


@needs_assembler
def test_code_that_a_device_has_loaded_is_scanned_anew(tmp_path: Path) -> None:
    driver = VmDriver(MachineSpec(KERNEL, memory=64 << 20))
    driver.add_rom(0xFFFF_0000, b"\xf4" * 100)
    try:
        vcpu = driver.start(NoInterrupts())
        code = assemble("1: mov $1, %eax; outl %eax, $0x10; jmp 1b", tmp_path)
        driver.memory.bytes[START : START + len(code)] = code
        state = vcpu.state
        state.cr0, state.eip = cpu_state.CR0_PE, START
        for number, segment in enumerate(state.segments):
            segment.load(8, 0, 0xFFFF_FFFF, FLAT_CODE if number == cpu_state.CS else FLAT_DATA)
        found = vcpu.run()
        assert (found.reason, found.number, found.value) == (Reason.PORT_IO, 0x10, 1)
        driver.memory.bytes[START + 1] = 2
        driver.wrote(START, 1)
        assert vcpu.run().value == 2
        figures = driver.figures()
        assert figures["instructions scanned"] >= 3
        assert figures["code pages dropped"] == 1
        assert figures["breakpoint hit: OUT"] == 2
    finally:
        driver.close()
        driver.close()

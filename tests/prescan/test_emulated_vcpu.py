"""The emulated vCPU: exits and their answers, interrupts, SeaBIOS on next to no hardware."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from virtus.exits import Exit, Reason
from virtus.memory.guest_memory import PAGE, GuestMemory
from virtus.vcpus.emulated_x86 import library
from virtus.vcpus.scanned.emulated_vcpu import EmulatedVcpu
from virtus.vcpus.scanned.memory_access import PhysicalSpace

if library.find() is None:
    pytest.skip("the package unicorn is not installed", allow_module_level=True)

BIOS = Path("/usr/share/seabios/bios-256k.bin")
VIDEO = range(0xA0000, 0xC0000)
START = 0x1000


class Controller:
    """One interrupt that waits until it is acknowledged."""

    def __init__(self) -> None:
        self.vector: int | None = None

    def pending(self) -> bool:
        return self.vector is not None

    def acknowledge(self) -> int:
        assert self.vector is not None
        vector, self.vector = self.vector, None
        return vector


class Box:
    """A vCPU in real mode over a MiB."""

    def __init__(self) -> None:
        self.ram = GuestMemory(1 << 20, "test")
        self.controller = Controller()
        self.vcpu = EmulatedVcpu(PhysicalSpace(self.ram, (VIDEO,)), self.controller)
        state = self.vcpu.state
        state.segments[1].load(0, 0, 0xFFFF, state.segments[1].attributes)
        state.eip, state.registers[4] = START, 0x8000

    def load(self, code: str, at: int = START) -> None:
        found = bytes.fromhex(code)
        self.ram.bytes[at : at + len(found)] = found
        self.vcpu.flush_instructions(at, len(found))

    def run(self) -> Exit:
        return self.vcpu.run()


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    yield made
    made.vcpu.close()
    made.vcpu.close()
    made.ram.close()


def seen(exit: Exit) -> tuple[Reason, int, int, bool, int]:
    return exit.reason, exit.number, exit.size, exit.write, exit.value


def test_ports_are_read_and_written(box: Box) -> None:
    box.load("b8 3412 e460 e680 ba7801 ed ef f4")  # mov ax,1234; in al,60; out 80,al; mov dx,178; in ax; out ax; hlt
    exit = box.run()
    assert seen(exit)[:4] == (Reason.PORT_IO, 0x60, 1, False)
    exit.value = 0x55
    assert seen(box.run()) == (Reason.PORT_IO, 0x80, 1, True, 0x55)
    exit = box.run()
    assert seen(exit)[:4] == (Reason.PORT_IO, 0x178, 2, False)
    exit.value = 0xFFFFBEEF
    assert seen(box.run()) == (Reason.PORT_IO, 0x178, 2, True, 0xBEEF)
    assert box.run().reason is Reason.HALT
    assert box.vcpu.state.registers[0] == 0xBEEF


def test_devices_in_memory_are_asked_once_and_answer_one_access_of_an_instruction(box: Box) -> None:
    # mov ax,b800; mov ds,ax; mov es,ax; add word [4], 3; xor si,si; mov di,10; mov cx,2; cld; rep movsw; hlt
    box.load("b800b8 8ed8 8ec0 8306040003 31f6 bf1000 b90200 fc f3a5 f4")
    accesses: list[tuple[int, int, bool, int]] = []
    while (exit := box.run()).reason is Reason.MEMORY_IO:
        if not exit.write:
            exit.value = 0x100 + len(accesses)
        accesses.append((exit.number, exit.size, exit.write, exit.value))
    assert exit.reason is Reason.HALT
    assert accesses == [
        (0xB8004, 2, False, 0x100),
        (0xB8004, 2, True, 0x103),
        (0xB8000, 2, False, 0x102),
        (0xB8010, 2, True, 0x102),
        (0xB8002, 2, False, 0x104),
        (0xB8012, 2, True, 0x104),
    ]


def test_string_input_fills_memory(box: Box) -> None:
    box.load("bf0020 ba7801 b90300 fc f36c f4")  # mov di,2000; mov dx,178; mov cx,3; rep insb; hlt
    exit = box.run()
    assert seen(exit)[:4] == (Reason.PORT_IO, 0x178, 1, False)
    assert exit.count == 3
    exit.value = int.from_bytes(b"abc", "little")
    assert box.run().reason is Reason.HALT
    assert bytes(box.ram.bytes[0x2000:0x2004]) == b"abc\0"


def test_string_input_takes_pages_and_what_is_left_of_them_one_by_one(box: Box) -> None:
    box.load("bffb2f ba7001 b90600 fc f36d e680 f4")  # mov di,2ffb; mov dx,170; mov cx,6; rep insw; out 80,al; hlt
    counts, next_word = [], 0
    while (exit := box.run()).number == 0x170:
        counts.append(exit.count)
        words = range(next_word, next_word + exit.count)
        exit.value = sum(word << 16 * at for at, word in enumerate(words))
        next_word += exit.count
    assert (counts, exit.number, exit.count) == ([2, 1, 3], 0x80, 1)
    assert bytes(box.ram.bytes[0x2FFB:0x3007]) == b"\0\0\1\0\2\0\3\0\4\0\5\0"


def test_an_interrupt_comes_in_the_smallest_window(box: Box) -> None:
    box.load("fa 90 fb 90 fa 90 e680 f4")  # cli; nop; sti; nop; cli; nop; out 80,al; hlt
    box.load("0030 0000", 0x20 * 4)
    box.load("fe060050 cf", 0x3000)  # inc byte [5000]; iret
    box.controller.vector = 0x20
    assert box.run().reason is Reason.PORT_IO
    assert box.ram.bytes[0x5000] == 1
    assert bytes(box.ram.bytes[0x7FFA:0x7FFC]) == (START + 4).to_bytes(2, "little"), "after the instruction behind STI"


def test_an_interrupt_ends_a_halt_and_sti_covers_the_halt(box: Box) -> None:
    box.load("fb f4 e680 f4")  # sti; hlt; out 80,al; hlt
    box.load("0030 0000", 0x20 * 4)
    box.load("b007 cf", 0x3000)  # mov al,7; iret
    assert box.run().reason is Reason.HALT
    assert box.run().reason is Reason.HALT
    box.controller.vector = 0x20
    assert seen(box.run()) == (Reason.PORT_IO, 0x80, 1, True, 7)


def test_a_kick_ends_an_endless_loop_and_a_slice_does(box: Box) -> None:
    box.load("ebfe")
    assert box.run().reason is Reason.EVENT
    box.vcpu.kick()
    assert box.run().reason is Reason.EVENT
    assert box.vcpu.state.eip == START


def test_code_that_a_device_wrote_is_executed(box: Box) -> None:
    box.load("b001 e680 ebfa")  # mov al,1; out 80,al; and again
    assert box.run().value == 1
    box.load("b002")
    assert box.run().value == 2


def test_code_that_the_evaluator_wrote_is_executed(box: Box) -> None:
    # mov al,1; out 80,al; push cs; pop es; mov di,START; in al,60 by insb into the instruction's operand; again
    box.load("b001 e680 8cc8 8ec0 bf0110 ba6000 fc 6c ebee")
    assert box.run().value == 1
    exit = box.run()
    assert not exit.write
    exit.value = 9
    assert box.run().value == 9


def test_floating_point_and_vectors_stay_with_unicorn(box: Box) -> None:
    box.load("dbe3 d9e8 d9e8 dec1 df1e0050 f4")  # fninit; fld1; fld1; faddp; fistp word [5000]; hlt
    assert box.run().reason is Reason.HALT
    assert int.from_bytes(box.ram.bytes[0x5000:0x5002], "little") == 2


def test_a_floating_point_instruction_after_an_evaluated_one(box: Box) -> None:
    box.load("dbe3 d9e8 e460 df1e0050 f4")  # ...; in al,60; fistp word [5000]
    box.run().value = 0
    assert box.run().reason is Reason.HALT
    assert int.from_bytes(box.ram.bytes[0x5000:0x5002], "little") == 1


def test_a_floating_point_fault_is_delivered(box: Box) -> None:
    box.load("0030 0000", 7 * 4)
    box.load("b007 e680 f4", 0x3000)
    box.load("0f20c0 0c04 0f22c0 dbe3 f4")  # mov eax,cr0; or al,EM; mov cr0,eax; fninit: #NM
    assert seen(box.run()) == (Reason.PORT_IO, 0x80, 1, True, 7)


def test_a_triple_fault_ends_the_processor(box: Box) -> None:
    box.load("0f011e0050 0f0b")  # lidt [5000] with limit 0; ud2
    assert box.run().reason is Reason.ENDED
    assert box.run().reason is Reason.ENDED


def test_an_endless_loop_of_faults_is_left(box: Box) -> None:
    box.load("0f0b")
    box.load("0010 0000", 6 * 4)  # #UD leads to itself
    assert box.run().reason is Reason.EVENT


@pytest.mark.slow
def test_seabios_gets_to_its_boot_menu() -> None:
    """With a host bridge, CMOS and the debug port; everything else reads as all ones."""
    if not BIOS.exists():
        pytest.skip("the package seabios is not installed")
    image = BIOS.read_bytes()
    ram, rom = GuestMemory(32 << 20, "test"), GuestMemory(len(image), "rom")
    rom.bytes[:] = image
    ram.bytes[0x100000 - len(image) : 0x100000] = image
    space = PhysicalSpace(ram, (VIDEO,))
    space.add_rom((1 << 32) - len(image), rom)
    vcpu = EmulatedVcpu(space)
    text, index, address = bytearray(), 0, 0
    cmos = {0x35: 1, 0x0A: 0x26, 0x0B: 2, 0x0D: 0x80}
    bridge = bytes.fromhex("86803712").ljust(0x2C, b"\0") + bytes.fromhex("f41a0011")
    for _ in range(100_000):
        exit = vcpu.run()
        if exit.reason is Reason.HALT or b"boot menu" in text:
            break
        if exit.reason is Reason.MEMORY_IO and not exit.write:
            exit.value = 0xFFFFFFFF
        elif exit.reason is Reason.PORT_IO and exit.write:
            if exit.number == 0x402:
                text.append(exit.value)
            elif exit.number == 0xCF8:
                address = exit.value
            elif exit.number == 0x70:
                index = exit.value & 0x7F
        elif exit.reason is Reason.PORT_IO:
            exit.value = 0xFFFFFFFF
            if exit.number == 0x402:
                exit.value = 0xE9
            elif exit.number == 0x71:
                exit.value = cmos.get(index, 0)
            elif exit.number == 0x64:
                exit.value = 0
            elif 0xCFC <= exit.number < 0xD00 and address & 0xFFFF00 == 0:
                at = address & 0xFC | exit.number & 3
                exit.value = int.from_bytes(bridge[at : at + exit.size], "little")
    vcpu.close()
    ram.close()
    assert b"Running on QEMU (i440fx)" in text
    assert b"Press ESC for boot menu" in text


def test_translations_take_a_bounded_part_of_the_hosts_memory(box: Box) -> None:
    """A guest that has itself translated again and again fills what there is: of its own Unicorn takes 1 GiB."""

    def size() -> int:
        words = Path("/proc/self/statm").read_text().split()
        return int(words[0]) * PAGE

    before = size()
    box.load("f4")
    assert box.run().reason is Reason.HALT
    assert size() - before < 200 << 20

"""What is asked for, when, and what a run leaves for the next one."""

import errno
from collections.abc import Iterator

import pytest

from tests.translator.encode import A7, ECALL, T0, ZERO, addi, branch
from tests.translator.test_vcpu import CODE, guest
from virtus.exits import Reason
from virtus.host import process_memory
from virtus.isa.riscv64 import RISCV64
from virtus.records import replace
from virtus.vcpus.translator.llvm.request import Farewell, Optimised, QuickCode, Request, Result, Urge
from virtus.vcpus.translator.llvm.worker import Made, Requests
from virtus.vcpus.translator.quick_image import QuickImage
from virtus.vcpus.translator.tiers import Tiers
from virtus.vcpus.translator.vcpu import HOT_AFTER, CallConvention, TranslatorVcpu

COUNTS = (1500, 10)
"""Two loops, of 1,500 * 10 rounds the inner one."""
PROGRAM = (
    addi(T0 + 1, ZERO, COUNTS[1]),
    addi(T0, ZERO, COUNTS[0]),
    addi(T0, T0, -1),
    branch(T0, ZERO, -4),
    addi(T0 + 1, T0 + 1, -1),
    branch(T0 + 1, ZERO, -16),
    addi(A7, ZERO, 93),
    ECALL,
)
INNER = CODE + 8


class Background:
    """Takes requests and answers none."""

    def __init__(self) -> None:
        self.sent: list[Request | Urge | QuickCode | Farewell] = []

    def submit(self, request: Request | Urge | QuickCode | Farewell) -> None:
        self.sent.append(request)

    def flush(self, *, wait: bool = False) -> None:
        pass

    def collect(self) -> list[Result]:
        return []

    def fileno(self) -> int:
        return -1


class Store:
    """What former runs have left."""

    def __init__(self, units: list[Optimised], quick: QuickImage | None, wishes: list[int]) -> None:
        self.units, self.quick, self.wishes = units, quick, wishes

    def load(self, image: str) -> list[Optimised]:
        return self.units

    def load_quick(self, image: str) -> QuickImage | None:
        return self.quick

    def drop_quick(self, image: str) -> None:
        self.quick = None

    def load_wishes(self, image: str) -> list[int]:
        return self.wishes


@pytest.fixture
def vcpu() -> Iterator[TranslatorVcpu]:
    made = TranslatorVcpu(RISCV64, CallConvention(number=17, first=10))
    yield made
    made.close()


def run(vcpu: TranslatorVcpu, store: Store) -> Background:
    """The program, mapped from a file; what was asked of the background."""
    context = guest(vcpu, *PROGRAM)
    background = Background()
    vcpu.optimiser = tiers = Tiers(vcpu, background, store)
    tiers.mapped(context, CODE, CODE + 0x1000)
    assert background.sent == []  # before it has computed for a while
    context.resume()
    assert (vcpu.run().reason, context.regs[A7]) == (Reason.SYSCALL, 93)
    tiers.ended()
    vcpu.optimiser = None
    return background


def requests(background: Background) -> list[Request]:
    return [message for message in background.sent if isinstance(message, Request)]


def test_what_is_hot_is_asked_for_and_quick_code_is_kept(vcpu: TranslatorVcpu) -> None:
    assert COUNTS[0] * COUNTS[1] > HOT_AFTER
    background = run(vcpu, Store([], None, []))
    assert [(request.entry, request.covered) for request in requests(background)] == [(INNER, False)]
    [quick] = [message for message in background.sent if isinstance(message, QuickCode)]
    assert INNER in quick.code.entries


def test_what_a_former_run_wished_is_asked_for_first(vcpu: TranslatorVcpu) -> None:
    background = run(vcpu, Store([], None, [CODE, 0x7000_0000, INNER]))
    assert [request.entry for request in requests(background)] == [CODE, INNER, INNER]  # of which one gets an answer


def test_kept_quick_code_is_no_news_and_its_wishes_are_not_asked_for_twice(vcpu: TranslatorVcpu) -> None:
    [quick] = [message for message in run(vcpu, Store([], None, [])).sent if isinstance(message, QuickCode)]
    other = TranslatorVcpu(RISCV64, CallConvention(number=17, first=10))
    try:
        background = run(other, Store([], quick.code, [INNER]))
        assert other.translated == 0
        assert [request.entry for request in requests(background)] == [INNER]
        assert not [message for message in background.sent if isinstance(message, QuickCode)]
    finally:
        other.close()


def test_what_is_in_kept_code_waits_until_it_is_urged(vcpu: TranslatorVcpu) -> None:
    code = b"".join(word.to_bytes(4, "little") for word in PROGRAM)
    kept = Optimised(b"\xc3", {CODE + 0x800: 0}, ((CODE, CODE + len(code)),), (code,))
    [request] = requests(run(vcpu, Store([kept], None, [])))
    assert request.covered
    waiting = Requests(lambda request: False)
    waiting.add(request)
    assert waiting.left() == {request.image: []}
    waiting.add(Urge(request.number))
    assert waiting.left() == {request.image: [INNER]}


def test_of_changed_code_nothing_is_kept(vcpu: TranslatorVcpu) -> None:
    context = guest(vcpu, *PROGRAM)
    background = Background()
    vcpu.optimiser = tiers = Tiers(vcpu, background, Store([], None, []))
    tiers.mapped(context, CODE, CODE + 0x1000)
    context.space.fetch(context.ident, CODE, 4)
    context.write(CODE, addi(T0 + 1, ZERO, 2).to_bytes(4, "little"))
    context.flush_instructions(CODE, 4)
    context.resume()
    assert (vcpu.run().reason, context.regs[A7]) == (Reason.SYSCALL, 93)
    tiers.ended()
    vcpu.optimiser = None
    assert background.sent == [Farewell()]


def test_an_image_of_other_code_is_removed(vcpu: TranslatorVcpu) -> None:
    [quick] = [message for message in run(vcpu, Store([], None, [])).sent if isinstance(message, QuickCode)]
    code = tuple(bytes(len(piece)) for piece in quick.code.code)
    wrong = replace(quick.code, code=code)
    other = TranslatorVcpu(RISCV64, CallConvention(number=17, first=10))
    store = Store([], wrong, [])
    try:
        run(other, store)
        assert other.translated
    finally:
        other.close()
    assert store.quick is None


def test_a_thread_that_was_killed_meanwhile_is_no_obstacle(
    vcpu: TranslatorVcpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = guest(vcpu, *PROGRAM)
    tiers = Tiers(vcpu, Background(), None)
    unit = tiers._place(Optimised(b"\xc3", {CODE: 0}, ((CODE, CODE + 4),), (PROGRAM[0].to_bytes(4, "little"),)))
    found = []

    def gone(pid: int, words: object) -> None:
        found.append(pid)
        raise OSError(errno.EFAULT, "")

    monkeypatch.setattr(process_memory, "write_words", gone)
    tiers._install(context.space, unit, context.ident)
    assert found == [context.ident]


def test_what_is_left_is_in_the_order_of_its_urgency() -> None:
    waiting = Requests(lambda request: request.entry == 3)
    for number in range(1, 6):
        waiting.add(Request(number, "riscv64", number, (), image="image" if number < 5 else ""))
    waiting.add(Urge(4))
    assert waiting.left() == {"image": [4, 1, 2]}
    taken = waiting.take()
    assert taken is not None and taken.entry == 4
    assert waiting.left() == {"image": [4, 1, 2]}  # it is worked on
    waiting.done()
    assert waiting.left() == {"image": [1, 2]}


def test_what_is_worked_on_at_the_end_is_finished_and_nothing_else_begun() -> None:
    waiting = Requests(lambda request: False)
    for number in (1, 2):
        waiting.add(Request(number, "riscv64", number, (), image="image"))
    assert waiting.take() is not None
    assert waiting.close()
    waiting.done()
    assert waiting.take() is None
    assert not waiting.close()


def test_all_is_kept_at_the_end() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.kept: list[object] = []

        def alone(self) -> bool:
            return True

        def store(self, units: dict[str, list[Optimised]]) -> None:
            self.kept.append(units)

        def store_quick(self, made: dict[str, QuickImage]) -> None:
            self.kept.append(made)

        def store_wishes(self, entries: dict[str, list[int]]) -> None:
            self.kept.append(entries)

    keeper, made = Keeper(), Made()
    made.keep(keeper, {"image": []})
    assert keeper.kept == [{"image": []}]
    made.add("image", Optimised(b"", {}, (), ()))
    made.add("", Optimised(b"", {}, (), ()))
    made.keep(keeper, {"image": [1]})
    assert keeper.kept[1:] == [{"image": [1]}, {"image": [Optimised(b"", {}, (), ())]}]
    assert made.taken() == {}

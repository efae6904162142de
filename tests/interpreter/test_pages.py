"""The interpreter's copies of another process's pages: always what that memory holds, and back in it when settled."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from virtus.host import process_memory
from virtus.isa.x86.linux_calls import NUMBERS
from virtus.vcpus.interpreter.memory import FlatMemory, MemoryFault
from virtus.vcpus.interpreter.pages import PageMemory, StoreFault
from virtus.vcpus.ptrace import PtraceVcpu, StubContext
from virtus.vcpus.translator.intervals import Intervals
from virtus.vcpus.translator.layout import GUEST_END, PAGE

START, PAGES = 0x10000, 3
READ_ONLY, BEYOND = START + PAGES * PAGE, START + (PAGES + 1) * PAGE
SIZES = st.sampled_from([1, 2, 4, 8])
WORDS = st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def stub() -> Iterator[StubContext]:
    vcpu = PtraceVcpu()
    context = vcpu.boot()
    assert context.inject(NUMBERS["mmap"], START, PAGES * PAGE, 3, 0x32, -1, 0) == START
    assert context.inject(NUMBERS["mmap"], READ_ONLY, PAGE, 1, 0x32, -1, 0) == READ_ONLY
    yield context
    vcpu.close()


def memory(stub: StubContext) -> PageMemory:
    executable = Intervals()
    executable.add(START, START + PAGE)
    return PageMemory(stub.ident, executable)


OPERATION = st.tuples(
    st.sampled_from(["load", "store", "exchange", "settle", "outside"]),
    st.one_of(st.integers(START, BEYOND - 8), st.sampled_from(range(START + PAGE - 8, START + PAGE + 8))),
    SIZES,
    WORDS,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OPERATION, max_size=30))
def test_it_is_as_plain_memory(stub: StubContext, operations: list[tuple[str, int, int, int]]) -> None:
    size = PAGES * PAGE
    stub.write(START, bytes(size))
    pages, model = memory(stub), FlatMemory(START, bytearray(size + PAGE))
    for what, address, width, value in operations:
        inside = address + width <= READ_ONLY
        if what == "load":
            assert pages.load(address, width) == model.load(address, width)
        elif what == "settle":
            pages.settle()
            assert stub.read(START, size) == bytes(model.data[:size])
        elif not inside:
            with pytest.raises(StoreFault):
                pages.store(address, value, width)
        elif what == "store":
            pages.store(address, value, width)
            model.store(address, value, width)
        elif what == "exchange":
            expected = model.load(address, width) if value & 1 else value & (1 << 8 * width) - 1
            done = model.compare_exchange(address, expected, value >> 1, width)
            assert pages.compare_exchange(address, expected, value >> 1, width) == done
        else:  # the kernel stores something between two turns
            pages.settle()
            stub.write(address, value.to_bytes(8, "little")[:width])
            model.store(address, value, width)
    pages.settle()
    assert stub.read(START, size) == bytes(model.data[:size])


@pytest.mark.parametrize("address", [0, START - 8, BEYOND, BEYOND - 4, GUEST_END - 4, GUEST_END, 2**63, 2**64 - 8])
def test_what_is_not_there_is_a_fault(stub: StubContext, address: int) -> None:
    pages = memory(stub)
    for access in (lambda: pages.load(address, 8), lambda: pages.store(address, 1, 8)):
        with pytest.raises(MemoryFault) as caught:
            access()
        assert caught.value.address in (address, address + 4)


def test_a_store_across_pages_that_faults_has_stored_nothing(stub: StubContext) -> None:
    pages = memory(stub)
    pages.store(READ_ONLY - 8, 0, 8)
    with pytest.raises(StoreFault) as caught:
        pages.store(READ_ONLY - 4, 2**64 - 1, 8)
    assert caught.value.address == READ_ONLY
    assert pages.load(READ_ONLY - 8, 8) == 0


def test_what_another_writes_beside_a_store_stays(stub: StubContext) -> None:
    pages = memory(stub)
    pages.store(START, 1, 8)
    process_memory.write(stub.ident, START + 8, b"other")
    pages.settle()
    assert stub.read(START, 13) == (1).to_bytes(8, "little") + b"other"


def test_code_comes_only_from_what_may_be_executed(stub: StubContext) -> None:
    pages = memory(stub)
    assert len(pages.fetch(START + PAGE - 2)) == 2
    assert pages.fetch(START + PAGE) == b""
    assert pages.fetch(START - 2) == b""

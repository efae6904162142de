"""The runner that makes Unicorn a peer: it answers a few calls, whatever the guest asks, and says what it cannot."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulation import guests
from virtus.techniques.peers.few_calls import ABSENT, NOTHING, ONE, PAGE, FewCalls, Unanswered, fault

HEAP, MAPPINGS = 0x10_0000, 0x40_0000


class Pages:
    """A guest's memory as a dictionary of pages."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def _pieces(self, address: int, size: int) -> Iterator[tuple[bytearray, int, int]]:
        while size:
            page = self.pages.get(address // PAGE)
            if page is None:
                raise fault()
            offset = address % PAGE
            length = min(size, PAGE - offset)
            yield page, offset, length
            address, size = address + length, size - length

    def read(self, address: int, size: int) -> bytes:
        return b"".join(bytes(page[at : at + length]) for page, at, length in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> None:
        done = 0
        for page, at, length in list(self._pieces(address, len(data))):
            page[at : at + length] = data[done : done + length]
            done += length

    def map(self, address: int, size: int) -> None:
        for number in range(address // PAGE, (address + size) // PAGE):
            self.pages[number] = bytearray(PAGE)

    def unmap(self, address: int, size: int) -> None:
        for number in [page for page in self.pages if address // PAGE <= page < (address + size) // PAGE]:
            del self.pages[number]


@pytest.fixture
def calls() -> FewCalls:
    return FewCalls(Pages(), HEAP, MAPPINGS)


def ask(calls: FewCalls, number: int, *arguments: int) -> int:
    return calls.answer(number, [*arguments, *[0] * (6 - len(arguments))])


def test_the_heap_grows(calls: FewCalls) -> None:
    assert ask(calls, 214, 0) == HEAP
    assert ask(calls, 214, HEAP + 5000) == HEAP + 5000
    calls.memory.write(HEAP + 4990, b"end")
    assert ask(calls, 214, MAPPINGS + 1) == HEAP + 5000


def test_mappings_come_move_and_go(calls: FewCalls) -> None:
    first = ask(calls, 222, 0, 2 * PAGE, 3, 0x22, 2**64 - 1, 0)
    calls.memory.write(first + PAGE, b"kept")
    moved = ask(calls, 216, first, 2 * PAGE, 5 * PAGE, 1)
    assert calls.memory.read(moved + PAGE, 4) == b"kept"
    with pytest.raises(OSError):
        calls.memory.read(first, 1)
    assert ask(calls, 215, moved, 5 * PAGE) == 0
    assert ask(calls, 222, 0, MAPPINGS, 3, 0x22, 2**64 - 1, 0) == -12


def test_files_of_the_host_are_read(calls: FewCalls, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"content")
    ask(calls, 214, HEAP + PAGE)
    calls.memory.write(HEAP, bytes(file) + b"\0")
    descriptor = ask(calls, 56, 2**64 - 100, HEAP, 0)
    assert ask(calls, 63, descriptor, HEAP + 1024, 100) == 7
    assert calls.memory.read(HEAP + 1024, 7) == b"content"
    assert ask(calls, 80, descriptor, HEAP) == 0
    assert int.from_bytes(calls.memory.read(HEAP + 48, 8), "little") == 7  # st_size
    assert ask(calls, 57, descriptor) == 0
    assert ask(calls, 57, descriptor) == -9
    assert ask(calls, 63, descriptor, HEAP, 1) == -9


def test_what_is_not_there_is_said(calls: FewCalls) -> None:
    with pytest.raises(Unanswered, match="system call 220"):
        ask(calls, 220)


HARMLESS = (*ONE, *NOTHING, *ABSENT, 17, 29, 66, 78, 79, 80, 123, 160, 169, 214, 215, 216, 222, 278)
word = st.one_of(
    st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 16, PAGE, HEAP, HEAP + 8, MAPPINGS - PAGE, 2**64 - 1])
)


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from(HARMLESS), st.lists(word, min_size=6, max_size=6)), max_size=8))
def test_any_arguments_are_answered(asked: list[tuple[int, list[int]]]) -> None:
    calls = FewCalls(Pages(), HEAP, MAPPINGS)
    for number, arguments in asked:
        if number == 66:
            arguments[0] = 99  # never this process's own streams
        try:
            assert isinstance(calls.answer(number, arguments), int)
        except Unanswered:
            pass


def run(program: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "virtus.techniques.peers.unicorn_riscv64", str(program), *words]
    return subprocess.run(command, capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["switches", "misaligned", "recursion"])
def test_programs_run_in_unicorn(name: str) -> None:
    if find_spec("unicorn") is None:
        pytest.skip("the Python package unicorn is not installed")
    done = run(guests.build(name))
    if name == "recursion":  # ends by a signal handler, which is beyond the runner
        assert done.stdout.decode() == "5000050000\n0 1\n603\n"
        assert b"unicorn-riscv64" in done.stderr
    else:
        assert guests.Outcome(done.stdout.decode(), done.returncode) == guests.expected(name)


@pytest.mark.slow
def test_what_unicorn_cannot_run_is_said(tmp_path: Path) -> None:
    if find_spec("unicorn") is None:
        pytest.skip("the Python package unicorn is not installed")
    for program, words in (
        (tmp_path / "missing", b"No such file"),
        (Path(sys.executable).resolve(), b"not for RISC-V"),
        (Path(__file__), b"no ELF file"),
    ):
        done = run(program)
        assert done.returncode == 125
        assert words in done.stderr

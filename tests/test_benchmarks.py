"""What the benchmarks write into the documents, and that they say when the machine was not theirs alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from benchmarks import claims, emulation, emulation_report, hypervisor, paravirt, prescan, quiet, usermode, windows
from benchmarks.published import END, Published


@pytest.fixture
def figures() -> dict[str, Any]:
    row = {"name": "seccomp", "wall_s": 4.8, "ratio": 1.04, "ratio_min": 1.01, "ratio_max": 1.07, "cpu_ratio": 1.02}
    row |= {"switches_per_call": None, "processes": 6, "same_output": False}
    measured = {
        "compile": {"calls": 71_000, "results": [row]},
        "getpid_us": {"native": [0.1, 0.3, 0.2]},
        "notified_us": {"native": [0.1], "seccomp": [3.0]},
    }
    together = measured | {"getpid_us": {"native": [0.7]}}
    return {
        "processors": 2,
        "model": "a processor",
        "kernel": "6.1",
        "runs": 5,
        "spread": measured,
        "together": together,
        "others": 0.01,
    }


def test_the_tables(figures: dict[str, Any]) -> None:
    text = usermode.markdown(figures)
    assert "| seccomp | 4.80 | 1.04 (1.01-1.07) | 1.02 | - | 6 | no |" in text
    assert "| native, getpid | 0.20 (0.10-0.30) |" in text
    assert "| seccomp, a notified call | 3.00 (3.00-3.00) |" in text
    assert "native, a notified call" not in text
    assert "| native, getpid | 0.70 (0.70-0.70) |" in text.partition("one processor")[2]
    assert "took 1% of the processors meanwhile." in text


def test_figures_of_a_busy_machine_say_so(figures: dict[str, Any]) -> None:
    figures["others"] = 0.4
    assert "took 40% of the processors meanwhile: these figures are not" in usermode.markdown(figures)


def test_tables_take_the_place_of_the_old(tmp_path: Path) -> None:
    published = Published(tmp_path / "page.md", "any")
    published.document.write_text(f"above\n{published.begin}\nold\n{END}\nbelow\n")
    for text in ("first", "new"):
        published.put(text)
    assert published.document.read_text() == f"above\n{published.begin}\n\nnew\n\n{END}\nbelow\n"


@pytest.mark.parametrize("marks", [("", END), ("begin", ""), ("", ""), (END, "begin")])
def test_a_document_without_its_marks_is_left_alone(tmp_path: Path, marks: tuple[str, str]) -> None:
    published = Published(tmp_path / "page.md", "any")
    text = "\n".join(mark.replace("begin", published.begin) for mark in marks)
    published.document.write_text(text)
    with pytest.raises(ValueError, match="put both marks"):
        published.put("new")
    assert published.document.read_text() == text


def test_claims_take_their_own_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- speed -->?<!-- / --> and <!-- switches uml-tt -->9<!-- / -->")
    monkeypatch.setattr(claims, "DOCUMENT", page)
    claims.document({"speed": "1.50"})
    assert page.read_text() == "<!-- speed -->1.50<!-- / --> and <!-- switches uml-tt -->9<!-- / -->"


@pytest.mark.parametrize("benchmark", [usermode, emulation_report, hypervisor, paravirt, prescan, windows])
def test_the_document_has_the_marks(benchmark: ModuleType) -> None:
    published = benchmark.PUBLISHED
    _, begin, after = published.document.read_text().partition(published.begin)
    assert begin
    assert published.begin not in after
    assert END in after


def spin() -> None:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass


def spinning_child() -> None:
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.1: pass"], check=True)


@pytest.mark.parametrize("work", [spin, spinning_child])
def test_ones_own_work_is_not_others(work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = (10.0, 100.0), (10.1, 100.4)  # the host has worked for as long as we at least have
    answers = iter([before, after])
    monkeypatch.setattr(quiet, "_host", lambda: next(answers))
    others = quiet.Others()
    work()
    assert others.share() == 0


def test_what_others_do_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(10.0, 100.0), (40.0, 200.0)])
    monkeypatch.setattr(quiet, "_host", lambda: next(answers))
    assert quiet.Others().share() == pytest.approx(0.3, abs=0.01)


def test_the_host_counts() -> None:
    busy, total = quiet._host()
    assert 0 < busy < total


@pytest.fixture
def emulated() -> dict[str, Any]:
    def times(*us: float) -> dict[str, list[float]]:
        return {"round_us": list(us), "whole_s": [value / 1e5 for value in us]}

    candidates = {"native": times(10, 11, 12), "qemu-riscv64": times(100, 120, 110), "emulation": times(20, 30, 22)}
    candidates |= {"unicorn-riscv64": {"round_us": [500.0, 600.0, 550.0], "whole_s": []}}
    start = {name: [0.1, 0.2, 0.3] for name in candidates}
    return {
        **quiet.machine(),
        "runs": 3,
        "others": 0.0,
        "missing": {"emulation, nothing kept": "gone"},
        "programs": {"fib": {"rounds": 5, "candidates": candidates}, "sum": {"rounds": 5, "candidates": candidates}},
        "starts": {"hello": start, "first output": start},
        "first_output_instructions": 300_000,
        "interpreted": [1.5e6, 1.25e6, 1.75e6],
    }


def test_the_tables_of_emulation(emulated: dict[str, Any]) -> None:
    text = emulation_report.markdown(emulated)
    assert "| fib | 0.01 | 0.11 | 0.02 | 0.55 | 5.00 (4.00-5.00) |" in text
    assert "Geometric mean over qemu-riscv64: 5.00, the least 5.00." in text
    assert "Not measured: emulation, nothing kept: gone." in text
    assert "first output of 300,000 instructions" in text
    assert "unicorn-riscv64 s" not in text
    assert "The interpreter by itself: 1.50 (1.25-1.75) million" in text


def test_a_steady_state_is_of_the_later_rounds() -> None:
    words = b"virtus: a note\nround 0 900\nround 1 800\nround 2 110\nround 3 90\nround 4 100\n"
    assert emulation.steady_us(words) == 100


@pytest.mark.slow
def test_the_picture_of_emulation(emulated: dict[str, Any], tmp_path: Path) -> None:
    emulation_report.plot(emulated, tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_bytes().startswith(b"<?xml")


def test_a_monitor_is_compared_run_by_run() -> None:
    figures = {
        hypervisor.OURS: {"boot": [6.0, 9.0, 4.0], "start": [70.0]},
        hypervisor.THEIRS: {"boot": [3.0, 3.0, 4.0]},
        hypervisor.NATIVE: {"getpid": [0.5]},
    }
    measured = {"runs": 3, "processors": 2, "model": "a processor", "kernel": "6.1", "others": 0.3, "figures": figures}
    text = hypervisor.markdown(measured)
    assert "| from the start to user space, s | 6 (4-9) | 3 (3-4) |  | 2.00 |" in text
    assert "| a system call in the guest, µs |  |  | 0.5 (0.5-0.5) |  |" in text
    assert "took 30% of the processors" in text

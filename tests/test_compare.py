"""`virtus compare`: who takes part, what is measured, what is flagged; its table, JSON and picture."""

import io
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.guest_runs import need, virtus
from virtus.comparison.candidates import NEVER_RAN, SCRATCH, Candidate, Place, candidates
from virtus.comparison.compare import Comparison, Result, compare, difference
from virtus.comparison.measure import Run, measure
from virtus.comparison.tree import descendants, lives
from virtus.errors import UsageError
from virtus.machine.spec import GuestSpec, Volume
from virtus.report import comparison as shown
from virtus.report import plot
from virtus.techniques.base import Availability
from virtus.techniques.peers import registry as peers


def result(name: str, ratio: float, *, same: bool = True) -> Result:
    return Result(
        name=name,
        wall_s=ratio,
        wall_all_s=[ratio],
        cpu_s=ratio,
        ratio=ratio,
        ratio_min=ratio * 0.9,
        ratio_max=ratio * 1.2,
        cpu_ratio=ratio,
        exits_per_s=None if name == "native" else 1234.5,
        switches=400,
        switches_per_call=2.0,
        processes=3,
        status=0 if same else 9,
        same_output=same,
        notes={"mount refused": 2},
    )


@pytest.fixture
def comparison() -> Comparison:
    rows = [result("native", 1.0), result("seccomp", 1.01), result("proot", 1.3, same=False)]
    return Comparison(["cc", "x.c"], 3, rows, [("runsc", "not installed")], 200)


def test_the_table_says_everything(comparison: Comparison) -> None:
    console = Console(file=io.StringIO(), width=140)
    console.print(shown.table(comparison))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO above
    for word in ("seccomp", "1.01", "0.91-1.21", "1,234", "2.00", "DIFFERS (status 9)"):
        assert word in text, word
    remarks = "\n".join(shown.remarks(comparison))
    assert "runsc: not installed" in remarks
    assert "200 system calls" in remarks
    assert "mount refused (2 times)" in remarks


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_picture(comparison: Comparison, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot{suffix}"
    plot.check(path)
    plot.plot(comparison, path, frozenset({"seccomp"}))
    assert path.read_bytes().startswith(b"<?xml" if suffix == ".svg" else b"\x89PNG")


@pytest.mark.parametrize("name", ["plot.txt", "missing/plot.svg"])
def test_a_picture_that_cannot_be_is_refused_before_the_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--plot"):
        plot.check(tmp_path / name)


def test_measuring_counts_children_and_keeps_output(tmp_path: Path) -> None:
    script = (
        "import os, sys; os.fork() or os._exit(0); os.wait(); print('out'); print('err', file=sys.stderr); sys.exit(5)"
    )
    run = measure([sys.executable, "-c", script], os.environ, tmp_path)
    assert (run.stdout, run.stderr, run.status) == (b"out\n", b"err\n", 5)
    assert run.wall_s > 0
    assert run.cpu_s > 0
    assert run.switches > 0
    assert run.processes >= 1


def test_who_watches_is_told_of_the_end_as_well(tmp_path: Path) -> None:
    told: list[int] = []
    measure(["true"], os.environ, tmp_path, told.append)
    assert len(told) == 2
    assert told[0] > 1
    assert told[1] == 0  # or the number, which may be another's by then, would be killed when the comparison ends


def test_an_interrupted_run_is_ended_with_all_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below: list[int] = []
    told: list[int] = []

    def interrupted(pid: int, options: int) -> None:
        wait_until(lambda: len(descendants(pid)) == 3)
        below.extend(descendants(pid))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure(["sh", "-c", "sleep 60 & sleep 60 & wait"], os.environ, tmp_path, told.append)
    wait_until(lambda: not any(map(lives, below)))
    assert told[-1] == 0


def test_peers_without_an_equal_of_an_option_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS", tuple(replace(peer, probe=lambda: Availability(True)) for peer in peers.PEERS))
    names = ["proot", "runsc", "linux.uml"]
    runnable, missing = candidates(GuestSpec(argv=["true"], net="host"), Place(tmp_path), names)
    assert [candidate.name for candidate in runnable] == ["native", "proot"]
    assert all("--net host" in reason for _, reason in missing)
    volumes = [Volume(Path("/a"), "/b")]
    runnable, missing = candidates(GuestSpec(argv=["true"], volumes=volumes), Place(tmp_path), names)
    assert [candidate.name for candidate in runnable] == ["native", "proot"]
    assert all("--volume" in reason for _, reason in missing)


def test_a_command_can_be_bound_to_a_processor(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    one = max(before)
    script = [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"]
    assert measure(script, os.environ, tmp_path, processors=frozenset({one})).stdout == f"{{{one}}}\n".encode()
    assert os.sched_getaffinity(0) == before


def test_a_peer_whose_guest_writes_to_files(tmp_path: Path) -> None:
    peer = Candidate("linux.uml", list, files=str(tmp_path / "run"))
    assert peer.outcome(b"boot", b"panic", 0) == (b"", b"panic", NEVER_RAN)
    for suffix, text in ((".out", "out"), (".err", "err"), (".status", "3\n")):
        (tmp_path / f"run{suffix}").write_text(text)
    assert peer.outcome(b"boot", b"panic", 0) == (b"out", b"err", 3)
    assert Candidate("native", list).outcome(b"a", b"b", 1) == (b"a", b"b", 1)


def test_a_signal_is_a_shells_status(tmp_path: Path) -> None:
    assert measure(["sh", "-c", "kill -9 $$"], os.environ, tmp_path).status == 137


def test_candidates_carry_the_box(tmp_path: Path) -> None:
    need("seccomp")
    place = Place(tmp_path)
    place.clean()
    spec = GuestSpec(argv=["true", "-x"], volumes=[Volume(Path("/a"), "/b", read_only=True)], hostname="h")
    runnable, _ = candidates(spec, place, ["seccomp"])
    native, seccomp = runnable
    assert native.command() == ["true", "-x"]
    words = seccomp.command()
    assert words[-3:] == ["--", "true", "-x"]
    assert "/a:/b:ro" in words
    assert f"{SCRATCH}={place.scratch}" in words


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GuestSpec:
    """A program for riscv64, and a host on which everything is installed."""
    monkeypatch.setattr(peers, "PEERS", tuple(replace(peer, probe=lambda: Availability(True)) for peer in peers.PEERS))
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 243) + bytes(60))
    return GuestSpec(argv=[str(program), "word"], env={"VIRTUS_SYSROOT": str(tmp_path)})


def test_programs_of_another_processor_have_their_own_candidates(foreign: GuestSpec, tmp_path: Path) -> None:
    runnable, missing = candidates(foreign, Place(tmp_path), ["unicorn-riscv64", "proot"])
    assert [candidate.name for candidate in runnable] == ["qemu-riscv64", "unicorn-riscv64"]
    assert runnable[0].command() == ["qemu-riscv64", "-L", str(tmp_path), *foreign.argv]
    assert runnable[1].command()[-2:] == list(foreign.argv)
    assert missing == [("proot", "it does not run programs for RISC-V")]


def test_the_same_program_for_the_host_is_what_is_measured_against(foreign: GuestSpec, tmp_path: Path) -> None:
    spec = replace(foreign, extra={"native": "/bin/true"})
    runnable, _ = candidates(spec, Place(tmp_path), ["qemu-riscv64"])
    assert [candidate.name for candidate in runnable] == ["native", "qemu-riscv64"]
    assert runnable[0].command() == ["/bin/true", "word"]


def test_nothing_that_can_run_it_is_said(foreign: GuestSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = tuple(replace(peer, probe=lambda: Availability(False, "gone")) for peer in peers.PEERS)
    monkeypatch.setattr(peers, "PEERS", nobody)
    with pytest.raises(UsageError, match="qemu-riscv64: gone"):
        candidates(foreign, Place(tmp_path), ["qemu-riscv64"])


def test_native_is_a_program_for_the_host(foreign: GuestSpec) -> None:
    done = virtus("compare", "--native", foreign.argv[0], "--", foreign.argv[0])
    assert done.returncode == 2
    assert b"no program for this host" in done.stderr


def test_unknown_candidates_are_a_usage_error(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(UsageError, match="known here: native"):
        candidates(GuestSpec(argv=["true"]), place, ["vmware"])


@pytest.mark.parametrize("box", [{"root": Path("/usr")}, {"user": 1}, {"keep": Path("/tmp/x")}])
def test_a_box_that_native_does_not_have_is_refused(tmp_path: Path, box: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="without --root"):
        candidates(GuestSpec(argv=["true"], **box), Place(tmp_path), None)


def test_every_peer_has_a_command(tmp_path: Path) -> None:
    volumes = [Volume(Path("/a"), "/b", read_only=True)]
    spec = GuestSpec(
        argv=["a b", "c"], volumes=volumes, cwd="/", env={"K": "v'"}, extra={"scratch": str(tmp_path / "scratch")}
    )
    for peer in peers.PEERS:
        words = peer.command(spec)
        if peer.name == "linux.uml":
            script = (tmp_path / "scratch.init").read_text()
            assert "'a b' c" in script
            assert "export K=" in script
        else:
            assert words[-2:] == ["a b", "c"]
        if peer.name == "bubblewrap":
            assert "--ro-bind /a /b" in " ".join(words)
        if peer.name == "proot":
            assert "/a:/b" in words


@pytest.mark.slow
def test_a_comparison_runs_interleaved_and_counts_calls(tmp_path: Path) -> None:
    need("seccomp")
    need("uml-skas")
    seen: list[str] = []
    found = compare(
        GuestSpec(argv=["sh", "-c", f"echo $(( 6 * 7 )); echo x > ${SCRATCH}/x; ls ${SCRATCH}"]),
        wanted=["seccomp", "uml-skas"],
        runs=2,
        progress=lambda done, total, name: seen.append(name),
    )
    assert [row.name for row in found.results] == ["native", "seccomp", "uml-skas"]
    assert all(row.same_output for row in found.results)
    assert found.calls is not None
    assert found.calls > 20
    assert seen[:3] == ["native", "seccomp", "uml-skas"]
    assert seen[3] != "native"  # the order rotates
    assert json.loads(json.dumps(found.as_json()))["rounds"] == 2


@pytest.mark.slow
def test_different_output_is_flagged_and_fails() -> None:
    need("seccomp")
    done = virtus("compare", "--runs", "1", "--with", "seccomp", "--", "hostname")
    assert b"DIFFERS" in done.stdout
    assert b"seccomp: line 1 of the output is 'virtus'" in done.stdout
    assert done.returncode == 1


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["native", "seccomp"])
def test_a_killed_comparison_leaves_nothing(tmp_path: Path, technique: str) -> None:
    need("seccomp")
    note = tmp_path / "note"
    script = f"echo ${SCRATCH} >{note}.new && mv {note}.new {note}; exec sleep 7{os.getpid()}"
    box = ["--volume", f"{tmp_path}:{tmp_path}", "--with", technique]
    process = subprocess.Popen(
        [sys.executable, "-m", "virtus", "compare", *box, "--", "sh", "-c", script],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_until(note.exists)
    scratch = Path(note.read_text().strip())
    below = descendants(process.pid)
    assert scratch.is_dir()
    assert len(below) > 2
    process.kill()
    process.wait()
    wait_until(lambda: not scratch.parent.exists())
    wait_until(lambda: not any(map(lives, below)))


def test_differences_are_told_in_a_line() -> None:
    def run(stdout: bytes, status: int = 0) -> Run:
        return Run(1.0, 1.0, 1, 1, status, stdout, b"one\ntwo\n")

    assert difference(run(b"a\nb\n"), run(b"a\nb\n")) == ""
    assert difference(run(b"a\nb\n"), run(b"a\nc\n")) == "line 2 of the output is 'b', native's is 'c'"
    assert difference(run(b"a\n"), run(b"a\nc\n")) == "line 2 of the output is missing, native's is 'c'"
    assert difference(run(b"a", 1), run(b"a")) == "exit status 1, native's is 0: two"
    assert difference(run(b"a"), run(b"a\n")) == "the output differs in how its lines end"

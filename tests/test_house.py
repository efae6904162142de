"""The house: start-up, the console script, the library's exports, and what the documents promise."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import virtus
from virtus.cli import commands, deck
from virtus.errors import GuestNotFound, UsageError
from virtus.host import probe
from virtus.library import Machine, State
from virtus.techniques import registry

HOME = Path(__file__).parent.parent
HEAVY = {"rich", "matplotlib", "numpy", "llvmlite", "unicorn", "asyncio", "multiprocessing", "virtus.techniques"}
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/README.md"]


def run_cli(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "virtus", *words]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["compare", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        f"import sys; sys.argv[1:] = {words!r}\n"
        "try: import virtus.__main__\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0
    assert "virtus" in done.stdout
    assert not HEAVY & set(done.stderr.split())


@pytest.mark.slow
def test_importing_the_library_imports_only_what_is_asked_for() -> None:
    code = "import sys, virtus; before = set(sys.modules); virtus.GuestSpec; print(*before); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    before, after = (set(line.split()) for line in done.stdout.splitlines())
    assert not [name for name in before if name.startswith("virtus.")]
    assert "virtus.machine.spec" in after
    assert "virtus.library" not in after


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run", "--", "no-such-command-anywhere"], 127, "no such command"),
        (["run", "--", "/"], 126, "a directory"),
        (["run", "--with", "hvm", "--", "true"], 2, "boots systems"),
        (["run", "--with", "nonsense", "--", "true"], 2, "choose one of seccomp"),
        (["run", "--net", "everything", "--", "true"], 2, "net"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_what_goes_wrong_is_told_in_a_line_with_the_shells_status(words: list[str], status: int, said: str) -> None:
    done = run_cli(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", list(commands.COMMANDS))
def test_every_command_shows_examples(name: str) -> None:
    command = commands.group.get_command(click.Context(commands.group), name)
    assert command is not None
    done = CliRunner().invoke(command, ["--help"], prog_name=f"virtus {name}")
    assert done.exit_code == 0
    assert f"virtus {name}" in done.output.split("Example")[1]


def test_what_is_public_can_be_had() -> None:
    for name in virtus.__all__:
        assert getattr(virtus, name).__doc__
        assert name in dir(virtus)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = virtus.no_such_name


def test_a_machine_is_made_only_for_a_guest_that_is_there() -> None:
    with pytest.raises(GuestNotFound):
        Machine(virtus.GuestSpec(["/no/such/guest"]))
    with pytest.raises(UsageError, match="boots systems"):
        Machine(virtus.GuestSpec(["true"]), "hvm")


def test_a_machine_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        name = "fake"

        def run(self, spec: virtus.GuestSpec, *, meter: bool = False) -> virtus.Report:
            assert machine.state is State.RUNNING
            return virtus.Report("fake", status=7)

    monkeypatch.setattr(registry, "get", lambda name: Fake())
    machine = Machine(virtus.GuestSpec(["true"]))
    states = [machine.state]
    assert machine.run().status == 7
    states.append(machine.state)
    assert states == [State.CREATED, State.ENDED]
    assert machine.report is not None
    with pytest.raises(UsageError, match="ended"):
        machine.run()


@pytest.mark.slow
def test_techniques_are_the_papers() -> None:
    rows = json.loads(run_cli("techniques", "--json").stdout)
    assert [row["section"] for row in rows] == ["2.1", "2.2", "2.2", "3.1", "3.2", "3.2", "3.3", "3.4", "3.5"]
    for row in rows:
        assert row["works"] or row["reason"]
    assert {row["name"] for row in rows} == set(registry.names())


@pytest.mark.slow
def test_doctor_names_a_remedy_for_all_that_lacks() -> None:
    done = run_cli("doctor", "--json")
    findings = json.loads(done.stdout)
    assert {"ptrace", "seccomp notification", "user namespace", "overlay", "FUSE", "KVM", "linux.uml"} <= {
        finding["name"] for finding in findings
    }
    assert [finding["name"] for finding in findings if not finding["there"] and not finding["remedy"]] == []


def test_a_probe_that_fails_says_why_and_one_that_dies_too() -> None:
    def refuse() -> None:
        raise PermissionError(1, "forbidden here")

    def die() -> None:
        import os

        os.kill(os.getpid(), 9)

    assert probe._in_child(lambda: None) == ""
    assert probe._in_child(refuse) == "forbidden here"
    assert probe._in_child(die) == "killed by signal 9"


@pytest.mark.parametrize(
    ("modules", "flags", "kind"),
    [
        ({"kvm_intel"}, {"vmx"}, "hardware (VMX)"),
        ({"kvm_amd"}, {"svm", "hypervisor"}, "hardware (SVM), nested"),
        ({"kvm_pvm"}, {"hypervisor"}, "software (PVM)"),
        (set[str](), {"vmx"}, "hardware"),
        (set[str](), {"fpu"}, "software: the processor shows neither VMX nor SVM"),
    ],
)
def test_kinds_of_kvm(modules: set[str], flags: set[str], kind: str) -> None:
    assert probe.kvm_kind(modules, flags) == kind


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_of_documents_lead_somewhere(name: str) -> None:
    document = HOME / name
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_of_documents_exist(name: str) -> None:
    """Lines of code blocks: `virtus WORD` is a command, and `./FILE` a file of the project."""
    blocks = re.findall(r"```(?:sh|console)\n(.*?)```", (HOME / name).read_text(), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    for line in lines:
        words = line.split()
        if words and words[0].endswith("virtus"):
            assert words[1] in commands.COMMANDS, line
            command = commands.group.get_command(click.Context(commands.group), words[1])
            assert command is not None
            known = {option for parameter in command.params for option in parameter.opts}
            if any(word.endswith(".7070") for word in words):
                known |= {option for parameter in deck.options.params for option in parameter.opts}
            own = words[2 : words.index("--")] if "--" in words else words[2:]
            assert {word for word in own if word.startswith("-")} <= known, line
        elif words and words[0].startswith("./"):
            assert (HOME / words[0]).exists(), line


def test_the_readmes_table_is_that_of_the_registry() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| ([\d.]+) .*\| (\S.*) \|$", (HOME / "README.md").read_text(), re.MULTILINE)
    assert [(name, section) for name, section, _ in rows] == [(row.name, row.section) for row in registry.ROWS]
    assert [name for name, _, today in rows if today.startswith("works")] == [row.name for row in registry.ROWS]


def test_the_lock_pins_all_that_the_project_names_with_hashes() -> None:
    project = tomllib.loads((HOME / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    wanted += project["build-system"]["requires"]
    lock = (HOME / "requirements.lock").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    assert {re.split(r"[<>=]", name)[0] for name in wanted} <= set(pinned)
    assert "http" not in lock
    for entry in re.split(r"\n(?=[a-z])", lock):
        assert entry.startswith("#") or "--hash=sha256:" in entry, entry

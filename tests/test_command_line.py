"""What is read without click is read as click reads it."""

import subprocess
import sys
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtus.cli import quick
from virtus.cli.run import command

OPTIONS = [name for parameter in command.params if isinstance(parameter, click.Option) for name in parameter.opts]
WORDS = st.sampled_from(
    [*OPTIONS, *[f"{name}=v" for name in OPTIONS], *[f"{name}=" for name in OPTIONS], "--", "-", "-h", "--help", "-x",
     "--met", "guest", "a=b", "7", "", "--with", "--volume", "--meter", "--trace"]
)  # fmt: skip


def read_by_click(words: list[str]) -> dict[str, Any] | None:
    """The values, None for an error or for help."""
    try:
        return command.make_context("run", list(words)).params
    except (click.ClickException, click.exceptions.Exit):
        return None


@given(st.lists(WORDS, max_size=6), st.lists(st.text(max_size=4), max_size=2))
def test_the_same_values_as_clicks(words: list[str], more: list[str]) -> None:
    found = quick.read([*words, *more])
    if found is not None:
        assert found == read_by_click([*words, *more])


@pytest.mark.parametrize(
    "line",
    [
        "true",
        "-- true",
        "--with seccomp -- true -x --help",
        "--with=uml-skas --meter ls -l",
        "--root d --net host --volume a:/b:ro --volume c:/d --env A=B --hostname h --keep k -- sh -c x",
        "--trace tool.exe",
        "--trace=f --meter-json m tool.exe --trace",
        "--explain tool.exe",
        "--translate-only tool",
    ],
)
def test_usual_lines_need_no_click(line: str) -> None:
    found = quick.read(line.split())
    assert found is not None
    assert found == read_by_click(line.split())


@pytest.mark.parametrize("line", ["", "--", "--with", "--cpus 2 kernel", "--memory 1G kernel", "--help", "--with x"])
def test_the_rest_is_clicks(line: str) -> None:
    assert quick.read(line.split()) is None


@pytest.mark.slow
def test_a_quick_run_imports_nothing_that_it_does_not_need() -> None:
    code = "import sys; sys.argv[1:] = ['run', '--', 'no-such-command-anywhere']\n"
    code += "try: import virtus.__main__\nfinally: print(*sys.modules)"
    code = code.replace("import virtus.__main__", "from virtus.cli.main import command; command()")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    unwanted = {"click", "dataclasses", "inspect", "json", "rich", "tempfile", "uuid", "llvmlite", "asyncio"}
    assert "virtus.cli.running" in done.stdout.split()
    assert not unwanted & set(done.stdout.split())

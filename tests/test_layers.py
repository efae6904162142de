"""Imports point one way: a package uses only what stands below it, and vCPUs and personalities do not meet."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "virtus"
ANYONE = {"errors", "exits", "records"}
BELOW = {
    "errors": set[str](),
    "exits": set[str](),
    "records": set[str](),
    "host": set[str](),
    "isa": {"host"},
    "memory": {"host"},
    "devices": {"memory", "host"},
    "guests": {"isa", "memory", "host"},
    "vcpus": {"isa", "memory", "devices", "host"},
    "personalities": {"guests", "isa", "memory", "devices", "host"},
    "machine": {"vcpus", "personalities", "guests", "isa", "memory", "devices", "host"},
    "techniques": {"machine", "vcpus", "personalities", "guests", "isa", "memory", "devices", "host"},
    "report": {"machine"},
    "comparison": {"techniques", "machine"},
    "library": {"comparison", "techniques", "machine"},
    "cli": {"library", "comparison", "report", "techniques", "machine", "devices", "host"},
    "__main__": {"cli"},
    "__init__": {"library", "machine"},
}
MODULES = sorted(SOURCE.rglob("*.py"))


def package_of(module: str) -> str:
    """`virtus.host.ptrace` belongs to `host`."""
    return [*module.split("."), "__init__"][1]


def imported(path: Path) -> Iterator[str]:
    """Every module of virtus that a file imports, wherever in the file; by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "virtus")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            if node.module == "virtus":
                yield from (f"virtus.{alias.name}" for alias in node.names)
            elif node.module is not None and node.module.startswith("virtus."):
                yield node.module


def home(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(SOURCE)) for path in MODULES])
def test_a_module_imports_only_from_below(path: Path) -> None:
    own = home(path)
    allowed = {own} | ANYONE | BELOW[own]
    above = {name for name in imported(path) if package_of(name) not in allowed}
    assert above == set()


def test_the_seam_stands_on_nothing() -> None:
    """The errors, the seam and records stand under everything: they import nothing of virtus."""
    assert [name for module in ANYONE for name in imported(SOURCE / f"{module}.py")] == []


def test_no_package_is_above_itself() -> None:
    for upper, lower in BELOW.items():
        assert not [name for name in lower if upper in BELOW[name]], upper


def test_every_package_has_its_place() -> None:
    assert {home(path) for path in MODULES} == set(BELOW)

"""Which module has which function, known without importing any: a program starts with the modules that it calls.

`catalogue_data.py` is written by `python -m virtus.personalities.win32.catalogue` whenever a function has come, gone or
moved, which a test sees to. A function that it does not have is not there: nobody looks through the modules for it.
"""

import importlib
import os
from typing import Final

from virtus.personalities.win32.table import FUNCTIONS, Function

PACKAGE: Final = "virtus.personalities.win32"


def _written() -> tuple[dict[str, str], frozenset[str]]:
    """The module of each function, and the libraries; nothing where the catalogue has not been written yet."""
    try:
        from virtus.personalities.win32 import catalogue_data
    except ImportError:
        return {}, frozenset()
    modules = {name: module for module, names in catalogue_data.FUNCTIONS.items() for name in names.split()}
    return modules, frozenset(catalogue_data.DLLS.split())


MODULES, DLLS = _written()
_complete = False


def load_all() -> None:
    """Have every module of the personality enter its functions into the table."""
    global _complete
    if not _complete:
        import pkgutil  # seldom needed

        for module in pkgutil.iter_modules([os.path.dirname(__file__)]):
            importlib.import_module(f"{PACKAGE}.{module.name}")
        _complete = True


def exists(name: str) -> bool:
    """Whether a function is served: the catalogue is believed."""
    if not MODULES:
        load_all()
    return name in MODULES or name in FUNCTIONS


def find(name: str) -> Function | None:
    """A function by name, its module imported; None where nobody has it."""
    found = FUNCTIONS.get(name)
    if found is None and name in MODULES:
        try:
            importlib.import_module(f"{PACKAGE}.{MODULES[name]}")
        except ModuleNotFoundError:  # the catalogue is old
            load_all()
        found = FUNCTIONS.get(name)
    if found is None and (name in MODULES or not MODULES):
        load_all()
        found = FUNCTIONS.get(name)
    return found


def dlls() -> frozenset[str]:
    """The libraries that functions are in, without ".dll"."""
    if DLLS:
        return DLLS
    load_all()
    return frozenset(dll for function in FUNCTIONS.values() for dll in function.dlls)


def source() -> str:
    """What `catalogue_data.py` should be."""
    import textwrap

    load_all()
    by_module: dict[str, list[str]] = {}
    for name, function in sorted(FUNCTIONS.items()):
        module = function.implementation.__module__.rpartition(".")[2]
        by_module.setdefault(module, []).append(name)
    lines = ['"""Made by `python -m virtus.personalities.win32.catalogue`: the functions of each module."""', ""]
    lines += ["from typing import Final", "", "FUNCTIONS: Final[dict[str, str]] = {"]
    for module, names in sorted(by_module.items()):
        lines += [f'    "{module}": """', *textwrap.wrap(" ".join(names), 118), '""",']
    dlls = sorted({dll for function in FUNCTIONS.values() for dll in function.dlls})
    lines += ["}", 'DLLS: Final = """', *textwrap.wrap(" ".join(dlls), 118, break_on_hyphens=False), '"""']
    lines.append("")
    return "\n".join(lines)


def document() -> str:
    """The list of what is supported, for docs/windows-functions.md."""
    load_all()
    by_dll: dict[str, list[Function]] = {}
    for function in FUNCTIONS.values():
        by_dll.setdefault(function.dlls[0], []).append(function)
    lines = [
        "# Functions of Windows",
        "",
        f"All {len(FUNCTIONS)} that are there, under both techniques, by the library",
    ]
    lines += ["that is named first; made by `python -m virtus.personalities.win32.catalogue`."]
    for dll, functions in sorted(by_dll.items()):
        lines += ["", f"## {dll}.dll: {len(functions)}", "", "| function | weaker than Windows' |", "|---|---|"]
        lines += [f"| {row.name} | {row.note} |" for row in sorted(functions, key=lambda row: row.name)]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    own = os.path.dirname(os.path.abspath(__file__))
    documents = os.path.join(own, *[os.pardir] * 4, "docs")
    written = {os.path.join(own, "catalogue_data.py"): source()}
    if os.path.isdir(documents):  # not where virtus is installed
        written[os.path.join(documents, "windows-functions.md")] = document()
    for path, content in written.items():
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(content)

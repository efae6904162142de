"""The command that users type, as it was installed beside the interpreter that measures."""

import sys
from pathlib import Path
from typing import Final

COMMAND: Final = Path(sys.executable).with_name("virtus")


def virtus(*words: str) -> list[str]:
    """Its command line. (`python -m virtus` does the same some 20 ms later, with all that -m imports.)"""
    if not COMMAND.exists():
        raise SystemExit(f"{COMMAND} is not there: run ./demo or ./check, which install virtus, or pip install -e .")
    return [str(COMMAND), *words]

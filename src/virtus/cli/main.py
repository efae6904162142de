"""The command `virtus`: reads its command line, quickly where it is a usual one, and tells errors in one line."""

from __future__ import annotations

import atexit
import os
import sys

from virtus.cli import IMAGE, INTERRUPTED, start_image
from virtus.cli.start_checkpoint import START

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than a start may
if TYPE_CHECKING:
    from typing import Any, Final

COMPLETION: Final = "_VIRTUS_COMPLETE"
"""In the environment, a shell asks click for completions."""


def command(arguments: list[str] | None = None) -> int:
    """Run a command line: the exit status, the guest's, or 126/127 as shells use them, 2 for usage, 1 for the rest."""
    from virtus.cli import quick
    from virtus.errors import VirtusError

    words = sys.argv[1:] if arguments is None else arguments
    try:
        values = quick.read(words[1:]) if words[:1] == ["run"] and COMPLETION not in os.environ else None
        if values is not None:
            return _run(values)
        from virtus.cli import commands

        return commands.run(words)
    except VirtusError as error:
        print(f"virtus: {error}", file=sys.stderr)
        return error.exit_status


def _run(values: dict[str, Any]) -> int:
    """As click runs a command: what it makes of interruptions and of readers that have gone."""
    from virtus.cli import running

    try:
        return running.run(**values)
    except (KeyboardInterrupt, EOFError):
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 1


def main() -> None:
    """The console script: `command`, and an end that does not take apart what is gone with the process anyway."""
    if sys.argv[1:2] == ["run"] and not START.restored:
        START.enter()
    IMAGE.open()
    status = command()
    threading = sys.modules.get("threading")  # what has not been imported has started nothing
    if threading is not None and threading.active_count() > 1:
        sys.exit(status)
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        status = status or 1  # nobody reads it any more
    names = start_image.missing(IMAGE, START.imported)
    if names:
        from virtus.cli import image_writer

        image_writer.write(IMAGE, names)
    else:
        START.leave(IMAGE)
    os._exit(status)

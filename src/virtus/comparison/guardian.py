"""Nothing is left of a comparison that is killed: a process of its own waits for its end, and clears up.

Run as a program with the comparison's directory as its argument; standard input is a pipe that only the comparison
holds open, through which it tells what it has started: a process's number a line, 0 when that has ended.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from virtus.comparison.tree import end


class Guardian:
    """The comparison's end of the pipe; a context manager."""

    def __init__(self, base: Path) -> None:
        command = [sys.executable, "-P", "-m", __name__, str(base)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def __enter__(self) -> "Guardian":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have it clear up."""
        self._process.communicate()

    def watch(self, pid: int) -> None:
        """`pid` runs now; 0: it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"%d\n" % pid)
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it was killed: then the comparison itself is there to clear up


def main() -> None:
    """Wait for the end of the pipe, which is the end of the comparison."""
    running = 0
    for line in sys.stdin:
        running = int(line)
    if running:
        end(running)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()

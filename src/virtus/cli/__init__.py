"""The command line: one file per command."""

from __future__ import annotations

import gc

from virtus.cli.start_image import StartImage

TYPE_CHECKING = False  # as in `typing`, which takes longer to import than a start may
if TYPE_CHECKING:
    from typing import Final

GARBAGE_THRESHOLD: Final = 200_000
"""Objects made before the collector looks for cycles. Importing makes ten thousands, none of them garbage."""
INTERRUPTED: Final = 130
"""The exit status of shells for what SIGINT has ended."""

gc.set_threshold(GARBAGE_THRESHOLD)
IMAGE: Final = StartImage(b"")
"""What `main` has the other modules imported from, where it has them."""

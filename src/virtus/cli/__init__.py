"""The command line: one file per command."""

import gc
from typing import Final

from virtus.cli import start_image

GARBAGE_THRESHOLD: Final = 200_000
"""Objects made before the collector looks for cycles. Importing makes ten thousands, none of them garbage."""
INTERRUPTED: Final = 130
"""The exit status of shells for what SIGINT has ended."""

gc.set_threshold(GARBAGE_THRESHOLD)
IMAGE: Final = start_image.install()
"""What the following modules are imported from, where it has them."""

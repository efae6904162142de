"""The user half of the x86-64 address space, and the page at its very top that stub processes keep for themselves."""

from typing import Final

PAGE: Final = 4096
USER_END: Final = 0x7FFF_FFFF_F000  # TASK_SIZE_MAX with four-level paging (arch/x86/include/asm/page_64_types.h)
STUB_START: Final = USER_END - PAGE
"""Guests own everything below."""

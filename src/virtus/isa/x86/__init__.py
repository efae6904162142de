"""x86-64: registers, address-space layout, system-call numbers."""

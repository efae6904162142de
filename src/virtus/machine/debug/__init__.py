"""Looking into a guest while it runs: for GDB over its remote protocol, and as a trace of what it does."""

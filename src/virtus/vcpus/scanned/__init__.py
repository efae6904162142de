"""vCPU "scanned": code is scanned before it runs on the processor itself, and what is sensitive is emulated."""

"""The optimising translator: guest code through LLVM, in a process of its own."""

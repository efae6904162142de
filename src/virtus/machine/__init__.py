"""The loop, the life of a machine, its box and its meter."""

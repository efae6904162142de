"""Personality "pc": the board of a PC with its chips, its BIOS, and how kernels are booted on it without one."""

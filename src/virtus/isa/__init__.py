"""Instruction sets, each described once."""

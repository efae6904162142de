"""Personality `ibm7070`: what surrounds the processor of an IBM 7070: devices, channels, priority, and the console."""

"""pipes. Being written (10:33): part W2."""

"""nt_files. Being written (10:33): part W2."""

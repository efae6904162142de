"""vCPU `interpreter`: guest instructions, each carried out on Python's integers."""

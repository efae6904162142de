"""One short file per technique: the pair of vCPU and personality, what it needs of the host, when it fits."""

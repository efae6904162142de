"""vCPU `translator`: guest instructions of another processor, translated to the host's."""

"""/proc, answered by the kernel: it shows the guest's processes and the machine, and nothing of the host's."""

"""The Linux personality: a kernel in user space, and the policy for guests that the host's kernel serves."""

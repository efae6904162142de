"""The vCPU that runs guests under the host's KVM."""

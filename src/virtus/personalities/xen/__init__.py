"""Who answers a paravirtual domain: the Xen interface (xen.git, xen/include/public) for 64-bit PV guests."""

"""The personality `xen` and the technique `paravirt`."""

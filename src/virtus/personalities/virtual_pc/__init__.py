"""The personality of a PC without a past: virtio devices, a serial port, and tables that say where they are."""

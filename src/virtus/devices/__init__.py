"""What a guest talks to: one file per device."""

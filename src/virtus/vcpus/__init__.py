"""Who runs the instructions."""

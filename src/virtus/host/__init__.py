"""The only place that speaks to Linux by number."""

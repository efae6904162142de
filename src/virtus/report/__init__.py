"""Tables, plots and JSON of what the meter saw."""

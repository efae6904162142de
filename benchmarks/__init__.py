"""What virtus has to reach, measured: one command each, JSON and a picture in benchmarks/results."""

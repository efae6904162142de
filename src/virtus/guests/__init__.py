"""What can be run: identify a file, read what its loader needs."""

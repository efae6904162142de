"""The personality of Windows: its console programs' API, answered by Linux."""

"""Programs that print or draw the numbers that the documentation quotes. Run as `python -m benchmarks.<name>`."""

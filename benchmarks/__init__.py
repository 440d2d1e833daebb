"""Benchmarks: `make bench`, or `python -m benchmarks` in an environment made by it."""

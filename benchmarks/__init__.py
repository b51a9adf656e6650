"""Benchmarks: `python -m benchmarks [core|http ...]` prints one table."""

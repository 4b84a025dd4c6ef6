"""Benchmarks: ratios measured in one process, printed as the table that the README shows."""

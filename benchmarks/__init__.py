"""Benchmarks: scripts that answer one question each, and check the result before they time it."""

"""Bounded fields over a detector: Chebyshev series in x and y."""

"""Offsets of a run's magnitudes against a reference catalog."""

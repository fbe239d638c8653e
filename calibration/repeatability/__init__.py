"""How well magnitudes of a star agree from visit to visit: a table and a figure."""

from .report import Repeatability, measure_repeatability

__all__ = ["Repeatability", "measure_repeatability"]

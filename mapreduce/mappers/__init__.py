"""What runs on a cell: what a mapper is (`mapreduce.mappers.mapper`), and ready-made ones."""

from .background import subtract_background
from .filters import gaussian_filter, median_filter

__all__ = ["gaussian_filter", "median_filter", "subtract_background"]

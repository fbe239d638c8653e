"""Ready-made mappers, by name."""

from __future__ import annotations

from .background import subtract_background
from .filters import gaussian_filter, median_filter
from .mapper import Mapper

__all__ = ["MAPPERS", "describe", "gaussian_filter", "median_filter", "subtract_background"]

MAPPERS: dict[str, Mapper] = {
    "background": subtract_background,
    "gaussian": gaussian_filter,
    "median": median_filter,
}


def describe() -> dict[str, str]:
    """Return what each built-in mapper does: the first line of its docstring, by name.

    Examples
    --------
    >>> describe()["gaussian"]
    'Smooth with a round Gaussian.'
    """
    return {
        name: (mapper.__doc__ or "").strip().partition("\n")[0] for name, mapper in MAPPERS.items()
    }

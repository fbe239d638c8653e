"""Reducers by name."""

from __future__ import annotations

from typing import Literal

from .base import Collector, PixelReducer
from .collect import Coadd, Concatenate, Keep
from .pixels import Average, Copy, Feather, Median, Sum, WeightedAverage

__all__ = ["REDUCERS", "CollectorName", "PixelName", "get_reducer"]

# For the signature of `map_reduce`, which says by the name what comes of it.
PixelName = Literal["average", "copy", "feather", "median", "sum", "weighted_average"]
CollectorName = Literal["coadd_psf", "concatenate", "none"]

#: The reducers that have a name, by name.
REDUCERS: dict[str, type[PixelReducer | Collector]] = {
    reducer.name: reducer
    for reducer in (
        *(Keep, Copy, Sum, Average, Coadd),
        *(WeightedAverage, Median, Feather, Concatenate),
    )
}


def get_reducer(reducer: str | PixelReducer | Collector) -> PixelReducer | Collector:
    """Return a reducer by its name, or the reducer itself.

    Raises
    ------
    ValueError
        If there is none of that name.
    TypeError
        If it is neither a name nor a reducer.

    Examples
    --------
    >>> get_reducer("average")
    Average(mask='or', bad=('INVALID_MAPREDUCE', 'BAD', 'NO_DATA'), variance_rule='mean')
    """
    if isinstance(reducer, str):
        if reducer not in REDUCERS:
            raise ValueError(f"no reducer {reducer!r}; choose from {', '.join(REDUCERS)}")
        return REDUCERS[reducer]()
    if not isinstance(reducer, PixelReducer | Collector):
        raise TypeError(
            f"reducer must be a name, a PixelReducer or a Collector, got {reducer!r}; "
            f"names are {', '.join(REDUCERS)}"
        )
    return reducer

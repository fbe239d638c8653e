"""check_seams(): whether a mapper's result depends on where the cells lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from dask.base import compute

from ..exposure.box import size_pair
from ..exposure.exposure import Exposure
from ..grid.config import GridConfig
from ..mappers.mapper import Mapper
from .engine import map_reduce

__all__ = ["check_seams"]

_SMALLER = 0.7  # of a cell: few edges of such cells lie where the others' do


def check_seams(
    exposure: Exposure,
    mapper: Mapper,
    grid: GridConfig | None = None,
    *,
    mapper_kwargs: Mapping[str, Any] | None = None,
    reducer: Any = "average",
) -> float:
    """Return the largest change of a pixel when the cells move; 0 means no seams.

    The mapper runs twice, on cells of the grid and on smaller ones of the same border, on whatever
    scheduler dask is set to. A part of an exposure tells as much as all of it.

    Parameters
    ----------
    exposure : Exposure
    mapper : callable
        See `map_reduce`; it makes exposures.
    grid : GridConfig, optional
        Default ``GridConfig()``.
    mapper_kwargs, reducer : optional
        As for `map_reduce`.

    Returns
    -------
    float
        In the unit of the image; infinite where a pixel has a value with one grid alone.

    Raises
    ------
    TypeError, ValueError
        As from `map_reduce`.

    Examples
    --------
    >>> from scipy.ndimage import uniform_filter
    >>> from mapreduce import array_mapper
    >>> exposure = Exposure(np.random.default_rng(1).normal(size=(90, 90)))
    >>> blur = array_mapper(uniform_filter, size=9)
    >>> [check_seams(exposure, blur, GridConfig(30, border=n)) > 1e-9 for n in (4, 3)]
    [False, True]
    """
    grid = GridConfig() if grid is None else grid
    x, y = size_pair("cell_size", grid.cell_size, whole=False)
    smaller = replace(grid, cell_size=(max(1, round(_SMALLER * x)), max(1, round(_SMALLER * y))))
    lazy = (
        map_reduce(exposure, mapper, grid=each, reducer=reducer, mapper_kwargs=mapper_kwargs).image
        for each in (grid, smaller)
    )
    one, other = (np.asarray(image, np.float64) for image in compute(*lazy))
    if not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return np.inf
    return float(np.nanmax(np.abs(np.where(np.isfinite(one), one - other, 0)), initial=0))

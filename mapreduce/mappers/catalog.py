"""catalog_mapper(): a mapper of a function that finds sources, each of which is reported once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..reducers.tables import as_table
from ..units import in_unit
from .mapper import WrappingMapper, name_of

__all__ = ["CatalogMapper", "catalog_mapper"]

_BEYOND = 1  # pixels around the core, whose sources are passed on for two cells to compare


@dataclass(frozen=True)
class CatalogMapper(WrappingMapper):
    """A mapper made of a function that finds sources; see `catalog_mapper`, which makes it.

    Parameters
    ----------
    function : callable
    x, y : tuple of str
        Columns of positions.
    arguments : mapping
        Keyword arguments of the function.
    """

    function: Callable[..., Any]
    x: tuple[str, ...] = ("x",)
    y: tuple[str, ...] = ("y",)
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"catalog_mapper takes a function of a cell, got {self.function!r}")
        if not (self.x and self.y):
            raise ValueError("catalog_mapper needs the columns of the position: x=..., y=...")

    @property
    def position(self) -> tuple[str, str]:
        """Columns of the positions that say which cell a row belongs to; for the reducer."""
        return self.x[0], self.y[0]

    def __call__(
        self, sub: Exposure, expanded: Exposure, full_bbox: Box, **keywords: Any
    ) -> Table | None:
        """Return the rows in and near the core, with positions in parent pixels."""
        found = self.function(expanded, **{**self.arguments, **keywords})
        if found is None:
            return None
        table = self._in_parent_pixels(as_table(found, name_of(self.function)), expanded.bbox)
        x, y = (in_unit(table[name], u.pix, name) for name in self.position)
        if lost := np.count_nonzero(~(np.isfinite(x) & np.isfinite(y))):
            raise ValueError(
                f"{lost} of the {len(table)} rows of {name_of(self.function)} have no position "
                f"({' or '.join(self.position)} is not finite); leave them out"
            )
        near = sub.bbox.grow(_BEYOND).covers(x, y)
        table, x, y = table[near], x[near], y[near]
        if expanded.wcs is not None and expanded.wcs.has_celestial:
            _add_sky(table, expanded, x, y)
        return table

    def _in_parent_pixels(self, table: Table, box: Box) -> Table:
        for names, first in ((self.x, box.x0), (self.y, box.y0)):
            for name in names:
                if name not in table.colnames:
                    raise ValueError(
                        f"{name_of(self.function)} returned no column {name!r}; it has "
                        f"{', '.join(table.colnames)}: say which are positions, x=..., y=..."
                    )
                column = table[name]
                in_unit(column[:0], u.pix, f"column {name} of {name_of(self.function)}")
                # A narrow whole number might not hold what is added.
                wide = np.result_type(column.dtype, np.int64)
                shift = first if column.unit is None else first * column.unit
                table[name] = column.astype(wide) + shift
        return table


def catalog_mapper(
    function: Callable[..., Any],
    *,
    x: str | Sequence[str] = "x",
    y: str | Sequence[str] = "y",
    **arguments: Any,
) -> CatalogMapper:
    """Make a mapper of a function that finds sources in an image.

    The function sees the expanded box of each cell and says where in it the sources are, as array
    indices. The mapper turns these into parent pixels, adds ``ra`` and ``dec`` where there is a
    WCS, and leaves a source to the cell in whose core it lies, so that with
    ``reducer="concatenate"`` each is reported once. For that the border must be at least as wide
    as the largest source.

    Parameters
    ----------
    function : callable
        Called as ``function(expanded, **arguments)`` with the `Exposure` over the expanded box, of
        which nothing may be written into; importable, if it is to run in other processes. It
        returns a table: astropy's, pandas', polars' or pyarrow's, a structured array, or a mapping
        of columns; None for no rows. Nothing that depends on the whole image, such as a level of
        noise, is to be estimated in it, or cells disagree about what lies between them.
    x, y : str or sequence of str, optional
        The columns of positions, first that of the center, in pixels from the first one of the
        array on: as sep and photutils give them.
    **arguments
        Fixed keyword arguments of the function.

    Returns
    -------
    CatalogMapper
        Gives astropy Tables. Picklable where the function is.

    Raises
    ------
    TypeError
        If the function is not callable; from every call, if it does not return a table.
    ValueError
        From every call, if a column of positions is missing or in another unit than pix, or a
        position is not finite.

    Examples
    --------
    >>> def peaks(expanded, thresh):
    ...     y, x = np.nonzero(expanded.image > thresh)
    ...     return {"x": x, "y": y, "peak": expanded.image[y, x]}
    >>> image = np.zeros((40, 40))
    >>> image[19, 20] = image[5, 30] = 9.0
    >>> import mapreduce as mr
    >>> stars = mr.map_reduce(
    ...     mr.Exposure(image, origin=(100, 0)),
    ...     catalog_mapper(peaks, thresh=5.0),
    ...     grid=mr.GridConfig(20, border=4),
    ...     reducer="concatenate",
    ... ).compute()
    >>> stars["x"].tolist(), stars["y"].tolist(), stars["cell"].tolist()
    ([130, 120], [5, 19], [2, 2])
    """
    return CatalogMapper(function, _names(x), _names(y), arguments)


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _add_sky(table: Table, expanded: Exposure, x: ArrayLike, y: ArrayLike) -> None:
    """Add coordinates on the sky, unless there are such columns already."""
    sky = expanded.sky(x, y)
    sky = sky if hasattr(sky, "ra") else sky.icrs
    for name in ("ra", "dec"):
        if name not in table.colnames:
            table[name] = getattr(sky, name).deg
            table[name].unit = "deg"

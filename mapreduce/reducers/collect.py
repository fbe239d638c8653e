"""The reducers that collect results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table

from ..exposure.box import Box
from ..exposure.cell_psf import CellPsf, PsfComponent
from ..exposure.exposure import Exposure
from ..exposure.wcs import same_wcs
from ..grid.grid import Cell
from ..report import CellFailure
from .base import CellResult, Collector
from .owner import owned
from .tables import Kind, kind_of

__all__ = ["Coadd", "Concatenate", "Keep"]


@dataclass(frozen=True)
class Keep(Collector):
    """The list of what the mapper returned, in the order of the cells."""

    name: ClassVar[str] = "none"

    def collect(self, results: list[CellResult]) -> Any:
        """Return the values, or whole `CellResult` records where the inputs were asked for."""
        if any(result.sub is not None for result in results):
            return results
        return [result.value for result in results]


@dataclass(frozen=True)
class Coadd(Collector):
    """The PSF of the stitched exposure: a `CellPsf` of the PSFs of the cells' results.

    The mapper returns an Exposure, or a (psf, box) pair.
    """

    name: ClassVar[str] = "coadd_psf"

    def check_value(self, value: Any, sub: Exposure) -> None:
        """Refuse what has no PSF, or is on other pixels."""
        psf, _ = _psf_and_box(value)
        if psf is None:
            raise ValueError("reducer 'coadd_psf' needs a PSF, which the mapper's result has not")
        if isinstance(value, Exposure) and value.wcs is not None:
            if not same_wcs(value.wcs, sub.wcs):
                raise ValueError("the mapper returned an exposure with another WCS than its input")

    def collect(self, results: list[CellResult]) -> Any:
        """Return the combined PSF."""
        return CellPsf(
            [
                PsfComponent(result.cell.index, box, psf)
                for result in _succeeded(results)
                for psf, box in [_psf_and_box(result.value)]
            ]
        )


@dataclass(frozen=True)
class Concatenate(Collector):
    """The rows of all cells' tables in one, in the order of the cells.

    The mapper returns astropy, pandas, polars or pyarrow tables, NumPy arrays, lists, or mappings
    from column name to array, the same kind for every cell; None is an empty one. A column ``cell``
    with the cell's index is added to tables and mappings.

    Parameters
    ----------
    cell_column : str or None, optional
        Name of that column; None for no such column.
    position : (str, str) or None, optional
        Columns of positions x and y, in parent pixels. Of rows of different cells that lie within
        half a pixel, those of one cell stay: of that in whose core their mean position is. Default
        what the mapper says: that of `mapreduce.mappers.catalog.catalog_mapper` does.
    """

    cell_column: str | None = "cell"
    position: tuple[str, str] | None = None
    name: ClassVar[str] = "concatenate"

    def collect(self, results: list[CellResult]) -> Any:
        """Return the concatenation; where there was nothing, an empty list, or catalog."""
        pieces = [(r.cell, r.value) for r in _succeeded(results) if r.value is not None]
        if not pieces:
            names = [*(self.position or ()), *filter(None, [self.cell_column])]
            return [] if self.position is None else Table(names=names)
        kind = kind_of(value for _, value in pieces)
        first = kind.names(pieces[0][1])
        for cell, value in pieces:
            names = kind.names(value)
            if kind.name == "mapping" and names != first:
                raise ValueError(f"cell {cell.index} has columns {names}, the first {first}")
            if kind.has_columns and self.cell_column in names:
                raise ValueError(
                    f"cell {cell.index}: the mapper's own column {self.cell_column!r} is in the "
                    "way of the cell's index; choose Concatenate(cell_column=...)"
                )
        if self.position is not None:
            pieces = self._owned(kind, pieces, self.position)
        tables = [
            value if self.cell_column is None else kind.labeled(value, self.cell_column, cell.index)
            for cell, value in pieces
        ]
        return kind.joined(tables)

    def _owned(
        self, kind: Kind, pieces: Sequence[tuple[Cell, Any]], position: tuple[str, str]
    ) -> list[tuple[Cell, Any]]:
        """Return the tables without the rows that another cell has, too, and owns."""
        for cell, value in pieces:
            if missing := [name for name in position if name not in kind.names(value)]:
                raise ValueError(f"cell {cell.index} has no column {missing[0]} of positions")
        xs, ys = ([kind.column(value, name) for _, value in pieces] for name in position)
        place = np.repeat(np.arange(len(pieces)), [len(x) for x in xs])
        points = np.column_stack([np.concatenate(xs), np.concatenate(ys)])
        if (lost := ~np.isfinite(points).all(axis=1)).any():
            cell = pieces[place[lost][0]][0]
            raise ValueError(
                f"{lost.sum()} rows, the first of cell {cell.index}, have no position "
                f"({' or '.join(position)} is not finite); leave them out"
            )
        stays = owned([cell.core for cell, _ in pieces], place, points)
        return [
            (cell, kind.chosen(value, stays[place == i])) for i, (cell, value) in enumerate(pieces)
        ]


def _psf_and_box(value: Any) -> tuple[Any, Box]:
    if isinstance(value, Exposure):
        return value.psf, value.bbox
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], Box):
        return value
    raise TypeError(
        "reducer 'coadd_psf' takes an Exposure or a (psf, box) pair from the mapper, "
        f"which returned {type(value).__name__}"
    )


def _succeeded(results: list[CellResult]) -> list[CellResult]:
    return [result for result in results if not isinstance(result.value, CellFailure)]

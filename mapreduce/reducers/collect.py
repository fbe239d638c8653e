"""The reducers that collect results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table, vstack

from ..exposure.box import Box
from ..exposure.cell_psf import CellPsf, PsfComponent
from ..exposure.exposure import Exposure
from ..exposure.wcs import same_wcs
from ..report import CellFailure
from .base import CellResult, Collector

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

    The mapper returns astropy Tables, NumPy arrays, lists, mappings from column name to array, or
    pandas DataFrames, the same kind for every cell; None is an empty one. A column ``cell`` with
    the cell's index is added to tables, mappings and DataFrames.

    Parameters
    ----------
    cell_column : str or None, optional
        Name of that column; None for no such column.
    """

    cell_column: str | None = "cell"
    name: ClassVar[str] = "concatenate"

    def collect(self, results: list[CellResult]) -> Any:
        """Return the concatenation; an empty list where there was nothing."""
        pieces = [(r.cell.index, r.value) for r in _succeeded(results) if r.value is not None]
        if not pieces:
            return []
        kinds = {type(value).__name__ for _, value in pieces}
        if len(kinds) > 1:
            raise TypeError(f"cannot concatenate results of different types: {sorted(kinds)}")
        first = pieces[0][1]
        if isinstance(first, np.ndarray):
            return np.concatenate([value for _, value in pieces])
        if isinstance(first, list):
            return [row for _, value in pieces for row in value]
        if isinstance(first, Mapping):
            return self._mappings(pieces)
        if isinstance(first, Table):
            tables = [self._labeled(value.copy(), index) for index, value in pieces]
            return vstack(tables, metadata_conflicts="silent")
        if type(first).__name__ == "DataFrame":
            import pandas as pd

            frames = [self._labeled(value.copy(), index) for index, value in pieces]
            return pd.concat(frames, ignore_index=True)
        raise TypeError(
            f"cannot concatenate {type(first).__name__}; the mapper must return tables, arrays, "
            "lists or mappings of columns"
        )

    def _labeled(self, table: Any, index: int) -> Any:
        if self.cell_column is not None:
            self._check_free(table.columns, index)
            table[self.cell_column] = np.full(len(table), index)
        return table

    def _check_free(self, columns: Any, index: int) -> None:
        if self.cell_column in columns:
            raise ValueError(
                f"cell {index}: the mapper's own column {self.cell_column!r} is in the way of the "
                "cell's index; choose Concatenate(cell_column=...)"
            )

    def _mappings(self, pieces: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, np.ndarray]:
        columns = list(pieces[0][1])
        for index, value in pieces:
            if list(value) != columns:
                raise ValueError(f"cell {index} has columns {list(value)}, the first {columns}")
        joined = {c: np.concatenate([np.atleast_1d(v[c]) for _, v in pieces]) for c in columns}
        if self.cell_column is not None and columns:
            self._check_free(columns, pieces[0][0])
            lengths = [len(np.atleast_1d(v[columns[0]])) for _, v in pieces]
            joined[self.cell_column] = np.repeat([index for index, _ in pieces], lengths)
        return joined


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

"""What happened in a run: cells, failures, timings, memory."""

from __future__ import annotations

import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from astropy.io.misc.yaml import AstropyDumper

from .exposure.box import Box
from .grid.grid import Cell
from .html import facts_table

__all__ = ["INPUT_PSF", "CellFailure", "CellRecords", "Report", "warn_of_failures"]

_MEBIBYTE = 2**20
_LISTED = 10  # errors, and cells of each
_LONGEST = 500  # letters of an error

INPUT_PSF = object()  # in place of the input's PSF

#: Runs whose lazy results are alive in this process, by token; a report finds its run here again
#: after a journey from a worker, so that a failed cell can be replayed.
runs: weakref.WeakValueDictionary[str, Callable[[int], Any]] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class CellFailure:
    """A cell whose mapper failed.

    Attributes
    ----------
    index : int
        The cell's index.
    core, expanded : Box
        The cell's boxes.
    error : str
        Type and message of the exception.
    traceback : str
        Where it happened.
    """

    index: int
    core: Box
    expanded: Box
    error: str
    traceback: str = field(repr=False, compare=False)

    @classmethod
    def of(cls, cell: Cell, error: Exception) -> CellFailure:
        """Make the record of an exception."""
        text = "".join(traceback.format_exception_only(error)).strip()
        trace = "".join(traceback.format_exception(error))
        return cls(cell.index, cell.core, cell.expanded, text, trace)

    def __str__(self) -> str:
        return f"cell {self.index}, core {self.core}: {self.error}"


class CellRecords:
    """What is known of some cells after the run, in arrays: there may be very many.

    Parameters
    ----------
    table : (n,) array
        The cells, rows of `Grid.table`.

    Attributes
    ----------
    index : (n,) int64 array
    seconds : list of n float
        Time in the mapper; added to cell by cell.
    boxes : (n,) array of boxes
        Where the results lie: on the cores, if nothing else is set; without area where there is
        none.
    psfs : dict of int to object
        By place, the results' PSFs that are not the input's.
    failures : list of CellFailure
    """

    __slots__ = ("boxes", "failures", "index", "psfs", "seconds")

    def __init__(self, table: np.ndarray) -> None:
        self.index = table["index"]
        self.boxes = table["core"].copy()
        self.seconds: list[float] = []
        self.psfs: dict[int, Any] = {}
        self.failures: list[CellFailure] = []

    def add(self, cell: Cell, seconds: float, box: Box, psf: Any = INPUT_PSF) -> None:
        """Record the next cell's result."""
        if box is not cell.core:
            self.boxes[len(self.seconds)] = box
        if psf is not INPUT_PSF:
            self.psfs[len(self.seconds)] = psf
        self.seconds.append(seconds)

    def add_failure(self, failure: CellFailure, seconds: float) -> None:
        """Record that the next cell failed."""
        self.boxes[len(self.seconds)] = 0
        self.failures.append(failure)
        self.seconds.append(seconds)

    def components(self, input_psf: Any) -> Iterator[tuple[int, Box, Any]]:
        """Yield index, box and PSF of the results that have one."""
        if input_psf is None and not self.psfs:
            return
        for place, (index, box) in enumerate(
            zip(self.index.tolist(), self.boxes.tolist(), strict=True)
        ):
            psf = self.psfs.get(place, input_psf)
            box = Box(*box)
            if psf is not None and box.area:
                yield index, box, psf


@dataclass(frozen=True, repr=False)
class Report:
    """What happened in a run.

    Attributes
    ----------
    n_cells : int
        Number of cells.
    failures : tuple of CellFailure
        The cells that failed, in the order of their indices.
    seconds : (n_cells,) float64 array
        Time that each cell's mapper took.
    n_tiles : int
        Number of tiles.
    predicted_bytes : int
        Memory that one task was expected to hold: its tile of the output and the blocks it reads.
    peak_bytes : int
        Highest resident memory of any one process that worked on it, everything in it included.
    token : str
        Name of the run.
    """

    n_cells: int
    failures: tuple[CellFailure, ...]
    seconds: np.ndarray = field(repr=False, compare=False)
    n_tiles: int
    predicted_bytes: int
    peak_bytes: int = field(compare=False)
    token: str = field(repr=False, compare=False)
    _run: Callable[[int], Any] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        records: Sequence[CellRecords],
        *,
        token: str,
        n_tiles: int,
        predicted_bytes: int,
        peak_bytes: int,
    ) -> Report:
        """Make the report of a run's records, which may come in any order."""
        indices = [np.empty(0, np.int64), *(part.index for part in records)]
        order = np.argsort(np.concatenate(indices), kind="stable")
        seconds = np.array([time for part in records for time in part.seconds], float)
        failures = sorted((f for part in records for f in part.failures), key=lambda f: f.index)
        return cls(
            n_cells=len(order),
            failures=tuple(failures),
            seconds=seconds[order],
            n_tiles=n_tiles,
            predicted_bytes=predicted_bytes,
            peak_bytes=peak_bytes,
            token=token,
            _run=runs.get(token) if failures else None,
        )

    # Only a report of failures holds on to its run, and so to the input.
    def __reduce__(self) -> tuple[Callable[..., Report], tuple[Any, ...]]:
        values = (self.n_cells, self.failures, self.seconds, self.n_tiles)
        return _found, (*values, self.predicted_bytes, self.peak_bytes, self.token)

    def replay(self, index: int) -> Any:
        """Run the mapper on one cell again, here and now, for a debugger to step into.

        Parameters
        ----------
        index : int
            The cell's index.

        Returns
        -------
        object
            What the mapper returns, if it does not fail this time.

        Raises
        ------
        IndexError
            If there is no such cell.
        RuntimeError
            If no cell failed, or the run was not started in this process.
        """
        if self._run is None:
            raise RuntimeError(
                "a cell can be replayed where some cell failed, in the process that started the run"
            )
        return self._run(index)

    def __str__(self) -> str:
        lines = [f"{key}: {value}" for key, value in self._facts().items()]
        lines += [f"failed: {cells}: {error}" for cells, error in self._failed()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Report of {self.n_cells} cells in {self.n_tiles} tiles{failed}>"

    def _failed(self) -> Iterator[tuple[str, str]]:
        """Yield the cells that failed and their errors: a line for each error, and few of them."""
        cells: dict[str, list[CellFailure]] = {}
        for failure in self.failures:
            cells.setdefault(failure.error, []).append(failure)
        for error, alike in islice(cells.items(), _LISTED):
            where = f"cell {alike[0].index}, core {alike[0].core}"
            if len(alike) > 1:
                numbers = ", ".join(str(failure.index) for failure in alike[:_LISTED])
                more = f" and {len(alike) - _LISTED} more" if len(alike) > _LISTED else ""
                where = f"cells {numbers}{more}"
            yield where, error if len(error) <= _LONGEST else f"{error[:_LONGEST]} ..."
        rest = [len(alike) for alike in islice(cells.values(), _LISTED, None)]
        if rest:
            yield f"{sum(rest)} cells more", f"{len(rest)} other errors"

    def _facts(self) -> dict[str, str]:
        busy = float(self.seconds.sum())
        median = 1000 * float(np.median(self.seconds)) if self.n_cells else 0.0
        slowest = 1000 * float(self.seconds.max(initial=0.0))
        return {
            "cells": f"{self.n_cells} in {self.n_tiles} tiles, {len(self.failures)} failed",
            "mapper": f"{busy:.3g} s in all, {median:.3g} ms a cell (median), "
            f"{slowest:.3g} ms the slowest",
            "memory": f"{self.predicted_bytes / _MEBIBYTE:.0f} MiB a task predicted, "
            f"{self.peak_bytes / _MEBIBYTE:.0f} MiB peak of a process",
        }

    def _repr_html_(self) -> str:
        return facts_table("Report", [*self._facts().items(), *self._failed()])


def _as_text(dumper: Any, report: Report) -> Any:
    return dumper.represent_str(str(report))


# So that a table whose header holds a report can be written as ECSV or Parquet.
AstropyDumper.add_representer(Report, _as_text)


def warn_of_failures(report: Report | None) -> None:
    """Warn that cells failed, whose part of the result is missing."""
    if report is not None and report.failures:
        warnings.warn(
            f"{len(report.failures)} of {report.n_cells} cells failed and have no part in the "
            f"result: see its report. The first is {report.failures[0]}",
            stacklevel=2,
        )


def _found(*values: Any) -> Report:
    """Rebuild a report, with its run if that was started in this process."""
    failures, token = values[1], values[-1]
    return Report(*(*values, runs.get(token) if failures else None))

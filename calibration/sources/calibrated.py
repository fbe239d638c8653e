"""calibrate_sources(): nanojanskys and AB magnitudes for the sources of a survey, lazily.

One delayed task per partition, which loads the calibrations of those visits that its rows are of::

    photoCalibs --> calibrations
    calibrations, partition 1 --> table or file 1
    calibrations, partition 2 --> table or file 2
    ...
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, overload

from astropy.table import Table
from dask.base import tokenize
from dask.delayed import Delayed, delayed

from ..config import options
from ..fields.series import MARGIN, checked_margin
from ..photocalib.zeropoints import CalibrationWarning
from ..texts import plural
from .apply import calibrated_partition
from .calibrations import Calibrations, calibrations_of
from .columns import SourceColumns
from .partitions import (
    FilePartition,
    LaterPartition,
    Partition,
    TablePartition,
    identity_of,
    partitions_of,
    resolved,
)
from .report import SourcesReport, left_out_text
from .write import write_sources

__all__ = ["MARGIN", "CalibratedSources", "calibrate_sources"]


def calibrate_sources(
    sources: Any,
    photo_calibs: Any,
    *,
    visit: str | int = "visit",
    detector: str | int = "detector",
    x: str = "x",
    y: str = "y",
    fluxes: Any = "instFlux",
    keep: Iterable[str] | None = None,
    margin: float = MARGIN,
    rows: int | None = None,
) -> CalibratedSources:
    """Return the sources of a survey with fluxes in nJy and AB magnitudes, lazily.

    Sources whose visit or detector has no calibration, or that have no position, get NaN; they are
    counted, and never dropped. So do those that lie farther off their detector than ``margin``, as
    a calibration is not known there. Nearer ones get what the calibration's polynomial gives there:
    the centroids of sources at a detector's edge may lie beyond it.

    Parameters
    ----------
    sources : path, table, or several of them
        FITS and Parquet files: paths, directories with such files at any depth, or patterns like
        ``"sources/*/*.parquet"``; each file is a partition. Tables in memory, cut into
        partitions: astropy Tables, mappings of arrays, structured arrays, data frames. Or what dask
        has: a DataFrame, whose partitions are ours, or Delayeds of tables.
    photo_calibs : FgcmProducts, path or mapping of int to VisitPhotoCalib
        Products, those that `FgcmProducts.write` wrote to a directory, or calibrations by visit.
    visit, detector : str or int, optional
        Columns of whole numbers; or the number itself, if all sources are of one.
    x, y : str, optional
        Columns of positions on the detector, pixels.
    fluxes : str or mapping, optional
        The column of instrumental fluxes, whose errors are in a column of that name and ``Err``.
        Or several, by what the new columns' names are to begin with: ``{"psf": "psf_instFlux"}``
        makes ``psfFlux``, ``psfFluxErr`` (nJy), ``psfMag``, ``psfMagErr`` (AB mag). A pair names
        the errors' column, too; ``("psf_instFlux", None)`` has none. By default ``instFlux`` and
        ``instFluxErr`` make ``flux``, ``fluxErr``, ``mag`` and ``magErr``.
    keep : iterable of str, optional
        Columns of the sources that go into the result as they are; default all that hold numbers,
        truth values or texts.
    margin : float, optional
        Pixels.
    rows : int, optional
        Most rows of a partition. Files are then opened at once to be cut; else a file is one
        partition, and a table in memory is cut at about a million rows. A task holds about three
        times its partition.

    Returns
    -------
    CalibratedSources

    Raises
    ------
    FileNotFoundError
        If files are missing, or a directory holds no products.
    TypeError, ValueError
        If something is not what it should be, or the first partition lacks a column.

    Examples
    --------
    >>> from calibration import VisitPhotoCalib
    >>> box = (0, 0, 100, 100)
    >>> photo_calib = VisitPhotoCalib(42, [7], [box], [[[2.0]]], [2.0], [0.0])
    >>> table = {"visit": [42, 42], "detector": [7, 7], "x": [5.0, 9.0], "y": [5.0, 9.0]}
    >>> table |= {"instFlux": [500.0, 100.0], "instFluxErr": [5.0, 2.0]}
    >>> (calibrated,) = calibrate_sources(table, {42: photo_calib})
    >>> calibrated.compute()["flux", "fluxErr", "mag"].as_array().tolist()
    [(1000.0, 10.0, 23.9), (200.0, 4.0, 25.647425010840045)]
    """
    columns = SourceColumns.of(visit, detector, x, y, fluxes, keep)
    margin = checked_margin(margin)
    rows = options.optional(options.count(1))("rows", rows)
    calibrations = calibrations_of(photo_calibs)
    partitions = partitions_of(sources, columns.schema, rows)
    if not isinstance(partitions[0], LaterPartition):
        columns.bind(partitions[0].open(columns.schema))
    return CalibratedSources(calibrations, partitions, columns, margin)


class CalibratedSources(Sequence[Delayed]):
    """Calibrated sources, a Delayed table for each partition; see `calibrate_sources`.

    Tables have the columns that are kept and the new ones, a row for each source in its order.
    Computing one warns if it has sources that are not calibrated, or columns that cannot be kept.

    Attributes
    ----------
    names : list of str
        Of the partitions: those of files, and ``part-00000`` and so on of others.
    """

    def __init__(
        self,
        calibrations: Delayed,
        partitions: list[Partition],
        columns: SourceColumns,
        margin: float,
    ) -> None:
        self.calibrations = calibrations
        self.partitions = partitions
        self.columns = columns
        self.margin = margin

    @property
    def names(self) -> list[str]:
        """Names of the partitions."""
        return [partition.name for partition in self.partitions]

    def __len__(self) -> int:
        return len(self.partitions)

    @overload
    def __getitem__(self, index: int) -> Delayed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Delayed]: ...
    def __getitem__(self, index: int | slice) -> Delayed | list[Delayed]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        partition = self.partitions[index]
        token = tokenize(self.calibrations.key, identity_of(partition), self.columns, self.margin)
        return delayed(calibrated_table, pure=False)(
            self.calibrations,
            resolved(partition),
            self.columns,
            self.margin,
            dask_key_name=f"calibrated-sources-{token}",
        )

    def __repr__(self) -> str:
        partitions, made = plural(len(self), "partition"), ", ".join(self.columns.made)
        return f"<CalibratedSources of {partitions}: {made}>"

    def write(
        self,
        directory: str | os.PathLike[str],
        *,
        format: str = "parquet",
        overwrite: bool = False,
        progress: Callable[[int], Any] | None = None,
    ) -> SourcesReport:
        """Compute all partitions and write each to a file of its name.

        On the scheduler that dask is set to. A file gets its name when all of it is written. What
        is there and complete is kept: made of the same sources, columns and calibrations, which
        those visits still lack that lacked one. So a run that was broken off can be taken up again.
        A partition that cannot be calibrated harms no other; the report says why.

        Parameters
        ----------
        directory : path
            New, empty, or one of sources that were calibrated with the same columns and
            photoCalibs.
        format : {"parquet", "fits"}, optional
        overwrite : bool, optional
            Whether sources in the directory that were calibrated otherwise may be replaced: all
            of them are removed.
        progress : function of an int, optional
            Called now and then with the number of partitions that were done since.

        Raises
        ------
        FileExistsError
            If the directory holds something else.
        ImportError
            If files are to be Parquet and pyarrow is not installed.
        OSError
            If a file cannot be written; those that are complete stay.
        ValueError
            If the format is not known, or a file of the sources is in the directory.
        """
        parts = self.calibrations, self.partitions, self.columns, self.margin
        return write_sources(*parts, directory, format, overwrite, progress)


def calibrated_table(
    calibrations: Calibrations,
    partition: FilePartition | TablePartition,
    columns: SourceColumns,
    margin: float,
) -> Table:
    """Return the table of a partition; what is to be said of its sources is a warning."""
    table, tally, left_out = calibrated_partition(calibrations, partition, columns, margin)
    said = [*tally.reasons(), *([left_out_text(left_out)] if left_out else [])]
    if said:
        warnings.warn(f"{partition.name}: {'; '.join(said)}", CalibrationWarning, stacklevel=2)
    return table

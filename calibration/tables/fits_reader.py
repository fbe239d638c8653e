"""Binary tables of FITS files, of which only the rows that are asked for are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from mapreduce.io.hdu import Hdu, open_unchanged, scan

from .fields import Field
from .fits_columns import FitsColumn, fits_columns
from .reader import BLOCK, Rows, file_fingerprint, groups, numbered

__all__ = ["WIDE", "FitsTable", "fits_tables"]

WIDE = 2**16  # bytes: of rows above this only the columns are read
_LAYOUT = frozenset(
    "XTENSION BITPIX NAXIS PCOUNT GCOUNT TFIELDS CHECKSUM DATASUM TTYPE TFORM TUNIT TDIM TNULL "
    "TSCAL TZERO TDISP TCOMM COMMENT HISTORY".split()
) | {""}


class FitsTable:
    """Reads a binary table of a FITS file.

    Rows are read, not mapped: what has been read leaves the process's memory with the arrays. Of a
    file compressed as a whole (``.fits.gz``), everything up to the rows is decompressed each time.

    Parameters
    ----------
    hdu : mapreduce.io.hdu.Hdu
        Where the table is.

    Raises
    ------
    OSError
        If the file is gone, was changed since it was scanned, ends early, or its columns do not add
        up to the length of a row; also on reading.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> with TemporaryDirectory() as folder:
    ...     Table({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}).write(f"{folder}/a.fits")
    ...     table = fits_tables(f"{folder}/a.fits")[0]
    ...     table.read(["b"], np.array([2, 0]))
    {'b': array([2.5, 0.5])}
    """

    def __init__(self, hdu: Hdu) -> None:
        self.hdu = hdu
        hdu.check()
        header = hdu.header()
        self._width, self._length = header["NAXIS1"], header["NAXIS2"]
        self.meta = _cards(header)
        self._columns = fits_columns(header, hdu.where)
        self.columns: dict[str, Field] = {n: c.field for n, c in self._columns.items()}

    @property
    def where(self) -> str:
        """How messages name it: the file's name."""
        return Path(self.hdu.path).name

    @property
    def path(self) -> str:
        """The file."""
        return self.hdu.path

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"FitsTable({self.hdu.where!r}, {len(self)} rows)"

    def read(self, names: Sequence[str], rows: Rows = None) -> dict[str, np.ndarray]:
        """Return columns, native byte order, (n, ...) each, masked where values are missing."""
        with open_unchanged(self.hdu) as file:
            return self._read(file, names, rows)

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns of all rows, some at a time."""
        step = max(1, BLOCK // self._width)
        with open_unchanged(self.hdu) as file:
            for start in range(0, len(self), step):
                yield self._read(file, names, slice(start, min(start + step, len(self))))

    def fingerprint(self) -> str:
        """Return the SHA-256 checksum of the file."""
        return file_fingerprint(self.path, self.hdu.stamp)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "FitsTable", self.hdu.path, self.hdu.stamp, self.hdu.index

    def _read(
        self, file: BufferedIOBase, names: Sequence[str], rows: Rows
    ) -> dict[str, np.ndarray]:
        numbers, order = numbered(rows, len(self))
        columns = {name: self._columns[name] for name in names}
        out = {
            name: np.empty((len(numbers), *column.dtype.shape), column.dtype.base.newbyteorder("="))
            for name, column in columns.items()
        }
        for start, stop, target, pick in groups(numbers, order, self._width):
            records = self._records(file, columns, start, stop)
            for name, values in out.items():
                values[target] = records[name] if pick is None else records[name][pick]
        return {name: columns[name].meant(values) for name, values in out.items()}

    def _records(
        self, file: BufferedIOBase, columns: Mapping[str, FitsColumn], start: int, stop: int
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Read rows; of wide ones, such as those of the look-up table, the columns alone."""
        width = self._width
        if width <= WIDE:
            data = self._bytes(file, start * width, (stop - start) * width)
            dtype = np.dtype(
                {
                    "names": [*columns],
                    "formats": [column.dtype for column in columns.values()],
                    "offsets": [column.offset for column in columns.values()],
                    "itemsize": width,
                }
            )
            return np.frombuffer(data, dtype)
        return {
            name: np.array([self._value(file, row, column) for row in range(start, stop)])
            for name, column in columns.items()
        }

    def _value(self, file: BufferedIOBase, row: int, column: FitsColumn) -> np.ndarray:
        data = self._bytes(file, row * self._width + column.offset, column.dtype.itemsize)
        return np.frombuffer(data, column.dtype)[0]

    def _bytes(self, file: BufferedIOBase, start: int, size: int) -> bytes:
        file.seek(self.hdu.data + start)
        data = file.read(size)
        if len(data) != size:
            raise OSError(f"{self.hdu.where}: the file ends within byte {start + size} of the rows")
        return data


def fits_tables(path: str | os.PathLike[str]) -> list[FitsTable]:
    """Return the binary tables of a FITS file.

    Raises
    ------
    OSError
        If the file is missing, not FITS, or shorter than its headers say.
    ValueError
        If there is no binary table.
    """
    hdus = [hdu for hdu in scan(path) if hdu.facts.get("XTENSION") == "BINTABLE"]
    tables = [FitsTable(hdu) for hdu in hdus if not hdu.compressed]
    if not tables:
        raise ValueError(f"{path} holds no binary table")
    return tables


def _cards(header: fits.Header) -> dict[str, Any]:
    """Return the cards that are not about the table's layout; lists of those that are repeated."""
    meta: dict[str, Any] = {}
    for key, value, _ in header.cards:
        if key.rstrip("0123456789") not in _LAYOUT:
            if key in meta:
                value = [*(meta[key] if isinstance(meta[key], list) else [meta[key]]), value]
            meta[key] = value
    return meta

"""Binary tables of FITS files, of which only the rows that are asked for are read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.io import fits

from mapreduce.io.hdu import Hdu, open_hdu, open_unchanged, scan

from .fields import Field, masked
from .memory import decoded
from .reader import BLOCK, Rows, file_fingerprint, groups, numbered

__all__ = ["WIDE", "FitsTable", "fits_tables"]

WIDE = 2**16  # bytes: of rows above this only the columns are read
_UNREAD = frozenset("PQXCM")  # formats: variable length, bits, complex
_LAYOUT = frozenset(
    "XTENSION BITPIX NAXIS PCOUNT GCOUNT TFIELDS CHECKSUM DATASUM TTYPE TFORM TUNIT TDIM TNULL "
    "TSCAL TZERO TDISP TCOMM COMMENT HISTORY".split()
) | {""}


class _Place(NamedTuple):
    """Where a column is in a row, what is added to its whole numbers, and which one is none."""

    dtype: np.dtype
    offset: int
    zero: int
    null: int | None


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
        If the file is gone, was changed since it was scanned, or ends early; also on reading.
    ValueError
        If the columns do not add up to the length of a row.

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
        with open_hdu(hdu) as table:
            columns, header = table.columns, table.header
            dtype = columns.dtype.newbyteorder(">")
            self._width, self._length = header["NAXIS1"], header["NAXIS2"]
            self.meta = _cards(header)
            self._places = {c.name: _place(c, dtype) for c in columns}
            texts = [header.get(f"TCOMM{i}", "") for i in range(1, len(columns) + 1)]
            self.columns = {
                c.name: _field(c, dtype[c.name], text)
                for c, text in zip(columns, texts, strict=True)
            }
        if dtype.itemsize != self._width:
            raise ValueError(
                f"{hdu.where}: the columns take {dtype.itemsize} bytes of rows of {self._width}"
            )

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
        places = {name: self._places[name] for name in names}
        out = {
            name: np.empty((len(numbers), *place.dtype.shape), place.dtype.base.newbyteorder("="))
            for name, place in places.items()
        }
        for start, stop, target, pick in groups(numbers, order, self._width):
            records = self._records(file, places, start, stop)
            for name, values in out.items():
                values[target] = records[name] if pick is None else records[name][pick]
        return {name: self._meant(name, values) for name, values in out.items()}

    def _records(
        self, file: BufferedIOBase, places: Mapping[str, _Place], start: int, stop: int
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Read rows; of wide ones, such as those of the look-up table, the columns alone."""
        width = self._width
        if width <= WIDE:
            data = self._bytes(file, start * width, (stop - start) * width)
            dtype = np.dtype(
                {
                    "names": [*places],
                    "formats": [place.dtype for place in places.values()],
                    "offsets": [place.offset for place in places.values()],
                    "itemsize": width,
                }
            )
            return np.frombuffer(data, dtype)
        return {
            name: np.array(
                [
                    np.frombuffer(self._bytes(file, row * width + offset, dtype.itemsize), dtype)[0]
                    for row in range(start, stop)
                ]
            )
            for name, (dtype, offset, *_) in places.items()
        }

    def _bytes(self, file: BufferedIOBase, start: int, size: int) -> bytes:
        file.seek(self.hdu.data + start)
        data = file.read(size)
        if len(data) != size:
            raise OSError(f"{self.hdu.where}: the file ends within byte {start + size} of the rows")
        return data

    def _meant(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return what the values in the file stand for."""
        dtype, place = self.columns[name].dtype, self._places[name]
        if dtype.kind == "b":
            return masked(values == ord("T"), values == 0)
        if dtype.kind == "U":
            return decoded(values)
        missing = None if place.null is None else values == place.null
        if place.zero and values.dtype.itemsize == dtype.itemsize and values.dtype != dtype:
            # Of as many bytes with and without a sign: the zero is the highest bit.
            high = np.array(1 << (8 * dtype.itemsize - 1), f"u{dtype.itemsize}").view(dtype)
            values = values.view(dtype) ^ high
        elif place.zero:
            values = values.astype(dtype) + place.zero
        return masked(values, missing)


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


def _place(column: fits.Column, dtype: np.dtype) -> _Place:
    kind, offset = (dtype.fields or {})[column.name][:2]
    whole = kind.base.kind in "iu" and "L" not in str(column.format)
    null = column.null if whole and isinstance(column.null, int) else None
    return _Place(kind, offset, int(column.bzero or 0) if whole else 0, null)


def _field(column: fits.Column, dtype: np.dtype, description: str) -> Field:
    base, zero, null = dtype.base.newbyteorder("="), column.bzero or 0, column.null
    whole = base.kind in "iu" and float(zero).is_integer()
    scaled = column.bscale not in (None, "", 1) or (zero and not whole)
    if "L" in str(column.format):
        base = np.dtype(bool)
    elif base.kind == "S":
        base = np.dtype(f"U{base.itemsize}")
    elif zero == 2 ** (8 * base.itemsize - 1) and base.kind == "i":
        base = np.dtype(f"u{base.itemsize}")
    elif zero == -128 and base == np.uint8:
        base = np.dtype(np.int8)
    elif zero and base.kind in "iu":
        base = np.dtype(np.int64)
    unread = scaled or not _UNREAD.isdisjoint(str(column.format))
    fault = f"is of a format that is not read, {column.format}" if unread else ""
    nullable = base.kind == "b" or (base.kind in "iu" and isinstance(null, int))
    fault += ", scaled" if scaled else ""
    return Field(base, dtype.shape, column.unit or "", str(description), nullable, fault)


def _cards(header: fits.Header) -> dict[str, Any]:
    """Return the cards that are not about the table's layout; lists of those that are repeated."""
    meta: dict[str, Any] = {}
    for key, value, _ in header.cards:
        if key.rstrip("0123456789") not in _LAYOUT:
            if key in meta:
                value = [*(meta[key] if isinstance(meta[key], list) else [meta[key]]), value]
            meta[key] = value
    return meta

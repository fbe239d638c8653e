"""FITS tables, written a block of rows at a time, with checksums of all that they say."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits

from .fits_checksum import summed, word_sum

__all__ = ["FitsRows", "write_fits_rows"]

_BLOCK = 2880  # bytes, of which FITS files are made
_WORD = 4  # bytes that a checksum adds at once

Columns = Mapping[str, tuple[str, str]]
"""Unit, as FITS spells it, and description of each column, empty for none; in order."""


class FitsRows:
    """Writes a FITS file with one binary table, of which no more than a block is held in memory.

    The same rows give the same bytes, however they are cut into blocks. Leaving the ``with`` block
    completes the file. The cards that describe the columns, for which astropy takes some
    milliseconds, are made once for all tables of the same columns.

    Parameters
    ----------
    path : path
        Replaced if it exists.
    columns : mapping of str to (str, str)
        Unit, as FITS spells it, and description of each column, empty for none; in the order of
        the file.
    meta : mapping, optional
        Cards of the table's header.
    name : str, optional
        Of the extension.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> columns = {"visit": ("", "visit number"), "pwv": ("mm", "water")}
    >>> with TemporaryDirectory() as folder:
    ...     with FitsRows(f"{folder}/a.fits", columns) as file:
    ...         for visit in (7, 8):
    ...             file.write({"visit": np.array([visit]), "pwv": np.array([2.5])})
    ...     table = Table.read(f"{folder}/a.fits")
    >>> table["visit"].tolist(), table["pwv"].unit
    ([7, 8], Unit("mm"))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: Columns,
        meta: Mapping[str, Any] | None = None,
        name: str = "PRODUCT",
    ) -> None:
        self._path, self._name = path, name
        self._columns, self._meta = columns, {} if meta is None else meta
        self._file: BinaryIO | None = None
        self._dtype: np.dtype | None = None
        self._header: fits.Header | None = None
        self._rows = self._start = self._sum = 0
        self._rest = b""  # less than a word

    def __enter__(self) -> FitsRows:
        self._file = open(self._path, "wb")
        return self

    def write(self, rows: Mapping[str, np.ndarray] | np.ndarray) -> None:
        """Write a block: an (n, ...) array for each column, of the same types in every block.

        Raises
        ------
        KeyError
            If a column is missing.
        ValueError
            If columns differ in length, or from those of the first block in shape.
        """
        values = {name: np.asarray(rows[name]) for name in self._columns}
        if self._dtype is None:
            self._begin(values)
        records = np.empty(len(next(iter(values.values()))), self._dtype)
        for name, column in values.items():
            if len(column) != len(records):
                raise ValueError(f"column {name} has {len(column)} rows, others {len(records)}")
            if column.dtype.kind == "b":  # FITS writes T and F
                column = np.where(column, ord("T"), ord("F"))
            records[name] = column
        self._append(records.tobytes())
        self._rows += len(records)

    def _begin(self, values: Mapping[str, np.ndarray]) -> None:
        kinds = tuple((n, v.dtype.newbyteorder("=").str, v.shape[1:]) for n, v in values.items())
        kinds = tuple((n, kind.replace("<U", "|S"), shape) for n, kind, shape in kinds)
        self._header = _layout(self._name, kinds, tuple(self._columns.values())).copy()
        self._header.update({key.upper(): value for key, value in self._meta.items()})
        stored = [(n, "u1" if kind == "|b1" else kind, shape) for n, kind, shape in kinds]
        self._dtype = np.dtype(stored).newbyteorder(">")
        self._file.write(_primary())
        self._start = self._file.tell()
        self._file.write(summed(self._header))

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        data = self._rest + data if self._rest else data
        words = len(data) - len(data) % _WORD
        self._sum = word_sum(memoryview(data)[:words], self._sum)
        self._rest = data[words:]

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None and self._header is not None:
                self._append(bytes(-self._file.tell() % _BLOCK))
                self._header["NAXIS2"] = self._rows
                self._file.seek(self._start)
                self._file.write(summed(self._header, self._sum))
        finally:
            self._file.close()


def write_fits_rows(
    path: str | os.PathLike[str],
    columns: Columns,
    rows: Mapping[str, np.ndarray],
    meta: Mapping[str, Any] | None = None,
    name: str = "PRODUCT",
) -> None:
    """Write a FITS table at once; see `FitsRows`."""
    with FitsRows(path, columns, meta, name) as file:
        file.write(rows)


@lru_cache(maxsize=64)
def _layout(
    name: str, kinds: tuple[tuple[str, str, tuple], ...], said: Iterable[tuple[str, str]]
) -> fits.Header:
    """Return the header of a table of no rows; not to be changed."""
    header = fits.BinTableHDU(np.empty(0, np.dtype([*kinds])), name=name).header
    for number, (unit, description) in enumerate(said, start=1):
        for card, text in (("TCOMM", description), ("TUNIT", unit)):
            if text:
                header.set(f"{card}{number}", text, after=f"TFORM{number}")
    return header


@lru_cache(maxsize=1)
def _primary() -> bytes:
    return summed(fits.PrimaryHDU().header)

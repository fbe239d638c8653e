"""FITS tables that are written a block of rows at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits

__all__ = ["TableWriter", "write_table"]

_BLOCK = 2880  # bytes, of which FITS files are made


class TableWriter:
    """Writes a FITS file with one binary table, of which no more than a block is held in memory.

    The same rows give the same bytes. Leaving the ``with`` block completes the file.

    Parameters
    ----------
    path : path
        Replaced if it exists.
    name : str
        Of the extension.
    columns : mapping of str to (str, str)
        Unit, as FITS spells it, and description of each column, empty for none; in the order of
        the file.
    meta : mapping, optional
        Cards of the table's header.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> columns = {"visit": ("", "visit number"), "pwv": ("mm", "water")}
    >>> with TemporaryDirectory() as folder:
    ...     with TableWriter(f"{folder}/a.fits", "WEATHER", columns) as writer:
    ...         for visit in (7, 8):
    ...             writer.write({"visit": np.array([visit]), "pwv": np.array([2.5])})
    ...     table = Table.read(f"{folder}/a.fits")
    >>> table["visit"].tolist(), table["pwv"].unit
    ([7, 8], Unit("mm"))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str,
        columns: Mapping[str, tuple[str, str]],
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self._path, self._name = path, name
        self._columns, self._meta = columns, {} if meta is None else meta
        self._file: BinaryIO | None = None
        self._dtype: np.dtype | None = None
        self._header: fits.Header | None = None
        self._rows = self._start = 0

    def __enter__(self) -> TableWriter:
        self._file = open(self._path, "wb")
        return self

    def write(self, rows: Mapping[str, np.ndarray]) -> None:
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
        self._file.write(records.tobytes())
        self._rows += len(records)

    def _begin(self, values: Mapping[str, np.ndarray]) -> None:
        empty = np.empty(0, [(n, v.dtype, v.shape[1:]) for n, v in values.items()])
        hdu = fits.BinTableHDU(empty, name=self._name)
        for i, (unit, description) in enumerate(self._columns.values(), start=1):
            for card, text in (("TCOMM", description), ("TUNIT", unit)):
                if text:
                    hdu.header.set(f"{card}{i}", text, after=f"TFORM{i}")
        hdu.header.update(self._meta)
        self._header = hdu.header
        kinds = {n: v.dtype.newbyteorder(">") for n, v in values.items()}
        kinds |= {n: np.dtype("u1") for n, kind in kinds.items() if kind.kind == "b"}
        self._dtype = np.dtype([(n, kinds[n], v.shape[1:]) for n, v in values.items()])
        self._file.write(fits.PrimaryHDU().header.tostring().encode("ascii"))
        self._start = self._file.tell()
        self._file.write(self._header.tostring().encode("ascii"))

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None and self._header is not None:
                self._file.write(bytes(-self._file.tell() % _BLOCK))
                self._header["NAXIS2"] = self._rows
                self._file.seek(self._start)
                self._file.write(self._header.tostring().encode("ascii"))
        finally:
            self._file.close()


def write_table(
    path: str | os.PathLike[str],
    name: str,
    columns: Mapping[str, tuple[str, str]],
    rows: Mapping[str, np.ndarray],
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write a FITS table at once; see `TableWriter`."""
    with TableWriter(path, name, columns, meta) as writer:
        writer.write(rows)

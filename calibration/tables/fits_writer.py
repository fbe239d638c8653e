"""FITS tables, written a block of rows at a time, with checksums of all that they say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits

from mapreduce.io.hdu import BLOCK

from .fields import Field, checked, filled, unit_of
from .fits_checksum import summed, word_sum

__all__ = ["FitsWriter"]

_WORD = 4  # bytes that a checksum adds at once


class FitsWriter:
    """Writes a FITS file with one binary table, of which no more than a block is held in memory.

    The same rows give the same bytes, however they are cut into blocks. Leaving the ``with`` block
    completes the file. The cards that describe the columns, for which astropy takes some
    milliseconds, are made once for all tables of the same columns.

    Missing values are NaN, an empty text, a truth value that is neither, and of whole numbers,
    where a field is ``nullable``, the one that the card ``TNULL`` names: the lowest, or of unsigned
    ones the highest, that is none of the first block.

    Parameters
    ----------
    path : path
        Replaced if it exists.
    fields : mapping of str to Field
        The columns, in the order of the file. Texts, as UTF-8, are as wide as in the first block,
        or wider if the field says so.
    meta : mapping, optional
        Cards of the table's header.
    name : str, optional
        Of the extension.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> fields = {"visit": Field(np.dtype("i8")), "pwv": Field(np.dtype("f8"), unit="mm")}
    >>> with TemporaryDirectory() as folder:
    ...     with FitsWriter(f"{folder}/a.fits", fields) as file:
    ...         for visit in (7, 8):
    ...             file.write({"visit": np.array([visit]), "pwv": np.array([2.5])})
    ...     table = Table.read(f"{folder}/a.fits")
    >>> table["visit"].tolist(), table["pwv"].unit
    ([7, 8], Unit("mm"))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fields: Mapping[str, Field],
        meta: Mapping[str, Any] | None = None,
        name: str = "PRODUCT",
    ) -> None:
        self._path, self._name = path, name
        self._fields, self._meta = fields, {} if meta is None else meta
        self._columns: dict[str, _Column] = {}
        self._rows = self._start = self._sum = 0
        self._rest = b""  # less than a word

    def __enter__(self) -> FitsWriter:
        self._file: BinaryIO = open(self._path, "wb")
        return self

    def write(self, rows: Mapping[str, np.ndarray] | np.ndarray) -> None:
        """Write a block: an (n, ...) array for each column, in the dtype of its field.

        Raises
        ------
        KeyError
            If a column is missing.
        ValueError
            If columns differ in length, one is not of the shape of its field, a text is too long,
            or a number is the one that stands for a missing one.
        """
        values = {n: filled(checked(n, rows[n], field)) for n, field in self._fields.items()}
        if not self._columns:
            self._begin({name: column for name, (column, _) in values.items()})
        records = np.empty(len(next(iter(values.values()))[0]), self._dtype)
        for name, (column, mask) in values.items():
            if len(column) != len(records):
                raise ValueError(f"column {name} has {len(column)} rows, others {len(records)}")
            records[name] = self._columns[name].stored(column, mask)
        self._append(records.tobytes())
        self._rows += len(records)

    def _begin(self, first: Mapping[str, np.ndarray]) -> None:
        self._columns = {
            name: _Column.of(name, field, first.get(name)) for name, field in self._fields.items()
        }
        self._dtype = np.dtype([(n, c.dtype, c.field.shape) for n, c in self._columns.items()])
        self._header = _layout(self._name, tuple(self._columns.values())).copy()
        self._header.update({key.upper(): value for key, value in self._meta.items()})
        self._file.write(_primary())
        self._start = self._file.tell()
        self._file.write(summed(self._header))

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        data = self._rest + data if self._rest else data
        words = len(data) - len(data) % _WORD
        self._sum = word_sum(memoryview(data)[:words], self._sum)
        self._rest = data[words:]

    def __exit__(
        self, kind: type | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                if not self._columns:
                    self._begin({})
                self._append(bytes(-self._file.tell() % BLOCK))
                self._header["NAXIS2"] = self._rows
                self._file.seek(self._start)
                self._file.write(summed(self._header, self._sum))
        finally:
            self._file.close()


@dataclass(frozen=True)
class _Column:
    """How a column stands in the file.

    Attributes
    ----------
    name : str
    field : Field
    dtype : numpy.dtype
        Of what is written.
    zero : int
        What is added to the numbers in the file, as FITS has no unsigned ones but of one byte.
    null : int or None
        The number in the file that stands for a missing one.
    """

    name: str
    field: Field
    dtype: np.dtype
    zero: int = 0
    null: int | None = None

    @classmethod
    def of(cls, name: str, field: Field, first: np.ndarray | None) -> _Column:
        column = cls._plain(name, field, first)
        if not field.nullable or field.dtype.kind not in "iu":
            return column
        null = column._free(np.empty(0, field.dtype) if first is None else first)
        if null is None:  # all numbers are taken
            wide = np.dtype(f">i{2 * field.dtype.itemsize}")
            column = replace(column, dtype=wide, zero=0)
            null = int(np.iinfo(wide).min)
        return replace(column, null=null)

    def _free(self, values: np.ndarray) -> int | None:
        """Return the first number that is not among values, from one end; None if there is none."""
        raw, limits = self._raw(values), np.iinfo(self.dtype)
        numbers = range(limits.min, limits.max + 1)
        ordered = numbers if self.field.dtype.kind == "i" else numbers[::-1]
        if not (raw == ordered[0]).any():
            return ordered[0]
        taken = {*np.unique(raw).tolist()}
        return next((number for number in ordered if number not in taken), None)

    @classmethod
    def _plain(cls, name: str, field: Field, first: np.ndarray | None) -> _Column:
        kind, size = field.dtype.kind, field.dtype.itemsize
        if kind in "SU":
            width = max(_text(first).dtype.itemsize if first is not None else 0, _width(field), 1)
            return cls(name, field, np.dtype(f"S{width}"))
        if kind == "f":
            return cls(name, field, np.dtype(f">f{min(max(size, 4), 8)}"))
        if kind == "b" or (kind == "u" and size == 1):
            return cls(name, field, np.dtype("u1"))
        if kind == "u" and field.nullable and size < 8:  # astropy heeds TNULL of signed ones only
            return cls(name, field, np.dtype(f">i{2 * size}"))
        if kind in "iu":
            zero = 2 ** (8 * size - 1) if kind == "u" else 0
            return cls(name, field, np.dtype(f">i{max(size, 2)}"), zero)
        raise TypeError(f"column {name} is {field.dtype}; numbers, truth values and texts are kept")

    def stored(self, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        """Return what stands in the file."""
        kind = self.field.dtype.kind
        if kind in "SU":
            values = _text(values)
            if values.dtype.itemsize > self.dtype.itemsize:
                raise ValueError(
                    f"column {self.name} has a text of more than {self.dtype.itemsize} bytes"
                )
            return values
        if kind == "b":
            values = np.where(values, ord("T"), ord("F"))
            return values if mask is None else np.where(mask, 0, values)
        if kind == "f":
            return values
        return self._whole(values, mask)

    def _raw(self, values: np.ndarray) -> np.ndarray:
        """Return whole numbers as they stand in the file."""
        values, stored = np.asarray(values, self.field.dtype), self.dtype.newbyteorder("=")
        # The zero is the highest bit: to take it away and to flip it is the same.
        high = self.field.dtype.type(self.zero)
        return (values ^ high).view(stored) if self.zero else values.astype(stored, copy=False)

    def _whole(self, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
        raw = self._raw(values)
        if self.null is None:
            if mask is not None:
                raise ValueError(f"column {self.name} misses values, which its field does not say")
            return raw
        if (raw == self.null).any():
            number = self.null + self.zero
            raise ValueError(f"column {self.name} holds {number}, which stands for missing values")
        return raw if mask is None else np.where(mask, self.null, raw)


def _width(field: Field) -> int:
    return field.dtype.itemsize // (4 if field.dtype.kind == "U" else 1)


def _text(values: np.ndarray) -> np.ndarray:
    return np.strings.encode(values, "utf-8") if values.dtype.kind == "U" else values


@lru_cache(maxsize=64)
def _layout(name: str, columns: tuple[_Column, ...]) -> fits.Header:
    """Return the header of a table of no rows; not to be changed."""
    dtype = [
        (c.name, bool if c.field.dtype.kind == "b" else c.dtype, c.field.shape) for c in columns
    ]
    header = fits.BinTableHDU(np.empty(0, np.dtype(dtype)), name=name).header
    for number, column in enumerate(columns, start=1):
        cards = {
            "TCOMM": column.field.description or None,
            "TUNIT": _fits_unit(column.field.unit) or None,
            "TNULL": column.null,
            "TZERO": column.zero or None,
        }
        for card, value in cards.items():
            if value is not None:
                header.set(f"{card}{number}", value, after=f"TFORM{number}")
    return header


def _fits_unit(text: str) -> str:
    """Return a unit as FITS spells it; as it is where FITS, or astropy, does not know it."""
    unit = unit_of(text)
    try:
        return "" if unit is None else unit.to_string("fits")
    except ValueError:
        return text


@lru_cache(maxsize=1)
def _primary() -> bytes:
    return summed(fits.PrimaryHDU().header)

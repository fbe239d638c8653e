"""The columns of a FITS binary table: where they are in a row, and what their values stand for.

Astropy's own objects of columns are not used: they take names that are there twice, zeros that are
no numbers and the like for errors of the whole file, and warn without its name.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mapreduce.io.cards import is_number

from .fields import Field, masked, repeated
from .memory import decoded

__all__ = ["FitsColumn", "fits_columns"]

_TFORM = re.compile(r"\s*(\d*)([LXBIJKAEDCMPQ])")
_TDIM = re.compile(r"\s*\(([\d\s,]+)\)\s*")
_STORED = {"L": "u1", "B": "u1", "I": ">i2", "J": ">i4", "K": ">i8", "E": ">f4", "D": ">f8"}
_BYTES = {"A": 1, "C": 8, "M": 16, "P": 8, "Q": 16}  # of those that are not read, and of texts


@dataclass(frozen=True)
class FitsColumn:
    """A column of a binary table.

    Attributes
    ----------
    field : Field
        Of the values.
    dtype : numpy.dtype
        Of what is in a row, with its shape.
    offset : int
        In a row, bytes.
    null : int or None
        The whole number in the file that stands for a missing one.
    scale, zero : float
        Values are numbers in the file, times one, plus the other.
    """

    field: Field
    dtype: np.dtype
    offset: int
    null: int | None = None
    scale: float = 1
    zero: float = 0

    def meant(self, stored: np.ndarray) -> np.ndarray:
        """Return what values in the file stand for, masked where they are missing."""
        dtype = self.field.dtype
        if dtype.kind == "b":
            true = stored == ord("T")
            return masked(true, ~true & (stored != ord("F")))
        if dtype.kind == "U":
            return decoded(stored)
        missing = None if self.null is None else stored == self.null
        if self.zero and stored.dtype.itemsize == dtype.itemsize and dtype.kind in "iu":
            # Of as many bytes with and without a sign: the zero is the highest bit.
            high = np.array(1 << (8 * dtype.itemsize - 1), f"u{dtype.itemsize}").view(dtype)
            return masked(stored.view(dtype) ^ high, missing)
        values = stored.astype(dtype, copy=False)
        values = values if self.scale == 1 else values * self.scale
        return masked(values + dtype.type(self.zero) if self.zero else values, missing)


def fits_columns(cards: Mapping[str, Any], where: str) -> dict[str, FitsColumn]:
    """Return the columns of a binary table by name.

    Those that cannot be read say why in their field.

    Parameters
    ----------
    cards : mapping
        The header, the layout of which has been checked.
    where : str
        How warnings name it.

    Warns
    -----
    UserWarning
        Where a TDIM does not fit the number of values; it is not used.

    Examples
    --------
    >>> cards = {"TFIELDS": 2, "TFORM1": "2J", "TTYPE1": "a", "TFORM2": "1PB", "TTYPE2": "b"}
    >>> {name: column.field.fault for name, column in fits_columns(cards, "it").items()}
    {'a': '', 'b': 'is of a format that is not read, 1PB'}
    """
    columns: dict[str, FitsColumn] = {}
    counts: Counter[str] = Counter()
    offset = 0
    for number in range(1, cards["TFIELDS"] + 1):
        name = str(cards.get(f"TTYPE{number}", "")).strip() or f"col{number}"
        columns[name], size = _column(cards, number, offset, where)
        counts[name] += 1
        offset += size
    return {n: replace(c, field=repeated(c.field, counts[n])) for n, c in columns.items()}


def _column(
    cards: Mapping[str, Any], number: int, offset: int, where: str
) -> tuple[FitsColumn, int]:
    """Return a column, and its bytes in a row."""
    form = cards[f"TFORM{number}"].strip()
    match = _TFORM.match(form)
    assert match is not None  # as the layout has been checked
    count, code = int(match[1] or 1), match[2]
    said = {kind: str(cards.get(f"{kind}{number}", "")).strip() for kind in ("TUNIT", "TCOMM")}
    field = Field(np.dtype(object), (), said["TUNIT"], said["TCOMM"])
    if code not in _STORED and code != "A":
        fault = f"is of a format that is not read, {form}"
        size = -(-count // 8) if code == "X" else count * _BYTES[code]
        return FitsColumn(replace(field, fault=fault), np.dtype(f"V{size}"), offset), size
    if not count:
        return FitsColumn(replace(field, fault="holds no values"), np.dtype("V0"), offset), 0
    shape = _shape(cards, number, count, where) or ((count,) if count > 1 else ())
    if code == "A":
        length, shape = (shape[-1], shape[:-1]) if shape else (1, ())
        field = replace(field, dtype=np.dtype(f"U{length}"), shape=shape)
        return FitsColumn(field, np.dtype((f"S{length}", shape)), offset), count
    stored = np.dtype(_STORED[code])
    column = FitsColumn(replace(field, shape=shape), np.dtype((stored, shape)), offset)
    if code == "L":
        field = replace(column.field, dtype=np.dtype(bool), nullable=True)
        return replace(column, field=field), count
    return _of_numbers(cards, number, stored.newbyteorder("="), column), count * stored.itemsize


def _shape(cards: Mapping[str, Any], number: int, count: int, where: str) -> tuple[int, ...]:
    """Return what TDIM says; empty where it says nothing that can be."""
    keyword = f"TDIM{number}"
    if keyword not in cards:
        return ()
    match = _TDIM.fullmatch(str(cards[keyword]))
    sizes = [size.strip() for size in match[1].split(",")] if match else []
    shape = tuple(int(size) for size in sizes[::-1]) if all(map(str.isdigit, sizes)) else ()
    if math.prod(shape) == count and shape:
        return shape
    warnings.warn(
        f"{where}: {keyword} is {cards[keyword]!r}, and not the shape of {count} values; it is not "
        "used",
        stacklevel=2,
    )
    return ()


def _of_numbers(
    cards: Mapping[str, Any], number: int, stored: np.dtype, column: FitsColumn
) -> FitsColumn:
    """Return the column with what TNULL, TSCAL and TZERO say of its numbers."""
    scale, zero = cards.get(f"TSCAL{number}", 1), cards.get(f"TZERO{number}", 0)
    for keyword, value in (("TSCAL", scale), ("TZERO", zero)):
        if not is_number(value):
            fault = f"has a {keyword}{number} that is no number, {value!r}"
            return replace(column, field=replace(column.field, fault=fault))
    null = cards.get(f"TNULL{number}")
    null = null if stored.kind in "iu" and type(null) is int else None
    dtype = _dtype(stored, scale, zero)
    zero = int(zero) if dtype.kind in "iu" else float(zero)
    field = replace(column.field, dtype=dtype, nullable=null is not None and dtype.kind in "iu")
    return replace(column, field=field, null=null, scale=scale, zero=zero)


def _dtype(stored: np.dtype, scale: float, zero: float) -> np.dtype:
    """Return the kind of numbers that those in the file stand for."""
    if scale == 1 and zero == 0:
        return stored
    if stored.kind == "f" or scale != 1 or not float(zero).is_integer():
        return np.dtype(np.float64)
    size = stored.itemsize
    if zero == (-128 if size == 1 else 2 ** (8 * size - 1)):
        return np.dtype(np.int8 if size == 1 else f"u{size}")
    low, high = (int(end) + int(zero) for end in (np.iinfo(stored).min, np.iinfo(stored).max))
    for kind in (np.int64, np.uint64):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)

"""What reads tables: some columns of some rows. Tables that are in memory already.

A reader of a file holds neither the file nor its values: it is small, picklable, safe to share
between threads, and opens the file whenever rows are read. There is one for each format:
`calibration.tables.fits_reader`, `calibration.tables.parquet_reader`. What they give is alike:
texts are str without trailing blanks, and columns with missing values are masked arrays.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
from dask.base import tokenize

from mapreduce.io.paths import Stamp, check_stamp, stamp_of

from .fields import Field
from .memory import columns_in

__all__ = [
    "BLOCK",
    "GAP",
    "InputFile",
    "MemoryTable",
    "Rows",
    "TableReader",
    "file_fingerprint",
    "groups",
    "numbered",
    "reordered",
]

Rows = slice | np.ndarray | None
"""Rows of a table: a slice of step 1, row numbers in any order, or None for all."""

BLOCK = 2**22
"""Bytes that are read at once."""

GAP = 2**15  # bytes: rows that are closer are read with what lies between them


class TableReader(Protocol):
    """A table that is read when it is needed."""

    @property
    def where(self) -> str:
        """How messages name it."""

    @property
    def path(self) -> str | None:
        """Its file; None if it is in memory."""

    @property
    def columns(self) -> dict[str, Field]:
        """What it says of its columns."""

    @property
    def meta(self) -> dict[str, Any]:
        """What is said of the table as a whole; a list where a key was repeated."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def read(self, names: Sequence[str], rows: Rows = None) -> dict[str, np.ndarray]:
        """Return columns, native byte order, (n, ...) each, masked where values are missing."""

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns of all rows, some at a time."""

    def fingerprint(self) -> str:
        """Return a checksum."""

    def __dask_tokenize__(self) -> tuple[object, ...]:
        """Return what tells it from other tables."""


def file_fingerprint(path: str | os.PathLike[str], stamp: Stamp | None = None) -> str:
    """Return the SHA-256 checksum of a file.

    Raises
    ------
    OSError
        If it has not the size and modification time (ns) it should have.
    """
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        status = os.fstat(file.fileno())
    if stamp not in (None, (status.st_size, status.st_mtime_ns)):
        raise OSError(f"{path} has changed since it was opened; open it again")
    return f"sha256:{digest.hexdigest()}"


class InputFile(NamedTuple):
    """A file that is not a table, as it was found once: tasks open this, or nothing.

    Attributes
    ----------
    path : str
        Absolute, as workers may have another current folder.
    stamp : Stamp
        Its size and modification time then.
    """

    path: str
    stamp: Stamp

    @classmethod
    def found(cls, path: str | os.PathLike[str]) -> InputFile:
        """Return the file that there is now at a path."""
        absolute = os.path.abspath(path)
        return cls(absolute, stamp_of(absolute))

    def check(self) -> str:
        """Return its path, once it is seen to be the file that was found.

        Raises
        ------
        OSError
            If it is gone or was changed.
        """
        check_stamp(self.path, self.stamp)
        return self.path

    def fingerprint(self) -> str:
        """Return its SHA-256 checksum; errors as `check`."""
        return file_fingerprint(self.path, self.stamp)


def numbered(rows: Rows, count: int) -> tuple[range | np.ndarray, np.ndarray | None]:
    """Return row numbers in ascending order, and the places where they belong if not in that.

    Raises
    ------
    IndexError
        If there is no such row.
    """
    if rows is None:
        return range(count), None
    if isinstance(rows, slice):
        return range(count)[rows], None
    rows = np.asarray(rows, np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= count):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of a table of {count} rows")
    if len(rows) < 2 or np.all(np.diff(rows) > 0):
        return rows, None
    order = np.argsort(rows, kind="stable")
    return rows[order], order


def reordered(values: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """Return values of ascending rows where they belong: what `numbered` has changed, undone."""
    if order is None:
        return values
    out = np.empty_like(values)
    out[order] = values
    return out


def groups(
    rows: range | np.ndarray, order: np.ndarray | None, width: int
) -> Iterator[tuple[int, int, Any, np.ndarray | None]]:
    """Yield spans of rows to read at once, where their rows belong, and which of them are meant.

    Parameters
    ----------
    rows : range or (n,) int array
        Ascending.
    order : (n,) int array or None
        Place of each; None for their own order.
    width : int
        Bytes of a row.
    """
    limit = max(1, BLOCK // width)
    if isinstance(rows, range):
        for start in range(0, len(rows), limit):
            stop = min(start + limit, len(rows))
            yield rows.start + start, rows.start + stop, slice(start, stop), None
        return
    apart = np.diff(rows, prepend=rows[:1]) > 1 + GAP // width
    group = np.cumsum(apart) * (len(rows) + 1) + (rows - rows[:1]) // limit
    edges = [0, *(np.flatnonzero(np.diff(group)) + 1), len(rows)]
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if first < last:
            start, stop = int(rows[first]), int(rows[last - 1]) + 1
            pick = rows[first:last] - start
            whole = np.array_equal(pick, np.arange(stop - start))
            place = slice(first, last) if order is None else order[first:last]
            yield start, stop, place, None if whole else pick


# Arrays in memory


class MemoryTable:
    """A table of arrays that are in memory already.

    Parameters
    ----------
    data : astropy Table, mapping of str to array, structured array or data frame
        The columns, (n, ...) each; a mapping with a single value among them is one row. Data frames
        are those of pandas, and what speaks Arrow, such as polars' and pyarrow's tables.
    where : str
        How messages name it.

    Raises
    ------
    ImportError
        If it speaks Arrow, and pyarrow is not installed.
    TypeError
        If it is none of these.
    ValueError
        If the columns differ in length.

    Examples
    --------
    >>> table = MemoryTable({"a": [1, 2], "b": ["g", None]}, "the table")
    >>> table.read(["b"])["b"].tolist()
    ['g', None]
    """

    path = None

    def __init__(self, data: Any, where: str) -> None:
        self.where = where
        found, self.meta = columns_in(data, where)
        self._values = {name: values for name, (values, _) in found.items()}
        self.columns = {name: field for name, (_, field) in found.items()}
        for values in self._values.values():
            values.flags.writeable = False
        lengths = {name: len(values) for name, values in self._values.items()}
        if len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise ValueError(f"{where}: columns differ in length: {sizes}")
        self._length = next(iter(lengths.values()), 0)

    def part(self, rows: slice, where: str) -> MemoryTable:
        """Return some of the rows as a table of their own, called otherwise, without a copy."""
        some = copy.copy(self)
        some.where = where
        some._values = {name: values[rows] for name, values in self._values.items()}
        some._length = len(range(len(self))[rows])
        some.__dict__.pop("_checksum", None)
        return some

    def __len__(self) -> int:
        return self._length

    def read(self, names: Sequence[str], rows: Rows = None) -> dict[str, np.ndarray]:
        """Return copies of columns, native byte order."""
        rows = slice(None) if rows is None else rows
        return {name: self._values[name][rows].copy() for name in names}

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns of all rows, some at a time."""
        step = 2**16
        for start in range(0, len(self), step):
            yield self.read(names, slice(start, start + step))

    @cached_property
    def _checksum(self) -> str:
        fields = [repr(field) for field in self.columns.values()]
        return hashlib.sha256(tokenize(self._values, self.meta, fields).encode()).hexdigest()

    def fingerprint(self) -> str:
        """Return a checksum of the values."""
        return f"tokenize:{self._checksum}"

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "MemoryTable", self._checksum

"""Tables of several files: directories of parts, hive partitions, lists of files.

The rows are those of the files, one after the other, in the order of their names (``part-2`` before
``part-10``) or of the list. What paths say as ``band=r`` is a column, where the files have none of
that name.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from mapreduce.io.paths import Stamp, check_stamp, stamp_of

from .fields import Field, masked
from .files import is_path, is_table, open_tables
from .reader import Rows, TableReader, numbered, reordered

__all__ = ["Part", "PartsTable", "table_files"]

_KEY = re.compile(r"([A-Za-z_]\w*)=(.*)")
_NULL = "__HIVE_DEFAULT_PARTITION__"


class Part(NamedTuple):
    """A file of a table.

    Attributes
    ----------
    path : str
    stamp : Stamp
        Its size and time of modification when it was found.
    keys : tuple of (str, str)
        What its path says of all its rows.
    """

    path: str
    stamp: Stamp
    keys: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, path: str | os.PathLike[str], base: str | os.PathLike[str] = "") -> Part:
        """Make one of a file; its keys are those of the path below a folder, or of all of it."""
        folders = Path(os.path.relpath(path, base) if base else path).parts[:-1]
        matches = (_KEY.fullmatch(name) for name in folders)
        keys = tuple((match[1], unquote(match[2])) for match in matches if match)
        absolute = os.path.abspath(path)
        return cls(absolute, stamp_of(absolute), keys)


class PartsTable:
    """A table that is the rows of several files, of which those are opened that are read.

    Parameters
    ----------
    parts : sequence of Part
    path : path, optional
        The folder; None for a list of files.
    hdu : int
        Which of the tables of each file it is.
    meta : mapping, optional
        What is said of the table; default what the first file says.

    Raises
    ------
    OSError
        If the first file can't be read; any other, or one that was changed, when it is.
    ValueError
        If there are no parts; on reading, if a part has other columns than the first.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from astropy.table import Table
    >>> with TemporaryDirectory() as folder:
    ...     for band, ids in (("g", [1, 2]), ("r", [3])):
    ...         place = Path(folder, f"band={band}")
    ...         place.mkdir()
    ...         Table({"id": ids}).write(place / "part-0.fits")
    ...     table = PartsTable.of(folder)
    ...     len(table), table.read(["id", "band"], np.array([2, 0]))
    (3, {'id': array([3, 1]), 'band': array(['r', 'g'], dtype='<U1')})
    """

    def __init__(
        self,
        parts: Sequence[Part],
        path: str | os.PathLike[str] | None = None,
        *,
        hdu: int = 0,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        if not parts:
            raise ValueError(f"{path or 'the list of files'} has no tables")
        self.parts = tuple(parts)
        self.path = None if path is None else os.path.abspath(path)
        self.hdu = hdu
        first = self._table(self.parts[0])
        self.meta = dict(first.meta if meta is None else meta)
        self._keys = _key_fields(self.parts, first.columns)
        self.columns = {**first.columns, **self._keys}

    @classmethod
    def of(cls, data: str | os.PathLike[str] | Iterable[Any], hdu: int = 0) -> PartsTable:
        """Make one of a folder, or of a list of files and folders."""
        if isinstance(data, str | os.PathLike):
            return cls([Part.of(file, data) for file in table_files(data)], data, hdu=hdu)
        parts = [
            Part.of(file)
            for item in data
            for file in (table_files(item) if _is_dir(item) else [item])
        ]
        return cls(parts, hdu=hdu)

    @property
    def where(self) -> str:
        """How messages name it."""
        if self.path is not None:
            return Path(self.path).name
        first = Path(self.parts[0].path).name
        more = len(self.parts) - 1
        return f"{first} and {more} more" if more else first

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.where!r}, {len(self.parts)} parts)"

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first row of each part, and the number of all rows."""
        return np.cumsum([0, *(len(self._table(part)) for part in self.parts)])

    def read(self, names: Sequence[str], rows: Rows = None) -> dict[str, np.ndarray]:
        """Return columns of rows, counted through the parts; those are read that have some."""
        numbers, order = numbered(rows, len(self))
        edges = _edges(numbers, self._starts).tolist()
        blocks = [
            self._columns(part, names, _local(numbers[a:b], start))
            for part, start, a, b in zip(
                self.parts, self._starts[:-1].tolist(), edges[:-1], edges[1:], strict=True
            )
            if b > a
        ]
        blocks = blocks or [self._columns(self.parts[0], names, slice(0, 0))]
        columns = {name: joined([block[name] for block in blocks]) for name in names}
        return {name: reordered(values, order) for name, values in columns.items()}

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns of all rows, some at a time."""
        own = [name for name in names if name not in self._keys]
        for part in self.parts:
            table = self._checked(part, own)
            if not own:
                yield self._columns(part, names, None)
                continue
            for block in table.blocks(own):
                yield self._with_keys(part, names, block, len(block[own[0]]))

    def fingerprint(self) -> str:
        """Return a checksum of the names and the contents of all files, which are read for it."""
        digest = hashlib.sha256()
        for name, part in zip(self._names(), self.parts, strict=True):
            digest.update(f"{name} {self._table(part).fingerprint()}\n".encode())
        return f"sha256:{digest.hexdigest()}"

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return type(self).__name__, self.path, self.parts, self.hdu

    def _names(self) -> list[str]:
        base = self.path or os.path.commonpath([os.path.dirname(p.path) for p in self.parts])
        return [Path(os.path.relpath(part.path, base)).as_posix() for part in self.parts]

    def _table(self, part: Part) -> TableReader:
        return _opened(part.path, part.stamp, self.hdu)

    def _checked(self, part: Part, names: Iterable[str]) -> TableReader:
        """Open a part, once its columns are seen to be those of the first."""
        table = self._table(part)
        for name in names:
            if not _alike(table.columns.get(name), self.columns[name]):
                place = os.path.relpath(part.path, self.path or os.path.dirname(part.path))
                raise ValueError(
                    f"{self.where}: column {name} of {place} is {table.columns.get(name)}; "
                    f"elsewhere it is {self.columns[name]}"
                )
        return table

    def _columns(self, part: Part, names: Sequence[str], rows: Rows) -> dict[str, np.ndarray]:
        own = [name for name in names if name not in self._keys]
        table = self._checked(part, own)
        count = len(numbered(rows, len(table))[0])
        return self._with_keys(part, names, table.read(own, rows) if own else {}, count)

    def _with_keys(
        self, part: Part, names: Sequence[str], columns: Mapping[str, np.ndarray], count: int
    ) -> dict[str, np.ndarray]:
        said = dict(part.keys)
        out = {}
        for name in names:
            if name in columns:
                out[name] = columns[name]
                continue
            value, field = said.get(name, _NULL), self._keys[name]
            none = value == _NULL
            values = np.full(count, "0" if none else value).astype(field.dtype)
            out[name] = masked(values, np.full(count, none))
        return out


def table_files(folder: str | os.PathLike[str]) -> list[str]:
    """Return the tables below a folder, in the order of their names; hidden ones are left out.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        shown = (name for name in names if not name.startswith((".", "_")) and is_table(name))
        found += [os.path.join(place, name) for name in shown]
    if not found:
        raise FileNotFoundError(f"there is no table in {folder}")
    return sorted(found, key=_by_number)


def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays one after the other, masked where one of them is.

    Examples
    --------
    >>> joined([np.array([1, 2]), np.ma.array([3], mask=[True])]).tolist()
    [1, 2, None]
    """
    whole = np.concatenate([np.ma.getdata(array) for array in arrays])
    if not any(np.ma.isMaskedArray(array) for array in arrays):
        return whole
    return masked(whole, np.concatenate([np.ma.getmaskarray(array) for array in arrays]))


def _is_dir(path: Any) -> bool:
    return is_path(path) and os.path.isdir(path)


def _by_number(path: str) -> list[tuple[bool, int, str]]:
    """Return what sorts numbers in names as numbers: dask writes part.2 and part.10."""
    pieces = re.split(r"(\d+)", path)
    return [(piece.isdigit(), int(piece) if piece.isdigit() else 0, piece) for piece in pieces]


@lru_cache(maxsize=256)
def _read_header(path: str, stamp: Stamp, hdu: int) -> TableReader:
    tables = open_tables(path)
    if hdu >= len(tables):
        raise OSError(f"{path} has {len(tables)} tables; other parts have more")
    return tables[hdu]


def _opened(path: str, stamp: Stamp, hdu: int) -> TableReader:
    check_stamp(path, stamp)
    return _read_header(path, stamp, hdu)


def _alike(one: Field | None, other: Field) -> bool:
    """Whether parts of a column go together; texts may be of any length."""
    if one is None or (one.shape, one.unit, one.fault) != (other.shape, other.unit, other.fault):
        return False
    return one.dtype == other.dtype or one.dtype.kind == other.dtype.kind == "U"


def _edges(rows: range | np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return how many of the rows, which ascend, are before each start."""
    if isinstance(rows, range):
        return np.clip(starts - rows.start, 0, len(rows))
    return np.searchsorted(rows, starts)


def _local(rows: range | np.ndarray, start: int) -> slice | np.ndarray:
    if isinstance(rows, range):
        return slice(rows.start - start, rows.stop - start)
    return rows - start


def _key_fields(parts: Sequence[Part], own: Iterable[str]) -> dict[str, Field]:
    """Return the columns that paths say: whole numbers if all are."""
    values: dict[str, set[str]] = {}
    for part in parts:
        for name, value in part.keys:
            values.setdefault(name, set()).add(value)
    fields = {}
    for name in set(values) - set(own):
        texts = values[name] - {_NULL}
        whole = all(re.fullmatch(r"-?\d+", text) for text in texts)
        longest = max(map(len, texts), default=1)
        dtype = np.dtype(np.int64) if whole else np.dtype(f"U{longest}")
        nullable = _NULL in values[name] or any(name not in dict(p.keys) for p in parts)
        fields[name] = Field(dtype, nullable=nullable and whole)
    return fields

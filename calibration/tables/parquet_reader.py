"""Reads Parquet files by row groups. Needs pyarrow: ``pip install 'skyfold[parquet]'``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mapreduce.io.paths import Stamp, check_stamp, stamp_of

from ..texts import said_by
from .arrow import arrow_field, arrow_values, described, only_length, pyarrow, taken
from .fields import Field, repeated
from .reader import Rows, file_fingerprint, numbered, reordered

__all__ = ["CHECKSUM", "ParquetTable"]

_BATCH = 2**16  # rows
_DENSEST = 2**16  # rows of a byte; groups of a million equal ones have less
_ARROW = (b"ARROW:schema", b"pandas")  # how other packages would make their own types of it
CHECKSUM = "CHECKSUM"
"""Where our own files have the checksum of the whole table."""


class ParquetTable:
    """Reads a Parquet file.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    ImportError
        Without the package pyarrow.
    OSError
        If the file is missing, not Parquet or damaged; on reading, if it was changed.

    Examples
    --------
    >>> import pyarrow.parquet as pq
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     pq.write_table(pyarrow().table({"a": [1, None, 3]}), f"{folder}/a.parquet")
    ...     ParquetTable(f"{folder}/a.parquet").read(["a"], slice(1, 3))["a"].tolist()
    [None, 3]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self.stamp = stamp_of(self.path)
        self.columns: dict[str, Field] = {}
        self.where = Path(self.path).name
        footer = _footer(self.path, self.stamp)
        metadata = dict(footer.metadata or {})
        self.metadata = {key: text for key, text in metadata.items() if key not in _ARROW}
        with _damage_named(self.path):
            try:
                self.checksum = self.metadata.pop(CHECKSUM.encode(), b"").decode()
                self.meta, texts = described(self.metadata)
                self._describe(footer, texts)
            except ValueError as error:
                raise OSError(f"{self.path} is damaged: {error}") from error
            rows = _checked_rows(footer, self.stamp[0])
        self._starts = np.cumsum([0, *rows])

    def _describe(self, footer: Any, texts: Mapping[str, Any]) -> None:
        """Find out what the columns hold."""
        schema = footer.schema.to_arrow_schema()
        counts = Counter(schema.names)
        for field, leaf in zip(schema, _first_leaves(schema), strict=True):
            found = self._field(footer, field, leaf, texts.get(field.name, {}))
            self.columns[field.name] = repeated(found, counts[field.name])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __repr__(self) -> str:
        return f"ParquetTable({self.path!r}, {len(self)} rows)"

    def read(self, names: Sequence[str], rows: Rows = None) -> dict[str, np.ndarray]:
        """Return columns, native byte order, (n, ...) each; the row groups needed are read."""
        numbers, order = numbered(rows, len(self))
        numbers = np.asarray(numbers, np.int64)
        groups = np.searchsorted(self._starts, numbers, side="right") - 1
        needed = np.unique(groups)
        lengths = np.diff(self._starts)[needed]
        shift = self._starts[needed] - np.cumsum([0, *lengths[:-1]])[: len(needed)]
        index = numbers - shift[np.searchsorted(needed, groups)]
        with _damage_named(self.path), self._open() as file:
            table = file.read_row_groups(needed.tolist(), columns=[*names])
            if len(table) != lengths.sum():
                raise OSError(f"{self.path} is damaged: it has not the rows that it says")
        first = int(index[0]) if len(index) else 0
        # A row may be asked for repeatedly: as many rows as a span has need not be the span.
        whole = np.array_equal(index, np.arange(first, first + len(index)))
        table = table.slice(first, len(index)) if whole else taken(table, index)
        out = {name: self._array(name, table[name]) for name in names}
        return {name: reordered(values, order) for name, values in out.items()}

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns of all rows, some at a time; pages that have checksums are checked."""
        with _damage_named(self.path), self._open(page_checksum_verification=True) as file:
            for batch in file.iter_batches(_BATCH, columns=[*names]):
                yield {name: self._array(name, batch[name]) for name in names}

    def fingerprint(self) -> str:
        """Return the SHA-256 checksum of the file."""
        return file_fingerprint(self.path, self.stamp)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "ParquetTable", self.path, self.stamp

    def _field(self, footer: Any, field: Any, leaf: int, text: Any) -> Field:
        """Return what a column holds; the length of its lists from the number of their values.

        Where some may be null, and the numbers do not tell, the lists themselves are looked at.
        """
        single = len(_nested(field.type)) == 1 and not _nested(_nested(field.type)[0])

        def length() -> int | None:
            counted = _list_length(footer, leaf) if single else None
            return counted or self._seen_length(field.name)

        return arrow_field(field, text, length)

    def _seen_length(self, name: str) -> int | None:
        """Return the length of a column's lists, null ones left out; None if there are several."""
        seen: set[int] = set()
        with self._open() as file:
            for batch in file.iter_batches(_BATCH, columns=[name]):
                only_length(batch[name], seen)
        return next(iter(seen)) if len(seen) == 1 else None

    def _open(self, **options: Any) -> Any:
        footer = _footer(self.path, self.stamp)
        return pyarrow().parquet.ParquetFile(self.path, metadata=footer, **options)

    def _array(self, name: str, values: Any) -> np.ndarray:
        """Return the numpy array of a column, masked where values are missing."""
        try:
            return arrow_values(values, self.columns[name])
        except ValueError as error:
            raise ValueError(f"{self.where}: column {name}: {error}") from None


@lru_cache(maxsize=32)
def _cached_footer(path: str, stamp: Stamp) -> Any:
    with _damage_named(path, "is not a Parquet file, or damaged"):
        return pyarrow().parquet.read_metadata(path)


@contextmanager
def _damage_named(path: str, what: str = "is damaged, or not read") -> Iterator[None]:
    """Let errors of pyarrow, which knows no names, say which file it is that cannot be read."""
    pa = pyarrow()
    try:
        yield
    except MemoryError:
        raise
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and (error.errno or path in str(error)):
            raise
        raise OSError(f"{path} {what}: {said_by(error)}") from error


def _footer(path: str, stamp: Stamp) -> Any:
    """Return what a file says of itself at its end, if it is still the same file."""
    check_stamp(path, stamp)
    return _cached_footer(path, stamp)


def _checked_rows(footer: Any, size: int) -> list[int]:
    """Return the rows of each group, once it is seen that a file of the size can have as many.

    Memory is taken for as many as it says.
    """
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    rows = [group.num_rows for group in groups]
    values = [group.column(0).num_values for group in groups if group.num_columns]
    few = [n for n, found in zip(rows, values, strict=bool(values)) if not 0 <= n <= found]
    if few or sum(rows) != footer.num_rows or footer.num_rows > size * _DENSEST:
        raise OSError(f"it says that it has {footer.num_rows} rows, and its groups {rows[:10]}")
    return rows


def _first_leaves(schema: Any) -> Iterator[int]:
    """Yield the number of each field's first column in the file, which has one for each leaf."""
    leaf = 0
    for field in schema:
        yield leaf
        leaf += _leaves(field.type)


def _leaves(kind: Any) -> int:
    return sum(map(_leaves, _nested(kind))) or 1


def _nested(kind: Any) -> list[Any]:
    """Return the kinds of what values of a kind are made of."""
    if pyarrow().types.is_dictionary(kind):
        return []
    return [kind.field(i).type for i in range(kind.num_fields)]


def _list_length(footer: Any, leaf: int) -> int | None:
    """Return the length of a column's lists; None if there are several."""
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    lengths = {g.column(leaf).num_values / g.num_rows for g in groups if g.num_rows}
    if len(lengths) == 1 and min(lengths).is_integer():
        chunks = [group.column(leaf).statistics for group in groups]
        if all(chunk is not None and chunk.null_count == 0 for chunk in chunks):
            return int(lengths.pop())
    return None

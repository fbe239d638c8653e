"""Tables of any kind that a mapper may return: joined, cut, given another column, copied.

What belongs to one kind stands together; pandas, polars and pyarrow are not imported, but found
where a table of theirs was made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table, vstack

__all__ = ["Kind", "as_table", "kind_of"]


class Kind:
    """How tables of one kind are handled; this is that of lists, which have no columns."""

    name: ClassVar[str] = "list"
    has_columns: ClassVar[bool] = False

    def names(self, table: Any) -> list[str]:
        """Return the names of the columns."""
        return []

    def column(self, table: Any, name: str) -> np.ndarray:
        """Return a column of numbers, in float64."""
        return np.ma.filled(np.ma.asarray(table[name]).astype(float), np.nan)

    def chosen(self, table: Any, rows: np.ndarray) -> Any:
        """Return the rows where a bool array is true."""
        return [row for row, stays in zip(table, rows, strict=True) if stays]

    def labeled(self, table: Any, name: str, value: int) -> Any:
        """Return the table with one more column, which holds a number."""
        return table

    def joined(self, tables: Sequence[Any]) -> Any:
        """Return all rows in one."""
        return [row for table in tables for row in table]

    def copied(self, table: Any) -> Table:
        """Return a table that has columns as astropy's, a copy."""
        return Table({name: np.asarray(table[name]) for name in self.names(table)})


class _Array(Kind):
    name = "ndarray"

    def names(self, table: np.ndarray) -> list[str]:
        return list(table.dtype.names or ())

    def chosen(self, table: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return table[rows]

    def joined(self, tables: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(tables)

    def copied(self, table: np.ndarray) -> Table:
        return Table(table)


class _Columns(Kind):
    """What has its columns by name."""

    has_columns = True

    def names(self, table: Any) -> list[str]:
        return list(table.columns)

    def chosen(self, table: Any, rows: np.ndarray) -> Any:
        return table[rows]


class _Mapping(_Columns):
    name = "mapping"

    def names(self, table: Mapping[str, Any]) -> list[str]:
        return list(table)

    def column(self, table: Mapping[str, Any], name: str) -> np.ndarray:
        return super().column({name: np.atleast_1d(table[name])}, name)

    def chosen(self, table: Mapping[str, Any], rows: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.atleast_1d(values)[rows] for name, values in table.items()}

    def labeled(self, table: Mapping[str, Any], name: str, value: int) -> dict[str, Any]:
        if not table:
            return {}
        length = len(np.atleast_1d(next(iter(table.values()))))
        return {**table, name: np.full(length, value)}

    def joined(self, tables: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        return {c: np.concatenate([np.atleast_1d(t[c]) for t in tables]) for c in tables[0]}

    def copied(self, table: Mapping[str, Any]) -> Table:
        return Table(table)


class _Astropy(_Columns):
    name = "astropy"

    def column(self, table: Table, name: str) -> np.ndarray:
        return super().column({name: getattr(table[name], "value", table[name])}, name)

    def labeled(self, table: Table, name: str, value: int) -> Table:
        table = table.copy()
        table[name] = np.full(len(table), value)
        return table

    def joined(self, tables: Sequence[Table]) -> Table:
        return vstack(list(tables), metadata_conflicts="silent")

    def copied(self, table: Table) -> Table:
        return table.copy()


class _Pandas(_Columns):
    name = "pandas"

    def labeled(self, table: Any, name: str, value: int) -> Any:
        return table.assign(**{name: np.full(len(table), value)})

    def joined(self, tables: Sequence[Any]) -> Any:
        return sys.modules["pandas"].concat(list(tables), ignore_index=True)

    def copied(self, table: Any) -> Table:
        return Table.from_pandas(table)


class _Polars(_Columns):
    name = "polars"

    def chosen(self, table: Any, rows: np.ndarray) -> Any:
        return table.filter(rows)

    def labeled(self, table: Any, name: str, value: int) -> Any:
        return table.with_columns(sys.modules["polars"].Series(name, np.full(len(table), value)))

    def joined(self, tables: Sequence[Any]) -> Any:
        return sys.modules["polars"].concat(list(tables))


class _Pyarrow(_Columns):
    """Tables and record batches, which are made tables of."""

    name = "pyarrow"

    def names(self, table: Any) -> list[str]:
        return list(table.schema.names)

    def chosen(self, table: Any, rows: np.ndarray) -> Any:
        return table.filter(sys.modules["pyarrow"].array(rows))

    def labeled(self, table: Any, name: str, value: int) -> Any:
        return _whole(table).append_column(name, [np.full(len(table), value)])

    def joined(self, tables: Sequence[Any]) -> Any:
        return sys.modules["pyarrow"].concat_tables([_whole(table) for table in tables])


def _whole(table: Any) -> Any:
    return sys.modules["pyarrow"].table(table)


_KINDS: dict[type, Kind] = {
    list: Kind(), np.ndarray: _Array(), Mapping: _Mapping(), Table: _Astropy(),
}  # fmt: skip
_OTHERS: dict[str, dict[str, Kind]] = {
    "DataFrame": {"pandas": _Pandas(), "polars": _Polars()},
    **dict.fromkeys(("Table", "RecordBatch"), {"pyarrow": _Pyarrow()}),
}


def kind_of(tables: Iterable[Any]) -> Kind:
    """Return the kind that all tables are of.

    Raises
    ------
    TypeError
        If they are of several, or of none.

    Examples
    --------
    >>> kind_of([Table({"x": [1]}), Table({"x": [2]})]).name
    'astropy'
    """
    kinds = {}
    for table in tables:
        kind = _kind(table)
        if kind is None:
            raise TypeError(
                f"cannot concatenate {type(table).__name__}; the mapper must return tables, "
                "arrays, lists or mappings of columns"
            )
        kinds[kind] = type(table).__name__
    if len(kinds) > 1:
        names = sorted(kinds.values())
        raise TypeError(f"cannot concatenate results of different types: {names}")
    return next(iter(kinds))


def as_table(found: Any, name: str) -> Table:
    """Return a table of any kind as astropy's, a copy.

    Parameters
    ----------
    found : object
    name : str
        What returned it, for messages.

    Raises
    ------
    TypeError
        If it is not a table.

    Examples
    --------
    >>> as_table({"x": [1.5, 2.5]}, "peaks")["x"].tolist()
    [1.5, 2.5]
    """
    kind = _kind(found)
    if kind is None or not (kind.has_columns or kind.names(found)):
        raise TypeError(f"{name} returned {type(found).__name__}; a catalog is a table")
    return kind.copied(found)


def _kind(table: Any) -> Kind | None:
    for each, kind in _KINDS.items():
        if isinstance(table, each):
            return kind
    package = type(table).__module__.partition(".")[0]
    return _OTHERS.get(type(table).__name__, {}).get(package)

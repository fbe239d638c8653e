"""Tables of any kind that a mapper may return: joined, cut, and given another column.

What belongs to one kind stands together; pandas, polars and pyarrow are not imported, but found
where a table of theirs was made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table, vstack

__all__ = ["Kind", "kind_of"]


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


class _Array(Kind):
    name = "ndarray"

    def names(self, table: np.ndarray) -> list[str]:
        return list(table.dtype.names or ())

    def chosen(self, table: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return table[rows]

    def joined(self, tables: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(tables)


class _Mapping(Kind):
    name = "mapping"
    has_columns = True

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


class _Astropy(Kind):
    name = "astropy"
    has_columns = True

    def names(self, table: Table) -> list[str]:
        return list(table.colnames)

    def column(self, table: Table, name: str) -> np.ndarray:
        return super().column({name: getattr(table[name], "value", table[name])}, name)

    def chosen(self, table: Table, rows: np.ndarray) -> Table:
        return table[rows]

    def labeled(self, table: Table, name: str, value: int) -> Table:
        table = table.copy()
        table[name] = np.full(len(table), value)
        return table

    def joined(self, tables: Sequence[Table]) -> Table:
        return vstack(list(tables), metadata_conflicts="silent")


class _Pandas(Kind):
    name = "pandas"
    has_columns = True

    def names(self, table: Any) -> list[str]:
        return list(table.columns)

    def chosen(self, table: Any, rows: np.ndarray) -> Any:
        return table[rows]

    def labeled(self, table: Any, name: str, value: int) -> Any:
        return table.assign(**{name: np.full(len(table), value)})

    def joined(self, tables: Sequence[Any]) -> Any:
        return sys.modules["pandas"].concat(list(tables), ignore_index=True)


class _Polars(Kind):
    name = "polars"
    has_columns = True

    def names(self, table: Any) -> list[str]:
        return list(table.columns)

    def chosen(self, table: Any, rows: np.ndarray) -> Any:
        return table.filter(rows)

    def labeled(self, table: Any, name: str, value: int) -> Any:
        return table.with_columns(sys.modules["polars"].Series(name, np.full(len(table), value)))

    def joined(self, tables: Sequence[Any]) -> Any:
        return sys.modules["polars"].concat(list(tables))


class _Pyarrow(Kind):
    name = "pyarrow"
    has_columns = True

    def names(self, table: Any) -> list[str]:
        return list(table.column_names)

    def chosen(self, table: Any, rows: np.ndarray) -> Any:
        return table.filter(sys.modules["pyarrow"].array(rows))

    def labeled(self, table: Any, name: str, value: int) -> Any:
        return table.append_column(name, [np.full(len(table), value)])

    def joined(self, tables: Sequence[Any]) -> Any:
        return sys.modules["pyarrow"].concat_tables(list(tables))


_KINDS: dict[type, Kind] = {
    list: Kind(), np.ndarray: _Array(), Mapping: _Mapping(), Table: _Astropy(),
}  # fmt: skip
_OTHERS: dict[str, dict[str, Kind]] = {
    "DataFrame": {"pandas": _Pandas(), "polars": _Polars()},
    "Table": {"pyarrow": _Pyarrow()},
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
    kinds = {_kind(table): type(table).__name__ for table in tables}
    if len(kinds) > 1:
        names = sorted(kinds.values())
        raise TypeError(f"cannot concatenate results of different types: {names}")
    return next(iter(kinds))


def _kind(table: Any) -> Kind:
    for each, kind in _KINDS.items():
        if isinstance(table, each):
            return kind
    package = type(table).__module__.partition(".")[0]
    other = _OTHERS.get(type(table).__name__, {}).get(package)
    if other is None:
        raise TypeError(
            f"cannot concatenate {type(table).__name__}; the mapper must return tables, arrays, "
            "lists or mappings of columns"
        )
    return other

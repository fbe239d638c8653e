"""Catalog: the columns that a schema names, read lazily from whatever table has them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .fields import Field, filled, with_nan
from .files import is_path, open_tables
from .parts import PartsTable, table_files
from .reader import MemoryTable, Rows, TableReader
from .schema import Binding, Findings, Schema, bind

__all__ = ["MISSING", "Catalog", "open_table"]

MISSING = -1
"""What a whole number is that is missing: no visit, no detector, no flags, no count."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """A catalog, under its canonical column names, of which nothing is held.

    Small and picklable (but for tables that are in memory, which travel with it), and safe to share
    between threads: files are opened whenever rows are read.

    Parameters
    ----------
    schema : Schema
    reader : TableReader
        Of the table.
    bindings : mapping of str to Binding
        How each of the schema's columns that there are is read.

    Examples
    --------
    >>> from calibration.run.columns import ATMOSPHERE
    >>> names = "VISIT PMB PWV TAU ALPHA O3 SECZENITH CTRANS LAMSTD".split()
    >>> catalog, findings = Catalog.of({name: [7, 8] for name in names}, ATMOSPHERE)
    >>> catalog
    <Catalog of atmosphere parameters: 2 rows of 9 columns>
    >>> catalog.read(["visit", "secZenith"], np.array([1]))
    {'visit': array([8]), 'secZenith': array([8.])}
    """

    schema: Schema
    reader: TableReader
    bindings: Mapping[str, Binding]

    @classmethod
    def of(
        cls, data: Any, schema: Schema, needed: Collection[str] | None = None
    ) -> tuple[Catalog, Findings]:
        """Make a catalog of a path, an astropy Table, a mapping of arrays or a structured array.

        The columns that are needed are by default those that the schema requires; see `bind`.

        Returns
        -------
        Catalog
        Findings
            What is wrong with its columns; none of the wrong ones can be read.

        Raises
        ------
        ImportError
            If a file is Parquet and pyarrow is not installed.
        OSError
            If a file cannot be read.
        TypeError, ValueError
            If it is not a table.
        """
        reader = open_table(data, schema)
        findings = bind(schema, reader.columns, needed)
        return cls(schema, reader, findings.bindings), findings

    @property
    def where(self) -> str:
        """How messages name it."""
        return self.reader.where

    @property
    def path(self) -> str | None:
        """Its file; None if it is in memory."""
        return self.reader.path

    @property
    def meta(self) -> dict[str, Any]:
        """What is said of the table as a whole: a header's cards."""
        return self.reader.meta

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that can be read."""
        return tuple(self.bindings)

    @property
    def units(self) -> dict[str, str]:
        """Units of the columns that have one."""
        units = {name: self.schema.by_name[name].unit for name in self.bindings}
        return {name: unit for name, unit in units.items() if unit}

    def without(self, columns: Collection[str]) -> Catalog:
        """Return the catalog without some columns."""
        kept = {n: binding for n, binding in self.bindings.items() if n not in columns}
        return replace(self, bindings=kept)

    def lacks(self, columns: Iterable[str]) -> list[str]:
        """Return those of some columns that are not there, and that it may not do without."""
        by_name, table = self.schema.by_name, self.reader.columns
        return [n for n in columns if n not in self.bindings and not by_name[n].excused(table)]

    def shape(self, column: str) -> tuple[int, ...]:
        """Return the shape of a column's values in each row."""
        return self.bindings[column].shape

    def __len__(self) -> int:
        return len(self.reader)

    def __repr__(self) -> str:
        title = self.schema.title if self.path is None else f"{self.schema.title}, {self.where}"
        return f"<Catalog of {title}: {len(self)} rows of {len(self.columns)} columns>"

    def read(self, columns: Iterable[str] | None = None, rows: Rows = None) -> dict[str, Any]:
        """Read columns of rows.

        Parameters
        ----------
        columns : iterable of str, optional
            Canonical names; default all that there are.
        rows : slice or (n,) int array, optional
            Rows in any order; default all.

        Returns
        -------
        dict of str to (n, ...) array
            Native byte order: float64, whole numbers as wide as in the table, or str; in the
            schema's units. What is missing is NaN, `MISSING` or empty.

        Raises
        ------
        KeyError
            If there is no such column.
        OSError
            If the file is gone, was changed or is damaged.
        """
        names = self._names(columns)
        return self._converted(names, self.reader.read(self._sources(names), rows))

    def blocks(self, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield columns as `read` does, of all rows, a few megabytes at a time."""
        names = self._names(columns)
        for block in self.reader.blocks(self._sources(names)):
            yield self._converted(names, block)

    def fingerprint(self) -> str:
        """Return a checksum of its file, ``sha256:...``, read now in blocks, or of its arrays."""
        return self.reader.fingerprint()

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "Catalog", self.schema.name, self.reader.__dask_tokenize__()

    def _names(self, columns: Iterable[str] | None) -> list[str]:
        names = list(self.bindings if columns is None else columns)
        for name in names:
            if name not in self.bindings:
                known = ", ".join(self.bindings)
                raise KeyError(f"{self.where} has no column {name}; it has {known}")
        return names

    def _sources(self, names: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(s for name in names for s in self.bindings[name].sources))

    def _converted(self, names: list[str], table: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {name: self._column(name, table) for name in names}

    def _column(self, name: str, table: Mapping[str, np.ndarray]) -> np.ndarray:
        names, shape, factor = self.bindings[name]
        parts = [table[part] for part in names]
        values = parts[0] if len(parts) == 1 else np.ma.stack(parts, axis=-1)
        values = values.reshape(len(parts[0]), *shape)
        kind = self.schema.by_name[name].kind
        if kind == "f":
            values = with_nan(values).astype(np.float64, copy=False)
            return values if factor == 1 else values * factor
        values, missing = filled(values)
        if kind == "i" and missing is not None:
            return np.where(missing, MISSING, values.astype(np.int64, copy=False))
        return values


def open_table(data: Any, schema: Schema) -> TableReader:
    """Return the table that a path, Table, mapping or structured array holds.

    Of a FITS file with several tables, the one with most of the schema's columns; all of them
    together, where the schema is of one row. A directory, or a list of paths, is the table of all
    the files in it; see `calibration.tables.parts`.
    """
    if isinstance(data, list | tuple) and data and all(map(is_path, data)):
        return _open_parts(data, data[0], schema)
    if not is_path(data):
        return MemoryTable(data, f"the {schema.title}")
    if os.path.isdir(data):
        return _open_parts(data, data, schema)
    tables = open_tables(data)
    bound = [len(bind(schema, table.columns).bindings) for table in tables]
    if schema.joined and sum(count > 0 for count in bound) > 1:
        return JoinedTable(t for t, count in zip(tables, bound, strict=True) if count)
    return tables[bound.index(max(bound))]


def _open_parts(data: Any, first: Any, schema: Schema) -> PartsTable:
    """Return the table of parts; of several tables in each, as in the first."""
    first = table_files(first)[0] if os.path.isdir(first) else first
    bound = [len(bind(schema, table.columns).bindings) for table in open_tables(first)]
    return PartsTable.of(data, bound.index(max(bound)))


class JoinedTable:
    """The first rows of several tables of a file, side by side, as one row.

    Parameters
    ----------
    tables : iterable of TableReader
    """

    def __init__(self, tables: Iterable[TableReader]) -> None:
        self._tables = tuple(tables)
        self.where, self.path = self._tables[0].where, self._tables[0].path
        self._table_of = {name: t for t in reversed(self._tables) for name in t.columns}
        self.columns: dict[str, Field] = {n: t.columns[n] for n, t in self._table_of.items()}
        self.meta = {k: v for t in reversed(self._tables) for k, v in t.meta.items()}

    def __len__(self) -> int:
        return 1

    def read(self, names: Iterable[str], rows: Rows = None) -> dict[str, np.ndarray]:
        """Return columns, (1, ...) each."""
        return {n: self._table_of[n].read([n], slice(0, 1))[n] for n in names}

    def blocks(self, names: Iterable[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns, (1, ...) each."""
        yield self.read(names)

    def fingerprint(self) -> str:
        """Return the SHA-256 checksum of the file."""
        return self._tables[0].fingerprint()

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "JoinedTable", *(table.__dask_tokenize__() for table in self._tables)

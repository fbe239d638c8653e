"""Parquet tables, written a block of rows at a time, with a checksum of all that they say.

Needs pyarrow: ``pip install 'skyfold[parquet]'``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from types import TracebackType
from typing import Any

import astropy.units as u
import numpy as np
import yaml
from astropy.table.meta import get_yaml_from_table

from .arrow import META, YAML, pyarrow
from .fields import Field, as_table, checked, filled, row_dtype, unit_of
from .memory import decoded
from .parquet_reader import CHECKSUM, ParquetTable

__all__ = ["ParquetWriter", "check_parquet"]


class ParquetWriter:
    """Writes a Parquet file, a row group of each block; no more than one is held in memory.

    Arrays are lists of fixed size, missing values are null. Units, descriptions, shapes and what is
    said of the table stand where pyarrow and where astropy look for them. Leaving the ``with``
    block completes the file.

    Parameters
    ----------
    path : path
        Replaced if it exists.
    fields : mapping of str to Field
        The columns, in the order of the file.
    meta : mapping, optional
        What is said of the table: whatever JSON can hold.

    Raises
    ------
    ImportError
        Without the package pyarrow.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> fields = {"a": Field(np.dtype("f8"), (3, 3), unit="mag")}
    >>> with TemporaryDirectory() as folder:
    ...     with ParquetWriter(f"{folder}/a.parquet", fields, {"VISIT": 3}) as file:
    ...         file.write({"a": np.ones((2, 3, 3))})
    ...     table = ParquetTable(f"{folder}/a.parquet")
    >>> table.columns["a"].shape, table.columns["a"].unit, table.meta["VISIT"]
    ((3, 3), 'mag', 3)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fields: Mapping[str, Field],
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self._pa = pyarrow()
        self._path = path
        meta = {key: _plain(value) for key, value in (meta or {}).items()}
        self._meta = json.loads(json.dumps(meta))  # as it will be read
        self._fields = {name: _stored(name, field) for name, field in fields.items()}

    def __enter__(self) -> ParquetWriter:
        fields = [_arrow_field(self._pa, *item) for item in self._fields.items()]
        self._schema = self._pa.schema(fields, metadata=_metadata(self._fields, self._meta))
        self._sum = _TableSum(self._fields, self._schema.metadata)
        self._writer = self._pa.parquet.ParquetWriter(
            self._path, self._schema, write_page_checksum=True
        )
        return self

    def write(self, rows: Mapping[str, np.ndarray] | np.ndarray) -> None:
        """Write a block: an (n, ...) array for each column, masked where values are missing."""
        columns = {name: _values(name, rows[name], field) for name, field in self._fields.items()}
        self._sum.add(columns)
        arrays = [
            _arrow_array(self._pa, field, *columns[name]) for name, field in self._fields.items()
        ]
        table = self._pa.table(arrays, schema=self._schema)
        self._writer.write_table(table, max(1, len(table)))

    def __exit__(
        self, kind: type | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._writer.add_key_value_metadata({CHECKSUM: self._sum.digest()})
        finally:
            self._writer.close()


def check_parquet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read all of a file, check its checksums, and return what is said of the table.

    Raises
    ------
    ImportError
        Without the package pyarrow.
    OSError, ValueError
        If the file is missing or damaged.
    """
    table = ParquetTable(path)
    total = _TableSum(table.columns, table.metadata)
    for block in table.blocks(list(table.columns)):
        total.add({name: filled(values) for name, values in block.items()})
    if table.checksum not in ("", total.digest()):
        raise ValueError("the table is not the one that was written")
    return table.meta


class _TableSum:
    """A checksum of a table; Parquet has none for what stands outside of the pages.

    However the rows are cut into blocks, it is the same.
    """

    def __init__(self, fields: Mapping[str, Field], metadata: Mapping[bytes, bytes]) -> None:
        kinds = [(n, f.dtype.kind, f.shape, f.unit, f.description) for n, f in fields.items()]
        self._start = repr((kinds, sorted(metadata.items()))).encode()
        self._values = {name: sha256() for name in fields}
        self._missing = {name: sha256() for name in fields}
        self._rows = 0

    def add(self, columns: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> None:
        """Add a block: values, and where they are missing."""
        for name, (values, missing) in columns.items():
            if values.dtype.kind == "U":
                texts = values.reshape(-1).tolist()
                self._values[name].update("".join(f"{len(t)}:{t}" for t in texts).encode())
            else:
                self._values[name].update(np.ascontiguousarray(values).data)
            if missing is not None:
                places = np.flatnonzero(missing) + self._rows * math.prod(values.shape[1:])
                self._missing[name].update(places.tobytes())
        self._rows += len(next(iter(columns.values()))[0]) if columns else 0

    def digest(self) -> str:
        """Return the checksum of all that was added."""
        parts = (*self._values.values(), *self._missing.values())
        return sha256(b"".join((self._start, *(part.digest() for part in parts)))).hexdigest()


def _stored(name: str, field: Field) -> Field:
    """Return the field as it stands in the file."""
    kind, size = field.dtype.kind, field.dtype.itemsize
    if kind not in "biufSU":
        raise TypeError(f"column {name} is {field.dtype}; numbers, truth values and texts are kept")
    if kind == "f":
        return replace(field, dtype=np.dtype(f"f{min(max(size, 4), 8)}"))
    if kind in "SU":
        return replace(field, dtype=np.dtype(f"U{max(size // (4 if kind == 'U' else 1), 1)}"))
    return replace(field, dtype=np.dtype(f"{kind}{size}"))


def _is_text(field: Field) -> bool:
    return field.dtype.kind == "U"


def _values(name: str, values: Any, field: Field) -> tuple[np.ndarray, np.ndarray | None]:
    """Return plain values as the file has them, and where they are missing."""
    values, missing = filled(checked(name, values, field))
    if not _is_text(field):
        return np.ascontiguousarray(values, field.dtype), missing
    values = decoded(values) if values.dtype.kind == "S" else np.strings.rstrip(values)
    if values.dtype.itemsize > field.dtype.itemsize:
        longest = int(np.strings.str_len(values).max(initial=0))
        if longest > field.dtype.itemsize // 4:
            raise ValueError(
                f"column {name} has a text of {longest} characters; its field says less"
            )
    return values, missing


def _plain(value: Any) -> Any:
    """Return a value of what is said of a table as JSON and YAML have it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _metadata(fields: Mapping[str, Field], meta: Mapping[str, Any]) -> dict[str, str]:
    """Return what the schema says: each key by itself, and all of it as astropy has it."""
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in meta.items()}
    flow = yaml.safe_dump(dict(meta), default_flow_style=True, width=math.inf, sort_keys=False)
    # Astropy wants to know how long texts can be.
    lengths = {name: field.dtype.itemsize // 4 for name, field in fields.items() if _is_text(field)}
    texts |= {f"table::len::{name}": str(length) for name, length in lengths.items()}
    columns = _yaml_columns(tuple(fields.items()))
    return texts | {META: json.dumps(meta), YAML: f"{columns}\nmeta: {flow}"}


@lru_cache(maxsize=32)
def _yaml_columns(fields: tuple[tuple[str, Field], ...]) -> str:
    known = {}
    for name, field in fields:
        unknown = isinstance(unit_of(field.unit), u.UnrecognizedUnit)
        known[name] = replace(field, unit="") if unknown else field
    return "\n".join(get_yaml_from_table(as_table(np.empty(0, row_dtype(known)), known)))


def _arrow_field(pa: Any, name: str, field: Field) -> Any:
    kind = pa.string() if _is_text(field) else pa.from_numpy_dtype(field.dtype)
    if field.shape:
        kind = pa.list_(kind, math.prod(field.shape))
    shape = json.dumps(field.shape) if field.shape else ""
    texts = {"unit": field.unit, "description": field.description, "shape": shape}
    return pa.field(name, kind, metadata={key: text for key, text in texts.items() if text})


def _arrow_array(pa: Any, field: Field, values: np.ndarray, missing: np.ndarray | None) -> Any:
    missing = None if missing is None else missing.reshape(-1)
    array = pa.array(values.reshape(-1), mask=missing)
    if not field.shape:
        return array
    return pa.FixedSizeListArray.from_arrays(array, math.prod(field.shape))

"""Parquet files, read by row groups. Needs pyarrow: ``pip install 'skyfold[parquet]'``.

Columns of arrays are lists, of fixed size or not, as LSST's and astropy's writers make them. Units
and what is said of the table are taken from where either of them puts it: the fields' metadata, and
``table_meta_yaml`` in the schema's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml
from astropy.table import Table
from astropy.table import meta as table_meta

from .schema import Found
from .source import Rows, file_fingerprint, numbered

__all__ = ["ParquetTable", "check_parquet", "pyarrow", "read_parquet", "write_parquet"]

_BATCH = 2**16  # rows


def pyarrow() -> ModuleType:
    """Return the package pyarrow, with pyarrow.parquet and pyarrow.compute.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        message = "Parquet files need the package pyarrow; pip install 'skyfold[parquet]'"
        raise ImportError(message) from error
    return pyarrow


class ParquetTable:
    """A Parquet file as a source.

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
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_parquet(f"{folder}/a.parquet", {"a": np.arange(6).reshape(3, 2)})
    ...     ParquetTable(f"{folder}/a.parquet").read(["a"], slice(1, 2))
    {'a': array([[2, 3]])}
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)
        self.stamp = _stamp(self.path)
        self.where = Path(self.path).name
        footer = _footer(self.path, self.stamp)
        schema = footer.schema.to_arrow_schema()
        self.meta, units = _described(schema.metadata or {})
        self.columns = {
            name: _found(footer, schema.field(name), units.get(name, ""))
            for name in dict.fromkeys(schema.names)
        }
        groups = range(footer.num_row_groups)
        self._starts = np.cumsum([0, *(footer.row_group(i).num_rows for i in groups)])

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
        with self._open() as file:
            table = file.read_row_groups(needed.tolist(), columns=[*names])
        if len(index) < len(table):
            span = (int(index[0]), int(index[-1]) + 1) if len(index) else (0, 0)
            whole = span[1] - span[0] == len(index)
            table = table.slice(span[0], len(index)) if whole else table.take(index)
        out = {name: self._array(name, table[name]) for name in names}
        return out if order is None else {n: _placed(v, order) for n, v in out.items()}

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield columns of all rows, some at a time."""
        with self._open() as file:
            for batch in file.iter_batches(_BATCH, columns=[*names]):
                yield {name: self._array(name, batch[name]) for name in names}

    def fingerprint(self) -> str:
        """Return the SHA-256 checksum of the file."""
        return file_fingerprint(self.path, self.stamp)

    def __dask_tokenize__(self) -> tuple:
        return "ParquetTable", self.path, self.stamp

    def _open(self) -> Any:
        footer = _footer(self.path, self.stamp)
        return pyarrow().parquet.ParquetFile(self.path, metadata=footer)

    def _array(self, name: str, values: Any) -> np.ndarray:
        """Return the numpy array of a column; NaN where a float is missing."""
        pa, found = pyarrow(), self.columns[name]
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        shape = (len(values), *found.shape)
        if found.shape:
            self._check_lengths(name, values, found.shape[0])
            values = values.flatten()
        if found.dtype.kind == "U":
            return np.array(values.cast(pa.string()).to_pylist(), str).reshape(shape)
        if values.null_count and found.dtype.kind != "f":
            raise ValueError(f"{self.where}: {values.null_count} values of {name} are missing")
        array = values.to_numpy(zero_copy_only=False)
        return np.array(array, found.dtype).reshape(shape)

    def _check_lengths(self, name: str, values: Any, length: int) -> None:
        pa = pyarrow()
        lengths = pa.compute.list_value_length(values)
        same = pa.compute.all(pa.compute.equal(lengths, length), min_count=0)
        if values.null_count or not same.as_py():
            raise ValueError(f"{self.where}: not all rows have {length} values of {name}")


def write_parquet(
    path: str | os.PathLike[str],
    columns: Mapping[str, np.ndarray],
    *,
    units: Mapping[str, str] | None = None,
    meta: Mapping[str, Any] | None = None,
    rows_per_group: int | None = None,
) -> None:
    """Write columns to a Parquet file that `ParquetTable`, astropy and pandas read.

    Parameters
    ----------
    path : path
        The file; replaced if it exists.
    columns : mapping of str to (n, ...) array
        Arrays, flattened, become lists of fixed size.
    units : mapping of str to str, optional
        Of those columns that have one.
    meta : mapping, optional
        What is said of the table: whatever JSON can hold.
    rows_per_group : int, optional
        Rows that are read at once; default pyarrow's, about a million.
    """
    pa = pyarrow()
    arrays, fields = [], []
    for name, values in columns.items():
        values = np.asarray(values)
        array = pa.array(values.reshape(-1).astype(values.dtype.newbyteorder("=")))
        if values.ndim > 1:
            array = pa.FixedSizeListArray.from_arrays(array, math.prod(values.shape[1:]))
        said = {"unit": (units or {}).get(name), "shape": json.dumps(values.shape[1:])}
        said = {key: text for key, text in said.items() if text and text != "[]"}
        fields.append(pa.field(name, array.type, metadata=said or None))
        arrays.append(array)
    said = {key: v if isinstance(v, str) else json.dumps(v) for key, v in (meta or {}).items()}
    table = pa.table(arrays, schema=pa.schema(fields, metadata=said))
    pa.parquet.write_table(table, path, row_group_size=rows_per_group, write_page_checksum=True)


def check_parquet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read all of a file, check its checksums, and return what is said of the table.

    Raises
    ------
    ImportError
        Without the package pyarrow.
    OSError
        If the file is missing or damaged.
    """
    with pyarrow().parquet.ParquetFile(path, page_checksum_verification=True) as file:
        file.read()
        return _described(file.schema_arrow.metadata or {})[0]


def read_parquet(path: str | os.PathLike[str]) -> Table:
    """Read a file that `write_parquet` wrote.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = f"{folder}/a.parquet"
    ...     write_parquet(path, {"a": np.ones((2, 3, 3))}, units={"a": "mag"}, meta={"VISIT": 3})
    ...     table = read_parquet(path)
    >>> table["a"].shape, str(table["a"].unit), table.meta["VISIT"]
    ((2, 3, 3), 'mag', '3')
    """
    source = ParquetTable(path)
    table = Table(source.read(list(source.columns)), meta=source.meta)
    schema = _footer(source.path, source.stamp).schema.to_arrow_schema()
    for name, found in source.columns.items():
        said = schema.field(name).metadata or {}
        if b"shape" in said:
            table[name] = table[name].reshape(len(table), *json.loads(said[b"shape"]))
        table[name].unit = found.unit or None
    return table


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=32)
def _cached_footer(path: str, stamp: tuple[int, int]) -> Any:
    pa = pyarrow()
    try:
        return pa.parquet.read_metadata(path)
    except pa.ArrowException as error:
        raise OSError(f"{path} is not a Parquet file, or damaged: {error}") from error


def _footer(path: str, stamp: tuple[int, int]) -> Any:
    """Return what a file says of itself at its end, if it is still the same file."""
    if _stamp(path) != stamp:
        raise OSError(f"{path} has changed since it was opened; open it again")
    return _cached_footer(path, stamp)


def _described(metadata: Mapping[bytes, bytes]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what is said of a table, and of its columns' units."""
    said = {key.decode(): value.decode() for key, value in metadata.items()}
    units = {}
    if text := said.pop("table_meta_yaml", ""):
        try:
            header = table_meta.get_header_from_yaml(text.splitlines())
        except (yaml.YAMLError, ValueError, KeyError):
            header = {}
        said |= header.get("meta", {})
        units = {c["name"]: str(c["unit"]) for c in header.get("datatype", ()) if "unit" in c}
    return said, units


def _found(footer: Any, field: Any, unit: str) -> Found:
    """Return what a column holds; the length of its lists from the number of their values."""
    pa = pyarrow()
    kind, shape, fault = field.type, (), ""
    if pa.types.is_fixed_size_list(kind):
        kind, shape = kind.value_type, (kind.list_size,)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        length = _list_length(footer, field.name)
        kind, shape = kind.value_type, (length or 0,)
        fault = "" if length else "holds a different number of values in each row"
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        dtype = np.dtype(str)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
    else:
        dtype, fault = np.dtype(object), f"holds {kind}"
    said = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    return Found(dtype, shape, said.get("unit", unit), fault)


def _list_length(footer: Any, name: str) -> int | None:
    """Return the length of a column's lists; None if there are several."""
    columns = range(footer.num_columns)
    paths = [footer.schema.column(i).path.split(".")[0] for i in columns]
    column = paths.index(name)
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    lengths = {g.column(column).num_values / g.num_rows for g in groups if g.num_rows}
    return int(lengths.pop()) if len(lengths) == 1 and min(lengths).is_integer() else None


def _placed(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    out[order] = values
    return out

"""Reads Parquet files by row groups. Needs pyarrow: ``pip install 'skyfold[parquet]'``.

Columns of arrays are lists, of fixed size or not, as LSST's and astropy's writers make them. Units
and what is said of the table are taken from where either of them puts it: the fields' metadata, and
``table_meta_yaml`` in the schema's.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml
from astropy.table import meta as table_meta

from mapreduce.optional import require

from .fields import Field, masked
from .reader import Rows, file_fingerprint, numbered

__all__ = ["CHECKSUM", "META", "YAML", "ParquetTable", "declared_shape", "pyarrow"]

_BATCH = 2**16  # rows
_ARROW = (b"ARROW:schema", b"pandas")  # how other packages would make their own types of it
YAML = "table_meta_yaml"
"""Where astropy looks for units, descriptions and what is said of a table."""
CHECKSUM = "CHECKSUM"
"""Where our own files have the checksum of the whole table."""
META = "skyfold_meta"
"""Where our own files say it, as JSON, which takes a hundredth of the time."""


def pyarrow() -> ModuleType:
    """Return the package pyarrow, with pyarrow.parquet and pyarrow.compute.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    needed = "Parquet files need the package pyarrow; pip install 'skyfold[parquet]'"
    for part in ("pyarrow.compute", "pyarrow.parquet"):
        require(part, needed)
    return require("pyarrow", needed)


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
        self.stamp = _stamp(self.path)
        self.where = Path(self.path).name
        footer = _footer(self.path, self.stamp)
        schema = footer.schema.to_arrow_schema()
        metadata = dict(footer.metadata or {})
        self.checksum = metadata.pop(CHECKSUM.encode(), b"").decode()
        self.metadata = {key: text for key, text in metadata.items() if key not in _ARROW}
        try:
            self.meta, columns = _described(metadata)
        except ValueError as error:
            raise OSError(f"{self.path} is damaged: {error}") from error
        self.columns = {
            name: _field(footer, schema.field(name), columns.get(name, {}), self._seen_length)
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
        """Yield columns of all rows, some at a time; pages that have checksums are checked."""
        with self._open(page_checksum_verification=True) as file:
            for batch in file.iter_batches(_BATCH, columns=[*names]):
                yield {name: self._array(name, batch[name]) for name in names}

    def fingerprint(self) -> str:
        """Return the SHA-256 checksum of the file."""
        return file_fingerprint(self.path, self.stamp)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "ParquetTable", self.path, self.stamp

    def _seen_length(self, name: str) -> int | None:
        """Return the length of a column's lists, null ones left out; None if there are several."""
        pa, lengths = pyarrow(), set()
        with self._open() as file:
            for batch in file.iter_batches(_BATCH, columns=[name]):
                found = pa.compute.unique(pa.compute.list_value_length(batch[0].drop_null()))
                lengths |= set(found.to_pylist())
        return lengths.pop() if len(lengths) == 1 else None

    def _open(self, **options: Any) -> Any:
        footer = _footer(self.path, self.stamp)
        return pyarrow().parquet.ParquetFile(self.path, metadata=footer, **options)

    def _array(self, name: str, values: Any) -> np.ndarray:
        """Return the numpy array of a column, masked where values are missing."""
        pa, field = pyarrow(), self.columns[name]
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if not field.shape:
            return _plain(values, field.dtype)
        present = values.is_valid().to_numpy(zero_copy_only=False)
        lists = values.drop_null() if values.null_count else values
        self._check_lengths(name, lists, math.prod(field.shape))
        found = _plain(lists.flatten(), field.dtype).reshape(len(lists), *field.shape)
        if not values.null_count:
            return found
        out = np.ma.zeros((len(values), *field.shape), found.dtype)
        out[present] = found
        return masked(
            out.data, np.ma.getmaskarray(out) | ~present.reshape(-1, *[1] * len(field.shape))
        )

    def _check_lengths(self, name: str, lists: Any, length: int) -> None:
        pa = pyarrow()
        same = pa.compute.equal(pa.compute.list_value_length(lists), length)
        if not pa.compute.all(same, min_count=0).as_py():
            raise ValueError(f"{self.where}: not all rows have {length} values of {name}")


def _plain(values: Any, dtype: np.dtype) -> np.ndarray:
    """Return single values as an array, masked where they are null."""
    pa = pyarrow()
    missing = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    if dtype.kind == "U":
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        texts = values.cast(kind).to_pylist()
        return masked(np.strings.rstrip(np.array([_text(text) for text in texts], str)), missing)
    if missing is not None:
        values = values.fill_null(False if dtype.kind == "b" else 0)
    return masked(np.array(values.to_numpy(zero_copy_only=False), dtype), missing)


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


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


def _described(
    metadata: Mapping[bytes, bytes],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return what is said of a table, and of its columns by name."""
    meta = {key.decode(): value.decode() for key, value in metadata.items() if key not in _ARROW}
    if META in meta:  # a file of ours, in which the fields say the rest
        return json.loads(meta[META]), {}
    text = meta.pop(YAML, "")
    try:
        header = table_meta.get_header_from_yaml(text.splitlines()) if text else {}
    except (table_meta.YamlParseError, yaml.YAMLError, ValueError, KeyError):
        header = {}
    columns = {column["name"]: column for column in header.get("datatype", ())}
    return meta | header.get("meta", {}), columns


def _field(
    footer: Any, field: Any, yaml_column: Mapping[str, Any], seen: Callable[[str], int | None]
) -> Field:
    """Return what a column holds; the length of its lists from the number of their values.

    Where some may be null, and the numbers do not tell, ``seen`` looks at the lists themselves.
    """
    pa = pyarrow()
    kind, fault = field.type, ""
    shape: tuple[int, ...] = ()
    text = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if pa.types.is_fixed_size_list(kind):
        kind, shape = kind.value_type, (kind.list_size,)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        length = _list_length(footer, field.name) or seen(field.name)
        kind, shape = kind.value_type, (length or 0,)
        fault = "" if length else "holds a different number of values in each row"
    declared = declared_shape(field)
    shape = declared if math.prod(declared) == math.prod(shape) else shape
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if any(is_text(kind) for is_text in _texts(pa)):
        dtype: np.dtype = np.dtype(str)
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
    else:
        dtype, fault = np.dtype(object), f"holds {kind}"
    unit, description = (
        text.get(name) or str(yaml_column.get(name) or "") for name in ("unit", "description")
    )
    return Field(dtype, shape, unit, description, dtype.kind in "biu", fault)


def declared_shape(field: Any) -> tuple[int, ...]:
    """Return the shape that the metadata of an array's field says; empty if they say none."""
    return tuple(json.loads((field.metadata or {}).get(b"shape", "[]")))


def _texts(pa: Any) -> tuple[Any, ...]:
    """Return the tests for the kinds of texts and of bytes, which other writers take for texts."""
    types = pa.types
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    return (*texts, types.is_binary, types.is_large_binary, types.is_binary_view)


def _list_length(footer: Any, name: str) -> int | None:
    """Return the length of a column's lists; None if there are several."""
    paths = [footer.schema.column(i).path for i in range(footer.num_columns)]
    # Such as name.list.element; other writers have other words.
    column = next(i for i, path in enumerate(paths) if path.startswith(f"{name}."))
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    lengths = {g.column(column).num_values / g.num_rows for g in groups if g.num_rows}
    if len(lengths) == 1 and min(lengths).is_integer():
        chunks = [group.column(column).statistics for group in groups]
        if all(chunk is not None and chunk.null_count == 0 for chunk in chunks):
            return int(lengths.pop())
    return None


def _placed(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    out = np.empty_like(values)
    out[order] = values
    return out

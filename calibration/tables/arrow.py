"""Columns as Arrow has them, of Parquet files and of tables in memory, as arrays of ours.

Needs pyarrow: ``pip install 'skyfold[parquet]'``. Columns of arrays are lists, of fixed size or
not, as LSST's and astropy's writers make them. Units and what is said of a table are taken from
where either of them puts it: the fields' metadata, and ``table_meta_yaml`` in the schema's.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import yaml
from astropy.table import meta as table_meta

from mapreduce.optional import require

from .fields import UNEQUAL, Field, masked, repeated

__all__ = [
    "META",
    "YAML",
    "arrow_column",
    "arrow_columns",
    "arrow_field",
    "arrow_values",
    "described",
    "only_length",
    "pyarrow",
    "taken",
]

YAML = "table_meta_yaml"
"""Where astropy looks for units, descriptions and what is said of a table."""
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


def described(
    metadata: Mapping[bytes, bytes],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return what a schema says of its table, and of its columns by name.

    Raises
    ------
    ValueError
        If it is ours, and damaged.
    """
    meta = {key.decode(): value.decode() for key, value in metadata.items()}
    if META in meta:  # a file of ours, in which the fields say the rest
        found = json.loads(meta[META])
        if not isinstance(found, dict):
            raise ValueError(f"{META} is {meta[META]:.80}; it must be an object of JSON")
        return found, {}
    text = meta.pop(YAML, "")
    try:
        header = table_meta.get_header_from_yaml(text.splitlines()) if text else {}
        columns = {column["name"]: column for column in header.get("datatype", ())}
        return meta | header.get("meta", {}), columns
    except (table_meta.YamlParseError, yaml.YAMLError, ValueError, LookupError, TypeError):
        return meta, {}  # not astropy's


def arrow_field(
    field: Any, yaml_column: Mapping[str, Any], length: Callable[[], int | None]
) -> Field:
    """Return what a column holds.

    Parameters
    ----------
    field : pyarrow.Field
    yaml_column : mapping
        What astropy says of it.
    length : callable
        Returns the number of values in each of a column's lists, None if there are several; called
        where their kind does not say.
    """
    found = _kind(field.type, length)
    declared = _declared_shape(field)
    if math.prod(declared) == math.prod(found.shape):
        found = replace(found, shape=declared)
    text = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    unit, description = (
        text.get(name) or str(yaml_column.get(name) or "") for name in ("unit", "description")
    )
    return replace(found, unit=unit, description=description)


def _declared_shape(field: Any) -> tuple[int, ...]:
    """Return the shape that the metadata of an array's field says; empty if they say none."""
    try:
        shape = json.loads((field.metadata or {}).get(b"shape", "[]"))
    except ValueError:
        return ()
    whole = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    return tuple(shape) if whole else ()


def _kind(kind: Any, length: Callable[[], int | None]) -> Field:
    """Return what values of a kind are."""
    pa, kind = pyarrow(), _stored(kind)
    if _is_list(kind):
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else length()
        inner = _kind(kind.value_type, lambda: None)
        fault = inner.fault if size else UNEQUAL
        return replace(inner, shape=(size or 0, *inner.shape), fault=fault)
    if pa.types.is_null(kind):  # nobody can tell what is missing
        return Field(np.dtype(np.float64))
    if _is_text(kind):
        return Field(np.dtype(str))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        return Field(dtype, nullable=dtype.kind in "biu")
    return Field(np.dtype(object), fault=f"holds {kind}")


def _stored(kind: Any) -> Any:
    """Return the kind of the values themselves."""
    pa = pyarrow()
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def _is_list(kind: Any) -> bool:
    return _is_one_of(kind, "list large_list fixed_size_list list_view large_list_view")


def _is_text(kind: Any) -> bool:
    """Whether values are texts, or bytes, which other writers take for texts."""
    return _is_one_of(
        kind,
        "string large_string string_view binary large_binary binary_view fixed_size_binary",
    )


def _is_one_of(kind: Any, names: str) -> bool:
    return any(getattr(pyarrow().types, f"is_{name}")(kind) for name in names.split())


def only_length(lists: Any, seen: set[int] | None = None) -> int | None:
    """Return the number of values in each list, null ones left out; None if there are several.

    Parameters
    ----------
    lists : pyarrow.Array or ChunkedArray
    seen : set of int, optional
        Lengths of other lists of the column; these are added.
    """
    compute = pyarrow().compute
    lengths = set() if seen is None else seen
    lengths |= {*compute.unique(compute.list_value_length(lists.drop_null())).to_pylist()}
    return next(iter(lengths)) if len(lengths) == 1 else None


def arrow_values(values: Any, field: Field) -> np.ndarray:
    """Return the numpy array of a column, masked where values are missing.

    Raises
    ------
    ValueError
        If its lists are not of the field's shape.
    """
    found, missing = _parts(values, field.dtype, math.prod(field.shape))
    missing = None if missing is None else missing.reshape(-1, *field.shape)
    return masked(found.reshape(-1, *field.shape), missing)


def _parts(values: Any, dtype: np.dtype, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Return values and where they are missing; of lists, ``size`` of each flattened row."""
    values = _decoded(values)
    if not _is_list(values.type):
        found, missing = _plain(values, dtype)
        return found.reshape(-1, 1), None if missing is None else missing.reshape(-1, 1)
    lists = values.drop_null() if values.null_count else values
    length = only_length(lists) if len(lists) else size
    found, missing = _parts(lists.flatten(), dtype, size // length if length else 0)
    if not length or found.size != len(lists) * size:
        raise ValueError(f"not all rows have {size} values")
    found = found.reshape(len(lists), size)
    missing = None if missing is None else missing.reshape(len(lists), size)
    if not values.null_count:
        return found, missing
    present = values.is_valid().to_numpy(zero_copy_only=False)
    whole = np.zeros((len(values), size), found.dtype)
    nowhere = np.ones(whole.shape, bool)
    whole[present], nowhere[present] = found, False if missing is None else missing
    return whole, nowhere


def taken(table: Any, rows: np.ndarray) -> Any:
    """Return rows of a table in any order; views cannot be taken as they are."""
    pa = pyarrow()
    views = (pa.types.is_string_view, pa.types.is_binary_view)
    for i, field in enumerate(table.schema):
        if any(is_view(field.type) for is_view in views):
            table = table.set_column(i, field.name, _decoded(table.column(i)))
    return table.take(rows)


def _decoded(values: Any) -> Any:
    """Return an array of the values themselves, in one piece."""
    pa = pyarrow()
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    while True:
        if isinstance(values.type, pa.BaseExtensionType):
            values = values.storage
        elif pa.types.is_dictionary(values.type):
            values = _decoded(values.dictionary).take(values.indices)
        elif pa.types.is_run_end_encoded(values.type):
            values = pa.compute.run_end_decode(values)
        elif pa.types.is_string_view(values.type):  # few functions know these
            return values.cast(pa.large_string())
        elif pa.types.is_binary_view(values.type):
            return values.cast(pa.large_binary())
        else:
            return values


def _plain(values: Any, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray | None]:
    """Return single values, and where they are null."""
    pa = pyarrow()
    missing = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
    if pa.types.is_null(values.type):
        return np.full(len(values), np.nan, dtype), missing
    if dtype.kind == "U":
        texts = [_text(text) for text in values.to_pylist()]
        return np.strings.rstrip(np.array(texts, str)), missing
    if missing is not None and dtype.kind != "f":  # of floats they are NaN by themselves
        values = values.fill_null(False if dtype.kind == "b" else 0)
    return np.array(values.to_numpy(zero_copy_only=False), dtype), missing


def _text(value: str | bytes | None) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value or ""


def arrow_columns(data: Any) -> tuple[dict[str, tuple[np.ndarray, Field]], dict[str, Any]]:
    """Return the columns of a table in memory with their fields, and what is said of the table.

    Parameters
    ----------
    data : pyarrow.Table, polars.DataFrame or other
        What has Arrow's protocol for streams or arrays.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    table = pyarrow().table(data)
    meta, texts = described(
        {key: text for key, text in (table.schema.metadata or {}).items() if key != b"pandas"}
    )
    columns: dict[str, tuple[np.ndarray, Field]] = {}
    counts = Counter(table.column_names)
    for field, values in zip(table.schema, table.columns, strict=True):
        whole, found = _with_values(field, texts.get(field.name, {}), values)
        columns[field.name] = whole, repeated(found, counts[field.name])
    return columns, meta


def arrow_column(values: Any) -> tuple[np.ndarray, Field]:
    """Return the values of a column by itself with its field, as `arrow_columns` does."""
    pa = pyarrow()
    array = pa.chunked_array if hasattr(values, "__arrow_c_stream__") else pa.array
    values = array(values)
    return _with_values(pa.field("column", values.type), {}, values)


def _with_values(field: Any, text: Mapping[str, Any], values: Any) -> tuple[np.ndarray, Field]:
    found = arrow_field(field, text, lambda: only_length(_decoded(values)))
    whole = np.empty(len(values), object) if found.fault else arrow_values(values, found)
    nullable = isinstance(whole, np.ma.MaskedArray)
    return whole, replace(found, dtype=whole.dtype, nullable=nullable)

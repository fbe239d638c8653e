"""Columns of tables in memory, whatever holds them, as arrays of ours.

What is missing is masked, however it is said: by a mask, None, NaN among objects, pandas' NA and
NaT, or Arrow's null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Table

from .arrow import arrow_column, arrow_columns
from .fields import UNEQUAL, Field, filled, masked, repeated

__all__ = ["columns_in", "decoded", "is_table"]

_ALIKE = (str, bytes, bool | np.bool_)  # kinds of objects, none of which is taken for a number


def is_table(data: Any) -> bool:
    """Whether something is a table in memory."""
    records = isinstance(data, np.ndarray) and data.dtype.names is not None
    return records or isinstance(data, Table | Mapping) or _is_frame(data) or _is_arrow(data)


def _is_frame(data: Any) -> bool:
    return hasattr(data, "columns") and hasattr(data, "__getitem__")


def _is_pandas(data: Any) -> bool:
    return _is_frame(data) and hasattr(data, "iloc") and hasattr(data, "reset_index")


def _is_series(data: Any) -> bool:
    return hasattr(data, "iloc") and hasattr(data, "dtype")


def _is_arrow(data: Any) -> bool:
    return hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__")


def columns_in(data: Any, where: str) -> tuple[dict[str, tuple[np.ndarray, Field]], dict[str, Any]]:
    """Return the columns of a table with their fields, and what is said of the table.

    Raises
    ------
    TypeError
        If it is none; ``where`` is what the message calls it.
    """
    if _is_arrow(data) and not _is_pandas(data):
        return arrow_columns(data)
    columns, meta = _columns(data, where)
    counts = Counter(name for name, _ in columns)
    found = {name: _found(column) for name, column in columns}
    return {n: (values, repeated(f, counts[n])) for n, (values, f) in found.items()}, meta


def _columns(data: Any, where: str) -> tuple[list[tuple[str, Any]], dict[str, Any]]:
    if isinstance(data, Table):
        return [(name, data[name]) for name in data.colnames], dict(data.meta)
    if isinstance(data, np.ndarray) and data.dtype.names:
        return [(name, data[name]) for name in data.dtype.names], {}
    if _is_pandas(data):
        return [*_of_pandas(data)], dict(data.attrs)
    if not isinstance(data, Mapping):
        if not _is_frame(data):
            raise TypeError(
                f"{where} is a path, an astropy Table, a mapping of arrays or a data frame, got "
                f"{type(data).__name__}"
            )
        data = {str(name): data[name] for name in data.columns}
    data = dict(data)
    meta = dict(data.pop("meta", {}))
    if any(_is_single(value) for value in data.values()):
        data = {name: _single(value) for name, value in data.items()}
    return [*data.items()], meta


def _is_single(value: Any) -> bool:
    return not (isinstance(value, list | tuple) or _is_arrow(value)) and np.ndim(value) == 0


def _single(value: Any) -> Any:
    return u.Quantity([value]) if isinstance(value, u.Quantity) else np.asarray(value)[None]


def _of_pandas(data: Any) -> Iterator[tuple[str, Any]]:
    """Yield columns, and the index where it has a name."""
    if any(name is not None for name in data.index.names):
        data = data.reset_index(drop=not {*data.index.names}.isdisjoint(data.columns))
    for i, name in enumerate(data.columns):
        yield str(name), data.iloc[:, i]


def _of_series(column: Any) -> np.ndarray:
    """Return a column of pandas as an array, of objects where it is no array of NumPy's."""
    if isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    objects = column.to_numpy(object, na_value=None)
    dtype = getattr(column.dtype, "numpy_dtype", objects.dtype)
    if dtype.kind not in "biuf":
        return objects
    values, missing, _ = _of_objects(objects)
    return masked(values.astype(dtype), missing)


def _found(column: Any) -> tuple[np.ndarray, Field]:
    if isinstance(column, list | tuple):  # NumPy would make texts of numbers, and of None
        with_unit = any(isinstance(value, u.Quantity) for value in column)
        column = u.Quantity(column) if with_unit else np.fromiter(column, object, len(column))
    elif _is_series(column):
        column = _of_series(column)
    elif _is_arrow(column):
        return arrow_column(column)
    values, fault = _values(column)
    unit = str(getattr(column, "unit", "") or "")
    text = getattr(getattr(column, "info", None), "description", "") or ""
    nullable = isinstance(values, np.ma.MaskedArray)
    return values, Field(values.dtype, values.shape[1:], unit, text, nullable, fault)


def _values(column: Any) -> tuple[np.ndarray, str]:
    """Return the array of a column, masked where values are missing; and why it can't be read."""
    column = column.value if isinstance(column, u.Quantity) else column
    if hasattr(column, "shape") and not hasattr(column, "__array__"):  # times, places on the sky
        return np.empty(len(column), object), f"holds {type(column).__name__}"
    mask = np.asarray(np.ma.getmaskarray(column)) if hasattr(column, "mask") else None
    array = np.array(column.unmasked if hasattr(column, "unmasked") else np.ma.getdata(column))
    fault = ""
    if array.dtype.kind in "OT":
        array, missing, fault = _of_objects(array.astype(object), mask)
        mask = missing if mask is None or missing.shape != mask.shape else mask | missing
    if array.dtype.kind == "S":
        array = decoded(array)
    if array.dtype.kind == "U":
        array = np.strings.rstrip(array)
    return masked(array.astype(array.dtype.newbyteorder("="), copy=False), mask), fault


def decoded(values: np.ndarray) -> np.ndarray:
    """Return bytes as texts, without trailing blanks.

    >>> decoded(np.array([b"SIM-G  ", b"SIM-R"])).tolist()
    ['SIM-G', 'SIM-R']
    """
    try:
        texts = values.astype(str)
    except UnicodeDecodeError:
        texts = np.strings.decode(values, "utf-8", "backslashreplace")
    return np.strings.rstrip(texts)


def _of_objects(
    array: np.ndarray, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Return what objects are, which of them are missing, and why it can't be read.

    Texts, bytes, truth values, numbers, or arrays of one shape.
    """
    missing = np.array([_is_missing(value) for value in array.flat], bool).reshape(array.shape)
    missing = missing if mask is None else missing | mask
    present = array[~missing]
    if not len(present):  # nobody can tell what is missing
        return np.full(array.shape, np.nan), missing, ""
    if any(isinstance(value, list | tuple | np.ndarray) for value in present):
        return _of_arrays(array, missing)
    kinds = {next((k for k in _ALIKE if isinstance(value, k)), None) for value in present}
    if len(kinds) > 1:
        return array, missing, "holds values of several kinds"
    try:
        found = np.array(present.tolist(), _whole_dtype(present))
    except (OverflowError, TypeError, ValueError):
        found = present
    if found.dtype.kind == "O" or found.shape != present.shape:
        return array, missing, f"holds {type(present[0]).__name__} objects"
    out = np.zeros(array.shape, found.dtype)
    out[~missing] = found
    return out, missing, ""


def _whole_dtype(values: np.ndarray) -> type | None:
    """Return the kind of whole numbers that these are, where NumPy could take them for floats."""
    if not all(isinstance(value, Integral) and not isinstance(value, bool) for value in values):
        return None
    return np.uint64 if max(values) >= 2**63 else np.int64


def _of_arrays(array: np.ndarray, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Return an array of arrays, the rows of a column, as one."""
    rows = [filled(_found(value)[0]) for value in array[~missing]]
    if len({values.shape for values, _ in rows}) > 1 or array.ndim > 1:
        return array, missing, UNEQUAL
    # A row of which nobody can tell what is missing goes with any other.
    dtypes = {v.dtype for v, mask in rows if mask is None or not mask.all()} or {np.dtype(float)}
    kinds = {dtype.kind for dtype in dtypes}
    if "O" in kinds or (len(kinds) > 1 and not kinds <= {*"iuf"}):
        return array, missing, "holds values of several kinds"
    shape = rows[0][0].shape
    rows = [(np.zeros(shape) if mask is not None and mask.all() else v, mask) for v, mask in rows]
    out = np.zeros((len(array), *shape), np.result_type(*dtypes))
    nowhere = np.ones(out.shape, bool)
    out[~missing] = np.array([v.astype(out.dtype) for v, _ in rows])
    nowhere[~missing] = [np.zeros(shape, bool) if mask is None else mask for _, mask in rows]
    return out, nowhere, ""


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "MaskedConstant"):
        return True
    return not isinstance(value, list | tuple | np.ndarray) and bool(value != value)

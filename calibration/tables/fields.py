"""What a table says of its columns, and what stands where a value is missing.

A column with missing values is a masked array wherever it goes, of any kind of values; under the
mask are NaN, 0, False or an empty text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import astropy.units as u
import numpy as np
from astropy.table import Column, MaskedColumn, Table

__all__ = [
    "UNEQUAL",
    "Field",
    "as_table",
    "checked",
    "fields_like",
    "fields_of",
    "filled",
    "masked",
    "repeated",
    "row_dtype",
    "unit_of",
    "with_nan",
]

_BLANKS = {"f": np.nan, "U": "", "S": b"", "b": False}


@dataclass(frozen=True)
class Field:
    """A column of a table.

    Parameters
    ----------
    dtype : numpy.dtype
        Of one value.
    shape : tuple of int
        Of a row's values.
    unit : str
        Empty if it has none, or the table does not say.
    description : str
    nullable : bool
        Whether whole numbers or truth values may be missing. Others have a value for that in FITS.
    fault : str
        Why it can't be read, if it can't.
    """

    dtype: np.dtype
    shape: tuple[int, ...] = ()
    unit: str = ""
    description: str = ""
    nullable: bool = False
    fault: str = ""


UNEQUAL = "holds a different number of values in each row"
"""A fault of columns of lists."""


def repeated(field: Field, count: int) -> Field:
    """Return the field of a column whose name several have, by which none can be asked for."""
    return replace(field, fault=f"is there {count} times") if count > 1 else field


def row_dtype(fields: Mapping[str, Field]) -> np.dtype:
    """Return the dtype of a row.

    Examples
    --------
    >>> row_dtype({"id": Field(np.dtype("i8")), "xy": Field(np.dtype("f4"), (2,), "pix")})
    dtype([('id', '<i8'), ('xy', '<f4', (2,))])
    """
    return np.dtype([(name, field.dtype, field.shape) for name, field in fields.items()])


def fields_of(table: Table) -> dict[str, Field]:
    """Return the fields of a table in memory."""
    return {
        column.name: Field(
            column.dtype.base.newbyteorder("="),
            column.shape[1:],
            "" if column.unit is None else column.unit.to_string(),
            column.description or "",
            nullable=_mask(column) is not None,
        )
        for column in table.itercols()
    }


def fields_like(
    columns: Mapping[str, np.ndarray], texts: Mapping[str, tuple[str, str]]
) -> dict[str, Field]:
    """Return fields of the kinds that columns are of.

    Parameters
    ----------
    columns : mapping of str to (n, ...) array
    texts : mapping of str to (str, str)
        Unit and description of each, empty for none; in the order of the fields.
    """
    arrays = {name: np.asanyarray(columns[name]) for name in texts}
    return {
        name: Field(arrays[name].dtype, arrays[name].shape[1:], unit, description)
        for name, (unit, description) in texts.items()
    }


def as_table(
    columns: Mapping[str, np.ndarray] | np.ndarray,
    fields: Mapping[str, Field],
    meta: Mapping[str, Any] | None = None,
) -> Table:
    """Return columns as a table with units and descriptions.

    Parameters
    ----------
    columns : mapping of str to (n, ...) array, or (n,) structured array
    fields : mapping of str to Field
    meta : mapping, optional
        What is said of the table.
    """
    made = []
    for name, field in fields.items():
        values = columns[name]
        kind = MaskedColumn if isinstance(values, np.ma.MaskedArray) else Column
        # Of a structured array a column by itself: it takes less memory, and less time.
        values = values.copy() if isinstance(columns, np.ndarray) else values
        text = {"unit": unit_of(field.unit), "description": field.description or None}
        made.append(kind(values, name=name, **text, copy=False))
    return Table(made, meta=dict(meta or {}), copy=False)


def checked(name: str, values: Any, field: Field) -> np.ndarray:
    """Return values that are to be written, once they are seen to be as a field says.

    Raises
    ------
    TypeError
        If they are of another kind.
    ValueError
        If a row has another shape.
    """
    values = np.asanyarray(values)
    if values.shape[1:] != field.shape:
        raise ValueError(
            f"column {name} has rows of shape {values.shape[1:]}; its field says {field.shape}"
        )
    texts = values.dtype.kind in "SU" and field.dtype.kind in "SU"
    if not texts and not np.can_cast(values.dtype, field.dtype, "same_kind"):
        raise TypeError(f"column {name} is {values.dtype}; its field says {field.dtype}")
    return values


def unit_of(text: str) -> u.UnitBase | None:
    """Return the unit that a text names; one that is not known stays as it is."""
    return u.Unit(text, parse_strict="silent") if text else None


def masked(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Return values, masked where they are missing, if any are."""
    if mask is None or not mask.any():
        return values
    values = np.array(values)
    values[mask] = _BLANKS.get(values.dtype.kind, 0)
    return np.ma.MaskedArray(values, mask)


def filled(values: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return plain values and where they are missing, None for nowhere; what `masked` undoes.

    Examples
    --------
    >>> filled(np.ma.array([1.0, 2.0], mask=[True, False]))
    (array([nan,  2.]), array([ True, False]))
    """
    mask, values = _mask(values), np.asarray(np.ma.getdata(values))
    return (values, None) if mask is None else (np.asarray(masked(values, mask)), mask)


def with_nan(values: Any) -> np.ndarray:
    """Return plain numbers: as they are if none is missing, else float64 with NaN for those.

    Examples
    --------
    >>> with_nan(np.ma.array([1, 2], mask=[True, False]))
    array([nan,  2.])
    """
    values, mask = filled(values)
    return values if mask is None else np.where(mask, np.nan, values)


def _mask(values: Any) -> np.ndarray | None:
    """Return where values are missing; None if nowhere."""
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    return mask if mask is not None and mask.any() else None

"""Tables of any length as FITS and Parquet files, written a block of rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table
from astropy.table.meta import get_yaml_from_table

from mapreduce.io.stream import complete_first

from .fits_write import FitsRows
from .parquet import pyarrow

__all__ = ["SUFFIXES", "Field", "as_table", "dtype_of", "write_rows"]


class Field(NamedTuple):
    """A column of numbers.

    Attributes
    ----------
    name : str
    dtype : str
        Of 4 or 8 bytes.
    unit : str
        Empty if it has none.
    description : str
    """

    name: str
    dtype: str
    unit: str
    description: str


def dtype_of(fields: Iterable[Field]) -> np.dtype:
    """Return the dtype of a row.

    Examples
    --------
    >>> dtype_of([Field("id", "i8", "", "number"), Field("ra", "f8", "deg", "position")])
    dtype([('id', '<i8'), ('ra', '<f8')])
    """
    return np.dtype([(field.name, field.dtype) for field in fields])


def as_table(rows: np.ndarray, fields: Iterable[Field], meta: Mapping[str, Any]) -> Table:
    """Return rows as a table with units and descriptions.

    Parameters
    ----------
    rows : (n,) structured array
    fields : iterable of Field
    meta : mapping
        What is said of the table.
    """
    table = Table(rows, meta=dict(meta))
    for name, _, unit, description in fields:
        table[name].unit = unit or None
        table[name].description = description
    return table


def write_rows(
    path: Path,
    blocks: Iterable[np.ndarray],
    fields: tuple[Field, ...],
    meta: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write rows to a FITS or Parquet file, of which one block at a time is held.

    The file gets its name when all of it is written. FITS files have checksums of headers and data;
    Parquet files of their pages, and a row group of each block.

    Parameters
    ----------
    path : Path
        Ends in ``.fits`` or ``.parquet``.
    blocks : iterable of (n,) structured arrays
        Of `dtype_of` the fields.
    fields : tuple of Field
    meta : mapping
        What is said of the table: numbers and texts by names of up to 8 characters.
    overwrite : bool, optional
        Whether a file that is there is replaced.

    Raises
    ------
    FileExistsError
        If the file is there, and is not to be replaced.
    ImportError
        If it is to be Parquet and pyarrow is not installed.
    OSError
        If it cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> fields = (Field("id", "i8", "", "number"), Field("mag", "f8", "mag", "AB magnitude"))
    >>> rows = np.array([(1, 18.5), (2, 19.5)], dtype_of(fields))
    >>> with TemporaryDirectory() as place:
    ...     write_rows(Path(place, "a.fits"), [rows, rows[:1]], fields, {"TRACT": 7})
    ...     table = Table.read(Path(place, "a.fits"))
    >>> table["mag"].tolist(), table["mag"].unit, table.meta["TRACT"]
    ([18.5, 19.5, 18.5], Unit("mag"), 7)
    """
    with complete_first(path, overwrite) as temporary:
        _WRITERS[path.suffix](temporary, blocks, fields, meta)


def _write_fits(
    path: Path, blocks: Iterable[np.ndarray], fields: tuple[Field, ...], meta: Mapping[str, Any]
) -> None:
    columns = {name: (unit, description) for name, _, unit, description in fields}
    with FitsRows(path, columns, meta) as file:
        for rows in chain([np.empty(0, dtype_of(fields))], blocks):
            file.write(rows)


def _write_parquet(
    path: Path, blocks: Iterable[np.ndarray], fields: tuple[Field, ...], meta: Mapping[str, Any]
) -> None:
    pa = pyarrow()
    said = {key: str(value) for key, value in meta.items()}
    # Astropy looks here for units, descriptions and what is said of the table.
    said["table_meta_yaml"] = f"{_yaml_columns(fields)}\nmeta: {json.dumps(dict(meta))}"
    schema = pa.schema([_parquet_field(pa, field) for field in fields], metadata=said)
    with pa.parquet.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for rows in blocks:
            columns = [np.ascontiguousarray(rows[field.name]) for field in fields]
            writer.write_table(pa.table(columns, schema=schema), max(1, len(rows)))


@lru_cache(maxsize=8)
def _yaml_columns(fields: tuple[Field, ...]) -> str:
    return "\n".join(get_yaml_from_table(as_table(np.empty(0, dtype_of(fields)), fields, {})))


def _parquet_field(pa: Any, field: Field) -> Any:
    kind = pa.from_numpy_dtype(np.dtype(field.dtype))
    said = {"unit": field.unit, "description": field.description}
    return pa.field(field.name, kind, metadata={key: text for key, text in said.items() if text})


_WRITERS = {".fits": _write_fits, ".parquet": _write_parquet}
SUFFIXES = tuple(_WRITERS)
"""What the names of files may end in."""

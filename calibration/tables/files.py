"""One product as a FITS or Parquet file: all of it or nothing, with checksums of all that it says.

Plain tables, which other tools read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from mapreduce.io.stream import complete_first

from . import parquet
from .fits_checksum import check_fits
from .fits_write import write_fits_rows

__all__ = ["SUFFIXES", "check_table", "read_table", "write_table"]

_CHECKSUM = "CHECKSUM"


def write_table(
    path: str | os.PathLike[str], table: Table, meta: Mapping[str, Any] | None = None
) -> None:
    """Write a table to a ``.fits`` or ``.parquet`` file, all of it or nothing.

    Units of columns, in FITS their descriptions, and ``table.meta`` are kept. FITS files have
    checksums of headers and data, Parquet files of their pages and of what the table says. What is
    there is replaced.

    Parameters
    ----------
    path : path
    table : Table
        Of columns of signed numbers, truth values or texts.
    meta : mapping, optional
        More to be said of the table: numbers and texts by names of up to 8 characters.

    Raises
    ------
    OSError
        If it cannot be written.
    TypeError
        If a column holds something else.
    ValueError
        If the name ends in something else.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"{path}: a table ends in {' or '.join(_WRITERS)}")
    for column in table.itercols():
        if column.dtype.kind not in "bifSU":
            raise TypeError(
                f"column {column.name} is {column.dtype}; signed numbers, truth values and texts "
                "can be kept"
            )
    try:
        with complete_first(path, overwrite=True) as temporary:
            _WRITERS[path.suffix](temporary, table, {**table.meta, **(meta or {})})
    except OSError as error:
        error.filename = os.fspath(path)  # that of a full disk has none
        raise


def check_table(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return what a file that `write_table` wrote says of its table, once it is seen to be whole.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or another kind of file.
    """
    path = Path(path)
    try:
        return _CHECKERS[path.suffix](path)
    except FileNotFoundError:
        raise
    except (EOFError, OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {str(error) or 'it ends too early'}") from None


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a table that `write_table` wrote, all of it, and check that it is undamaged.

    Raises
    ------
    FileNotFoundError, ValueError
        As `check_table`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     write_table(Path(place, "a.fits"), Table({"x": [1.5, 2.5]}, meta={"VISIT": 3}))
    ...     table = read_table(Path(place, "a.fits"))
    >>> table["x"].tolist(), table.meta["VISIT"]
    ([1.5, 2.5], 3)
    """
    path = Path(path)
    check_table(path)
    return Table.read(path, hdu=1) if path.suffix == ".fits" else parquet.read_parquet(path)


# FITS


def _write_fits(path: Path, table: Table, meta: Mapping[str, Any]) -> None:
    said = {
        c.name: ("" if c.unit is None else c.unit.to_string("fits"), c.description or "")
        for c in table.itercols()
    }
    write_fits_rows(path, said, table, meta)


def _checked_fits(path: Path) -> Mapping[str, Any]:
    return check_fits(path.read_bytes())


# Parquet


def _write_parquet(path: Path, table: Table, meta: Mapping[str, Any]) -> None:
    columns, units = _parts(table)
    said = {key: v if isinstance(v, str) else json.dumps(v) for key, v in meta.items()}
    said[_CHECKSUM] = _table_sum(columns, units, said)
    parquet.write_parquet(path, columns, units=units, meta=said)


def _checked_parquet(path: Path) -> dict[str, Any]:
    """Return what a file says of its table, once pages and table are seen to be whole."""
    said = parquet.check_parquet(path)
    if _CHECKSUM in said:
        others = {key: value for key, value in said.items() if key != _CHECKSUM}
        if _table_sum(*_parts(parquet.read_parquet(path)), others) != said[_CHECKSUM]:
            raise ValueError("the table is not the one that was written")
    return said


def _parts(table: Table) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the columns of a table, and the units of those that have one."""
    columns = {column.name: np.asarray(column) for column in table.itercols()}
    return columns, {c.name: c.unit.to_string() for c in table.itercols() if c.unit is not None}


def _table_sum(
    columns: Mapping[str, np.ndarray], units: Mapping[str, str], said: Mapping[str, str]
) -> str:
    """Return the checksum of a table; Parquet has none for what stands outside of the pages."""
    shapes = [(n, c.dtype.kind, c.shape, units.get(n, "")) for n, c in columns.items()]
    digest = hashlib.sha256(repr((shapes, sorted(said.items()))).encode())
    for column in columns.values():
        texts = column.dtype.kind in "SU"
        digest.update(repr(column.tolist()).encode() if texts else np.ascontiguousarray(column))
    return digest.hexdigest()


_WRITERS = {".fits": _write_fits, ".parquet": _write_parquet}
_CHECKERS = {".fits": _checked_fits, ".parquet": _checked_parquet}
SUFFIXES = tuple(_WRITERS)
"""What the names of files may end in."""

"""Tables as files, by what their names end in: opened, read, written and checked.

There is one reader and one writer for each format; here is the list of them. What is written is
plain: astropy, pyarrow, pandas and polars read it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.table import Table

from mapreduce.io.stream import complete_first

from .arrow import pyarrow
from .fields import Field, as_table, fields_of
from .fits_checksum import check_fits
from .fits_reader import fits_tables
from .fits_writer import FitsWriter
from .parquet_reader import ParquetTable
from .parquet_writer import ParquetWriter, check_parquet
from .reader import TableReader

__all__ = [
    "ENDINGS",
    "SUFFIXES",
    "TableWriter",
    "check_format",
    "check_table",
    "is_path",
    "is_table",
    "open_tables",
    "read_table",
    "table_writer",
    "write_table",
]

ENDINGS = {
    "fits": (".fits", ".fits.gz", ".fits.fz", ".fit", ".fit.gz"),
    "parquet": (".parquet", ".parq", ".pq"),
}
"""How names of files that are read end, by format; in capitals, too."""

SUFFIXES = (".fits", ".parquet")
"""What the names of files that are written may end in."""


class TableWriter(Protocol):
    """A table that is being written."""

    def write(self, rows: Mapping[str, np.ndarray] | np.ndarray) -> None:
        """Write a block: an (n, ...) array for each column, masked where values are missing."""


def is_path(data: Any) -> bool:
    """Whether something names a file or folder."""
    return isinstance(data, str | os.PathLike)


def open_tables(path: str | os.PathLike[str]) -> list[TableReader]:
    """Return what reads the tables of a file: of FITS there may be several.

    Raises
    ------
    ImportError
        If it is Parquet and pyarrow is not installed.
    OSError
        If it is missing, damaged, or of another format.
    ValueError
        If there is no table.
    """
    if Path(path).name.lower().endswith(ENDINGS["parquet"]):
        return [ParquetTable(path)]
    return [*fits_tables(path)]


def is_table(name: str) -> bool:
    """Whether a file's name ends as those of tables do.

    Examples
    --------
    >>> is_table("a.PARQUET"), is_table("a.fits.gz"), is_table("a.csv")
    (True, True, False)
    """
    return any(name.lower().endswith(endings) for endings in ENDINGS.values())


def check_format(suffix: str) -> None:
    """Check that files whose names end so can be written.

    Raises
    ------
    ImportError
        If they are Parquet and pyarrow is not installed.
    ValueError
        If there is no such format.
    """
    if suffix not in SUFFIXES:
        raise ValueError(f"a table ends in {' or '.join(SUFFIXES)}, not {suffix!r}")
    if suffix == ".parquet":
        pyarrow()


@contextmanager
def table_writer(
    path: str | os.PathLike[str],
    fields: Mapping[str, Field],
    meta: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> Iterator[TableWriter]:
    """Give out what writes a file block by block; the file gets its name when all is written.

    FITS files have checksums of headers and data, Parquet files of their pages and of all that the
    table says.

    Parameters
    ----------
    path : path
        Ends in ``.fits`` or ``.parquet``.
    fields : mapping of str to Field
        The columns.
    meta : mapping, optional
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
    TypeError
        If a column is of a kind that the format does not have.
    ValueError
        If the name ends in something else.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> fields = {"id": Field(np.dtype("i8")), "mag": Field(np.dtype("f8"), (), "mag", "AB")}
    >>> with TemporaryDirectory() as place:
    ...     with table_writer(f"{place}/a.fits", fields, {"TRACT": 7}) as file:
    ...         file.write({"id": np.array([1, 2]), "mag": np.array([18.5, 19.5])})
    ...         file.write({"id": np.array([3]), "mag": np.array([18.5])})
    ...     table = Table.read(f"{place}/a.fits")
    >>> table["mag"].tolist(), table["mag"].unit, table.meta["TRACT"]
    ([18.5, 19.5, 18.5], Unit("mag"), 7)
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path}: a table ends in {' or '.join(SUFFIXES)}")
    if not fields:
        raise ValueError(f"{path}: a table without columns cannot be written")
    kind = FitsWriter if path.suffix == ".fits" else ParquetWriter
    with complete_first(path, overwrite) as temporary:
        try:
            with kind(temporary, fields, meta) as writer:
                yield writer
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT) and error.filename is None
            if full or error.filename == os.fspath(temporary):
                error.filename = os.fspath(path)
            error.add_note(f"while writing {path}")
            raise
        except (TypeError, ValueError) as error:
            error.add_note(f"while writing {path}")
            raise


def write_table(
    path: str | os.PathLike[str],
    table: Table,
    meta: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = True,
) -> None:
    """Write a table to a file at once, with ``table.meta`` and more; see `table_writer`."""
    everything = {**table.meta, **(meta or {})}
    with table_writer(path, fields_of(table), everything, overwrite=overwrite) as file:
        file.write({column.name: column for column in table.itercols()})


def check_table(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Return what a file that we wrote says of its table, once it is seen to be whole.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or another kind of file.
    """
    path = Path(path)
    try:
        return check_fits(path.read_bytes()) if path.suffix == ".fits" else check_parquet(path)
    except FileNotFoundError:
        raise
    except (EOFError, OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {str(error) or 'it ends too early'}") from None


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a table that we wrote, all of it, and check that it is undamaged.

    Raises
    ------
    FileNotFoundError, ValueError
        As `check_table`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     write_table(f"{place}/a.fits", Table({"x": [1.5, 2.5]}, meta={"VISIT": 3}))
    ...     table = read_table(f"{place}/a.fits")
    >>> table["x"].tolist(), table.meta["VISIT"]
    ([1.5, 2.5], 3)
    """
    check_table(path)
    (table,) = open_tables(path)
    return as_table(table.read(list(table.columns)), table.columns, table.meta)

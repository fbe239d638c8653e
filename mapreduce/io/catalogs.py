"""Catalogs, which runs collect, as files; astropy writes them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from astropy.table import Table

from ..reducers.tables import as_table
from .stream import check_free, complete_first

__all__ = ["CATALOGS", "check_catalog_target", "write_catalog"]

CATALOGS = {".parquet": "parquet", ".fits": "fits", ".ecsv": "ascii.ecsv", ".csv": "ascii.csv"}
"""Astropy's names of the formats that catalogs are written in, by what names of files end in."""


def check_catalog_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Find out before a long run whether a catalog can be written there; return the format.

    Raises
    ------
    FileExistsError
        If the file is there, and is not to be replaced.
    FileNotFoundError
        If there is no such folder.
    ImportError
        If it is to be Parquet and pyarrow is not installed.
    ValueError
        If the name ends in something else.
    """
    suffix = Path(path).suffix
    if suffix not in CATALOGS:
        raise ValueError(f"{path}: a catalog ends in {', '.join(CATALOGS)}")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ImportError("Parquet needs pyarrow: pip install 'skyfold[parquet]'; or write .ecsv")
    check_free(path, overwrite)
    return CATALOGS[suffix]


def write_catalog(catalog: Any, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
    """Write a table of any kind that mappers may return; return the number of its rows.

    The file gets its name when it is complete. The report is left out of its header, which FITS
    has no room for; the number of cells that failed, ``MRFAILED``, is in it.

    Raises
    ------
    TypeError
        If it is not a table.
    OSError, ImportError, ValueError
        As `check_catalog_target`; or if it cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_catalog({"x": [1.0, 2.0]}, f"{folder}/stars.ecsv")
    2
    """
    format = check_catalog_target(path, overwrite=overwrite)
    nothing = isinstance(catalog, list) and not catalog  # of cells that found nothing
    table = Table() if nothing else as_table(catalog, "the mapper")
    table.meta.pop("MRREPORT", None)
    with complete_first(Path(path), overwrite) as temporary:
        table.write(temporary, format=format)
    return len(table)

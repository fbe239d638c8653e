"""Our Parquet tables in astropy: arrays in their shapes, and missing values masked.

``Table.read`` makes of every array of a Parquet file a flat one, of whole numbers with one missing
floats, and of a text that is missing the word None. Files that `calibration.tables.parquet_writer`
wrote are read by our own reader once `calibration` is imported; others, and parts of files that
are chosen by astropy's options, as ever.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from astropy.io import registry
from astropy.table import Table

from .arrow import META, pyarrow
from .fields import as_table
from .parquet_reader import ParquetTable

__all__ = ["read", "register"]


def read(source: Any, *args: Any, **options: Any) -> Table:
    """Read a table: all of one of ours by our own reader."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if args or options or not (isinstance(path, str | os.PathLike) and os.path.isfile(path)):
        return _original()(source, *args, **options)
    if META.encode() not in (pyarrow().parquet.read_schema(path).metadata or {}):
        return _original()(source)
    table = ParquetTable(path)
    return as_table(table.read(list(table.columns)), table.columns, table.meta)


@cache
def _original() -> Any:
    return registry.get_reader("parquet", Table)


def register() -> None:
    """Make `read` what astropy reads Parquet files by."""
    if _original() is not read:
        registry.register_reader("parquet", Table, read, force=True)

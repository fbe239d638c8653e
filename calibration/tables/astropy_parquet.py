"""Our Parquet tables in astropy: arrays in their shapes, and texts that are missing masked.

``Table.read`` makes of every array of a Parquet file a flat one, and of a text that is missing the
word None. Of files that `calibration.tables.parquet_writer` wrote this is mended when `calibration`
is imported, by a reader around the one that astropy has; other files are read as ever.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from astropy.io import registry
from astropy.table import MaskedColumn, Table

from .parquet_reader import declared_shape, pyarrow
from .parquet_writer import CHECKSUM

__all__ = ["read", "register"]


def read(source: Any, *args: Any, **options: Any) -> Table:
    """Read a table as astropy does, and mend it if it is one of ours."""
    table = _original()(source, *args, **options)
    parquet = pyarrow().parquet
    if CHECKSUM.encode() not in (parquet.ParquetFile(source).metadata.metadata or {}):
        return table
    schema = parquet.read_schema(source)
    for name in set(table.colnames) & set(schema.names):
        if shape := declared_shape(schema.field(name)):
            table[name] = table[name].reshape(len(table), *shape)
        elif table[name].dtype.kind == "U" and "None" in table[name]:
            values = parquet.read_table(source, columns=[name], filters=options.get("filters"))[
                name
            ]
            missing = np.asarray(values.is_null())
            texts = MaskedColumn(table[name], mask=missing)
            texts[missing] = ""
            texts.mask = missing
            table[name] = texts
    return table


@cache
def _original() -> Any:
    return registry.get_reader("parquet", Table)


def register() -> None:
    """Make `read` what astropy reads Parquet files by."""
    if _original() is not read:
        registry.register_reader("parquet", Table, read, force=True)

"""The partitions of tables of sources, whatever holds them; a partition is read in one task."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

from dask.delayed import Delayed, delayed

from ..tables.catalog import open_table
from ..tables.files import ENDINGS
from ..tables.memory import is_table
from ..tables.parts import table_files
from ..tables.reader import MemoryTable, TableReader
from ..tables.schema import Schema

__all__ = [
    "FilePartition",
    "LaterPartition",
    "Partition",
    "TablePartition",
    "identity_of",
    "partitions_of",
    "resolved",
]

_ROWS = 2**20  # of a partition of a table in memory
_ENDINGS = tuple(suffix for suffixes in ENDINGS.values() for suffix in suffixes)


@dataclass(frozen=True)
class FilePartition:
    """A file, or some rows of it.

    Attributes
    ----------
    name : str
        Of the result, without what a file's name ends in.
    path : str
    span : (int, int) or None
        The first row and the one after the last.
    """

    name: str
    path: str
    span: tuple[int, int] | None = None

    @property
    def rows(self) -> slice | None:
        """The rows of the source."""
        return None if self.span is None else slice(*self.span)

    def open(self, schema: Schema) -> TableReader:
        """Open the file; of several tables, that with most of the schema's columns."""
        # As a list of one, it has what hive partitions say in its path.
        return open_table([self.path] if "=" in self.path else self.path, schema)

    def identity(self) -> tuple[object, ...]:
        """Return what tells it from others, and from what it was before a change."""
        status = os.stat(self.path)
        return self.name, status.st_size, status.st_mtime_ns, self.span


class TablePartition:
    """A table in memory.

    Parameters
    ----------
    name : str
        Of the result.
    data : MemoryTable, or what one is made of
    """

    rows = None

    # A key of its own: the values would take longer to tell apart than to calibrate.
    def __init__(self, name: str, data: Any) -> None:
        self.name = name
        self.key = uuid4().hex
        where = f"sources {name}"
        self._table = data if isinstance(data, MemoryTable) else MemoryTable(data, where)

    def open(self, schema: Schema) -> TableReader:
        """Return the table."""
        return self._table

    def identity(self) -> tuple[object, ...]:
        """Return what tells it from others."""
        return self.name, self._table.fingerprint()

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "TablePartition", self.key


class LaterPartition(NamedTuple):
    """A table that a task makes.

    Attributes
    ----------
    name : str
        Of the result.
    data : Delayed
    """

    name: str
    data: Delayed


Partition = FilePartition | TablePartition | LaterPartition


def partitions_of(sources: Any, schema: Schema, rows: int | None = None) -> list[Partition]:
    """Return the partitions of what users give; see `calibrate_sources`."""
    found = list(_flat(sources))
    base = _common([folder for folder, _ in found if folder is not None])
    parts: list[Partition] = []
    for folder, item in found:
        number = f"part-{len(parts):05d}"
        if folder is not None:
            parts += _of_file(item, _stem(item, base), schema, rows)
        elif isinstance(item, Delayed):
            parts.append(LaterPartition(number, item))
        else:
            parts += _of_table(item, len(parts), rows or _ROWS)
    if not parts:
        raise ValueError("there are no sources")
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"results of several files would be called {twice}; rename one")
    return parts


def identity_of(partition: Partition) -> tuple[object, ...]:
    """Return what tells a partition from others, without a look at its values."""
    if isinstance(partition, LaterPartition):
        return partition.name, partition.data.key
    if isinstance(partition, TablePartition):
        return partition.name, partition.key
    return partition.identity()


def resolved(partition: Partition) -> FilePartition | TablePartition | Delayed:
    """Return what a task can take for a partition."""
    if isinstance(partition, LaterPartition):
        return delayed(TablePartition, pure=True)(partition.name, partition.data)
    return partition


def _flat(sources: Any) -> Iterator[tuple[str | None, Any]]:
    """Yield files, each with the folder that its name counts from, and tables, without one."""
    if isinstance(sources, Delayed):
        yield None, sources
    elif isinstance(sources, str | os.PathLike):
        yield from _files(os.path.abspath(sources))
    elif hasattr(sources, "to_delayed") and hasattr(sources, "columns"):  # a dask DataFrame
        yield from ((None, part) for part in sources.to_delayed())
    elif is_table(sources):
        yield None, sources
    elif isinstance(sources, Iterable):
        for item in sources:
            yield from _flat(item)
    else:
        raise TypeError(
            "sources are paths, astropy Tables, mappings of arrays, data frames or Delayeds, got "
            f"{type(sources).__name__}"
        )


def _files(path: str) -> Iterator[tuple[str, str]]:
    if os.path.isdir(path):
        yield from ((path, file) for file in table_files(path))
    elif os.path.isfile(path):
        yield os.path.dirname(path), path
    elif glob.has_magic(path):
        found = sorted(file for file in glob.glob(path, recursive=True) if os.path.isfile(file))
        if not found:
            raise FileNotFoundError(f"there is no file {path}")
        fixed = path[: min(path.index(sign) for sign in "*?[" if sign in path)]
        yield from ((os.path.dirname(fixed), file) for file in found)
    else:
        raise FileNotFoundError(f"there is no {path}")


def _common(folders: list[str]) -> str:
    return os.path.commonpath(folders) if folders else ""


def _stem(path: str, base: str) -> str:
    """Return the name of a file's result: where it lies, without what its name ends in."""
    name = os.path.relpath(path, base)
    ending = max((e for e in _ENDINGS if name.lower().endswith(e)), key=len, default="")
    return name[: len(name) - len(ending)]


def _of_file(path: str, name: str, schema: Schema, rows: int | None) -> Iterator[FilePartition]:
    if rows is None:
        yield FilePartition(name, path)
        return
    count = len(FilePartition(name, path).open(schema))
    for number, start in enumerate(range(0, max(count, 1), rows)):
        yield FilePartition(f"{name}-{number:05d}", path, (start, min(start + rows, count)))


def _of_table(data: Any, first: int, rows: int) -> Iterator[TablePartition]:
    table = MemoryTable(data, "the table of sources")
    for number, start in enumerate(range(0, max(len(table), 1), rows), first):
        name = f"part-{number:05d}"
        yield TablePartition(name, table.part(slice(start, start + rows), f"sources {name}"))

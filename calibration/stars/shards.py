"""Files of standard stars, one for each tract, without holding them all.

Two rounds of tasks, each of which holds about one partition of the catalog::

    a partition --> its stars sorted by tract, on disk
    some tracts --> of each, what the partitions have of it, one after the other --> its file
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
from dask import delayed
from dask.delayed import Delayed

from ..tables.parquet import pyarrow
from ..tables.rows import SUFFIXES, Field, dtype_of, write_rows
from ..texts import listed
from .rows import StarReader

if TYPE_CHECKING:
    from .tracts import TractStars

__all__ = ["write_shards"]

_ROWS = 2**18  # of a block of a file, at least: small pieces are put together
_TRACTS = 256  # that a task writes at most
_TASKS = 64  # that a scheduler gets at once
_PLACE = np.dtype([(name, np.int64) for name in ("tract", "partition", "start", "count")])


def write_shards(
    stars: TractStars,
    directory: str | os.PathLike[str],
    name: str,
    *,
    tracts: Iterable[int] | None = None,
    meta: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> dict[int, Path]:
    """Write a file for each tract; see `TractStars.write`."""
    reader, directory = stars.reader, Path(directory)
    wanted = _wanted(stars, tracts)
    paths = _paths(directory, name, wanted.tolist(), overwrite)
    directory.mkdir(exist_ok=True)
    offsets = stars.offsets
    shifts = reader.shifts(offsets.compute() if isinstance(offsets, Delayed) else offsets)
    with _scratch(directory) as scratch:
        places = _sort(stars, wanted, shifts, scratch)
        groups = list(_groups(places, stars.partition))
        for first in range(0, len(groups), _TASKS):
            batch = []
            for group in groups[first : first + _TASKS]:
                chosen = np.unique(group["tract"]).tolist()
                files = [(t, paths[t], {**reader.meta(t, shifts), **(meta or {})}) for t in chosen]
                batch.append((scratch, reader.fields, group, files, overwrite))
            done = dask.compute(*(delayed(write_tracts, pure=False)(*args) for args in batch))
            if progress is not None:
                progress(sum(done))
    return paths


@contextmanager
def _scratch(directory: Path) -> Iterator[str]:
    """Give out a folder, and remove it when all is done or something fails."""
    folder = mkdtemp(prefix=".tract-stars-", dir=directory)
    try:
        yield folder
    finally:
        for _ in range(10):  # after a failure there may be tasks that still write to it
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.05)


def _wanted(stars: TractStars, tracts: Iterable[int] | None) -> np.ndarray:
    """Return the tracts that are to be written, in ascending order."""
    if tracts is None:
        return stars.index.tracts
    wanted = np.unique(np.fromiter(tracts, np.int64))
    if len(unknown := np.setdiff1d(wanted, stars.index.tracts)):
        raise KeyError(f"tracts {listed(unknown)} have no stars; {len(stars)} tracts have")
    return wanted


def _paths(directory: Path, name: str, tracts: list[int], overwrite: bool) -> dict[int, Path]:
    """Return the file of each tract, once it is known that it can be written."""
    try:
        differs = name.format(tract=0) != name.format(tract=1)
    except (LookupError, ValueError):
        differs = False
    if not differs or not name.endswith(SUFFIXES):
        raise ValueError(
            f"name is {name!r}; it must hold {{tract}} and end in {' or '.join(SUFFIXES)}"
        )
    if name.endswith(".parquet"):
        pyarrow()  # or say that it is missing
    paths = {tract: directory / name.format(tract=tract) for tract in tracts}
    there = [] if overwrite else [path for path in paths.values() if path.exists()]
    if there:
        raise FileExistsError(
            f"{there[0]} exists, as do {len(there) - 1} more of {len(paths)} files; "
            "choose another name or pass overwrite=True"
        )
    return paths


def _sort(stars: TractStars, wanted: np.ndarray, shifts: list[float], scratch: str) -> np.ndarray:
    """Sort the partitions that have stars of some tracts; return where these are, by tract."""
    entries = stars.index.entries
    entries = entries[np.isin(entries["tract"], wanted)]
    sort = delayed(sort_partition, pure=False)
    numbers = np.unique(entries["partition"]).tolist()
    dask.compute(
        *(sort(stars.shared, scratch, n, *stars.partitions[n], wanted, shifts) for n in numbers)
    )
    order = np.argsort(entries["partition"], kind="stable")
    partitions, counts = entries["partition"][order], entries["count"][order]
    before = np.cumsum(counts) - counts
    places = np.empty(len(entries), _PLACE)
    for field in ("tract", "partition", "count"):
        places[field] = entries[field]
    places["start"][order] = before - before[np.searchsorted(partitions, partitions)]
    return places


def _groups(places: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Yield the places of the tracts of each task: of some rows together, or of a single one."""
    edges = np.flatnonzero(np.diff(places["tract"], prepend=-1, append=-1))
    stars = np.cumsum(np.append(0, places["count"]))[edges]
    start = 0
    while start < len(edges) - 1:
        stop = int(np.searchsorted(stars, stars[start] + rows, side="right")) - 1
        stop = min(max(stop, start + 1), start + _TRACTS)
        yield places[edges[start] : edges[stop]]
        start = stop


# What the tasks do


def sort_partition(
    reader: StarReader,
    scratch: str,
    number: int,
    start: int,
    stop: int,
    tracts: np.ndarray,
    shifts: list[float],
) -> None:
    """Write the stars of some tracts that a partition has, sorted by tract."""
    reader.partition(start, stop, tracts, shifts).tofile(_sorted(scratch, number))


def write_tracts(
    scratch: str,
    fields: tuple[Field, ...],
    places: np.ndarray,
    files: Sequence[tuple[int, Path, Mapping[str, Any]]],
    overwrite: bool,
) -> int:
    """Write the files of some tracts; return how many."""
    for tract, path, meta in files:
        blocks = _blocks(scratch, dtype_of(fields), places[places["tract"] == tract])
        write_rows(path, blocks, fields, meta, overwrite=overwrite)
    return len(files)


def _blocks(scratch: str, dtype: np.dtype, places: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the stars of a tract, in the order of the catalog."""
    parts, size = [], 0
    for _, partition, start, count in places.tolist():
        path = _sorted(scratch, partition)
        part = np.fromfile(path, dtype, count, offset=start * dtype.itemsize)
        if len(part) < count:
            raise OSError(f"{path} ends before row {start + count}; is the disk full?")
        parts.append(part)
        size += count
        if size >= _ROWS:
            yield np.concatenate(parts)
            parts, size = [], 0
    if parts:
        yield np.concatenate(parts)


def _sorted(scratch: str, number: int) -> str:
    return os.path.join(scratch, f"{number}.rows")

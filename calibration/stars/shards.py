"""Files of standard stars, one for each tract, without holding them all.

Two rounds of tasks, each of which holds about one partition of the catalog::

    a partition --> its stars sorted by tract, on disk
    some tracts --> of each, what the partitions have of it, one after the other --> its file
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from dask.base import compute
from dask.delayed import Delayed, delayed

from mapreduce.io.stream import ABANDONED

from ..tables.fields import Field, row_dtype
from ..tables.files import table_writer
from .rows import StarIndex, StarReader

__all__ = [
    "PLACE",
    "ROWS",
    "TASKS",
    "TRACTS",
    "sort_partition",
    "star_blocks",
    "task_groups",
    "write_shards",
    "write_tracts",
]

ROWS = 2**18  # of a block of a file, at least: small pieces are put together
TRACTS = 256  # that a task writes at most
TASKS = 64  # that a scheduler gets at once
_SCRATCH = ".tract-stars-"
PLACE = np.dtype([(name, np.int64) for name in ("tract", "partition", "start", "count")])


def write_shards(
    reader: StarReader,
    shared: Delayed,
    index: StarIndex,
    partitions: Sequence[tuple[int, int]],
    shifts: list[float],
    paths: Mapping[int, Path],
    meta: Mapping[str, Any],
    progress: Callable[[int], Any] | None = None,
) -> None:
    """Write a file for each of some tracts, in the place of what is there.

    Parameters
    ----------
    reader : StarReader
    shared : Delayed
        Of the reader, which enters a graph once.
    index : StarIndex
        Of all partitions.
    partitions : sequence of (int, int)
        The first row, and the one after the last, of each part of the catalog that a task reads.
    shifts : list of float
        Offset of each band, mag.
    paths : mapping of int to Path
        The file of each tract; all of one folder, which holds a second copy of the stars meanwhile.
    meta : mapping
        More to be said of each table.
    progress : callable, optional
        Called with the number of tracts that were written since the last call.
    """
    if not paths:
        return
    wanted = np.sort(np.fromiter(paths, np.int64))
    rows = max(stop - start for start, stop in partitions)
    with _scratch(next(iter(paths.values())).parent) as scratch:
        places = _sort(shared, index, partitions, wanted, shifts, scratch)
        groups = list(task_groups(places, rows))
        for first in range(0, len(groups), TASKS):
            batch = []
            for group in groups[first : first + TASKS]:
                chosen = np.unique(group["tract"]).tolist()
                files = [(t, paths[t], {**meta, **reader.meta(t, shifts)}) for t in chosen]
                batch.append((scratch, reader.fields, group, files))
            written = compute(*(delayed(write_tracts, pure=False)(*args) for args in batch))
            if progress is not None:
                progress(sum(written))


@contextmanager
def _scratch(directory: Path) -> Iterator[str]:
    """Give out a folder, and remove it when all is done or something fails."""
    for left in directory.glob(f"{_SCRATCH}*"):  # by a run that was killed
        newest = max(path.stat().st_mtime for path in (left, *left.iterdir()))
        if time.time() - newest > ABANDONED:
            shutil.rmtree(left, ignore_errors=True)
    folder = mkdtemp(prefix=_SCRATCH, dir=directory)
    try:
        yield folder
    finally:
        for _ in range(10):  # after a failure there may be tasks that still write to it
            shutil.rmtree(folder, ignore_errors=True)
            if not os.path.exists(folder):
                break
            time.sleep(0.05)


def _sort(
    shared: Delayed,
    index: StarIndex,
    partitions: Sequence[tuple[int, int]],
    wanted: np.ndarray,
    shifts: list[float],
    scratch: str,
) -> np.ndarray:
    """Sort the partitions that have stars of some tracts; return where these are, by tract."""
    entries = index.entries[np.isin(index.entries["tract"], wanted)]
    sort = delayed(sort_partition, pure=False)
    numbers = np.unique(entries["partition"]).tolist()
    compute(*(sort(shared, scratch, n, *partitions[n], wanted, shifts) for n in numbers))
    order = np.argsort(entries["partition"], kind="stable")
    sorted_partitions, counts = entries["partition"][order], entries["count"][order]
    before = np.cumsum(counts) - counts
    places = np.empty(len(entries), PLACE)
    for field in ("tract", "partition", "count"):
        places[field] = entries[field]
    first = np.searchsorted(sorted_partitions, sorted_partitions)
    places["start"][order] = before - before[first]
    return places


def task_groups(places: np.ndarray, rows: int) -> Iterator[np.ndarray]:
    """Yield the places of the tracts of each task: of some rows together, or of a single one."""
    edges = np.flatnonzero(np.diff(places["tract"], prepend=-1, append=-1))
    stars = np.cumsum(np.append(0, places["count"]))[edges]
    start = 0
    while start < len(edges) - 1:
        stop = int(np.searchsorted(stars, stars[start] + rows, side="right")) - 1
        stop = min(max(stop, start + 1), start + TRACTS)
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
    fields: Mapping[str, Field],
    places: np.ndarray,
    files: Sequence[tuple[int, Path, Mapping[str, Any]]],
) -> int:
    """Write the files of some tracts; return how many."""
    for tract, path, meta in files:
        with table_writer(path, fields, meta, overwrite=True) as file:
            for rows in star_blocks(scratch, row_dtype(fields), places[places["tract"] == tract]):
                file.write(rows)
    return len(files)


def star_blocks(scratch: str, dtype: np.dtype, places: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the stars of a tract, in the order of the catalog."""
    parts, size = [], 0
    for _, partition, start, count in places.tolist():
        path = _sorted(scratch, partition)
        part = np.fromfile(path, dtype, count, offset=start * dtype.itemsize)
        if len(part) < count:
            raise OSError(f"{path} ends before row {start + count}; is the disk full?")
        parts.append(part)
        size += count
        if size >= ROWS:
            yield np.concatenate(parts)
            parts, size = [], 0
    if parts:
        yield np.concatenate(parts)


def _sorted(scratch: str, number: int) -> str:
    return os.path.join(scratch, f"{number}.rows")

"""Calibrated sources to files: a file for each partition, whatever fails and wherever it stops."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dask.base import compute, persist
from dask.delayed import Delayed, delayed

from ..tables.directory import TOKEN, Directory
from ..tables.files import SUFFIXES, check_format, check_table, write_table
from ..texts import said_by
from .apply import calibrated_partition
from .calibrations import Calibrations, stack_of
from .columns import SourceColumns
from .partitions import FilePartition, Partition, TablePartition, resolved
from .report import SourcesReport, Tally

__all__ = ["Saved", "write_sources"]

_LAYOUT = 1  # of the directory and its files
_BATCH = 64  # partitions that a scheduler gets at once
_TALLY, _LEFT_OUT = "TALLY", "LEFTOUT"  # what a file says of its table


class Saved(NamedTuple):
    """What became of a partition.

    Attributes
    ----------
    name : str
    state : {"written", "kept", "failed"}
    tally : Tally
    left_out : dict of str to str
        Columns that were left out, and why.
    why : str
        It failed.
    """

    name: str
    state: str
    tally: Tally
    left_out: Mapping[str, str]
    why: str = ""


def write_sources(
    calibrations: Delayed,
    partitions: Sequence[Partition],
    columns: SourceColumns,
    margin: float,
    directory: str | os.PathLike[str],
    format_: str = "parquet",
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> SourcesReport:
    """Calibrate sources and write them; see `CalibratedSources.write`."""
    if f".{format_}" not in SUFFIXES:
        raise ValueError(f"format is {' or '.join(s[1:] for s in SUFFIXES)}, got {format_!r}")
    check_format(f".{format_}")
    folder = Path(os.path.abspath(directory))  # workers may have another current folder
    _check_apart(partitions, folder)
    (calibrations,) = persist(calibrations)
    (token,) = compute(delayed(_token_of, pure=False)(calibrations))
    made_of = {
        "layout": _LAYOUT,
        "format": format_,
        "columns": asdict(columns),
        "margin": str(margin),  # JSON knows no infinity
        "photo_calibs": token,
    }
    Directory(folder, "sources.json", "calibrated sources").open(made_of, overwrite=overwrite)
    report = SourcesReport(Path(directory))
    save_one = delayed(save, pure=False)
    for first in range(0, len(partitions), _BATCH):
        batch = partitions[first : first + _BATCH]
        tasks = [
            save_one(
                calibrations,
                resolved(partition),
                columns,
                margin,
                folder / f"{partition.name}.{format_}",
            )
            for partition in batch
        ]
        for saved in compute(*tasks):
            _add(report, saved)
        if progress is not None:
            progress(len(batch))
    return report


def _add(report: SourcesReport, saved: Saved) -> None:
    report.states[saved.state] += 1
    report.tally.add(saved.tally)
    report.left_out |= saved.left_out
    if saved.state == "failed":
        report.failed[saved.name] = saved.why


def _token_of(calibrations: Calibrations) -> str:
    return calibrations.token


# The directory


def _check_apart(partitions: Sequence[Partition], folder: Path) -> None:
    """Refuse a directory in which sources lie: what is written would be taken for more of them."""
    for partition in partitions:
        if isinstance(partition, FilePartition) and Path(partition.path).is_relative_to(folder):
            raise ValueError(
                f"{folder} has {partition.name} of the sources in it; write to another directory"
            )


# What the tasks do


def save(
    calibrations: Calibrations,
    partition: FilePartition | TablePartition,
    columns: SourceColumns,
    margin: float,
    path: Path,
) -> Saved:
    """Calibrate a partition and write it, unless it is there already or cannot be calibrated.

    What cannot be calibrated is no error here, as others can; what cannot be written is.
    """
    try:
        token = _identity(calibrations, partition, columns, margin)
        if (kept := _kept(path, token, calibrations)) is not None:
            return Saved(partition.name, "kept", *kept)
        table, tally, left_out = calibrated_partition(calibrations, partition, columns, margin)
    except MemoryError:
        raise
    except Exception as error:
        return _failed(partition.name, path, error)
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = {TOKEN: token, _TALLY: tally.to_json(), _LEFT_OUT: json.dumps(left_out)}
    try:
        write_table(path, table, meta)
    except (TypeError, ValueError) as error:  # of what it holds; not of the disk
        return _failed(partition.name, path, error)
    return Saved(partition.name, "written", tally, left_out)


def _failed(name: str, path: Path, error: Exception) -> Saved:
    if not (isinstance(error, OSError) and error.errno):  # the input may only be out of reach
        path.unlink(missing_ok=True)  # it is damaged, or of something else
    return Saved(name, "failed", Tally(), {}, said_by(error))


def _identity(
    calibrations: Calibrations,
    partition: FilePartition | TablePartition,
    columns: SourceColumns,
    margin: float,
) -> str:
    made_of = _LAYOUT, calibrations.token, partition.identity(), columns, margin
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]


def _kept(
    path: Path, token: str, calibrations: Calibrations
) -> tuple[Tally, dict[str, str]] | None:
    """Return what a file says, if it is whole, made of the same, and no calibration came since."""
    try:
        meta = check_table(path)
        if meta.get(TOKEN) != token:
            return None
        tally, left_out = Tally.from_json(meta[_TALLY]), json.loads(meta[_LEFT_OUT])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    missing = np.array(sorted(tally.visits), np.int64)
    return (tally, left_out) if stack_of(calibrations, missing) is None else None

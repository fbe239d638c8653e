"""Calibrations applied to one partition of a table of sources."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from astropy.table import Table

from ..fields.series import within
from ..photocalib.flux import magnitude, nanojansky
from ..photocalib.stack import PhotoCalibStack
from ..tables.fields import as_table, filled, with_nan
from ..tables.reader import TableReader
from ..texts import said_by
from .calibrations import Calibrations, stack_of
from .columns import Bound, SourceColumns
from .partitions import FilePartition, TablePartition
from .report import Tally

__all__ = ["BLOCK", "calibrated_partition"]

BLOCK = 2**16
"""Rows that are calibrated at once."""


def calibrated_partition(
    calibrations: Calibrations,
    partition: FilePartition | TablePartition,
    columns: SourceColumns,
    margin: float,
) -> tuple[Table, Tally, dict[str, str]]:
    """Calibrate a partition.

    Returns
    -------
    table : Table
        What is kept, and the new columns, a row for each source in the same order.
    tally : Tally
    left_out : dict of str to str
        Columns that are not in the table, and why.
    """
    source = partition.open(columns.schema)
    bound = columns.bind(source)
    values, unread = _read(source, bound, partition.rows)
    count = len(next(iter(values.values())))
    made, tally = _made(calibrations, columns, _needed(columns, bound, values, count), margin)
    fields = {name: field for name, field in bound.kept.items() if name not in unread}
    kept = {name: values[name] for name in fields}
    return as_table(kept | made, fields | columns.made), tally, bound.left_out | unread


def _read(
    source: TableReader, bound: Bound, rows: slice | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the columns, and why those that are merely kept cannot be read."""
    needed, unread = list(dict.fromkeys(bound.sources.values())), dict[str, str]()
    kept = [name for name in bound.kept if name not in needed]
    try:
        return source.read(needed + kept, rows), unread
    except ValueError:  # of what a column holds; the file itself can be read
        values = source.read(needed, rows)
    for name in kept:
        try:
            values |= source.read([name], rows)
        except ValueError as error:
            unread[name] = f"cannot be read: {said_by(error)}"
    return values, unread


def _needed(
    columns: SourceColumns, bound: Bound, values: Mapping[str, np.ndarray], count: int
) -> dict[str | tuple[str, str], np.ndarray]:
    """Return visit, detector, x, y, by these names, and the fluxes by their columns'.

    And whether both visit and detector are ``named``, and not missing.
    """
    made: dict[str | tuple[str, str], np.ndarray] = {"named": np.ones(count, bool)}
    for name in ("visit", "detector"):
        if name not in columns.place:
            made[name] = np.broadcast_to(np.int64(getattr(columns, name)), count)
            continue
        made[name], missing = filled(values[bound.sources[columns.place[name]]].reshape(count))
        if missing is not None:
            made["named"] &= ~missing
    numbers: dict[str | tuple[str, str], str] = {n: columns.place[n] for n in ("x", "y")}
    for flux in columns.fluxes:
        numbers |= {("flux", name): name for name in (flux.value, flux.error) if name}
    for key, column in numbers.items():
        made[key] = with_nan(values[bound.sources[column]].reshape(count))
        if key in ("x", "y") and (factor := bound.factors[column]) != 1:
            made[key] = made[key] * factor
    return made


def _made(
    calibrations: Calibrations,
    columns: SourceColumns,
    values: Mapping[str | tuple[str, str], np.ndarray],
    margin: float,
) -> tuple[dict[str, np.ndarray], Tally]:
    """Return the new columns."""
    visit, detector, named = values["visit"], values["detector"], values["named"]
    count, tally = len(visit), Tally(len(visit), unnamed=int(np.sum(~named)))
    stack = stack_of(calibrations, _distinct(visit[named]))
    if stack is None:
        tally.add_missing(visit[named], detector[named], np.empty(0, np.int64))
        return {name: np.full(count, np.nan) for name in columns.made}, tally
    made = {name: np.empty(count) for name in columns.made}
    for start in range(0, count, BLOCK):
        block = slice(start, start + BLOCK)
        place = (values[name][block] for name in ("visit", "detector", "named", "x", "y"))
        factor, relative_err = _factors(stack, margin, tally, *place)
        for flux in columns.fluxes:
            inst = values["flux", flux.value][block]
            err = None if flux.error is None else values["flux", flux.error][block]
            pairs = {
                "Flux": nanojansky(inst, err, factor, relative_err),
                "Mag": magnitude(inst, err, factor, relative_err),
            }
            for ending, result in pairs.items():
                if err is not None:
                    result, made[flux.name(f"{ending}Err")][block] = result
                made[flux.name(ending)][block] = result
    return made, tally


def _distinct(visit: np.ndarray) -> np.ndarray:
    """Return the visits that there are; at once where they do not change from row to row."""
    first = np.append(True, visit[1:] != visit[:-1])[: len(visit)]
    return np.unique(visit[first])


def _factors(
    stack: PhotoCalibStack,
    margin: float,
    tally: Tally,
    visit: np.ndarray,
    detector: np.ndarray,
    named: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return nJy per unit of flux and its relative error, NaN where there is none."""
    rows, found = stack.rows(visit, detector)
    found &= named
    with np.errstate(invalid="ignore", over="ignore"):  # of sources that are nowhere, or far off
        factor, relative_err = stack.calibration(rows, x, y), stack.relative_err[rows]
    good = found & within(stack.boxes, rows, x, y, margin)
    if not good.all():
        lost = named & ~found
        tally.add_missing(visit[lost], detector[lost], stack.visits)
        placed = np.isfinite(x) & np.isfinite(y)
        tally.nowhere += int(np.sum(found & ~placed))
        tally.off += int(np.sum(found & placed & ~good))
        factor[~good] = relative_err[~good] = np.nan
    return factor, relative_err

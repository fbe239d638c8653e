"""Ways to add a constant to every cell of three planes and to put the cells together again.

Each contestant's docstring says in its first line what it is. Those here follow the same rules
for missing values and overlapping cells: functions (planes, grid, reducer) -> planes, where the
reducer is "average" or "copy". Those of `benchmarks.peers` know no such rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

import mapreduce as mr

from . import peers
from .helpers import Planes
from .peers import CONSTANT

__all__ = ["LIBRARIES", "PEERS", "REDUCING", "absent", "lazy_skyfold"]

BAD_BITS = np.int32(
    mr.MaskPlanes.lsst().add("INVALID_MAPREDUCE").bitmask("INVALID_MAPREDUCE", "BAD", "NO_DATA")
)

logger = logging.getLogger(__name__)


# Ours


def add_constant(sub: mr.Exposure, expanded: mr.Exposure, full_bbox: mr.Box) -> mr.Exposure:
    """The mapper."""
    return sub.replace(image=sub.image + CONSTANT)


def lazy_skyfold(planes: Planes, grid: mr.Grid, reducer: str) -> mr.Exposure:
    """Build our graph."""
    return mr.map_reduce(mr.Exposure(*planes), add_constant, grid=grid, reducer=reducer)


def skyfold(planes: Planes, grid: mr.Grid, reducer: str) -> Planes:
    """Our engine on threads, default tile."""
    return Planes(**lazy_skyfold(planes, grid, reducer).compute(scheduler="threads").planes)


def skyfold_sync(planes: Planes, grid: mr.Grid, reducer: str) -> Planes:
    """Our engine on dask's synchronous scheduler."""
    return Planes(**lazy_skyfold(planes, grid, reducer).compute(scheduler="synchronous").planes)


# The original's manner


def original(planes: Planes, grid: mr.Grid, reducer: str) -> Planes:
    """Serial, in the original's manner: holds all results, boolean indexing, full temporaries.

    The same steps on the same planes as LSST's task with a mapper that copies its core, but on
    bare arrays: what the exposure objects of the original cost is left out.
    """
    results = []
    for cell in grid:
        sub, _expanded = (
            Planes(*(plane[box.slices(grid.box)] for plane in planes))
            for box in (cell.core, cell.expanded)
        )
        result = Planes(*(plane.copy() for plane in sub))
        result.image[...] += CONSTANT
        results.append((cell.core, result))

    out = Planes(*(plane.copy() for plane in planes))
    for plane in (out.image, out.variance):
        plane.fill(np.nan if reducer == "copy" else 0)
    count = np.zeros(out.image.shape, np.int32) if reducer == "average" else None
    for box, result in results:
        where = box.slices(grid.box)
        patch = Planes(*(plane[where] for plane in out))
        _reduce_by_index(patch, result, None if count is None else count[where])
    out.mask[~_is_valid(out)] |= BAD_BITS
    if count is not None:
        _average_by_index(out, count)
    return out


def _is_valid(planes: Planes) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return ~np.isnan(planes.image * planes.variance)


def _reduce_by_index(out: Planes, result: Planes, count: np.ndarray | None) -> None:
    valid = _is_valid(result)
    if count is None:
        out.image[valid] = result.image[valid]
        out.variance[valid] = result.variance[valid]
    else:
        out.image[valid] += result.image[valid]
        out.variance[valid] += result.variance[valid]
        count[valid] += 1
    np.bitwise_or(out.mask, result.mask, out=out.mask)


def _average_by_index(out: Planes, count: np.ndarray) -> None:
    weights = count.astype(np.float64)
    logger.info("overlap: %g to %g, mean %g", weights.min(), weights.max(), weights.mean())
    covered = weights > 0
    out.image[covered] /= weights[covered]
    out.variance[covered] /= weights[covered]
    missing = ~covered
    out.image[missing] = np.nan
    out.variance[missing] = np.nan
    out.mask[missing] |= BAD_BITS


# The same rules, as lean as a serial loop can be


def lean(planes: Planes, grid: mr.Grid, reducer: str) -> Planes:
    """Serial, the same rules: folds in place, where= for boolean indexing, no full temporaries."""
    out = Planes(np.empty_like(planes.image), np.empty_like(planes.variance), planes.mask.copy())
    for plane in (out.image, out.variance):
        plane.fill(np.nan if reducer == "copy" else 0)
    count = np.zeros(out.image.shape, np.int32) if reducer == "average" else None
    for cell in grid:
        where = cell.core.slices(grid.box)
        image, variance = planes.image[where] + CONSTANT, planes.variance[where]
        valid = _valid_or_true(image, variance)
        for plane, values in ((out.image[where], image), (out.variance[where], variance)):
            if count is None:
                np.copyto(plane, values, where=valid)
            else:
                np.add(plane, values, out=plane, where=valid)
        if count is not None:
            np.add(count[where], 1, out=count[where], where=valid)
        np.bitwise_or(out.mask[where], planes.mask[where], out=out.mask[where])
    for row in range(0, len(out.image), 64):  # strips that stay in the cache
        rows = slice(row, row + 64)
        _finish(Planes(*(plane[rows] for plane in out)), None if count is None else count[rows])
    return out


def _valid_or_true(image: np.ndarray, variance: np.ndarray) -> np.ndarray | bool:
    """Where there is a value; True for everywhere, which numpy works on faster."""
    with np.errstate(invalid="ignore"):
        missing = np.isnan(image * variance)
    return ~missing if missing.any() else True


def _finish(out: Planes, count: np.ndarray | None) -> None:
    if count is not None:
        for plane in (out.image, out.variance):
            if count.max() > 1:
                np.divide(plane, count, out=plane, where=count > 0, dtype="f8", casting="same_kind")
            if not count.all():
                plane[count == 0] = np.nan
    valid = _valid_or_true(out.image, out.variance)
    if valid is not True:
        out.mask[~valid] |= BAD_BITS


REDUCING: dict[str, Callable[[Planes, mr.Grid, str], Planes]] = {
    "skyfold": skyfold,
    "skyfold_sync": skyfold_sync,
    "original": original,
    "lean": lean,
}
PEERS: dict[str, Callable[[Planes, mr.Grid], Planes]] = {
    "ideal": peers.ideal,
    "thread_pool": peers.thread_pool,
    "joblib": peers.joblib_threads,
    "map_overlap": peers.map_overlap,
    "apply_parallel": peers.apply_parallel,
    "ray": peers.ray_tasks,
    "daisy": peers.daisy_blocks,
}
LIBRARIES = {"joblib": "joblib", "apply_parallel": "skimage", "ray": "ray", "daisy": "daisy"}


def absent() -> list[str]:
    """Return the peers whose library is not installed."""
    return [name for name, library in LIBRARIES.items() if find_spec(library) is None]

"""What one task does: run the mapper on the cells of a tile, and fold the results.

NumPy only; nothing here knows dask. Every pixel gets its contributions in the order of the cells'
indices. A tile is done as if its own cells were all. In its strips results may come from neighbors
too: where some came, a strip is done again, with the pieces of its own results that were kept.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..exposure.psf import Psf
from ..exposure.wcs import same_wcs
from ..grid.grid import Cell, cells_of, table_of
from ..reducers.base import CellResult, PixelReducer
from ..report import INPUT_PSF, CellFailure, CellRecords
from .fold import Fold, Piece, Tiling
from .job import MAIN, Blocks, CellInput, Job, Planes, cell_input, exposure_over
from .plan import Tile, TileIndex

__all__ = [
    "FinishedTile",
    "MappedTile",
    "collect_tile",
    "map_tile",
    "reduce_tile",
    "replay_cell",
]


@dataclass
class MappedTile:
    """What the map task of a tile leaves for the reduce task."""

    planes: Planes  # over the tile, as they are if no other tile reaches in
    masks: list[np.ndarray]  # the input's, over the strips; may be views of the plane
    pieces: list[Piece]  # what lies in the strips; may be views of the planes
    spill: dict[TileIndex, list[Piece]]
    records: CellRecords
    peak_bytes: int


@dataclass
class FinishedTile:
    """A block of the result."""

    planes: Planes
    records: CellRecords = field(repr=False)
    peak_bytes: int = 0
    input_psf: Any = None  # on the first tile, where it was not known before the run


def map_tile(
    job: Job,
    tile: Tile,
    blocks: Mapping[str, Blocks],
    mask: Blocks | None,
    planes: Planes,
) -> MappedTile:
    """Run the mapper on a tile's cells.

    Parameters
    ----------
    job : Job
    tile : Tile
    blocks : mapping of str to Blocks
        What the cells look at; without the mask of the gridded exposure.
    mask : Blocks or None
        That mask, over what the cells look at and over the tile.
    planes : dict of arrays
        Where the result over the tile goes; contents undefined.
    """
    records = CellRecords(tile.table)
    exposures, planes["mask"][...] = cell_input(job, tile, blocks, mask)
    masks = [planes["mask"][strip.slices(tile.box)] for strip in tile.strips]
    tiling, pieces = Tiling(job, tile, planes), []
    for cell in cells_of(tile.table):
        piece = _run_cell(job, cell, exposures, records)
        if not tiling.take(piece, cell.core):
            pieces.append(piece)
    with np.errstate(invalid="ignore", over="ignore"):
        complete = tiling.close()
        # What others may reach into are views of planes that no fold changes, or copies.
        if not complete:
            masks = [mask.copy() for mask in masks]
        pieces = [*tiling.pieces(), *pieces]
        if not complete:
            _fold(job, tile.box, tile.box, pieces, planes)
    pieces, spill = _shared(pieces, tile, copied=not complete)
    return MappedTile(planes, masks, pieces, spill, records, _peak_bytes())


def reduce_tile(
    job: Job, tile: Tile, mapped: MappedTile, received: list[list[Piece]]
) -> FinishedTile:
    """Do the strips of a tile again, if its neighbors sent anything.

    It overwrites and never adds, so that it can be run again on the same input.
    """
    planes = {name: _writeable(plane) for name, plane in mapped.planes.items()}
    if any(received):
        # Before the planes change under them.
        mapped.pieces = [piece.copy() for piece in mapped.pieces]
        mapped.masks = [mask.copy() for mask in mapped.masks]
        pieces = [*mapped.pieces, *(piece for spill in received for piece in spill)]
        pieces.sort(key=lambda piece: piece.index)
        with np.errstate(invalid="ignore", over="ignore"):
            for strip, mask in zip(tile.strips, mapped.masks, strict=True):
                planes["mask"][strip.slices(tile.box)] = mask
                _fold(job, strip, tile.box, pieces, planes)
    return FinishedTile(planes, mapped.records, max(mapped.peak_bytes, _peak_bytes()))


def collect_tile(
    job: Job, tile: Tile, blocks: Mapping[str, Blocks]
) -> tuple[list[CellResult], CellRecords, int]:
    """Run the mapper on a tile's cells and keep what it returns."""
    exposures, _ = cell_input(job, tile, blocks)
    results, records = [], CellRecords(tile.table)
    for cell in cells_of(tile.table):
        value, seconds, inputs = _call(job, cell, exposures, _check_collected)
        if isinstance(value, CellFailure):
            records.add_failure(value, seconds)
        else:
            records.add(cell, seconds, cell.core)
        kept = inputs if job.return_sub_exposures else (None, None)
        results.append(CellResult(cell, value, *kept))
    return results, records, _peak_bytes()


def replay_cell(job: Job, cell: Cell, planes: Mapping[str, Planes]) -> Any:
    """Run the mapper on one cell, given the planes over its expanded box; errors are raised."""
    exposures = {
        name: exposure_over(job, name, cell.expanded, arrays, table_of([cell]))
        for name, arrays in planes.items()
    }
    check = _check if isinstance(job.reducer, PixelReducer) else _check_collected
    return _call(replace(job, on_error="raise"), cell, CellInput(exposures), check)[0]


# Mapping


def _run_cell(job: Job, cell: Cell, exposures: CellInput, records: CellRecords) -> Piece:
    """Return what a cell gives to the pixels; record the rest."""
    value, seconds, inputs = _call(job, cell, exposures, _check)
    if isinstance(value, CellFailure):
        records.add_failure(value, seconds)
        return Piece(cell.index, cell.core, cell.core, None)
    sub, expanded = inputs
    box, planes = value._bbox, value.planes
    if value._mask is sub._mask or value._mask is expanded._mask:
        if job.reducer.mask != "replace":
            planes.pop("mask", None)  # these bits are in the output already
    records.add(cell, seconds, box, INPUT_PSF if value.psf is sub.psf else value.psf)
    return Piece(cell.index, box, box, planes)


def _call(job: Job, cell: Cell, exposures: CellInput, check: Callable) -> tuple[Any, float, tuple]:
    """Return what the mapper returned or how it failed, the time it took, and its input."""
    start = time.perf_counter()
    inputs: tuple = (None, None)
    try:
        parents = exposures.of(cell)
        main = parents[MAIN]
        inputs = main.cutout(cell.core), main.cutout(cell.expanded)
        kwargs = job.kwargs
        if job.extras or len(parents) > 1:
            kwargs = {**kwargs, **_extras(job, cell, parents)}
        value = check(job, cell, main, job.mapper(*inputs, job.box, **kwargs))
    except Exception as error:
        if job.on_error == "raise":
            error.add_note(f"in cell {cell.index}: core {cell.core}, expanded {cell.expanded}")
            raise
        value = CellFailure.of(cell, error)
    return value, time.perf_counter() - start, inputs


def _extras(job: Job, cell: Cell, parents: Mapping[str, Exposure]) -> dict[str, Any]:
    """Return what the engine adds to the mapper's keyword arguments."""
    extras = {n: parent.cutout(cell.expanded) for n, parent in parents.items() if n != MAIN}
    if "cell" in job.extras:
        extras["cell"] = cell
    if "rng" in job.extras:
        extras["rng"] = np.random.default_rng((job.seed, cell.index))
    return extras


def _check(job: Job, cell: Cell, main: Exposure, value: Any) -> Exposure:
    """Return a result that can be folded into the output, or raise what is wrong with it."""
    if not isinstance(value, Exposure):
        raise TypeError(
            f"reducer {job.reducer.name!r} needs an Exposure from the mapper, which returned "
            f"{type(value).__name__}; return sub.replace(image=...), or make the mapper of an "
            "array function with array_mapper"
        )
    box = value._bbox
    if box is not cell.core and box is not cell.expanded:
        _check_box(job, cell, box)
    if value.wcs is not main.wcs and value.wcs is not None and not same_wcs(value.wcs, main.wcs):
        raise ValueError("the mapper returned an exposure with another WCS than its input")
    if value.psf is not main.psf and not isinstance(value.psf, Psf | None):
        raise TypeError(f"the mapper returned a {type(value.psf).__name__} as psf, not a Psf")
    _check_planes(job, value.planes)
    if value._mask_planes is not main._mask_planes and value._mask is not None:
        value = value.replace(mask=_translated(job, value))
    return value


def _check_box(job: Job, cell: Cell, box: Box) -> None:
    if not job.box.contains(box):
        raise ValueError(f"the mapper returned {box}, which reaches off the image {job.box}")
    if not cell.expanded.grow(job.reach).contains(box):
        raise ValueError(
            f"the mapper returned {box}, which reaches beyond the expanded box {cell.expanded}; "
            "give map_reduce the distance in pixels as reach="
        )


def _check_planes(job: Job, planes: Planes) -> None:
    if ("variance" in planes) != ("variance" in job.dtypes):
        has, wants = ("no", "one") if "variance" in job.dtypes else ("a", "none")
        raise ValueError(f"the mapper returned {has} variance plane, the input has {wants}")
    for name, plane in planes.items():
        if not isinstance(plane, np.ndarray):
            raise TypeError(f"the mapper returned a lazy {name} plane; compute it first")
        dtype = job.dtypes[name]
        if plane.dtype != dtype and not np.can_cast(plane.dtype, dtype, "same_kind"):
            raise TypeError(
                f"the mapper returned {name} as {plane.dtype}, "
                f"which does not fit the input's {dtype}"
            )


def _check_collected(job: Job, cell: Cell, main: Exposure, value: Any) -> Any:
    job.reducer.check_value(value, main)
    return value


def _translated(job: Job, value: Exposure) -> np.ndarray:
    """Return the mask with the bits that the planes of these names have in the output."""
    ours, theirs = job.mask_planes, value.mask_planes
    moved = {name: bit for name, bit in theirs.items() if ours.get(name) != bit}
    if not moved:
        return value.mask
    mask = value.mask & ~np.int32(theirs.bitmask(*moved))
    for name, bit in moved.items():
        bits = (value.mask >> bit) & 1
        if name in ours:
            mask |= bits << ours[name]
        elif bits.any():
            raise ValueError(
                f"the mapper set mask plane {name!r}, which the exposure does not have; add it "
                f"before the run: exposure.replace(mask_planes=exposure.mask_planes.add({name!r}))"
            )
    return mask


def _fold(job: Job, box: Box, parent: Box, pieces: list[Piece], planes: Planes) -> None:
    """Fold pieces into a region of planes over ``parent``."""
    region = Fold(job, box, parent, planes)
    for piece in pieces:
        region.add(piece)
    region.finish()


def _shared(
    pieces: list[Piece], tile: Tile, *, copied: bool
) -> tuple[list[Piece], dict[TileIndex, list[Piece]]]:
    """Return what lies where others may reach, and every other tile's part of the pieces."""
    kept: list[Piece] = []
    spill: dict[TileIndex, list[Piece]] = {}
    for piece in pieces:
        if tile.interior.contains(piece.box):
            continue
        parts = [piece.cut(strip) for strip in tile.strips if piece.box.overlaps(strip)]
        kept += [part.copy() for part in parts] if copied else parts
        if not tile.box.contains(piece.box):
            for index, box in tile.sends.items():
                if piece.box.overlaps(box):
                    spill.setdefault(index, []).append(piece.cut(box).copy())
    return kept, spill


def _writeable(plane: np.ndarray) -> np.ndarray:
    """Return the plane, or a copy where it came over a wire into memory that cannot be written."""
    return plane if plane.flags.writeable else plane.copy()


def _peak_bytes() -> int:
    """Return the highest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

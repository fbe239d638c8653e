"""What one task does: run the mapper on the cells of a tile, and fold the results.

NumPy only; nothing here knows dask. Every pixel gets its contributions in the order of the cells'
indices. In a tile's interior they all come from its own cells, and are folded at once. In its
strips they may come from neighbours too, so pieces of results are kept until all are there.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from .box import Box
from .exposure import Exposure
from .grid import Cell
from .mask import MaskPlanes
from .plan import Tile, TileIndex
from .plane import Source, read
from .reducer import CellResult, Collector, Patch, PixelReducer
from .report import CellFailure, CellRecord
from .wcs import same_wcs

__all__ = ["Job", "MappedTile", "Piece", "collect_tile", "map_tile", "reduce_tile", "replay_cell"]

MAIN = ""  # the name of the gridded exposure among the blocks, beside the aligned ones

Planes = dict[str, np.ndarray]


class SamePsf:
    """Stands for the input's PSF in a record, so that it does not travel with every cell."""


@dataclass(frozen=True)
class Job:
    """What is the same for all tasks of a run."""

    mapper: Callable
    extras: frozenset[str]
    kwargs: Mapping[str, Any]
    reducer: PixelReducer | Collector
    on_error: str
    seed: int
    reach: int
    box: Box
    dtypes: Mapping[str, np.dtype]
    mask_planes: MaskPlanes
    shells: Mapping[str, Mapping[str, Any]]  # wcs, psf, meta and mask planes of each block
    return_sub_exposures: bool = False
    psf_travels: bool = False  # the input's PSF is itself a result of this computation

    @property
    def bad_bits(self) -> int:
        """The mask bits of pixels without a value."""
        return self.mask_planes.bitmask(*self.reducer.bad)


class Unread(NamedTuple):
    """A block of a source, to be read in the task."""

    source: Source
    slices: tuple[slice, slice]


class Blocks(NamedTuple):
    """Pixels of one exposure over a box."""

    box: Box
    planes: Mapping[str, np.ndarray | Unread]


class Piece(NamedTuple):
    """The part of a cell's result that one tile needs.

    Attributes
    ----------
    index : int
        The cell's index.
    box : Box
        Box of the whole result, or of the core of a failed cell.
    part : Box
        Box of the arrays here.
    planes : dict of arrays or None
        None where the cell failed.
    """

    index: int
    box: Box
    part: Box
    planes: Planes | None


@dataclass
class MappedTile:
    """What the map task of a tile leaves for the reduce task."""

    planes: Planes  # over the tile; done in the interior, the input's mask in the strips
    own: list[Piece]
    spill: dict[TileIndex, list[Piece]]
    records: list[CellRecord]
    peak_bytes: int


@dataclass
class FinishedTile:
    """A block of the result."""

    planes: Planes
    records: list[CellRecord] = field(repr=False)
    peak_bytes: int = 0


def map_tile(
    job: Job, tile: Tile, blocks: Mapping[str, Blocks], mask: Blocks | None, planes: Planes
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
    records: list[CellRecord] = []
    own: list[Piece] = []
    spill: dict[TileIndex, list[Piece]] = {}
    exposures, start, read_error = _load(job, tile, blocks, mask)
    planes["mask"][...] = 0 if start is None else start
    interior = _Fold(job, tile.interior, tile.box, planes)
    for cell in tile.cells:
        piece, record = _run_cell(job, cell, exposures, read_error)
        records.append(record)
        interior.add(piece)
        if not tile.interior.contains(piece.box):
            _share(piece, tile, own, spill)
    interior.finish()
    return MappedTile(planes, own, spill, records, _peak_bytes())


def reduce_tile(
    job: Job, tile: Tile, mapped: MappedTile, received: list[list[Piece]]
) -> FinishedTile:
    """Fold the strips of a tile, of its own pieces and those of its neighbours.

    It overwrites and never adds, so that it can be run again on the same input.
    """
    pieces = [*mapped.own, *(piece for spill in received for piece in spill)]
    pieces.sort(key=lambda piece: piece.index)
    planes = {name: _writeable(plane) for name, plane in mapped.planes.items()}
    for box in tile.strips:
        strip = _Fold(job, box, tile.box, planes)
        for piece in pieces:
            strip.add(piece)
        strip.finish()
    return FinishedTile(planes, mapped.records, max(mapped.peak_bytes, _peak_bytes()))


def collect_tile(
    job: Job, tile: Tile, blocks: Mapping[str, Blocks]
) -> tuple[list[CellResult], list[CellRecord], int]:
    """Run the mapper on a tile's cells and keep what it returns."""
    exposures, _, read_error = _load(job, tile, blocks)
    results, records = [], []
    for cell in tile.cells:
        value, seconds, inputs = _call(job, cell, exposures, read_error, _check_collected)
        failure = value if isinstance(value, CellFailure) else None
        records.append(CellRecord(cell.index, seconds, None, None, failure))
        kept = inputs if job.return_sub_exposures else (None, None)
        results.append(CellResult(cell, value, *kept))
    return results, records, _peak_bytes()


def replay_cell(job: Job, cell: Cell, planes: Mapping[str, Planes]) -> Any:
    """Run the mapper on one cell, given the planes over its expanded box; errors are raised."""
    exposures = {
        name: _exposure(job, name, cell.expanded, own, (cell,)) for name, own in planes.items()
    }
    return _call(replace(job, on_error="raise"), cell, exposures, None)[0]


# Input


def _load(
    job: Job, tile: Tile, blocks: Mapping[str, Blocks], mask: Blocks | None = None
) -> tuple[dict[str, Exposure], np.ndarray | None, Exception | None]:
    """Return what the cells are cut from and the tile's mask; or, if the run goes on, the error."""
    try:
        loaded = {name: (box, _arrays(planes)) for name, (box, planes) in blocks.items()}
        start = None
        if mask is not None:
            bits = _arrays(mask.planes)["mask"]
            start = bits[tile.box.slices(mask.box)]
            if MAIN in loaded:
                box, planes = loaded[MAIN]
                planes["mask"] = bits[box.slices(mask.box)]
    except Exception as error:
        if job.on_error == "raise":
            error.add_note(f"while reading {tile.reads} for tile {tile.index}")
            raise
        return {}, None, error
    exposures = {
        name: _exposure(job, name, box, planes, tile.cells)
        for name, (box, planes) in loaded.items()
    }
    return exposures, start, None


def _arrays(planes: Mapping[str, np.ndarray | Unread]) -> Planes:
    return {
        name: read(*block) if isinstance(block, Unread) else block for name, block in planes.items()
    }


def _exposure(job: Job, name: str, box: Box, planes: Planes, cells: tuple[Cell, ...]) -> Exposure:
    shell = job.shells[name]
    widths = {cell.core.width for cell in cells} | {cell.expanded.width for cell in cells}
    exposure = Exposure(
        **{plane: _read_only(array, widths) for plane, array in planes.items()},
        origin=(box.x0, box.y0),
        mask_planes=shell["mask_planes"],
        psf=shell["psf"],
        meta=shell["meta"],
    )
    # A WCS must not be shared between threads: astropy releases before 7.2 corrupt coordinates.
    exposure.wcs = None if shell["wcs"] is None else shell["wcs"].deepcopy()
    return exposure


def _read_only(block: np.ndarray, widths: set[int]) -> np.ndarray:
    """Return a read-only view in which no cell is contiguous.

    NumPy sums a contiguous array in another order than the rows of a larger one. Were a cell
    contiguous in a tile of its own and not in another, the last bits of a mean would tell.
    """
    height, width = block.shape
    if block.strides[0] // block.itemsize in widths and height > 1:
        padded = np.empty((height, width + 1), block.dtype)
        while padded.shape[1] in widths:
            padded = np.empty((height, padded.shape[1] + 1), block.dtype)
        padded[:, :width] = block
        block = padded[:, :width]
    view = block.view()
    view.flags.writeable = False
    return view


# Mapping


def _run_cell(
    job: Job, cell: Cell, exposures: Mapping[str, Exposure], read_error: Exception | None
) -> tuple[Piece, CellRecord]:
    """Return what a cell gives to the pixels, and the record of it."""
    value, seconds, _ = _call(job, cell, exposures, read_error, _check)
    if isinstance(value, CellFailure):
        piece = Piece(cell.index, cell.core, cell.core, None)
        return piece, CellRecord(cell.index, seconds, None, None, value)
    box = value.bbox
    same = value.psf is job.shells[MAIN]["psf"] and not job.psf_travels
    psf = SamePsf if same else value.psf
    piece = Piece(cell.index, box, box, value.planes)
    return piece, CellRecord(cell.index, seconds, box, psf, None)


def _call(
    job: Job,
    cell: Cell,
    exposures: Mapping[str, Exposure],
    read_error: Exception | None,
    check: Callable = lambda job, cell, main, value: value,
) -> tuple[Any, float, tuple]:
    """Return what the mapper returned or how it failed, the time it took, and its input."""
    start = time.perf_counter()
    inputs: tuple = (None, None)
    try:
        if read_error is not None:
            raise read_error
        main = exposures[MAIN]
        inputs = main.cutout(cell.core), main.cutout(cell.expanded)
        kwargs = dict(job.kwargs)
        for name, exposure in exposures.items():
            if name != MAIN:
                kwargs[name] = exposure.cutout(cell.expanded)
        if "cell" in job.extras:
            kwargs["cell"] = cell
        if "rng" in job.extras:
            kwargs["rng"] = np.random.default_rng((job.seed, cell.index))
        value = check(job, cell, main, job.mapper(*inputs, job.box, **kwargs))
    except Exception as error:
        if job.on_error == "raise":
            error.add_note(f"in cell {cell.index}: core {cell.core}, expanded {cell.expanded}")
            raise
        value = CellFailure.of(cell, error)
    return value, time.perf_counter() - start, inputs


def _check(job: Job, cell: Cell, main: Exposure, value: Any) -> Exposure:
    """Return a result that can be folded into the output, or raise what is wrong with it."""
    if not isinstance(value, Exposure):
        raise TypeError(
            f"reducer {job.reducer.name!r} needs an Exposure from the mapper, which returned "
            f"{type(value).__name__}; return sub.replace(image=...), or make the mapper of an "
            "array function with array_mapper"
        )
    box = value.bbox
    if not job.box.contains(box):
        raise ValueError(f"the mapper returned {box}, which reaches off the image {job.box}")
    if not cell.expanded.contains(box) and not cell.expanded.grow(job.reach).contains(box):
        raise ValueError(
            f"the mapper returned {box}, which reaches beyond the expanded box {cell.expanded}; "
            "give map_reduce the distance in pixels as reach="
        )
    if value.wcs is not main.wcs and value.wcs is not None and not same_wcs(value.wcs, main.wcs):
        raise ValueError("the mapper returned an exposure with another WCS than its input")
    planes = value.planes
    if ("variance" in planes) != ("variance" in job.dtypes):
        has, wants = ("no", "one") if "variance" in job.dtypes else ("a", "none")
        raise ValueError(f"the mapper returned {has} variance plane, the input has {wants}")
    for name, plane in planes.items():
        if not isinstance(plane, np.ndarray):
            raise TypeError(f"the mapper returned a lazy {name} plane; compute it first")
        if not np.can_cast(plane.dtype, job.dtypes[name], "same_kind"):
            raise TypeError(
                f"the mapper returned {name} as {plane.dtype}, "
                f"which does not fit the input's {job.dtypes[name]}"
            )
    if value.mask_planes is not main.mask_planes and "mask" in planes:
        value = value.replace(mask=_translated(job, value))
    return value


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
        here = (value.mask >> bit) & 1
        if name in ours:
            mask |= here << ours[name]
        elif here.any():
            raise ValueError(
                f"the mapper set mask plane {name!r}, which the exposure does not have; add it "
                f"before the run: exposure.replace(mask_planes=exposure.mask_planes.add({name!r}))"
            )
    return mask


def _share(piece: Piece, tile: Tile, own: list[Piece], spill: dict[TileIndex, list[Piece]]) -> None:
    """Give every tile its part of a piece that leaves the interior."""
    if piece.box.overlaps(tile.box):
        own.append(_part(piece, tile.box))
    for index, box in tile.sends.items():
        if piece.box.overlaps(box):
            spill.setdefault(index, []).append(_part(piece, box))


def _part(piece: Piece, box: Box) -> Piece:
    part = piece.part.clip(box)
    if piece.planes is None or part == piece.part:
        return piece._replace(part=part)
    where = part.slices(piece.part)
    return piece._replace(
        part=part, planes={name: plane[where] for name, plane in piece.planes.items()}
    )


# Folding


class _Fold:
    """A region of the output, filled by one piece after the other."""

    def __init__(self, job: Job, box: Box, parent: Box, planes: Planes) -> None:
        self.job = job
        self.box = box
        self.failed: list[Box] = []
        if not box.area:
            return
        where = box.slices(parent)
        self.image = planes["image"][where]
        self.variance = planes["variance"][where] if "variance" in planes else None
        self.mask = planes["mask"][where]
        self.fresh = np.ones(box.shape, bool) if job.reducer.mask == "replace" else None
        self.state = job.reducer.begin(self.image, self.variance)

    def add(self, piece: Piece) -> None:
        """Add the part of a piece that lies in the region."""
        part = piece.part.clip(self.box)
        if not part.area:
            return
        if piece.planes is None:
            self.failed.append(part)
            return
        where = part.slices(self.box)
        planes = piece.planes
        if part != piece.part:
            cut = part.slices(piece.part)
            planes = {name: plane[cut] for name, plane in planes.items()}
        image, variance = planes["image"], planes.get("variance")
        with np.errstate(invalid="ignore", over="ignore"):
            valid = _valid(image, variance)
            self.job.reducer.fold(self.state, where, Patch(piece.box, part, image, variance, valid))
        self._add_mask(where, planes.get("mask"), valid)

    def _add_mask(
        self, where: tuple[slice, slice], bits: np.ndarray | None, valid: np.ndarray | None
    ) -> None:
        mask = self.mask[where]
        if self.fresh is not None:
            mask[self.fresh[where]] = 0
            self.fresh[where] = False
        if bits is None:
            return
        only = valid is not None and self.job.reducer.mask == "valid"
        np.bitwise_or(mask, bits, out=mask, where=valid if only else True)

    def finish(self) -> None:
        """Leave the result in the region's planes, flagged where it is missing."""
        if not self.box.area:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            self.job.reducer.finish(self.state)
        bits = np.int32(self.job.bad_bits)
        for box in self.failed:
            where = box.slices(self.box)
            self.mask[where] |= bits
            for plane in (self.image, self.variance):
                if plane is not None and plane.dtype.kind == "f":
                    plane[where] = np.nan
        with np.errstate(invalid="ignore", over="ignore"):
            valid = _valid(self.image, self.variance)
        if valid is not None:
            np.bitwise_or(self.mask, bits, out=self.mask, where=~valid)


def _valid(image: np.ndarray, variance: np.ndarray | None) -> np.ndarray | None:
    """Return where image * variance is not NaN, the original's test; None if that is everywhere.

    So a pixel has no value where either plane is NaN, or one infinite and the other zero.
    """
    product = image if variance is None else image * variance
    if product.dtype.kind != "f":
        return None
    missing = np.isnan(product)
    return ~missing if missing.any() else None


def _writeable(plane: np.ndarray) -> np.ndarray:
    """Return the plane, or a copy where it came over a wire into memory that cannot be written."""
    return plane if plane.flags.writeable else plane.copy()


def _peak_bytes() -> int:
    """Return the highest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

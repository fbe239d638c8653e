"""What one task does: run the mapper on the cells of a tile, and fold the results.

NumPy only; nothing here knows dask. Every pixel gets its contributions in the order of the cells'
indices. A tile is done as if its own cells were all. In its strips results may come from neighbors
too: where some came, a strip is done again, with the patches of its own results that were kept.
"""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.plane import Plane
from ..exposure.psf import Psf
from ..exposure.wcs import same_wcs
from ..grid.grid import Cell, cells_of, table_of
from ..reducers.base import CellResult, Collector, Patch, PixelReducer
from ..report import INPUT_PSF, CellFailure, CellRecords
from .fold import Tiling, cut_out, fold
from .input import TileInput
from .plan import Tile, TileIndex
from .spec import MAIN, Planes, RunSpec

__all__ = [
    "Spill",
    "TileCollection",
    "TileResult",
    "collect_tile",
    "map_tile",
    "reduce_tile",
    "replay_cell",
]

_SMALL = 128 * 128  # pixels of a cell; from here on NumPy's calls are long enough
_QUICK, _TRIAL = 1e-4, 4  # seconds in the mapper, for one of so many cells
_PATIENCE = 0.05  # seconds
_turn = threading.RLock()  # one for the process, as Python's own

Parents = Callable[[Cell], Mapping[str, Exposure]]  # from which exposures a cell is cut
Spill = tuple[list[Patch], list[Box]]  # what reaches into another tile: results, failed cores


@dataclass
class TileResult:
    """A block of the result; complete when its strips are done.

    Attributes
    ----------
    planes : dict of arrays
        Over the tile; before, as they are if no other tile reaches in.
    records : CellRecords
    peak_bytes : int
    input_psf : Psf or None
        On the first tile, where it was not known before the run.
    is_tiled : bool
        Until the strips are done: whether the results of the tile's own cells lie side by side in
        its planes, on the input's mask. Then nothing needs to be kept beside them.
    masks : list of arrays
        Until then, otherwise: the input's, over the strips.
    patches : list of Patch
        Until then, otherwise: what lies in the strips.
    spill : dict of (int, int) to Spill
        Until then: what lies in other tiles.
    """

    planes: Planes
    records: CellRecords = field(repr=False)
    peak_bytes: int = 0
    input_psf: Any = None
    is_tiled: bool = False
    masks: list[NDArray[np.int32]] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    spill: dict[TileIndex, Spill] = field(default_factory=dict)

    def without_pixels(self) -> TileResult:
        """Return what is known of a tile besides."""
        return TileResult({}, self.records, self.peak_bytes, self.input_psf)


def map_tile(
    spec: RunSpec[PixelReducer], tile: Tile, inputs: TileInput, planes: Planes
) -> TileResult:
    """Run the mapper on a tile's cells.

    Parameters
    ----------
    spec : RunSpec
    tile : Tile
    inputs : TileInput
        With the mask over the tile.
    planes : dict of arrays
        Where the result over the tile goes; contents undefined.
    """
    records = CellRecords(tile.table)
    loaded, parents, whole = _read(spec, tile, inputs)
    planes["mask"][...] = loaded.mask(tile.box) if loaded else _mask_or_zero(inputs, tile)
    tiling = Tiling(spec, tile, whole, planes)
    patches: list[Patch] = []

    def run(cell: Cell) -> None:
        patch, given = _run_cell(spec, cell, parents, records)
        if not tiling.take(patch, cell.core, given) and patch is not None:
            patches.append(patch)

    _for_each(tile, records, run)
    with np.errstate(invalid="ignore", over="ignore"):
        if tiling.close():
            return TileResult(planes, records, _peak_bytes(), is_tiled=True)
        patches = [*tiling.patches(), *patches]
        masks = _masks(tile, planes)
        failed = [failure.core for failure in records.failures]
        fold(spec, tile.box, planes, tile.box, patches, failed)
    kept, spill = _shared(patches, failed, tile)
    return TileResult(planes, records, _peak_bytes(), masks=masks, patches=kept, spill=spill)


def reduce_tile(
    spec: RunSpec[PixelReducer], tile: Tile, mapped: TileResult, received: list[Spill]
) -> TileResult:
    """Do the strips of a tile again, if its neighbors sent anything.

    It overwrites and never adds, so that it can be run again on the same input.
    """
    planes = {name: _writeable(plane) for name, plane in mapped.planes.items()}
    if received:
        if mapped.is_tiled:  # keep what is in the planes, before they change
            own = cut_out(tile.table, tile.box, planes)
            mapped.patches = [p.copy() for p in own if not tile.interior.contains(p.box)]
            mapped.masks = _masks(tile, planes)
            mapped.is_tiled = False
        patches = [*mapped.patches, *(patch for sent, _ in received for patch in sent)]
        patches.sort(key=lambda patch: patch.cell)
        failed = [failure.core for failure in mapped.records.failures]
        failed += [core for _, cores in received for core in cores]
        with np.errstate(invalid="ignore", over="ignore"):
            for strip, mask in zip(tile.strips, mapped.masks, strict=True):
                planes["mask"][strip.slices(tile.box)] = mask
                fold(spec, strip, planes, tile.box, patches, failed)
    return TileResult(planes, mapped.records, max(mapped.peak_bytes, _peak_bytes()))


class TileCollection(NamedTuple):
    """What the mapper returned on a tile's cells, what is known of them, and the memory it took."""

    results: list[CellResult]
    records: CellRecords
    peak_bytes: int


def collect_tile(spec: RunSpec[Collector], tile: Tile, inputs: TileInput) -> TileCollection:
    """Run the mapper on a tile's cells and keep what it returns."""
    _, parents, _ = _read(spec, tile, inputs)
    results, records = [], CellRecords(tile.table)

    def run(cell: Cell) -> None:
        value, seconds, given, _ = _call(spec, cell, parents, _check_collected)
        if isinstance(value, CellFailure):
            records.add_failure(value, seconds)
        else:
            records.add(cell, seconds, cell.core)
        kept = given if spec.return_sub_exposures else (None, None)
        results.append(CellResult(cell, value, *kept))

    _for_each(tile, records, run)
    return TileCollection(results, records, _peak_bytes())


def replay_cell(spec: RunSpec[Any], cell: Cell, planes: Mapping[str, Planes]) -> Any:
    """Run the mapper on one cell, given the planes over its expanded box; errors are raised."""
    exposures = spec.exposures(planes, cell.expanded, table_of([cell]))
    check = _check if isinstance(spec.reducer, PixelReducer) else _check_collected
    return _call(replace(spec, on_error="raise"), cell, lambda cell: exposures, check)[0]


# Mapping


def _for_each(tile: Tile, records: CellRecords, run: Callable[[Cell], None]) -> None:
    """Run the cells of a tile; small ones on which the mapper is quick, one thread at a time.

    Python runs one thread at a time but for what NumPy does in C. Where that takes microseconds,
    threads pass Python's lock to and fro more often than they work, and take longer than one.
    """
    core = tile.table["core"]
    small = (core["width"] * core["height"]).sum() < _SMALL * len(core)
    # Not for ever: a mapper may itself wait for tasks that wait for this turn.
    turn = small and _turn.acquire(timeout=_PATIENCE)
    try:
        for cell in cells_of(tile.table):
            run(cell)
            if turn and len(records.seconds) == _TRIAL and min(records.seconds) > _QUICK:
                turn = False
                _turn.release()
    finally:
        if turn:
            _turn.release()


def _read(
    spec: RunSpec[Any], tile: Tile, inputs: TileInput
) -> tuple[TileInput | None, Parents, Exposure | None]:
    """Read what a tile's cells look at.

    Returns
    -------
    TileInput or None
        In memory; None where a block cannot be read and the run goes on.
    function of a Cell
        From which exposures it is cut: the same for all, or where a block cannot be read its own,
        read then, so that only those cells fail that lie on the damage.
    Exposure or None
        The gridded exposure, where it is the same for all.
    """
    try:
        loaded = inputs.read()
    except Exception as error:
        if spec.on_error == "raise":
            error.add_note(f"while reading {tile.reads} for tile {tile.index}")
            raise
        return None, _one_by_one(spec, inputs), None
    if not tile.reads.area:
        return loaded, lambda cell: {}, None
    exposures = spec.exposures(loaded.planes(tile.reads), tile.reads, tile.table)
    return loaded, lambda cell: exposures, exposures[MAIN]


def _one_by_one(spec: RunSpec[Any], inputs: TileInput) -> Parents:
    def parents(cell: Cell) -> Mapping[str, Exposure]:
        return spec.exposures(inputs.planes(cell.expanded), cell.expanded, table_of([cell]))

    return parents


def _mask_or_zero(inputs: TileInput, tile: Tile) -> NDArray[Any] | int:
    try:
        return inputs.mask(tile.box)
    except Exception:
        # The cells that need it fail and are flagged; the other pixels of the tile have no bits.
        return 0


def _run_cell(
    spec: RunSpec[PixelReducer], cell: Cell, parents: Parents, records: CellRecords
) -> tuple[Patch | None, tuple[Any, ...]]:
    """Return what a cell gives to the pixels, None if it failed, and its input; record the rest."""
    value, seconds, _, given = _call(spec, cell, parents, _check)
    if isinstance(value, CellFailure):
        records.add_failure(value, seconds)
        return None, given
    box, mask = value._bbox, value._mask
    if (mask is given[2] or mask is given[3]) and spec.reducer.mask != "replace":
        mask = None  # these bits are in the output already
    records.add(cell, seconds, box, INPUT_PSF if value.psf is given[4] else value.psf)
    return Patch(box, box, value._image, value._variance, None, mask, cell.index), given


def _call(
    spec: RunSpec[Any], cell: Cell, parents: Parents, check: Callable[..., Any]
) -> tuple[Any, float, tuple[Any, Any], tuple[Any, ...]]:
    """Return what the mapper returned or how it failed, the time it took, and its input.

    The last are the parts of the input as they were: a mapper may set others on what it was given.
    """
    start = time.perf_counter()
    inputs: tuple[Any, Any] = (None, None)
    given: tuple[Any, ...] = ()
    try:
        exposures = parents(cell)
        main = exposures[MAIN]
        inputs = main.cutout(cell.core), main.cutout(cell.expanded)
        sub, expanded = inputs
        given = sub._image, sub._variance, sub._mask, expanded._mask, sub.psf
        kwargs = spec.kwargs
        if spec.extras or len(exposures) > 1:
            kwargs = {**kwargs, **_extras(spec, cell, exposures)}
        value = check(spec, cell, main, spec.mapper(*inputs, spec.box, **kwargs))
    except Exception as error:
        if spec.on_error == "raise":
            error.add_note(f"in cell {cell.index}: core {cell.core}, expanded {cell.expanded}")
            raise
        value = CellFailure.of(cell, error)
    return value, time.perf_counter() - start, inputs, given


def _extras(spec: RunSpec[Any], cell: Cell, parents: Mapping[str, Exposure]) -> dict[str, Any]:
    """Return what the engine adds to the mapper's keyword arguments."""
    extras: dict[str, Any] = {
        n: parent.cutout(cell.expanded) for n, parent in parents.items() if n != MAIN
    }
    if "cell" in spec.extras:
        extras["cell"] = cell
    if "rng" in spec.extras:
        extras["rng"] = np.random.default_rng((spec.seed, cell.index))
    return extras


def _check(spec: RunSpec[Any], cell: Cell, main: Exposure, value: Any) -> Exposure:
    """Return a result that can be folded into the output, or raise what is wrong with it."""
    if not isinstance(value, Exposure):
        raise TypeError(
            f"reducer {spec.reducer.name!r} needs an Exposure from the mapper, which returned "
            f"{type(value).__name__}; return sub.replace(image=...), or make the mapper of an "
            "array function with array_mapper"
        )
    box = value._bbox
    if box is not cell.core and box is not cell.expanded:
        _check_box(spec, cell, box)
    if value.wcs is not main.wcs and value.wcs is not None and not same_wcs(value.wcs, main.wcs):
        raise ValueError("the mapper returned an exposure with another WCS than its input")
    if value.psf is not main.psf and not isinstance(value.psf, Psf | None):
        raise TypeError(f"the mapper returned a {type(value.psf).__name__} as psf, not a Psf")
    _check_planes(spec, value.planes)
    mask = value._mask
    if isinstance(mask, np.ndarray) and value._mask_planes is not main._mask_planes:
        value = value.replace(mask=_translated(spec, mask, value.mask_planes))
    return value


def _check_box(spec: RunSpec[Any], cell: Cell, box: Box) -> None:
    if not spec.box.contains(box):
        raise ValueError(f"the mapper returned {box}, which reaches off the image {spec.box}")
    if not cell.expanded.grow(spec.reach).contains(box):
        raise ValueError(
            f"the mapper returned {box}, which reaches beyond the expanded box {cell.expanded}; "
            "give map_reduce the distance in pixels as reach="
        )


def _check_planes(spec: RunSpec[Any], planes: Mapping[str, Plane]) -> None:
    if ("variance" in planes) != ("variance" in spec.dtypes):
        has, wants = ("no", "one") if "variance" in spec.dtypes else ("a", "none")
        raise ValueError(f"the mapper returned {has} variance plane, the input has {wants}")
    for name, plane in planes.items():
        if not isinstance(plane, np.ndarray):
            raise TypeError(f"the mapper returned a lazy {name} plane; compute it first")
        dtype = spec.dtypes[name]
        if plane.dtype != dtype and not np.can_cast(plane.dtype, dtype, "same_kind"):
            raise TypeError(
                f"the mapper returned {name} as {plane.dtype}, "
                f"which does not fit the input's {dtype}"
            )


def _check_collected(spec: RunSpec[Any], cell: Cell, main: Exposure, value: Any) -> Any:
    spec.reducer.check_value(value, main)
    return value


def _translated(
    spec: RunSpec[Any], mask: NDArray[np.int32], theirs: MaskPlanes
) -> NDArray[np.int32]:
    """Return a mask with the bits that the planes of these names have in the output."""
    ours = spec.mask_planes
    moved = {name: bit for name, bit in theirs.items() if ours.get(name) != bit}
    if not moved:
        return mask
    translated = mask & ~np.int32(theirs.bitmask(*moved))
    for name, bit in moved.items():
        bits = (mask >> bit) & np.int32(1)
        if name in ours:
            translated |= bits << ours[name]
        elif bits.any():
            raise ValueError(
                f"the mapper set mask plane {name!r}, which the exposure does not have; add it "
                f"before the run: exposure.replace(mask_planes=exposure.mask_planes.add({name!r}))"
            )
    return translated


def _masks(tile: Tile, planes: Planes) -> list[NDArray[np.int32]]:
    """Return copies of the mask over the strips."""
    return [planes["mask"][strip.slices(tile.box)].copy() for strip in tile.strips]


def _shared(
    patches: list[Patch], failed: list[Box], tile: Tile
) -> tuple[list[Patch], dict[TileIndex, Spill]]:
    """Return what lies where others may reach, and what reaches into every other tile."""
    kept: list[Patch] = []
    spill: dict[TileIndex, Spill] = {}
    for patch in patches:
        if tile.interior.contains(patch.box):
            continue
        kept += [patch.cut(s).copy() for s in tile.strips if patch.box.overlaps(s)]
        if not tile.box.contains(patch.box):
            for index, box in tile.sends.items():
                if patch.box.overlaps(box):
                    spill.setdefault(index, ([], []))[0].append(patch.cut(box).copy())
    for core in failed:
        for index, box in tile.sends.items():
            if core.overlaps(box):
                spill.setdefault(index, ([], []))[1].append(core)
    return kept, spill


def _writeable(plane: NDArray[Any]) -> NDArray[Any]:
    """Return the plane, or a copy where it came over a wire into memory that cannot be written."""
    return plane if plane.flags.writeable else plane.copy()


def _peak_bytes() -> int:
    """Return the highest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

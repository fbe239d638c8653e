"""What all tasks of a run share, and what each of them reads: blocks, cut into cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.plane import Section, cut, read
from ..grid.grid import Cell, table_of
from ..reducers.base import Collector, PixelReducer
from .plan import Tile

__all__ = ["MAIN", "Blocks", "CellInput", "Job", "Planes", "cell_input", "exposure_over"]

MAIN = ""  # the name of the gridded exposure among the blocks, beside the aligned ones

Planes = dict[str, np.ndarray]


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

    @property
    def bad_bits(self) -> int:
        """The mask bits of pixels without a value."""
        return self.mask_planes.bitmask(*self.reducer.bad)


class Blocks(NamedTuple):
    """Pixels of one exposure over a box."""

    box: Box
    planes: Mapping[str, np.ndarray | Section]


class CellInput(NamedTuple):
    """What the cells of a tile are cut from.

    Attributes
    ----------
    whole : dict of str to Exposure or None
        The same exposures for all cells; None where a block cannot be read and the run goes on.
    read : function of a Cell
        Reads its own pixels then, so that only those cells fail that lie on the damage.
    """

    whole: Mapping[str, Exposure] | None
    read: Callable[[Cell], Mapping[str, Exposure]] | None = None

    def of(self, cell: Cell) -> Mapping[str, Exposure]:
        """Return the exposures that the cell is cut from, by name."""
        return self.read(cell) if self.whole is None else self.whole


def cell_input(
    job: Job, tile: Tile, blocks: Mapping[str, Blocks], mask: Blocks | None = None
) -> tuple[CellInput, np.ndarray | int]:
    """Read what a tile's cells look at.

    Returns
    -------
    CellInput
    array or int
        The mask over the tile; 0 where it cannot be read.
    """
    try:
        exposures, start = _read(job, blocks, mask, tile.table)
    except Exception as error:
        if job.on_error == "raise":
            error.add_note(f"while reading {tile.reads} for tile {tile.index}")
            raise
        by_cell = CellInput(None, lambda cell: _read_for(job, cell, blocks, mask))
        return by_cell, _mask_or_zero(mask, tile)
    start = 0 if start is None else start[tile.box.slices(mask.box)]
    return CellInput(exposures), start


def exposure_over(job: Job, name: str, box: Box, planes: Planes, table: np.ndarray) -> Exposure:
    """Return the exposure of which the cells of a table are read-only views."""
    shell = job.shells[name]
    exposure = Exposure(
        **planes,
        origin=(box.x0, box.y0),
        mask_planes=shell["mask_planes"],
        psf=shell["psf"],
        meta=shell["meta"],
    )
    widths = {width for part in ("core", "expanded") for width in table[part]["width"].tolist()}
    for plane, array in exposure.planes.items():
        setattr(exposure, plane, _read_only(array, widths))
    # A copy: astropy does not promise that threads may share a WCS (astropy/astropy#19174).
    exposure.wcs = None if shell["wcs"] is None else shell["wcs"].deepcopy()
    return exposure


def _read(
    job: Job, blocks: Mapping[str, Blocks], mask: Blocks | None, table: np.ndarray
) -> tuple[dict[str, Exposure], np.ndarray | None]:
    loaded = {name: (box, _arrays(planes)) for name, (box, planes) in blocks.items()}
    bits = None if mask is None else _arrays(mask.planes)["mask"]
    if mask is not None and MAIN in loaded:
        box, planes = loaded[MAIN]
        planes["mask"] = bits[box.slices(mask.box)]
    exposures = {
        name: exposure_over(job, name, box, planes, table) for name, (box, planes) in loaded.items()
    }
    return exposures, bits


def _read_for(
    job: Job, cell: Cell, blocks: Mapping[str, Blocks], mask: Blocks | None
) -> dict[str, Exposure]:
    parts = {name: _part(block, cell.expanded) for name, block in blocks.items()}
    mask_part = None if mask is None else _part(mask, cell.expanded)
    return _read(job, parts, mask_part, table_of([cell]))[0]


def _mask_or_zero(mask: Blocks | None, tile: Tile) -> np.ndarray | int:
    if mask is None:
        return 0
    try:
        return _arrays(_part(mask, tile.box).planes)["mask"]
    except Exception:
        # The cells that need it fail and are flagged; the other pixels of the tile have no bits.
        return 0


def _part(blocks: Blocks, box: Box) -> Blocks:
    where = box.slices(blocks.box)
    return Blocks(box, {name: cut(block, where) for name, block in blocks.planes.items()})


def _arrays(planes: Mapping[str, np.ndarray | Section]) -> Planes:
    return {name: read(block) for name, block in planes.items()}


def _read_only(block: np.ndarray, widths: set[int]) -> np.ndarray:
    """Return a read-only view, row by row in memory, in which no cell is contiguous.

    NumPy sums a contiguous array in another order than the rows of a larger one. Were a cell
    contiguous in a tile of its own and not in another, the last bits of a mean would tell.
    """
    height, width = block.shape
    row, pixel = block.strides
    if height > 1 and (pixel != block.itemsize or row // block.itemsize in widths):
        padding = next(n for n in range(1, len(widths) + 2) if width + n not in widths)
        padded = np.empty((height, width + padding), block.dtype)
        padded[:, :width] = block
        block = padded[:, :width]
    view = block.view()
    view.flags.writeable = False
    return view

"""Which cells belong to which output tile, what each tile must read, and who can reach whom.

Pure geometry. A *tile* is a block of the output and the unit of parallel work. Every cell has one
owner, the tile that holds the centre of its core. What a mapper returns for the cell lies within
the cell's expanded box, so a tile knows before the run which pixels only its own cells can reach
(its *interior*), and which other tiles may send it something.

      tile A               tile B
    +-----------+-----+ +-----+----------+
    |  interior | strip | strip | interior |    a cell of A near the edge may reach
    |    of A   |     | |     |   of B   |      into the strip of B, and the reverse
    +-----------+-----+ +-----+----------+
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from .box import Box
from .grid import Cell, Grid

__all__ = ["Plan", "Tile", "make_plan"]

# Pixels along an axis: enough work for a task, few enough bytes for many in flight, and where the
# exposure allows, sixteen tiles, so that all cores have one.
_SMALLEST, _LARGEST, _PER_AXIS = 256, 1024, 4

TileIndex = tuple[int, int]  # (row, column), as in dask


@dataclass(frozen=True)
class Tile:
    """A block of the output.

    Attributes
    ----------
    index : (int, int)
        Row and column among the tiles.
    box : Box
        The output pixels.
    cells : tuple of Cell
        The cells that it owns, in the grid's order.
    reads : Box
        The union of its cells' expanded boxes; empty without cells.
    interior : Box
        Pixels that no other tile's cell can reach; empty if there are none.
    sends : dict of (int, int) to Box
        The other tiles that its cells can reach, and their boxes.
    receives : tuple of (int, int)
        The other tiles whose cells can reach it.
    """

    index: TileIndex
    box: Box
    cells: tuple[Cell, ...]
    reads: Box
    interior: Box
    sends: dict[TileIndex, Box]
    receives: tuple[TileIndex, ...]

    @property
    def strips(self) -> list[Box]:
        """The rest of the box, outside of the interior, as up to four boxes."""
        outer, inner = self.box, self.interior
        if not inner.area:
            return [outer]
        candidates = (
            Box.from_edges(outer.x0, outer.y0, outer.x1, inner.y0),
            Box.from_edges(outer.x0, inner.y1, outer.x1, outer.y1),
            Box.from_edges(outer.x0, inner.y0, inner.x0, inner.y1),
            Box.from_edges(inner.x1, inner.y0, outer.x1, inner.y1),
        )
        return [box for box in candidates if box.area]


@dataclass(frozen=True)
class Plan:
    """All tiles of a run.

    Attributes
    ----------
    grid : Grid
    x_edges, y_edges : (n + 1,) int64 arrays
        Edges of the tiles along each axis, in parent coordinates.
    tiles : tuple of Tile
        Row by row.
    """

    grid: Grid
    x_edges: np.ndarray
    y_edges: np.ndarray
    tiles: tuple[Tile, ...]

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Heights and widths of the tiles, as dask array chunks."""
        return tuple(tuple(np.diff(edges).tolist()) for edges in (self.y_edges, self.x_edges))

    @property
    def largest(self) -> int:
        """Number of pixels that the largest task holds: its tile and what it reads."""
        return max(tile.box.area + tile.reads.area for tile in self.tiles)


def make_plan(grid: Grid, tile: int | tuple[int, int] | None = None, reach: int = 0) -> Plan:
    """Divide the output into tiles and the cells among them.

    Parameters
    ----------
    grid : Grid
    tile : int or (int, int), optional
        Tile size in pixels, a number or an (x, y) pair. By default about a quarter of the
        longer side, from 256 to 1024, with the edges at the edges of cells.
    reach : int, optional
        How far beyond its expanded box, in pixels, a cell's result may lie.

    Raises
    ------
    TypeError, ValueError
        If a size is not a whole number above zero.

    Examples
    --------
    >>> from mapreduce import Box, GridConfig
    >>> plan = make_plan(GridConfig(50, border=5).build(Box(0, 0, 200, 100)), tile=100)
    >>> [(tile.index, len(tile.cells), tile.interior) for tile in plan.tiles]
    [((0, 0), 4, Box(x0=0, y0=0, width=95, height=100)), \
((0, 1), 4, Box(x0=105, y0=0, width=95, height=100))]
    """
    box = grid.box
    if tile is None:
        size = min(max(max(box.shape) // _PER_AXIS, _SMALLEST), _LARGEST)
        x_edges = _edges_at_cells(box.x0, box.x1, size, {cell.core.x0 for cell in grid})
        y_edges = _edges_at_cells(box.y0, box.y1, size, {cell.core.y0 for cell in grid})
    else:
        width, height = _tile_size(tile)
        x_edges = np.array([*range(box.x0, box.x1, width), box.x1])
        y_edges = np.array([*range(box.y0, box.y1, height), box.y1])
    owners, touched = _ownership(grid, x_edges, y_edges, reach)

    boxes = {
        (row, column): Box.from_edges(x0, y0, x1, y1)
        for row, (y0, y1) in enumerate(pairwise(y_edges.tolist()))
        for column, (x0, x1) in enumerate(pairwise(x_edges.tolist()))
    }
    cells, foreign = defaultdict(list), defaultdict(list)
    sends, receives = defaultdict(dict), defaultdict(dict)
    order = sorted(range(len(grid)), key=lambda n: grid[n].index)
    for cell, owner, others in ((grid[n], owners[n], touched[n]) for n in order):
        cells[owner].append(cell)
        for other in others:
            sends[owner][other] = boxes[other]
            receives[other][owner] = None
            foreign[other].append(cell.expanded.grow(reach))
    return Plan(
        grid,
        x_edges,
        y_edges,
        tuple(
            Tile(
                index,
                tile_box,
                tuple(cells[index]),
                Box.union(cell.expanded for cell in cells[index]),
                _interior(tile_box, foreign[index]),
                sends[index],
                tuple(receives[index]),
            )
            for index, tile_box in boxes.items()
        ),
    )


def _tile_size(tile: Any) -> tuple[int, int]:
    size = tile if isinstance(tile, tuple) else (tile, tile)
    if len(size) != 2 or not all(isinstance(n, int | np.integer) for n in size):
        raise TypeError(f"tile must be a whole number or an (x, y) pair of them, got {tile!r}")
    if min(size) < 1:
        raise ValueError(f"tile must be above zero, got {tile!r}")
    return size


def _edges_at_cells(start: int, stop: int, size: int, cuts: set[int]) -> np.ndarray:
    """Return tile edges along an axis, at edges of cells that are ``size`` or more apart."""
    edges = [start]
    for cut in sorted(cuts):
        if cut - edges[-1] >= size:
            edges += range(edges[-1] + 2 * size, cut, 2 * size)  # where cells are far apart
            edges.append(cut)
    edges += range(edges[-1] + 2 * size, stop, 2 * size)
    return np.array([*edges, stop])


def _ownership(
    grid: Grid, x_edges: np.ndarray, y_edges: np.ndarray, reach: int
) -> tuple[list[TileIndex], list[list[TileIndex]]]:
    """Return for each cell its owner, and the other tiles that its result may touch."""
    if not grid.cells:
        return [], []
    core = np.array([cell.core for cell in grid])
    expanded = np.array([cell.expanded.grow(reach).clip(grid.box) for cell in grid])

    def at(x: np.ndarray, y: np.ndarray) -> tuple[list[int], list[int]]:
        rows = np.searchsorted(y_edges, y, side="right") - 1
        columns = np.searchsorted(x_edges, x, side="right") - 1
        return rows.tolist(), columns.tolist()

    centre = core[:, :2] + core[:, 2:] // 2
    owners = list(zip(*at(centre[:, 0], centre[:, 1]), strict=True))
    first = at(expanded[:, 0], expanded[:, 1])
    last = at(expanded[:, 0] + expanded[:, 2] - 1, expanded[:, 1] + expanded[:, 3] - 1)
    touched = [
        []
        if row0 == row1 and column0 == column1
        else [
            (row, column)
            for row in range(row0, row1 + 1)
            for column in range(column0, column1 + 1)
            if (row, column) != owner
        ]
        for owner, row0, column0, row1, column1 in zip(owners, *first, *last, strict=True)
    ]
    return owners, touched


def _interior(box: Box, foreign: Iterable[Box]) -> Box:
    """Return a large part of the box that none of the foreign boxes overlaps."""
    inner = box
    for other in foreign:
        if inner.overlaps(other):
            inner = max(
                Box.from_edges(max(other.x1, inner.x0), inner.y0, inner.x1, inner.y1),
                Box.from_edges(inner.x0, inner.y0, min(other.x0, inner.x1), inner.y1),
                Box.from_edges(inner.x0, max(other.y1, inner.y0), inner.x1, inner.y1),
                Box.from_edges(inner.x0, inner.y0, inner.x1, min(other.y0, inner.y1)),
                key=lambda candidate: candidate.area,
            )
    return inner if inner.area else Box(box.x0, box.y0, 0, 0)

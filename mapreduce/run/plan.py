"""Which cells belong to which output tile, what each tile must read, and who can reach whom.

Pure geometry. A *tile* is a block of the output and the unit of parallel work. Every cell has one
owner, the tile that holds the center of its core. What a mapper returns for the cell lies within
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
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exposure.box import Box, size_pair
from ..grid.grid import Grid

__all__ = ["Plan", "Tile", "make_plan"]

# Pixels along an axis: enough work for a task, few enough bytes for many in flight, and where the
# exposure allows, sixteen tiles, so that all cores have one.
_SMALLEST, _LARGEST, _PER_AXIS = 512, 1024, 4

TileIndex = tuple[int, int]  # (row, column), as in dask
Line = NDArray[np.int64]  # edges along an axis, or places of cells


@dataclass(frozen=True)
class Tile:
    """A block of the output.

    Attributes
    ----------
    index : (int, int)
        Row and column among the tiles.
    box : Box
        The output pixels.
    table : (n,) array
        The cells that it owns, in the order of their indices; rows of `Grid.table`.
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
    table: NDArray[Any]
    reads: Box
    interior: Box
    sends: dict[TileIndex, Box]
    receives: tuple[TileIndex, ...]

    @cached_property
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
    x_edges: Line
    y_edges: Line
    tiles: tuple[Tile, ...]

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Heights and widths of the tiles, as dask array chunks."""
        return tuple(np.diff(self.y_edges).tolist()), tuple(np.diff(self.x_edges).tolist())


def make_plan(grid: Grid, tile: int | tuple[int, int] | None = None, reach: int = 0) -> Plan:
    """Divide the output into tiles and the cells among them.

    Parameters
    ----------
    grid : Grid
    tile : int or (int, int), optional
        Tile size in pixels, a number or an (x, y) pair. By default about a quarter of the
        longer side, from 512 to 1024, with the edges at the edges of cells.
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
    >>> [(tile.index, len(tile.table), tile.interior) for tile in plan.tiles]
    [((0, 0), 4, Box(x0=0, y0=0, width=95, height=100)), \
((0, 1), 4, Box(x0=105, y0=0, width=95, height=100))]
    """
    x_edges, y_edges = _edges(grid, tile)
    shape = len(y_edges) - 1, len(x_edges) - 1
    boxes = {
        (row, column): Box.from_edges(x0, y0, x1, y1)
        for row, (y0, y1) in enumerate(pairwise(y_edges.tolist()))
        for column, (x0, x1) in enumerate(pairwise(x_edges.tolist()))
    }
    table = grid.table[np.argsort(grid.table["index"], kind="stable")]
    core = table["core"]
    middle = core["x0"] + core["width"] // 2, core["y0"] + core["height"] // 2
    owner = _at(x_edges, y_edges, *middle)
    owned = _grouped(np.ravel_multi_index(owner, shape), len(boxes))
    x0, y0, x1, y1 = seen = _edges_of(table["expanded"])
    reached = x0 - reach, y0 - reach, x1 + reach, y1 + reach
    pairs, interiors = _exchange(reached, owner, x_edges, y_edges, list(boxes.values()))
    sends: defaultdict[TileIndex, dict[TileIndex, Box]] = defaultdict(dict)
    receives: defaultdict[TileIndex, list[TileIndex]] = defaultdict(list)
    indices = list(boxes)
    for owner, other in pairs.tolist():
        sends[indices[owner]][indices[other]] = boxes[indices[other]]
        receives[indices[other]].append(indices[owner])
    tiles = (
        Tile(
            index,
            boxes[index],
            table[rows],
            _union(seen, rows),
            interior,
            sends[index],
            tuple(receives[index]),
        )
        for index, rows, interior in zip(indices, owned, interiors, strict=True)
    )
    return Plan(grid, x_edges, y_edges, tuple(tiles))


def _edges(grid: Grid, tile: int | tuple[int, int] | None) -> tuple[Line, Line]:
    """Return the tiles' edges in x and in y."""
    box = grid.box
    if tile is None:
        size = min(max(max(box.shape) // _PER_AXIS, _SMALLEST), _LARGEST)
        core = grid.table["core"]
        return (
            _edges_at_cells(box.x0, box.x1, size, np.unique(core["x0"]).tolist()),
            _edges_at_cells(box.y0, box.y1, size, np.unique(core["y0"]).tolist()),
        )
    width, height = size_pair("tile", tile)
    return (
        np.array([*range(box.x0, box.x1, width), box.x1]),
        np.array([*range(box.y0, box.y1, height), box.y1]),
    )


def _edges_at_cells(start: int, stop: int, size: int, cuts: list[int]) -> Line:
    """Return tile edges along an axis, at edges of cells that are ``size`` or more apart."""
    edges = [start]
    for cut in cuts:
        if cut - edges[-1] >= size:
            edges += range(edges[-1] + 2 * size, cut, 2 * size)  # where cells are far apart
            edges.append(cut)
    edges += range(edges[-1] + 2 * size, stop, 2 * size)
    return np.array([*edges, stop])


def _edges_of(boxes: NDArray[Any]) -> tuple[Line, Line, Line, Line]:
    """Return the edges x0, y0, x1, y1 of boxes."""
    x0, y0 = boxes["x0"], boxes["y0"]
    return x0, y0, x0 + boxes["width"], y0 + boxes["height"]


def _at(x_edges: Line, y_edges: Line, x: Line, y: Line) -> tuple[Line, Line]:
    """Return row and column of the tiles that hold points, or are nearest to them."""
    rows, columns = (
        np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        for edges, values in ((y_edges, y), (x_edges, x))
    )
    return rows, columns


def _exchange(
    reached: tuple[Line, Line, Line, Line],
    owner: tuple[Line, Line],
    x_edges: Line,
    y_edges: Line,
    boxes: list[Box],
) -> tuple[NDArray[np.intp], list[Box]]:
    """Return the pairs of tiles (owner, other) of which one's cells reach the other; interiors.

    A tile's interior ends where the cells begin that reach in from the other columns of tiles, and
    from the other rows of its own column.

    Parameters
    ----------
    reached : four (n,) arrays
        The edges x0, y0, x1, y1 of what each cell's result may touch.
    owner : pair of (n,) arrays
        Row and column of the cell's tile.
    x_edges, y_edges : (m + 1,) arrays
        Edges of the tiles.
    boxes : list of Box
        Of the tiles, row by row.
    """
    low_x, low_y, high_x, high_y = reached
    first = _at(x_edges, y_edges, low_x, low_y)
    last = _at(x_edges, y_edges, high_x - 1, high_y - 1)
    shape = len(y_edges) - 1, len(x_edges) - 1
    pairs = []
    edges = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes])
    x0, y0, x1, y1 = edges.T
    (rows, columns), (first_row, first_column) = owner, first
    spans = [(b - a).max(initial=0) + 1 for a, b in zip(first, last, strict=True)]
    for down, right in np.ndindex(*spans):
        row, column = first_row + down, first_column + right
        touched = (row <= last[0]) & (column <= last[1])
        touched &= (row != rows) | (column != columns)
        cells = np.flatnonzero(touched)
        if not len(cells):
            continue
        row, column, own_row, own_column = (a[cells] for a in (row, column, rows, columns))
        other = np.ravel_multi_index((row, column), shape)
        pairs.append(np.stack([np.ravel_multi_index((own_row, own_column), shape), other], 1))
        for side, edge, shrink, low, same in (
            (own_column < column, x0, np.maximum.at, high_x, None),
            (own_column > column, x1, np.minimum.at, low_x, None),
            (own_row < row, y0, np.maximum.at, high_y, own_column == column),
            (own_row > row, y1, np.minimum.at, low_y, own_column == column),
        ):
            chosen = side if same is None else side & same
            shrink(edge, other[chosen], low[cells[chosen]])
    interiors = [Box.from_edges(*inner) for inner in edges.tolist()]
    interiors = [
        inner if inner.area else Box(box.x0, box.y0, 0, 0)
        for inner, box in zip(interiors, boxes, strict=True)
    ]
    return np.unique(np.concatenate([*pairs, np.empty((0, 2), int)]), axis=0), interiors


def _grouped(numbers: NDArray[np.intp], count: int) -> list[NDArray[np.intp]]:
    """Return for each number below ``count`` where it stands, in order."""
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.searchsorted(numbers[order], np.arange(1, count)))


def _union(edges: tuple[Line, Line, Line, Line], rows: NDArray[np.intp]) -> Box:
    """Return the smallest box around some of the boxes with these edges."""
    if not len(rows):
        return Box(0, 0, 0, 0)
    x0, y0, x1, y1 = (values[rows] for values in edges)
    return Box.from_edges(int(x0.min()), int(y0.min()), int(x1.max()), int(y1.max()))

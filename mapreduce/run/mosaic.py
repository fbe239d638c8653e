"""The results of cells that lie side by side, written into one canvas as they come."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..grid.grid import Cell
from .fold import Piece, valid_pixels
from .job import Job, Planes
from .plan import Tile

__all__ = ["Mosaic"]


class Mosaic:
    """Results of cells whose cores tile a box.

    NumPy lets go of Python's global lock in every call, and the shorter the calls, the more time is
    lost in handing it from thread to thread: one large piece is folded in less time than many small
    ones. Where the reducer keeps single values and the cores tile the output, results are written
    there at once, and need no folding if all fit and are valid. What the mapper left as it was is
    taken from the ``parent`` of all cells at the end.
    """

    def __init__(self, job: Job, tile: Tile, parent: Exposure | None, output: Planes) -> None:
        self._tile = tile
        self._parent = parent
        self._output = output
        joins = parent is not None and job.reducer.joins
        self._box = _tiled(tile.table["core"]) if joins else None
        self._in_place = job.reducer.keeps_single and self._box == tile.box
        self._first: Piece | None = None
        self._canvas: Planes = {}
        self._fits: list[bool] = []

    def add(self, cell: Cell, piece: Piece) -> bool:
        """Write a cell's result if it fits: on its core, of the same kind as the first one."""
        fits = self._box is not None and piece.planes is not None and piece.box == cell.core
        fits = fits and self._write(piece)
        self._fits.append(fits)
        return fits

    def _write(self, piece: Piece) -> bool:
        if self._first is None:
            self._begin(piece)
        if piece.unchanged != self._first.unchanged or len(piece.planes) != len(self._first.planes):
            return False
        where = piece.box.slices(self._box)
        for name, plane in self._canvas.items():
            values = piece.planes.get(name)
            if values is None or values.dtype != plane.dtype:
                return False
            plane[where] = values
        return True

    def _begin(self, first: Piece) -> None:
        kinds = {name: plane.dtype for name, plane in first.planes.items()}
        self._first = first._replace(planes=kinds)
        pixels = kinds.keys() - {"mask"}
        self._in_place &= all(kinds[name] == self._output[name].dtype for name in pixels)
        for name in kinds.keys() - set(first.unchanged):
            in_place = self._in_place and name != "mask"
            plane = self._output[name] if in_place else np.empty(self._box.shape, kinds[name])
            self._canvas[name] = plane

    def _planes(self) -> Planes:
        """Return the planes over the box, with those that the mapper left unchanged."""
        where = self._box.slices(self._parent.bbox)
        unchanged = {name: self._parent.planes[name][where] for name in self._first.unchanged}
        return {**self._canvas, **unchanged}

    def settle(self) -> Piece | None:
        """Make the results the output, if they are, but for the mask: return them as one piece."""
        if not (self._fits and all(self._fits) and self._in_place):
            return None
        planes = self._planes()
        if valid_pixels(planes["image"], planes.get("variance")) is not None:
            return None
        for name in self._first.unchanged:
            np.copyto(self._output[name], planes[name])
            planes[name] = self._output[name]
        return self._piece(planes)

    def pieces(self) -> list[Piece]:
        """Return what was written, to be folded: as one piece, if nothing was left out."""
        if not any(self._fits):
            return []
        piece = self._piece(self._planes())
        if self._in_place:
            piece = piece.copy()  # the output is where it will be folded to
        return [piece] if all(self._fits) else piece.taken_apart()

    def _piece(self, planes: Planes) -> Piece:
        members = self._tile.table[self._fits]
        return Piece(int(members["index"][0]), self._box, self._box, planes, members=members)


def _tiled(boxes: np.ndarray) -> Box | None:
    """Return what boxes tile, if they are all products of adjoining intervals in x and y."""
    boxes = boxes.tolist()
    if not boxes:
        return None
    columns = sorted({(x, x + width) for x, _, width, _ in boxes})
    rows = sorted({(y, y + height) for _, y, _, height in boxes})
    corners = {(x, y) for x, y, _, _ in boxes}
    if not len(boxes) == len(corners) == len(columns) * len(rows):
        return None
    if any(end != start for line in (columns, rows) for (_, end), (start, _) in pairwise(line)):
        return None
    return Box.from_edges(columns[0][0], rows[0][0], columns[-1][1], rows[-1][1])

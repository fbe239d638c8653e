"""A region of the output, filled by one piece of a result after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..exposure.box import Box
from ..reducers.base import Patch, PixelReducer
from ..reducers.pixels import Average, Copy, Sum
from .job import Job, Planes
from .plan import Tile

__all__ = ["Fold", "Piece", "Tiling", "valid_pixels"]


class Piece(NamedTuple):
    """A cell's result, or the part of it that one tile needs.

    Attributes
    ----------
    index : int
        The cell's index.
    box : Box
        Box of the whole result, or of the core of a failed cell.
    part : Box
        Box of the arrays here.
    planes : dict of arrays or None
        None where the cell failed. Without a mask whose bits are in the output already.
    """

    index: int
    box: Box
    part: Box
    planes: Planes | None

    def cut(self, box: Box) -> Piece:
        """Return the part inside of a box."""
        if box.contains(self.part):
            return self
        part = self.part.clip(box)
        if self.planes is None:
            return self._replace(part=part)
        where = part.slices(self.part)
        planes = {name: plane[where] for name, plane in self.planes.items()}
        return self._replace(part=part, planes=planes)

    def copy(self) -> Piece:
        """Return the piece with arrays of its own, which do not keep the whole result alive."""
        if self.planes is None:
            return self
        return self._replace(planes={name: plane.copy() for name, plane in self.planes.items()})


class Fold:
    """A region of the output, filled by one piece after the other.

    To be used with NumPy's warnings off, as data may hold what overflows or is not a number.
    """

    def __init__(self, job: Job, box: Box, parent: Box, planes: Planes) -> None:
        self.job = job
        self.box = box
        self.failed: list[Box] = []
        where = box.slices(parent)
        self.image = planes["image"][where]
        self.variance = planes["variance"][where] if "variance" in planes else None
        self.mask = planes["mask"][where]
        self.fresh = np.ones(box.shape, bool) if job.reducer.mask == "replace" else None
        self.state = job.reducer.begin(self.image, self.variance)

    def add(self, piece: Piece) -> None:
        """Add the part of a piece that lies in the region."""
        if not piece.part.overlaps(self.box):
            return
        piece = piece.cut(self.box)
        if piece.planes is None:
            self.failed.append(piece.part)
            return
        where = piece.part.slices(self.box)
        image, variance = piece.planes["image"], piece.planes.get("variance")
        valid = valid_pixels(image, variance)
        patch = Patch(piece.box, piece.part, image, variance, valid)
        self.job.reducer.fold(self.state, where, patch)
        self._add_mask(where, piece.planes.get("mask"), valid)

    def _add_mask(
        self, where: tuple[slice, slice], bits: np.ndarray | None, valid: np.ndarray | None
    ) -> None:
        if self.fresh is not None:
            self.mask[where][self.fresh[where]] = 0
            self.fresh[where] = False
        if bits is not None:
            mask = self.mask[where]
            only = valid is not None and self.job.reducer.mask == "valid"
            np.bitwise_or(mask, bits, out=mask, where=valid if only else True)

    def finish(self) -> None:
        """Leave the result in the region's planes, flagged where it is missing."""
        self.job.reducer.finish(self.state)
        bits = np.int32(self.job.bad_bits)
        for box in self.failed:
            where = box.slices(self.box)
            self.mask[where] |= bits
            for plane in (self.image, self.variance):
                if plane is not None and plane.dtype.kind == "f":
                    plane[where] = np.nan
        valid = valid_pixels(self.image, self.variance) if bits else None
        if valid is not None:
            np.bitwise_or(self.mask, bits, out=self.mask, where=~valid)


class Tiling:
    """The quick path of results that lie side by side: they are written where the output is.

    NumPy lets go of Python's global lock in every call, and the shorter the calls, the more time
    threads lose in handing it to and fro: to fold every small result takes twice as long as to
    write it. So as long as a tile's cores tile it, each result is valid, on its core and of the
    output's dtypes, and the reducer leaves a value that is alone as it is, the results are the
    output. Where one does not fit, those before it are cut out of the output, to be folded.
    """

    def __init__(self, job: Job, tile: Tile, output: Planes) -> None:
        self._box = tile.box
        self._output = output
        self._names = output.keys() - {"mask"}
        self._boxes: list[tuple[int, Box]] = []
        self._open = _keeps_single(job.reducer) and _tiled(tile.table["core"]) == tile.box

    def take(self, piece: Piece, core: Box) -> bool:
        """Write a result, if it and all before it fit; its mask has to be in the output already."""
        if not self._open:
            return False
        planes = piece.planes
        self._open = planes is not None and piece.box == core and planes.keys() == self._names
        self._open = self._open and all(planes[n].dtype == self._output[n].dtype for n in planes)
        if self._open:
            where = core.slices(self._box)
            for name, plane in planes.items():
                self._output[name][where] = plane
            self._boxes.append((piece.index, core))
        return self._open

    def close(self) -> bool:
        """Return whether all results are the output."""
        image, variance = self._output["image"], self._output.get("variance")
        self._open = self._open and valid_pixels(image, variance) is None
        return self._open

    def pieces(self) -> list[Piece]:
        """Return what was written, cut out of the output; views of it while that is complete."""
        planes = {name: self._output[name] for name in self._names}
        if not self._open:  # they will be folded into the output
            planes = {name: plane.copy() for name, plane in planes.items()}
        whole = Piece(0, self._box, self._box, planes)
        return [whole.cut(box)._replace(index=index, box=box) for index, box in self._boxes]


def _keeps_single(reducer: PixelReducer) -> bool:
    """Whether a value that is alone at its pixel comes out as it is, bit by bit."""
    kind = type(reducer)  # not one derived from it, which may fold in its own way
    exact = kind is not Average or reducer.variance_rule != "correlated"  # the square of a root
    return kind in (Copy, Sum, Average) and exact and reducer.mask != "replace"


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


def valid_pixels(image: np.ndarray, variance: np.ndarray | None) -> np.ndarray | None:
    """Return where image * variance is not NaN, the original's test; None if that is everywhere.

    So a pixel has no value where either plane is NaN, or one infinite and the other zero.
    """
    if image.dtype.kind != "f" and variance is None:
        return None
    total = image.sum() if variance is None else np.einsum("ij,ij->", image, variance)
    if total == total:  # no NaN among the terms: the quick answer for most
        return None
    missing = np.isnan(image if variance is None else image * variance)
    return ~missing if missing.any() else None

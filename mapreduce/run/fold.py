"""A region of the output, filled by one piece of a result after the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..exposure.box import Box
from ..grid.grid import cells_of
from ..reducers.base import Patch
from .job import Job, Planes

__all__ = ["Fold", "Piece", "valid_pixels"]


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
    unchanged : tuple of str
        The planes that the mapper left as they were.
    members : (n,) array or None
        Of several results put together: their cells, rows of `Grid.table`; each is on its core.
    """

    index: int
    box: Box
    part: Box
    planes: Planes | None
    unchanged: tuple[str, ...] = ()
    members: np.ndarray | None = None

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

    def taken_apart(self) -> list[Piece]:
        """Return the pieces of the single results."""
        if self.members is None:
            return [self]
        pieces = []
        for index, box, _ in cells_of(self.members):
            if box.overlaps(self.part):
                pieces.append(self.cut(box)._replace(index=index, box=box, members=None))
        return pieces


class Fold:
    """A region of the output, filled by one piece after the other.

    To be used with NumPy's warnings off, as data may hold what overflows or is not a number.
    """

    def __init__(self, job: Job, box: Box, parent: Box, planes: Planes) -> None:
        self.job = job
        self.box = box
        self.failed: list[Box] = []
        self.exact = True  # no value was changed by a conversion
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
        valid = valid_pixels(image, variance) if self.job.reducer.looks_for_nan else None
        patch = Patch(piece.box, piece.part, image, variance, valid)
        self.exact &= image.dtype == self.image.dtype
        self.exact &= variance is None or variance.dtype == self.variance.dtype
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
        complete = self.job.reducer.finish(self.state)
        bits = np.int32(self.job.bad_bits)
        for box in self.failed:
            where = box.slices(self.box)
            self.mask[where] |= bits
            for plane in (self.image, self.variance):
                if plane is not None and plane.dtype.kind == "f":
                    plane[where] = np.nan
        if complete and self.exact and not self.failed:
            return
        valid = valid_pixels(self.image, self.variance)
        if valid is not None:
            np.bitwise_or(self.mask, bits, out=self.mask, where=~valid)


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

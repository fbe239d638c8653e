"""A region of the output, filled by one piece of a result after the other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .box import Box
from .job import Job, Planes
from .reducer import Patch

__all__ = ["Fold", "Piece", "valid_pixels"]


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


class Fold:
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
            valid = valid_pixels(image, variance)
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
            valid = valid_pixels(self.image, self.variance)
        if valid is not None:
            np.bitwise_or(self.mask, bits, out=self.mask, where=~valid)


def valid_pixels(image: np.ndarray, variance: np.ndarray | None) -> np.ndarray | None:
    """Return where image * variance is not NaN, the original's test; None if that is everywhere.

    So a pixel has no value where either plane is NaN, or one infinite and the other zero.
    """
    product = image if variance is None else image * variance
    if product.dtype.kind != "f":
        return None
    total = product.sum()
    if total == total:  # no NaN among the terms: the quick answer for most
        return None
    missing = np.isnan(product)
    return ~missing if missing.any() else None

"""A region of the output, filled with one patch after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..grid.grid import cells_of
from ..reducers.base import Patch, PixelReducer
from ..reducers.pixels import Average, Copy, Sum
from .plan import Tile
from .spec import Planes, RunSpec

__all__ = ["Tiling", "cut_out", "fold", "valid_pixels"]

_PIXELS = "image", "variance"


def fold(
    spec: RunSpec[PixelReducer],
    box: Box,
    planes: Planes,
    parent: Box,
    patches: Iterable[Patch],
    failed: Iterable[Box],
) -> None:
    """Fold patches into a region of planes, and flag where it has no value.

    To be used with NumPy's warnings off, as data may hold what overflows or is not a number.

    Parameters
    ----------
    spec : RunSpec
    box : Box
        The region.
    planes : dict of arrays
        The output, over ``parent``; its mask holds what the region's mask starts from.
    parent : Box
    patches : iterable of Patch
        In the order in which they are folded; those elsewhere are left out.
    failed : iterable of Box
        Where cells failed.
    """
    where = box.slices(parent)
    region = {name: plane[where] for name, plane in planes.items()}
    image, variance, mask = region["image"], region.get("variance"), region["mask"]
    fresh = np.ones(box.shape, bool) if spec.reducer.mask == "replace" else None
    state = spec.reducer.begin(image, variance)
    for patch in patches:
        if patch.part.overlaps(box):
            patch = patch.cut(box)
            where = patch.part.slices(box)
            valid = valid_pixels(patch.image, patch.variance)
            if valid is not None:
                patch = patch._replace(valid=valid)
            spec.reducer.fold(state, where, patch)
            if fresh is not None:
                mask[where][fresh[where]] = 0
                fresh[where] = False
            if patch.mask is not None:
                only = valid if valid is not None and spec.reducer.mask == "valid" else True
                np.bitwise_or(mask[where], patch.mask, out=mask[where], where=only)
    spec.reducer.finish(state)
    _flag(region, [core.clip(box).slices(box) for core in failed if core.overlaps(box)], spec)


def _flag(region: Planes, failed: list[tuple[slice, slice]], spec: RunSpec[PixelReducer]) -> None:
    """Take the values of failed cells away, and set the bits of pixels without a value."""
    bits = np.int32(spec.mask_planes.bitmask(*spec.reducer.bad))
    for where in failed:
        region["mask"][where] |= bits
        for name, plane in region.items():
            if name != "mask" and plane.dtype.kind == "f":
                plane[where] = np.nan
    valid = valid_pixels(region["image"], region.get("variance")) if bits else None
    if valid is not None:
        np.bitwise_or(region["mask"], bits, out=region["mask"], where=~valid)


class Tiling:
    """The quick path of results that lie side by side: they are written where the output is.

    NumPy lets go of Python's global lock in every call, and the shorter the calls, the more time
    threads lose in handing it to and fro: to fold every small result takes twice as long as to
    write it. So as long as a tile's cores tile it, each result is valid, on its core and of the
    output's dtypes, and the reducer leaves a value that is alone as it is, the results are the
    output. What the mapper left as it was is copied at the end, all at once. Where a result does
    not fit, those before it are cut out again, to be folded.

    Parameters
    ----------
    spec : RunSpec
    tile : Tile
    whole : Exposure or None
        What all cells are cut from.
    output : dict of arrays
        The output over the tile.
    """

    def __init__(
        self, spec: RunSpec[PixelReducer], tile: Tile, whole: Exposure | None, output: Planes
    ) -> None:
        self._tile = tile
        self._whole = whole
        self._output = output
        self._changed: tuple[bool, bool] | None = None  # image and variance, alike for all
        self._written: list[tuple[int, NDArray[Any]]] = []  # of those that change, place and output
        self._taken = 0
        self._fits = whole is not None and _keeps_single(spec.reducer)
        self._fits = self._fits and _tiled(tile.table["core"]) == tile.box

    def take(self, patch: Patch | None, core: Box, given: Sequence[Any]) -> bool:
        """Write the next cell's result, if it and all before it fit.

        Parameters
        ----------
        patch : Patch or None
            None where the cell failed.
        core : Box
            The cell's.
        given : sequence
            The image and the variance that the mapper got, over the core.
        """
        if not self._fits:
            return False
        self._fits = patch is not None and self._write(patch, core, given)
        self._taken += self._fits
        return self._fits

    def _write(self, patch: Patch, core: Box, given: Sequence[Any]) -> bool:
        changed = patch.image is not given[0], patch.variance is not given[1]
        if self._changed is None:
            self._changed = changed
            self._written = [
                (place, self._output[name])
                for place, (name, written) in enumerate(zip(_PIXELS, changed, strict=True))
                if written
            ]
        if patch.mask is not None or changed != self._changed or patch.box != core:
            return False
        where = core.slices(self._tile.box)
        planes = patch.image, patch.variance
        for place, output in self._written:
            plane = planes[place]
            if plane is None or plane.dtype != output.dtype:
                return False
            output[where] = plane
        return True

    def close(self) -> bool:
        """Return whether the results are the output, all of them."""
        if self._fits:
            for name, plane in self._unchanged().items():
                np.copyto(self._output[name], plane)
            image, variance = self._output["image"], self._output.get("variance")
            self._fits = valid_pixels(image, variance) is None
        return self._fits

    def _unchanged(self) -> Planes:
        """Return the planes that the mapper left as they were, over the tile."""
        if self._whole is None or self._changed is None:
            return {}
        where = self._tile.box.slices(self._whole.bbox)
        left = (name for name, c in zip(_PIXELS, self._changed, strict=True) if not c)
        return {name: self._whole.planes[name][where] for name in left if name in self._output}

    def patches(self) -> list[Patch]:
        """Return what was taken, where that is not all; the output is free to be folded into."""
        if not self._taken:
            return []
        planes = {name: self._output[name].copy() for name in _PIXELS if name in self._output}
        taken = self._tile.table[: self._taken]
        return list(cut_out(taken, self._tile.box, planes | self._unchanged()))


def cut_out(cells: NDArray[Any], box: Box, planes: Planes) -> Iterator[Patch]:
    """Yield the results of cells that lie side by side in the planes over a box, as views."""
    for cell in cells_of(cells):
        where = cell.core.slices(box)
        parts = {name: planes[name][where] for name in _PIXELS if name in planes}
        yield Patch(cell.core, cell.core, **parts, cell=cell.index)


def _keeps_single(reducer: PixelReducer) -> bool:
    """Whether a value that is alone at its pixel comes out as it is, bit by bit."""
    kind = type(reducer)  # not one derived from it, which may fold in its own way
    exact = kind is not Average or reducer.variance_rule != "correlated"  # the square of a root
    return kind in (Copy, Sum, Average) and exact and reducer.mask != "replace"


def _tiled(boxes: NDArray[Any]) -> Box | None:
    """Return what boxes tile, if they are all products of adjoining intervals in x and y."""
    corners = boxes.tolist()
    if not corners:
        return None
    columns = sorted({(x, x + width) for x, _, width, _ in corners})
    rows = sorted({(y, y + height) for _, y, _, height in corners})
    places = {(x, y) for x, y, _, _ in corners}
    if not len(corners) == len(places) == len(columns) * len(rows):
        return None
    if any(end != start for line in (columns, rows) for (_, end), (start, _) in pairwise(line)):
        return None
    return Box.from_edges(columns[0][0], rows[0][0], columns[-1][1], rows[-1][1])


def valid_pixels(image: NDArray[Any], variance: NDArray[Any] | None) -> NDArray[np.bool_] | None:
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

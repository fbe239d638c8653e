"""Adding values up pixel by pixel: how many there are, their sums, and what divides by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Totals", "divide"]

_MANY = 64  # places that are compared one by one


class Totals:
    """Sums of the valid values of a region, in the dtypes of its planes, and how many there are.

    Where results lie side by side, each valid everywhere, their places tell. Only when one lies
    over another, or lacks values, are they counted pixel by pixel.

    Parameters
    ----------
    image : (ny, nx) array
        The plane that holds the sums; undefined where there is no value.
    variance : (ny, nx) array or None
        The same of another plane.

    Attributes
    ----------
    planes : tuple of arrays
        Both, or the first alone.
    """

    def __init__(self, image: NDArray[Any], variance: NDArray[Any] | None) -> None:
        self.planes = (image,) if variance is None else (image, variance)
        self._places: list[tuple[slice, slice]] = []
        self._count: NDArray[np.unsignedinteger[Any]] | None = None

    def add(
        self,
        where: tuple[slice, slice],
        values: Sequence[NDArray[Any]],
        valid: NDArray[np.bool_] | None,
    ) -> None:
        """Add values where they are valid; the first as it is."""
        before = self.cover(where, valid)
        for plane, terms in zip(self.planes, values, strict=True):
            total = plane[where]
            if before is None:
                np.copyto(total, terms)
                continue
            first = before == 0
            further = ~first if valid is None else valid & ~first
            np.copyto(total, terms, where=first)
            np.add(total, terms, out=total, where=further, casting="same_kind")

    def cover(
        self, where: tuple[slice, slice], valid: NDArray[np.bool_] | None
    ) -> NDArray[np.unsignedinteger[Any]] | None:
        """Count values; return how many there were before, or None if there were none at all."""
        if self._count is None and valid is None and self._is_free(where):
            self._places.append(where)
            return None
        count = self.count[where]
        if count.max(initial=0) == np.iinfo(count.dtype).max:
            self._count = self.count.astype(np.uint32)
            count = self._count[where]
        before = count.copy()
        count += True if valid is None else valid
        return before

    def _is_free(self, where: tuple[slice, slice]) -> bool:
        if len(self._places) == _MANY:
            return False
        y, x = where
        return not any(
            y.start < rows.stop and rows.start < y.stop
            and x.start < columns.stop and columns.start < x.stop
            for rows, columns in self._places
        )  # fmt: skip

    @property
    def count(self) -> NDArray[np.unsignedinteger[Any]]:
        """The number of values of each pixel."""
        if self._count is None:
            self._count = np.zeros(self.planes[0].shape, np.uint8)
            for where in self._places:
                self._count[where] = 1
        return self._count

    @property
    def is_single(self) -> bool:
        """Whether no pixel can have more than one value."""
        return self._count is None

    def fill(self, value: float) -> None:
        """Set pixels without a value."""
        if self._count is None:
            areas = ((y.stop - y.start) * (x.stop - x.start) for y, x in self._places)
            if sum(areas) == self.planes[0].size:
                return
        if not self.count.all():
            missing = self.count == 0
            for plane in self.planes:
                plane[missing] = value


def divide(
    plane: NDArray[Any],
    count: NDArray[np.unsignedinteger[Any]],
    covered: NDArray[np.bool_],
) -> None:
    """Divide in float64, store in the plane's dtype."""
    np.divide(plane, count, out=plane, where=covered, casting="same_kind", dtype=np.float64)

"""Box: a half-open rectangle of pixels, in the parent's coordinates; and sizes of rectangles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from operator import index
from typing import Any, Literal, NamedTuple, overload

import astropy.units as u
import numpy as np

from ..units import has_unit, in_unit, plain

__all__ = ["Box", "size_pair", "whole_pixels"]


class _Edges(NamedTuple):
    x0: int
    y0: int
    width: int
    height: int


class Box(_Edges):
    """A half-open rectangle of whole pixels: ``x0 <= x < x1``, ``y0 <= y < y1``.

    Parameters
    ----------
    x0, y0 : int
        First column and first row, in parent coordinates; may be negative.
    width, height : int
        Size in pixels. Zero means an empty box.

    Raises
    ------
    TypeError
        If a value is not an integer.
    ValueError
        If a size is negative.

    Examples
    --------
    >>> box = Box(10, 20, 4, 3)
    >>> box.x1, box.y1, box.area
    (14, 23, 12)
    >>> box.grow(2).clip(Box(0, 0, 15, 100))
    Box(x0=8, y0=18, width=7, height=7)
    >>> Box(12, 21, 2, 2).slices(box)
    (slice(1, 3, None), slice(2, 4, None))
    """

    __slots__ = ()

    def __new__(cls, x0: int, y0: int, width: int, height: int) -> Box:  # noqa: D102
        try:
            values = index(x0), index(y0), index(width), index(height)
        except TypeError:
            named = {"x0": x0, "y0": y0, "width": width, "height": height}
            if any(map(has_unit, named.values())):
                return cls(*(whole_pixels(name, value) for name, value in named.items()))
            raise TypeError(
                f"a Box takes four integers (x0, y0, width, height), "
                f"got ({x0!r}, {y0!r}, {width!r}, {height!r})"
            ) from None
        if values[2] < 0 or values[3] < 0:
            raise ValueError(f"a Box cannot be {values[2]} x {values[3]} pixels (width x height)")
        return super().__new__(cls, *values)

    @classmethod
    def from_edges(cls, x0: int, y0: int, x1: int, y1: int) -> Box:
        """Box from its first and one-past-last columns and rows; empty where they cross."""
        plain = type(x0) is type(y0) is type(x1) is type(y1) is int  # as most are, and quickly seen
        if not plain and has_unit([x0, y0, x1, y1]):
            named = {"x0": x0, "y0": y0, "x1": x1, "y1": y1}
            edges = [index(whole_pixels(name, value)) for name, value in named.items()]
            return cls.from_edges(*edges)
        return tuple.__new__(cls, (x0, y0, max(x1 - x0, 0), max(y1 - y0, 0)))

    @classmethod
    def union(cls, boxes: Iterable[Box]) -> Box:
        """Return the smallest box that contains every non-empty one (empty if there is none)."""
        boxes = [box for box in boxes if box.area]
        if not boxes:
            return cls(0, 0, 0, 0)
        return cls.from_edges(
            min(box.x0 for box in boxes),
            min(box.y0 for box in boxes),
            max(box.x1 for box in boxes),
            max(box.y1 for box in boxes),
        )

    @property
    def x1(self) -> int:
        """One past the last column."""
        return self.x0 + self.width

    @property
    def y1(self) -> int:
        """One past the last row."""
        return self.y0 + self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of an array over the box: (height, width)."""
        return self[3], self[2]

    @property
    def center(self) -> tuple[float, float]:
        """Center (x, y); a whole number where the size is odd."""
        return self.x0 + (self.width - 1) / 2, self.y0 + (self.height - 1) / 2

    def grow(self, dx: int, dy: int | None = None) -> Box:
        """Box with ``dx`` columns and ``dy`` (default ``dx``) rows more on every side."""
        dx = index(whole_pixels("dx", dx))
        dy = dx if dy is None else index(whole_pixels("dy", dy))
        return Box.from_edges(self.x0 - dx, self.y0 - dy, self.x1 + dx, self.y1 + dy)

    def clip(self, box: Box) -> Box:
        """Return the part inside another box; empty where they do not overlap."""
        x0, y0, width, height = self
        left, low, columns, rows = box
        return Box.from_edges(
            max(x0, left),
            max(y0, low),
            min(x0 + width, left + columns),
            min(y0 + height, low + rows),
        )

    def overlaps(self, box: Box) -> bool:
        """Whether the two boxes share a pixel."""
        x0, y0, width, height = self
        left, low, columns, rows = box
        return (
            max(x0, left) < min(x0 + width, left + columns)
            and max(y0, low) < min(y0 + height, low + rows)
        )  # fmt: skip

    def contains(self, box: Box) -> bool:
        """Whether another box lies inside (an empty one always does)."""
        x0, y0, width, height = self
        left, low, columns, rows = box
        return not (columns and rows) or (
            x0 <= left
            and y0 <= low
            and left + columns <= x0 + width
            and low + rows <= y0 + height
        )  # fmt: skip

    def covers(self, x: Any, y: Any) -> Any:
        """Whether points lie on pixels of the box; half-open, centers on whole numbers.

        Parameters
        ----------
        x, y : float or array

        Returns
        -------
        bool or bool array

        Examples
        --------
        >>> Box(10, 20, 4, 3).covers(9.5, 20), Box(10, 20, 4, 3).covers([9, 13.49, 13.5], 20)
        (True, array([False,  True, False]))
        """
        x, y = plain(x, u.pix, "x"), plain(y, u.pix, "y")
        if isinstance(x, int | float) and isinstance(y, int | float):
            return bool(
                self.x0 - 0.5 <= x < self.x1 - 0.5 and self.y0 - 0.5 <= y < self.y1 - 0.5
            )  # fmt: skip
        x, y = np.asarray(x), np.asarray(y)
        inside = (self.x0 - 0.5 <= x) & (x < self.x1 - 0.5)
        inside = inside & (self.y0 - 0.5 <= y) & (y < self.y1 - 0.5)
        return inside

    def slices(self, parent: Box) -> tuple[slice, slice]:
        """Return the slices that cut this box out of an array over ``parent``, in [y, x] order.

        Raises
        ------
        ValueError
            If the box is not inside ``parent``: numpy would silently return something smaller.
        """
        x0, y0, width, height = self
        left, low, columns, rows = parent
        x, y = x0 - left, y0 - low
        if x < 0 or y < 0 or x + width > columns or y + height > rows:
            raise ValueError(f"{self} reaches outside of {parent}")
        return slice(y, y + height), slice(x, x + width)


@overload
def size_pair(
    name: str,
    size: Any,
    *,
    whole: Literal[True] = True,
    zero: bool = False,
    unit: u.UnitBase = u.pix,
) -> tuple[int, int]: ...
@overload
def size_pair(
    name: str, size: Any, *, whole: Literal[False], zero: bool = False, unit: u.UnitBase = u.pix
) -> tuple[float, float]: ...
def size_pair(
    name: str, size: Any, *, whole: bool = True, zero: bool = False, unit: u.UnitBase = u.pix
) -> tuple[float, float]:
    """Return a size, which is a number or an (x, y) pair, as a pair.

    Parameters
    ----------
    name : str
        What error messages call it.
    size : number or (number, number)
    whole : bool
        Whether it must be in whole pixels; if not, the pair is one of floats.
    zero : bool
        Whether it may be zero.
    unit : Unit
        That of a Quantity is converted to it.

    Raises
    ------
    TypeError
        If it is neither a number nor a pair of them, whole ones where they have to be.
    ValueError
        If it is not above zero, or not finite.

    Examples
    --------
    >>> size_pair("tile", 512), size_pair("tile", (512, 256))
    ((512, 512), (512, 256))
    """
    if has_unit(size):
        size = whole_pixels(name, size) if whole else in_unit(size, unit, name).tolist()
    kind, noun = (Integral, "whole number") if whole else (Real, "number")
    pair: Any = (size, size) if isinstance(size, Real) else size
    if (
        not isinstance(pair, Sequence | np.ndarray)
        or len(pair) != 2
        or not all(isinstance(n, kind) and not isinstance(n, bool) for n in pair)
    ):
        raise TypeError(f"{name} must be a {noun} or an (x, y) pair of {noun}s, got {size!r}")
    if not all(0 <= n < math.inf and (n or zero) for n in pair):
        rule = "zero or more" if zero else "above zero"
        raise ValueError(f"{name} must be {'' if whole else 'finite and '}{rule}, got {size!r}")
    x, y = map(int if whole else float, pair)
    return x, y


def whole_pixels(name: str, value: Any) -> Any:
    """Return Quantities of whole pixels as ints, and what says no unit as it is.

    Of what is no whole number, it returns the number, which whoever wants one refuses.

    Examples
    --------
    >>> whole_pixels("dx", 5 * u.pix), whole_pixels("origin", [3, 4] * u.pix), whole_pixels("dx", 5)
    (5, [3, 4], 5)
    """
    if not has_unit(value):
        return value
    numbers = in_unit(value, u.pix, name)
    whole = numbers.astype(np.int64) if (numbers == np.rint(numbers)).all() else numbers
    return whole.tolist()

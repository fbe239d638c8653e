"""Chebyshev series in two variables, at many positions, of one field or of many mixed.

Every position is evaluated by the same operations in the same order, element by element: its value
does not depend, to the last bit, on what else is evaluated with it.
"""

from __future__ import annotations

from typing import Any

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike

from mapreduce.units import in_unit, number_in

__all__ = [
    "BLOCK",
    "MARGIN",
    "basis",
    "checked_margin",
    "checked_stack",
    "evaluate",
    "evaluate_mixed",
    "unit",
    "within",
]

BLOCK = 2**13
"""Positions that are evaluated at once: their terms stay in the cache."""

MARGIN = 5.0
"""Pixels off a detector where its calibration still holds, if nothing else is said."""

_FAR = 1e300  # pixels; beyond are only positions that are not finite


def unit(position: ArrayLike, start: ArrayLike, size: ArrayLike) -> np.ndarray:
    """Map pixel positions to [-1, 1], the outer edges of ``size`` pixels from ``start``.

    Examples
    --------
    >>> unit([-0.5, 49.5, 99.5], 0, 100)
    array([-1.,  0.,  1.])
    """
    size = np.asarray(size, float)
    return (2 * (np.asarray(position, float) - start) + (1 - size)) / size


def basis(n: int, t: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return T_0 ... T_(n-1) at t, along a first axis.

    Examples
    --------
    >>> basis(3, np.array([0.0, 0.5])).tolist()
    [[1.0, 1.0], [0.0, 0.5], [-1.0, -0.5]]
    """
    out = np.empty((n, *t.shape)) if out is None else out
    out[0] = 1
    if n > 1:
        out[1] = t
    for k in range(2, n):
        np.multiply(t, out[k - 1], out=out[k, ...])
        out[k] *= 2
        out[k] -= out[k - 2]
    return out


def evaluate(coefficients: ArrayLike, x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Evaluate fields at positions that are already mapped to [-1, 1]; see `unit`.

    Parameters
    ----------
    coefficients : (..., ny, nx) array of float
        One field, or a stack of them.
    x, y : arrays of float
        Mapped positions, broadcast against each other and the leading axes of ``coefficients``.

    Returns
    -------
    float64 array of the broadcast shape

    Examples
    --------
    >>> evaluate([[[1.0, 2.0]], [[3.0, 4.0]]], x=[0.0, 0.5], y=0.0)  # one position for each field
    array([1., 5.])
    """
    stack = checked_stack(coefficients)
    x, y = np.asarray(x, float), np.asarray(y, float)
    shape = np.broadcast_shapes(x.shape, y.shape, stack.shape[:-2])
    x, y = (np.broadcast_to(a, shape).reshape(-1) for a in (x, y))
    single = stack.ndim == 2
    if not single:
        stack = np.broadcast_to(stack, (*shape, *stack.shape[-2:])).reshape(-1, *stack.shape[-2:])
    result = np.empty(len(x))
    series = _Series(min(BLOCK, len(x)), *stack.shape[-2:])
    for start in range(0, len(x), BLOCK):
        block = slice(start, start + BLOCK)
        terms = stack[:, :, None] if single else np.moveaxis(stack[block], 0, -1)
        series(terms, np.stack([x[block], y[block]]), out=result[block])
    return result.reshape(shape)


def evaluate_mixed(
    boxes: np.ndarray, coefficients: np.ndarray, which: ArrayLike, x: ArrayLike, y: ArrayLike
) -> np.ndarray:
    """Evaluate the fields of a stack, each position's own, at positions in pixels.

    Parameters
    ----------
    boxes : (n, 4) array
        x0, y0, width and height of the pixels that each field is defined over.
    coefficients : (n, ny, nx) array of float
    which : array of int
        The field of each position, from 0 to n - 1.
    x, y : arrays of float
        Pixels; broadcast against each other and ``which``.

    Returns
    -------
    float64 array of the broadcast shape
        NaN where a position is NaN. Positions beyond the box are extrapolated.

    Examples
    --------
    >>> boxes = np.array([[0, 0, 100, 100], [0, 0, 200, 200]])
    >>> coefficients = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    >>> evaluate_mixed(boxes, coefficients, [0, 1, 1], x=99.5, y=0)
    array([3., 3., 3.])
    """
    which, x, y = np.broadcast_arrays(which, in_unit(x, u.pix, "x"), in_unit(y, u.pix, "y"))
    result = np.empty(which.shape)
    flat = result.reshape(-1)
    which, x, y = (a.reshape(-1) for a in (which, x, y))
    stack, edges = checked_stack(coefficients), np.asarray(boxes, np.float64)
    size = min(BLOCK, flat.size)
    series, gathered = _Series(size, *stack.shape[1:]), np.empty((size, *stack.shape[1:]))
    for start in range(0, flat.size, BLOCK):
        block = slice(start, start + BLOCK)
        # "clip", as numpy would otherwise gather into an array of its own first.
        terms = np.take(stack, which[block], axis=0, out=gathered[: len(x[block])], mode="clip")
        box = np.take(edges, which[block], axis=0, mode="clip").T
        at = unit(np.stack([x[block], y[block]]), box[:2], box[2:])
        series(np.moveaxis(terms, 0, -1), at, out=flat[block])
    return result


def within(
    boxes: np.ndarray, which: ArrayLike, x: ArrayLike, y: ArrayLike, margin: float = 0.0
) -> np.ndarray:
    """Whether positions are on the pixels of boxes, each on its own, or not farther off.

    Parameters
    ----------
    boxes, which, x, y
        As for `evaluate_mixed`.
    margin : float, optional
        Pixels.

    Examples
    --------
    >>> within(np.array([[0, 0, 10, 10]]), 0, [-0.5, 9.5, 11.0, np.nan], 5)
    array([ True,  True, False, False])
    """
    boxes, margin = np.asarray(boxes), min(checked_margin(margin), _FAR)
    start, size = boxes[:, :2], boxes[:, 2:]
    edges = np.hstack([start - 0.5 - margin, start + size - 0.5 + margin])
    low_x, low_y, high_x, high_y = np.moveaxis(
        np.take(edges, np.asarray(which), axis=0, mode="clip"), -1, 0
    )
    x, y = in_unit(x, u.pix, "x"), in_unit(y, u.pix, "y")
    return (x >= low_x) & (x <= high_x) & (y >= low_y) & (y <= high_y)


def checked_margin(margin: Any) -> float:
    """Return a margin in pixels, which may be infinite.

    Raises
    ------
    TypeError, ValueError
        If it is not a number, or is negative or NaN.
    """
    value = number_in(margin, u.pix, "margin")
    if not value >= 0:
        raise ValueError(f"margin is a number of pixels, at least 0, got {margin!r}")
    return value


def checked_stack(coefficients: ArrayLike) -> np.ndarray:
    """Return coefficients as float64."""
    stack = np.asarray(coefficients, np.float64)
    if stack.ndim < 2 or 0 in stack.shape[-2:]:
        raise ValueError(f"coefficients must have the shape (..., ny, nx), got {stack.shape}")
    return stack


class _Series:
    """Adds up series of one order, some positions after the other, in memory that it keeps.

    To get memory anew for each block would take longer than to compute in it.
    """

    def __init__(self, size: int, ny: int, nx: int) -> None:
        self._ny, self._nx = ny, nx
        self._basis = np.empty(max(ny, nx) * 2 * size)
        self._columns, self._products = np.empty((2, nx * size))

    def __call__(self, terms: np.ndarray, at: np.ndarray, out: np.ndarray) -> None:
        """Evaluate (ny, nx, m) or (ny, nx, 1) coefficients at (2, m) mapped positions x, y."""
        ny, nx, m = self._ny, self._nx, at.shape[1]
        n = max(ny, nx)
        t = basis(n, at, out=self._basis[: n * 2 * m].reshape(n, 2, m))
        columns, products = (a[: nx * m].reshape(nx, m) for a in (self._columns, self._products))
        columns[...] = terms[0]
        for i in range(1, ny):
            np.multiply(terms[i], t[i, 1], out=products)
            columns += products
        columns *= t[:nx, 0]
        out[...] = columns[0]
        for column in columns[1:]:
            out += column

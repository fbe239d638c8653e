"""Bounded fields: Chebyshev polynomials over a box of pixels, their products and their fits.

A field is f(x, y) = sum over i, j of c[i, j] T_i(y') T_j(x'), where x' and y' are x and y mapped
linearly so that the *outer edges* of the box's pixels lie at -1 and +1. The product of two fields
over one box is again such a field, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from mapreduce import Box
from mapreduce.units import in_unit

from .series import basis, checked_stack, evaluate, unit

__all__ = ["ChebyshevField", "product"]

_NONE = u.dimensionless_unscaled
_STRIP = 2**17  # pixels, whose values stay in the cache
# Multiplications in one matrix product, so few that OpenBLAS does not share them out to threads of
# its own: they and those of the dask worker that calls would wait for each other.
_PRODUCT = 2**18


@dataclass(frozen=True, eq=False)
class ChebyshevField:
    """A Chebyshev polynomial of the first kind over a box of pixels.

    Callable: ``field(x, y)`` for positions in the box's own (parent) pixel coordinates, numbers or
    a Quantity in pixels, broadcast against each other, gives float64; NaN where a position is NaN.
    Positions beyond the box are extrapolated.

    Parameters
    ----------
    box : Box
        The pixels it is defined over.
    coefficients : (ny, nx) array of float
        ``coefficients[i, j]`` belongs to T_i(y') T_j(x'). Plain numbers, as of whatever the field
        is of; kept as a read-only float64 copy.

    Raises
    ------
    TypeError
        If ``box`` is not a `Box`.
    ValueError
        If the box is empty, or the coefficients are not (ny, nx) finite numbers.

    Examples
    --------
    >>> field = ChebyshevField(Box(0, 0, 100, 50), [[1.0, 0.5], [0.25, 0.0]])
    >>> field([-0.5, 49.5, 99.5], 24.5)
    array([0.5, 1. , 1.5])
    >>> field.over(Box(10, 20, 3, 2)).shape
    (2, 3)
    >>> (field * field).coefficients.shape
    (3, 3)
    """

    box: Box
    coefficients: np.ndarray

    def __post_init__(self) -> None:
        if not isinstance(self.box, Box):
            raise TypeError(f"box must be a mapreduce.Box, got {type(self.box).__name__}")
        if not self.box.area:
            raise ValueError(f"a field needs pixels, and {self.box} has none")
        # A copy. A field may be of anything; what it is of, PhotoCalib and others know.
        coefficients = np.array(in_unit(self.coefficients, _NONE, "coefficients"))
        if coefficients.ndim != 2 or not coefficients.size:
            raise ValueError(
                f"coefficients must have the shape (ny, nx), got {coefficients.shape}; "
                "reshape n**2 flattened ones to (n, n)"
            )
        if not np.isfinite(coefficients).all():
            raise ValueError(f"coefficients must be finite, got {coefficients.tolist()}")
        coefficients.flags.writeable = False
        object.__setattr__(self, "coefficients", coefficients)

    @property
    def order(self) -> tuple[int, int]:
        """Number of coefficients in y and in x, (ny, nx): the degrees are one less."""
        return self.coefficients.shape

    @property
    def center(self) -> float:
        """Value at the center of the box."""
        return float(evaluate(self.coefficients, 0.0, 0.0))

    def __call__(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Evaluate at positions in pixels; float64 of their broadcast shape."""
        box = self.box
        x, y = in_unit(x, u.pix, "x"), in_unit(y, u.pix, "y")
        x, y = unit(x, box.x0, box.width), unit(y, box.y0, box.height)
        return evaluate(self.coefficients, x, y)

    def over(self, box: Box | None = None, dtype: DTypeLike = np.float64) -> np.ndarray:
        """Evaluate at every pixel of a box, by products of small matrices.

        Parameters
        ----------
        box : Box, optional
            Inside of the field's box; default all of it.
        dtype : dtype, optional
            In which it is computed; in float32 right to a few times 1e-7 of the largest value.

        Returns
        -------
        (height, width) array

        Raises
        ------
        ValueError
            If ``box`` reaches outside of the field's box.

        Examples
        --------
        >>> ChebyshevField(Box(0, 0, 4, 2), [[0.0, 4.0]]).over()
        array([[-3., -1.,  1.,  3.],
               [-3., -1.,  1.,  3.]])
        """
        box = self.box if box is None else box
        result = np.empty(box.shape, dtype)
        for strip, values in self.strips(box, dtype):
            result[strip.slices(box)] = values
        return result

    def strips(
        self, box: Box | None = None, dtype: DTypeLike = np.float64
    ) -> Iterator[tuple[Box, np.ndarray]]:
        """Evaluate at every pixel of a box, a few rows at a time.

        Parameters
        ----------
        box, dtype
            As for `over`.

        Yields
        ------
        strip : Box
            The next rows of the box.
        values : (height, width) array
            To be used at once, and may be changed: the next strip takes its memory.

        Raises
        ------
        ValueError
            If ``box`` reaches outside of the field's box.

        Examples
        --------
        >>> field = ChebyshevField(Box(0, 0, 4, 2), [[0.0, 4.0]])
        >>> [(strip, float(values.mean())) for strip, values in field.strips()]
        [(Box(x0=0, y0=0, width=4, height=2), 0.0)]
        """
        own = self.box
        box = own if box is None else box
        if not own.contains(box):
            raise ValueError(f"{box} reaches outside of the field's box, {own}")
        ny, nx = self.order
        columns = basis(nx, unit(np.arange(box.x0, box.x1), own.x0, own.width))
        rows = unit(np.arange(box.y0, box.y1), own.y0, own.height)
        rows = (basis(ny, rows).T @ self.coefficients).astype(dtype)
        columns = columns.astype(dtype)
        height = min(box.height, max(1, _STRIP // max(1, box.width)))
        values = np.empty((height, box.width), dtype)
        for start in range(0, box.height, max(1, height)):
            part = rows[start : start + height]
            _multiply(part, columns, out=values[: len(part)])
            strip = Box(box.x0, box.y0 + start, box.width, len(part))
            yield strip, values[: len(part)]

    def rebased(self, box: Box) -> ChebyshevField:
        """Return the same polynomial with coefficients for another box, exact but for rounding.

        Examples
        --------
        >>> field = ChebyshevField(Box(0, 0, 100, 50), [[1.0, 0.5]])
        >>> field.rebased(Box(0, 0, 200, 50)).coefficients
        array([[1.5, 1. ]])
        """
        if not isinstance(box, Box) or not box.area:
            raise ValueError(f"a field needs a Box with pixels, got {box!r}")
        own, (ny, nx) = self.box, self.order
        in_x = _substitution(nx, own.x0, own.width, box.x0, box.width)
        in_y = _substitution(ny, own.y0, own.height, box.y0, box.height)
        return ChebyshevField(box, in_y.T @ self.coefficients @ in_x)

    @classmethod
    def fit(
        cls,
        box: Box,
        x: ArrayLike,
        y: ArrayLike,
        values: ArrayLike,
        order: tuple[int, int] = (3, 3),
    ) -> ChebyshevField:
        """Fit a field to values at positions, by least squares with equal weights.

        Parameters
        ----------
        box : Box
        x, y, values : arrays
            Positions in pixels and values there, broadcast against each other.
        order : (int, int), optional
            Number of coefficients in y and in x, (ny, nx); all of them are fitted.

        Raises
        ------
        ValueError
            If there is a NaN, or the positions do not determine all coefficients.

        Examples
        --------
        >>> y, x = np.mgrid[:50:7, :100:7]
        >>> field = ChebyshevField.fit(Box(0, 0, 100, 50), x, y, 2 + x * y)
        >>> round(float(field(33, 22)), 6)
        728.0
        """
        ny, nx = order
        fitted = cls(box, np.zeros((ny, nx)))
        x, y = in_unit(x, u.pix, "x"), in_unit(y, u.pix, "y")
        values = in_unit(values, _NONE, "values")
        x, y, values = (a.ravel() for a in np.broadcast_arrays(x, y, values))
        if not (np.isfinite(x) & np.isfinite(y) & np.isfinite(values)).all():
            raise ValueError("positions and values of a fit must be finite")
        in_x = basis(nx, unit(x, box.x0, box.width))
        in_y = basis(ny, unit(y, box.y0, box.height))
        design = (in_y[:, None] * in_x).reshape(ny * nx, -1).T
        solution, _, rank, _ = np.linalg.lstsq(design, values)
        if rank < ny * nx:
            raise ValueError(
                f"{len(values)} positions determine {rank} of {ny} x {nx} coefficients; "
                "use more positions, spread in x and y, or a lower order"
            )
        return cls(fitted.box, solution.reshape(ny, nx))

    def __mul__(self, other: object) -> ChebyshevField:
        if isinstance(other, ChebyshevField):
            if other.box != self.box:
                raise ValueError(
                    f"fields over {self.box} and {other.box} cannot be multiplied; "
                    "bring one to the other's box with rebased()"
                )
            return ChebyshevField(self.box, product(self.coefficients, other.coefficients))
        if isinstance(other, Real):
            return ChebyshevField(self.box, self.coefficients * float(other))
        return NotImplemented

    __rmul__ = __mul__
    __array_ufunc__ = None  # so that a NumPy number * field comes to __rmul__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChebyshevField):
            return NotImplemented
        return self.box == other.box and np.array_equal(self.coefficients, other.coefficients)

    def __hash__(self) -> int:
        return hash((self.box, self.coefficients.tobytes()))

    def __reduce__(self) -> tuple[object, ...]:
        return ChebyshevField, (self.box, self.coefficients)


def product(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Return the coefficients of products of fields, exact by T_i T_j = (T_i+j + T_|i-j|) / 2.

    Parameters
    ----------
    a, b : (..., ny, nx) and (..., my, mx) arrays of float
        Coefficients of fields that have the same box, pair by pair; the leading axes are broadcast.

    Returns
    -------
    (..., ny + my - 1, nx + mx - 1) float64 array

    Examples
    --------
    >>> product([[0.0, 1.0]], [[0.0, 0.0, 1.0]])  # T_1 T_2 = (T_3 + T_1) / 2
    array([[0. , 0.5, 0. , 0.5]])
    """
    a, b = checked_stack(a), checked_stack(b)
    terms = a[..., :, None, :, None] * b[..., None, :, None, :]
    *stack, ny, my, nx, mx = terms.shape
    terms = terms.reshape(*stack, ny * my, nx * mx)
    return _linearization(ny, my).T @ (terms @ _linearization(nx, mx))


def _multiply(rows: np.ndarray, columns: np.ndarray, out: np.ndarray) -> None:
    """Write the product of a long and a wide matrix, made of small ones."""
    step = min(len(rows), max(1, _PRODUCT // max(1, columns.size)))
    for start in range(0, len(rows), step):
        factor = rows[start : start + step]
        np.matmul(factor, columns, out=out[start : start + len(factor)])


@lru_cache(maxsize=64)
def _linearization(n: int, m: int) -> np.ndarray:
    """Return the (n m, n + m - 1) matrix from products T_i T_j to single T_k."""
    i, j = np.divmod(np.arange(n * m), m)
    matrix = np.zeros((n * m, n + m - 1))
    matrix[np.arange(n * m), i + j] += 0.5
    matrix[np.arange(n * m), abs(i - j)] += 0.5
    matrix.flags.writeable = False
    return matrix


def _substitution(n: int, start: int, size: int, new_start: int, new_size: int) -> np.ndarray:
    """Return the (n, n) matrix whose row k are the coefficients of T_k(t) in T_j(new t)."""
    scale = new_size / size
    shift = (2 * (new_start - start) + new_size - size) / size
    step = shift * np.eye(n)  # multiplication by t = shift + scale * new t
    for j in range(n):
        for k in {j + 1, abs(j - 1)} if j else {1}:
            if k < n:
                step[j, k] += scale if j == 0 else scale / 2
    rows = np.zeros((n, n))
    rows[0, 0] = 1
    if n > 1:
        rows[1] = rows[0] @ step
    for k in range(2, n):
        rows[k] = 2 * rows[k - 1] @ step - rows[k - 2]
    return rows

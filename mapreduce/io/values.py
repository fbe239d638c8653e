"""From the noise that files hold to variances, and the mask where it says nothing.

Each function takes blocks of pixels and is importable, so that a plane that uses it (see
`mapreduce.exposure.plane.Derived`) can travel to a worker.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ..exposure.mask import MaskPlanes
from ..exposure.plane import Derived, PlaneSource

__all__ = [
    "flag_bad",
    "flagged",
    "scaled",
    "undo_asinh",
    "variance_from",
    "variance_of_error",
    "variance_of_weight",
]


def variance_of_error(error: np.ndarray) -> np.ndarray:
    """Variance from 1-sigma errors; infinite where the error is not a positive number.

    Examples
    --------
    >>> variance_of_error(np.array([2.0, 0.0, -1.0]))
    array([ 4., inf, inf])
    """
    values = error.astype(_float(error.dtype), copy=False)
    with np.errstate(over="ignore"):
        return np.square(values, out=_infinite(error), where=_known(error))


def variance_of_weight(weight: np.ndarray) -> np.ndarray:
    """Variance from weights (inverse variances); infinite where a weight is not positive.

    Examples
    --------
    >>> variance_of_weight(np.array([0.5, 0.0, np.nan]))
    array([ 2., inf, inf])
    """
    values = weight.astype(_float(weight.dtype), copy=False)
    with np.errstate(over="ignore"):
        return np.reciprocal(values, out=_infinite(weight), where=_known(weight))


def flag_bad(noise: np.ndarray, mask: np.ndarray | None = None, *, value: int) -> np.ndarray:
    """Mask, with the bits of ``value`` set where an error or weight is not a positive number.

    Examples
    --------
    >>> flag_bad(np.array([1.0, 0.0]), np.array([1, 1], np.int32), value=256)
    array([  1, 257], dtype=int32)
    """
    missing = np.where(_known(noise), np.int32(0), np.int32(value))
    return missing if mask is None else missing | mask


def undo_asinh(image: np.ndarray, *, offset: float, softening: float) -> np.ndarray:
    """Undo the asinh scaling of Pan-STARRS images (cards BOFFSET and BSOFTEN).

    Examples
    --------
    >>> undo_asinh(np.array([0.0], np.float32), offset=3.0, softening=1.0)
    array([3.], dtype=float32)
    """
    unit = 2.5 * math.log10(math.e)
    return (offset + softening * 2 * np.sinh(np.divide(image, unit, dtype=float))).astype("f4")


def variance_from(kind: str, plane: PlaneSource) -> PlaneSource:
    """Return the variance for a plane that is a "variance", "error" or "weight"."""
    if kind == "variance":
        return plane if plane.dtype.kind == "f" else scaled(plane, 1.0)
    function = {"error": variance_of_error, "weight": variance_of_weight}[kind]
    return Derived(function, (plane,), _float(plane.dtype))


def scaled(plane: PlaneSource, factor: float) -> PlaneSource:
    """Return a plane multiplied by a number, in floats.

    Examples
    --------
    >>> scaled(np.array([[1, 2]]), 0.5)[:, :]
    array([[0.5, 1. ]])
    """
    return Derived(
        partial(np.multiply, factor, dtype=_float(plane.dtype)), (plane,), _float(plane.dtype)
    )


def flagged(mask: PlaneSource | None, planes: MaskPlanes, noise: PlaneSource) -> PlaneSource:
    """Return the mask with BAD where an error or weight says nothing.

    Without a mask, one is made that has no other bits. Either way whoever reads a block of the
    mask reads one of the noise, too.
    """
    function = partial(flag_bad, value=planes.bitmask("BAD"))
    return Derived(function, (noise,) if mask is None else (noise, mask), np.dtype("i4"))


def _known(noise: np.ndarray) -> np.ndarray:
    return (noise > 0) & np.isfinite(noise)


def _infinite(block: np.ndarray) -> np.ndarray:
    return np.full(block.shape, np.inf, _float(block.dtype))


def _float(dtype: np.dtype) -> np.dtype:
    return np.result_type(dtype, np.float32)

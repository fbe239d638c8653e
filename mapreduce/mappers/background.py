"""Background subtraction, one level per cell."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import astropy.units as u
import numpy as np
from astropy.stats import sigma_clip

from ..exposure.box import Box
from ..exposure.exposure import Exposure
from ..units import number_in
from .mapper import masked_pixels

__all__ = ["subtract_background"]

_NOT_SKY = ("BAD", "SAT", "CR", "NO_DATA", "DETECTED", "DETECTED_NEGATIVE")

_ESTIMATORS: dict[str, Callable[[np.ndarray], float]] = {
    "mean": lambda sky: np.mean(sky, dtype=np.float64),
    "median": lambda sky: float(np.median(sky)),
    # Pearson's rule with the coefficients that Bertin & Arnouts (1996) fitted to clipped sky.
    "mode": lambda sky: 2.5 * float(np.median(sky)) - 1.5 * np.mean(sky, dtype=np.float64),
}


def subtract_background(
    sub: Exposure,
    expanded: Exposure,
    full_bbox: Box,
    *,
    sigma: float = 3.0,
    maxiters: int | None = 10,
    estimator: str = "median",
    mask: str | Iterable[str] | None = None,
    trim: bool = True,
) -> Exposure:
    """Subtract the sigma-clipped background level of the cell.

    The level is a single number, estimated on the good pixels of the expanded box: finite and
    unmasked, less those further than ``sigma`` standard deviations from their median,
    iteratively. Neighboring cells get different levels, which shows as steps between them. For
    a smooth background use ``trim=False``, a border of about half a cell, and the reducer
    "feather", which blends the cells.

    Parameters
    ----------
    sub, expanded : Exposure
        Core and expanded box of the cell.
    full_bbox : Box
        Not used.
    sigma : float
        Clipping limit in standard deviations.
    maxiters : int or None
        Largest number of clipping iterations; None: until nothing changes.
    estimator : {"median", "mean", "mode"}
        Of the clipped pixels; the mode is 2.5 median - 1.5 mean (Bertin & Arnouts 1996,
        A&AS 117, 393), less biased by faint sources.
    mask : str or iterable of str, optional
        Mask planes whose pixels are not sky. By default BAD, SAT, CR, NO_DATA, DETECTED and
        DETECTED_NEGATIVE, as far as the exposure has them.
    trim : bool
        Whether the result is over the core; if not, it is over the expanded box.

    Returns
    -------
    Exposure
        Float image, NaN where the input is. Variance and mask are those of the
        input: the level's own variance, about pi/2 of a pixel's divided by the number of sky
        pixels, is not added.

    Raises
    ------
    ValueError
        If no pixel is good; with ``on_error="mask"`` such a cell becomes NaN and the others stand.
        If there is no such estimator.
    KeyError
        If a plane in ``mask`` is not a plane of the exposure.

    Examples
    --------
    >>> sky = Exposure(np.array([[10.0, 11.0, 9.0, 10.0, 60.0, np.nan]]))
    >>> subtract_background(sky, sky, sky.bbox, sigma=2.0).image
    array([[ 0.,  1., -1.,  0., 50., nan]])
    """
    if estimator not in _ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(_ESTIMATORS)}, got {estimator!r}")
    sigma = number_in(sigma, u.dimensionless_unscaled, "sigma")
    if mask is None:
        mask = [name for name in _NOT_SKY if name in expanded.mask_planes]
    sky = sigma_clip(_good_pixels(expanded, mask), sigma=sigma, maxiters=maxiters, masked=False)
    return (sub if trim else expanded) - float(_ESTIMATORS[estimator](sky))


def _good_pixels(exposure: Exposure, planes: str | Iterable[str]) -> np.ndarray:
    """Return the finite, unmasked values; there must be some."""
    masked = masked_pixels(exposure, planes)
    finite = np.isfinite(exposure.image)
    pixels = exposure.image[finite & ~masked]
    if not pixels.size:
        raise ValueError(
            f"no background: none of the {finite.size} pixels of {exposure.bbox} is good, "
            f"{finite.size - finite.sum()} are not finite and {masked.sum()} are masked "
            f"({', '.join([planes] if isinstance(planes, str) else planes)})"
        )
    return pixels

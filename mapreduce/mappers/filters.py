"""Median and Gaussian filters that leave NaN pixels out."""

from __future__ import annotations

import astropy.units as u
import numpy as np
from scipy import ndimage

from ..exposure.box import Box, whole_pixels
from ..exposure.exposure import Exposure
from ..units import number_in
from .mapper import array_mapper, reaching

__all__ = ["gaussian_filter", "median_filter"]

_SIZE, _SIGMA = 5, 2.0  # pixels
_TRUNCATE = 4.0  # sigmas
_BATCH = 2**22  # pixels of windows gathered at a time


@reaching(lambda options: int(whole_pixels("size", options.get("size", _SIZE))) // 2)
def median_filter(
    sub: Exposure,
    expanded: Exposure,
    full_bbox: Box,
    *,
    size: int = _SIZE,
    mask: str | tuple[str, ...] = (),
) -> Exposure:
    """Replace each pixel by the median of the square around it.

    NaN pixels and masked ones are left out; a pixel without any other becomes NaN. Beyond the
    edges of the whole exposure the image is mirrored.

    Parameters
    ----------
    sub, expanded : Exposure
        Core and expanded box of the cell.
    full_bbox : Box
        Box of the whole exposure.
    size : int
        Odd side of the square in pixels. The border must be at least ``size // 2``.
    mask : str or iterable of str
        Mask planes whose pixels are left out.

    Returns
    -------
    Exposure
        Over the core. Variance and mask are those of the input: see `array_mapper`.

    Raises
    ------
    ValueError
        If the size is not odd, or the border too narrow.

    Examples
    --------
    >>> spike = Exposure(np.array([[1.0, 1.0, 9.0, 3.0, 3.0, np.nan, 3.0]]))
    >>> median_filter(spike, spike, spike.bbox, size=3).image
    array([[1., 1., 3., 3., 3., 3., 3.]])
    """
    size = whole_pixels("size", size)
    if size != int(size) or size < 1 or size % 2 == 0:
        raise ValueError(f"size must be an odd number of pixels, got {size}")
    mapper = array_mapper(_nan_median, mask=mask, reach=int(size) // 2, size=int(size))
    return mapper(sub, expanded, full_bbox)


@reaching(lambda options: _truncated(number_in(options.get("sigma", _SIGMA), u.pix, "sigma")))
def gaussian_filter(
    sub: Exposure,
    expanded: Exposure,
    full_bbox: Box,
    *,
    sigma: float = _SIGMA,
    mask: str | tuple[str, ...] = (),
) -> Exposure:
    """Smooth with a round Gaussian.

    NaN pixels and masked ones are left out of the weighted mean; a pixel without any other within
    4 sigma becomes NaN. Beyond the edges of the whole exposure the image is mirrored.

    Parameters
    ----------
    sub, expanded : Exposure
        Core and expanded box of the cell.
    full_bbox : Box
        Box of the whole exposure.
    sigma : float
        Standard deviation in pixels. The Gaussian is cut at 4 sigma, which the border must reach.
    mask : str or iterable of str
        Mask planes whose pixels are left out.

    Returns
    -------
    Exposure
        Over the core. Variance and mask are those of the input: see `array_mapper`.

    Raises
    ------
    ValueError
        If sigma is not positive, or the border too narrow.

    Examples
    --------
    >>> flat = Exposure(np.array([[3.0, 3.0, np.nan, 3.0]]))
    >>> gaussian_filter(flat, flat, flat.bbox, sigma=1.0).image
    array([[3., 3., 3., 3.]])
    """
    sigma = number_in(sigma, u.pix, "sigma")
    if not 0 < sigma < np.inf:
        raise ValueError(f"sigma must be a positive number of pixels, got {sigma}")
    reach = _truncated(sigma)
    mapper = array_mapper(_nan_gaussian, mask=mask, reach=reach, sigma=float(sigma))
    return mapper(sub, expanded, full_bbox)


def _truncated(sigma: float) -> int:
    """Return where SciPy cuts a Gaussian; 0 for a sigma that is none, which the mapper refuses."""
    return int(_TRUNCATE * sigma + 0.5) if 0 < sigma < np.inf else 0


def _nan_median(image: np.ndarray, size: int) -> np.ndarray:
    """Fast median filter; only windows with a NaN in them are done one by one."""
    nan = np.isnan(image)
    if not nan.any():
        return ndimage.median_filter(image, size, mode="reflect")
    result = ndimage.median_filter(np.where(nan, 0, image), size, mode="reflect")
    padded = np.pad(image, size // 2, mode="symmetric")  # which scipy.ndimage calls reflect
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size))
    ys, xs = np.nonzero(ndimage.maximum_filter(nan, size, mode="reflect"))
    for part in np.array_split(np.arange(len(ys)), 1 + len(ys) * size**2 // _BATCH):
        y, x = ys[part], xs[part]
        result[y, x] = _median_of_rows(windows[y, x].reshape(len(part), -1))
    return result


def _median_of_rows(rows: np.ndarray) -> np.ndarray:
    """Median of each row without its NaNs, which sorting puts last."""
    rows = np.sort(rows, axis=1)
    count = np.count_nonzero(~np.isnan(rows), axis=1)
    each = np.arange(len(rows))
    return (rows[each, (count - 1) // 2] + rows[each, count // 2]) / 2


def _nan_gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return the normalized convolution: smoothed values over smoothed weights."""
    image = image.astype(np.result_type(image.dtype, np.float32), copy=False)
    nan = np.isnan(image)
    smooth = ndimage.gaussian_filter(
        np.where(nan, 0, image), sigma, mode="reflect", truncate=_TRUNCATE
    )
    if not nan.any():
        return smooth
    weight = ndimage.gaussian_filter(
        (~nan).astype(np.float64), sigma, mode="reflect", truncate=_TRUNCATE
    )
    # Far from NaNs the weight is 1 but for rounding, and a pixel's value must not depend on
    # whether there is a NaN elsewhere in its cell.
    weight[weight > 1 - 1e-12] = 1
    weight[weight <= 0] = np.nan
    return (smooth / weight).astype(image.dtype)

"""A median that outliers don't move: clipped, from the mode of a histogram on."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["ClippedMedian", "clipped_median", "mad_scatter", "median_error"]

_BINS = 20
_FWHM = 2.3548  # of a Gaussian, in standard deviations
_QUARTILES = 1.3490  # the same of the range between the quartiles
_MAX_SIGMA = 0.25  # mag
_N_SIGMA = 3
_ROUNDS = 20


class ClippedMedian(NamedTuple):
    """The median of what was not clipped.

    Parameters
    ----------
    value : float
        NaN of no values.
    scatter : float
        Standard deviation of what is kept, from the range between the quartiles.
    kept : (n,) bool array
    """

    value: float
    scatter: float
    kept: np.ndarray


def clipped_median(values: np.ndarray) -> ClippedMedian:
    """Return the clipped median of differences of magnitudes.

    The first center is the mode of a histogram of 20 bins, and sigma comes from the width of its
    peak; from then on they are the median of what is kept, and what the range between its quartiles
    says. Kept is what is within 3 sigma of the center, where sigma is at most 0.25 mag; until that
    does not change, for up to 20 rounds.

    Parameters
    ----------
    values : (n,) float array
        mag, finite.

    Examples
    --------
    >>> result = clipped_median(np.array([0.01, 0.02, 0.03, 0.04, 0.05, 3.0]))
    >>> result.value, result.kept.tolist()
    (0.03, [True, True, True, True, True, False])
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return ClippedMedian(math.nan, math.nan, np.zeros(0, bool))
    kept = _within(values, *_mode(values))
    for _ in range(_ROUNDS):
        before = kept
        center, sigma = _median(values[kept])
        kept = _within(values, center, sigma)
        if np.array_equal(kept, before):
            break
    return ClippedMedian(*_median(values[kept]), kept)


def median_error(errors: np.ndarray) -> float:
    """Return the standard error of the median of values with Gaussian errors; NaN of none.

    Where the errors are equal, it is exact for one value and for many, and within 3% for any odd
    number.

    Examples
    --------
    >>> median_error(np.array([0.02])), round(median_error(np.full(10_000, 0.02)), 6)
    (0.02, 0.000251)
    """
    count = len(errors)
    if not count:
        return math.nan
    with np.errstate(divide="ignore"):
        typical = count / np.sum(1 / errors)  # what counts is how dense values are at the middle
    return float(typical * math.sqrt(math.pi / (2 * count + math.pi - 2)))


def mad_scatter(values: np.ndarray) -> float:
    """Return 1.4826 times the median absolute deviation; NaN of no values.

    Examples
    --------
    >>> round(mad_scatter(np.array([1.0, 2.0, 3.0, 50.0])), 4)
    1.4826
    """
    if not len(values):
        return math.nan
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def _within(values: np.ndarray, center: float, sigma: float) -> np.ndarray:
    """Return which values are kept; all of them where it would be none."""
    kept = np.abs(values - center) <= _N_SIGMA * min(sigma, _MAX_SIGMA)
    return kept if kept.any() else np.ones(len(values), bool)


def _median(values: np.ndarray) -> tuple[float, float]:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return float(middle), float(high - low) / _QUARTILES


def _mode(values: np.ndarray) -> tuple[float, float]:
    """Return center and width of a histogram's peak; of the whole where there are several peaks."""
    counts, edges = np.histogram(values, _BINS)
    fullest = np.flatnonzero(counts == counts.max())
    first, last = int(fullest[0]), int(fullest[-1])
    if last - first >= len(fullest):
        return _median(values)
    low = np.flatnonzero(counts[:first] <= counts[first] / 2)
    high = np.flatnonzero(counts[last + 1 :] <= counts[last] / 2)
    start = int(low[-1]) + 1 if len(low) else 0
    stop = last + 1 + int(high[0]) if len(high) else _BINS
    return float(edges[first] + edges[last + 1]) / 2, float(edges[stop] - edges[start]) / _FWHM

"""Scatter of stars' magnitudes about their means, in two passes over observations in any order.

What is held is a few numbers for each star and band, and histograms of residuals.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

from .magnitudes import Magnitudes

__all__ = ["KINDS", "SELECTIONS", "Means", "Scatter"]

SELECTIONS = ("photometric", "all")
"""Which observations: of photometric visits, and all."""

KINDS = ("before", "after")

_FLOOR = 0.003  # mag, added to errors for weights, so that no observation has all of it
_ROBUST = 1.4826  # standard deviations of a Gaussian in its median absolute deviation
# Residuals are counted in bins of 1.8%, in which medians are interpolated.
_PER_DECADE, _LEAST, _MOST = 128, -6, 1
_EDGES = np.logspace(_LEAST, _MOST, _PER_DECADE * (_MOST - _LEAST) + 1)  # mag


class Means:
    """The weighted mean magnitudes of stars: the first pass.

    Parameters
    ----------
    n_groups : int
        Stars times bands.

    Attributes
    ----------
    count, weight : (2, n_groups) arrays
        Number and weight of the observations, by `SELECTIONS`.

    Examples
    --------
    >>> means = Means(1)
    >>> both = np.array([20.1, 20.3])
    >>> star = np.zeros(2, int)
    >>> means.add(Magnitudes(star, np.array([True, False]), np.full(2, 0.1), both, both - 1))
    >>> means.mean(0).round(3).tolist(), means.mean(1).round(3).tolist()
    ([[20.1], [19.1]], [[20.2], [19.2]])
    """

    def __init__(self, n_groups: int) -> None:
        self.count = np.zeros((2, n_groups), np.int32)
        self.weight = np.zeros((2, n_groups))
        self._sums = np.zeros((2, 2, n_groups))

    def add(self, block: Magnitudes) -> None:
        """Add observations."""
        for selection in range(2):
            chosen = block.photometric if selection == 0 else slice(None)
            group, weight = block.group[chosen], weights(block.error[chosen])
            np.add.at(self.count[selection], group, 1)
            np.add.at(self.weight[selection], group, weight)
            for kind, sums in zip(KINDS, self._sums[selection], strict=True):
                np.add.at(sums, group, weight * getattr(block, kind)[chosen])

    def mean(self, selection: int) -> np.ndarray:
        """Return (2, n_groups) means, before and after; NaN where there is no observation."""
        weight = self.weight[selection]
        return self._sums[selection] / np.where(weight > 0, weight, np.nan)


class Scatter:
    """Residuals from the means, by band and magnitude: the second pass.

    Parameters
    ----------
    means : Means
        Complete.
    n_bands : int
    step : float
        Width of a bin of magnitudes, mag; by the mean of all observations, after calibration.

    Attributes
    ----------
    edges : (n + 1,) float64 array
        Of the bins of magnitudes.
    """

    def __init__(self, means: Means, n_bands: int, step: float) -> None:
        self._means = means
        self._mean = np.stack([means.mean(0), means.mean(1)])
        magnitude = self._mean[1, 1]
        place = np.floor(np.where(np.isnan(magnitude), np.nanmin(magnitude), magnitude) / step)
        first, last = int(place.min()), int(place.max())
        self.edges = step * np.arange(first, last + 2)
        n_bins = last + 1 - first
        band = np.arange(len(place)) % n_bands
        self._cell = band * n_bins + (place - first).astype(np.int64)
        shape = n_bands * n_bins, len(_EDGES) - 1
        self._residuals = np.zeros((2, 2, *shape), np.int64)
        self._errors = np.zeros((2, *shape), np.int64)
        self._squares = np.zeros((2, 2, shape[0]))

    def add(self, block: Magnitudes) -> None:
        """Add observations, those of stars with no other one left out."""
        for selection in range(2):
            several = self._means.count[selection, block.group] > 1
            chosen = several & block.photometric if selection == 0 else several
            group = block.group[chosen]
            cell, error = self._cell[group], block.error[chosen]
            np.add.at(self._errors[selection], (cell, _bin(error)), 1)
            share = weights(error) / self._means.weight[selection, group]
            for k, kind in enumerate(KINDS):
                residual = getattr(block, kind)[chosen] - self._mean[selection, k, group]
                residual /= np.sqrt(1 - share)
                np.add.at(self._residuals[selection, k], (cell, _bin(np.abs(residual))), 1)
                np.add.at(self._squares[selection, k], cell, residual**2)

    def cells(self, band: int) -> np.ndarray:
        """Return the numbers of a band's bins of magnitudes, from bright to faint."""
        n_bins = len(self.edges) - 1
        return np.arange(band * n_bins, (band + 1) * n_bins)

    def summary(self, selection: int, cells: np.ndarray) -> dict[str, float]:
        """Return the numbers of stars and observations and the scatter in some bins together.

        Returns
        -------
        dict
            n_stars, n_observations; and in mag, NaN without any, before, before_rms, after,
            after_rms and expected.
        """
        of_star = np.isin(self._cell, cells) & (self._means.count[selection] > 1)
        found: dict[str, float] = {"n_stars": int(of_star.sum())}
        found["n_observations"] = count = int(self._errors[selection, cells].sum())
        for k, kind in enumerate(KINDS):
            found[kind] = _ROBUST * _median(self._residuals[selection, k, cells].sum(axis=0))
            squares = self._squares[selection, k, cells].sum()
            found[f"{kind}_rms"] = float(np.sqrt(squares / count)) if count else np.nan
        found["expected"] = _ROBUST * _median(_expected(self._errors[selection, cells].sum(axis=0)))
        return found


def weights(error: np.ndarray) -> np.ndarray:
    """Return the weights of observations with these errors (mag)."""
    return 1 / (error**2 + _FLOOR**2)


def _bin(values: np.ndarray) -> np.ndarray:
    """Return the bins of positive values; those beyond are in the outermost ones."""
    place = (np.log10(np.maximum(values, _EDGES[0])) - _LEAST) * _PER_DECADE
    return np.minimum(place.astype(np.int64), len(_EDGES) - 2)


def _median(counts: np.ndarray) -> float:
    """Return the median of what was counted; NaN of nothing.

    Examples
    --------
    >>> round(_median(np.bincount(_bin(np.array([0.1, 0.2, 0.4])), minlength=896)), 2)
    0.2
    """
    if not counts.any():
        return np.nan
    below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    place = np.searchsorted(below, 0.5)
    share = (0.5 - below[place - 1]) / (below[place] - below[place - 1])
    return float(_EDGES[place - 1] * (_EDGES[place] / _EDGES[place - 1]) ** share)


def _expected(errors: np.ndarray) -> np.ndarray:
    """Return how the residuals of Gaussian errors, counted by their size, would be counted."""
    (sizes,) = np.nonzero(errors)
    middle = np.sqrt(_EDGES[sizes] * _EDGES[sizes + 1])
    within = erf(_EDGES[:, None] / (np.sqrt(2) * middle)) @ errors[sizes]
    return np.diff(within)

"""Comparison: what is found where the stars of pixels are compared with reference stars."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["EDGES", "Comparison", "PixelOffset"]

EDGES = np.linspace(-0.3, 0.3, 151)
"""Bins of differences from the zero point of their pixel, mag."""


class PixelOffset(NamedTuple):
    """What was found in one pixel and band: a row of the report.

    Parameters
    ----------
    pixel : int
        HEALPix, nested.
    ra, dec : float
        Its center, deg.
    band : str
    n_stars : int
        Stars with a good observation in every band.
    n_selected : int
        Those of them with a magnitude and a high enough signal-to-noise ratio.
    n_reference : int
        Reference stars of which the same can be said, in and around the pixel.
    n_matches, n_clipped : int
        Pairs, and those of them that were clipped.
    zero_point : float
        Clipped median of reference minus star, mag; NaN without a match.
    scatter : float
        Of what was not clipped, mag.
    error : float
        Standard error of the zero point, from the errors of stars and reference stars, mag.
    """

    pixel: int
    ra: float
    dec: float
    band: str
    n_stars: int
    n_selected: int
    n_reference: int
    n_matches: int
    n_clipped: int
    zero_point: float
    scatter: float
    error: float


class Comparison(NamedTuple):
    """What was found in some pixels.

    Parameters
    ----------
    rows : list of PixelOffset
    residuals : (n_bands, 2, n_bins) int array
        How many differences are how far from the zero point of their pixel (`EDGES`; the outer bins
        have all beyond): of all matches, and of those that were not clipped.
    notes : frozenset of str
        What was left out.
    """

    rows: list[PixelOffset]
    residuals: np.ndarray
    notes: frozenset[str] = frozenset()

"""HEALPix pixels of the sky. Needs hpgeom: ``pip install 'skyfold[healpix]'``.

Angles are in degrees everywhere, pixels are nested.
"""

from __future__ import annotations

from types import ModuleType

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike

from mapreduce.optional import require
from mapreduce.units import in_unit

__all__ = ["center", "corners", "hpgeom", "pixel_of"]


def hpgeom() -> ModuleType:
    """Return the package hpgeom.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    return require(
        "hpgeom", "HEALPix pixels need the package hpgeom; pip install 'skyfold[healpix]'"
    )


def pixel_of(ra: ArrayLike, dec: ArrayLike, nside: int) -> np.ndarray:
    """Return the pixels that positions (deg) are in, int64; -1 where a position is not finite.

    Examples
    --------
    >>> pixel_of([45.0, np.nan, -315.0], 1.0, 64)
    array([ 0, -1,  0])
    """
    ra, dec = in_unit(ra, u.deg, "ra"), in_unit(dec, u.deg, "dec")
    # Of what is not finite, hpgeom makes a pixel like any other.
    bad = ~(np.isfinite(ra) & np.isfinite(dec))
    if not bad.any():
        return np.asarray(hpgeom().angle_to_pixel(nside, ra, dec, nest=True))
    ra, dec = np.where(bad, 0.0, ra), np.where(bad, 0.0, dec)
    return np.where(bad, -1, hpgeom().angle_to_pixel(nside, ra, dec, nest=True))


def center(pixels: ArrayLike, nside: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the right ascensions and declinations of the centers of pixels, deg.

    Examples
    --------
    >>> center([4, 3], 1)
    (array([  0., 315.]), array([-0.       , 41.8103149]))
    """
    return hpgeom().pixel_to_angle(nside, pixels, nest=True)


def corners(pixels: ArrayLike, nside: int, step: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return right ascensions and declinations along the edges of pixels, (..., 4 * step) deg.

    ``step`` points on each edge, counterclockwise from the north.

    Examples
    --------
    >>> corners(3, 1)[1].round(6)
    array([90.      , 41.810315, -0.      , 41.810315])
    """
    return hpgeom().boundaries(nside, pixels, step=step, nest=True)

"""An approximation of the atmosphere, for simulations: not radiative transfer.

Smooth curves with the right bands in the right places, of roughly the right depth. They serve to
make up runs whose truth is known; for data, use a table that was computed line by line.

The transmissions are functions of wavelengths in Angstrom, airmass, and the pressure (mbar), ozone
(Dobson units) or precipitable water (mm), all broadcast against each other.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..atmosphere.table import AtmosphereTable

__all__ = [
    "approximate_atmosphere",
    "oxygen_transmission",
    "ozone_transmission",
    "rayleigh_transmission",
    "water_transmission",
]

_SEA_LEVEL = 1013.25  # mbar
_SCALE_HEIGHT = 8200.0  # m
_DOBSON = 2.687e16  # molecules per cm2
_NODES = {
    "sec_zenith": np.linspace(1.0, 2.5, 7),
    "ln_pwv": math.log(0.5) + math.log(24) / 5 * np.arange(7),  # listed from 0.5 mm to 12 mm
    "o3": np.linspace(200.0, 400.0, 5),
}

# Bands: center, width to the blue and to the red (Gaussian sigma, Angstrom), and optical depth at
# the zenith, averaged over the lines; of water for 3 mm.
_OXYGEN = ((6283, 5, 16, 0.04), (6873, 5, 24, 0.25), (7603, 7, 34, 0.9))
_WATER = (
    *((6510, 30, 40, 0.02), (7190, 35, 75, 0.12), (8180, 50, 70, 0.13), (8950, 50, 70, 0.09)),
    *((9090, 60, 80, 0.14), (9370, 70, 150, 0.70), (11200, 220, 300, 0.80)),
)
_WEAK, _STRONG = 3.0, 0.6  # mm; exponent of the growth of saturated lines
_OXYGEN_GROWTH = 0.55


def approximate_atmosphere(
    wavelengths: ArrayLike | None = None, *, elevation: float = 2663.0
) -> AtmosphereTable:
    """Make a table of approximate transmissions, in the layout of FGCM's tables.

    An approximation: smooth bands without lines, and none of the physics between the constituents.

    Parameters
    ----------
    wavelengths : (n,) array, optional
        Angstrom, ascending; default 3000 to 11000 in steps of 5.
    elevation : float, optional
        Of the site, m; it sets the pressure.

    Returns
    -------
    AtmosphereTable
        For secants of the zenith angle to 2.25, 0.5 mm to 12 mm of water and 200 to 350 Dobson
        units of ozone.

    Examples
    --------
    >>> table = approximate_atmosphere()
    >>> air = {"pmb": 730, "pwv": 3, "o3": 300, "tau": 0.03, "alpha": 1, "secZenith": [1, 2]}
    >>> table.interpolate(air)[:, [200, 600, 1280]].round(2)  # at 4000, 6000 and 9400 Angstrom
    array([[0.73, 0.88, 0.49],
           [0.53, 0.78, 0.33]])
    """
    if wavelengths is None:
        wavelengths = np.linspace(3000.0, 11000.0, 1601)
    wavelengths = np.asarray(wavelengths, np.float64)
    pressure = _SEA_LEVEL * math.exp(-elevation / _SCALE_HEIGHT)
    airmass = _NODES["sec_zenith"][:, np.newaxis]
    ozone, pwv = _NODES["o3"][:, np.newaxis, np.newaxis], np.exp(_NODES["ln_pwv"])
    standard = {"pmb": pressure, "pwv": 3.0, "o3": 263.0, "tau": 0.03, "alpha": 1.0}
    return AtmosphereTable(
        wavelengths,
        **_NODES,
        oxygen=oxygen_transmission(wavelengths, airmass),
        rayleigh=rayleigh_transmission(wavelengths, airmass, pressure),
        ozone=ozone_transmission(wavelengths, airmass, ozone),
        water=water_transmission(wavelengths, airmass, pwv[:, np.newaxis, np.newaxis]),
        pmb_elevation=pressure,
        lambda_norm=7750.0,
        elevation=elevation,
        standard={**standard, "secZenith": 1.2},
        where="approximate atmosphere",
    )


def rayleigh_transmission(
    wavelengths: ArrayLike, airmass: ArrayLike, pressure: ArrayLike
) -> np.ndarray:
    """Return what the scattering by molecules lets through.

    The optical depth of Hansen & Travis (1974, Space Sci. Rev. 16, 527), which goes nearly as
    wavelength**-4, in proportion to the pressure.

    Examples
    --------
    >>> rayleigh_transmission([4000.0, 8000.0], 1.0, 1013.25).round(3)
    array([0.698, 0.979])
    """
    square = (np.asarray(wavelengths, np.float64) / 1e4) ** -2
    depth = 0.008569 * square**2 * (1 + 0.0113 * square + 0.00013 * square**2)
    return np.exp(-depth * np.multiply(airmass, pressure) / _SEA_LEVEL)


def ozone_transmission(wavelengths: ArrayLike, airmass: ArrayLike, ozone: ArrayLike) -> np.ndarray:
    """Return what ozone lets through: the Chappuis band, and the edge of the Huggins bands.

    Approximate cross-sections: Gaussians about 5900 Angstrom, and an exponential rise to the blue
    of 3400 Angstrom.

    Examples
    --------
    >>> ozone_transmission([3100.0, 6000.0, 8000.0], 1.0, 300.0).round(3)
    array([0.411, 0.961, 1.   ])
    """
    wavelengths = np.asarray(wavelengths, np.float64)
    chappuis = ((5900, 570, 570, 3.95e-21), (5750, 90, 90, 0.8e-21), (6025, 100, 100, 1.1e-21))
    huggins = 2.8e-20 * np.exp(np.minimum((3200 - wavelengths) / 73, 10))
    section = _bands(wavelengths, chappuis) + huggins  # cm2
    return np.exp(-section * _DOBSON * np.multiply(airmass, ozone))


def oxygen_transmission(wavelengths: ArrayLike, airmass: ArrayLike) -> np.ndarray:
    """Return what oxygen lets through: the A, B and gamma bands, without their lines.

    Saturated, so that the depth grows with airmass**0.55.

    Examples
    --------
    >>> oxygen_transmission([6873.0, 7300.0, 7603.0], 1.0).round(3)
    array([0.779, 1.   , 0.407])
    """
    depth = _bands(np.asarray(wavelengths, np.float64), _OXYGEN)
    return np.exp(-depth * np.power(airmass, _OXYGEN_GROWTH))


def water_transmission(wavelengths: ArrayLike, airmass: ArrayLike, pwv: ArrayLike) -> np.ndarray:
    """Return what water vapor lets through: bands at 7200, 8200, 9400 Angstrom and others.

    Their lines are saturated: the depth grows with (airmass * pwv)**0.6.

    Examples
    --------
    >>> water_transmission([7200.0, 8200.0, 9400.0, 10000.0], 1.0, 3.0).round(2)
    array([0.89, 0.88, 0.5 , 1.  ])
    """
    depth = _bands(np.asarray(wavelengths, np.float64), _WATER)
    return np.exp(-depth * (np.multiply(airmass, pwv) / _WEAK) ** _STRONG)


def _bands(wavelengths: np.ndarray, bands: tuple[tuple[float, ...], ...]) -> np.ndarray:
    """Return the sum of bands that are Gaussian on either side of their centers."""
    total = np.zeros(wavelengths.shape)
    for center, blue, red, height in bands:
        offset = wavelengths - center
        total += height * np.exp(-0.5 * (offset / np.where(offset < 0, blue, red)) ** 2)
    return total

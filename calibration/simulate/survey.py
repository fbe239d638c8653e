"""A simulated survey: its stars, its visits and their weather, and their true zeropoints."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..camera.focal_plane import Boresight
from .instrument import BANDS, FILTERS, Instrument, photon_rate

__all__ = [
    "FIELD",
    "LATITUDE",
    "OFFSETS",
    "chromatic_corrections",
    "color_slopes",
    "draw_stars",
    "draw_visits",
    "field_radius",
    "true_zeropoints",
]

FIELD = 45.703125, 0.0
"""Center of the field, ra and dec in deg; also that of a HEALPix pixel of nside 64."""

LATITUDE = -30.0
"""Of the site, deg."""

OFFSETS = np.array([0.0312, -0.0175, 0.0043, 0.0228])
"""True minus relative magnitudes, per band: what a reference catalog is needed for."""

Arrays = dict[str, np.ndarray]

_DITHER = 0.02  # deg
_PHOTON = 1.438776877e8  # Angstrom K: h c / k
_COOL, _HOT = 3800.0, 8000.0  # K
_MEAN_STAR = math.sqrt(_COOL * _HOT)
_BRIGHT, _RANGE = 15.0, 5.0  # i magnitudes
_EXPOSURE = np.array([60.0, 30.0, 30.0, 60.0])  # s, per filter
_SKY = np.array([150.0, 200.0, 350.0, 600.0])  # adu per pixel
_SCATTER = 0.002, 0.005  # mag, of photometric visits and others


def field_radius(instrument: Instrument) -> float:
    """Return the distance of the farthest corner from the center of the focal plane, in rad."""
    return float(np.hypot(*np.moveaxis(instrument.camera.corners(), -1, 0)).max())


def draw_stars(n: int, instrument: Instrument, rng: np.random.Generator) -> Arrays:
    """Draw stars: black bodies, evenly over the field, more of them faint than bright.

    Returns
    -------
    dict
        fgcm_id, isolated_star_id, ra, dec (deg), teff (K), (n,) each; mag, (n, n_bands) AB.
    """
    reach = field_radius(instrument) + math.radians(2 * _DITHER)
    radius, angle = reach * np.sqrt(rng.random(n)), rng.uniform(0, 2 * math.pi, n)
    ra, dec = Boresight(*FIELD).to_sky(radius * np.cos(angle), radius * np.sin(angle))
    teff = _COOL * (_HOT / _COOL) ** rng.random(n)
    mag = _black_body_colors(teff, instrument)
    mag += (_BRIGHT + _RANGE * rng.random(n) ** 0.6)[:, np.newaxis]
    ids = np.arange(n)
    places = {"ra": ra, "dec": dec, "teff": teff, "mag": mag}
    return {"fgcm_id": ids, "isolated_star_id": 2**40 + 3 * ids, **places}


def _black_body_colors(teff: np.ndarray, instrument: Instrument) -> np.ndarray:
    """Return AB magnitudes relative to i of black bodies, (n, n_bands)."""
    grid = np.linspace(_COOL, _HOT, 65)
    wavelengths = instrument.atmosphere.wavelengths
    x = _PHOTON / np.multiply.outer(grid, wavelengths)
    flux = x**3 / np.expm1(x) / wavelengths
    passbands = np.array([curve.throughput for curve in instrument.standard_curves])
    mag = -2.5 * np.log10(flux @ passbands.T / (passbands / wavelengths).sum(axis=1))
    mag -= mag[:, [BANDS.index("i")]]
    return np.stack([np.interp(teff, grid, column) for column in mag.T], axis=1)


def color_slopes(instrument: Instrument) -> np.ndarray:
    """Return d ln f_nu / d wavelength of the mean star at the reference wavelengths, 1/Angstrom."""
    wavelengths = instrument.reference_wavelengths
    x = _PHOTON / (wavelengths * _MEAN_STAR)
    return (x / -np.expm1(-x) - 3) / wavelengths


def draw_visits(n: int, instrument: Instrument, rng: np.random.Generator) -> Arrays:
    """Draw visits: where, when, and the weather, whose course is one for each night.

    Filters take turns. Of seven visits one is not photometric; of 23 one, and of 13 one detector of
    one, has no zeropoint. On the last night the flats are new.

    Returns
    -------
    dict
        The columns of the visit catalog that have one value, those of the atmosphere parameters,
        and: filter (its index); cloud, cloudDx, cloudDy and scatter (mag); photometric; and
        missing (n, n_detectors), without zeropoint.
    """
    index = np.arange(n)
    nights = min(n, max(3, n // 100))
    night = index * nights // n
    place = index - np.searchsorted(night, night)
    phase = place / np.bincount(night)[night]
    which = index % len(FILTERS)
    mjd = 60600 + 2 * night
    visits: Arrays = {"visit": mjd * 1000 + place + 1, "mjd": mjd + 0.05 + 0.35 * phase}
    visits |= {"filter": which, "physicalFilter": np.array([*FILTERS], "S")[which]}
    dither = np.radians(rng.normal(0, _DITHER / 2, (2, n)))
    visits["telra"], visits["teldec"] = Boresight(*FIELD).to_sky(*dither)
    visits |= {"telha": rng.uniform(-50, 50, n), "telrot": rng.uniform(0, 360, n)}
    visits |= {"exptime": _EXPOSURE[which], "skyBackground": _SKY[which]}
    visits["psfFwhm"] = 0.9 * np.exp(rng.normal(0, 0.15, n))
    visits |= _weather(night, phase, instrument, rng)
    visits["secZenith"] = _sec_zenith(visits["teldec"], visits["telha"])
    visits |= {"cTrans": np.zeros(n), "lamStd": instrument.reference_wavelengths[which]}
    visits |= _clouds(index, rng)
    missing = np.zeros((n, len(instrument.camera)), bool)
    missing[index % 23 == 9] = True
    missing[index % 13 == 6, -1] = True
    return visits | {"missing": missing, "newFlats": night == nights - 1}


def _weather(
    night: np.ndarray, phase: np.ndarray, instrument: Instrument, rng: np.random.Generator
) -> Arrays:
    """Return the atmosphere's parameters; water and aerosols drift in the night."""
    nights = night[-1] + 1
    pwv, tau = np.exp(rng.normal(0, 0.3, (2, nights)))
    drift = 1 + rng.normal(0, 0.1, (2, nights))[:, night] * (phase - 0.5)
    pressure = instrument.atmosphere.pmb_elevation + rng.normal(4, 3, nights)
    return {
        "pmb": pressure[night] + 2 * np.sin(2 * math.pi * phase),
        "pwv": np.clip(3 * pwv[night] * drift[0], 0.6, 11),
        "tau": 0.03 * tau[night] * drift[1],
        "alpha": rng.uniform(0.8, 1.6, nights)[night],
        "o3": rng.uniform(230, 300, nights)[night],
    }


def _clouds(index: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Return gray extinction and its gradient from the center to the edge of the field."""
    n = len(index)
    cloudy = index % 7 == 3
    gradient = np.where(cloudy, 0.08, 0.003) * rng.normal(0, 1, (2, n))
    depth = np.where(cloudy, rng.uniform(0.1, 0.5, n), 0.0)
    scatter = np.where(cloudy, _SCATTER[1], _SCATTER[0])
    clouds = {"cloud": depth, "cloudDx": gradient[0], "cloudDy": gradient[1]}
    return {"photometric": ~cloudy, "scatter": scatter, **clouds}


def _sec_zenith(dec: np.ndarray, hour_angle: np.ndarray) -> np.ndarray:
    dec, hour_angle, latitude = (np.radians(angle) for angle in (dec, hour_angle, LATITUDE))
    across = np.cos(latitude) * np.cos(dec) * np.cos(hour_angle)
    return 1 / (np.sin(latitude) * np.sin(dec) + across)


def true_zeropoints(
    instrument: Instrument, visits: Mapping[str, np.ndarray], slopes: np.ndarray
) -> Arrays:
    """Compute the zeropoints of all detectors in visits.

    Parameters
    ----------
    instrument : Instrument
    visits : mapping
        As of `draw_visits`, or a part of them.
    slopes : (n_bands,) array
        Of the mean star; see `color_slopes`.

    Returns
    -------
    dict of (n, n_detectors, ...) arrays
        i0, i10 (Angstrom); deltaChrom (mag), with the sign of fgcmDeltaChrom; gray, cloud at the
        center (mag); superstar (3, 3) and zeropoint (2, 2), in AB zero fluxes per adu: Chebyshev
        coefficients [y, x]; scaling.
    """
    which = visits["filter"]
    transmissions = instrument.atmosphere.interpolate(visits)
    i0, i10 = np.empty((2, len(which), len(instrument.camera)))
    for i in np.unique(which):
        rows = which == i
        i0[rows], i10[rows] = instrument.band_integrals(i, transmissions[rows])
    gray, slope_x, slope_y = _cloud_on_detectors(instrument, visits)
    flux = 10 ** (0.4 * gray) / (photon_rate(i0) * visits["exptime"][:, np.newaxis])
    ones = np.ones_like(flux)
    across, up = np.stack([ones, slope_x], axis=-1), np.stack([ones, slope_y], axis=-1)
    return {
        **{"i0": i0, "i10": i10, "gray": gray},
        "deltaChrom": chromatic_corrections(instrument, slopes, which, i10),
        "superstar": instrument.superstar[which],
        "zeropoint": (flux[..., np.newaxis] * up)[..., np.newaxis] * across[..., np.newaxis, :],
        "scaling": np.where(visits["newFlats"][:, np.newaxis], instrument.scaling[which], 1.0),
    }


def chromatic_corrections(
    instrument: Instrument, slopes: np.ndarray, which: np.ndarray, i10: np.ndarray
) -> np.ndarray:
    """Return what to add to magnitudes of the mean star for those in the standard passband.

    2.5 log10((1 + f' I10) / (1 + f' I10std)), as FGCM, for spectra that are linear within a band;
    that of the standard passband is 0 at the reference wavelength.
    """
    of_curves = [
        curve.band_integrals(reference=reference).i10
        for curve, reference in zip(
            instrument.standard_curves, instrument.reference_wavelengths, strict=True
        )
    ]
    slope, standard = slopes[which, np.newaxis], np.array(of_curves)[which, np.newaxis]
    return 2.5 * np.log10((1 + slope * i10) / (1 + slope * standard))


def _cloud_on_detectors(
    instrument: Instrument, visits: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return extinction at the centers (mag), relative slopes of the zeropoint along x and y."""
    corners = instrument.camera.corners() / field_radius(instrument)  # (n_detectors, 4, 2)
    gradient = np.stack([visits["cloudDx"], visits["cloudDy"]], axis=1)
    right = (corners[:, 1] + corners[:, 2] - corners[:, 0] - corners[:, 3]) / 4
    up = (corners[:, 2] + corners[:, 3] - corners[:, 0] - corners[:, 1]) / 4
    change, slope_x, slope_y = (
        np.einsum("vk,dk->vd", gradient, direction)
        for direction in (corners.mean(axis=1), right, up)
    )
    factor = 0.4 * math.log(10)
    return visits["cloud"][:, np.newaxis] + change, factor * slope_x, factor * slope_y

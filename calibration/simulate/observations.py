"""Observations of simulated stars: which detector sees which star, and what it counts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..camera.camera import Camera
from ..camera.focal_plane import Boresight
from ..fields.series import evaluate, unit
from ..photocalib.flux import AB_FLUX, AB_MAGNITUDE
from ..search import find
from .instrument import BANDS, GAIN, Instrument
from .survey import Arrays, field_radius

__all__ = ["Observer", "counts_per_nanojansky", "drawn_counts"]

_FWHM = math.sqrt(8 * math.log(2))  # of a Gaussian of sigma 1


class Observer:
    """Observes stars, and counts how often each was seen.

    Parameters
    ----------
    instrument : Instrument
    stars : mapping
        As of `calibration.simulate.survey.draw_stars`.

    Attributes
    ----------
    good, total : (n_stars, n_bands) int32 arrays
        Observations so far: in photometric conditions, and all.
    """

    def __init__(self, instrument: Instrument, stars: Mapping[str, np.ndarray]) -> None:
        self._camera, self._stars = instrument.camera, stars
        self._flux = 10 ** (-0.4 * (stars["mag"] - AB_MAGNITUDE))  # nJy
        self.good, self.total = np.zeros((2, len(stars["ra"]), len(BANDS)), np.int32)

    def observe(
        self,
        visits: Mapping[str, np.ndarray],
        zeropoints: Mapping[str, np.ndarray],
        i: int,
        rng: np.random.Generator,
    ) -> Arrays:
        """Return the observations of the visit in row i, in the order of the stars.

        Detectors without a zeropoint see nothing.
        """
        visit = {name: values[i] for name, values in visits.items()}
        zeropoint = {name: values[i] for name, values in zeropoints.items()}
        band = visit["filter"]
        star, place, x, y = self._seen(visit)
        per_flux = counts_per_nanojansky(self._camera, zeropoint, place, x, y)
        counts = self._flux[star, band] * per_flux
        counts *= 10 ** (-0.4 * rng.normal(0, visit["scatter"], len(star)))
        sigma = visit["psfFwhm"] / _FWHM / self._camera.pixel_scale  # pixel
        sky = 4 * math.pi * sigma**2 * visit["skyBackground"]
        err = np.sqrt((counts + sky) / GAIN)
        self.total[star, band] += 1
        self.good[star, band] += visit["photometric"]
        return {
            "visit": np.full(len(star), visit["visit"]),
            "detector": self._camera.ids[place].astype(np.int32),
            **{name: self._stars[name][star] for name in ("fgcm_id", "ra", "dec")},
            **{"x": x, "y": y},
            **{"instFlux": counts + rng.normal(0, 1, len(star)) * err, "instFluxErr": err},
        }

    def _seen(self, visit: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return stars, the detectors' places in the camera, and positions in pixels."""
        boresight = Boresight(visit["telra"], visit["teldec"], visit["telrot"])
        angles = boresight.from_sky(self._stars["ra"], self._stars["dec"])
        detector, x, y = self._camera.locate(*angles)
        place, found = find(self._camera.ids, detector, np.argsort(self._camera.ids))
        (star,) = np.nonzero(found & ~visit["missing"][place])
        return star, place[star], x[star], y[star]


def counts_per_nanojansky(
    camera: Camera,
    zeropoint: Mapping[str, np.ndarray],
    place: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
) -> np.ndarray:
    """Return adu per nJy at positions: the inverse of the true calibration.

    Parameters
    ----------
    camera : Camera
    zeropoint : mapping
        The rows of one visit of `calibration.simulate.survey.true_zeropoints`.
    place : (n,) int array
        Of the detectors in the camera's order.
    x, y : (n,) arrays
        Pixels.
    """
    sizes = np.array([detector.box[2:] for detector in camera.values()])[place]
    at = unit(x, 0, sizes[:, 0]), unit(y, 0, sizes[:, 1])
    calibration = evaluate(zeropoint["superstar"][place], *at)
    calibration *= evaluate(zeropoint["zeropoint"][place], *at)
    calibration *= AB_FLUX * 10 ** (-0.4 * zeropoint["deltaChrom"][place])
    calibration *= zeropoint["scaling"][place] * _areas(camera, place, x, y)
    return 1 / calibration


def _areas(camera: Camera, place: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return relative areas of the pixels themselves, without the fit of a field."""
    areas, ids = np.empty(len(place)), camera.ids
    for i in np.unique(place):
        here = place == i
        areas[here] = camera[int(ids[i])].pixel_area(x[here], y[here])
    return areas / math.radians(camera.pixel_scale / 3600) ** 2


def drawn_counts(
    visits: Mapping[str, np.ndarray], instrument: Instrument, n_stars: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw how often stars were seen, good and in all, (n_stars, n_bands), without observing any.

    With the chance that a place in the field is on a detector.
    """
    camera = instrument.camera
    pixels = sum(detector.box.area for detector in camera.values())
    field = math.pi * field_radius(instrument) ** 2
    chance = min(1.0, pixels * math.radians(camera.pixel_scale / 3600) ** 2 / field)
    shape = n_stars, len(BANDS)
    good, other = (
        rng.binomial(np.bincount(visits["filter"][rows], minlength=len(BANDS)), chance, shape)
        for rows in (visits["photometric"], ~visits["photometric"])
    )
    return good.astype(np.int32), (good + other).astype(np.int32)

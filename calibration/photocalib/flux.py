"""From instrumental fluxes to nanojanskys and AB magnitudes: of catalogs and of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike

from mapreduce import Box, Exposure, GridConfig, Patch, PixelReducer, map_reduce

from ..fields.chebyshev import ChebyshevField

__all__ = [
    "AB_FLUX",
    "AB_MAGNITUDE",
    "MAG",
    "NO_MAGNITUDE",
    "Calibrate",
    "calibrated",
    "magnitude",
    "nanojansky",
]

AB_FLUX = 10**12.56
"""Flux of AB magnitude 0, in nJy: 10**(-48.6 / 2.5) erg / (s cm2 Hz)."""

AB_MAGNITUDE = 31.4
"""AB magnitude of 1 nJy."""

MAG = 2.5 / math.log(10)
"""Error of a magnitude over the relative error of its flux."""

NO_MAGNITUDE = 90.0
"""From where on a magnitude in a catalog means that there is none."""

_TILE = 2**22  # pixels of a task
_Planes = tuple[np.ndarray, np.ndarray | None]  # image and variance


def nanojansky(
    inst_flux: ArrayLike,
    inst_flux_err: ArrayLike | None,
    calibration: ArrayLike,
    relative_err: ArrayLike,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Return fluxes in nJy, with their errors if those of the instrumental fluxes are given.

    Parameters
    ----------
    inst_flux, inst_flux_err : arrays
        Instrumental fluxes and, optionally, their errors.
    calibration : array
        nJy per unit of instrumental flux.
    relative_err : array
        Relative error of the calibration.

    Examples
    --------
    >>> flux, err = nanojansky([100.0, 0.0], [3.0, 3.0], 2.0, 0.04)
    >>> flux, err
    (array([200.,   0.]), array([10.,  6.]))
    """
    flux = np.multiply(inst_flux, calibration, dtype=np.float64)
    if inst_flux_err is None:
        return flux
    noise = np.multiply(inst_flux_err, calibration, dtype=np.float64)
    return flux, np.hypot(noise, flux * relative_err)


def magnitude(
    inst_flux: ArrayLike,
    inst_flux_err: ArrayLike | None,
    calibration: ArrayLike,
    relative_err: ArrayLike,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Return AB magnitudes, with their errors if those of the instrumental fluxes are given.

    The parameters are those of `nanojansky`. The magnitude of a negative flux is NaN, that of no
    flux infinite.

    Examples
    --------
    >>> mag, err = magnitude([100.0], [3.0], 0.01, 0.04)
    >>> mag.round(6), err.round(6)
    (array([31.4]), array([0.054287]))
    """
    flux = np.multiply(inst_flux, calibration, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mag = AB_MAGNITUDE - 2.5 * np.log10(flux)
        if inst_flux_err is None:
            return mag
        noise = np.divide(inst_flux_err, inst_flux, dtype=np.float64)
    return mag, MAG * np.hypot(noise, relative_err)


def calibrated(
    exposure: Exposure,
    field: ChebyshevField,
    relative_err: float | None = None,
    tile: int | tuple[int, int] | None = None,
) -> Exposure:
    """Return the exposure in nJy, lazily; see `PhotoCalib.calibrate`."""
    if not isinstance(exposure, Exposure):
        raise TypeError(f"only an Exposure can be calibrated, got {type(exposure).__name__}")
    if not field.box.contains(exposure.bbox):
        raise ValueError(
            f"the exposure covers {exposure.bbox}, the calibration {field.box} only; "
            "cut the exposure with cutout(), or take the calibration of its own detector"
        )
    if exposure.meta.get("BUNIT") == "nJy":
        raise ValueError("the exposure is in nJy already (BUNIT); calibrating it again is wrong")
    if relative_err is not None and exposure.planes.get("variance") is None:
        raise ValueError("include_error adds to the variance, and the exposure has none")
    kind = np.dtype(exposure.planes["image"].dtype)
    if kind.kind != "f":
        exposure = exposure.astype(np.result_type(kind, np.float32))
    if tile is None:  # not whole rows: the engine would copy what a cell is cut from
        width = -(-exposure.bbox.width // 2)
        tile = width, -(-_TILE // width)
    result = map_reduce(
        exposure,
        pixels_as_they_are,
        grid=GridConfig(tile, border=0),
        reducer=Calibrate(field=field, relative_err=relative_err),
        tile=tile,
    )
    result.meta["BUNIT"] = "nJy"
    return cast("Exposure", result)  # which pixel reducers make


def pixels_as_they_are(sub: Exposure, expanded: Exposure, full_bbox: Box) -> Exposure:
    """Return the core: the mapper of a `Calibrate`.

    Examples
    --------
    >>> exposure = Exposure(np.ones((2, 2)))
    >>> pixels_as_they_are(exposure, exposure, exposure.bbox) is exposure
    True
    """
    return sub


@dataclass(frozen=True, kw_only=True)
class Calibrate(PixelReducer):
    """A reducer that multiplies by a field whatever it puts into the result.

    It does so here and not in a mapper, as this takes one pass over the planes and no arrays in
    between; that would be most of the time. Pixels without a value are treated as all others, and
    no mask bits are set: one with NaN for its variance keeps its flux.

    Parameters
    ----------
    field : ChebyshevField
        nJy per unit of the image, in parent coordinates.
    relative_err : float, optional
        Relative error of the field, to be added to the variance.

    Examples
    --------
    >>> reducer = Calibrate(field=ChebyshevField(Box(0, 0, 9, 9), [[2.0]]), relative_err=0.5)
    >>> exposure = Exposure(np.full((9, 9), 3.0), np.ones((9, 9)))
    >>> result = map_reduce(exposure, pixels_as_they_are, reducer=reducer).compute()
    >>> result.image[0, 0], result.variance[0, 0]
    (np.float64(6.0), np.float64(13.0))
    """

    field: ChebyshevField
    relative_err: float | None = None
    bad: tuple[str, ...] = ()

    name: ClassVar[str] = "calibrate"
    variance_rule: ClassVar[str] = "scaled"
    holds_nan: ClassVar[bool] = False
    looks_for_nan: ClassVar[bool] = False
    keeps_psf: ClassVar[bool] = True

    def begin(self, image: np.ndarray, variance: np.ndarray | None) -> _Planes:
        """Take the output planes."""
        return image, variance

    def fold(self, state: _Planes, where: tuple[slice, slice], patch: Patch) -> None:
        """Write the patch, calibrated, to its place."""
        image, variance = state[0][where], None if state[1] is None else state[1][where]
        kind = np.result_type(image.dtype, np.float32)
        for strip, factor in self.field.strips(patch.part, kind):
            rows = strip.slices(patch.part)
            flux = image[rows]
            np.multiply(patch.image[rows], factor, out=flux)
            if variance is None:
                continue
            assert patch.variance is not None  # as the result has one
            np.multiply(factor, factor, out=factor)
            np.multiply(patch.variance[rows], factor, out=variance[rows])
            if self.relative_err is not None:
                noise = np.multiply(flux, self.relative_err, out=factor)
                np.multiply(noise, noise, out=noise)
                np.add(variance[rows], noise, out=variance[rows])

    def finish(self, state: _Planes) -> bool:
        """Find nothing left to be done."""
        return True

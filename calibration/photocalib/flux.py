"""From instrumental fluxes to nanojanskys and AB magnitudes: of catalogs and of pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mapreduce import Box, Exposure, GridConfig, Patch, PixelReducer, map_reduce
from mapreduce.exposure.box import size_pair
from mapreduce.units import INSTRUMENTAL, in_unit, known_unit, stated_unit

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
        Instrumental fluxes and, optionally, their errors; plain numbers, or adu, electrons, counts
        and the like.
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
    inst_flux, inst_flux_err = _instrumental(inst_flux, inst_flux_err)
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
    inst_flux, inst_flux_err = _instrumental(inst_flux, inst_flux_err)
    flux = np.multiply(inst_flux, calibration, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mag = AB_MAGNITUDE - 2.5 * np.log10(flux)
        if inst_flux_err is None:
            return mag
        noise = np.divide(inst_flux_err, inst_flux, dtype=np.float64)
    return mag, MAG * np.hypot(noise, relative_err)


def _instrumental(
    inst_flux: ArrayLike, inst_flux_err: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return fluxes and errors as plain numbers, in one unit if they say any."""
    stated = stated_unit(inst_flux, "inst_flux")
    if stated is not None and stated.is_equivalent(u.nJy):
        raise u.UnitConversionError(f"inst_flux is in {stated}: it is calibrated already")
    values, units = in_unit(inst_flux, INSTRUMENTAL, "inst_flux"), INSTRUMENTAL
    if inst_flux_err is None:
        return values, None
    if stated is not None:
        units = tuple(unit for unit in INSTRUMENTAL if stated.is_equivalent(unit))
    return values, in_unit(inst_flux_err, units, "inst_flux_err")


def check_instrumental(text: object) -> None:
    """Refuse a header's BUNIT that is none of instrumental fluxes, if it says anything.

    Raises
    ------
    astropy.units.UnitConversionError
        A ValueError.
    """
    if not isinstance(text, str) or not text.strip():
        return
    unit = known_unit(text)
    hint = 'if it is in instrumental flux, say so: exposure.meta["BUNIT"] = "adu"'
    if unit is None:
        raise u.UnitConversionError(
            f"the exposure is in {text!r} (BUNIT), a unit that is not known; {hint}"
        )
    if unit.is_equivalent(u.nJy):
        raise u.UnitConversionError(
            f"the exposure is in {text} already (BUNIT); calibrating it again is wrong"
        )
    if unit not in INSTRUMENTAL:  # nor a multiple of one, which would be lost
        raise u.UnitConversionError(
            f"the exposure is in {text} (BUNIT), which is no instrumental flux; {hint}"
        )


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
    check_instrumental(exposure.meta.get("BUNIT"))
    if relative_err is not None and exposure.planes.get("variance") is None:
        raise ValueError("include_error adds to the variance, and the exposure has none")
    kind = np.dtype(exposure.planes["image"].dtype)
    if kind.kind != "f":
        exposure = exposure.astype(np.result_type(kind, np.float32))
    tile = None if tile is None else size_pair("tile", tile)
    if tile is None:  # not whole rows: the engine would copy what a cell is cut from
        width = -(-exposure.bbox.width // 2)
        tile = width, -(-_TILE // width)
    result = map_reduce(
        exposure,
        Calibrate(field, relative_err),
        grid=GridConfig(tile, border=0),
        reducer=_Place(),
        tile=tile,
    )
    result.meta["BUNIT"] = "nJy"
    return result


@dataclass(frozen=True)
class Calibrate:
    """A mapper that multiplies by a field.

    Parameters
    ----------
    field : ChebyshevField
        nJy per unit of the image, in parent coordinates.
    relative_err : float, optional
        Relative error of the field, to be added to the variance.

    Examples
    --------
    >>> mapper = Calibrate(ChebyshevField(Box(0, 0, 9, 9), [[2.0]]), relative_err=0.5)
    >>> exposure = Exposure(np.full((9, 9), 3.0), np.ones((9, 9)))
    >>> result = mapper(exposure, exposure, exposure.bbox)
    >>> result.image[0, 0], result.variance[0, 0]
    (np.float64(6.0), np.float64(13.0))
    """

    field: ChebyshevField
    relative_err: float | None = None

    def __call__(self, sub: Exposure, expanded: Exposure, full_bbox: Box) -> Exposure:
        """Return the core, calibrated; a few rows at a time, so that they stay in the cache."""
        image, variance = np.empty_like(sub.image), sub.variance
        variance = variance if variance is None else np.empty_like(variance)
        for strip, factor in self.field.strips(sub.bbox, np.result_type(image.dtype, np.float32)):
            rows = strip.slices(sub.bbox)
            flux = np.multiply(sub.image[rows], factor, out=image[rows])
            if variance is None or sub.variance is None:
                continue
            np.multiply(factor, factor, out=factor)
            np.multiply(sub.variance[rows], factor, out=variance[rows])
            if self.relative_err is not None:
                noise = np.multiply(flux, self.relative_err, out=factor)
                np.multiply(noise, noise, out=noise)
                np.add(variance[rows], noise, out=variance[rows])
        return sub.replace(image=image, variance=variance)


@dataclass(frozen=True)
class _Place(PixelReducer):
    """Put results that tile the image in their places; values that are missing are as any other.

    No mask bits are set, and a pixel with NaN for its variance keeps its flux.
    """

    bad: tuple[str, ...] = ()

    name: ClassVar[str] = "calibrate"
    variance_rule: str = field(default="scaled", init=False, repr=False, compare=False)
    holds_nan: ClassVar[bool] = False
    keeps_psf: ClassVar[bool] = True

    def begin(self, image: NDArray[Any], variance: NDArray[Any] | None) -> _Planes:
        """Take the output planes."""
        return image, variance

    def fold(self, state: _Planes, where: tuple[slice, slice], patch: Patch) -> None:
        """Write the patch to its place."""
        for plane, values in zip(state, (patch.image, patch.variance), strict=True):
            if plane is not None:
                plane[where] = values

    def finish(self, state: _Planes) -> None:
        """Find nothing left to be done."""

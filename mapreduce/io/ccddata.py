"""Exposures as astropy's `CCDData`, and back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    StdDevUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS

from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.psf import KernelPsf
from ..exposure.wcs import shift_wcs
from ..units import known_unit
from .header import as_header, bare, mask_cards, mask_planes_of, origin_cards, origin_of
from .values import flag_bad, variance_of_error, variance_of_weight

__all__ = ["from_ccddata", "to_ccddata"]

_NOT_BAD = ("DETECTED", "DETECTED_NEGATIVE")
_BAD_BITS = "BADBITS"
_VARIANCES = {StdDevUncertainty: variance_of_error, InverseVariance: variance_of_weight}


def to_ccddata(
    exposure: Exposure, *, unit: str | u.Unit | None = None, bad: Iterable[str] | None = None
) -> CCDData:
    """Return an exposure as `astropy.nddata.CCDData`, from which `from_ccddata` gets it back.

    Parameters
    ----------
    exposure : Exposure
        Computed first if it is lazy.
    unit : str or Unit, optional
        Unit of the image; by default from the card BUNIT.
    bad : iterable of str, optional
        The mask planes that make a pixel masked; by default all but DETECTED and
        DETECTED_NEGATIVE.

    Returns
    -------
    CCDData
        With the bits of the mask in ``flags``, a `VarianceUncertainty`, the WCS in array
        coordinates, and the header with the origin and the mask planes in ``meta``. ``psf`` is the
        image of the PSF at the center, since CCDData holds no models.

    Raises
    ------
    KeyError
        If there is no mask plane of a name in ``bad``.
    ValueError
        If there is no unit, or it cannot be understood.

    Examples
    --------
    >>> exposure = Exposure(np.ones((2, 2)), mask=np.array([[1, 32], [0, 0]], np.int32))
    >>> to_ccddata(exposure, unit="adu").mask
    array([[ True, False],
           [False, False]])
    """
    planes = exposure.mask_planes
    bad = [name for name in planes if name not in _NOT_BAD] if bad is None else [*bad]
    bad_bits = planes.bitmask(*bad)
    unit = _unit(exposure.meta.get("BUNIT") if unit is None else unit)
    exposure = exposure.compute()
    meta = bare(as_header(exposure.meta), exposure.wcs, origin=True)
    meta.extend(origin_cards(exposure.origin), end=True)
    parts: dict[str, Any] = {}
    if exposure.mask is not None:
        meta.extend([*mask_cards(planes), (_BAD_BITS, bad_bits, "bits that mask a pixel")])
        parts |= {"mask": (exposure.mask & bad_bits) != 0, "flags": exposure.mask}
    if exposure.variance is not None:
        parts["uncertainty"] = VarianceUncertainty(exposure.variance)
    if exposure.wcs is not None:
        parts["wcs"] = exposure.array_wcs
    if exposure.psf is not None:
        parts["psf"] = exposure.psf.compute_kernel_image(*exposure.bbox.center)
    return CCDData(exposure.image, unit=unit, meta=meta, **parts)


def from_ccddata(ccd: CCDData) -> Exposure:
    """Make an exposure of a `astropy.nddata.CCDData`, sharing its arrays where it can.

    Parameters
    ----------
    ccd : CCDData
        Its uncertainty may be a variance, standard deviation or inverse variance. Where the last
        two are not positive, the variance is infinite and the mask has BAD. Pixels that are masked
        but have no bit in ``flags`` that says so are BAD; ``flags`` count only where ``meta``
        names their planes, as `to_ccddata` does. A ``psf`` image becomes a `KernelPsf`.

    Returns
    -------
    Exposure
        In the parent coordinates that ``meta`` gives, else from (0, 0).

    Raises
    ------
    TypeError
        If it is not a CCDData, or its WCS or uncertainty are of other kinds.

    Examples
    --------
    >>> ccd = CCDData(
    ...     np.ones((2, 2)), unit="adu", uncertainty=StdDevUncertainty(np.full((2, 2), 3))
    ... )
    >>> exposure = from_ccddata(ccd)
    >>> exposure.variance[0], exposure.meta["BUNIT"]
    (array([9., 9.]), 'adu')
    """
    if not isinstance(ccd, CCDData):
        raise TypeError(f"from_ccddata takes a CCDData, got {type(ccd).__name__}")
    if not isinstance(ccd.wcs, WCS | None):
        raise TypeError(f"the WCS of the CCDData is a {type(ccd.wcs).__name__}, not a FITS WCS")
    header = as_header(ccd.meta)
    origin = origin_of(header, "the meta of the CCDData", ltv=False)
    mask, planes = _mask(ccd, header)
    variance = None
    if ccd.uncertainty is not None:
        noise = _noise(ccd)
        function = _VARIANCES.get(type(ccd.uncertainty))
        variance = noise if function is None else function(noise)
        if function is not None and not np.isfinite(variance).all():
            planes = planes.add("BAD")
            mask = flag_bad(noise, mask, value=planes.bitmask("BAD"))
    return Exposure(
        ccd.data,
        variance,
        mask,
        origin=origin,
        mask_planes=planes,
        wcs=None if ccd.wcs is None else shift_wcs(ccd.wcs, *origin),
        psf=None if ccd.psf is None else KernelPsf(ccd.psf),
        meta=_meta(header, ccd),
    )


def _unit(unit: str | u.UnitBase | None) -> u.UnitBase:
    if unit is None:
        raise ValueError('the header has no BUNIT; give the unit of the image, such as unit="adu"')
    if isinstance(unit, str):
        unit = known_unit(unit) or unit
    try:
        return u.Unit(unit)
    except (ValueError, TypeError) as error:
        raise ValueError(f"the unit {unit!r} cannot be understood: {error}; give unit=") from error


def _mask(ccd: CCDData, header: fits.Header) -> tuple[np.ndarray | None, MaskPlanes]:
    """Return the mask: the flags if they are ours, and what else is masked as BAD."""
    named = mask_planes_of(header, "the meta of the CCDData")
    planes = MaskPlanes.lsst() if named is None else MaskPlanes(named)
    mask, bad_bits = None, 0
    if named is not None and ccd.flags is not None:
        mask, bad_bits = np.asarray(ccd.flags), header.get(_BAD_BITS, 0)
    if ccd.mask is None:
        return mask, planes
    masked = np.broadcast_to(ccd.mask, ccd.shape).astype(bool)
    if mask is None:
        mask = np.zeros(ccd.shape, np.int32)
    added = masked & ((mask & bad_bits) == 0)
    if added.any():
        planes = planes.add("BAD")
        mask = mask | np.where(added, np.int32(planes.bitmask("BAD")), np.int32(0))
    return mask, planes


def _noise(ccd: CCDData) -> np.ndarray:
    """Return the uncertainty's array, in the unit that goes with the image's."""
    uncertainty = ccd.uncertainty
    powers = {VarianceUncertainty: 2, StdDevUncertainty: 1, InverseVariance: -2}
    if type(uncertainty) not in powers:
        names = ", ".join(kind.__name__ for kind in powers)
        raise TypeError(f"the uncertainty is {type(uncertainty).__name__}; it must be of {names}")
    array = np.asarray(uncertainty.array)
    unit = ccd.unit ** powers[type(uncertainty)]
    if uncertainty.unit is None or uncertainty.unit == unit:
        return array
    return array * uncertainty.unit.to(unit)


def _meta(header: fits.Header, ccd: CCDData) -> fits.Header:
    """Return the header with the unit, in the header's own spelling if that means the same."""
    meta, unit = bare(header, ccd.wcs, origin=True), ccd.unit
    meta.remove(_BAD_BITS, ignore_missing=True)
    written = meta.get("BUNIT")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", u.UnitsWarning)
        if written is None or _unit_or_none(written) != unit:
            meta["BUNIT"] = unit.to_string()
    return meta


def _unit_or_none(text: str) -> u.UnitBase | None:
    try:
        return _unit(text)
    except ValueError:
        return None

"""FITS files of any origin: plain images and multi-extension files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from astropy.io import fits

from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.plane import Derived, PlaneSource
from .fits_plane import FitsPlane
from .hdu import Hdu, listed, scan
from .header import mask_planes_of, merged, wcs_of
from .values import flagged, mask_of, undo_asinh, variance_from
from .write import write

__all__ = ["read", "recognizes", "write"]

HduChoice = str | int | os.PathLike[str] | tuple[str | os.PathLike[str], str | int]

_IMAGE = ("SCI", "IMAGE", "DATA", "PRIMARY")
_MASK = ("MASK", "DQ", "MSK", "BPM", "FLAGS")
_NOISE = {
    "VARIANCE": "variance",
    "VAR": "variance",
    "ERR": "error",
    "ERROR": "error",
    "UNCERT": "error",
    "SIGMA": "error",
    "RMS": "error",
    "WHT": "weight",
    "WGT": "weight",
    "WEIGHT": "weight",
    "IVAR": "weight",
    "INVVAR": "weight",
}
_UNCERTAINTIES = {
    "StdDevUncertainty": "error",
    "VarianceUncertainty": "variance",
    "InverseVariance": "weight",
}


def recognizes(path: str | os.PathLike[str]) -> bool:
    """Whether this is a FITS file (others raise an OSError)."""
    return bool(scan(path))


def read(
    path: str | os.PathLike[str],
    *,
    image: HduChoice = "auto",
    variance: HduChoice | None = "auto",
    mask: HduChoice | None = "auto",
    error: HduChoice | None = None,
    weight: HduChoice | None = None,
    mask_planes: Mapping[str, int] | None = None,
) -> Exposure:
    """Read a FITS file; its pixels stay on disk until they are used.

    The planes are found by EXTNAME, whatever its case: the image among SCI, IMAGE, DATA, PRIMARY
    (or it is the only image there is); the mask among MASK, DQ, MSK, BPM, FLAGS; the noise among
    VARIANCE, VAR (variance), ERR, ERROR, UNCERT, SIGMA, RMS (1 sigma), WHT, WGT, WEIGHT, IVAR,
    INVVAR (inverse variance). Where that is not unique, name them.

    Parameters
    ----------
    path : path
        The file; may be ``.fits.gz``, of which every block that is read is decompressed from the
        start.
    image, variance, mask : str, int, path or (path, str or int), optional
        The HDU of the plane by name or number, or another file, or an HDU of another file. None
        for ``variance`` and ``mask``: do without.
    error : like variance
        Instead of the variance: 1-sigma errors.
    weight : like variance
        Instead of the variance: inverse variances.
    mask_planes : mapping of str to int, optional
        Bit number of each mask plane. By default from the mask's header (``MP_*`` or ``MSKN*``
        cards). Where it names none, an 8-bit mask means BAD wherever it is not zero, and the bits
        of a wider one are called BIT0, BIT1, ...

    Returns
    -------
    Exposure
        Integer images stay integers. Where an error or weight is not a positive number the
        variance is infinite and the mask has BAD; if there is no mask in the file, one is made for
        that. ``meta`` is the header of the image over that of the primary HDU, without the cards
        of the WCS and of the file's layout. The origin is (0, 0).

    Raises
    ------
    KeyError
        If there is no such HDU.
    OSError
        If a file is missing, not FITS, or truncated.
    TypeError
        If a plane is of a dtype that it cannot have.
    ValueError
        If the planes cannot be told apart, or differ in shape, or an HDU holds no image.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> hdus = [fits.PrimaryHDU(), fits.ImageHDU(np.ones((2, 2)), name="SCI")]
    >>> hdus += [fits.ImageHDU(np.full((2, 2), 3.0), name="ERR")]
    >>> with TemporaryDirectory() as folder:
    ...     fits.HDUList(hdus).writeto(f"{folder}/a.fits")
    ...     read(f"{folder}/a.fits").compute().variance
    array([[9., 9.],
           [9., 9.]])
    """
    hdus = scan(path)
    science = _image(hdus) if image == "auto" else _chosen(image, hdus)
    rest = [hdu for hdu in hdus if hdu.is_image and hdu != science]
    noise = _noise(hdus, rest, variance, error, weight)
    header = science.header()
    parts: dict[str, Any] = {
        "image": _plane(science, header),
        "wcs": wcs_of(science, header),
        "meta": merged(_primary(science), header),
    }
    planes = None if mask_planes is None else MaskPlanes(mask_planes)
    bits: PlaneSource | None = None
    if mask == "auto":
        flags = _only(rest, "mask", _MASK, "mask=")
    else:
        flags = None if mask is None else _chosen(mask, hdus)
    if flags is not None:
        bits, planes = mask_of(flags, planes or mask_planes_of(flags.header()))
    if noise is not None:
        kind, hdu = noise
        plane = _plane(hdu, hdu.header())
        parts["variance"] = variance_from(kind, plane)
        if kind != "variance":
            bits, planes = flagged(bits, planes or MaskPlanes.lsst(), plane)
    return Exposure(mask=bits, mask_planes=planes, **parts)


def _primary(hdu: Hdu) -> fits.Header | None:
    """Return the header that an HDU inherits from."""
    return scan(hdu.path)[0].header() if hdu.index else None


def _plane(hdu: Hdu, header: fits.Header) -> PlaneSource:
    """Return the image of an HDU, Pan-STARRS' scaling undone."""
    plane = FitsPlane(hdu)
    if "BSOFTEN" not in header or "BOFFSET" not in header:
        return plane
    function = partial(undo_asinh, offset=header["BOFFSET"], softening=header["BSOFTEN"])
    return Derived(function, (plane,), np.dtype("f4"))


def _name(hdu: Hdu) -> str:
    return hdu.name or ("PRIMARY" if hdu.index == 0 else "")


def _chosen(choice: HduChoice, hdus: Sequence[Hdu]) -> Hdu:
    """Return the HDU that the caller named."""
    if isinstance(choice, tuple) and len(choice) == 2:
        return _chosen(choice[1], scan(choice[0]))
    if isinstance(choice, os.PathLike):
        return _image(scan(choice))
    if isinstance(choice, int | np.integer) and not isinstance(choice, bool):
        if 0 <= choice < len(hdus):
            return hdus[choice]
        raise KeyError(f"{hdus[0].path} has no HDU {choice}; there are {listed(hdus)}")
    if not isinstance(choice, str):
        raise TypeError(
            f"an HDU is chosen by name, number, path or (path, name or number), got {choice!r}"
        )
    found = [hdu for hdu in hdus if _name(hdu) == choice.upper()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{hdus[0].path} has several HDUs {choice}; choose by number: {listed(hdus)}"
        )
    if os.path.exists(choice):
        return _image(scan(choice))
    raise KeyError(
        f"{hdus[0].path} has no HDU {choice}, nor is there a file of that name; "
        f"there are {listed(hdus)}"
    )


def _image(hdus: Sequence[Hdu]) -> Hdu:
    """Return the HDU that must be the image."""
    images = [hdu for hdu in hdus if hdu.is_image]
    if not images:
        raise ValueError(f"{hdus[0].path} has no image in two dimensions; there are {listed(hdus)}")
    named = [hdu for hdu in images if _name(hdu) in _IMAGE]
    others = [hdu for hdu in images if _name(hdu) not in (*_MASK, *_NOISE)]
    found = named or others or images
    if len(found) > 1:
        raise ValueError(
            f"{hdus[0].path} has several images; choose one with image=: {listed(found)}"
        )
    return found[0]


def _only(hdus: Sequence[Hdu], what: str, names: Sequence[str], options: str) -> Hdu | None:
    """Return the one HDU that has one of these names, None if none has."""
    found = [hdu for hdu in hdus if hdu.name in names]
    if len(found) > 1:
        raise ValueError(
            f"{found[0].path} has several HDUs that could be the {what}; "
            f"choose with {options}: {listed(found)}"
        )
    return found[0] if found else None


def _noise(
    hdus: Sequence[Hdu],
    rest: Sequence[Hdu],
    variance: HduChoice | None,
    error: HduChoice | None,
    weight: HduChoice | None,
) -> tuple[str, Hdu] | None:
    """Return the kind and the HDU of the noise plane."""
    options = {"error": error, "weight": weight}
    options |= {"variance": None if variance == "auto" else variance}
    choices = {kind: choice for kind, choice in options.items() if choice is not None}
    if len(choices) > 1:
        raise ValueError(f"choose one of variance, error and weight, got {', '.join(choices)}")
    for kind, choice in choices.items():
        return kind, _chosen(choice, hdus)
    if variance is None:
        return None
    hdu = _only(rest, "noise", tuple(_NOISE), "variance=, error= or weight=")
    if hdu is None:
        return None
    utype = hdu.header().get("UTYPE") if hdu.name == "UNCERT" else None
    if utype is None:
        return _NOISE[hdu.name], hdu
    if utype not in _UNCERTAINTIES:
        raise ValueError(f"{hdu.where} holds an {utype}; choose among {', '.join(_UNCERTAINTIES)}")
    return _UNCERTAINTIES[utype], hdu

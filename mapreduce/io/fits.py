"""FITS files of any origin: plain images and multi-extension files."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy.wcs import WCS

from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.plane import Derived, PlaneSource
from ..exposure.psf import KernelPsf
from ..units import known_unit
from .cards import is_number
from .fits_plane import FitsPlane
from .hdu import Hdu, listed, scan
from .header import mask_planes_of, merged, wcs_of
from .masks import MaskBit, named, read_mask
from .paths import is_url
from .psf import psf_or_warning
from .values import flagged, scaled, undo_asinh, variance_from
from .write import write

__all__ = ["read", "recognizes", "write"]

HduChoice = str | int | os.PathLike[str] | tuple[Any, Any]

_IMAGE = ("SCI", "IMAGE", "DATA", "PRIMARY")
_MASK = (
    "MASK", "DQ", "MSK", "BPM", "FLAGS", "MASKBITS", "BITMASK", "QUAL", "QUALITY", "BADPIX",
)  # fmt: skip
_NOISE = {
    name: kind
    for kind, names in {
        "variance": "VARIANCE VAR STAT",
        "error": "ERR ERROR ERRS UNC UNCERT UNCERTAINTY SIG SIGMA STD STDDEV RMS NOISE",
        "weight": "WHT WGT WEIGHT IVAR INVVAR IVM",
    }.items()
    for name in names.split()
}
# What makes an image of others leaves these beside it; its WHT may be an exposure time.
_DRIZZLED = ("CTX", "CON")
_DRIZZLE_CARDS = ("NDRIZIM", "D001DATA", "RESWHT")
_ASINH = ("BOFFSET", "BSOFTEN")  # of Pan-STARRS
# What is known to be neither noise nor mask.
_OTHERS = re.compile(r"VAR_.*|CTX|CON|AREA|WHT|SKY.*|BKG.*|BACKGR.*|EXP.*|PSF.*|HITS|WAVELENGTH")
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
    keep_planes: Sequence[str] | None = None,
    wcs: WCS | str | None = "auto",
) -> Exposure:
    """Read a FITS file; its pixels stay on disk until they are used.

    The planes are found by EXTNAME, whatever its case: the image among SCI, IMAGE, DATA, PRIMARY
    (or it is the only image there is); the mask among MASK, DQ, MSK, BPM, FLAGS, MASKBITS, BITMASK,
    QUAL, QUALITY, BADPIX; the noise among VARIANCE, VAR, STAT (variance), ERR, ERROR, ERRS, UNC,
    UNCERT, UNCERTAINTY, SIG, SIGMA, STD, STDDEV, RMS, NOISE (1 sigma), WHT, WGT, WEIGHT, IVAR,
    INVVAR, IVM (inverse variance). Of several of a name, those of the image's EXTVER are meant.
    Where that is not unique, name them. An image of one more axis, of length 1, is taken as it is.

    Parameters
    ----------
    path : path or URL
        The file; may be ``.fits.gz``, of which every block that is read is decompressed from the
        start.
    image, variance, mask : str, int, path or tuple, optional
        The HDU of the plane by name, number, or (name, EXTVER); or another file or its URL, or
        (path, HDU of that file). None for ``variance`` and ``mask``: do without.
    error : like variance
        Instead of the variance: 1-sigma errors.
    weight : like variance
        Instead of the variance: inverse variances.
    mask_planes : mapping of str to int, optional
        Bit number, from 0, of each mask plane to read. By default from the mask's header (``MP_*``
        or ``MSKN*`` cards). Where it names none, a mask of 8 bits or of floats means BAD wherever
        it is not zero, and a wider one is read through once to learn which bits are in use; those
        are called BIT0, BIT1, ...
    keep_planes : sequence of str, optional
        Keep only these mask planes; of a mask without names, BIT0, BIT1, ...
    wcs : astropy.wcs.WCS, "auto" or None
        Another WCS than that of the image's header, from parent pixels (0-based); or none. One in
        the header that cannot be used is left out with a warning.

    Returns
    -------
    Exposure
        Integer images stay integers. Where an error or weight is not a positive number the
        variance is infinite and the mask has BAD; if there is no mask in the file, one is made for
        that. ``meta`` is the header of the image over that of the primary HDU, without the cards
        of the file's layout, and those of the WCS if there is one. The origin is (0, 0).

    Raises
    ------
    KeyError
        If there is no such HDU.
    OSError
        If a file is missing, not FITS, or truncated.
    TypeError
        If a plane is of a dtype that it cannot have.
    ValueError
        If the planes cannot be told apart, or differ in shape, or an HDU holds no image; if the
        image is a drizzled one whose WHT may be anything.

    Warns
    -----
    UserWarning
        Of what is in the file and cannot be used: cards that cannot be parsed, a WCS, mask planes
        beyond what int32 holds; and of images whose names do not say whether they are the noise or
        the mask that was not found.

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
    header = science.header()
    world = wcs_of(science, header, wcs)
    meta = merged(_primary(science), header, world)
    noise = _noise(hdus, rest, science, meta, variance, error, weight)
    flags = _flags(hdus, rest, science, mask)
    _warn_of_unknown(hdus, science, noise is None and variance == "auto", flags, mask)
    parts: dict[str, Any] = {
        "image": _plane(science, header),
        "wcs": world,
        "meta": _linear(meta),
        "psf": _psf_image(hdus),
    }
    planes = MaskPlanes.lsst()
    bits: PlaneSource | None = None
    add = ["BAD"] if noise is not None and noise[0] != "variance" else []
    if flags is not None:
        bits, planes = read_mask(
            [FitsPlane(flags, bits=True)],
            _named_bits(flags),
            flags.where,
            mask_planes=mask_planes,
            keep_planes=keep_planes,
            add=add,
        )
    elif mask_planes is not None:
        planes = MaskPlanes(mask_planes)
    if noise is not None:
        kind, hdu = noise
        noise_header = hdu.header()
        plane = _in_unit(_plane(hdu, noise_header), kind, hdu.where, noise_header, meta)
        parts["variance"] = variance_from(kind, plane)
        if kind != "variance":
            planes = planes.add("BAD")
            bits = flagged(bits, planes, plane)
    return Exposure(mask=bits, mask_planes=planes, **parts)


def _primary(hdu: Hdu) -> fits.Header | None:
    """Return the header that an HDU inherits from."""
    return scan(hdu.path)[0].header() if hdu.index else None


def _plane(hdu: Hdu, header: fits.Header) -> PlaneSource:
    """Return the image of an HDU, Pan-STARRS' scaling undone."""
    plane = FitsPlane(hdu)
    scale = [header[card] for card in _ASINH if card in header]
    if len(scale) < len(_ASINH):
        return plane
    if not all(map(is_number, scale)):
        raise ValueError(f"{hdu.where}: {' and '.join(_ASINH)} are {scale}, not numbers")
    function = partial(undo_asinh, offset=scale[0], softening=scale[1])
    return Derived(function, (plane,), np.dtype("f4"))


def _linear(meta: fits.Header) -> fits.Header:
    """Return the header without the scaling that was undone."""
    if all(card in meta for card in _ASINH):
        for card in _ASINH:
            del meta[card]
    return meta


def _in_unit(
    plane: PlaneSource, kind: str, where: str, header: fits.Header, meta: fits.Header
) -> PlaneSource:
    """Return the noise in the unit that goes with the image's, where both have one."""
    texts = meta.get("BUNIT"), header.get("BUNIT")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        return plane
    image, noise = map(known_unit, texts)
    if image is None or noise is None:
        return plane
    wanted = image ** {"variance": 2, "error": 1, "weight": -2}[kind]
    if noise == wanted:
        return plane
    try:
        return scaled(plane, noise.to(wanted))
    except u.UnitConversionError:
        if noise != image:  # as many writers have it
            warnings.warn(
                f"{where} is in {noise}, which is not {wanted}: taken as it", stacklevel=4
            )
        return plane


def _name(hdu: Hdu) -> str:
    return hdu.name or ("PRIMARY" if hdu.index == 0 else "")


def _chosen(choice: HduChoice, hdus: Sequence[Hdu]) -> Hdu:
    """Return the HDU that the caller named."""
    if isinstance(choice, tuple) and len(choice) == 2:
        name, version = choice
        if isinstance(name, str) and any(_name(hdu) == name.upper() for hdu in hdus):
            return _version(hdus, name, version)
        return _chosen(version, scan(name))
    if isinstance(choice, os.PathLike):
        return _image(scan(choice))
    if isinstance(choice, int | np.integer) and not isinstance(choice, bool):
        if 0 <= choice < len(hdus):
            return hdus[choice]
        raise KeyError(f"{hdus[0].path} has no HDU {choice}; there are {listed(hdus)}")
    if not isinstance(choice, str):
        raise TypeError(
            "an HDU is chosen by name, number, (name, EXTVER), path or (path, HDU of that file), "
            f"got {choice!r}"
        )
    found = [hdu for hdu in hdus if _name(hdu) == choice.upper()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{hdus[0].path} has several HDUs {choice}; choose by number, or as "
            f"({choice!r}, EXTVER): {listed(hdus)}"
        )
    if is_url(choice) or os.path.exists(choice):
        return _image(scan(choice))
    raise KeyError(
        f"{hdus[0].path} has no HDU {choice}, nor is there a file of that name; "
        f"there are {listed(hdus)}"
    )


def _version(hdus: Sequence[Hdu], name: str, version: Any) -> Hdu:
    """Return the HDU of a name and an EXTVER."""
    named = [hdu for hdu in hdus if _name(hdu) == name.upper()]
    found = [hdu for hdu in named if hdu.version == version]
    if len(found) == 1:
        return found[0]
    versions = ", ".join(str(hdu.version) for hdu in named)
    raise KeyError(
        f"{hdus[0].path} has {len(found)} HDUs {name} with EXTVER {version!r}; there are {versions}"
    )


def _image(hdus: Sequence[Hdu]) -> Hdu:
    """Return the HDU that must be the image."""
    images = [hdu for hdu in hdus if hdu.is_image]
    if not images:
        raise ValueError(
            f"{hdus[0].path} has no image in two dimensions; there are {listed(hdus)}. "
            "Of a cube, take one plane: mr.Exposure(fits.getdata(path)[0])"
        )
    named = [hdu for hdu in images if _name(hdu) in _IMAGE]
    others = [hdu for hdu in images if _name(hdu) not in (*_MASK, *_NOISE)]
    found = named or others or images
    if len(found) > 1:
        raise ValueError(
            f"{hdus[0].path} has several images; choose one with image=: {listed(found)}"
        )
    return found[0]


def _of_version(hdus: Sequence[Hdu], science: Hdu, rest: Sequence[Hdu]) -> Sequence[Hdu]:
    """Return those that have the image's EXTVER, where the file has images of several."""
    same = [hdu for hdu in hdus if hdu.version == science.version]
    has_versions = any(_name(hdu) == _name(science) for hdu in rest)
    return same if has_versions or same else hdus


def _fits(hdu: Hdu, science: Hdu) -> bool:
    """Whether an image is of the same size; of a damaged one nobody knows."""
    return bool(hdu.fault) or hdu.shape[-2:] == science.shape[-2:]


def _only(hdus: Sequence[Hdu], what: str, options: str) -> Hdu | None:
    """Return the one HDU, None if there is none."""
    if len(hdus) > 1:
        raise ValueError(
            f"{hdus[0].path} has several HDUs that could be the {what}; "
            f"choose with {options}: {listed(hdus)}"
        )
    return hdus[0] if hdus else None


def _flags(
    hdus: Sequence[Hdu], rest: Sequence[Hdu], science: Hdu, mask: HduChoice | None
) -> Hdu | None:
    """Return the HDU of the mask."""
    if mask != "auto":
        return None if mask is None else _chosen(mask, hdus)
    found = [hdu for hdu in rest if hdu.name in _MASK and _fits(hdu, science)]
    return _only(_of_version(found, science, rest), "mask", "mask=")


def _named_bits(flags: Hdu) -> dict[str, MaskBit] | None:
    names = mask_planes_of(flags.header(), flags.where)
    return None if names is None else named(names)


def _noise(
    hdus: Sequence[Hdu],
    rest: Sequence[Hdu],
    science: Hdu,
    meta: fits.Header,
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
    found = [hdu for hdu in rest if hdu.name in _NOISE and _fits(hdu, science)]
    found = [*_of_version(found, science, rest)]
    is_drizzled = any(hdu.name in _DRIZZLED for hdu in rest) or any(
        card in meta for card in _DRIZZLE_CARDS
    )
    known = [hdu for hdu in found if not (is_drizzled and hdu.name == "WHT")]
    if found and not known:
        raise ValueError(
            f"{found[0].where} belongs to a drizzled image: it may be 1/variance, or an exposure "
            'time; choose weight="WHT" if it is the first, else variance=None'
        )
    hdu = _only(known, "noise", "variance=, error= or weight=")
    if hdu is None:
        return None
    utype = hdu.header().get("UTYPE") if hdu.name == "UNCERT" else None
    if utype is None:
        return _NOISE[hdu.name], hdu
    if utype not in _UNCERTAINTIES:
        raise ValueError(f"{hdu.where} holds an {utype}; choose among {', '.join(_UNCERTAINTIES)}")
    return _UNCERTAINTIES[utype], hdu


def _warn_of_unknown(
    hdus: Sequence[Hdu], science: Hdu, no_noise: bool, flags: Hdu | None, mask: HduChoice | None
) -> None:
    """Warn of what may be the noise or the mask, of which one was not found."""
    missing = ["noise"] if no_noise else []
    missing += ["mask"] if mask == "auto" and flags is None else []
    names = {name for name in (*_MASK, *_NOISE) if name != "WHT"}
    misfits = [
        hdu for hdu in hdus if hdu.name in names and hdu.shape and not _is_like(hdu, science)
    ]
    unknown = [
        hdu
        for hdu in hdus
        if hdu != science
        and hdu.name not in ("", *_IMAGE, *_MASK, *_NOISE)
        and not _OTHERS.fullmatch(hdu.name)
        and _is_like(hdu, science)
        and hdu.version == science.version
    ]
    if _name(science) not in _IMAGE:  # they may be other images
        unknown = []
    if missing and (found := [*misfits, *unknown]):
        warnings.warn(
            f"{science.path}: no {' and no '.join(missing)} was found; left out are "
            f"{listed(found)}; name them with variance=, error=, weight= or mask=",
            stacklevel=4,
        )


def _is_like(hdu: Hdu, science: Hdu) -> bool:
    return hdu.is_image and _fits(hdu, science)


def _psf_image(hdus: Sequence[Hdu]) -> KernelPsf | None:
    """Return the PSF of a file of astropy's CCDData."""
    found = next((hdu for hdu in hdus if hdu.name == "PSFIMAGE" and hdu.is_image), None)
    if found is None:
        return None
    with psf_or_warning(found.where):
        return KernelPsf(FitsPlane(found)[:, :])
    return None

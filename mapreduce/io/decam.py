"""NOIRLab Community Pipeline exposures: DECam, Mosaic-3 and 90Prime.

An exposure is three files with one stem: image (``_ooi_``, or sky-subtracted ``_oki_``), weight
(``_oow_``) and data quality (``_ood_``), each with one HDU per CCD. The data quality holds codes
(one meaning per value), in DECam files before pipeline version 3.5.0 bits:

===========  ====  ==========  ============================================================
mask plane   code  bit value   meaning
===========  ====  ==========  ============================================================
BAD             1           1  bad pixel; also any value not listed, or weight not positive
NO_DATA         2              no value
SAT             3           2  saturated
BLEED           4          64  bleed trail
CR              5          16  cosmic ray
SUSPECT         6              low weight
TRANSIENT       7         128  differs from the exposures it is with
STREAK          8              long streak
INTRP                       4  interpolated
===========  ====  ==========  ============================================================

References: the NOIRLab Data Handbook and the data quality documentation of the Legacy Surveys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.plane import Derived, PlaneSource
from .fits_plane import FitsPlane
from .hdu import Hdu, listed, open_file, scan
from .header import merged, wcs_of
from .masks import named, read_mask
from .paths import beside, is_file, located, name_of
from .psf import read_psfex
from .values import flagged, variance_from

__all__ = ["read", "recognizes"]

_IMAGE = re.compile(r"_o[ok]i_")
_SUFFIXES = (".fits", ".fits.fz", ".fits.gz")
_PLANES = MaskPlanes.lsst().add("BLEED", "TRANSIENT")
_CODES = {
    1: "BAD",
    2: "NO_DATA",
    3: "SAT",
    4: "BLEED",
    5: "CR",
    6: "SUSPECT",
    7: "TRANSIENT",
    8: "STREAK",
}
_BITS = {1: "BAD", 2: "SAT", 4: "INTRP", 16: "CR", 64: "BLEED", 128: "TRANSIENT"}

PathOrNone = str | os.PathLike[str] | None


def recognizes(path: str | os.PathLike[str]) -> bool:
    """Whether a FITS file is an image of the Community Pipeline: a card PLVER, and its name."""
    return "PLVER" in scan(path)[0].facts and bool(_IMAGE.search(name_of(path)))


def read(
    path: str | os.PathLike[str],
    *,
    ccd: str | int | None = None,
    weight: PathOrNone = "auto",
    quality: PathOrNone = "auto",
    quality_kind: str | None = None,
    psf: PathOrNone = None,
    keep_planes: Sequence[str] | None = None,
    wcs: WCS | str | None = "auto",
) -> Exposure:
    """Read one CCD of a Community Pipeline exposure; its pixels stay on disk until they are used.

    Parameters
    ----------
    path : path or URL
        The image file.
    ccd : str or int, optional
        Name of the CCD (EXTNAME) or its number (CCDNUM). Needed if the file has several.
    weight, quality : path or URL, optional
        The other two files; by default they are beside the image, under the same stem. None: do
        without.
    quality_kind : {"codes", "bits"}, optional
        What the data quality holds; by default from INSTRUME and PLVER.
    psf : path or URL, optional
        A PSFEx file for this CCD, or a merged one of the Legacy Surveys.
    keep_planes : sequence of str, optional
        Keep only these mask planes.
    wcs : astropy.wcs.WCS, "auto" or None
        Another WCS than that of the header, from parent pixels (0-based); or none. One in the
        header that cannot be used is left out with a warning.

    Returns
    -------
    Exposure
        In counts of the whole exposure, sky included. The variance is 1 / weight, infinite where
        the weight is not positive; those pixels are BAD in the mask, whose planes are in the
        table above. Without quality the mask has only these. The origin is (0, 0).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    KeyError
        If there is no such CCD.
    OSError
        If a file is not FITS, or truncated.
    ValueError
        If a CCD must be chosen, the planes differ in shape, or the kind of quality is not known.

    Notes
    -----
    A few weights at the edges of some exposures are absurdly large, so that their variances are
    nearly 0. In DECam files code 8, in 90Prime files codes 7 and 8 are not reliable; the Legacy
    Surveys ignore them.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> primary = fits.PrimaryHDU(header=fits.Header({"INSTRUME": "DECam", "PLVER": "V4.8"}))
    >>> values = {"i": [[9.0, 9.0]], "w": [[0.5, 0.0]], "d": [[3, 0]]}
    >>> with TemporaryDirectory() as folder:
    ...     for kind, value in values.items():
    ...         hdu = fits.ImageHDU(np.array(value), name="N2")
    ...         fits.HDUList([primary, hdu]).writeto(f"{folder}/c4d_oo{kind}_z.fits")
    ...     exposure = read(f"{folder}/c4d_ooi_z.fits", ccd="N2").compute()
    >>> exposure.variance, exposure.mask == exposure.mask_planes.bitmask("SAT")
    (array([[ 2., inf]]), array([[ True, False]]))
    """
    if quality_kind not in (None, "codes", "bits"):
        raise ValueError(f'quality_kind is "codes" or "bits", got {quality_kind!r}')
    hdus = scan(path)
    hdu = _ccd(hdus, ccd)
    header, primary = hdu.header(), hdus[0].header()
    world = wcs_of(hdu, header, wcs)
    parts: dict[str, Any] = {
        "image": FitsPlane(hdu),
        "wcs": world,
        "meta": merged(primary if hdu.index else None, header, world),
    }
    mask: PlaneSource | None = None
    planes = _PLANES
    weights = _sibling(path, hdu, "weight", weight, "oow")
    flags = _sibling(path, hdu, "quality", quality, "ood")
    if flags is not None:
        table = {"codes": _CODES, "bits": _BITS}[quality_kind or _kind(hdus, flags)]
        mask = _mask(flags, table)
        if keep_planes is not None:
            mask, planes = read_mask(
                [mask], named(_PLANES), flags.where, keep_planes=keep_planes, add=["BAD"]
            )
    if weights is not None:
        plane = FitsPlane(weights)
        parts["variance"] = variance_from("weight", plane)
        mask = flagged(mask, planes, plane)
    if psf is not None:
        parts["psf"] = read_psfex(psf, **_psfex_row(psf, hdu, primary))
    return Exposure(mask=mask, mask_planes=planes, **parts)


def _ccd(hdus: Sequence[Hdu], ccd: str | int | None) -> Hdu:
    """Return the HDU of a CCD."""
    images = [hdu for hdu in hdus if hdu.is_image]
    if ccd is None:
        found = images
    elif isinstance(ccd, str):
        found = [hdu for hdu in images if hdu.name == ccd.upper()]
    else:
        found = [hdu for hdu in images if hdu.facts.get("CCDNUM") == ccd]
    if len(found) == 1:
        return found[0]
    names = ", ".join(f"{h.name or h.index} ({h.facts.get('CCDNUM', '-')})" for h in images)
    if ccd is None and images:
        raise ValueError(f"{hdus[0].path} has several CCDs; choose one with ccd=: {names}")
    if not images:
        raise ValueError(f"{hdus[0].path} has no image; there are {listed(hdus)}")
    problem = f"{len(found)} CCDs {ccd!r}" if found else f"no CCD {ccd!r}"
    raise KeyError(f"{hdus[0].path} has {problem}; names (and CCDNUM): {names}")


def _sibling(
    path: str | os.PathLike[str], image: Hdu, option: str, choice: PathOrNone, kind: str
) -> Hdu | None:
    """Return the HDU of the same CCD in the weight or quality file."""
    if choice is None:
        return None
    if choice == "auto":
        choice = _sibling_path(located(path), option, kind)
    hdus = scan(choice)
    images = [hdu for hdu in hdus if hdu.is_image]
    found = [hdu for hdu in images if hdu.name == image.name]
    if len(found) != 1:
        raise ValueError(
            f"{hdus[0].path} has {len(found)} HDUs {image.name or '(no name)'} to go with "
            f"{image.where}; there are {listed(hdus)}"
        )
    return found[0]


def _sibling_path(path: str, option: str, kind: str) -> str:
    """Return the path of the weight or quality file beside an image."""
    stem, count = _IMAGE.subn(f"_{kind}_", name_of(path))
    if count != 1:
        raise ValueError(
            f"{name_of(path)} is not named like an image of the Community Pipeline (*_ooi_*), so "
            f"its {option} file cannot be found; give {option}=path, or {option}=None to do without"
        )
    bare = next((stem.removesuffix(s) for s in _SUFFIXES[::-1] if stem.endswith(s)), stem)
    for name in dict.fromkeys([stem, *(bare + suffix for suffix in _SUFFIXES)]):
        if is_file(found := beside(path, name)):
            return found
    raise FileNotFoundError(
        f"{path} has no {option} file beside it: no {beside(path, stem)}; "
        f"give {option}=path, or {option}=None to do without"
    )


def _kind(hdus: Sequence[Hdu], flags: Hdu) -> str:
    """Return whether data quality holds codes or bits."""
    facts = {**hdus[0].facts, **scan(flags.path)[0].facts}
    instrument, version = str(facts.get("INSTRUME", "")), str(facts.get("PLVER", ""))
    if instrument.lower() != "decam" and instrument:
        return "codes"
    numbers = re.match(r"V?(\d+)\.(\d+)", version)
    if not instrument or numbers is None:
        raise ValueError(
            f"{hdus[0].path}: INSTRUME {instrument!r} and PLVER {version!r} do not tell what the "
            'data quality holds; give quality_kind="codes" or "bits"'
        )
    return "codes" if tuple(map(int, numbers.groups())) >= (3, 5) else "bits"


def _mask(flags: Hdu, table: dict[int, str]) -> PlaneSource:
    plane = FitsPlane(flags, bits=True)
    if plane.dtype.kind != "u":
        raise TypeError(f"{flags.where} holds {plane.dtype}; data quality is of integers")
    values = tuple((value, _PLANES.bitmask(name)) for value, name in table.items())
    function = _from_codes if table is _CODES else _from_bits
    function = partial(function, values=values, other=_PLANES.bitmask("BAD"))
    return Derived(function, (plane,), np.dtype("i4"))


def _from_codes(
    quality: np.ndarray, *, values: Sequence[tuple[int, int]], other: int
) -> np.ndarray:
    """Mask from codes, each of which is one value."""
    codes = np.full(max(code for code, _ in values) + 2, other, np.int32)
    codes[0] = 0
    for code, bits in values:
        codes[code] = bits
    last = len(codes) - 1
    return codes[np.where((quality >= 0) & (quality < last), quality, last)]


def _from_bits(quality: np.ndarray, *, values: Sequence[tuple[int, int]], other: int) -> np.ndarray:
    """Mask from bits, of which several may be set."""
    mask = np.zeros(quality.shape, np.int32)
    known = 0
    for value, bits in values:
        mask[(quality & value) != 0] |= bits
        known |= value
    mask[(quality & ~quality.dtype.type(known)) != 0] |= other
    return mask


def _psfex_row(path: str | os.PathLike[str], hdu: Hdu, primary: fits.Header) -> dict[str, Any]:
    """Return what finds the model of a CCD where the file is a merged one."""
    with open_file(path) as hdus:
        tables = [table for table in hdus if isinstance(table, fits.BinTableHDU)]
        columns = {name.lower() for table in tables for name in table.columns.names}
    wanted = {"ccdname": hdu.facts.get("EXTNAME"), "expnum": primary.get("EXPNUM")}
    return {
        key: value for key, value in wanted.items() if key in columns and value is not None
    }  # fmt: skip

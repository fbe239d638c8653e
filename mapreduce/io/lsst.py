"""LSST exposures: files of afw (``ExposureF``, calexps) and of ``lsst.images``, and our own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from ..exposure.exposure import Exposure
from ..exposure.mask import MaskPlanes
from ..exposure.plane import PlaneSource
from ..exposure.psf import Psf, PsfexPsf
from .fits_plane import FitsPlane
from .hdu import Hdu, listed, open_hdu, read_table, scan
from .header import mask_planes_of, merged, origin_of, wcs_of
from .masks import MaskBit, read_mask
from .psf import psf_from_hdus, psf_or_warning

__all__ = ["read", "recognizes"]

_ROLES = ("IMAGE", "MASK", "VARIANCE")
# What lsst.images calls the planes that all other LSST files, and we, call otherwise.
_AFW_NAMES = {
    "SATURATED": "SAT",
    "INTERPOLATED": "INTRP",
    "COSMIC_RAY": "CR",
    "DETECTION_EDGE": "EDGE",
    "UNMASKED_NAN": "UNMASKEDNAN",
}


def recognizes(path: str | os.PathLike[str]) -> bool:
    """Whether a FITS file is one of LSST's, or written by us."""
    hdus = scan(path)
    primary = hdus[0].facts
    names = {hdu.name for hdu in hdus if hdu.is_image}
    return (
        "AR_HDU" in primary
        or str(primary.get("DATAMODL", "")).startswith("https://images.lsst.io")
        or any(hdu.facts.get("EXTTYPE") in _ROLES for hdu in hdus)
        # Others name mask planes in this way too.
        or (any(hdu.names_planes for hdu in hdus) and ("IMAGE" in names or names == {""}))
    )


def read(
    path: str | os.PathLike[str],
    *,
    mask_planes: Mapping[str, int] | None = None,
    keep_planes: Sequence[str] | None = None,
    wcs: WCS | str | None = "auto",
) -> Exposure:
    """Read an exposure of the LSST pipelines; its pixels stay on disk until they are used.

    The planes are the HDUs called IMAGE, MASK and VARIANCE (EXTNAME, else EXTTYPE); in old files
    without names the first three images. The planes of ``lsst.images`` masks get the names that
    afw gives them: SATURATED is SAT, INTERPOLATED INTRP, COSMIC_RAY CR, DETECTION_EDGE EDGE,
    UNMASKED_NAN UNMASKEDNAN.

    Parameters
    ----------
    path : path or URL
        The file; may be ``.fits.gz``, of which every block that is read is decompressed from the
        start.
    mask_planes : mapping of str to int, optional
        Bit number of each mask plane to read, instead of those that the file names.
    keep_planes : sequence of str, optional
        Keep only these mask planes. Of more than int32 can hold, the highest are left out with a
        warning.
    wcs : astropy.wcs.WCS, "auto" or None
        Another WCS than that of the header, from parent pixels (0-based); or none. One in the
        header that cannot be used is left out with a warning.

    Returns
    -------
    Exposure
        With the origin (xy0) from the alternate WCS ``A``, else from LTV. The WCS is that of the
        header: for Rubin an approximation of the exact one, which only LSST's own code can read.
        The PSF is read if it is a ``PsfexPsf`` or one of ours. Other models need LSST's code, or
        to unpickle what is in the file: ``psf`` is None, a warning says so, and the card PSFCLASS
        names the class. It is also None, with a warning, where the model is damaged.

    Raises
    ------
    KeyError
        If ``keep_planes`` names one that is not there.
    OSError
        If the file is missing, not FITS, or truncated.
    ValueError
        If there is no image, the planes differ in shape, or too many mask planes are asked for.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from mapreduce import write_exposure
    >>> with TemporaryDirectory() as folder:
    ...     write_exposure(Exposure(np.ones((2, 3)), origin=(100, 200)), f"{folder}/a.fits")
    ...     read(f"{folder}/a.fits").bbox
    Box(x0=100, y0=200, width=3, height=2)
    """
    hdus = scan(path)
    roles = _roles(hdus)
    header = roles["IMAGE"][0].header()
    primary = hdus[0].header()
    origin = origin_of(header, roles["IMAGE"][0].where)
    world = wcs_of(roles["IMAGE"][0], header, wcs, origin)
    parts: dict[str, Any] = {
        "image": FitsPlane(roles["IMAGE"][0]),
        "origin": origin,
        "wcs": world,
    }
    if "VARIANCE" in roles:
        parts["variance"] = FitsPlane(roles["VARIANCE"][0])
    if "MASK" in roles:
        parts["mask"], parts["mask_planes"] = _mask(roles["MASK"], mask_planes, keep_planes)
    parts["psf"], psf_class = _psf(hdus, primary)
    if "AR_HDU" in primary:
        _drop_addresses(primary)
    inherited = None if roles["IMAGE"][0].index == 0 else primary
    meta = merged(inherited, header, world, origin=True)
    if psf_class is not None:
        warnings.warn(
            f"{hdus[0].path}: the PSF is a {psf_class}, which only LSST's code can read; "
            "the exposure has none",
            stacklevel=4,
        )
        meta["PSFCLASS"] = (psf_class, "the PSF in the file, which was not read")
    exposure = Exposure(**parts)
    exposure.meta = meta  # the constructor would copy it
    return exposure


def _roles(hdus: Sequence[Hdu]) -> dict[str, list[Hdu]]:
    """Return the HDUs of each plane; a mask may take several."""
    images = [hdu for hdu in hdus if hdu.is_image]
    for labels in ([hdu.name for hdu in images], [hdu.facts.get("EXTTYPE") for hdu in images]):
        labeled = [*zip(images, labels, strict=True)]
        roles = {role: [hdu for hdu, label in labeled if label == role] for role in _ROLES}
        if roles["IMAGE"]:
            break
    else:
        unnamed = [hdu for hdu in images if not hdu.name]
        roles = {role: [hdu] for role, hdu in zip(_ROLES, unnamed, strict=False)}
    roles = {role: found for role, found in roles.items() if found}
    if "IMAGE" not in roles:
        raise ValueError(f"{hdus[0].path} has no HDU IMAGE; there are {listed(hdus)}")
    for role in ("IMAGE", "VARIANCE"):
        if len(roles.get(role, ())) > 1:
            raise ValueError(
                f"{hdus[0].path} has several HDUs {role}: {listed(roles[role])}; "
                'read it with format="fits", which lets you choose'
            )
    return roles


def _mask(
    hdus: Sequence[Hdu], mask_planes: Mapping[str, int] | None, keep: Sequence[str] | None
) -> tuple[PlaneSource, MaskPlanes]:
    """Return the mask and its planes, of several HDUs as one int32."""
    hdus = sorted(hdus, key=lambda hdu: hdu.version)
    found: dict[str, MaskBit] = {}
    for number, hdu in enumerate(hdus):
        header = hdu.header()
        is_afw = any(keyword.startswith("MP_") for keyword in header)
        for name, bit in (mask_planes_of(header, hdu.where) or {}).items():
            found[name if is_afw else _AFW_NAMES.get(name, name)] = MaskBit(number, bit)
    return read_mask(
        [FitsPlane(hdu, bits=True) for hdu in hdus],
        found or None,
        hdus[0].where,
        mask_planes=mask_planes,
        keep_planes=keep,
    )


def _psf(hdus: Sequence[Hdu], primary: fits.Header) -> tuple[Psf | None, str | None]:
    """Return the PSF, or else the class of one that cannot be read."""
    ours = [hdu for hdu in hdus if "PSFMODEL" in hdu.facts]
    number = primary.get("ARCHIVE_ID_PSF", primary.get("PSF_ID", 0))
    first = primary.get("AR_HDU", 0)
    with psf_or_warning(ours[-1].where if ours else f"{hdus[0].path}, HDU {first}"):
        if ours:
            with ExitStack() as stack:
                return psf_from_hdus([stack.enter_context(open_hdu(hdu)) for hdu in ours]), None
        if number == 0 or not 1 < first <= len(hdus):
            return None, None
        return _archived(hdus, first - 1, number)
    return None, None


def _archived(hdus: Sequence[Hdu], first: int, number: int) -> tuple[Psf | None, str | None]:
    """Return the PSF that has a number in the archive of an afw file, or else its class."""
    index = read_table(hdus[first])
    rows = index[index["id"] == number]
    names = {name.decode().strip() for name in rows["name"]}
    if names != {"PsfexPsf"}:
        return None, ", ".join(sorted(names)) or None
    parts = {int(row["cat.persistable"]): row for row in rows}
    scalars, arrays = (
        read_table(hdus[first + row["cat.archive"]])[row["row0"]] for row in (parts[0], parts[1])
    )
    return _psfex(scalars, arrays), None


def _psfex(scalars: np.void, arrays: np.void) -> PsfexPsf:
    """Return the PSFEx model that afw stored, in parent coordinates as afw has it."""
    nx, ny, nterms = (int(n) for n in arrays["_size"])
    return PsfexPsf(
        arrays["_comp"].reshape(nterms, ny, nx),
        degree=int(np.atleast_1d(arrays["degree"])[0]),
        offset=arrays["_context_first"],
        scale=arrays["_context_second"],
        sampling=float(scalars["_pixstep"]),
        average_position=(
            float(scalars["averagePosition_x"]),
            float(scalars["averagePosition_y"]),
        ),
    )


def _drop_addresses(primary: fits.Header) -> None:
    """Remove the numbers that components have in the archive of an afw file."""
    known = {key.removeprefix("ARCHIVE_ID_") + "_ID" for key in primary if "ARCHIVE_ID_" in key}
    for key in [k for k in primary if k in known or k in ("WCS_ID", "PSF_ID")]:
        del primary[key]

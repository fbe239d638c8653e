"""Header cards: which belong to an exposure's header, and which say what its other parts say.

The WCS, the origin and the mask planes are parts of an `Exposure` of their own. Their cards refer
to the array in one file, so they are taken out of the header on reading and made anew on writing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from astropy.io import fits
from astropy.wcs import WCS, WCSHDO_P17, FITSFixedWarning, WCSHDO_all

from ..mask import MaskPlanes
from ..wcs import shift_wcs
from .hdu import Hdu, open_hdu

__all__ = [
    "bare",
    "mask_cards",
    "mask_planes_of",
    "merged",
    "origin_cards",
    "origin_of",
    "wcs_cards",
    "wcs_of",
]

_WCS = re.compile(
    r"((WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|RADECSYS|EQUINOX"
    r"|(CRPIX|CRVAL|CDELT|CROTA|CTYPE|CUNIT|CNAME|CRDER|CSYER)\d|(CD|PC|PV|PS)\d_\d+)[A-Z]?"
    r"|(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|PC00\d00\d"
    r"|(CPDIS|CQDIS|CPERR|CQERR|D2IMDIS|D2IMERR)\d|(DP|DQ|D2IM)\d(\..*)?|D2IMEXT|AXISCORR)"
)
_TABLES = re.compile(r"CPDIS\d|D2IMDIS\d|AXISCORR")
# IRAF's ways to say the same, the layout of the file, and where in it LSST's components are.
_LAYOUT = re.compile(
    r"LTV\d|LTM\d_\d|WAT\d_\d+|WCSDIM"
    r"|SIMPLE|XTENSION|BITPIX|Z?NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|CHECKSUM"
    r"|DATASUM|ZHECKSUM|ZDATASUM|EXTNAME|EXTVER|EXTLEVEL|EXTTYPE|INHERIT"
    r"|ZQUANTIZ|ZDITHER0|ZBLANK|ZIMAGE|ZBITPIX"
    r"|EXPINFO_V|AR_HDU|ARCHIVE_ID_.*|DATAMODL|FMTVER|INDXADDR|INDXSIZE|JSONADDR|JSONSIZE"
    r"|MP_.*|MSK[NMD]\d{4}|PSFMODEL"
)
_FULL = WCSHDO_all | WCSHDO_P17


def bare(header: Mapping[str, Any]) -> fits.Header:
    """Return a copy of a header without the cards that other parts of an exposure stand for.

    Left out are the WCS (every alternate of it), LTV and LTM, the layout of the file, mask planes,
    and the addresses of components in LSST files.

    Examples
    --------
    >>> dict(bare({"NAXIS": 2, "CRPIX1": 1.0, "LTV1": -5, "EXPTIME": 30.0}))
    {'EXPTIME': 30.0}
    """
    if not isinstance(header, fits.Header):
        header = fits.Header([fits.Card(*item) for item in header.items()])
    return fits.Header([card for card in header.cards if not _is_structure(card.keyword)])


def _is_structure(keyword: str) -> bool:
    return bool(_WCS.fullmatch(keyword) or _LAYOUT.fullmatch(keyword))


def merged(primary: fits.Header | None, image: fits.Header) -> fits.Header:
    """Return the bare header of an image HDU over the primary one, unless INHERIT is false.

    Examples
    --------
    >>> primary = fits.Header({"EXPTIME": 30.0, "OBJECT": "M1"})
    >>> dict(merged(primary, fits.Header({"OBJECT": "M2"})))
    {'EXPTIME': 30.0, 'OBJECT': 'M2'}
    """
    if primary is None or image.get("INHERIT", True) is False:
        return bare(image)
    header = bare(primary)
    header.extend(bare(image), update=True)
    return header


def wcs_of(hdu: Hdu, header: fits.Header, origin: tuple[int, int] = (0, 0)) -> WCS | None:
    """Return the celestial WCS of an image in parent coordinates, None where there is none.

    Parameters
    ----------
    hdu : Hdu
        The image, whose file is opened where the WCS has lookup tables.
    header : Header
        The header of the image.
    origin : (int, int)
        Parent coordinates (x, y) of the first pixel.

    Raises
    ------
    ValueError
        If there is a WCS that cannot be understood.
    """
    cards = fits.Header(
        [c for c in header.cards if c.keyword == "EPOCH" or _WCS.fullmatch(c.keyword)]
    )
    with warnings.catch_warnings():
        # Astropy tells of every repair of an old spelling.
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            if any(_TABLES.fullmatch(keyword) for keyword in cards):
                with open_hdu(hdu), fits.open(hdu.path, memmap=False) as hdulist:
                    wcs = WCS(cards, hdulist)
            else:
                wcs = WCS(cards)
        except (ValueError, MemoryError, KeyError, AssertionError) as error:
            raise ValueError(f"{hdu.where}: the WCS cannot be read: {error}") from error
    if not wcs.has_celestial:
        return None
    if wcs.naxis > 2:
        wcs = wcs.celestial
    return wcs if origin == (0, 0) else shift_wcs(wcs, *origin)


def wcs_cards(wcs: WCS, origin: tuple[int, int]) -> tuple[fits.Header, list[fits.ImageHDU]]:
    """Return the cards of a WCS for an array that starts at ``origin``, and its lookup tables.

    Raises
    ------
    ValueError
        If FITS cannot express the WCS.
    """
    moved = shift_wcs(wcs, -origin[0], -origin[1])
    primary, *tables = moved.to_fits(relax=_FULL)
    cards = fits.Header([card for card in primary.header.cards if _WCS.fullmatch(card.keyword)])
    if moved.wcs.has_cd():
        # wcslib writes CD as PC with CDELT 1; most files of this field have CD.
        for keyword in [k for k in cards if re.fullmatch(r"PC\d_\d|CDELT\d", k)]:
            del cards[keyword]
        for (i, j), value in zip([(1, 1), (1, 2), (2, 1), (2, 2)], moved.wcs.cd.flat, strict=True):
            cards[f"CD{i}_{j}"] = float(value)
    for i in range(2):
        cards[f"CRPIX{i + 1}"] = float(moved.wcs.crpix[i])
        cards[f"CRVAL{i + 1}"] = float(moved.wcs.crval[i])
    return cards, tables


def origin_of(header: Mapping[str, Any], *, ltv: bool = True) -> tuple[int, int]:
    """Return the parent coordinates (x, y) of the first pixel, as LSST files give them.

    From the alternate WCS ``A`` where its reference pixel is 1, else from LTV, else (0, 0). Outside
    of LSST's files LTV means other things: ``ltv=False`` leaves it alone.

    Examples
    --------
    >>> origin_of({"LTV1": -100, "LTV2": -50.0})
    (100, 50)
    """
    if header.get("CRPIX1A") == header.get("CRPIX2A") == 1:
        return round(header.get("CRVAL1A", 0)), round(header.get("CRVAL2A", 0))
    if ltv:
        return -round(header.get("LTV1", 0)), -round(header.get("LTV2", 0))
    return 0, 0


def origin_cards(origin: tuple[int, int]) -> list[tuple[str, Any, str]]:
    """Return the alternate WCS ``A`` that gives the origin; see `origin_of`."""
    axes = (("1", "Column", origin[0]), ("2", "Row", origin[1]))
    return [
        card
        for axis, name, first in axes
        for card in (
            (f"CTYPE{axis}A", "LINEAR", "parent pixel coordinates"),
            (f"CRPIX{axis}A", 1.0, "first pixel"),
            (f"CRVAL{axis}A", float(first), f"{name.lower()} of the first pixel in the parent"),
            (f"CDELT{axis}A", 1.0, ""),
            (f"CUNIT{axis}A", "PIXEL", ""),
        )
    ]


def mask_planes_of(header: fits.Header) -> dict[str, int] | None:
    """Return the mask planes that a header names, None where it names none.

    From cards ``MSKN* = name`` and ``MSKM* = 1 << bit``, else from ``MP_<name> = bit``.

    Examples
    --------
    >>> mask_planes_of(fits.Header({"MP_BAD": 0, "MP_SAT": 1}))
    {'BAD': 0, 'SAT': 1}
    """
    planes = {}
    for keyword in header:
        if re.fullmatch(r"MSKN\d{4}", keyword):
            planes[str(header[keyword])] = int(header[f"MSKM{keyword[4:]}"]).bit_length() - 1
    if not planes:
        planes = {key[3:]: int(header[key]) for key in header if key.startswith("MP_")}
    return planes or None


def mask_cards(planes: MaskPlanes) -> list[tuple[str, Any, str]]:
    """Return the cards that name mask planes for afw (``MP_*``) and lsst.images (``MSK*``)."""
    cards: list[tuple[str, Any, str]] = []
    for name, bit in planes.items():
        keyword = f"MP_{name}" if len(name) < 6 else f"HIERARCH MP_{name}"
        cards.append((keyword, bit, ""))
    for number, (name, bit) in enumerate(sorted(planes.items(), key=lambda item: item[1])):
        cards.append((f"MSKN{number:04d}", name, "name of a mask plane"))
        cards.append((f"MSKM{number:04d}", 1 << bit, "its value"))
        cards.append((f"MSKD{number:04d}", "", "its description"))
    return cards

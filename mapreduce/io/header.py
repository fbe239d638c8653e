"""Header cards: which belong to an exposure's header, and which say what its other parts say.

The WCS, the origin and the mask planes are parts of an `Exposure` of their own. Their cards refer
to the array in one file, so they are taken out of the header on reading and made anew on writing.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from typing import Any

from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from ..exposure.mask import MaskPlanes
from ..exposure.wcs import shift_wcs
from .hdu import Hdu, open_hdu

__all__ = [
    "as_header",
    "bare",
    "exact",
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
    r"|(CRPIX|CRVAL|CDELT|CROTA|CTYPE|CUNIT|CNAME|CRDER|CSYER)\d|(CD|PC|PV|PS)\d_\d+)(?P<alternate>[A-Z])?"
    r"|(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|PC00\d00\d"
    r"|(CPDIS|CQDIS|CPERR|CQERR|D2IMDIS|D2IMERR)\d|(DP|DQ|D2IM)\d(\..*)?|D2IMEXT|AXISCORR)"
)
_TABLES = re.compile(r"CPDIS\d|D2IMDIS\d|AXISCORR")
# IRAF's ways to say the same, the layout of the file, and where in it LSST's components are.
_LAYOUT = re.compile(
    r"LTV\d|LTM\d_\d|WAT\d_\d+|WCSDIM"
    r"|SIMPLE|XTENSION|BITPIX|Z?NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|CHECKSUM"
    r"|DATASUM|ZHECKSUM|ZDATASUM|EXTNAME|EXTVER|EXTLEVEL|EXTTYPE|INHERIT"
    # A tile-compressed image is stored as a table.
    r"|T(FIELDS|HEAP)|T(TYPE|FORM|DIM|NULL|UNIT|DISP|SCAL|ZERO)\d+"
    r"|Z(IMAGE|BITPIX|CMPTYPE|MASKCMP|QUANTIZ|DITHER0|BLANK|SCALE|ZERO)|Z(TILE|NAME|VAL)\d+"
    r"|Z(SIMPLE|TENSION|EXTEND|BLOCKED|PCOUNT|GCOUNT)"
    r"|EXPINFO_V|AR_HDU|ARCHIVE_ID_.*|DATAMODL|FMTVER|INDXADDR|INDXSIZE|JSONADDR|JSONSIZE"
    r"|MP_.*|MSK[NMD]\d{4}|PSFMODEL"
)


def as_header(meta: Mapping[str, Any]) -> fits.Header:
    """Return a mapping as a header, every card of which FITS can hold.

    Raises
    ------
    ValueError
        If it cannot hold one.

    Examples
    --------
    >>> as_header({"exptime": 30.0})["EXPTIME"]
    30.0
    """
    header = fits.Header()
    cards = meta.cards if isinstance(meta, fits.Header) else meta.items()
    for keyword, card in zip(meta, cards, strict=True):
        try:
            card = copy.copy(card) if isinstance(card, fits.Card) else _card(*card)
            card.verify("silentfix+exception")
            header.append(exact(card), end=True)
        except (ValueError, TypeError, AttributeError, fits.VerifyError) as error:
            raise ValueError(f"FITS cannot hold the header card {keyword!r}: {error}") from error
    return header


def _card(keyword: str, value: Any) -> fits.Card:
    plain = len(keyword) <= 8 and keyword.replace("-", "").replace("_", "").isalnum()
    return fits.Card(keyword if plain else f"HIERARCH {keyword}", value)


def bare(header: fits.Header) -> fits.Header:
    """Return a copy of a header without the cards that other parts of an exposure stand for.

    Left out are the WCS (every alternate of it), LTV and LTM, the layout of the file, mask planes,
    the addresses of components in LSST files, and blank cards.

    Examples
    --------
    >>> dict(bare(fits.Header({"NAXIS": 2, "CRPIX1": 1.0, "LTV1": -5, "EXPTIME": 30.0})))
    {'EXPTIME': 30.0}
    """
    return fits.Header([card for card in header.cards if not _is_structure(card)])


def _is_structure(card: fits.Card) -> bool:
    keyword = card.keyword
    return bool(
        _WCS.fullmatch(keyword) or _LAYOUT.fullmatch(keyword) or not (keyword or card.value)
    )


def _is_wcs(keyword: str) -> bool:
    """Whether a card belongs to the WCS itself, none of the alternates."""
    match = _WCS.fullmatch(keyword)
    return match is not None and match["alternate"] is None


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
    cards = fits.Header([c for c in header.cards if _is_wcs(c.keyword) or c.keyword == "EPOCH"])
    if "CTYPE1" not in cards:
        return None
    with warnings.catch_warnings():
        # Astropy tells of every repair of an old spelling.
        warnings.simplefilter("ignore", FITSFixedWarning)
        try:
            if any(_TABLES.fullmatch(keyword) for keyword in cards):
                with open_hdu(hdu), fits.open(hdu.path, memmap=False) as hdulist:
                    wcs = WCS(cards, hdulist)
            else:
                wcs = WCS(cards)
        except (ValueError, KeyError, AssertionError) as error:
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
    primary, *tables = moved.to_fits(relax=True)
    if tables and origin != (0, 0):
        raise ValueError(
            f"the WCS has lookup tables and cannot be moved by its origin {origin}; "
            "write the exposure without it"
        )
    cards = fits.Header([card for card in primary.header.cards if _is_wcs(card.keyword)])
    # wcslib writes 14 digits, and CD as PC with CDELT 1; most files of this field have CD.
    prm = moved.wcs
    for keyword in [k for k in cards if re.fullmatch(r"PC\d_\d|CDELT\d", k)]:
        del cards[keyword]
    matrix, name = (prm.cd, "CD") if prm.has_cd() else (prm.get_pc(), "PC")
    for i in range(2):
        cards[f"CRPIX{i + 1}"] = float(prm.crpix[i])
        cards[f"CRVAL{i + 1}"] = float(prm.crval[i])
        for j in range(2):
            cards[f"{name}{i + 1}_{j + 1}"] = float(matrix[i, j])
        if name == "PC":
            cards[f"CDELT{i + 1}"] = float(prm.get_cdelt()[i])
    for i, m, value in prm.get_pv():
        cards[f"PV{i}_{m}"] = value
    return fits.Header([exact(card) for card in cards.cards]), tables


def exact(card: fits.Card) -> fits.Card:
    """Return a card with all digits of a float, of which astropy writes what fits 20 columns.

    Examples
    --------
    >>> exact(fits.Card("PHASE", -1.2345678901234568e-05)).image.rstrip()
    'PHASE   = -1.2345678901234568E-05'
    """
    value = card.value
    if not isinstance(value, float) or fits.Card.fromstring(card.image).value == value:
        return card
    keyword = f"{card.keyword:<8}" if len(card.keyword) <= 8 else f"HIERARCH {card.keyword} "
    text = f"{keyword}= {float(value)!r:>20}".upper()
    return fits.Card.fromstring(f"{text} / {card.comment}"[:80] if card.comment else text)


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

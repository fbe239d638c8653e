"""Header cards: which belong to an exposure's header, and which say what its other parts say.

The WCS, the origin and the mask planes are parts of an `Exposure` of their own. Their cards refer
to the array in one file, so they are taken out of the header on reading and made anew on writing.
"""

from __future__ import annotations

import contextlib
import copy
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.io.fits.card import Undefined
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning

from ..exposure.mask import MaskPlanes
from ..exposure.wcs import shift_wcs
from .cards import CARD, is_number
from .hdu import Hdu, open_unchanged

__all__ = [
    "as_header",
    "bare",
    "chosen_wcs",
    "exact",
    "mask_cards",
    "mask_planes_of",
    "merged",
    "origin_cards",
    "origin_of",
    "wcs_cards",
    "wcs_of",
    "wcs_or_warning",
]

# What says where pixels are on the sky; the letters of alternates are none of ours.
_WCS = re.compile(
    r"(WCSAXES|WCSNAME|LONPOLE|LATPOLE|RADESYS|RADECSYS"
    # The two axes of the image; of others nothing else tells.
    r"|(CRPIX|CRVAL|CDELT|CROTA|CTYPE|CUNIT|CNAME|CRDER|CSYER)[12]|(CD|PC)[12]_[12]"
    r"|(PV|PS)[12]_\d+|(A|B|AP|BP)_(ORDER|DMAX|\d+_\d+)|(CD|PC)00[12]00[12]|WAT\d_\d+|WCSDIM"
    r"|(CPDIS|CQDIS|CPERR|CQERR|D2IMDIS|D2IMERR)[12]|(DP|DQ|D2IM)[12]\..+|D2IMEXT|AXISCORR)"
)
_WCS_NUMBER = re.compile(
    r"WCSAXES|LONPOLE|LATPOLE|(CRPIX|CRVAL|CDELT|CROTA)\d|(CD|PC|PV)\d_\d+"
    r"|(A|B|AP|BP)_(ORDER|\d+_\d+)|(CD|PC)00\d00\d"
)
_TABLES = re.compile(r"CPDIS\d|D2IMDIS\d|AXISCORR")
_COMMENTARY = ("", "COMMENT", "HISTORY")
# Any of these makes a WCS, a linear one if nothing else is said.
_SIGNS = ("CTYPE1", "CTYPE2", "CRVAL1", "CRPIX1", "CDELT1", "CD1_1", "PC1_1", "PLTRAH")
_FAR = 2**31  # beyond which there are no parent coordinates
_MOST = {"WCSAXES": 99, "A_ORDER": 9, "B_ORDER": 9, "AP_ORDER": 9, "BP_ORDER": 9}
# Where LSST's files say the origin; ours do, too.
_ORIGIN = re.compile(r"LTV\d|LTM\d_\d|(WCSAXES|WCSNAME|(CTYPE|CRPIX|CRVAL|CDELT|CUNIT)\d)A")
# The layout of the file, and where in it LSST's components are.
_LAYOUT = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|TFIELDS|THEAP"
    r"|CHECKSUM|DATASUM|EXTNAME|EXTVER|EXTLEVEL|EXTTYPE|INHERIT"
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
            card = exact(card)
            card.verify("silentfix+exception")
            header.append(card, end=True)
        except (ValueError, TypeError, AttributeError, fits.VerifyError) as error:
            raise ValueError(f"FITS cannot hold the header card {keyword!r}: {error}") from error
    return header


def _card(keyword: str, value: Any) -> fits.Card:
    return fits.Card(keyword if _is_plain(keyword) else f"HIERARCH {keyword}", value)


def _is_plain(keyword: str) -> bool:
    """Whether a keyword needs no HIERARCH before it."""
    return len(keyword) <= 8 and keyword.replace("-", "").replace("_", "").isalnum()


def bare(header: fits.Header, wcs: WCS | None, *, origin: bool = False) -> fits.Header:
    """Return a copy of a header without the cards that other parts of an exposure stand for.

    Left out are the layout of the file, mask planes, the addresses of components in LSST files,
    and blank cards.

    Parameters
    ----------
    header : Header
    wcs : WCS or None
        That of the exposure, whose cards are left out.
    origin : bool
        Whether the exposure's origin was taken from the header (see `origin_of`), so that LTV, LTM
        and the alternate WCS ``A`` are left out.

    Examples
    --------
    >>> dict(bare(fits.Header({"NAXIS": 2, "CRPIX1": 1.0, "EXPTIME": 30.0}), WCS(naxis=2)))
    {'EXPTIME': 30.0}
    """
    # wcslib keeps no equinox of a frame that has none.
    has_equinox = wcs is not None and math.isfinite(wcs.wcs.equinox)

    def stands_for(card: fits.Card) -> Any:
        keyword = card.keyword
        return (
            _LAYOUT.fullmatch(keyword)
            or (wcs is not None and _WCS.fullmatch(keyword))
            or (has_equinox and keyword == "EQUINOX")
            or (origin and _ORIGIN.fullmatch(keyword))
            or not (keyword or card.value)
        )

    return fits.Header([card for card in header.cards if not stands_for(card)])


def merged(
    primary: fits.Header | None, image: fits.Header, wcs: WCS | None, *, origin: bool = False
) -> fits.Header:
    """Return the bare header of an image HDU over the primary one, unless INHERIT is false.

    See `bare` for the parameters.

    Examples
    --------
    >>> primary = fits.Header({"EXPTIME": 30.0, "OBJECT": "M1"})
    >>> dict(merged(primary, fits.Header({"OBJECT": "M2"}), None))
    {'EXPTIME': 30.0, 'OBJECT': 'M2'}
    """
    header = bare(image, wcs, origin=origin)
    if primary is None or image.get("INHERIT", True) is False:
        return header
    inherited = bare(primary, wcs)
    inherited.extend(header, update=True)
    return inherited


def wcs_of(
    hdu: Hdu,
    header: fits.Header,
    choice: WCS | str | None = "auto",
    origin: tuple[int, int] = (0, 0),
) -> WCS | None:
    """Return the WCS of an image in parent coordinates, None where there is none.

    It is what astropy makes of the whole header for the two axes of the image.

    Parameters
    ----------
    hdu : Hdu
        The image, whose file is opened where the WCS has lookup tables.
    header : Header
        The header of the image.
    choice : WCS, "auto" or None
        A WCS is taken instead of the header's; None: do without. "auto" is the header's, and where
        that cannot be used there is a warning and no WCS.
    origin : (int, int)
        Parent coordinates (x, y) of the first pixel.

    Raises
    ------
    TypeError, ValueError
        If ``choice`` is something else, or a WCS of another number of axes.
    """
    if not isinstance(choice, str) or choice != "auto":
        return chosen_wcs(choice)
    if not any(sign in header for sign in _SIGNS):
        return None
    with wcs_or_warning(hdu.where):
        wcs = _wcs(hdu, header)
        return wcs if origin == (0, 0) else shift_wcs(wcs, *origin)
    return None


@contextlib.contextmanager
def wcs_or_warning(where: str) -> Iterator[None]:
    """Let an exposure do without a WCS that cannot be used: a warning says so."""
    try:
        yield
    except Warning:
        raise
    except Exception as error:  # astropy and wcslib have many
        warnings.warn(
            f"{where}: the WCS cannot be used, and is left out: {_one_line(error)}", stacklevel=4
        )


def chosen_wcs(choice: WCS | str | None) -> WCS | None:
    """Return the WCS that the caller gave instead of the file's."""
    if choice is not None and not isinstance(choice, WCS):
        raise TypeError(f'wcs is "auto", None, or an astropy.wcs.WCS, got {choice!r}')
    if choice is not None and choice.naxis != 2:
        raise ValueError(f"wcs must have two axes, has {choice.naxis}; take wcs.celestial")
    return choice


def _wcs(hdu: Hdu, header: fits.Header) -> WCS:
    keywords = [keyword for keyword in header if _WCS_NUMBER.fullmatch(keyword)]
    numbers = {keyword: _number(keyword, header[keyword]) for keyword in keywords}
    if any(header[keyword] is not number for keyword, number in numbers.items()):
        header = header.copy()
        header.update(numbers)
        for keyword in [keyword for keyword, number in numbers.items() if number is None]:
            del header[keyword]
    with warnings.catch_warnings():
        # Astropy tells of every repair of an old spelling.
        warnings.simplefilter("ignore", FITSFixedWarning)
        if any(_TABLES.fullmatch(keyword) for keyword in header):
            with open_unchanged(hdu) as file, fits.open(file, memmap=False) as hdulist:
                wcs = WCS(header, hdulist, naxis=2)
        else:
            wcs = WCS(header, naxis=2)
    wcs.wcs.set()
    if "PLTRAH" in header:  # wcslib's name for plates of the DSS ends with what is in memory
        wcs.wcs.name = ""
    return wcs


def _number(keyword: str, value: Any) -> Any:
    """Return a number, of a text too; refuse what wcslib ignores, or takes for an endless loop.

    None where the card has no value.
    """
    if isinstance(value, Undefined):
        return None
    number = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            number = float(value)
    if not is_number(number):
        raise ValueError(f"{keyword} is {value!r}, not a number")
    if keyword in _MOST and not 0 <= number <= _MOST[keyword]:
        raise ValueError(f"{keyword} is {value!r}, outside of 0 to {_MOST[keyword]}")
    return number


def _one_line(error: Exception) -> str:
    """Return what an error says, without wcslib's trace of itself."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("ERROR ")]
    return " ".join(lines) or type(error).__name__


def wcs_cards(wcs: WCS, origin: tuple[int, int]) -> tuple[fits.Header, list[fits.ImageHDU]]:
    """Return the cards of a WCS for an array that starts at ``origin``, and its lookup tables.

    Raises
    ------
    ValueError
        If FITS cannot express the WCS.
    """
    moved = shift_wcs(wcs, -origin[0], -origin[1])
    primary, *tables = moved.to_fits(relax=True)
    # The others are facts of the header, as when the exposure was taken.
    cards = fits.Header([card for card in primary.header.cards if _WCS.fullmatch(card.keyword)])
    # wcslib writes 14 digits, and CD as PC with CDELT 1; most files of this field have CD.
    prm = moved.wcs
    for keyword in [k for k in cards if re.fullmatch(r"PC\d_\d|CDELT\d", k)]:
        del cards[keyword]
    name = "CD" if prm.has_cd() and not prm.has_pc() else "PC"
    matrix, scale = prm.get_pc(), prm.get_cdelt()  # as wcslib uses them, where a header has both
    for i in range(2):
        cards[f"CRPIX{i + 1}"] = float(prm.crpix[i])
        cards[f"CRVAL{i + 1}"] = float(prm.crval[i])
        for j in range(2):
            cards[f"{name}{i + 1}_{j + 1}"] = float(matrix[i, j])
        if name == "PC":
            cards[f"CDELT{i + 1}"] = float(scale[i])
    for i, m, value in prm.get_pv():
        cards[f"PV{i}_{m}"] = value
    if math.isfinite(prm.equinox):
        cards["EQUINOX"] = prm.equinox
    return fits.Header([exact(card) for card in cards.cards]), tables


def exact(card: fits.Card) -> fits.Card:
    """Return a card as FITS readers see it, which has the same value; what is cut is the comment.

    Astropy writes of a number what fits 20 columns, and after a long keyword what fits the line.

    Raises
    ------
    ValueError
        If a line is too short for keyword and value.

    Examples
    --------
    >>> exact(fits.Card("PHASE", -1.2345678901234568e-05)).image.rstrip()
    'PHASE   = -1.2345678901234568E-05'
    """
    if card.keyword in _COMMENTARY:
        return card
    try:
        value = card.value
    except fits.VerifyError:
        card.verify("silentfix+exception")
        value = card.value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)  # that something is cut
        for text in [card.image] if isinstance(value, str) else [card.image, *_lines(card, value)]:
            found = fits.Card.fromstring(text)
            with contextlib.suppress(fits.VerifyError):  # of what was cut too much
                if found.keyword == card.keyword and _same(found.value, value):
                    return found
    raise ValueError(f"a line has no room for the value {value!r} after this keyword")


def _same(found: Any, value: Any) -> bool:
    """Whether a value is what it was; of a text astropy reads less where ' and / are in it."""
    return isinstance(found, str) if isinstance(value, str) else bool(found == value)


def _lines(card: fits.Card, value: Any) -> Iterator[str]:
    """Yield lines with all digits of a value that is no text, the roomiest first."""
    for text in _texts(value):
        ways = [f"HIERARCH {card.keyword}{sign}{text}" for sign in (" = ", "= ", "=")]
        for line in [f"{card.keyword:<8}= {text:>20}"] if _is_plain(card.keyword) else ways:
            if len(line) <= CARD:
                yield f"{line} / {card.comment}"[:CARD] if card.comment else line


def _texts(value: Any) -> list[str]:
    """Return the ways to write a number or a truth without loss, the usual one first.

    >>> _texts(1.25e100)
    ['1.25E+100', '125E98']
    """
    if isinstance(value, bool | np.bool_):
        return ["T" if value else "F"]
    if isinstance(value, complex):
        return [f"({value.real!r}, {value.imag!r})".upper()]
    if not isinstance(value, float):
        return [str(value)]
    sign, digits, exponent = Decimal(repr(float(value))).as_tuple()
    whole = "".join(map(str, digits))
    return [repr(float(value)).upper(), f"{'-' * sign}{whole}E{exponent}"]


def origin_of(header: Mapping[str, Any], where: str, *, ltv: bool = True) -> tuple[int, int]:
    """Return the parent coordinates (x, y) of the first pixel, as LSST files give them.

    From the alternate WCS ``A`` where its reference pixel is 1, else from LTV, else (0, 0). Outside
    of LSST's files LTV means other things: ``ltv=False`` leaves it alone. What is no number is an
    origin of (0, 0), with a warning that names the header by ``where``.

    Examples
    --------
    >>> origin_of({"LTV1": -100, "LTV2": -50.0}, "a header")
    (100, 50)
    """
    if header.get("CRPIX1A") == header.get("CRPIX2A") == 1:
        sign, pair = 1, (header.get("CRVAL1A", 0), header.get("CRVAL2A", 0))
    elif ltv:
        sign, pair = -1, (header.get("LTV1", 0), header.get("LTV2", 0))
    else:
        return 0, 0
    if not all(is_number(n) and abs(n) <= _FAR for n in pair):
        warnings.warn(f"{where}: the origin {pair} is none, and taken as (0, 0)", stacklevel=3)
        return 0, 0
    x0, y0 = (sign * round(n) for n in pair)
    return x0, y0


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
            (f"CUNIT{axis}A", "pixel", ""),
        )
    ]


def mask_planes_of(header: fits.Header, where: str) -> dict[str, int] | None:
    """Return the mask planes that a header names, None where it names none.

    One without a bit is left out with a warning, which names the header by ``where``.

    From cards ``MSKN* = name`` and ``MSKM* = 1 << bit``, else from ``MP_<name> = bit``.

    Examples
    --------
    >>> mask_planes_of(fits.Header({"MP_BAD": 0, "MP_SAT": 1}), "a header")
    {'BAD': 0, 'SAT': 1}
    """
    planes = {}
    for keyword in header:
        if re.fullmatch(r"MSKN\d{4}", keyword):
            value = header.get(f"MSKM{keyword[4:]}")
            is_bit = isinstance(value, int) and value > 0 and value & (value - 1) == 0
            planes[str(header[keyword])] = value.bit_length() - 1 if is_bit else value
    if not planes:
        planes = {key[3:]: header[key] for key in header if key.startswith("MP_")}
    for name, bit in [*planes.items()]:
        if isinstance(bit, bool) or not isinstance(bit, int) or not 0 <= bit < 64:
            warnings.warn(f"{where}: mask plane {name} has no bit, but {bit!r}", stacklevel=2)
            del planes[name]
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

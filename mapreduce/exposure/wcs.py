"""Moving a WCS between array pixels, which files use, and parent pixels, which we use."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.wcs import WCS, WCSCOMPARE_ANCILLARY, Sip

__all__ = ["same_wcs", "shift_wcs"]

_SIP = ("a", "b", "crpix")  # the inverse terms follow from these
_TABLES = ("cpdis1", "cpdis2", "det2im1", "det2im2")  # looked up at a pixel


def shift_wcs(wcs: WCS, dx: int, dy: int) -> WCS:
    """Return a copy of a WCS whose pixel coordinates are larger by (dx, dy) at the same sky place.

    Examples
    --------
    >>> wcs = WCS(naxis=2)
    >>> shift_wcs(wcs, 10, 20).wcs.crpix - wcs.wcs.crpix
    array([10., 20.])
    """
    moved = wcs.deepcopy()
    if (dx, dy) != (0, 0):
        moved.pixel_shape = None  # which would be that of another array
    moved.wcs.crpix = wcs.wcs.crpix[0] + dx, wcs.wcs.crpix[1] + dy
    if wcs.sip is not None:
        sip = wcs.sip
        crpix = sip.crpix[0] + dx, sip.crpix[1] + dy
        moved.sip = type(sip)(sip.a, sip.b, sip.ap, sip.bp, crpix)
    for name in _TABLES:
        if (table := getattr(moved, name)) is not None:
            x, y = table.crval
            setattr(
                moved, name, type(table)(table.data, table.crpix, (x + dx, y + dy), table.cdelt)
            )
    moved.wcs.set()
    return moved


def same_wcs(one: WCS | None, other: WCS | None) -> bool:
    """Whether two WCS are the same mapping (their numbers agree to 1e-9 relative)."""
    if one is other:
        return True
    if one is None or other is None:
        return False
    cards = one.wcs.compare(other.wcs, cmp=WCSCOMPARE_ANCILLARY, tolerance=1e-9)
    tables = all(_same_table(getattr(one, name), getattr(other, name)) for name in _TABLES)
    return cards and tables and _same_sip(one.sip, other.sip)


def _same_table(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    facts = ("crpix", "crval", "cdelt", "data")
    return all(np.array_equal(getattr(one, fact), getattr(other, fact)) for fact in facts)


def _same_sip(one: Sip | None, other: Sip | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(
        (a is None) == (b is None) and (a is None or np.allclose(a, b, 1e-9, 0))
        for a, b in ((getattr(one, n), getattr(other, n)) for n in _SIP)
    )

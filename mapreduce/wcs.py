"""Moving a WCS between array pixels, which files use, and parent pixels, which we use."""

from __future__ import annotations

from astropy.wcs import WCS

__all__ = ["same_wcs", "shift_wcs"]


def shift_wcs(wcs: WCS, dx: int, dy: int) -> WCS:
    """Return a copy of a WCS whose pixel coordinates are larger by (dx, dy) at the same sky place.

    Examples
    --------
    >>> wcs = WCS(naxis=2)
    >>> shift_wcs(wcs, 10, 20).wcs.crpix - wcs.wcs.crpix
    array([10., 20.])
    """
    moved = wcs.deepcopy()
    moved.wcs.crpix = wcs.wcs.crpix[0] + dx, wcs.wcs.crpix[1] + dy
    if wcs.sip is not None:
        sip = wcs.sip
        crpix = sip.crpix[0] + dx, sip.crpix[1] + dy
        moved.sip = type(sip)(sip.a, sip.b, sip.ap, sip.bp, crpix)
    moved.wcs.set()
    return moved


def same_wcs(one: WCS | None, other: WCS | None) -> bool:
    """Whether two WCS are the same mapping (their cards agree to 1e-9 relative)."""
    if one is other:
        return True
    if one is None or other is None:
        return False
    return one.wcs.compare(other.wcs, tolerance=1e-9) and _sip(one) == _sip(other)


def _sip(wcs: WCS) -> tuple | None:
    sip = wcs.sip
    if sip is None:
        return None
    terms = (None if c is None else c.tobytes() for c in (sip.a, sip.b, sip.ap, sip.bp))
    return (*terms, tuple(sip.crpix))

"""Which catalogs of an FGCM run, and which of their columns, a configuration needs.

Here and nowhere else: opening a run, and building its products, ask here. What is not needed is
used where it is there and sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .config import ProductsConfig

__all__ = ["Need", "columns_needed", "needs_of"]

_ZEROPOINTS = (
    *("visit", "detector", "fgcmFlag", "fgcmZpt", "fgcmZptVar"),
    *("fgcmfZptChebXyMax", "fgcmfZptCheb", "fgcmfZptSstarCheb"),
)
_ATMOSPHERE = ("visit", "pmb", "pwv", "tau", "alpha", "o3", "secZenith", "cTrans", "lamStd")
_STARS = ("id", "coord_ra", "coord_dec", "ngood", "mag_std_noabs", "magErr_std")


class Need(NamedTuple):
    """What a field of the configuration needs.

    Attributes
    ----------
    field : str
    catalog : str
        As `FgcmRun` calls it, or "camera".
    columns : tuple of str
    """

    field: str
    catalog: str
    columns: tuple[str, ...] = ()


def needs_of(config: ProductsConfig) -> Iterator[Need]:
    """Yield what is needed.

    Examples
    --------
    >>> config = ProductsConfig(zeropoint_output=False, tract_stars=False)
    >>> for field, catalog, columns in needs_of(config):
    ...     print(field, catalog, len(columns))
    atmosphere_output atmosphere_parameters 9
    atmosphere_output lookup_table 0
    """
    if config.zeropoint_output:
        field = "zeropoint_output"
        yield Need(field, "visits", ("scaling",))
        yield Need(field, "zeropoints", _ZEROPOINTS)
        if config.apply_mean_chromatic_correction:
            yield Need("apply_mean_chromatic_correction", "zeropoints", ("fgcmDeltaChrom",))
        yield Need(field, "camera")
    if config.atmosphere_output:
        field = "atmosphere_output"
        yield Need(field, "atmosphere_parameters", _ATMOSPHERE)
        if config.atmosphere_table is None:
            yield Need(field, "lookup_table")
    if config.tract_stars:
        yield Need("tract_stars", "standard_stars", _STARS)
    if config.reference_calibration:
        field = "reference_calibration"
        yield Need(field, "visits", ("physicalFilter",))
        yield Need(field, "standard_stars", _STARS)
        yield Need(field, "reference_catalog", ("ra", "dec"))


def columns_needed(config: ProductsConfig) -> dict[str, frozenset[str]]:
    """Return the columns that are needed of every catalog that is.

    >>> config = ProductsConfig(zeropoint_output=False, atmosphere_output=False, tract_stars=False)
    >>> columns_needed(config)
    {'visits': frozenset({'visit'})}
    """
    needed = {"visits": frozenset({"visit"})}
    for _, catalog, columns in needs_of(config):
        needed[catalog] = needed.get(catalog, frozenset()) | set(columns)
    return needed

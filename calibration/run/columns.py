"""The columns of the catalogs of an FGCM run, by LSST's names.

The stand-alone package's names differ in case and underscores (``FGCM_ZPT`` is ``fgcmZpt``); where
they differ in more, they are among the aliases. Only what the products are made of is required.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..tables.schema import Column, Schema

__all__ = [
    "ATMOSPHERE",
    "LOOKUP",
    "OBSERVATIONS",
    "STARS",
    "STAR_IDS",
    "VISITS",
    "ZEROPOINTS",
    "reference_schema",
]


def _optional(names: str, unit: str = "") -> tuple[Column, ...]:
    return tuple(Column(name, required=False, unit=unit) for name in names.split())


_HINT = "set the column's unit to deg or rad"

_VISIT = Column("visit", "i", aliases=("expnum", "exposure"))

VISITS = Schema(
    "visits",
    "visit catalog",
    (
        _VISIT,
        Column("physicalFilter", "U", aliases=("filtername",)),
        # A stand-alone fit starts from magnitudes of which no scaling was taken out.
        Column("scaling", length="detectors", absent="it is taken to be 1"),
        *_optional("telra teldec telha telrot", unit="deg"),
        *_optional("mjd", unit="d"),
        *_optional("exptime", unit="s"),
        *_optional("pmb", unit="mbar"),
    ),
)

ZEROPOINTS = Schema(
    "zeropoints",
    "zeropoints",
    (
        _VISIT,
        Column("detector", "i", aliases=("ccd", "ccdnum")),
        Column("filtername", "U", aliases=("physicalFilter",)),
        Column("fgcmFlag", "i"),
        Column("fgcmZpt", unit="mag"),
        Column("fgcmZptVar", unit="mag2"),
        # All of them, or none: see calibration.run.zeropoint_fields.
        Column(
            "fgcmfZptChebXyMax", length=2, unit="pix", may_lack=True, aliases=("fgcmfZptXyMax",)
        ),
        Column("fgcmfZptCheb", length="square", may_lack=True),
        Column("fgcmfZptSstarCheb", length="square", may_lack=True),
        Column(
            "fgcmDeltaChrom",
            unit="mag",
            required=False,
            absent="zeropoints can't have the mean chromatic correction "
            "(apply_mean_chromatic_correction=False)",
        ),
        *_optional("fgcmZptErr fgcmGry", unit="mag"),
        *_optional("fgcmTilings"),
        *_optional("exptime", unit="s"),
    ),
)

ATMOSPHERE = Schema(
    "atmosphere_parameters",
    "atmosphere parameters",
    (
        _VISIT,
        Column("pmb", unit="mbar"),
        Column("pwv", unit="mm"),
        Column("tau"),
        Column("alpha"),
        Column("o3"),
        Column("secZenith"),
        Column("cTrans"),
        Column("lamStd", unit="Angstrom"),
    ),
)

STARS = Schema(
    "standard_stars",
    "standard stars",
    (
        Column("id", "i", aliases=("fgcm_id",)),
        Column("coord_ra", unit="rad", aliases=("ra",), assumed="deg", limits=(-7, 7), hint=_HINT),
        Column(
            "coord_dec", unit="rad", aliases=("dec",), assumed="deg", limits=(-1.6, 1.6), hint=_HINT
        ),
        Column("ngood", "i", "bands"),
        Column("mag_std_noabs", length="bands", unit="mag", aliases=("mag_std",)),
        Column("magErr_std", length="bands", unit="mag"),
        Column("isolated_star_id", "i", required=False, aliases=("alternate_id",)),
        Column("ntotal", "i", "bands", required=False),
        Column("npsfcand", "i", "bands", required=False),
        Column("delta_aper", length="bands", unit="mag", required=False),
    ),
)

OBSERVATIONS = Schema(
    "star_observations",
    "star observations",
    (
        _VISIT,
        Column("detector", "i", aliases=("ccd", "ccdnum")),
        Column("x", unit="pix"),
        Column("y", unit="pix"),
        Column("fgcm_id", "i", required=False),
        # Either what the detector counted, or magnitudes of which much is taken out already.
        *_optional("instFlux instFluxErr"),
        *_optional("inst_mag inst_mag_err", unit="mag"),
        *_optional("jacobian"),
    ),
)

STAR_IDS = Schema(
    "star_ids",
    "star ids",
    (
        Column("fgcm_id", "i"),
        Column("obs_arr_index", "i"),
        Column("n_obs", "i"),
    ),
)

LOOKUP = Schema(
    "lookup_table",
    "look-up table",
    (
        Column("physicalFilters", "U", "any", aliases=("filternames",)),
        Column("stdPhysicalFilters", "U", "any", aliases=("stdfilternames",)),
        Column("atmLambda", length="any", unit="Angstrom"),
        Column("atmStdTrans", length="any"),
        Column("tablename", "U", required=False),
        *_optional("elevation", unit="m"),
        *_optional("pmbElevation pmbStd", unit="mbar"),
        *_optional("pwvStd", unit="mm"),
        *_optional("zenithStd", unit="deg"),
        *_optional("o3Std tauStd alphaStd"),
        *_optional("lambdaNorm", unit="Angstrom"),
    ),
    joined=True,
)


def reference_schema(bands: Sequence[str]) -> Schema:
    """Return the schema of a reference catalog with the fluxes of these bands.

    Examples
    --------
    >>> [column.name for column in reference_schema(["g"]).columns]
    ['id', 'ra', 'dec', 'g_flux', 'g_fluxErr']
    """
    columns = [
        Column("id", "i", required=False),
        Column("ra", unit="deg", aliases=("coord_ra",), assumed="rad"),
        Column("dec", unit="deg", aliases=("coord_dec",), assumed="rad", limits=(-90, 90)),
    ]
    for band in bands:
        for name in (f"{band}_flux", f"{band}_fluxErr"):
            absent = f"band {band} can't be compared with it"
            columns.append(Column(name, unit="nJy", required=False, absent=absent))
    return Schema("reference_catalog", "reference catalog", tuple(columns))

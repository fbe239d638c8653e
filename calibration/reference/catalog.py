"""ReferenceCatalog: stars of known magnitudes, of which those near some places are read."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from mapreduce.units import TURN, known_unit, number_in

from ..photocalib.flux import AB_MAGNITUDE, MAG, NO_MAGNITUDE
from ..sky.matching import chord, placed, unit_vectors
from ..tables.catalog import Catalog
from ..tables.fields import Field
from ..tables.files import is_path, open_tables
from ..tables.parts import PartsTable
from ..tables.reader import MemoryTable, TableReader
from ..tables.schema import Column, Schema, bind
from ..texts import listed, plural
from .shards import ShardedTable, open_shards

__all__ = [
    "MissingBandError",
    "ReferenceCatalog",
    "ReferenceStars",
    "ReferenceWarning",
]

_UNITS = {"nJy": ("nJy", "nJy"), "AB": ("mag(AB)", "mag")}  # of values and errors
_ERROR, _OLD_ERROR = "{band}_fluxErr", "{band}_fluxSigma"  # of LSST's catalogs
_FAINT = 100.0  # nJy: stars that are mostly fainter are in another unit
_FLUX_HINT = (
    'say it with unit="nJy", "Jy" or another, or unit="AB" for magnitudes (reference_unit in a '
    "configuration)"
)
_ANGLE_HINT = 'say it with angle="deg" or angle="rad"'


class MissingBandError(ValueError):
    """A reference catalog has no magnitudes of a band."""


class ReferenceWarning(UserWarning):
    """A part of the stars, of the pixels or of the configuration is not used for the offsets."""


class ReferenceStars(NamedTuple):
    """Stars of a reference catalog.

    Parameters
    ----------
    vectors : (n, 3) float64 array
        Unit vectors of their positions.
    magnitudes, errors : dict of str to (n,) float64 array
        By band, AB mag; NaN where there is none.
    notes : frozenset of str
        What was left out.
    """

    vectors: np.ndarray
    magnitudes: dict[str, np.ndarray]
    errors: dict[str, np.ndarray]
    notes: frozenset[str] = frozenset()

    def near(self, ra: ArrayLike, dec: ArrayLike, radius: float) -> ReferenceStars:
        """Return those within a radius (deg) of one of the positions (deg)."""
        radius = number_in(radius, u.deg, "radius")
        return self.take(_near(self.vectors, unit_vectors(ra, dec), radius))

    def take(self, rows: np.ndarray) -> ReferenceStars:
        """Return some of them."""
        magnitudes, errors = (
            {band: values[rows] for band, values in columns.items()}
            for columns in (self.magnitudes, self.errors)
        )
        return self._replace(vectors=self.vectors[rows], magnitudes=magnitudes, errors=errors)


@dataclass(frozen=True, eq=False)
class ReferenceCatalog:
    """Stars of known magnitudes, of which nothing is held.

    Made by `open`, and then small, picklable and safe to share between threads; tables in memory
    travel with it.

    Parameters
    ----------
    catalog : Catalog
        By the table's own names of columns.
    bands : tuple of str
        Those of which there are magnitudes.
    names : (str, str, str, str)
        Columns of right ascension, declination, and of values and errors with ``{band}`` in them.
    unit : {"nJy", "AB"}
        Fluxes or magnitudes.

    Examples
    --------
    >>> table = {"ra": [10.0], "dec": [0.0], "i_flux": [3631.0], "i_fluxErr": [36.31]}
    >>> reference = ReferenceCatalog.open(table)
    >>> reference
    <ReferenceCatalog: the reference catalog, 1 star, bands i>
    >>> stars = reference.read(["i"], ra=10.0, dec=0.5, radius=1.0)
    >>> stars.magnitudes["i"].round(3), stars.errors["i"].round(3)
    (array([22.5]), array([0.011]))
    """

    catalog: Catalog
    bands: tuple[str, ...]
    names: tuple[str, str, str, str]
    unit: str

    @classmethod
    def open(
        cls,
        data: Any,
        *,
        flux: str = "{band}_flux",
        error: str = _ERROR,
        unit: str | None = None,
        ra: str | None = None,
        dec: str | None = None,
        angle: str | None = None,
    ) -> ReferenceCatalog:
        """Open a reference catalog.

        Parameters
        ----------
        data : path, astropy Table, mapping of arrays, or Catalog
            A path is that of a FITS or Parquet file, or of a directory: of a HATS catalog, of the
            shards of one of LSST's, or of parts. A list of paths is one catalog, too.
        flux, error : str
            Columns with fluxes or magnitudes, and with their errors; ``{band}`` stands for the
            band. Every band that has both can be used. LSST's oldest catalogs call the errors
            ``{band}_fluxSigma``, which is found by default, too.
        unit : str, optional
            That of the fluxes where the table does not say one, or one that is not known; default
            nJy, which fluxes that are mostly below 100 nJy (26.4 mag) are not taken for. Or "AB":
            they are AB magnitudes. NaN, fluxes that are not above 0, and magnitudes from 90 on mean
            that there is none.
        ra, dec : str, optional
            Columns with the position. Default what a HATS catalog says of itself, or ``ra`` and
            ``dec``, or else ``coord_ra`` and ``coord_dec``.
        angle : {"deg", "rad"}, optional
            Unit of the position where the table does not say one, or one that is not known; default
            deg, but rad of ``coord_ra`` and ``coord_dec``.

        Raises
        ------
        ImportError
            Where a package is not installed that is needed: pyarrow for Parquet and HATS.
        OSError
            If a file is missing or can't be read.
        TypeError, ValueError
            If it is not a table, lacks columns, or holds something else in them; if a unit is not
            known, and neither ``unit`` nor ``angle`` says it.
        """
        kind = _kind(unit)
        if angle is not None and _is_not(angle, u.deg):
            raise ValueError(f"angle is deg or rad, got {angle!r}")
        for name, template in {"flux": flux, "error": error}.items():
            if template.count("{band}") != 1:
                raise ValueError(f"{name} names columns by their {{band}}, got {template!r}")
        errors = (error, _OLD_ERROR) if error == _ERROR else (error,)
        sources = [*_sources(data)]
        found = [(_bands(s, flux, name), s, name) for name in errors for s in sources]
        bands, source, error = max(found, key=lambda candidate: len(candidate[0]))
        if not bands:
            raise ValueError(
                f"{source.where} has no band with columns {flux} and {error}; there are "
                f"{listed(source.columns, 20)}"
            )
        places = _place_columns(source, ra, dec)
        values = [
            Column(_named(name, band), unit=own, hint=_FLUX_HINT)
            for band in bands
            for name, own in zip((flux, error), _UNITS[kind], strict=True)
        ]
        schema = Schema("reference_catalog", "reference catalog", (*places, *values))
        own = dict.fromkeys((column.name for column in values), "mag" if kind == "AB" else unit)
        said = {name: _said(found, own.get(name, angle)) for name, found in _fields(source).items()}
        findings = bind(schema, said)
        if findings.errors:
            raise ValueError("\n".join(f"{source.where}: {text}" for text in findings.errors))
        names = (places[0].name, places[1].name, flux, error)
        if isinstance(source, ShardedTable):
            ra_column, dec_column = (findings.bindings[name] for name in names[:2])
            if source.misplaced(ra_column, dec_column):
                source = source.anywhere()
                warnings.warn(
                    f"{source.where}: the names of the files are not of the places where their "
                    "stars are, so that all are read",
                    ReferenceWarning,
                    stacklevel=2,
                )
        made = cls(Catalog(schema, source, findings.bindings), bands, names, kind)
        made._check_silent({name for name, found in said.items() if not found.unit})
        return made

    def _check_silent(self, silent: set[str]) -> None:
        """Refuse what is not likely in the unit that nobody says, as the first stars show it."""
        bindings = {n: b for n, b in self.catalog.bindings.items() if b.sources[0] in silent}
        fluxes = {_named(self.names[2], band) for band in self.bands if self.unit == "nJy"}
        block = next(self.catalog.blocks(bindings), {}) if bindings else {}
        for name, values in block.items():
            found = values[values > 0] if name in fluxes else np.abs(values[np.isfinite(values)])
            typical = np.median(found) if len(found) else np.nan
            if name in fluxes and typical < _FAINT:
                unit, hint = "nJy", _FLUX_HINT
            elif bindings[name].factor != 1 and np.max(found, initial=0) > np.degrees(TURN):
                unit, hint = "rad", _ANGLE_HINT
            else:
                continue
            (column, *_), _, factor = bindings[name]
            raise ValueError(
                f"{self.where}: column {column} has no unit, and its values are not likely in "
                f"{unit}: their median is {typical / factor:.3g}; {hint}"
            )

    @property
    def where(self) -> str:
        """How messages name it."""
        return self.catalog.where

    @property
    def partitioned(self) -> bool:
        """Whether reading a part of the sky takes but a part of the files."""
        return (
            isinstance(self.catalog.reader, ShardedTable) and self.catalog.reader.caps is not None
        )

    def __len__(self) -> int:
        return len(self.catalog)

    def __repr__(self) -> str:
        reader, bands = self.catalog.reader, ", ".join(self.bands)
        if isinstance(reader, ShardedTable) and reader.rows is None:  # counting opens all
            stars = plural(len(reader.parts), "file")
        else:
            stars = plural(len(self), "star")
        return f"<ReferenceCatalog: {self.where}, {stars}, bands {bands}>"

    def check(self, bands: Iterable[str]) -> None:
        """Check that there are stars, and magnitudes of these bands.

        Raises
        ------
        MissingBandError
            If there are none.
        ValueError
            If the catalog is empty.
        """
        reader = self.catalog.reader
        if reader.is_empty if isinstance(reader, ShardedTable) else not len(reader):
            raise ValueError(f"{self.where} is empty: it has no star to compare with")
        if missing := [band for band in dict.fromkeys(bands) if band not in self.bands]:
            columns = listed(_named(name, band) for band in missing for name in self.names[2:])
            raise MissingBandError(
                f"{self.where} has no magnitudes of {', '.join(missing)} ({columns}); it has "
                f"{', '.join(self.bands)}. A color term can say which of these to take: "
                "color_terms={band: ColorTerm(primary=..., secondary=...)}"
            )

    def read(
        self, bands: Iterable[str], ra: ArrayLike, dec: ArrayLike, radius: float
    ) -> ReferenceStars:
        """Read the stars within a radius of one of several positions, all in deg.

        They are in the catalog's order. It is read a few megabytes at a time; of a catalog of
        shards those that overlap.

        Raises
        ------
        OSError
            If a file is gone, was changed or is damaged.
        """
        radius = number_in(radius, u.deg, "radius")
        bands, catalog, centers = tuple(bands), self.catalog, unit_vectors(ra, dec)
        if isinstance(catalog.reader, ShardedTable):
            reader = catalog.reader.near(centers.reshape(-1, 3), radius)
            catalog = dataclasses.replace(catalog, reader=reader)
        columns = [*self.names[:2], *(_named(n, b) for b in bands for n in self.names[2:])]
        parts, lost = [self._stars(bands, {name: np.zeros(0) for name in columns})], 0
        for block in catalog.blocks(columns):
            good = placed(block[columns[0]], block[columns[1]])
            lost += int(np.count_nonzero(~good))
            block = {name: values[good] for name, values in block.items()}
            vectors = unit_vectors(block[columns[0]], block[columns[1]])
            rows = np.flatnonzero(_near(vectors, centers, radius))
            parts.append(self._stars(bands, {name: v[rows] for name, v in block.items()}))
        note = f"{self.where}: {lost} stars without a position are left out"
        return _joined(parts, frozenset([note] if lost else []))

    def _stars(self, bands: tuple[str, ...], columns: dict[str, np.ndarray]) -> ReferenceStars:
        """Make stars of columns by the table's names."""
        ra, dec, value, error = self.names
        pairs = {b: (columns[_named(value, b)], columns[_named(error, b)]) for b in bands}
        magnitudes = {band: _magnitudes(*pair, self.unit) for band, pair in pairs.items()}
        return ReferenceStars(
            unit_vectors(columns[ra], columns[dec]),
            {band: pair[0] for band, pair in magnitudes.items()},
            {band: pair[1] for band, pair in magnitudes.items()},
        )

    def fingerprint(self) -> str:
        """Return a checksum of its file or its arrays; of many files, of names and sizes."""
        return self.catalog.fingerprint()

    def __dask_tokenize__(self) -> tuple[object, ...]:
        source = self.catalog.reader.__dask_tokenize__()
        bindings = tuple(self.catalog.bindings.items())
        return "ReferenceCatalog", source, bindings, self.bands, self.names, self.unit


def _near(vectors: np.ndarray, centers: np.ndarray, radius: float) -> np.ndarray:
    """Whether vectors, (n, 3), are within a radius (deg) of one of the centers, (..., 3)."""
    centers = centers.reshape(-1, 3)
    if not len(centers):
        return np.zeros(len(vectors), bool)
    reach = float(np.nextafter(chord(min(radius, 180.0)), 3))
    return np.isfinite(KDTree(centers).query(vectors, distance_upper_bound=reach)[0])


def _magnitudes(values: np.ndarray, errors: np.ndarray, unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Return AB magnitudes with their errors, NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if unit == "nJy":
            known = (values > 0) & (errors >= 0)
            errors = MAG * errors / values
            values = AB_MAGNITUDE - 2.5 * np.log10(values)
        else:
            known = (values < NO_MAGNITUDE) & (errors >= 0)
    known &= np.isfinite(values) & np.isfinite(errors)
    return np.where(known, values, np.nan), np.where(known, errors, np.nan)


def _joined(parts: list[ReferenceStars], notes: frozenset[str]) -> ReferenceStars:
    magnitudes, errors = (
        {band: np.concatenate([columns[band] for columns in each]) for band in each[0]}
        for each in ([part.magnitudes for part in parts], [part.errors for part in parts])
    )
    vectors = np.concatenate([part.vectors for part in parts])
    return ReferenceStars(vectors, magnitudes, errors, notes)


def _sources(data: Any) -> list[TableReader]:
    """Return the table, or the tables one of which is meant."""
    if isinstance(data, Catalog):
        reader = data.reader
        if not isinstance(reader, PartsTable):
            return [reader]
        return [open_shards(reader.path or [part.path for part in reader.parts])]
    if isinstance(data, list | tuple) or (is_path(data) and os.path.isdir(data)):
        return [open_shards(data)]
    return open_tables(data) if is_path(data) else [MemoryTable(data, "the reference catalog")]


def _fields(source: TableReader) -> dict[str, Field]:
    """Return what a table says of its columns; fluxes of LSST's first format are in Jy unsaid."""
    is_old = "AFW_TYPE" in source.meta and not int(source.meta.get("REFCAT_FORMAT_VERSION", 0))
    return {
        name: dataclasses.replace(field, unit="Jy")
        if is_old and not field.unit and re.search(r"_flux(Err|Sigma)?$", name)
        else field
        for name, field in source.columns.items()
    }


def _bands(source: TableReader, flux: str, error: str) -> tuple[str, ...]:
    """Return the bands of which a table has fluxes and errors."""
    before, after = map(re.escape, flux.split("{band}"))
    matches = (re.fullmatch(f"{before}(.+){after}", name) for name in source.columns)
    bands = [match[1] for match in matches if match]
    return tuple(band for band in bands if _named(error, band) in source.columns)


def _named(template: str, band: str) -> str:
    return template.replace("{band}", band)


def _place_columns(source: TableReader, ra: str | None, dec: str | None) -> list[Column]:
    """Return the columns of right ascension and declination."""
    properties = source.meta if isinstance(source, ShardedTable) else {}
    columns = []
    for kind, name in (("ra", ra), ("dec", dec)):
        name = name or properties.get(f"hats_col_{kind}")
        usual = Column(
            kind, unit="deg", aliases=(f"coord_{kind}",), assumed="rad", hint=_ANGLE_HINT
        )
        columns.append(Column(name, unit="deg", hint=_ANGLE_HINT) if name else usual)
    return columns


def _kind(unit: str | None) -> str:
    """Return what the values are, "nJy" or "AB", by what users say."""
    if unit is None:
        return "nJy"
    if unit == "AB" or known_unit(unit) in (u.mag, u.ABmag):
        return "AB"
    if _is_not(unit, u.nJy):
        raise ValueError(f'unit is one of fluxes, such as "nJy" or "Jy", or "AB", got {unit!r}')
    return "nJy"


def _is_not(text: str, unit: u.UnitBase) -> bool:
    """Whether a text is none of the units that can be converted to one."""
    known = known_unit(text)
    return known is None or not known.is_equivalent(unit)


def _said(column: Field, unit: str | None) -> Field:
    """Return a column in a unit, if it says none that is known."""
    known = known_unit(column.unit) if column.unit else None
    return dataclasses.replace(column, unit=unit) if known is None and unit else column

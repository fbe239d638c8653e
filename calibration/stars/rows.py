"""Standard stars as rows of magnitudes by band, and an index of which tract has which rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from astropy.table import Table

from mapreduce.units import number_in

from ..photocalib.flux import NO_MAGNITUDE
from ..search import contains
from ..sky.matching import placed
from ..sky.skymap import SkyMap
from ..tables.catalog import Catalog
from ..tables.fields import Field, as_table, row_dtype

__all__ = ["StarIndex", "StarReader", "Survey", "star_fields"]

_COORDINATES = ("coord_ra", "coord_dec")
_COLUMNS = ("id", "isolated_star_id", *_COORDINATES, "mag_std_noabs", "magErr_std", "ngood")
_ENTRY = np.dtype([(name, np.int64) for name in ("tract", "partition", "count", "first", "last")])


def star_fields(bands: Iterable[str], *, isolated: bool = True) -> dict[str, Field]:
    """Return the columns of a tract's stars.

    Parameters
    ----------
    bands : iterable of str
    isolated : bool, optional
        Whether it is known which isolated star each is.

    Examples
    --------
    >>> [*star_fields(["g"])]
    ['fgcm_id', 'isolated_star_id', 'ra', 'dec', 'mag_g', 'magErr_g', 'ngood_g']
    """
    whole, number = np.dtype(np.int64), np.dtype(np.float64)
    fields = {"fgcm_id": Field(whole, description="id in the FGCM fit")}
    if isolated:
        fields["isolated_star_id"] = Field(whole, description="id of the isolated star")
    fields["ra"] = Field(number, (), "deg", "right ascension")
    fields["dec"] = Field(number, (), "deg", "declination")
    for band in bands:
        fields[f"mag_{band}"] = Field(number, (), "mag", f"AB magnitude in {band}")
        fields[f"magErr_{band}"] = Field(number, (), "mag", f"error of the magnitude in {band}")
        fields[f"ngood_{band}"] = Field(
            np.dtype(np.int32), description=f"good observations in {band}"
        )
    return fields


class Survey(NamedTuple):
    """What is found in one partition of a catalog.

    Attributes
    ----------
    entries : (n,) structured array
        As in `StarIndex`, of this partition.
    lost : (m,) int64 array
        Rows of stars that are in no tract.
    """

    entries: np.ndarray
    lost: np.ndarray


@dataclass(frozen=True)
class StarIndex:
    """Where the stars of each tract are.

    Attributes
    ----------
    entries : (n,) structured array of int64
        For each tract, and partition that has stars of it: ``tract``, ``partition``, ``count`` of
        stars, ``first`` and ``last`` (exclusive) row between which they are. Sorted in this order.
    tracts, totals : (m,) int64 array
        The tracts that have stars, in ascending order, and how many.
    n_lost : int
        Stars that are in no tract.
    lost : (k,) int64 array
        Rows of the first few of them.
    """

    entries: np.ndarray
    tracts: np.ndarray
    totals: np.ndarray
    n_lost: int
    lost: np.ndarray

    @classmethod
    def of(cls, surveys: Iterable[Survey]) -> StarIndex:
        """Put together what was found in the partitions, in their order."""
        surveys = list(surveys)
        entries = np.concatenate([np.empty(0, _ENTRY), *(survey.entries for survey in surveys)])
        entries = entries[np.argsort(entries["tract"], kind="stable")]
        tracts, first = np.unique(entries["tract"], return_index=True)
        totals = np.add.reduceat(entries["count"], first) if len(first) else first
        lost = [np.empty(0, np.int64), *(survey.lost for survey in surveys)]
        return cls(entries, tracts, totals, sum(map(len, lost)), np.concatenate(lost)[:8])

    def __contains__(self, tract: int | np.integer) -> bool:
        return contains(self.tracts, tract)

    def entries_of(self, tract: int) -> np.ndarray:
        """Return the entries of a tract."""
        start, stop = np.searchsorted(self.entries["tract"], [tract, tract + 1])
        return self.entries[start:stop]


@dataclass(frozen=True)
class StarReader:
    """Reads standard stars, as rows of `star_fields`.

    Parameters
    ----------
    catalog : Catalog
    bands : tuple of str
        In the order of its columns.
    sky_map : SkyMap
    """

    catalog: Catalog
    bands: tuple[str, ...]
    sky_map: SkyMap

    @property
    def fields(self) -> dict[str, Field]:
        """The columns."""
        return star_fields(self.bands, isolated="isolated_star_id" in self.catalog.columns)

    def shifts(self, offsets: Mapping[str, float] | None) -> list[float]:
        """Return the offsets of the bands, in their order; zeros for None."""
        if offsets is None:
            return [0.0] * len(self.bands)
        if not isinstance(offsets, Mapping):
            raise TypeError(f"offsets are a mapping from band to mag, got {offsets!r:.80}")
        if missing := [band for band in self.bands if band not in offsets]:
            known = ", ".join(map(str, offsets)) or "none"
            raise ValueError(
                f"bands without a reference offset: {', '.join(missing)}; with: {known}"
            )
        return [number_in(offsets[band], u.mag, f"offset of {band}") for band in self.bands]

    def meta(self, tract: int, shifts: Iterable[float]) -> dict[str, Any]:
        """Return what is said of a tract's table."""
        return {
            "TRACT": int(tract),
            "BANDS": ",".join(self.bands),
            "SKYMAP": str(self.sky_map),
            "OFFSETS": ",".join(f"{shift:.6f}" for shift in shifts),
        }

    def survey(self, partition: int, start: int, stop: int) -> Survey:
        """Return where the stars of each tract are among the rows of a partition."""
        tracts = self._tracts(start, stop)
        order = self._by_tract(tracts)
        rows, tracts = start + order, tracts[order]
        edges = np.flatnonzero(np.diff(tracts, prepend=-1))  # after those of no tract, which is -1
        stops = np.append(edges[1:], len(rows))
        entries = np.empty(len(edges), _ENTRY)
        entries["tract"], entries["partition"] = tracts[edges], partition
        entries["count"] = stops - edges
        entries["first"], entries["last"] = rows[edges], rows[stops - 1] + 1
        return Survey(entries, rows[: edges[0] if len(edges) else len(rows)])

    def table(
        self, tract: int, entries: np.ndarray, offsets: Mapping[str, float] | None = None
    ) -> Table:
        """Return the stars of a tract, which are where its entries in the index say."""
        shifts = self.shifts(offsets)
        parts = [np.empty(0, row_dtype(self.fields))]
        for first, last in entries[["first", "last"]].tolist():
            rows = first + np.flatnonzero(self._tracts(first, last) == tract)
            parts.append(self._rows(rows, shifts))
        return as_table(np.concatenate(parts), self.fields, self.meta(tract, shifts))

    def partition(
        self, start: int, stop: int, tracts: np.ndarray, shifts: Iterable[float]
    ) -> np.ndarray:
        """Return the stars of some tracts among some rows, sorted by tract."""
        rows = self._rows(slice(start, stop), shifts)
        found = self._tracts_of(rows["ra"], rows["dec"])
        order = self._by_tract(found)
        return rows[order[np.isin(found[order], tracts)]]

    def _by_tract(self, tracts: np.ndarray) -> np.ndarray:
        """Return the order by tract, those of none first; within a tract, as it was."""
        # NumPy sorts numbers of 16 bits by their digits, in a tenth of the time.
        narrow = (tracts + 1).astype(np.min_scalar_type(self.sky_map.n_tracts))
        return np.argsort(narrow, kind="stable")

    def _tracts(self, start: int, stop: int) -> np.ndarray:
        columns = self.catalog.read(_COORDINATES, slice(start, stop))
        ra, dec = (np.rad2deg(columns[name]) for name in _COORDINATES)
        return self._tracts_of(ra, dec)

    def _tracts_of(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        return self.sky_map.tract(np.where(placed(ra, dec), ra, np.nan), dec, strict=False)

    def _rows(self, rows: slice | np.ndarray, shifts: Iterable[float]) -> np.ndarray:
        wanted = [name for name in _COLUMNS if name in self.catalog.columns]
        columns = self.catalog.read(wanted, rows)
        out = np.empty(len(columns["id"]), row_dtype(self.fields))
        out["fgcm_id"] = columns["id"]
        if "isolated_star_id" in columns:
            out["isolated_star_id"] = columns["isolated_star_id"]
        out["ra"], out["dec"] = (np.rad2deg(columns[name]) for name in _COORDINATES)
        for i, (band, shift) in enumerate(zip(self.bands, shifts, strict=True)):
            magnitude, error = columns["mag_std_noabs"][:, i], columns["magErr_std"][:, i]
            known = (np.abs(magnitude) < NO_MAGNITUDE) & np.isfinite(shift)
            out[f"mag_{band}"] = np.where(known, magnitude + shift, np.nan)
            known &= np.abs(error) < NO_MAGNITUDE
            out[f"magErr_{band}"] = np.where(known, error, np.nan)
            out[f"ngood_{band}"] = columns["ngood"][:, i]
        return out

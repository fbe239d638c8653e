"""StarObservations: what was measured of the stars that a fit starts from, some rows at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from ..photocalib.flux import MAG
from ..tables.catalog import MISSING, Catalog
from .columns import OBSERVATIONS, STAR_IDS
from .find import CATALOGS, OBSERVED, find_catalogs, has_tables
from .problems import Problems

__all__ = ["Observed", "StarObservations"]

_PLACE = ("visit", "detector", "x", "y")
_NO_MAGNITUDE = 90  # FGCM writes 99 for a magnitude, or its error, that there is not


class Observed(NamedTuple):
    """Some observations, (n,) arrays.

    Parameters
    ----------
    star : int array
        Numbers from 0 on, whatever the stars' ids.
    visit, detector : int arrays
    x, y : float64 arrays
        Pixels.
    flux : float64 array
        Instrumental; for `StarObservations.normalized` ones, of 1 s.
    error : float64 array
        Of the magnitude, mag.
    jacobian : float64 array or None
        Relative pixel area.
    """

    star: np.ndarray
    visit: np.ndarray
    detector: np.ndarray
    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray
    error: np.ndarray
    jacobian: np.ndarray | None


class StarObservations:
    """The observations of a run's stars, of which nothing is held but which star each is of.

    They have either ``instFlux`` and ``instFluxErr``, what the detectors counted; or ``inst_mag``
    and ``inst_mag_err``, the magnitudes that FGCM is given:
    ``-2.5 log10(instFlux scaling / exptime)``, and mostly ``-2.5 log10(jacobian)``, too.

    Parameters
    ----------
    observations : path, astropy Table or mapping
        FITS or Parquet, a row for each observation.
    ids : path, astropy Table or mapping, optional
        A row for each star: where its rows begin, ``obs_arr_index``, and how many there are,
        ``n_obs``. Needed if the observations have no ``fgcm_id``.

    Attributes
    ----------
    normalized : bool
        Whether exposure time, flat scaling and, mostly, the pixel area were taken out of the
        fluxes: those that there are magnitudes of.

    Raises
    ------
    OSError
        If a file is missing, or can't be read.
    ValueError
        If columns are missing or wrong, or it cannot be told of which star an observation is.

    Examples
    --------
    >>> table = {name: [1, 2] for name in ("visit", "detector", "x", "y", "fgcm_id")}
    >>> stars = StarObservations(table | {"instFlux": [10.0, 40.0], "instFluxErr": [1.0, 1.0]})
    >>> len(stars), stars.n_stars, stars.normalized
    (2, 2, False)
    >>> [block.error.round(3).tolist() for block in stars.blocks()]
    [[0.109, 0.027]]
    """

    def __init__(self, observations: object, ids: object = None) -> None:
        problems = Problems()
        table = problems.open(observations, OBSERVATIONS)
        self._of_stars = problems.open(ids, STAR_IDS)
        problems.raise_errors("the star observations")
        problems.warn(stacklevel=2)
        self._table = cast("Catalog", table)  # or else there was an error
        have = self._table.columns
        self.normalized = not {"instFlux", "instFluxErr"} <= {*have}
        if self.normalized and not {"inst_mag", "inst_mag_err"} <= {*have}:
            raise ValueError(
                f"{self.where} has no fluxes: it needs columns instFlux and instFluxErr, or "
                "inst_mag and inst_mag_err"
            )
        if "fgcm_id" not in have and self._of_stars is None:
            raise ValueError(
                f"{self.where} does not say of which star an observation is: it needs a column "
                "fgcm_id, or fgcmStarIds beside it"
            )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> StarObservations:
        """Open those in a file, or in the directory of a run.

        By the names ``fgcmStarObservations`` and, in the same directory, ``fgcmStarIds``; FITS or
        Parquet. A directory without catalogs of a run is one of parts.

        Raises
        ------
        FileNotFoundError
            If there are none.
        """
        path = Path(path)
        if path.is_dir():
            found = find_catalogs(path, OBSERVED)
            if OBSERVED[0] in found:
                return cls(found[OBSERVED[0]], found.get(OBSERVED[1]))
            if find_catalogs(path, CATALOGS) or not has_tables(path):
                raise FileNotFoundError(
                    f"{path} has no star observations: there is no fgcmStarObservations.parquet or "
                    ".fits; say where they are"
                )
        beside = find_catalogs(path.parent, OBSERVED[1:]) if path.parent.is_dir() else {}
        return cls(path, beside.get(OBSERVED[1]))

    @property
    def where(self) -> str:
        """How messages name them."""
        return self._table.where

    def __len__(self) -> int:
        return len(self._table)

    @property
    def n_stars(self) -> int:
        """How many stars there are observations of."""
        return len(self._stars)

    def blocks(self) -> Iterator[Observed]:
        """Yield all observations, some ten thousand at a time.

        Those without a flux, or with a negative one, or a magnitude of 99, have NaN for it; those
        of no star are left out.
        """
        optional = [n for n in ("fgcm_id", "jacobian") if n in self._table.columns]
        fluxes = ("inst_mag", "inst_mag_err") if self.normalized else ("instFlux", "instFluxErr")
        first = 0
        for block in self._table.blocks([*_PLACE, *fluxes, *optional]):
            rows = np.arange(first, first + len(block["visit"]))
            first += len(rows)
            star = self._star(block.get("fgcm_id"), rows)
            visit, detector, x, y = (block[name] for name in _PLACE)
            flux, error = _flux_and_error(self.normalized, *(block[name] for name in fluxes))
            columns = star, visit, detector, x, y, flux, error, block.get("jacobian")
            known = star >= 0
            some = (None if values is None else values[known] for values in columns)
            yield Observed._make(columns if known.all() else some)

    def _star(self, ids: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """Return the number of each row's star; negative for those of none."""
        if ids is not None:
            return np.where(ids == MISSING, MISSING, np.searchsorted(self._stars, ids))
        return np.searchsorted(self._stars, rows, side="right") - 1

    @cached_property
    def _stars(self) -> np.ndarray:
        """The ids of all stars, or the first row of each; ascending."""
        if self._of_stars is None or "fgcm_id" in self._table.columns:
            parts = [np.unique(block["fgcm_id"]) for block in self._table.blocks(["fgcm_id"])]
            ids = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
            return ids[ids != MISSING]
        table = self._of_stars.read(["obs_arr_index", "n_obs"])
        seen = table["n_obs"] > 0
        starts, counts = (table[name][seen].astype(np.int64) for name in ("obs_arr_index", "n_obs"))
        order = np.argsort(starts)
        starts, counts = starts[order], counts[order]
        if counts.sum() != len(self) or not np.array_equal(starts, np.cumsum(counts) - counts):
            raise ValueError(
                f"{self._of_stars.where} has {len(starts)} stars with {counts.sum()} observations "
                f"that are not the {len(self)} rows of {self.where}, one star after the other"
            )
        return starts


def _flux_and_error(
    magnitudes: bool, flux: np.ndarray, error: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return fluxes and the errors of their magnitudes; NaN where there is none."""
    if magnitudes:
        none = (np.abs(flux) >= _NO_MAGNITUDE) | (error >= _NO_MAGNITUDE)
        flux = np.where(none, np.nan, 10 ** (-0.4 * np.where(none, 0, flux)))
    else:
        flux = np.where(flux > 0, flux, np.nan)
        error = MAG * error / flux
    good = np.isfinite(flux) & (error > 0) & (error < np.inf)
    return np.where(good, flux, np.nan), np.where(good, error, np.nan)

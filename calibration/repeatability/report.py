"""Repeatability: scatter by band and magnitude, before and after calibration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from ..products.build import FgcmProducts
from ..products.store import Store
from ..tables.fields import as_table, fields_like
from ..texts import plural
from .magnitudes import StarMagnitudes
from .plot import plot_repeatability
from .scatter import SELECTIONS, Means, Scatter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Repeatability", "measure_magnitudes", "measure_repeatability"]

_STEP = 0.5  # mag
_BRIGHT = 0.005  # mag, scatter expected of the faintest of the bright stars


@dataclass(frozen=True, eq=False, repr=False)
class Repeatability:
    """How far the magnitudes of a star are from each other.

    *After* are the magnitudes that the photoCalibs give. *Before* are those of the same fluxes, per
    second of exposure, with a single calibration for each physical filter, the median of all of the
    run's: as if nothing was known of atmosphere, clouds, flats and optics. Both are of the
    observations for which there is a calibration.

    The scatter is about the mean of a star in a band, weighted by the errors with 3 mmag added in
    quadrature. A residual is divided by ``sqrt(1 - w)``, where w is the observation's share of the
    weight; with n equal errors, this multiplies the variance by n / (n - 1). Given are 1.4826 times
    the median of the absolute residuals, which outliers don't move, and their root mean square.
    Expected is the former for Gaussian errors of the size that the fluxes and the photoCalibs have.

    Parameters
    ----------
    bands : astropy Table
        For each band, and for photometric visits and all: ``mag_max``, where bright stars end
        (the scatter expected of a bin of them is at most 5 mmag), and of those ``n_stars``,
        ``n_observations``, ``before``, ``before_rms``, ``after``, ``after_rms``, ``expected`` and
        ``floor``: what has to be added to the errors, in quadrature, to get ``after``. NaN where
        there are no bright stars. In mag.
    bins : astropy Table
        The same by magnitude: the bin's ``mag_min`` and ``mag_max``.
    left_out : int
        Observations without a calibration, a flux, or the pixel area that it needs.
    """

    bands: Table
    bins: Table
    left_out: int

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the scatter against magnitude, a panel for each band.

        Parameters
        ----------
        path : path, optional
            Where to save the figure, too; the suffix says the format.

        Raises
        ------
        ImportError
            Without the package matplotlib.
        """
        return plot_repeatability(self.bands, self.bins, path)

    def write(self, directory: str | os.PathLike[str]) -> list[Path]:
        """Write both tables, ``repeatability`` and ``repeatability_bins``, to a store of products.

        In its format; what is there is replaced. Returns their paths.

        Raises
        ------
        FileNotFoundError
            If there is no store.
        OSError
            If they cannot be written.
        """
        store = Store.reopen(directory)
        tables = {"repeatability": self.bands, "repeatability_bins": self.bins}
        paths = [store.write(table, name) for name, table in tables.items()]
        for name in tables:
            store.describe(name)
        return paths

    def __repr__(self) -> str:
        bright = self.bands[self.bands["visits"] == SELECTIONS[0]]
        texts = (f"{row['band']} {1e3 * row['after']:.1f}" for row in bright)
        return f"<Repeatability of bright stars in mmag: {', '.join(texts)}>"

    def __str__(self) -> str:
        by_magnitude = self.bins[self.bins["visits"] == SELECTIONS[0]]
        lines = [
            "scatter of a star's magnitudes in mmag: robust (rms)",
            "",
            _HEAD.format("bright stars") + "   floor",
            *(_line(r, f"< {r['mag_max']:.1f}") + f"{1e3 * r['floor']:8.1f}" for r in self.bands),
            "",
            _HEAD.format("by magnitude"),
            *(_line(r, f"{r['mag_min']:.1f} to {r['mag_max']:.1f}") for r in by_magnitude),
        ]
        if self.left_out:
            lines.append(
                f"left out: {plural(self.left_out, 'observation')} without a calibration, a flux "
                "or a jacobian"
            )
        return "\n".join(lines)


_HEAD = "{:<18}visits         stars observations           before          after  expected"


def _line(row: Any, magnitudes: str) -> str:
    """Return a row of a table as a line of text."""
    before, after = (
        f"{1e3 * row[kind]:.1f} ({1e3 * row[f'{kind}_rms']:.1f})" for kind in ("before", "after")
    )
    return (
        f"{row['band']:<4}{magnitudes:<14}{row['visits']:<11}{row['n_stars']:9d}"
        f"{row['n_observations']:13d}{before:>17}{after:>15}{1e3 * row['expected']:10.1f}"
    )


def measure_repeatability(
    products: FgcmProducts | str | os.PathLike[str], *, run: Any = None, observations: Any = None
) -> Repeatability:
    """Measure the scatter of repeated stars before and after calibration.

    The observations are read twice, some ten thousand at a time; what is held is a few numbers for
    each star, and the photoCalibs.

    Parameters
    ----------
    products : FgcmProducts or path
        What to calibrate with: photoCalibs that are computed now, or those in a directory.
    run : FgcmRun or path, optional
        The run that products in a directory were made of; default where it was then.
    observations : StarObservations or path, optional
        Of the run's stars; default ``fgcmStarObservations`` in its directory. See
        `calibration.run.observations`.

    Raises
    ------
    FileNotFoundError
        If there are no products, observations or run where they should be.
    ValueError
        If the products are of another run, no star has two observations with a calibration, or a
        column is missing.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from calibration import ProductsConfig, build_products, simulate_run
    >>> config = ProductsConfig(atmosphere_output=False, tract_stars=False)
    >>> with TemporaryDirectory() as folder:
    ...     run = simulate_run(f"{folder}/run", n_visits=8, n_stars=100)
    ...     found = measure_repeatability(build_products(run, config))
    >>> found.bands.colnames[:4]
    ['band', 'visits', 'mag_max', 'n_stars']
    """
    if isinstance(products, FgcmProducts):
        magnitudes = StarMagnitudes.of_products(products, observations)
    else:
        magnitudes = StarMagnitudes.of_store(Store.reopen(products), run, observations)
    return measure_magnitudes(magnitudes)


def measure_magnitudes(magnitudes: StarMagnitudes) -> Repeatability:
    """Measure the scatter of magnitudes that can be read twice."""
    bands = magnitudes.bands
    means = Means(magnitudes.n_stars * len(bands))
    for block in magnitudes.blocks():
        means.add(block)
    count = int(means.count[1].sum())
    if means.count.max(initial=0) < 2:
        raise ValueError(
            f"no star has two observations in a band: of {magnitudes.n_observations} observations, "
            f"{count} have a flux and a calibration"
        )
    scatter = Scatter(means, len(bands), _STEP)
    for block in magnitudes.blocks():
        scatter.add(block)
    bright, bins = [], []
    for band, name in enumerate(bands):
        by_magnitude = [_by_magnitude(scatter, selection, band) for selection in range(2)]
        limit = max(
            (r["mag_max"] for r in by_magnitude[1] if r["expected"] <= _BRIGHT), default=np.nan
        )
        for selection, visits in enumerate(SELECTIONS):
            label = {"band": name, "visits": visits}
            bins += [label | row for row in by_magnitude[selection]]
            bright.append(label | _bright(scatter, selection, band, limit))
    return Repeatability(_table(bright), _table(bins), magnitudes.n_observations - count)


def _by_magnitude(scatter: Scatter, selection: int, band: int) -> list[dict[str, Any]]:
    """Return the scatter in each bin of magnitudes with observations."""
    edges = scatter.edges.tolist()
    places = zip(scatter.cells(band), edges[:-1], edges[1:], strict=True)
    rows = [
        {"mag_min": low, "mag_max": high, **scatter.summary(selection, cell[None])}
        for cell, low, high in places
    ]
    return [row for row in rows if row["n_observations"]]


def _bright(scatter: Scatter, selection: int, band: int, limit: float) -> dict[str, Any]:
    """Return the scatter of stars brighter than a magnitude, and what of it is beyond errors."""
    found = scatter.summary(selection, scatter.cells(band)[scatter.edges[1:] <= limit])
    floor = np.sqrt(np.maximum(found["after"] ** 2 - found["expected"] ** 2, 0))
    return {"mag_max": limit, **found, "floor": float(floor)}


_COLUMNS = {
    "band": ("", "band"),
    "visits": ("", "which visits: all, or the photometric ones"),
    "mag_min": ("mag", "brightest mean magnitude of the stars"),
    "mag_max": ("mag", "faintest mean magnitude of the stars"),
    "n_stars": ("", "stars with two observations or more"),
    "n_observations": ("", "their observations"),
    "before": ("mag", "robust scatter of a star's magnitudes before calibration"),
    "before_rms": ("mag", "rms scatter of a star's magnitudes before calibration"),
    "after": ("mag", "robust scatter of a star's magnitudes after calibration"),
    "after_rms": ("mag", "rms scatter of a star's magnitudes after calibration"),
    "expected": ("mag", "robust scatter that the errors of the fluxes explain"),
    "floor": ("mag", "scatter after calibration that the errors do not explain"),
}


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
    return as_table(columns, fields_like(columns, {name: _COLUMNS[name] for name in columns}))

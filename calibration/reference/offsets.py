"""ReferenceOffsets: the offset of each band, and what was found in each pixel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import astropy.units as u
import numpy as np
from astropy.table import Table

from mapreduce.units import in_unit, number_in

from ..config.config import ProductsConfig
from ..tables.fields import as_table, fields_like
from .catalog import ReferenceWarning
from .clipping import mad_scatter, median_error
from .comparison import Comparison, PixelOffset
from .plot import plot_offsets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ReferenceOffsets", "combine"]

_RESIDUALS = ("n_residuals", "n_residuals_kept")
_OFFSETS = {
    "band": ("", "band"),
    "offset": ("mag", "what is added to magnitudes for the reference catalog's level"),
    "scatter": ("mag", "robust scatter of the zero points of the pixels"),
    "error": ("mag", "standard error of the offset"),
    "n_pixels": ("", "pixels with enough matches"),
    "n_matches": ("", "matches in these pixels"),
    "n_residuals": ("", "matches by their distance from the zero point, -0.3 to 0.3 mag"),
    "n_residuals_kept": ("", "those of them that were not clipped"),
}
_LARGE = 3.0  # mag
_PIXELS = {
    "pixel": ("", "HEALPix pixel, nested"),
    "ra": ("deg", "right ascension of the pixel's center"),
    "dec": ("deg", "declination of the pixel's center"),
    "band": ("", "band"),
    "n_stars": ("", "stars with a good observation in every band"),
    "n_selected": ("", "those of high enough signal-to-noise ratio"),
    "n_reference": ("", "reference stars of which the same can be said"),
    "n_matches": ("", "pairs of them"),
    "n_clipped": ("", "pairs that were clipped"),
    "zero_point": ("mag", "clipped median of reference minus star"),
    "scatter": ("mag", "scatter of what was not clipped"),
    "error": ("mag", "standard error of the zero point"),
}


@dataclass(frozen=True, eq=False, repr=False)
class ReferenceOffsets(Mapping[str, float]):
    """Offsets of a run's magnitudes: a mapping from bands to what has to be added, in mag.

    Parameters
    ----------
    offsets : dict of str to float
        By band, the median of the zero points of the pixels with enough matches, mag.
    scatter : dict of str to float
        1.4826 times the median absolute deviation of these zero points, mag.
    errors : dict of str to float
        Standard error of the offset, mag: what follows from the scatter, or from the errors of the
        zero points if that is more.
    n_pixels : dict of str to int
        Pixels with enough matches.
    pixels : astropy Table
        A row for each pixel and band, with the columns of `PixelOffset`, and ``used``: whether it
        has enough matches.
    residuals : dict of str to (2, n_bins) int array
        See `Comparison`.
    warnings : tuple of str
        What was left out.
    """

    offsets: dict[str, float]
    scatter: dict[str, float]
    errors: dict[str, float]
    n_pixels: dict[str, int]
    pixels: Table
    residuals: dict[str, np.ndarray]
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("offsets", "scatter", "errors"):
            values = getattr(self, name).items()
            numbers = {b: number_in(value, u.mag, f"{name} of {b}") for b, value in values}
            object.__setattr__(self, name, numbers)

    def __getitem__(self, band: str) -> float:
        try:
            return self.offsets[band]
        except KeyError:
            bands = ", ".join(self.offsets)
            raise KeyError(f"there is no offset of band {band!r}, but of {bands}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.offsets)

    def __len__(self) -> int:
        return len(self.offsets)

    def __repr__(self) -> str:
        texts = (f"{b} {o:+.4f} ± {self.errors[b]:.4f}" for b, o in self.offsets.items())
        return f"<ReferenceOffsets in mag: {', '.join(texts)}>"

    def to_table(self) -> Table:
        """Return a row for each band: offset, scatter, error, pixels and matches used, residuals.

        The residuals are columns of arrays: ``n_residuals`` of all matches, ``n_residuals_kept`` of
        those that were not clipped.
        """
        used = self.pixels[np.asarray(self.pixels["used"])]
        columns: dict[str, list[Any] | np.ndarray] = {
            "band": list(self.offsets),
            "offset": [*self.offsets.values()],
            "scatter": [*self.scatter.values()],
            "error": [*self.errors.values()],
            "n_pixels": [*self.n_pixels.values()],
            "n_matches": [int(np.sum(used["n_matches"][used["band"] == b])) for b in self],
        }
        residuals = np.array([self.residuals[band] for band in self], np.int64)
        columns |= {name: residuals[:, i] for i, name in enumerate(_RESIDUALS)}
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        return as_table(arrays, fields_like(arrays, _OFFSETS), self.pixels.meta)

    @classmethod
    def from_tables(cls, table: Table, pixels: Table) -> ReferenceOffsets:
        """Make one of what `to_table` returned and the table of pixels, as files hold them.

        Raises
        ------
        ValueError
            If a column is missing.

        Examples
        --------
        >>> offsets = ReferenceOffsets.from_tables(  # doctest: +SKIP
        ...     Table.read("out/offsets.fits"), Table.read("out/offset_pixels.fits")
        ... )
        """
        table, pixels = table.copy(), pixels.copy()
        for part in (table, pixels):
            part.convert_bytestring_to_unicode()
        if missing := {"band", "offset", "scatter", "error", "n_pixels", *_RESIDUALS} - {
            *table.colnames
        }:
            raise ValueError(f"the table of offsets lacks the columns {sorted(missing)}")
        pixels["used"] = np.asarray(pixels["used"], bool)
        pixels.meta["NSIDE"] = int(pixels.meta["NSIDE"])
        bands = table["band"].tolist()
        columns = (in_unit(table[n], u.mag, f"column {n}") for n in ("offset", "scatter", "error"))
        offsets, scatter, errors = (dict(zip(bands, c.tolist(), strict=True)) for c in columns)
        n_pixels = dict(zip(bands, table["n_pixels"].tolist(), strict=True))
        counts = np.stack([np.asarray(table[name]) for name in _RESIDUALS], axis=1)
        residuals = dict(zip(bands, counts, strict=True))
        return cls(offsets, scatter, errors, n_pixels, pixels, residuals)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the pixels on the sky, colored by zero point, and histograms of the differences.

        Parameters
        ----------
        path : path, optional
            Where to save the figure, too; the suffix says the format.

        Raises
        ------
        ImportError
            Without the package matplotlib.
        """
        return plot_offsets(self.offsets, self.errors, self.pixels, self.residuals, path)


def combine(
    compared: Sequence[Comparison], bands: Sequence[str], config: ProductsConfig
) -> ReferenceOffsets:
    """Make offsets of what was found in pixels."""
    notes = tuple(sorted(set().union(*(part.notes for part in compared))))
    _warn(notes)
    pixels = _report(row for part in compared for row in part.rows)
    pixels["used"] = pixels["n_matches"] >= config.reference_min_match
    pixels["used"].description = "whether there are enough matches"
    pixels.meta = {
        "NSIDE": config.reference_pixelization_nside,
        "ORDERING": "NESTED",
        "MINMATCH": config.reference_min_match,
        "SEED": config.seed,
    }
    of_band = {band: pixels[pixels["band"] == band] for band in bands}
    _check_matches(of_band, config)
    zero_points, errors = (
        {band: np.asarray(rows[name][rows["used"]]) for band, rows in of_band.items()}
        for name in ("zero_point", "error")
    )
    offsets = {band: float(np.median(values)) for band, values in zero_points.items()}
    scatter = {band: mad_scatter(values) for band, values in zero_points.items()}
    residuals = np.sum([part.residuals for part in compared], axis=0)
    large = tuple(_large(offsets))
    _warn(large)
    return ReferenceOffsets(
        offsets=offsets,
        scatter=scatter,
        errors={band: _error(scatter[band], errors[band]) for band in bands},
        n_pixels={band: len(values) for band, values in zero_points.items()},
        pixels=pixels,
        residuals=dict(zip(bands, residuals, strict=True)),
        warnings=notes + large,
    )


def _report(rows: Iterable[PixelOffset]) -> Table:
    table = Table(rows=list(rows), names=PixelOffset._fields)
    table = as_table(table, fields_like(table, _PIXELS))
    for name in ("zero_point", "scatter", "error"):
        table[name].info.format = ".5f"
    return table


def _check_matches(of_band: Mapping[str, Table], config: ProductsConfig) -> None:
    """Refuse bands in which no pixel has enough matches."""
    poor = {
        band: f"{band} (at most {max(rows['n_matches'])} of {max(rows['n_selected'])} stars and "
        f"{max(rows['n_reference'])} reference stars)"
        for band, rows in of_band.items()
        if not any(rows["used"])
    }
    if poor:
        count = len(next(iter(of_band.values())))
        raise ValueError(
            f"none of {count} pixels has the {config.reference_min_match} matches that it takes "
            f"within {config.reference_match_radius:g} arcsec, in bands {', '.join(poor.values())};"
            " does the reference catalog cover the stars? Otherwise lower reference_min_match"
        )


def _warn(notes: Iterable[str]) -> None:
    for note in notes:
        warnings.warn(note, ReferenceWarning, stacklevel=3)


def _large(offsets: Mapping[str, float]) -> Iterator[str]:
    """Yield what is to be said of offsets that are hardly those of a calibration."""
    large = [f"{band} {value:+.2f}" for band, value in offsets.items() if abs(value) > _LARGE]
    if large:
        yield (
            f"the offsets of {', '.join(large)} mag are larger than {_LARGE:g} mag: are the fluxes "
            "of the reference catalog in another unit, or another zero point? See reference_unit"
        )


def _error(scatter: float, errors: np.ndarray) -> float:
    """Return the standard error of a median over pixels."""
    return max(median_error(np.full(len(errors), scatter)), median_error(errors))

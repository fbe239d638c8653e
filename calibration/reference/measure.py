"""Offsets of the magnitudes of an FGCM run against a reference catalog: one per band.

    standard stars ──sample──▶ pixels ──compare──▶ zero points of pixel and band ──▶ offsets

Each step is a plain function; `reference_offsets` makes delayed tasks of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from dask.base import tokenize
from dask.delayed import Delayed, delayed

from ..config.config import ColorTerm, ProductsConfig
from ..photocalib.flux import MAG, NO_MAGNITUDE
from ..run.run import FgcmRun
from ..sky.matching import match_vectors
from .catalog import ReferenceCatalog, ReferenceStars, ReferenceWarning
from .clipping import clipped_median, median_error
from .comparison import EDGES, Comparison, PixelOffset
from .offsets import combine
from .sample import PixelSample, sample_pixels

__all__ = ["GROUPS", "compare_pixels", "reference_offsets"]

GROUPS = 16
"""Of pixels, one task each: comparing takes milliseconds a pixel, reading a second."""


def reference_offsets(run: FgcmRun, config: ProductsConfig, reference: Any = None) -> Delayed:
    """Measure how far the magnitudes of a run are from those of a reference catalog, lazily.

    Stars with a good observation in every band are counted by HEALPix pixel. In pixels that hold
    enough, a random sample of them where there are many, the stars of each band are matched to
    reference stars, each to the one that is nearest to it and to which it is the nearest; the
    clipped median of the differences (reference, by way of a color term, minus star) is the zero
    point of pixel and band. The offset of a band is the median over the pixels with enough matches.

    Stars and reference stars take part with a signal-to-noise ratio above those that the
    configuration says; reference stars in all bands that the color term names. Reference stars
    beyond the border of a pixel take part where a star of it is near them.

    Parameters
    ----------
    run : FgcmRun
        With standard stars.
    config : ProductsConfig
        Its fields ``reference_...``, ``star_min_signal_to_noise``, ``magnitude_error_floor``,
        ``color_terms`` and ``seed``.
    reference : ReferenceCatalog, path, astropy Table or mapping, optional
        See `ReferenceCatalog.open`; default the run's ``reference_catalog``.

    Returns
    -------
    Delayed
        Of a `ReferenceOffsets`. At most 16 tasks compare a group of pixels each, and as many more
        read a catalog of shards; another catalog is read once, by one task, a few megabytes at a
        time. The result does not depend on how the pixels are grouped.

    Raises
    ------
    MissingBandError
        If the reference catalog lacks a band, and no color term names another.
    ValueError
        If there are no standard stars, or no reference catalog, or it is empty. When it is
        computed, if no pixel holds enough stars, or has enough matches in a band.

    Warns
    -----
    ReferenceWarning
        If there is a color term of a band that the run does not have. When it is computed, if
        there are fewer pixels than were asked for, or positions that are not finite; the result has
        these texts as `ReferenceOffsets.warnings`, too.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> ra, dec = np.radians(10 + 0.2 * rng.random((2, 300)))
    >>> mag = 17 + 3 * rng.random((300, 1))
    >>> stars = {"id": np.arange(300), "coord_ra": ra, "coord_dec": dec, "mag_std_noabs": mag}
    >>> stars |= {"magErr_std": 0 * mag + 0.01, "ngood": np.ones((300, 1), int)}
    >>> flux = 10 ** ((31.4 - mag[:, 0] + 0.05) / 2.5)
    >>> reference = {"ra": np.degrees(ra), "dec": np.degrees(dec)}
    >>> reference |= {"i_flux": flux, "i_fluxErr": flux / 100}
    >>> visits = {"visit": [1], "physicalFilter": ["SIM-I"], "scaling": [[1.0]]}
    >>> run = FgcmRun(visits=visits, standard_stars=stars | {"meta": {"BANDS": "i"}})
    >>> config = ProductsConfig(reference_pixelization_n_pixels=1)
    >>> offsets = reference_offsets(run, config, reference).compute()
    >>> round(offsets["i"], 6), offsets.n_pixels["i"]
    (-0.05, 1)
    """
    if run.standard_stars is None:
        raise ValueError(f"{run!r} has no standard stars to compare; open it with standard_stars=")
    reference = _opened(run, reference)
    terms = _terms(run, config)
    bands = tuple(dict.fromkeys(b for t in terms.values() for b in (t.primary, t.secondary)))
    reference.check(bands)
    token = tokenize(run.standard_stars, reference, run.bands, config.to_dict())
    groups = min(GROUPS, config.reference_pixelization_n_pixels)

    def task(function: Callable[..., Any], *arguments: Any, number: int | None = None) -> Delayed:
        name = function.__name__.strip("_").replace("_", "-")
        suffix = "" if number is None else f"-{number}"
        return delayed(function)(*arguments, dask_key_name=f"reference-{name}-{token}{suffix}")

    stars = delayed(run.standard_stars, name=f"standard-stars-{token}", traverse=False)
    catalog = delayed(reference, name=f"reference-catalog-{token}", traverse=False)
    sample = task(sample_pixels, stars, run.bands, config)
    everything = None if reference.partitioned else task(_read, catalog, bands, sample, config)
    compared = []
    for n in range(groups):
        part = task(PixelSample.part, sample, n, groups, number=n)
        if reference.partitioned:
            near = task(_read, catalog, bands, part, config, number=n)
        else:
            near = task(_near, everything, part, config, number=n)
        compared.append(task(compare_pixels, part, near, terms, config, number=n))
    return task(combine, compared, run.bands, config)


def compare_pixels(
    sample: PixelSample,
    reference: ReferenceStars,
    terms: Mapping[str, ColorTerm],
    config: ProductsConfig,
) -> Comparison:
    """Compare the stars of pixels with reference stars, band by band.

    Parameters
    ----------
    sample : PixelSample
    reference : ReferenceStars
        At least those near the pixels.
    terms : mapping of str to ColorTerm
        By band, in the order of the stars' magnitudes.
    """
    rows, residuals = [], np.zeros((len(terms), 2, len(EDGES) - 1), np.int64)
    reach = _reach(sample, config)
    for k, pixel in enumerate(sample.pixels.tolist()):
        ra, dec = float(sample.ra[k]), float(sample.dec[k])
        stars = slice(sample.starts[k], sample.starts[k + 1])
        near = reference.near(ra, dec, reach[k])
        for number, (band, term) in enumerate(terms.items()):
            ours = _stars(sample, stars, number, config.star_min_signal_to_noise)
            theirs = _references(near, term, config.reference_min_signal_to_noise)
            found, counts = _zero_point(ours, theirs, config)
            residuals[number] += counts
            n_stars = int(stars.stop - stars.start)
            numbers = n_stars, len(ours.values), len(theirs.values), *found
            rows.append(PixelOffset(pixel, ra, dec, band, *numbers))
    return Comparison(rows, residuals, sample.notes | reference.notes)


class _Magnitudes(NamedTuple):
    """Stars that take part in one band: unit vectors (n, 3), magnitudes and errors (n,)."""

    vectors: np.ndarray
    values: np.ndarray
    errors: np.ndarray


def _stars(sample: PixelSample, stars: slice, band: int, least: float) -> _Magnitudes:
    """Return the stars with a magnitude and at least a signal-to-noise ratio."""
    values, errors = sample.magnitudes[stars, band], sample.errors[stars, band]
    good = (values < NO_MAGNITUDE) & (errors >= 0) & (least * errors <= MAG)
    return _Magnitudes(sample.vectors[stars][good], values[good], errors[good])


def _references(reference: ReferenceStars, term: ColorTerm, least: float) -> _Magnitudes:
    """Return the same of reference stars, with magnitudes in the standard band."""
    (first, first_err), (second, second_err) = (
        (reference.magnitudes[band], reference.errors[band])
        for band in (term.primary, term.secondary)
    )
    good = (least * first_err <= MAG) & (least * second_err <= MAG)
    color = first - second
    slope = 0.0 if term.primary == term.secondary else term.c1 + 2 * term.c2 * color
    errors = np.hypot((1 + slope) * first_err, slope * second_err)
    return _Magnitudes(reference.vectors[good], term.apply(first, second)[good], errors[good])


def _zero_point(
    ours: _Magnitudes, theirs: _Magnitudes, config: ProductsConfig
) -> tuple[tuple[int, int, float, float, float], np.ndarray]:
    """Return matches, clipped, zero point, scatter and error; and counts of residuals."""
    pairs = match_vectors(ours.vectors, theirs.vectors, config.reference_match_radius / 3600)
    deltas = theirs.values[pairs.second] - ours.values[pairs.first]
    errors = np.hypot(theirs.errors[pairs.second], ours.errors[pairs.first])
    errors = np.hypot(errors, config.magnitude_error_floor)
    value, scatter, kept = clipped_median(deltas)
    residuals = np.clip(deltas - value, EDGES[0], EDGES[-1])
    counts = np.array([np.histogram(r, EDGES)[0] for r in (residuals, residuals[kept])])
    clipped = len(kept) - int(np.count_nonzero(kept))
    return (len(pairs), clipped, value, scatter, median_error(errors[kept])), counts


def _reach(sample: PixelSample, config: ProductsConfig) -> np.ndarray:
    """Return how far from the center of each pixel there can be a match, deg."""
    return sample.reach + 1.01 * config.reference_match_radius / 3600


def _read(
    reference: ReferenceCatalog, bands: Iterable[str], sample: PixelSample, config: ProductsConfig
) -> ReferenceStars:
    """Read what is needed for the pixels of a sample."""
    reach = _reach(sample, config).max(initial=0)
    return reference.read(bands, sample.ra, sample.dec, reach)


def _near(reference: ReferenceStars, sample: PixelSample, config: ProductsConfig) -> ReferenceStars:
    """Take what is needed for the pixels of a sample, so that no more travels to a worker."""
    return reference.near(sample.ra, sample.dec, _reach(sample, config).max(initial=0))


def _terms(run: FgcmRun, config: ProductsConfig) -> dict[str, ColorTerm]:
    """Return the color term of each band; one that does nothing where there is none."""
    if unknown := [band for band in config.color_terms if band not in run.bands]:
        warnings.warn(
            f"the color terms of {', '.join(unknown)} are not used: the run has "
            f"{', '.join(run.bands)}",
            ReferenceWarning,
            stacklevel=3,
        )
    own = {band: ColorTerm(primary=band, secondary=band) for band in run.bands}
    return own | {band: term for band, term in config.color_terms.items() if band in own}


def _opened(run: FgcmRun, reference: Any) -> ReferenceCatalog:
    if isinstance(reference, ReferenceCatalog):
        return reference
    if reference is None:
        reference = run.reference_catalog
    if reference is None:
        raise ValueError(
            f"{run!r} has no reference catalog; open it with reference_catalog=..., or give one "
            "here: reference=ReferenceCatalog.open(...)"
        )
    return ReferenceCatalog.open(reference)

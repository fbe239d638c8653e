"""Which pixels of the sky, and which standard stars in them, are compared with a reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config.config import ProductsConfig
from ..sky.healpix import center, pixel_of
from ..sky.matching import angle, placed, unit_vectors
from ..tables.catalog import Catalog

__all__ = ["PixelSample", "sample_pixels"]


@dataclass(frozen=True, eq=False)
class PixelSample:
    """HEALPix pixels, nested, and their standard stars.

    Parameters
    ----------
    pixels : (k,) int64 array
        In ascending order.
    ra, dec : (k,) float64 arrays
        Centers of the pixels, deg.
    reach : (k,) float64 array
        How far the farthest star of each is from the center, deg.
    starts : (k + 1,) int array
        Where the stars of each pixel start, and the last ends.
    vectors : (n, 3) float64 array
        Unit vectors of the stars' positions.
    magnitudes, errors : (n, n_bands) float64 arrays
        mag, as in the catalog.
    notes : frozenset of str
        What was left out.
    """

    pixels: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    reach: np.ndarray
    starts: np.ndarray
    vectors: np.ndarray
    magnitudes: np.ndarray
    errors: np.ndarray
    notes: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, number: int, of: int) -> PixelSample:
        """Return one of several parts of about as many pixels, of which some may have none."""
        first, last = (len(self) * n // of for n in (number, number + 1))
        rows = slice(self.starts[first], self.starts[last])
        return PixelSample(
            self.pixels[first:last],
            self.ra[first:last],
            self.dec[first:last],
            self.reach[first:last],
            self.starts[first : last + 1] - self.starts[first],
            self.vectors[rows],
            self.magnitudes[rows],
            self.errors[rows],
            self.notes,
        )


def sample_pixels(stars: Catalog, bands: tuple[str, ...], config: ProductsConfig) -> PixelSample:
    """Choose pixels that hold enough stars, and read those.

    Stars count that have at least one good observation in every band. The catalog is read twice, a
    few megabytes at a time: once for the number of stars in each pixel, once for the stars of the
    pixels that are chosen.
    """
    nside, least = config.reference_pixelization_nside, config.reference_pixelization_min_stars
    census = _Census(stars, bands, nside)
    enough = census.pixels[census.counts >= least]
    if not len(enough):
        raise ValueError(
            f"no HEALPix pixel (nside {nside}) holds the {least} stars that it takes: of "
            f"{len(stars)} stars of {stars.where}, {census.counts.sum()} have a place and a good "
            f"observation in every band ({census.of_bands}); they are in {len(census.pixels)} "
            f"pixels, at most {census.counts.max(initial=0)} in one. Lower "
            "reference_pixelization_min_stars or reference_pixelization_nside"
        )
    wanted = config.reference_pixelization_n_pixels
    notes = set(census.notes)
    if len(enough) < wanted:
        notes.add(
            f"{len(enough)} of the {wanted} pixels that were asked for "
            f"(reference_pixelization_n_pixels) hold {least} stars or more; those are used"
        )
    else:
        rng = np.random.default_rng(config.seed)
        enough = np.sort(rng.choice(enough, wanted, replace=False))
    return _read(stars, enough, nside, frozenset(notes))


class _Census:
    """How many stars there are in the pixels that have any, and what was left out."""

    def __init__(self, stars: Catalog, bands: tuple[str, ...], nside: int) -> None:
        self.pixels, self.counts = np.zeros((2, 0), np.int64)
        good, lost = np.zeros(len(bands), np.int64), 0
        for block in _blocks(stars, nside):
            good += np.count_nonzero(block["ngood"] > 0, axis=0)
            lost += int(np.count_nonzero(block["pixel"] < 0))
            self._add(block["pixel"][block["usable"]])
        self.of_bands = ", ".join(f"{b} {n}" for b, n in zip(bands, good.tolist(), strict=True))
        note = f"{stars.where}: {lost} stars without a position are left out"
        self.notes = [note] if lost else []

    def _add(self, pixels: np.ndarray) -> None:
        self.pixels, where = np.unique(np.append(self.pixels, pixels), return_inverse=True)
        weights = np.append(self.counts, np.ones(len(pixels), np.int64))
        self.counts = np.bincount(where, weights, len(self.pixels)).astype(np.int64)


def _blocks(stars: Catalog, nside: int, *columns: str) -> Iterator[dict[str, Any]]:
    """Yield stars some at a time, with their pixels (-1 without a position) and whether they count.

    Their positions are in deg.
    """
    for block in stars.blocks(["coord_ra", "coord_dec", "ngood", *columns]):
        ra, dec = (np.degrees(block.pop(name)) for name in ("coord_ra", "coord_dec"))
        good = placed(ra, dec)
        pixel = pixel_of(np.where(good, ra, np.nan), np.where(good, dec, np.nan), nside)
        usable = good & (block["ngood"] > 0).all(axis=1)
        yield block | {"ra": ra, "dec": dec, "pixel": pixel, "usable": usable}


def _read(stars: Catalog, pixels: np.ndarray, nside: int, notes: frozenset[str]) -> PixelSample:
    """Read the stars of pixels, which are in ascending order."""
    names = ("ra", "dec", "pixel", "mag_std_noabs", "magErr_std")
    parts: list[list[np.ndarray]] = []
    for block in _blocks(stars, nside, *names[3:]):
        rows = np.flatnonzero(block["usable"] & np.isin(block["pixel"], pixels))
        parts.append([block[name][rows] for name in names])
    ra, dec, pixel, mag, err = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(pixel, kind="stable")
    vectors = unit_vectors(ra[order], dec[order])
    starts = np.searchsorted(pixel[order], [*pixels, pixels[-1] + 1])
    center_ra, center_dec = center(pixels, nside)
    centers = np.repeat(unit_vectors(center_ra, center_dec), np.diff(starts), axis=0)
    distances = np.linalg.norm(vectors - centers, axis=1)
    reach = angle(np.maximum.reduceat(distances, starts[:-1]))
    values = vectors, mag[order], err[order]
    return PixelSample(pixels, center_ra, center_dec, reach, starts, *values, notes)

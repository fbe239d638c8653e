"""Matching positions on the sky, one to one, with k-d trees of unit vectors."""

from __future__ import annotations

from typing import NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from mapreduce.units import in_unit, number_in

from .healpix import pixel_of

__all__ = ["Matches", "angle", "chord", "match_sky", "match_vectors", "placed", "unit_vectors"]

_ALL_AROUND = 180.0  # deg
_FINE = 2**14  # nside: positions of one such pixel, of 13 arcsec, may be in any order
_NO_MATCHES = np.zeros(0, np.int64)


class Matches(NamedTuple):
    """Pairs of positions of two lists.

    Parameters
    ----------
    first, second : (n,) int64 array
        Their places in the lists; ``first`` is in ascending order.
    separation : (n,) float64 array
        deg.
    """

    first: np.ndarray
    second: np.ndarray
    separation: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def match_sky(
    ra: ArrayLike, dec: ArrayLike, other_ra: ArrayLike, other_dec: ArrayLike, radius: float
) -> Matches:
    """Match positions to others, one to one: pairs of which each is the other's nearest.

    A position that is somebody's nearest, but has a nearer one itself, has no match then: nobody
    gets a second choice. Of several that are equally near, one is taken. Positions that are not
    finite have no match.

    Parameters
    ----------
    ra, dec : (n,) array_like
        deg, like all of these, or what a Quantity or Column says.
    other_ra, other_dec : (m,) array_like
    radius : float
        The largest separation; it counts as within.

    Raises
    ------
    ImportError
        Without the package hpgeom.
    ValueError
        If a declination is beyond the poles, a radius not 0 to 180 deg, or a unit none of angles.

    Examples
    --------
    >>> matches = match_sky([10.0, 10.2, 50.0], [0.0, 0.0, 0.0], [50.1, 10.15], [0.0, 0.0], 0.3)
    >>> matches.first, matches.second, matches.separation.round(6)
    (array([1, 2]), array([1, 0]), array([0.05, 0.1 ]))
    """
    named = {"ra": ra, "dec": dec, "other_ra": other_ra, "other_dec": other_dec}
    ra, dec, other_ra, other_dec = (in_unit(angle, u.deg, name) for name, angle in named.items())
    order, other_order = _along_sky(ra, dec), _along_sky(other_ra, other_dec)
    vectors = unit_vectors(ra[order], dec[order])
    others = unit_vectors(other_ra[other_order], other_dec[other_order])
    radius = number_in(radius, u.deg, "radius")
    if not 0 <= radius <= _ALL_AROUND:
        raise ValueError(f"radius must be 0 to 180 deg, got {radius:g}")
    found = match_vectors(vectors, others, radius)
    first, second = order[found.first], other_order[found.second]
    rank = np.argsort(first)
    return Matches(first[rank], second[rank], found.separation[rank])


def match_vectors(vectors: np.ndarray, others: np.ndarray, radius: float) -> Matches:
    """Match unit vectors, (n, 3), to others, (m, 3), by the rule of `match_sky`.

    Takes half the time where both lists are in some order along the sky.

    Examples
    --------
    >>> stars = unit_vectors([10.0, 20.0], [0.0, 0.0])
    >>> match_vectors(stars, stars[1:], 1.0).first
    array([1])
    """
    if not len(vectors) or not len(others):
        return Matches(_NO_MATCHES, _NO_MATCHES, np.zeros(0))
    reach = float(np.nextafter(chord(radius), 1))  # trees look for what is nearer than the bound
    tree = KDTree(others)
    distances, indices = map(np.asarray, tree.query(vectors, k=2, distance_upper_bound=reach))
    distance, nearest = distances[:, 0], indices[:, 0]
    within = nearest < len(others)
    bound = _nearest_distances(tree, vectors, distances, nearest, reach)
    first = np.flatnonzero(within)
    first = first[distance[first] <= bound[nearest[first]]]
    second, kept = np.unique(nearest[first], return_index=True)  # the first of equals
    rank = np.argsort(first[kept])
    first, second = first[kept][rank], second[rank]
    return Matches(first, second, angle(distance[first]))


def unit_vectors(ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
    """Return unit vectors, (..., 3), of positions in deg.

    Examples
    --------
    >>> unit_vectors(90.0, 0.0).round(6) + 0
    array([0., 1., 0.])
    """
    ra, dec = in_unit(ra, u.deg, "ra"), in_unit(dec, u.deg, "dec")
    ra, dec = np.radians(ra), np.radians(dec)
    cos_dec = np.cos(dec)
    vectors = np.empty((*np.broadcast_shapes(ra.shape, dec.shape), 3))
    np.multiply(np.cos(ra), cos_dec, out=vectors[..., 0])
    np.multiply(np.sin(ra), cos_dec, out=vectors[..., 1])
    np.sin(dec, out=vectors[..., 2])
    return vectors


def chord(separation: ArrayLike) -> np.ndarray | float:
    """Return the distance between unit vectors that are so far apart, in deg."""
    return 2 * np.sin(np.radians(separation) / 2)


def angle(distance: np.ndarray) -> np.ndarray:
    """Return separations, in deg, of unit vectors at these distances: the inverse of `chord`."""
    return 2 * np.degrees(np.arcsin(np.minimum(np.divide(distance, 2), 1)))


def _along_sky(ra: ArrayLike, dec: ArrayLike) -> np.ndarray:
    """Return finite positions in an order in which neighbors in the list are so on the sky.

    A k-d tree is built and searched about twice as fast then: what it needs is in the cache.
    """
    pixels = pixel_of(ra, dec, _FINE)
    order = np.argsort(pixels)
    return order[np.count_nonzero(pixels < 0) :]


def _nearest_distances(
    tree: KDTree, vectors: np.ndarray, distances: np.ndarray, nearest: np.ndarray, reach: float
) -> np.ndarray:
    """Return, for each of the tree's points, the distance to the nearest of the vectors.

    Without a search from each of its points: what a vector is nearest to is known, and a vector
    that is near another point, too, has found two.
    """
    bound = np.full(tree.n + 1, np.inf)
    np.minimum.at(bound, nearest, distances[:, 0])
    crowded = np.flatnonzero(np.isfinite(distances[:, 1]))
    if len(crowded):
        pairs = KDTree(vectors[crowded]).sparse_distance_matrix(tree, reach, output_type="ndarray")
        other = pairs["j"] != nearest[crowded[pairs["i"]]]
        np.minimum.at(bound, pairs["j"][other], pairs["v"][other])
    return bound


def placed(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Return whether numbers are positions on the sky, in deg.

    Right ascensions are within a turn of 0: beyond are numbers that stand for none, such as -9999.

    Examples
    --------
    >>> placed(np.array([0.0, np.nan, -9999.0, 0.0]), np.array([90.0, 0.0, 0.0, -9999.0]))
    array([ True, False, False, False])
    """
    return (np.abs(ra) <= 400) & (np.abs(dec) <= 90)

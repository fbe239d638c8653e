"""Sky maps: the tracts that the sky is divided into, and which of them a position belongs to.

Two are known: rings of declination with a cap at each pole, numbered as LSST's rings sky map
numbers them, and the pixels of a HEALPix tessellation. Every position belongs to one tract.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike

from mapreduce.units import in_unit

from ..config import options
from ..config.config import ProductsConfig
from . import healpix

__all__ = ["HealpixSkyMap", "RingsSkyMap", "SkyMap", "sky_map_of"]

_BLOCK = 2**14  # positions whose intermediate values fit the cache
_TURN = 2 * np.pi


class SkyMap(ABC):
    """A division of the sky into tracts, numbered from 0."""

    @property
    @abstractmethod
    def n_tracts(self) -> int:
        """How many tracts there are."""

    @abstractmethod
    def center(self, tract: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return right ascension and declination of the centers of tracts.

        Parameters
        ----------
        tract : array_like of int

        Returns
        -------
        ra, dec : array of float64
            deg.

        Raises
        ------
        ValueError
            If there is no such tract.
        """

    def tract(self, ra: ArrayLike, dec: ArrayLike, *, strict: bool = True) -> np.ndarray:
        """Return the tracts that positions belong to.

        Parameters
        ----------
        ra, dec : array_like
            deg, or what a Quantity or Column says; of shapes that go together. Right ascensions may
            be of any turn.
        strict : bool, optional
            Whether a position that is NaN, infinite or beyond a pole is an error.

        Returns
        -------
        array of int64
            If not strict, -1 where there is no such position.

        Raises
        ------
        ValueError
            If strict, and not all are positions on the sky; if the shapes do not go together, or a
            unit is none of angles.
        """
        ra, dec = np.broadcast_arrays(in_unit(ra, u.deg, "ra"), in_unit(dec, u.deg, "dec"))
        tracts = np.empty(ra.shape, np.int64)
        flat = tracts.reshape(-1)
        ras, decs = ra.reshape(-1), dec.reshape(-1)
        for start in range(0, len(flat), _BLOCK):
            part = slice(start, start + _BLOCK)
            self._fill(flat[part], ras[part], decs[part])
        if strict and len(flat) and flat.min() < 0:
            bad = np.flatnonzero(flat < 0)
            raise ValueError(
                f"{len(bad)} of {len(flat)} positions are not on the sky; the first, of index "
                f"{bad[0]}, is ra={ras[bad[0]]}, dec={decs[bad[0]]} deg; needed are finite "
                "numbers, dec from -90 to 90"
            )
        return tracts

    def _fill(self, tracts: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> None:
        # One NaN makes a minimum or maximum NaN, of which no comparison is true.
        if np.abs(dec).max() <= 90 and np.abs(ra).max() < np.inf:
            self._tracts(ra, dec, out=tracts)
            return
        good = (np.abs(dec) <= 90) & np.isfinite(ra)
        tracts[:] = -1
        if good.any():
            some = np.empty(np.count_nonzero(good), np.int64)
            self._tracts(ra[good], dec[good], out=some)
            tracts[good] = some

    @abstractmethod
    def _tracts(self, ra: np.ndarray, dec: np.ndarray, out: np.ndarray) -> None:
        """Put in the tracts of a few positions, all of them on the sky."""

    def _checked(self, tract: ArrayLike) -> np.ndarray:
        tracts = np.asarray(tract)
        if tracts.dtype.kind not in "iu":
            raise TypeError(f"tracts are whole numbers, got {tracts.dtype}")
        bad = (tracts < 0) | (tracts >= self.n_tracts)
        if bad.any():
            wrong = tracts[bad].flat[0]
            raise ValueError(f"there is no tract {wrong}; {self} has 0 to {self.n_tracts - 1}")
        return tracts.astype(np.int64)


@dataclass(frozen=True)
class RingsSkyMap(SkyMap):
    """Rings of declination, all of one height, each cut into tracts that are no wider than high.

    Tract 0 is the cap at the south pole; then come the rings from south to north, each eastward
    from the tract that is centered on ``ra_start``; the last is the cap at the north pole. Widths
    are those along the edge of the ring that is nearer to the equator. The numbers are those of
    LSST's rings sky map in its version 1.

    Parameters
    ----------
    num_rings : int
        Rings between the caps.
    ra_start : float, optional
        Right ascension of the center of the first tract of each ring, deg.

    Raises
    ------
    TypeError, ValueError
        If these are not a positive whole number and a finite number.

    Examples
    --------
    >>> sky_map = RingsSkyMap(3)
    >>> sky_map.n_tracts
    26
    >>> sky_map.tract([0.0, 359.0, 30.0, 0.0], [-90.0, -45.0, -45.0, 90.0])
    array([ 0,  1,  2, 25])
    >>> sky_map.box(2)
    (22.5, 67.5, -67.5, -22.5)
    """

    num_rings: int
    ra_start: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_rings", options.count(1)("num_rings", self.num_rings))
        start = options.number("ra_start", self.ra_start, unit=u.deg)
        object.__setattr__(self, "ra_start", start)

    @property
    def n_tracts(self) -> int:
        """How many tracts there are."""
        return int(self._counts.sum())

    @property
    def height(self) -> float:
        """Height of a ring, deg; a cap's is half of it."""
        return 180 / (self.num_rings + 1)

    def center(self, tract: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return right ascension (0 to 360) and declination of the centers of tracts, deg.

        A cap's is the pole, at ``ra_start``. See `SkyMap`.

        Examples
        --------
        >>> RingsSkyMap(3).center([1, 9])
        (array([0., 0.]), array([-45.,   0.]))
        """
        ring, place = self._ring_and_place(tract)
        ra = np.mod(self.ra_start + 360 / self._counts[ring] * place, 360)
        return ra, np.clip(ring * self.height - 90, -90, 90)

    def box(self, tract: int) -> tuple[float, float, float, float]:
        """Return the edges of a tract, ``(ra_min, ra_max, dec_min, dec_max)``, deg.

        ``ra_min`` is between -180 and 360, so that ``ra_max`` is always larger.

        Raises
        ------
        TypeError, ValueError
            If there is no such tract.
        """
        ring, _ = self._ring_and_place(tract)
        ra, dec = self.center(tract)
        half = 180 / self._counts[ring]
        south, north = np.clip([dec - self.height / 2, dec + self.height / 2], -90, 90)
        return float(ra - half), float(ra + half), float(south), float(north)

    def _ring_and_place(self, tract: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        tracts = self._checked(tract)
        ring = np.searchsorted(self._first, tracts, side="right") - 1
        return ring, tracts - self._first[ring]

    # Rings are counted from 1, the caps being ring 0 and the last. All of this is in radians, and
    # in the order in which LSST computes it: at an edge, a rounding error is another tract.

    @cached_property
    def _height(self) -> float:
        return np.pi / (self.num_rings + 1)

    @cached_property
    def _south(self) -> float:
        return self._height * 0.5 - 0.5 * np.pi

    @cached_property
    def _counts(self) -> np.ndarray:
        south = self._height * (np.arange(self.num_rings) + 0.5) - 0.5 * np.pi
        widest = np.minimum(np.abs(south), np.abs(south + self._height))
        inner = (_TURN * np.cos(widest) / self._height).astype(np.int64) + 1
        return np.concatenate([[1], inner, [1]])

    @cached_property
    def _first(self) -> np.ndarray:
        return np.cumsum(self._counts) - self._counts

    @cached_property
    def _widths(self) -> np.ndarray:
        return _TURN / self._counts

    def _tracts(self, ra: np.ndarray, dec: np.ndarray, out: np.ndarray) -> None:
        dec = np.deg2rad(dec)
        ring = np.floor((dec - self._south) / self._height).astype(np.int64)
        ring += 1
        ring[dec > -self._south] = self.num_rings + 1
        east = np.deg2rad(ra)
        east -= np.deg2rad(self.ra_start)
        if east.min() < -_TURN or east.max() >= _TURN:
            east = np.mod(east, _TURN)
        else:  # the same, and three times as quick in all
            east += np.where(east < 0, _TURN, 0.0)
        east /= self._widths[ring]
        east += 0.5
        out[:] = east
        out[out == self._counts[ring]] = 0
        out += self._first[ring]


@dataclass(frozen=True)
class HealpixSkyMap(SkyMap):
    """The pixels of a HEALPix tessellation, in nested order.

    Needs the package hpgeom: ``pip install 'skyfold[healpix]'``.

    Parameters
    ----------
    nside : int
        Resolution; a power of two.

    Raises
    ------
    TypeError, ValueError
        If it is not.

    Examples
    --------
    >>> sky_map = HealpixSkyMap(8)
    >>> sky_map.n_tracts
    768
    >>> sky_map.tract([0.0, 45.0], [-90.0, 1.0])
    array([512,   0])
    """

    nside: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "nside", options.nside("nside", self.nside))

    @property
    def n_tracts(self) -> int:
        """How many tracts there are."""
        return 12 * self.nside**2

    def center(self, tract: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return right ascension and declination of the centers of tracts, deg; see `SkyMap`."""
        return healpix.center(self._checked(tract), self.nside)

    def _tracts(self, ra: np.ndarray, dec: np.ndarray, out: np.ndarray) -> None:
        out[:] = healpix.pixel_of(ra, dec, self.nside)


def sky_map_of(config: ProductsConfig) -> SkyMap:
    """Return the sky map that a configuration asks for.

    Examples
    --------
    >>> sky_map_of(ProductsConfig(sky_map_num_rings=3))
    RingsSkyMap(num_rings=3, ra_start=0.0)
    >>> sky_map_of(ProductsConfig(sky_map="healpix", sky_map_nside=4))
    HealpixSkyMap(nside=4)
    """
    if config.sky_map == "healpix":
        return HealpixSkyMap(config.sky_map_nside)
    return RingsSkyMap(config.sky_map_num_rings, config.sky_map_ra_start)

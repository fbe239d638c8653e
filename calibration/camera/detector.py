"""Detectors: pixel -> focal plane -> field angle -> sky, and back.

Pixels are the detector's own (x, y), 0-based, whole numbers at pixel centers. A place on the focal
plane is in mm, and its field angle in radians: the gnomonic coordinates about the boresight, along
the focal plane's x and y. All functions take arrays that broadcast against each other, of numbers
in these units or with a unit of their own.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from operator import index

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from dask.base import tokenize
from numpy.typing import ArrayLike

from mapreduce import Box
from mapreduce.units import in_unit, number_in

from .focal_plane import Boresight, Pair, RadialTransform

__all__ = ["BaseDetector", "Detector", "WcsDetector", "check_celestial", "sky_of"]

_PAIRS = {"refpos": u.pix, "offset": u.mm, "pixel_size": u.mm}  # of a Detector


class BaseDetector(ABC):
    """What every detector can do, whatever its geometry is made of.

    Attributes
    ----------
    id : int
    name, type : str
    box : Box
        Its pixels.
    """

    id: int
    name: str
    type: str
    box: Box

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "id", index(self.id))
        except TypeError:
            raise TypeError(f"the id of a detector is an integer, got {self.id!r}") from None
        if not isinstance(self.box, Box):
            raise TypeError(f"box must be a mapreduce.Box, got {type(self.box).__name__}")
        if not self.box.area:
            raise ValueError(f"detector {self.id} has no pixels: {self.box}")

    @abstractmethod
    def to_field_angle(self, x: ArrayLike, y: ArrayLike) -> Pair:
        """Return field angles (tx, ty) in rad of positions in pixels."""

    @abstractmethod
    def from_field_angle(self, tx: ArrayLike, ty: ArrayLike) -> Pair:
        """Return positions (x, y) in pixels of field angles in rad; NaN where there is none."""

    def to_sky(self, x: ArrayLike, y: ArrayLike, boresight: Boresight) -> Pair:
        """Return (ra, dec) in deg of positions in pixels."""
        return boresight.to_sky(*self.to_field_angle(x, y))

    def from_sky(self, ra: ArrayLike, dec: ArrayLike, boresight: Boresight) -> Pair:
        """Return positions (x, y) in pixels of sky positions in deg; NaN where there is none."""
        return self.from_field_angle(*boresight.from_sky(ra, dec))

    def corners(self) -> np.ndarray:
        """Return the outer corners of the box, (4, 2) field angles (tx, ty) in rad, in turn."""
        box = self.box
        x = np.array([box.x0, box.x1, box.x1, box.x0]) - 0.5
        y = np.array([box.y0, box.y0, box.y1, box.y1]) - 0.5
        return np.stack(self.to_field_angle(x, y), axis=-1)

    def pixel_area(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Return the area on the sky of pixels at positions (x, y), in sr.

        By forward differences of unit vectors, which make it the area of the square from (x, y)
        to (x + 1, y + 1); it does not depend on the boresight.
        """
        x, y = np.broadcast_arrays(in_unit(x, u.pix, "x"), in_unit(y, u.pix, "y"))
        east = np.array([0.0, 1.0, 0.0]).reshape(3, *(1,) * x.ndim)
        tx, ty = self.to_field_angle(x + east, y + east[[0, 0, 1]])
        tz = 1 / np.sqrt(1 + tx * tx + ty * ty)
        points = tx * tz, ty * tz, tz
        ax, ay, az = (p[1] - p[0] for p in points)
        bx, by, bz = (p[2] - p[0] for p in points)
        return np.sqrt(
            (ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2
        )


@dataclass(frozen=True)
class Detector(BaseDetector):
    """A detector at its place on a flat focal plane.

    A pixel (x, y) is at ``offset + R(yaw) ((x, y) - refpos) * pixel_size``.

    Parameters
    ----------
    id : int
    name, type : str
    box : Box
        Its pixels.
    refpos : (float, float), pixel
        The position that ``offset`` places.
    offset : (float, float), mm
    yaw : float, deg
        Rotation, counter-clockwise.
    pixel_size : (float, float), mm
    transform : RadialTransform
        From the focal plane to field angles.

    Raises
    ------
    TypeError
        If ``id`` is no integer, ``box`` no `Box` or ``transform`` no `RadialTransform`.
    ValueError
        If the box is empty, a number is not finite or a pixel size not positive.

    Examples
    --------
    >>> transform = RadialTransform(1e-4, (0.0, 1.0))
    >>> place = (49.5, 24.5), (-20.0, 10.0), 90.0, (0.01, 0.01), transform
    >>> detector = Detector(3, "S3", "SCIENCE", Box(0, 0, 100, 50), *place)
    >>> [round(float(mm), 6) for mm in detector.to_focal_plane(149.5, 24.5)]
    [-20.0, 11.0]
    >>> [round(float(pixel), 6) for pixel in detector.from_focal_plane(-20.0, 11.0)]
    [149.5, 24.5]
    """

    id: int
    name: str
    type: str
    box: Box
    refpos: tuple[float, float]
    offset: tuple[float, float]
    yaw: float
    pixel_size: tuple[float, float]
    transform: RadialTransform

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, unit in _PAIRS.items():
            x, y = in_unit(getattr(self, name), unit, name).tolist()
            object.__setattr__(self, name, (x, y))
        object.__setattr__(self, "yaw", number_in(self.yaw, u.deg, "yaw"))
        numbers = (*self.refpos, *self.offset, self.yaw, *self.pixel_size)
        if not np.isfinite(numbers).all() or min(self.pixel_size) <= 0:
            raise ValueError(
                f"detector {self.id} needs finite numbers and pixels of positive size, got "
                f"refpos={self.refpos}, offset={self.offset}, yaw={self.yaw}, "
                f"pixel_size={self.pixel_size}"
            )
        if not isinstance(self.transform, RadialTransform):
            raise TypeError(f"transform must be a RadialTransform, got {self.transform!r}")

    def to_focal_plane(self, x: ArrayLike, y: ArrayLike) -> Pair:
        """Return positions on the focal plane in mm of positions in pixels."""
        dx = (in_unit(x, u.pix, "x") - self.refpos[0]) * self.pixel_size[0]
        dy = (in_unit(y, u.pix, "y") - self.refpos[1]) * self.pixel_size[1]
        sin, cos = self._sin_cos
        return self.offset[0] + cos * dx - sin * dy, self.offset[1] + sin * dx + cos * dy

    def from_focal_plane(self, x: ArrayLike, y: ArrayLike) -> Pair:
        """Return positions in pixels of positions on the focal plane in mm."""
        dx, dy = in_unit(x, u.mm, "x") - self.offset[0], in_unit(y, u.mm, "y") - self.offset[1]
        sin, cos = self._sin_cos
        return (
            self.refpos[0] + (cos * dx + sin * dy) / self.pixel_size[0],
            self.refpos[1] + (cos * dy - sin * dx) / self.pixel_size[1],
        )

    def to_field_angle(self, x: ArrayLike, y: ArrayLike) -> Pair:
        """Return field angles (tx, ty) in rad of positions in pixels."""
        return self.transform.to_field_angle(*self.to_focal_plane(x, y))

    def from_field_angle(self, tx: ArrayLike, ty: ArrayLike) -> Pair:
        """Return positions (x, y) in pixels of field angles in rad; NaN where there is none."""
        return self.from_focal_plane(*self.transform.from_field_angle(tx, ty))

    @property
    def _sin_cos(self) -> tuple[float, float]:
        return math.sin(math.radians(self.yaw)), math.cos(math.radians(self.yaw))


@dataclass(frozen=True, eq=False)
class WcsDetector(BaseDetector):
    """A detector that is known by its WCS in one exposure.

    Parameters
    ----------
    id : int
    name, type : str
    box : Box
        Its pixels, in the coordinates of the WCS.
    wcs : astropy.wcs.WCS
        Two axes; it is copied.
    boresight : Boresight
        The place of field angle (0, 0) in that exposure.

    Raises
    ------
    TypeError
        If ``id`` is no integer, ``box`` no `Box` or ``wcs`` no WCS.
    ValueError
        If the box is empty, or the WCS is not of two celestial axes.

    Examples
    --------
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = (
    ...     ["RA---TAN", "DEC--TAN"],
    ...     (10, 20),
    ...     (-0.01, 0.01),
    ... )
    >>> detector = WcsDetector(0, "", "", Box(0, 0, 50, 50), wcs, Boresight(10.0, 20.0))
    >>> [round(float(tx), 9) for tx in detector.to_field_angle(9.0, -1.0)]
    [0.001745329, 0.0]
    """

    id: int
    name: str
    type: str
    box: Box
    wcs: WCS
    boresight: Boresight

    def __post_init__(self) -> None:
        super().__post_init__()
        check_celestial(self.id, self.wcs)
        object.__setattr__(self, "wcs", self.wcs.deepcopy())

    def to_field_angle(self, x: ArrayLike, y: ArrayLike) -> Pair:
        """Return field angles (tx, ty) in rad of positions in pixels."""
        return self.boresight.from_sky(*sky_of(self.wcs, x, y))

    def from_field_angle(self, tx: ArrayLike, ty: ArrayLike) -> Pair:
        """Return positions (x, y) in pixels of field angles in rad; NaN where there is none."""
        tx, ty = np.broadcast_arrays(in_unit(tx, u.rad, "tx"), in_unit(ty, u.rad, "ty"))
        known = np.isfinite(tx) & np.isfinite(ty)
        world = self.boresight.to_sky(np.where(known, tx, 0), np.where(known, ty, 0))
        wcs = self.wcs.deepcopy()
        if wcs.wcs.lng == 1:
            world = world[::-1]
        # Where its iteration diverges, astropy warns and returns anything.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            x, y = wcs.all_world2pix(*world, 0, quiet=True, tolerance=1e-8)
        back_x, back_y = self.to_field_angle(x, y)
        size = math.sqrt(self.pixel_area(*self.box.center))
        missed = ~(np.hypot(back_x - tx, back_y - ty) <= 1e-3 * size)
        return np.where(missed, np.nan, x)[()], np.where(missed, np.nan, y)[()]

    def __dask_tokenize__(self) -> tuple[object, ...]:
        parts = self.id, self.name, self.type, self.box, tokenize(self.boresight)
        return "WcsDetector", *parts, self.wcs.to_header_string(relax=True)


def check_celestial(detector_id: int, wcs: WCS) -> None:
    """Check that a WCS leads from pixels to the sky."""
    if not isinstance(wcs, WCS):
        raise TypeError(
            f"detector {detector_id} needs a WCS or a FITS header, got {type(wcs).__name__}"
        )
    if wcs.naxis != 2 or not wcs.has_celestial:
        raise ValueError(
            f"the WCS of detector {detector_id} must have two celestial axes, has {wcs.naxis} "
            f"axes of type {list(wcs.wcs.ctype)}"
        )


def sky_of(wcs: WCS, x: ArrayLike, y: ArrayLike) -> Pair:
    """Return longitude and latitude in deg of positions in pixels, with all of a WCS's distortions.

    Examples
    --------
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype, wcs.wcs.crval = ["DEC--TAN", "RA---TAN"], (20, 10)
    >>> [round(float(deg), 9) for deg in sky_of(wcs, -1, -1)]
    [10.0, 20.0]
    """
    # A copy, because threads that share a WCS disturb each other.
    x, y = np.broadcast_arrays(in_unit(x, u.pix, "x"), in_unit(y, u.pix, "y"))
    world = wcs.deepcopy().all_pix2world(x, y, 0)
    return world[wcs.wcs.lng], world[wcs.wcs.lat]

"""The optics of a camera: focal plane -> field angle -> sky, and back.

A place on the focal plane is in mm. Its field angle is in radians: the gnomonic coordinates about
the boresight, along the focal plane's x and y. All functions take arrays that broadcast against
each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import astropy.units as u
import numpy as np
from numpy.polynomial.polynomial import Polynomial, polyval
from numpy.typing import ArrayLike

from mapreduce.units import in_unit, number_in, plain

__all__ = ["Boresight", "RadialTransform"]

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Boresight:
    """Where a camera points: field angle <-> sky, gnomonic.

    Parameters
    ----------
    ra, dec : float or array, deg
        Sky position of field angle (0, 0); arrays for points of several visits.
    rotation : float or array, deg, optional
        Position angle (north through east) of the focal plane's +y. With 0, +x is west.

    Raises
    ------
    ValueError
        If ``dec`` is beyond a pole.

    Examples
    --------
    >>> ra, dec = Boresight(150.0, 0.0).to_sky(0.0, np.radians(0.5))
    >>> round(float(dec), 4)
    0.5
    """

    ra: ArrayLike
    dec: ArrayLike
    rotation: ArrayLike = 0.0

    def __post_init__(self) -> None:
        for name in ("ra", "dec", "rotation"):
            angle = in_unit(getattr(self, name), u.deg, name)
            object.__setattr__(self, name, angle if angle.ndim else angle.item())
        if np.any(np.abs(self.dec) > 90):
            raise ValueError(f"dec of a boresight is in degrees from -90 to 90, got {self.dec!s}")

    def to_sky(self, tx: ArrayLike, ty: ArrayLike) -> Pair:
        """Return (ra, dec) in deg of field angles in rad; ra in [0, 360)."""
        xi, eta = self._rotate(in_unit(tx, u.rad, "tx"), in_unit(ty, u.rad, "ty"))
        dec = np.radians(self.dec)
        forward = np.cos(dec) - eta * np.sin(dec)
        up = np.sin(dec) + eta * np.cos(dec)
        ra = (np.degrees(np.arctan2(xi, forward)) + self.ra) % 360
        # The remainder of a tiny negative number rounds to 360.
        return np.where(ra == 360, 0.0, ra)[()], np.degrees(np.arctan2(up, np.hypot(xi, forward)))

    def from_sky(self, ra: ArrayLike, dec: ArrayLike) -> Pair:
        """Return field angles (tx, ty) in rad of positions in deg; NaN at 90 deg and beyond."""
        ra, dec = in_unit(ra, u.deg, "ra"), np.radians(in_unit(dec, u.deg, "dec"))
        turn, dec0 = np.radians(np.subtract(ra, self.ra)), np.radians(self.dec)
        depth = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(turn)
        depth = np.where(depth > 0, depth, np.nan)[()]
        xi = np.cos(dec) * np.sin(turn) / depth
        eta = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(turn)) / depth
        return self._rotate(xi, eta)

    def _rotate(self, x: np.ndarray, y: np.ndarray) -> Pair:
        """From (tx, ty) to (east, north) or back: a reflection, its own inverse."""
        angle = np.radians(self.rotation)
        sin, cos = np.sin(angle), np.cos(angle)
        return sin * y - cos * x, sin * x + cos * y


@dataclass(frozen=True)
class RadialTransform:
    """Focal plane (mm) <-> field angle (rad): along the same direction, radially distorted.

    Parameters
    ----------
    plate_scale : float, rad/mm
    coeffs : sequence of float
        A radius of r mm is at the field angle ``plate_scale * sum(coeffs[k] * r**k)``.

    Raises
    ------
    ValueError
        If a number is not finite, ``plate_scale`` or ``coeffs[1]`` not positive, or ``coeffs[0]``
        not zero.

    Examples
    --------
    >>> transform = RadialTransform(1e-4, (0.0, 1.0, 0.0, 1e-6))
    >>> tx, ty = transform.to_field_angle(100.0, 0.0)
    >>> float(tx), [round(float(mm), 9) for mm in transform.from_field_angle(tx, ty)]
    (0.0101, [100.0, 0.0])
    """

    plate_scale: float
    coeffs: tuple[float, ...]

    def __post_init__(self) -> None:
        coeffs = plain(self.coeffs, u.dimensionless_unscaled, "coeffs")
        coeffs = tuple(float(c) for c in coeffs)
        scale = number_in(self.plate_scale, u.rad / u.mm, "plate_scale")
        object.__setattr__(self, "plate_scale", scale)
        object.__setattr__(self, "coeffs", coeffs)
        if not 0 < self.plate_scale < math.inf:
            raise ValueError(f"the plate scale must be positive, got {self.plate_scale}")
        good = len(coeffs) > 1 and coeffs[0] == 0 and coeffs[1] > 0 and np.isfinite(coeffs).all()
        if not good:
            raise ValueError(
                "radial coefficients must be finite numbers for r**0, r**1, ... with coeffs[0] = 0 "
                f"and coeffs[1] > 0, got {list(coeffs)}"
            )

    @cached_property
    def max_radius(self) -> float:
        """Radius in mm at which field angles turn back: positions beyond have no inverse."""
        roots = Polynomial(self.coeffs).deriv().roots()
        turns = roots.real[(abs(roots.imag) <= 1e-9 * abs(roots)) & (roots.real > 0)]
        return float(turns.min(initial=math.inf))

    def to_field_angle(self, x: ArrayLike, y: ArrayLike) -> Pair:
        """Return field angles (tx, ty) in rad of positions in mm."""
        x, y = in_unit(x, u.mm, "x"), in_unit(y, u.mm, "y")
        scale = self.plate_scale * polyval(np.sqrt(x * x + y * y), self.coeffs[1:])
        return scale * x, scale * y

    def from_field_angle(self, tx: ArrayLike, ty: ArrayLike) -> Pair:
        """Return positions in mm of field angles in rad, by Newton's method; NaN beyond the edge.

        The edge is that of `max_radius`.
        """
        tx, ty = in_unit(tx, u.rad, "tx"), in_unit(ty, u.rad, "ty")
        x, y = tx / self.plate_scale, ty / self.plate_scale
        wanted = np.hypot(x, y)
        slope = [k * c for k, c in enumerate(self.coeffs)][1:]
        top = np.nextafter(self.max_radius, 0) if math.isfinite(self.max_radius) else math.inf
        with np.errstate(all="ignore"):
            radius = np.minimum(wanted / self.coeffs[1], top)
            for _ in range(50):
                excess = radius * polyval(radius, self.coeffs[1:]) - wanted
                step = excess / polyval(radius, slope)
                radius = np.clip(radius - step, 0, top)
                # Written so that NaN, which nothing improves, does not go on.
                if not np.any(abs(step) > 1e-14 * radius):
                    break
            scale = 1 / polyval(radius, self.coeffs[1:])
            missed = ~(abs(radius / scale - wanted) <= 1e-12 * wanted)
        scale = np.where(missed, np.nan, scale)[()]
        return scale * x, scale * y

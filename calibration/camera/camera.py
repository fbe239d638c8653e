"""Camera: the detectors of a focal plane, and how the area of their pixels varies.

From a table of the geometry (an ECSV file, or an astropy Table), or from the WCS of every detector
in one exposure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, lru_cache
from os import PathLike
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from dask.base import tokenize
from numpy.polynomial.chebyshev import chebvander
from numpy.typing import ArrayLike

from mapreduce import Box
from mapreduce.io.stream import complete_first
from mapreduce.units import in_unit, number_in

from ..fields.chebyshev import ChebyshevField
from ..fields.series import unit
from ..texts import plural, said_by
from .detector import BaseDetector
from .focal_plane import Boresight, Pair
from .geometry import read_table, read_wcs, to_table

__all__ = ["Camera"]

_AREA_ORDER = 3  # Chebyshev terms in x and in y
_AREA_GRID = 100  # points in x and in y


class Camera(Mapping[int, BaseDetector]):
    """A mapping of detector id to detector, in the camera's own order.

    Parameters
    ----------
    detectors : iterable of Detector or WcsDetector
    name : str, optional
    pixel_scale : float, arcsec, optional
        The scale whose square is the area that pixel areas are relative to. Default: the median
        over the detectors, each at the center of its box.

    Raises
    ------
    ValueError
        If there is no detector, an id occurs twice, or a pixel scale is not a positive number.

    Examples
    --------
    >>> radial = {"transformType": "radial", "coeffs": [0.0, 1.0]}
    >>> meta = {"plate_scale_arcsec_per_mm": 20.0, "transforms": {"FieldAngle": radial}}
    >>> table = Table({"id": [7], "name": ["S7"], "type": ["SCIENCE"], "yaw": [90.0]}, meta=meta)
    >>> table["width"], table["height"], table["refpos_x"], table["refpos_y"] = 100, 50, 49.5, 24.5
    >>> table["offset_x"], table["offset_y"] = -30.0, 0.0
    >>> table["pixel_x"] = table["pixel_y"] = 0.01
    >>> camera = Camera.from_table(table)
    >>> camera, round(camera.pixel_scale, 3), camera.pixel_area_field(7).order
    (Camera('', 1 detector, id 7), 0.2, (3, 3))
    """

    def __init__(
        self,
        detectors: Iterable[BaseDetector],
        *,
        name: str = "",
        pixel_scale: float | None = None,
    ) -> None:
        detectors = list(detectors)
        self._detectors = {detector.id: detector for detector in detectors}
        self.name = name
        if not detectors:
            raise ValueError("a camera needs at least one detector")
        ids = [detector.id for detector in detectors]
        if twice := sorted({number for number in ids if ids.count(number) > 1}):
            raise ValueError(f"detector ids must be unique, found more than once: {twice}")
        if pixel_scale is None:
            self.pixel_scale = self._median_pixel_scale()
        else:
            units = u.arcsec, u.arcsec / u.pix
            self.pixel_scale = number_in(pixel_scale, units, "pixel_scale")
        if not 0 < self.pixel_scale < np.inf:
            raise ValueError(f"the pixel scale must be a positive number, got {self.pixel_scale}")

    @classmethod
    def open(cls, path: str | PathLike[str]) -> Camera:
        """Read the geometry of a camera from an ECSV file; see `from_table`.

        Raises
        ------
        OSError
            If the file is missing, or can't be read.
        ValueError
            If it is no ECSV, or as `from_table`.
        """
        try:
            return cls.from_table(Table.read(path, format="ascii.ecsv"))
        except OSError:
            raise
        except Exception as error:  # of what all astropy's reader of ECSV fails with
            raise ValueError(f"{path}: {said_by(error)}") from error

    @classmethod
    def from_table(cls, table: Table) -> Camera:
        """Make a camera from a table with one row per detector, in the camera's order.

        Parameters
        ----------
        table : Table
            Columns id, name, type; width, height [pix]; refpos_x, refpos_y [pix], the position
            that offset_x, offset_y [mm] place on the focal plane; yaw [deg], counter-clockwise;
            pixel_x, pixel_y [mm]. Other units are converted, columns without one are in these. In
            ``table.meta``: ``plate_scale_arcsec_per_mm`` and
            ``transforms["FieldAngle"]["coeffs"]`` of `RadialTransform`; optionally ``camera``, its
            name, and ``pixel_scale_arcsec``.

        Raises
        ------
        ValueError
            If columns or metadata are missing or wrong; the message names all of them.
        """
        table = Table(table, copy=False)
        name, scale = table.meta.get("camera", ""), table.meta.get("pixel_scale_arcsec")
        return cls(read_table(table), name=str(name), pixel_scale=scale)

    @classmethod
    def from_wcs(
        cls,
        headers: Mapping[int, fits.Header | WCS],
        boxes: Mapping[int, Box] | None = None,
        *,
        name: str = "",
    ) -> Camera:
        """Make a camera from the WCS of every detector in one exposure.

        Pixel areas are those of the WCS itself, with all its distortions. Field angles are about
        the mean direction of the detectors, with north at +y and west at +x, so that
        ``camera.boresight`` leads back to the sky of the headers and any other boresight points
        the same camera elsewhere.

        Parameters
        ----------
        headers : mapping of detector id to FITS header or astropy.wcs.WCS
            In the camera's order.
        boxes : mapping of detector id to Box, optional
            The pixels of each detector, in the coordinates of its WCS. Default: the size that the
            header or WCS states, from (0, 0).

        Raises
        ------
        ValueError
            If a detector has no celestial WCS or no size, or the detectors do not look in one
            direction.
        KeyError
            If ``boxes`` is given without one of the detectors.

        Examples
        --------
        >>> cards = {"NAXIS": 2, "NAXIS1": 50, "NAXIS2": 40, "CRVAL1": 30, "CRVAL2": 0}
        >>> cards |= {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.01, "CDELT2": 0.01}
        >>> camera = Camera.from_wcs({4: fits.Header(cards)})
        >>> ra, dec = camera[4].to_sky(-1, -1, camera.boresight)
        >>> camera[4].box, round(float(ra), 6)
        (Box(x0=0, y0=0, width=50, height=40), 30.0)
        """
        return cls(read_wcs(headers, boxes), name=name)

    def to_table(self) -> Table:
        """Return the geometry as the table that `from_table` reads.

        Raises
        ------
        ValueError
            If a detector is known by its WCS, its box does not start at (0, 0), or detectors have
            different transforms: the table cannot say so.
        """
        table = to_table(list(self.values()), self.name)
        if self.pixel_scale != self._median_pixel_scale():
            table.meta["pixel_scale_arcsec"] = self.pixel_scale
        return table

    def write(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the geometry as an ECSV file that `open` reads; see `to_table`.

        Raises
        ------
        FileExistsError
            If there is such a file and ``overwrite`` is false.
        """
        table = self.to_table()
        with complete_first(Path(path), overwrite) as temporary:
            table.write(temporary, format="ascii.ecsv")

    def select(self, choose: Iterable[int] | Callable[[BaseDetector], bool]) -> Camera:
        """Return the camera with some of its detectors only, in its order and of its pixel scale.

        Parameters
        ----------
        choose : iterable of int, or function
            The ids, or a function of a detector that says whether it stays.
        """
        if callable(choose):
            chosen = [detector for detector in self.values() if choose(detector)]
        else:
            wanted = {self[number].id for number in choose}
            chosen = [detector for detector in self.values() if detector.id in wanted]
        return Camera(chosen, name=self.name, pixel_scale=self.pixel_scale)

    @property
    def ids(self) -> np.ndarray:
        """Detector ids, (n,) int64, in camera order."""
        return np.fromiter(self._detectors, np.int64, len(self))

    @property
    def boresight(self) -> Boresight | None:
        """Where the exposure of `from_wcs` points; None for a camera from a table."""
        return getattr(next(iter(self.values())), "boresight", None)

    def corners(self) -> np.ndarray:
        """Return the outer corners of all detectors, (n, 4, 2) field angles (tx, ty) in rad.

        Made for pictures: ``PolyCollection(np.degrees(camera.corners()))``.
        """
        return np.array([detector.corners() for detector in self.values()])

    def to_field_angle(self, detector: ArrayLike, x: ArrayLike, y: ArrayLike) -> Pair:
        """Return field angles (tx, ty) in rad of positions in pixels, each on its own detector.

        Parameters
        ----------
        detector : array of int
            Detector ids.
        x, y : arrays of float, pixel
            All three are broadcast against each other.

        Raises
        ------
        KeyError
            If the camera has no such detector.
        """
        x, y = in_unit(x, u.pix, "x"), in_unit(y, u.pix, "y")
        detector, x, y = np.broadcast_arrays(detector, x, y)
        angles, x, y = np.empty((2, detector.size)), x.ravel(), y.ravel()
        for number, here in _groups(detector):
            angles[:, here] = self[number].to_field_angle(x[here], y[here])
        tx, ty = angles.reshape(2, *detector.shape)
        return tx, ty

    def to_sky(self, detector: ArrayLike, x: ArrayLike, y: ArrayLike, boresight: Boresight) -> Pair:
        """Return (ra, dec) in deg of positions in pixels; see `to_field_angle`."""
        return boresight.to_sky(*self.to_field_angle(detector, x, y))

    def locate(self, tx: ArrayLike, ty: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the detector and pixel of field angles in rad.

        Returns
        -------
        detector : int64 array
            Detector ids, in camera order the first whose box covers the position; -1 for none.
        x, y : float64 arrays, pixel
            NaN for none.
        """
        tx, ty = np.broadcast_arrays(in_unit(tx, u.rad, "tx"), in_unit(ty, u.rad, "ty"))
        found = np.full(tx.shape, -1)
        x, y = np.full((2, *tx.shape), np.nan)
        for detector in reversed(self._detectors.values()):
            corners = detector.corners()
            middle = corners.mean(axis=0)
            reach = 1.1 * np.hypot(*(corners - middle).T).max()
            near = np.nonzero(np.hypot(tx - middle[0], ty - middle[1]) <= reach)
            here_x, here_y = detector.from_field_angle(tx[near], ty[near])
            box = detector.box
            inside = (box.x0 - 0.5 <= here_x) & (here_x < box.x1 - 0.5)
            inside &= (box.y0 - 0.5 <= here_y) & (here_y < box.y1 - 0.5)
            here = tuple(axis[inside] for axis in near)
            found[here], x[here], y[here] = detector.id, here_x[inside], here_y[inside]
        return found, x, y

    def pixel_area_field(self, detector_id: int) -> ChebyshevField:
        """Return the area of a detector's pixels, relative to the square of `pixel_scale`.

        A Chebyshev field of 3 x 3 terms over the detector's box, fitted to one-pixel differences
        on a grid of 100 x 100 positions from corner pixel to corner pixel.
        """
        detector = self[detector_id]
        return self._area_fields[detector.id]

    def area_coefficients(self) -> np.ndarray:
        """Return the coefficients of all pixel-area fields, (n, 3, 3) in camera order, read-only.

        Computed once, in 0.1 s to 0.4 s for 189 detectors.

        Raises
        ------
        ValueError
            If a pixel of a detector has no area: its WCS is not valid there.
        """
        return self._area_coefficients

    @cached_property
    def _area_coefficients(self) -> np.ndarray:
        fits = [_fit_area(detector) for detector in self.values()]
        coefficients = np.array(fits) / np.radians(self.pixel_scale / 3600) ** 2
        coefficients.flags.writeable = False
        return coefficients

    @cached_property
    def _area_fields(self) -> dict[int, ChebyshevField]:
        stack = zip(self.values(), self._area_coefficients, strict=True)
        return {detector.id: ChebyshevField(detector.box, c) for detector, c in stack}

    def _median_pixel_scale(self) -> float:
        areas = [detector.pixel_area(*detector.box.center) for detector in self.values()]
        return float(np.degrees(np.median(np.sqrt(areas))) * 3600)

    def __getitem__(self, detector_id: int) -> BaseDetector:
        try:
            return self._detectors[detector_id]
        except (KeyError, TypeError):
            raise KeyError(f"there is no detector {detector_id!r} in {self!r}") from None

    def __iter__(self) -> Iterator[int]:
        return iter(self._detectors)

    def __len__(self) -> int:
        return len(self._detectors)

    def __repr__(self) -> str:
        ids = self.ids
        span = f"id {ids[0]}" if len(ids) == 1 else f"ids from {ids.min()} to {ids.max()}"
        return f"Camera({self.name!r}, {plural(len(ids), 'detector')}, {span})"

    def __dask_tokenize__(self) -> tuple[object, ...]:
        return "Camera", self.name, self.pixel_scale, [tokenize(d) for d in self.values()]


def _groups(detector: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each detector id with the places where it stands in an array, flattened."""
    flat = detector.ravel()
    order = np.argsort(flat, kind="stable")
    ids, starts = np.unique(flat[order], return_index=True)
    yield from zip(ids.tolist(), np.split(order, starts[1:]), strict=True)


def _fit_area(detector: BaseDetector) -> np.ndarray:
    """Fit a detector's pixel area in sr; least squares on a grid separates into x and y."""
    box = detector.box
    x = np.linspace(box.x0, box.x1 - 1, _AREA_GRID)
    y = np.linspace(box.y0, box.y1 - 1, _AREA_GRID)
    area = detector.pixel_area(x, y[:, None])
    if not (area > 0).all():
        raise ValueError(f"detector {detector.id} has pixels without an area on the sky")
    return _fitter(box.height) @ area @ _fitter(box.width).T


@lru_cache(maxsize=16)
def _fitter(size: int) -> np.ndarray:
    """Return the pseudo-inverse from values on the grid along one axis to coefficients."""
    return np.linalg.pinv(
        chebvander(unit(np.linspace(0, size - 1, _AREA_GRID), 0, size), _AREA_ORDER - 1)
    )

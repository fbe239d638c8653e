"""PhotoCalib: the calibration of one detector's fluxes; VisitPhotoCalib: those of one visit.

From instrumental fluxes to nanojanskys and AB magnitudes, with a calibration that is a
Chebyshev field over the detector.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import astropy.units as u
import numpy as np
from astropy.table import Table
from numpy.typing import ArrayLike

from mapreduce import Box, Exposure
from mapreduce.units import CALIBRATION, in_unit, number_in, plain

from ..fields.chebyshev import ChebyshevField
from ..fields.series import MARGIN, evaluate_mixed, within
from ..search import find
from ..tables.fields import as_table, fields_like
from ..texts import listed, plural
from .afw import read_exposure_catalog, read_photo_calib
from .flux import AB_MAGNITUDE, calibrated, magnitude, nanojansky

__all__ = ["PhotoCalib", "VisitPhotoCalib"]

_EDGES = ("x_min", "y_min", "x_max", "y_max")
_COLUMNS = {
    "visit": ("", "visit number"),
    "detector": ("", "detector id"),
    "x_min": ("pix", "first column of the detector's box"),
    "y_min": ("pix", "first row of the detector's box"),
    "x_max": ("pix", "last column of the detector's box"),
    "y_max": ("pix", "last row of the detector's box"),
    "coefficients": ("nJy", "Chebyshev series in y and x of the flux of one unit"),
    "mean": ("nJy", "mean over the box of the flux of one unit"),
    "err": ("nJy", "1-sigma error of the mean"),
    "zpt": ("mag", "AB magnitude of a source of one unit"),
}


@dataclass(frozen=True)
class PhotoCalib:
    """The calibration of one detector in one visit, which may vary over the detector.

    Parameters
    ----------
    field : ChebyshevField
        nJy per unit of instrumental flux, in the detector's pixel coordinates.
    mean : float, optional
        Its mean, to which ``err`` belongs; default the value at the center of the box.
    err : float, optional
        1-sigma error of the mean, in the same unit.

    Raises
    ------
    TypeError
        If ``field`` is not a `ChebyshevField`.
    ValueError
        If the mean is not positive, or the error negative or NaN.

    Examples
    --------
    >>> field = ChebyshevField(Box(0, 0, 100, 100), [[2.0, 0.5]])
    >>> photo_calib = PhotoCalib(field, err=0.02)
    >>> photo_calib.calibration([-0.5, 49.5], [0, 0])
    array([1.5, 2. ])
    >>> photo_calib.to_nanojansky(1000.0, 10.0, x=49.5, y=0)
    (np.float64(2000.0), np.float64(28.284271247461902))
    >>> photo_calib.to_magnitude(500.0, x=49.5, y=0)
    np.float64(23.9)
    """

    field: ChebyshevField
    mean: float | None = None
    err: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.field, ChebyshevField):
            raise TypeError(f"field must be a ChebyshevField, got {type(self.field).__name__}")
        err = number_in(self.err, CALIBRATION, "err")
        mean = self.field.center
        if self.mean is not None:
            mean = number_in(self.mean, CALIBRATION, "mean")
        if not 0 < mean < math.inf:
            raise ValueError(f"the mean of a calibration must be positive, got {mean}")
        if not 0 <= err < math.inf:
            raise ValueError(f"the error of a calibration cannot be {err}")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "err", err)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> PhotoCalib:
        """Read one that LSST's afw wrote: a file of its own, or that of an exposure.

        Constants, Chebyshev fields and products of them can be read. A constant that has no box
        gets one of 2**31 pixels about the origin.

        Raises
        ------
        OSError
            If the file is missing, not FITS, or truncated.
        ValueError
            If it holds no PhotoCalib, or one of another kind.

        Examples
        --------
        >>> PhotoCalib.open("calexp-849375-12.fits.fz").mean  # doctest: +SKIP
        0.5432242058849329
        """
        return cls(*read_photo_calib(path))

    @property
    def box(self) -> Box:
        """The pixels for which it holds."""
        return self.field.box

    def calibration(self, x: ArrayLike, y: ArrayLike, *, margin: float = MARGIN) -> np.ndarray:
        """Return nJy per unit of instrumental flux at positions in pixels.

        Parameters
        ----------
        x, y : array_like
            Pixels, broadcast against each other.
        margin : float, optional
            How far off the detector the polynomial still holds, pixels, as for centroids of sources
            at its edge; NaN beyond. Infinite for what it gives anywhere.
        """
        inside = within(np.array([self.box]), 0, x, y, margin)
        return np.where(inside, self.field(x, y), np.nan)[()]

    def to_nanojansky(
        self,
        inst_flux: ArrayLike,
        inst_flux_err: ArrayLike | None = None,
        *,
        x: ArrayLike,
        y: ArrayLike,
        margin: float = MARGIN,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return fluxes in nJy; with ``inst_flux_err``, fluxes and their errors.

        The error is that of the instrumental flux and of the calibration's mean together. All
        arguments are broadcast against each other. Fluxes may say that they are in adu, electrons
        or counts, per second or not; the calibration is per one of that, whatever it is. Off the
        detector by more than ``margin`` pixels there is no calibration, and the flux is NaN.
        """
        return nanojansky(
            inst_flux, inst_flux_err, self.calibration(x, y, margin=margin), self._relative_err
        )

    def to_magnitude(
        self,
        inst_flux: ArrayLike,
        inst_flux_err: ArrayLike | None = None,
        *,
        x: ArrayLike,
        y: ArrayLike,
        margin: float = MARGIN,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return AB magnitudes; with ``inst_flux_err``, magnitudes and their errors.

        NaN for negative fluxes, infinite for zero; otherwise as `to_nanojansky`.
        """
        return magnitude(
            inst_flux, inst_flux_err, self.calibration(x, y, margin=margin), self._relative_err
        )

    def calibrate(
        self,
        exposure: Exposure,
        *,
        include_error: bool = False,
        tile: int | tuple[int, int] | None = None,
    ) -> Exposure:
        """Return an exposure in nJy: the image times the calibration, the variance its square.

        Lazy: a `mapreduce.map_reduce` over cells without borders. Pixels keep their mask, and
        where only the variance is NaN, their flux.

        Parameters
        ----------
        exposure : Exposure
            In instrumental flux per pixel, on pixels that the calibration covers. An image of
            integers becomes one of floats.
        include_error : bool, optional
            Add ``flux**2 * (err / mean)**2`` to the variance. This part is common to all pixels,
            and does not average out.
        tile : int or (int, int), optional
            As for `mapreduce.map_reduce`; default about 2 million pixels. For an exposure that is
            stored in chunks, or made in them, give a multiple of their size. The last bit of the
            calibration may depend on it.

        Returns
        -------
        Exposure
            Lazy; the header's BUNIT is nJy.

        Raises
        ------
        TypeError
            If it is not an Exposure.
        ValueError
            If the exposure reaches outside of ``box``, is in nJy already, or has no variance for
            ``include_error``.

        Examples
        --------
        >>> photo_calib = PhotoCalib(ChebyshevField(Box(0, 0, 100, 100), [[2.0]]))
        >>> exposure = Exposure(np.full((3, 4), 5.0), origin=(10, 20))
        >>> result = photo_calib.calibrate(exposure).compute()
        >>> result.image[0], result.meta["BUNIT"]
        (array([10., 10., 10., 10.]), 'nJy')
        """
        return calibrated(exposure, self.field, self._relative_err if include_error else None, tile)

    @property
    def _relative_err(self) -> float:
        return self.err / cast("float", self.mean)  # a number, once `self` is made


@dataclass(frozen=True, eq=False, repr=False)
class VisitPhotoCalib(Mapping[int, PhotoCalib]):
    """The calibrations of one visit: a mapping from detector id to `PhotoCalib`, kept as stacks.

    Parameters
    ----------
    visit : int
    detectors : (n,) array of int
        Ids; sorted on construction, and everything else with them.
    boxes : (n, 4) array of int
        x0, y0, width and height of each detector's box.
    coefficients : (n, ny, nx) array of float
        Of the fields, in nJy per unit of instrumental flux.
    mean, err : (n,) arrays of float
        Of the calibrations, in the same unit.

    Raises
    ------
    ValueError
        If shapes differ, a detector is there twice, or a value cannot be (NaN, a mean that is not
        positive); it names the visit.

    Examples
    --------
    >>> box = Box(0, 0, 100, 100)
    >>> visit = VisitPhotoCalib(42, [7, 3], [box, box], [[[2.0]], [[3.0]]], [2, 3], [0.1, 0.1])
    >>> list(visit), visit[7].mean
    ([3, 7], 2.0)
    >>> visit.to_nanojansky([10.0, 10.0, 20.0], detector=[3, 7, 7], x=50, y=50)
    array([30., 20., 40.])
    """

    visit: int
    detectors: np.ndarray
    boxes: np.ndarray
    coefficients: np.ndarray
    mean: np.ndarray
    err: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "visit", int(self.visit))
        order = np.argsort(self.detectors, kind="stable")
        made = {
            "detectors": np.asarray(self.detectors, np.int64),
            "boxes": np.asarray(plain(self.boxes, u.pix, "boxes"), np.int64),
            **{
                name: in_unit(getattr(self, name), CALIBRATION, f"{name} of visit {self.visit}")
                for name in ("coefficients", "mean", "err")
            },
        }
        for name, values in made.items():
            if len(values) != len(order):
                raise ValueError(
                    f"visit {self.visit}: {name} are of {len(values)} and detectors {len(order)}"
                )
            values = values[order]
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        self._check()

    def _check(self) -> None:
        n = len(self.detectors)
        if self.boxes.shape != (n, 4) or self.coefficients.ndim != 3 or self.mean.shape != (n,):
            raise ValueError(
                f"visit {self.visit}: boxes must be (n, 4), coefficients (n, ny, nx), mean and err "
                f"(n,); got {self.boxes.shape}, {self.coefficients.shape} and {self.mean.shape}"
            )
        wrong = {
            "more than one calibration": np.diff(self.detectors, prepend=self.detectors[:1] - 1)
            == 0,
            "an empty box": (self.boxes[:, 2:] <= 0).any(axis=1),
            "coefficients that are not finite": ~np.isfinite(self.coefficients).all(axis=(1, 2)),
            "a mean that is not positive": ~((self.mean > 0) & (self.mean < np.inf)),
            "an error that cannot be": ~((self.err >= 0) & (self.err < np.inf)),
        }
        for problem, rows in wrong.items():
            if rows.any():
                detectors = listed(self.detectors[rows], noun="detector")
                raise ValueError(f"visit {self.visit}: {detectors} with {problem}")

    @classmethod
    def from_photo_calibs(cls, visit: int, photo_calibs: Mapping[int, Any]) -> VisitPhotoCalib:
        """Make one of the `PhotoCalib` of each detector; their orders may differ.

        Examples
        --------
        >>> single = PhotoCalib(ChebyshevField(Box(0, 0, 100, 100), [[2.0]]))
        >>> VisitPhotoCalib.from_photo_calibs(42, {3: single})[3] == single
        True
        """
        members = list(photo_calibs.values())
        orders = [member.field.order for member in members] or [(1, 1)]
        coefficients = np.zeros((len(members), *np.max(orders, axis=0)))
        for stored, member, (ny, nx) in zip(coefficients, members, orders, strict=False):
            stored[:ny, :nx] = member.field.coefficients
        boxes = np.array([member.field.box for member in members]).reshape(-1, 4)
        mean, err = (np.array([getattr(m, name) for m in members]) for name in ("mean", "err"))
        return cls(visit, np.array([*photo_calibs], np.int64), boxes, coefficients, mean, err)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> VisitPhotoCalib:
        """Read an exposure catalog that LSST's afw wrote: a visit summary, or FGCM's product.

        Detectors without a photoCalib are left out. A constant that has no box gets that of the
        detector, or, if that is empty, one of 2**31 pixels about the origin.

        Raises
        ------
        OSError
            If the file is missing, not FITS, or truncated.
        ValueError
            If it is no such catalog, is of several visits, or holds fields of another kind.

        Examples
        --------
        >>> VisitPhotoCalib.open("visitSummary-849375.fits")  # doctest: +SKIP
        <VisitPhotoCalib of visit 849375: 1 detector, coefficients (1, 1)>
        """
        return cls.from_photo_calibs(*read_exposure_catalog(path))

    def to_table(self) -> Table:
        """Return one row per detector, sorted by detector.

        Columns: ``visit``; ``detector``; ``x_min``, ``y_min``, ``x_max``, ``y_max``, the corner
        pixels of the box, inclusive; ``coefficients`` (ny, nx), ``mean`` and ``err`` in nJy, per
        unit of instrumental flux, whatever that is; ``zpt``, the AB magnitude of a source with
        one such unit.

        Examples
        --------
        >>> box = Box(0, 0, 100, 50)
        >>> table = VisitPhotoCalib(42, [7], [box], [[[2.0]]], [2.0], [0.1]).to_table()
        >>> table["detector", "x_max", "y_max", "mean"][0].as_void().tolist()
        (7, 99, 49, 2.0)
        >>> VisitPhotoCalib.from_table(table)[7].err
        0.1
        """
        start, size = self.boxes[:, :2], self.boxes[:, 2:]
        columns = {"visit": np.full(len(self), self.visit), "detector": self.detectors}
        columns |= zip(_EDGES, np.hstack([start, start + size - 1]).T, strict=True)
        columns |= {name: getattr(self, name) for name in ("coefficients", "mean", "err")}
        columns["zpt"] = AB_MAGNITUDE - 2.5 * np.log10(self.mean)
        return as_table(columns, fields_like(columns, _COLUMNS))

    @classmethod
    def from_table(cls, table: Table) -> VisitPhotoCalib:
        """Make one of a table as `to_table` returns it, in memory or read from a file.

        Raises
        ------
        ValueError
            If a column is missing or has another unit, a value is masked, or there are rows of
            several visits.
        """
        if missing := {"visit", "detector", *_EDGES, "coefficients", "mean", "err"} - set(
            table.colnames
        ):
            raise ValueError(f"the table of a visit lacks the columns {sorted(missing)}")
        visits = np.unique(table["visit"])
        if len(visits) != 1:
            raise ValueError(f"the table must be of one visit, and has rows of {visits.tolist()}")
        x0, y0, x1, y1 = (np.asarray(plain(table[n], u.pix, f"column {n}")) for n in _EDGES)
        boxes = np.column_stack([x0, y0, x1 - x0 + 1, y1 - y0 + 1])
        values = (_unmasked(table, name) for name in ("coefficients", "mean", "err"))
        return cls(int(visits[0]), np.asarray(table["detector"]), boxes, *values)

    # The mapping

    def __getitem__(self, detector: int) -> PhotoCalib:
        i = int(self._rows(detector))
        field = ChebyshevField(Box(*self.boxes[i].tolist()), self.coefficients[i])
        return PhotoCalib(field, self.mean[i], self.err[i])

    def __iter__(self) -> Iterator[int]:
        return iter(self.detectors.tolist())

    def __len__(self) -> int:
        return len(self.detectors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VisitPhotoCalib):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in self.__dataclass_fields__
        )

    def __repr__(self) -> str:
        detectors, order = plural(len(self), "detector"), self.coefficients.shape[1:]
        return f"<VisitPhotoCalib of visit {self.visit}: {detectors}, coefficients {order}>"

    def _rows(self, detector: ArrayLike) -> np.ndarray:
        """Return the rows of detectors; KeyError if there is none."""
        detector = np.asarray(detector)
        rows, found = find(self.detectors, detector)
        if not np.all(found):
            missing = listed(np.unique(detector[~found]), noun="detector")
            raise KeyError(f"visit {self.visit} has no calibration of {missing}")
        return rows

    # Catalogs of mixed detectors

    def calibration(
        self, detector: ArrayLike, x: ArrayLike, y: ArrayLike, *, margin: float = MARGIN
    ) -> np.ndarray:
        """Return nJy per unit of instrumental flux at positions on detectors, all broadcast.

        NaN off the detector by more than ``margin`` pixels, as `PhotoCalib.calibration`.

        Raises
        ------
        KeyError
            If there is no calibration of a detector; it names them. Leave out their sources with
            ``np.isin(detector, visit_photo_calib.detectors)``.
        """
        return self._factors(detector, x, y, margin)[0]

    def _factors(
        self, detector: ArrayLike, x: ArrayLike, y: ArrayLike, margin: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return nJy per unit of instrumental flux, and its relative error."""
        rows = self._rows(detector)
        calibration = evaluate_mixed(self.boxes, self.coefficients, rows, x, y)
        inside = within(self.boxes, rows, x, y, margin)
        return np.where(inside, calibration, np.nan)[()], (self.err / self.mean)[rows]

    def to_nanojansky(
        self,
        inst_flux: ArrayLike,
        inst_flux_err: ArrayLike | None = None,
        *,
        detector: ArrayLike,
        x: ArrayLike,
        y: ArrayLike,
        margin: float = MARGIN,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return fluxes in nJy; as `PhotoCalib.to_nanojansky`, for sources on any detectors."""
        return nanojansky(inst_flux, inst_flux_err, *self._factors(detector, x, y, margin))

    def to_magnitude(
        self,
        inst_flux: ArrayLike,
        inst_flux_err: ArrayLike | None = None,
        *,
        detector: ArrayLike,
        x: ArrayLike,
        y: ArrayLike,
        margin: float = MARGIN,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return AB magnitudes; as `PhotoCalib.to_magnitude`, for sources on any detectors."""
        return magnitude(inst_flux, inst_flux_err, *self._factors(detector, x, y, margin))


def _unmasked(table: Table, name: str) -> Any:
    """Return a column that has no missing values."""
    if np.any(getattr(table[name], "mask", False)):
        raise ValueError(f"column {name} of the table has masked values")
    return table[name]

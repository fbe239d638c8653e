"""From the zeropoints of one visit to the calibrations of its detectors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import astropy.units as u
import numpy as np
from numpy.typing import ArrayLike

from mapreduce import Box
from mapreduce.units import in_unit, number_in, plain

from ..fields.chebyshev import product
from ..fields.series import evaluate
from ..search import find
from ..tables.catalog import MISSING
from ..tables.fields import filled
from ..texts import listed
from .flux import AB_FLUX
from .photocalib import VisitPhotoCalib

__all__ = [
    "NO_VALUE",
    "NO_ZEROPOINT",
    "BadZeropointsError",
    "CalibrationWarning",
    "NoZeropointError",
    "Zeropoints",
    "calibrate_visit",
    "has_zeropoint",
    "usable_zeropoints",
    "visit_photo_calib",
]

NO_ZEROPOINT = 16  # bit of fgcmFlag
NO_VALUE = -9999
_UNITS = {  # of columns that have one
    "fgcmZpt": u.mag,
    "fgcmZptVar": u.mag**2,
    "fgcmfZptChebXyMax": u.pix,
    "fgcmDeltaChrom": u.mag,
}


class NoZeropointError(ValueError):
    """A visit without a zeropoint that can be used: it has no calibration."""


class BadZeropointsError(NoZeropointError):
    """A visit of whose zeropoints none can be used, because something is wrong with them."""


class CalibrationWarning(UserWarning):
    """Some detectors of a visit have a zeropoint and yet no calibration."""


def visit_photo_calib(
    visit: int,
    rows: Mapping[str, ArrayLike],
    scaling: Mapping[int, float] | tuple[ArrayLike, ArrayLike],
    *,
    offset: float = 0.0,
    area: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    apply_mean_chromatic_correction: bool = True,
) -> VisitPhotoCalib:
    """Make the calibrations of a visit of its zeropoints.

    Of each detector: superstar field * zeropoint field in nJy * 10**(-0.4 (offset +
    fgcmDeltaChrom)) * scaling [* pixel area]. Vectorized over detectors.

    Parameters
    ----------
    visit : int
    rows : mapping of str to arrays
        The visit's zeropoints, in any order: detector, fgcmFlag, fgcmZpt, fgcmZptVar,
        fgcmfZptChebXyMax, fgcmfZptCheb, fgcmfZptSstarCheb and fgcmDeltaChrom.
    scaling : mapping of int to float, or (detector ids, values)
        Relative scaling of the flat by detector.
    offset : float, optional
        Reference offset of the visit's band, in mag.
    area : (detector ids, boxes, coefficients), optional
        Relative pixel area: ids (n,), boxes (n, 4) as x0, y0, width, height, and coefficients
        (n, ny, nx). Without it, the area is not composed.
    apply_mean_chromatic_correction : bool, optional
        Whether fgcmDeltaChrom is used.

    Returns
    -------
    VisitPhotoCalib
        Of the detectors with a usable zeropoint; see `usable_zeropoints`.

    Warns
    -----
    CalibrationWarning
        Once, if usable zeropoints had to be left out: a parameter is NaN, there is no scaling or
        no area of the detector, or the calibration is not positive. It names visit, detectors and
        columns.

    Raises
    ------
    NoZeropointError
        If no detector has a calibration; BadZeropointsError if that is for what is wrong with all.
    ValueError
        If columns are missing or of the wrong shape, a detector is there twice, the area is that
        of other boxes, or the offset is NaN.

    Examples
    --------
    >>> rows = {
    ...     "detector": [3],
    ...     "fgcmFlag": [1],
    ...     "fgcmZpt": [31.4],
    ...     "fgcmZptVar": [1e-6],
    ...     "fgcmfZptChebXyMax": [[99, 49]],
    ...     "fgcmfZptCheb": [[1 / AB_FLUX]],
    ...     "fgcmfZptSstarCheb": [[1.0, 0.1, 0.0, 0.0]],
    ...     "fgcmDeltaChrom": [0.0],
    ... }
    >>> visit = visit_photo_calib(42, rows, {3: 2.0})
    >>> visit[3].mean, visit[3].calibration([-0.5, 99.5], 20)
    (2.0, array([1.8, 2.2]))
    """
    photo_calib, remark = calibrate_visit(
        visit, rows, scaling, offset, area, apply_mean_chromatic_correction
    )
    if remark:
        warnings.warn(remark, CalibrationWarning, stacklevel=2)
    return photo_calib


def calibrate_visit(
    visit: int,
    rows: Mapping[str, ArrayLike],
    scaling: Mapping[int, float] | tuple[ArrayLike, ArrayLike],
    offset: float = 0.0,
    area: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None,
    apply_mean_chromatic_correction: bool = True,
) -> tuple[VisitPhotoCalib, str]:
    """Return the calibrations of a visit, and what `visit_photo_calib` warns of, empty if nothing.

    Warnings are the process's; of many visits in many threads, texts are the better record.
    """
    offset = number_in(offset, u.mag, "offset")
    if not math.isfinite(offset):
        raise ValueError(f"visit {visit}: the reference offset is {offset}")
    zeropoints = usable_zeropoints(visit, rows, delta_chrom=apply_mean_chromatic_correction)
    detectors, boxes, problems = zeropoints.detectors, zeropoints.boxes, dict(zeropoints.problems)
    with np.errstate(over="ignore", invalid="ignore"):  # of rows that will be left out
        flux = AB_FLUX * 10 ** (-0.4 * (offset + zeropoints.delta_chrom))
        flux *= _scaling_of(visit, detectors, scaling, problems)
        coefficients = product(zeropoints.superstar, zeropoints.zeropoint * flux[:, None, None])
        if area is not None:
            coefficients = product(coefficients, _area_of(visit, detectors, boxes, area, problems))
        mean = evaluate(coefficients, 0.0, 0.0)
        err = math.log(10) / 2.5 * mean * np.sqrt(zeropoints.variance)
    good = ~np.any([*problems.values(), ~((mean > 0) & (mean < np.inf))], axis=0)
    remark = ""
    if not good.all():
        problems["a calibration that is not positive"] = ~good & ~np.any(
            [*problems.values()], axis=0
        )
        remark = _left_out(visit, detectors, problems)
    stacks = (stack[good] for stack in (detectors, boxes, coefficients, mean, err))
    return VisitPhotoCalib(visit, *stacks), remark


def _scaling_of(
    visit: int, detectors: np.ndarray, scaling: Any, problems: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the scaling of each detector, and note who has none."""
    if isinstance(scaling, Mapping):
        scaling = list(scaling), list(scaling.values())
    ids = np.asarray(scaling[0], np.int64)
    values = in_unit(scaling[1], u.dimensionless_unscaled, "scaling")
    if ids.ndim != 1 or ids.shape != values.shape:
        raise ValueError(
            f"visit {visit}: scaling is {values.shape} numbers for {ids.shape} detectors"
        )
    places, found = find(ids, detectors, np.argsort(ids, kind="stable"))
    result = np.where(found, np.append(values, np.nan)[places], np.nan)
    problems["no scaling"] = ~found
    problems["a scaling that is not positive"] = found & ~((result > 0) & (result < np.inf))
    return result


def _area_of(
    visit: int, detectors: np.ndarray, boxes: np.ndarray, area: Any, problems: dict[str, np.ndarray]
) -> np.ndarray:
    """Return the coefficients of each detector's pixel area, and note who has none."""
    ids, own = np.asarray(area[0]), np.asarray(plain(area[1], u.pix, "boxes of the area"))
    coefficients = in_unit(area[2], u.dimensionless_unscaled, "coefficients of the area")
    if len(own) != len(ids) or len(coefficients) != len(ids) or not len(ids):
        raise ValueError(
            f"visit {visit}: area has {len(ids)} detectors, {len(own)} boxes and "
            f"{len(coefficients)} stacks of coefficients"
        )
    places, found = find(ids, detectors, np.argsort(ids, kind="stable"))
    others = found & (own[places] != boxes).any(axis=1) & ~np.any([*problems.values()], axis=0)
    if others.any():
        i = np.flatnonzero(others)[0]
        area_box, box = (Box(*edges.tolist()) for edges in (own[places[i]], boxes[i]))
        raise ValueError(
            f"visit {visit}: the pixel area of {listed(detectors[others], noun='detector')} is of "
            f"another box than the zeropoint; of detector {detectors[i]}, {area_box} and not {box}"
        )
    problems["no pixel area"] = ~found
    return coefficients[places]


def _left_out(visit: int, detectors: np.ndarray, problems: Mapping[str, np.ndarray]) -> str:
    """Say which detectors are left out, and why."""
    reasons = "; ".join(
        f"{listed(detectors[rows], noun='detector')} ({problem})"
        for problem, rows in problems.items()
        if rows.any()
    )
    if np.any([*problems.values()], axis=0).all():
        raise BadZeropointsError(
            f"visit {visit}: none of its detectors can be calibrated: {reasons}"
        )
    return f"visit {visit}: no calibration of {reasons}"


class Zeropoints(NamedTuple):
    """The usable zeropoints of a visit, sorted by detector.

    Attributes
    ----------
    detectors : (n,) int64 array
    boxes : (n, 4) int64 array
        x0, y0, width and height of the detector; empty where that is among the problems.
    superstar, zeropoint : (n, ny, nx) float64 arrays
        Coefficients; those of the zeropoint in units of the flux of AB magnitude 0.
    delta_chrom : (n,) float64 array
        Mean chromatic correction, in mag; 0 where it is not asked for.
    variance : (n,) float64 array
        Of the zeropoint, in mag**2.
    problems : dict of str to (n,) bool array
        What is wrong with which rows.
    """

    detectors: np.ndarray
    boxes: np.ndarray
    superstar: np.ndarray
    zeropoint: np.ndarray
    delta_chrom: np.ndarray
    variance: np.ndarray
    problems: dict[str, np.ndarray]


def usable_zeropoints(
    visit: int, rows: Mapping[str, ArrayLike], *, delta_chrom: bool = True
) -> Zeropoints:
    """Select the zeropoints that can be used, and sort them by detector.

    Used are rows with ``fgcmFlag & 16 == 0``, ``fgcmZptVar > 0``, ``fgcmZpt > -9999`` and
    ``fgcmfZptCheb[0] > 0``. One of these that is NaN or missing does not pass for unusable; it is a
    problem. Rows without a detector are of none.

    Examples
    --------
    >>> rows = {
    ...     "detector": [7, 3, 5],
    ...     "fgcmFlag": [1, 4, 16],
    ...     "fgcmZpt": [31.0, 31.0, -9999.0],
    ...     "fgcmZptVar": [1e-6, 1e-6, -9999.0],
    ...     "fgcmfZptChebXyMax": [[99, 49]] * 3,
    ...     "fgcmfZptCheb": [[2.0, 0.0, 0.0, 0.0]] * 3,
    ...     "fgcmfZptSstarCheb": [[1.0]] * 3,
    ... }
    >>> usable_zeropoints(1, rows, delta_chrom=False).detectors
    array([3, 7])
    """
    detectors, (flag, no_flag), columns = _read(visit, rows, delta_chrom)
    order = np.argsort(detectors)
    first = columns["fgcmfZptCheb"][:, 0, 0]
    usable = has_zeropoint(flag, columns["fgcmZptVar"], columns["fgcmZpt"], first)
    order = order[usable[order]]
    if not len(order):
        raise NoZeropointError(
            f"visit {visit}: none of its {len(detectors)} zeropoints can be used (they have "
            "fgcmFlag 16, fgcmZptVar <= 0, fgcmZpt -9999 or fgcmfZptCheb[0] <= 0)"
        )
    columns = {name: column[order] for name, column in columns.items()}
    last, problems = columns["fgcmfZptChebXyMax"], _problems(columns)
    problems["fgcmFlag is missing"] = no_flag[order]
    boxes = np.zeros((len(order), 4), np.int64)
    boxes[:, 2:] = np.where(_is_index(last), last, -1) + 1
    return Zeropoints(
        detectors[order],
        boxes,
        columns["fgcmfZptSstarCheb"],
        columns["fgcmfZptCheb"],
        columns.get("fgcmDeltaChrom", np.zeros(len(order))),
        columns["fgcmZptVar"],
        problems,
    )


def _read(
    visit: int, rows: Mapping[str, ArrayLike], delta_chrom: bool
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], dict[str, np.ndarray]]:
    """Return detectors, flags and where they are missing, and the other columns, in shape."""
    detectors, known = _detectors(visit, rows)
    n = len(known)
    columns = {
        "fgcmZpt": _shaped(visit, rows, "fgcmZpt", (n,)),
        "fgcmZptVar": _shaped(visit, rows, "fgcmZptVar", (n,)),
        "fgcmfZptChebXyMax": _shaped(visit, rows, "fgcmfZptChebXyMax", (n, 2)),
        "fgcmfZptCheb": _square(visit, rows, "fgcmfZptCheb", n),
        "fgcmfZptSstarCheb": _square(visit, rows, "fgcmfZptSstarCheb", n),
    }
    if delta_chrom:
        columns["fgcmDeltaChrom"] = _shaped(visit, rows, "fgcmDeltaChrom", (n,))
    flag = _shaped(visit, rows, "fgcmFlag", (n,))  # 32 bits, which a float64 holds
    columns = {name: column[known] for name, column in columns.items()}
    missing = ~np.isfinite(flag[known]) | (flag[known] == MISSING)
    return detectors, (np.where(missing, 0, flag[known]).astype(np.int64), missing), columns


def has_zeropoint(
    flag: np.ndarray, variance: np.ndarray, zeropoint: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Return in which rows there is a zeropoint; one of its numbers may be missing.

    Parameters
    ----------
    flag, variance, zeropoint : (n,) arrays
        fgcmFlag, fgcmZptVar and fgcmZpt.
    first : (n,) array
        The first of fgcmfZptCheb.

    Examples
    --------
    >>> numbers = np.array([[1e-6, 1e-6, -9999.0], [31.0, np.nan, -9999.0], [2.0, 2.0, 0.0]])
    >>> has_zeropoint(np.array([1, 4, 16]), *numbers)
    array([ True,  True, False])
    """
    none = (variance <= 0) | (zeropoint <= NO_VALUE) | (first <= 0)  # so that NaN is kept
    return ((flag == MISSING) | ((flag & NO_ZEROPOINT) == 0)) & ~none


def _problems(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what is wrong with which rows."""
    problems = {}
    for name, column in columns.items():
        finite = np.isfinite(column).reshape(len(column), -1).all(axis=1)
        problems[f"{name} is not finite"] = ~finite
    if "fgcmDeltaChrom" in columns:
        problems["fgcmDeltaChrom is -9999"] = columns["fgcmDeltaChrom"] <= NO_VALUE
    last = columns["fgcmfZptChebXyMax"]
    wrong = np.isfinite(last) & ~_is_index(last)
    problems["fgcmfZptChebXyMax is not the index of a pixel"] = wrong.any(axis=1)
    return problems


def _is_index(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values < 2**31) & (values == np.floor(values))


def _column(visit: int, rows: Mapping[str, ArrayLike], name: str) -> ArrayLike:
    try:
        return rows[name]
    except (KeyError, ValueError):
        raise ValueError(f"visit {visit}: the zeropoints have no column {name}") from None


def _shaped(
    visit: int,
    rows: Mapping[str, ArrayLike],
    name: str,
    shape: tuple[int, ...] | None,
) -> np.ndarray:
    column = _column(visit, rows, name)
    try:
        unit = _UNITS.get(name, u.dimensionless_unscaled)
        column = np.asarray(in_unit(column, unit, f"visit {visit}: column {name}"), np.float64)
    except u.UnitConversionError:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"visit {visit}: column {name} is not numbers of one shape: {error}"
        ) from None
    if shape is not None and column.shape != shape:
        raise ValueError(
            f"visit {visit}: column {name} has the shape {column.shape}, and not {shape}"
        )
    return column


def _square(visit: int, rows: Mapping[str, ArrayLike], name: str, n: int) -> np.ndarray:
    """Return n**2 flattened coefficients a row as (rows, n, n)."""
    column = _shaped(visit, rows, name, None)
    size = math.prod(column.shape[1:])
    order = math.isqrt(size)
    if len(column) != n or column.ndim != 2 or not size or order**2 != size:
        raise ValueError(
            f"visit {visit}: column {name} has the shape {column.shape}; it must hold the n**2 "
            f"coefficients of a field in each of {n} rows"
        )
    return column.reshape(n, order, order)


def _detectors(visit: int, rows: Mapping[str, ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
    """Return the detectors, once it is sure that they are this visit's, and each but once.

    And in which rows there is one.
    """
    detectors, missing = filled(_column(visit, rows, "detector"))
    if detectors.ndim != 1 or (detectors.size and detectors.dtype.kind not in "iu"):
        raise ValueError(f"visit {visit}: column detector must hold whole numbers, one a row")
    known = np.ones(len(detectors), bool) if missing is None else ~missing
    detectors = detectors.astype(np.int64)[known]
    ids, counts = np.unique(detectors, return_counts=True)
    if not len(ids):
        raise NoZeropointError(f"visit {visit} has no zeropoints")
    if len(ids) < len(detectors):
        twice = listed(ids[counts > 1], noun="detector")
        raise ValueError(f"visit {visit} has several zeropoints of {twice}")
    try:
        visits = np.asarray(rows["visit"])[known]
    except (KeyError, ValueError):
        return detectors, known
    if (visits != visit).any():
        other = visits[visits != visit][0]
        raise ValueError(f"among the zeropoints of visit {visit} are rows of visit {other}")
    return detectors, known

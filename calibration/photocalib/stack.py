"""PhotoCalibStack: the calibrations of many visits in one stack, for sources in any order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..fields.series import evaluate_mixed
from ..search import find
from .photocalib import VisitPhotoCalib

__all__ = ["PhotoCalibStack"]


class PhotoCalibStack:
    """The calibrations of many visits, a row for each visit and detector.

    Parameters
    ----------
    photo_calibs : iterable of VisitPhotoCalib
        Each visit once.

    Attributes
    ----------
    visits, detectors : (n,) int64 arrays
        Of each row; ascending.
    boxes : (n, 4) int64 array
        x0, y0, width and height of the detectors.
    mean, relative_err : (n,) float64 arrays
        nJy per unit of instrumental flux, and its relative error.

    Raises
    ------
    ValueError
        If there is none, or a visit is there twice.

    Examples
    --------
    >>> box = (0, 0, 100, 100)
    >>> visits = [VisitPhotoCalib(v, [7], [box], [[[float(v)]]], [v], [0.1]) for v in (3, 2)]
    >>> stack = PhotoCalibStack(visits)
    >>> rows, found = stack.rows([3, 3, 2], [7, 8, 7])
    >>> found.tolist(), stack.calibration(rows[found], x=[0, 1], y=[0, 1])
    ([True, False, True], array([3., 2.]))
    """

    def __init__(self, photo_calibs: Iterable[VisitPhotoCalib]) -> None:
        parts = sorted((part for part in photo_calibs if len(part)), key=lambda part: part.visit)
        if not parts:
            raise ValueError("there are no photoCalibs")
        numbers = np.array([part.visit for part in parts])
        if (again := numbers[1:][np.diff(numbers) == 0]).size:
            raise ValueError(f"there are several photoCalibs of visit {again[0]}")
        self.visits = np.repeat(numbers, [len(part) for part in parts])
        self.detectors, self.mean, err, self.boxes = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("detectors", "mean", "err", "boxes")
        )
        self.relative_err = err / self.mean
        self._coefficients = _stacked([part.coefficients for part in parts])
        self._visits, self._detectors = numbers, np.unique(self.detectors)
        self._table = np.full((len(numbers), len(self._detectors)), -1, np.int32)
        place = np.searchsorted(self._detectors, self.detectors)
        self._table[np.searchsorted(numbers, self.visits), place] = np.arange(len(self))

    def __len__(self) -> int:
        return len(self.visits)

    def rows(self, visit: np.ndarray, detector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of visits and detectors, and whether there is one (-1 if not)."""
        i, visit_found = find(self._visits, np.asarray(visit))
        j, detector_found = find(self._detectors, np.asarray(detector))
        rows = np.where(visit_found & detector_found, self._table[i, j], -1)
        return rows, rows >= 0

    def calibration(self, rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return nJy per unit of instrumental flux at positions (pixels), (m,) each."""
        return evaluate_mixed(self.boxes, self._coefficients, rows, x, y)


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Return (n, ny, nx) stacks one after the other; those of lower order get zeros."""
    shape = np.max([part.shape[1:] for part in parts], axis=0)
    pads = ([(0, 0), *((0, n - m) for n, m in zip(shape, p.shape[1:], strict=True))] for p in parts)
    return np.concatenate([np.pad(part, pad) for part, pad in zip(parts, pads, strict=True)])

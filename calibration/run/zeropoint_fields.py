"""The fields of zeropoints: what a fit writes that has none, and what box they are over.

LSST has the fields of every detector written, over a box that ends in its last pixel. By default a
stand-alone fit writes none (``outputFgcmcalZpts: False``): there is one zeropoint a detector, that
of its center, with the superstar flat in it. Where it does, the box ends in the size that the
detector has in the offsets of the CCDs (``X_SIZE``, ``Y_SIZE``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..camera.camera import Camera
from ..photocalib.zeropoints import NO_VALUE
from ..search import find
from ..tables.catalog import Catalog
from ..texts import listed
from .problems import Problems

__all__ = ["FIELDS", "PEEK", "Fields", "check_fields"]

_LAST, _ZEROPOINT, _SUPERSTAR = FIELDS = ("fgcmfZptChebXyMax", "fgcmfZptCheb", "fgcmfZptSstarCheb")
"""What a field takes: all of these columns, or none."""

PEEK = 500
"""First, and last, rows whose values are looked at when a run is opened."""


class Fields:
    """Completes rows of zeropoints: the fields that are missing, and the last pixels of boxes.

    Parameters
    ----------
    camera : Camera or None
        Whose boxes tell a size from a last pixel.
    are_sizes : bool, optional
        What the numbers are where there is no camera.
    """

    def __init__(self, camera: Camera | None, *, are_sizes: bool = False) -> None:
        self._are_sizes = are_sizes
        self._ids = None if camera is None else camera.ids
        sizes = () if camera is None else [(d.box.width, d.box.height) for d in camera.values()]
        self._sizes = np.reshape(np.array(sizes, np.float64), (-1, 2))

    @classmethod
    def of(cls, zeropoints: Catalog, camera: Camera | None) -> Fields:
        """Make those of a catalog; without a camera, fgcm's own name of the column says size."""
        return cls(camera, are_sizes=_named_by_fgcm(zeropoints))

    def sizes(self, detectors: np.ndarray) -> np.ndarray:
        """Return width and height of detectors, (n, 2); NaN where they are not known."""
        if self._ids is None or not len(self._ids):
            return np.full((len(detectors), 2), np.nan)
        places, found = find(self._ids, detectors, np.argsort(self._ids, kind="stable"))
        return np.where(found[:, None], self._sizes[places], np.nan)

    def needs(self, columns: Iterable[str], have: Iterable[str]) -> list[str]:
        """Return the columns to read for those that are wanted."""
        columns = list(columns)
        extra = ["detector", "fgcmZpt"] if set(columns) & set(FIELDS) else []
        made = set(FIELDS) - set(have)
        return [name for name in dict.fromkeys([*columns, *extra]) if name not in made]

    def completed(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return rows with the fields, (n, 1) where they are constant, and last pixels, (n, 2).

        Examples
        --------
        >>> rows = {"detector": np.array([3]), "fgcmZpt": np.array([25.0])}
        >>> made = Fields(None).completed(rows)
        >>> made["fgcmfZptCheb"], made["fgcmfZptSstarCheb"]
        (array([[1.e-10]]), array([[1.]]))
        """
        rows = dict(rows)
        if not {"detector", "fgcmZpt"} <= {*rows}:
            return rows
        sizes = self.sizes(rows["detector"])
        if _LAST in rows:
            is_size = (rows[_LAST] == sizes).all(axis=1) | (self._are_sizes & (self._ids is None))
            rows[_LAST] = rows[_LAST] - is_size[:, None]
        elif self._ids is not None:
            rows[_LAST] = sizes - 1
        if _ZEROPOINT not in rows and _SUPERSTAR not in rows:
            rows[_ZEROPOINT] = _constant(rows["fgcmZpt"])[:, None]
            rows[_SUPERSTAR] = np.ones((len(sizes), 1))
        return rows


def _constant(zeropoint: np.ndarray) -> np.ndarray:
    """Return the flux of a count, in units of that of AB magnitude 0; -9999 where there is none."""
    none = zeropoint <= NO_VALUE
    return np.where(none, NO_VALUE, 10 ** (-0.4 * np.where(none, 0.0, zeropoint)))


def check_fields(zeropoints: Catalog, camera: Camera | None, problems: Problems) -> None:
    """Say which columns of the fields are missing, and what boxes are in doubt."""
    missing = [name for name in FIELDS if name not in zeropoints.columns]
    if len(missing) == len(FIELDS):
        problems.warnings.append(
            f"{zeropoints.where}: there are no fields ({', '.join(FIELDS)}); each detector has one "
            "calibration, of its fgcmZpt, over all of the camera's box"
        )
    elif missing and not any(f"column {n} " in text for n in missing for text in problems.errors):
        problems.fault(
            f"{zeropoints.where}: there is no column {', '.join(missing)}; fields take all of "
            f"{', '.join(FIELDS)}, or there is none of them",
            "zeropoints",
        )
    elif _LAST in zeropoints.columns and camera is not None:
        _check_boxes(zeropoints, Fields.of(zeropoints, camera), problems)
    elif _named_by_fgcm(zeropoints):
        problems.warnings.append(
            f"{zeropoints.where}: {_LAST} is taken to be the size of a detector, as a stand-alone "
            "fit has it, and not its last pixel; a camera would tell"
        )


def _named_by_fgcm(zeropoints: Catalog) -> bool:
    binding = zeropoints.bindings.get(_LAST)
    return binding is not None and "cheb" not in binding.sources[0].lower()


def _check_boxes(zeropoints: Catalog, fields: Fields, problems: Problems) -> None:
    if "detector" not in zeropoints.columns:
        return
    rows = zeropoints.read(["detector", _LAST], slice(0, min(PEEK, len(zeropoints))))
    detectors, values = rows["detector"], rows[_LAST]
    sizes = fields.sizes(detectors)
    known = np.isfinite(sizes).all(axis=1) & (values > 0).all(axis=1)
    other = known & (values != sizes).any(axis=1) & (values != sizes - 1).any(axis=1)
    if other.any():
        (x, y), (width, height) = values[other][0], sizes[other][0]
        problems.warnings.append(
            f"{zeropoints.where}: {_LAST} of {listed(np.unique(detectors[other]), noun='detector')}"
            f" is neither the last pixel nor the size of the camera's box: ({x:g}, {y:g}), and not "
            f"({width - 1:g}, {height - 1:g}) or ({width:g}, {height:g}); it is taken for the last "
            "pixel"
        )

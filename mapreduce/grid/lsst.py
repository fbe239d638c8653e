"""The names, defaults and rules of LSST's ImageMapReduceTask, for `GridConfig.lsst`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u

from ..exposure.box import Box, size_pair

__all__ = ["LsstRules", "config_of"]

_DEFAULTS = {
    "cellCentroidsX": None,
    "cellCentroidsY": None,
    "cellSizeX": 10.0,
    "cellSizeY": 10.0,
    "gridStepX": 10.0,
    "gridStepY": 10.0,
    "borderSizeX": 5.0,
    "borderSizeY": 5.0,
    "adjustGridOption": "spacing",
    "scaleByFwhm": True,
    "forceEvenSized": False,
}
_ADJUST = ("spacing", "size", "none")


def config_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `GridConfig` for those of the original.

    Raises
    ------
    TypeError, ValueError
        As from `GridConfig.lsst`.

    Examples
    --------
    >>> config_of({"borderSizeX": 2})["border"]
    (2.0, 5.0)
    """
    if unknown := fields.keys() - _DEFAULTS.keys():
        raise TypeError(
            f"unknown field {', '.join(sorted(unknown))}; there are {', '.join(_DEFAULTS)}"
        )
    value = {**_DEFAULTS, **fields}
    if value["adjustGridOption"] not in _ADJUST:
        raise ValueError(
            f"adjustGridOption is {value['adjustGridOption']!r}; choose from {', '.join(_ADJUST)}"
        )
    border = value["borderSizeX"], value["borderSizeY"]
    unit = u.dimensionless_unscaled if value["scaleByFwhm"] else u.pix
    return {
        "cell_size": (value["cellSizeX"], value["cellSizeY"]),
        "step": (value["gridStepX"], value["gridStepY"]),
        "border": size_pair("border", border, whole=False, unit=unit),
        "adjust": value["adjustGridOption"],
        "scale_by_fwhm": value["scaleByFwhm"],
        "even_sized": value["forceEvenSized"],
        "centroids": _centroids(value["cellCentroidsX"], value["cellCentroidsY"]),
    }


def _centroids(xs: Any, ys: Any) -> tuple[tuple[float, float], ...] | None:
    if xs is None or not len(xs):
        return None
    if ys is None or len(xs) != len(ys):
        raise ValueError(
            f"cellCentroidsX has {len(xs)} values but cellCentroidsY "
            f"{'none' if ys is None else len(ys)}"
        )
    return tuple(zip(xs, ys, strict=True))


class LsstRules:
    """What a `GridConfig` does otherwise by the original's rules: to be mixed into one."""

    centroids: Sequence[tuple[float, float]] | None
    _smallest = 2

    def _check(self) -> None:
        """Leave the centroids to `_centers`, and have nothing to say of the step."""

    def _scale(self, over: Any, fwhm: float | None) -> float:
        """Scale regular grids alone, which need a PSF even where it is not used."""
        if self.centroids is not None:
            return 1.0
        if fwhm is None and not isinstance(over, Box) and over.psf is None:
            raise AttributeError("a regular grid of GridConfig.lsst needs an exposure with PSF")
        return super()._scale(over, fwhm)  # type: ignore[misc]  # of the config that this is mixed into

    def _pixels(self, name: str, scale: float) -> tuple[int, int]:
        """Round sizes of regular grids, also to zero; cut the others."""
        whole = round if self.centroids is None else int
        x, y = getattr(self, name)
        return whole(x * scale), whole(y * scale)

    def _centers(self, box: Box) -> list[tuple[int, int]]:
        """Take the centroids for local coordinates, and cut them to whole pixels."""
        centroids = self.centroids or ()
        for point in centroids:
            if not all(map(math.isfinite, point)):
                kind = ValueError if any(map(math.isnan, point)) else OverflowError
                raise kind(f"centroid {point} is not a finite position")
        return [(box.x0 + math.floor(x), box.y0 + math.floor(y)) for x, y in centroids]

    def _report_empty(self, message: str) -> None:
        """Allow a grid without cells."""
        warnings.warn(message, stacklevel=3)

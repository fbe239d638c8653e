"""GridConfig: how a grid of cells is laid over an exposure."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast, get_args

import astropy.units as u
import numpy as np
from dask.delayed import Delayed

from ..exposure.box import Box, size_pair
from ..exposure.exposure import Exposure
from ..exposure.psf import Psf
from ..units import number_in, plain
from .grid import Grid
from .layout import around, even, regular
from .lsst import LsstRules, config_of

__all__ = ["Adjust", "GridConfig"]

Adjust = Literal["partition", "spacing", "size", "none"]
_ADJUST = get_args(Adjust)


@dataclass(frozen=True)
class GridConfig:
    """How to cut an exposure into cells.

    Parameters
    ----------
    cell_size, step, border : float or (float, float), optional
        Size of the core, distance between cells and margin on every side, as a number or an
        (x, y) pair, in pixels; in PSF FWHMs with ``scale_by_fwhm``. Rounded half to even.
        ``step`` defaults to ``cell_size``.
    adjust : {"partition", "spacing", "size", "none"}, optional
        How the cells are fitted to the box.
        "partition": they tile it exactly, in as few cells no larger than ``cell_size`` as it
        takes, of sizes that differ by one pixel at most.
        "spacing": cells of ``cell_size``, spread evenly from edge to edge; they overlap.
        "size": cells of ``step + 1`` pixels every ``step``; they overlap by one pixel.
        "none": cells of ``cell_size`` every ``step``, the last one clipped.
        "partition" and "spacing" do not use ``step``, "size" not ``cell_size``.
    scale_by_fwhm : bool, optional
        Take the sizes in units of the PSF FWHM at its average position.
    even_sized : bool, optional
        Grow odd core and expanded boxes by one pixel where the box allows.
    centroids : sequence of (float, float), optional
        Cell centers (x, y) in parent coordinates, instead of a regular grid; duplicates are kept.

    Raises
    ------
    TypeError, ValueError
        If a size is not a finite number above zero (zero is a border too), or ``adjust`` unknown.

    Examples
    --------
    >>> grid = GridConfig(cell_size=(30, 20), border=5).build(Box(0, 0, 100, 40))
    >>> [cell.core.width for cell in grid if cell.core.y0 == 0]
    [25, 25, 25, 25]
    """

    cell_size: float | tuple[float, float] = 256
    step: float | tuple[float, float] | None = None
    border: float | tuple[float, float] = 32
    adjust: Adjust = "partition"
    scale_by_fwhm: bool = False
    even_sized: bool = False
    centroids: Sequence[tuple[float, float]] | None = None

    def __post_init__(self) -> None:
        if self.adjust not in _ADJUST:
            raise ValueError(f"adjust is {self.adjust!r}; choose from {', '.join(_ADJUST)}")
        sizes = {"cell_size": self.cell_size, "step": self.step, "border": self.border}
        unit = u.dimensionless_unscaled if self.scale_by_fwhm else u.pix
        for name, size in sizes.items():
            if size is not None:
                size = size_pair(name, size, whole=False, zero=name == "border", unit=unit)
                object.__setattr__(self, name, size)
        if self.centroids is not None:
            centroids = plain(self.centroids, u.pix, "centroids")
            object.__setattr__(self, "centroids", tuple(map(_point, centroids)))
        self._check()

    @classmethod
    def lsst(cls, **fields: Any) -> GridConfig:
        """Return a configuration by the names, defaults and rules of LSST's ImageMapReduceTask.

        It makes the same boxes to the pixel: sizes are in FWHMs unless ``scaleByFwhm=False``,
        centroids in local coordinates (0 at the first pixel) and with sizes cut to whole pixels,
        cells of a single pixel are dropped, and an exposure without PSF is refused.

        Parameters
        ----------
        **fields
            cellCentroidsX, cellCentroidsY, cellSizeX, cellSizeY, gridStepX, gridStepY,
            borderSizeX, borderSizeY, adjustGridOption, scaleByFwhm, forceEvenSized.

        Raises
        ------
        TypeError
            If a field is unknown.
        ValueError
            If a size is not above zero, or the centroid lists differ in length.

        Examples
        --------
        >>> config = GridConfig.lsst(cellSizeX=20, cellSizeY=20, scaleByFwhm=False)
        >>> len(config.build(Box(0, 0, 100, 100)))
        36
        """
        return LsstGridConfig(**config_of(fields))

    def build(self, over: Exposure | Box, fwhm: float | None = None) -> Grid:
        """Make the cells over an exposure or a box.

        Parameters
        ----------
        over : Exposure or Box
            What to cut; only its box and, with ``scale_by_fwhm``, its PSF are looked at.
        fwhm : float, optional
            PSF FWHM in pixels, instead of the exposure's own.

        Raises
        ------
        ValueError
            If there is no cell at all (a warning with `lsst`, which allows it), a size rounds to
            zero pixels, or ``scale_by_fwhm`` finds neither ``fwhm`` nor a PSF.
        RuntimeError
            If a box cannot be made even-sized because it spans an axis of odd length.
        """
        if not isinstance(over, Exposure | Box):
            raise TypeError(f"a grid is built over an Exposure or a Box, not {type(over).__name__}")
        box = over if isinstance(over, Box) else over.bbox
        if not box.area:
            raise ValueError(f"{box} is empty; no cell lies on it")
        scale = self._scale(over, fwhm)
        size, border = (self._pixels(name, scale) for name in ("cell_size", "border"))
        if self.centroids is None:
            table = regular(box, size, self._pixels("step", scale), border, self.adjust)
        else:
            table = around(box, self._centers(box), size, border)
        if self.even_sized:
            table = even(box, table)
        areas = [table[part]["width"] * table[part]["height"] for part in ("core", "expanded")]
        table = table[np.minimum(*areas) >= self._smallest]
        if not len(table):
            self._report_empty(f"no cell of {self} lies on {box}")
        table["index"] = np.arange(len(table))
        return Grid(box, table)

    # Where the original has other rules

    _smallest: ClassVar[int] = 1  # pixels of a cell

    def _check(self) -> None:
        """Refuse centroids that are nowhere; tell of a step that will not be used."""
        for point in self.centroids or ():
            if not all(map(math.isfinite, point)):
                raise ValueError(f"centroid {point} is not a finite position")
        if self.step not in (None, self.cell_size) and self.adjust in ("partition", "spacing"):
            warnings.warn(f"adjust={self.adjust!r} does not use step", stacklevel=4)

    def _scale(self, over: Exposure | Box, fwhm: float | None) -> float:
        """Return what sizes are multiplied with."""
        if not self.scale_by_fwhm:
            return 1.0
        if fwhm is None:
            fwhm = _known_psf(over).fwhm()
        fwhm = number_in(fwhm, u.pix, "fwhm")
        if not (math.isfinite(fwhm) and fwhm > 0):
            raise ValueError(f"the PSF FWHM must be a finite number above zero, got {fwhm}")
        return fwhm

    def _pixels(self, name: str, scale: float) -> tuple[int, int]:
        """Return a size in whole pixels."""
        # The step follows the size of the cells, a pair like all sizes here.
        size = getattr(self, name) or cast("tuple[float, float]", self.cell_size)
        x, y = (round(value * scale) for value in size)
        if name != "border" and 0 in (x, y):
            raise ValueError(f"{name} {size} (times {scale:g}) rounds to zero pixels")
        return x, y

    def _centers(self, box: Box) -> list[tuple[int, int]]:
        """Return the pixels on which the centroids lie."""
        return [(math.floor(x + 0.5), math.floor(y + 0.5)) for x, y in self.centroids or ()]

    def _report_empty(self, message: str) -> None:
        raise ValueError(message)


class LsstGridConfig(LsstRules, GridConfig):
    """A grid by the original's rules; see `GridConfig.lsst`."""


def _known_psf(over: Exposure | Box) -> Psf:
    """Return the PSF of what is cut, if there is one already."""
    psf = None if isinstance(over, Box) else over.psf
    if isinstance(psf, Delayed):
        raise ValueError(
            "scale_by_fwhm needs the PSF now, and that of a lazy result is not known yet; "
            "compute it first, or pass fwhm= in pixels"
        )
    if psf is None:
        raise ValueError(
            "scale_by_fwhm needs a PSF: give the exposure one, pass fwhm= in pixels, "
            "or set scale_by_fwhm=False and give sizes in pixels"
        )
    return psf


def _point(value: Any) -> tuple[float, float]:
    try:
        x, y = map(float, value)
    except (TypeError, ValueError):
        raise TypeError(f"a centroid is an (x, y) pair of numbers, got {value!r}") from None
    return x, y

"""GridConfig -> Grid of Cells: where an exposure is cut, and by how much the pieces overlap."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from dask.base import is_dask_collection

from ..display import draw_boxes
from ..exposure.box import Box, size_pair
from ..exposure.exposure import Exposure

__all__ = ["Cell", "Grid", "GridConfig", "cells_of", "table_of"]

_ADJUST = ("partition", "spacing", "size", "none")
_LSST_FIELDS = {  # the original's names and defaults
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


class Cell(NamedTuple):
    """One cell of a grid.

    Attributes
    ----------
    index : int
        Place in the grid's order; contributions to a pixel are applied in this order.
    core : Box
        The pixels that the cell is responsible for.
    expanded : Box
        The core and its border: the pixels that the mapper may look at.
    """

    index: int
    core: Box
    expanded: Box


class Grid(Sequence[Cell]):
    """Cells over a box: an immutable sequence of `Cell`, in order of their index.

    Parameters
    ----------
    box : Box
        What the grid was made for.
    cells : iterable of Cell
        The x index of a regular grid runs slowest, y fastest.

    Attributes
    ----------
    table : (n, 9) int64 array
        A row a cell: index, and x0, y0, width, height of its core and of its expanded box. Grids
        may have a hundred thousand cells, so this is what is kept, planned with and sent around.

    Examples
    --------
    >>> grid = GridConfig(cell_size=50, border=4).build(Box(0, 0, 100, 100))
    >>> len(grid), grid[1]
    (4, Cell(index=1, core=Box(x0=0, y0=50, width=50, height=50), \
expanded=Box(x0=0, y0=46, width=54, height=54)))
    """

    def __init__(self, box: Box, cells: Iterable[Cell]) -> None:
        self._keep(box, table_of(cells))

    @classmethod
    def of_table(cls, box: Box, table: np.ndarray) -> Grid:
        """Make a grid of a table like `Grid.table`."""
        grid = cls.__new__(cls)
        grid._keep(box, table)
        return grid

    def _keep(self, box: Box, table: np.ndarray) -> None:
        self.box = box
        self.table = table
        self.table.flags.writeable = False

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells."""
        return tuple(cells_of(self.table))

    def __getitem__(self, index: int) -> Cell:
        return self.cells[index]

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Cell]:
        return iter(self.cells)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self.box == other.box and np.array_equal(self.table, other.table)

    def __hash__(self) -> int:
        return hash((self.box, self.table.tobytes()))

    def __reduce__(self) -> tuple:
        return Grid.of_table, (self.box, self.table)

    def __repr__(self) -> str:
        return f"<Grid of {len(self)} cells over {self.box}>"

    def plot(self, ax: Any = None, skip: int = 3, image: np.ndarray | None = None) -> Any:
        """Draw the core and expanded boxes, over an image where one is given.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; default a new figure.
        skip : int, optional
            Draw every ``skip``-th cell along each axis; 1 draws all.
        image : (ny, nx) array, optional
            Pixels over ``box``, drawn below the boxes.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        if skip < 1:
            raise ValueError(f"skip must be 1 or more, got {skip}")
        _, columns = np.unique(self.table[:, 1], return_inverse=True)
        _, rows = np.unique(self.table[:, 2], return_inverse=True)
        shown = list(cells_of(self.table[(columns % skip == 0) & (rows % skip == 0)]))
        return draw_boxes(
            [cell.core for cell in shown],
            [cell.expanded for cell in shown],
            ax=ax,
            image=image,
            box=self.box,
        )


def table_of(cells: Iterable[Cell]) -> np.ndarray:
    """Return a table like `Grid.table`."""
    rows = [(cell.index, *cell.core, *cell.expanded) for cell in cells]
    return np.array(rows, np.int64).reshape(-1, 9)


def cells_of(table: np.ndarray) -> Iterator[Cell]:
    """Yield the cells of a table like `Grid.table`."""
    new = tuple.__new__  # the numbers need no checks, and there are many
    for row in table.tolist():
        yield new(Cell, (row[0], new(Box, row[1:5]), new(Box, row[5:9])))


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
        Cell centres (x, y) in parent coordinates, instead of a regular grid; duplicates are kept.

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
    adjust: Literal["partition", "spacing", "size", "none"] = "partition"
    scale_by_fwhm: bool = False
    even_sized: bool = False
    centroids: Sequence[tuple[float, float]] | None = None
    _lsst: bool = False

    def __post_init__(self) -> None:
        if self.adjust not in _ADJUST:
            raise ValueError(f"adjust is {self.adjust!r}; choose from {', '.join(_ADJUST)}")
        step_given = self.step is not None
        _set(self, "cell_size", size_pair("cell_size", self.cell_size, whole=False))
        if step_given:
            _set(self, "step", size_pair("step", self.step, whole=False))
        border = size_pair("border", self.border, whole=False, zero=not self._lsst)
        _set(self, "border", border)
        if self.centroids is not None:
            _set(self, "centroids", tuple(_point(point) for point in self.centroids))
        if self._lsst:
            return
        for point in self.centroids or ():
            if not all(map(math.isfinite, point)):
                raise ValueError(f"centroid {point} is not a finite position")
        if step_given and self.step != self.cell_size and self.adjust in ("partition", "spacing"):
            warnings.warn(f"adjust={self.adjust!r} does not use step", stacklevel=3)

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
        if unknown := fields.keys() - _LSST_FIELDS.keys():
            raise TypeError(
                f"unknown field {', '.join(sorted(unknown))}; there are {', '.join(_LSST_FIELDS)}"
            )
        value = {**_LSST_FIELDS, **fields}
        xs, ys = value["cellCentroidsX"], value["cellCentroidsY"]
        centroids = None
        if xs is not None and len(xs):
            if ys is None or len(xs) != len(ys):
                raise ValueError(
                    f"cellCentroidsX has {len(xs)} values but cellCentroidsY "
                    f"{'none' if ys is None else len(ys)}"
                )
            centroids = tuple(zip(xs, ys, strict=True))
        if value["adjustGridOption"] not in _ADJUST[1:]:
            raise ValueError(
                f"adjustGridOption is {value['adjustGridOption']!r}; "
                f"choose from {', '.join(_ADJUST[1:])}"
            )
        return cls(
            cell_size=(value["cellSizeX"], value["cellSizeY"]),
            step=(value["gridStepX"], value["gridStepY"]),
            border=(value["borderSizeX"], value["borderSizeY"]),
            adjust=value["adjustGridOption"],
            scale_by_fwhm=value["scaleByFwhm"],
            even_sized=value["forceEvenSized"],
            centroids=centroids,
            _lsst=True,
        )

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
        if self.centroids is None:
            boxes = self._regular(box, scale)
        else:
            boxes = self._around_centroids(box, scale)
        if self.even_sized:
            boxes = [
                (*_even(Box(*row[:4]), box), *_even(Box(*row[4:]), box)) for row in boxes.tolist()
            ]
            boxes = np.array(boxes, np.int64).reshape(-1, 8)
        areas = np.minimum(boxes[:, 2] * boxes[:, 3], boxes[:, 6] * boxes[:, 7])
        boxes = boxes[areas >= (2 if self._lsst else 1)]
        if not len(boxes):
            message = f"no cell of {self} lies on {box}"
            if not self._lsst:
                raise ValueError(message)
            warnings.warn(message, stacklevel=2)
        return Grid.of_table(box, np.column_stack([np.arange(len(boxes)), boxes]))

    def _scale(self, over: Exposure | Box, fwhm: float | None) -> float:
        psf = None if isinstance(over, Box) else over.psf
        if self._lsst and self.centroids is None and fwhm is None and isinstance(over, Exposure):
            if psf is None:
                raise AttributeError("a regular grid of GridConfig.lsst needs an exposure with PSF")
        if not self.scale_by_fwhm or (self._lsst and self.centroids is not None):
            return 1.0
        if fwhm is None:
            if is_dask_collection(psf):
                raise ValueError(
                    "scale_by_fwhm needs the PSF now, and that of a lazy result is not known yet; "
                    "compute it first, or pass fwhm= in pixels"
                )
            if psf is None:
                raise ValueError(
                    "scale_by_fwhm needs a PSF: give the exposure one, pass fwhm= in pixels, "
                    "or set scale_by_fwhm=False and give sizes in pixels"
                )
            fwhm = psf.fwhm()
        if not (math.isfinite(fwhm) and fwhm > 0):
            raise ValueError(f"the PSF FWHM must be a finite number above zero, got {fwhm}")
        return float(fwhm)

    def _pixels(self, name: str, scale: float) -> tuple[int, int]:
        """Return a configured size in whole pixels."""
        given = getattr(self, name)
        if given is None:  # the step, which follows the cell size
            given = self.cell_size
        size = tuple(round(value * scale) for value in given)
        if not self._lsst and name != "border" and 0 in size:
            raise ValueError(f"{name} {given} (times {scale:g}) rounds to zero pixels")
        return size

    def _regular(self, box: Box, scale: float) -> np.ndarray:
        """Return an (n, 8) array: x0, y0, width, height of the cores and the expanded boxes."""
        size, step, border = (self._pixels(n, scale) for n in ("cell_size", "step", "border"))
        if self.adjust == "partition":
            spans = [_partition(n, c) for n, c in zip(box[2:], size, strict=True)]
        else:
            if self.adjust == "size":
                size = (step[0] + 1, step[1] + 1)
            spans = [
                [(int(centre) - c // 2, c) for centre in _centres(self.adjust, n, c, g)]
                for n, c, g in zip(box[2:], size, step, strict=True)
            ]
        columns, rows = (
            np.array([_clipped(start, length, b, n) for start, length in span], np.int64)
            for span, b, n in zip(spans, border, box[2:], strict=True)
        )
        columns, rows = columns.reshape(-1, 4), rows.reshape(-1, 4)
        x = np.repeat(columns + (box.x0, 0, box.x0, 0), len(rows), axis=0)
        y = np.tile(rows + (box.y0, 0, box.y0, 0), (len(columns), 1))
        return np.stack([x, y], axis=2).reshape(-1, 8)

    def _around_centroids(self, box: Box, scale: float) -> np.ndarray:
        """Return an (n, 8) array, as `_regular` does."""
        if self._lsst:  # local coordinates, and cut to whole pixels
            width, height = map(int, self.cell_size)
            dx, dy = map(int, self.border)
            corners = [(box.x0 + _floor(x), box.y0 + _floor(y)) for x, y in self.centroids]
        else:
            (width, height), (dx, dy) = (self._pixels(n, scale) for n in ("cell_size", "border"))
            corners = [(math.floor(x + 0.5), math.floor(y + 0.5)) for x, y in self.centroids]
        cores = [Box(x - width // 2, y - height // 2, width, height) for x, y in corners]
        boxes = [(*core.clip(box), *core.grow(dx, dy).clip(box)) for core in cores]
        return np.array(boxes, np.int64).reshape(-1, 8)


def _partition(length: int, size: int) -> list[tuple[int, int]]:
    """Return (start, length) of the fewest equal pieces not longer than ``size``."""
    count = -(-length // size)
    edges = [length * n // count for n in range(count + 1)]
    return [(start, stop - start) for start, stop in zip(edges, edges[1:], strict=False)]


def _centres(adjust: str, length: int, size: int, step: int) -> np.ndarray:
    """Return the local centres of the cells along one axis."""
    if adjust == "spacing":
        count = length // size + 1 if size else 0
        return np.linspace(size // 2, length - size // 2, count)
    if step == 0:
        raise ValueError(f"the step rounds to zero pixels, which adjust={adjust!r} cannot use")
    first = (step if adjust == "size" else size) // 2
    return first + step * np.arange(math.ceil(length / step))


def _clipped(start: int, length: int, border: int, limit: int) -> tuple[int, int, int, int]:
    """Return first pixel and length of the core and of the expanded span, clipped."""
    core, expanded = max(start, 0), max(start - border, 0)
    return (
        core,
        max(min(start + length, limit) - core, 0),
        expanded,
        max(min(start + length + border, limit) - expanded, 0),
    )


def _even(box: Box, limits: Box) -> Box:
    """Return a box of even sizes: one pixel more on the high side, or else on the low one."""
    if not box.area:
        return box
    x0, x1 = _even_span(box.x0, box.x1, limits.x0, limits.x1, box)
    y0, y1 = _even_span(box.y0, box.y1, limits.y0, limits.y1, box)
    return Box.from_edges(x0, y0, x1, y1)


def _even_span(start: int, stop: int, low: int, high: int, box: Box) -> tuple[int, int]:
    if (stop - start) % 2 == 0:
        return start, stop
    if stop < high:
        return start, stop + 1
    if start > low:
        return start - 1, stop
    raise RuntimeError(
        f"{box} cannot be even-sized: it spans the whole of an axis of {high - low} pixels; "
        "use a smaller cell or border"
    )


def _floor(value: float) -> int:
    if math.isnan(value):
        raise ValueError("a cell centroid is NaN")
    if math.isinf(value):
        raise OverflowError("a cell centroid is infinite")
    return math.floor(value)


def _point(value: Any) -> tuple[float, float]:
    try:
        x, y = map(float, value)
    except (TypeError, ValueError):
        raise TypeError(f"a centroid is an (x, y) pair of numbers, got {value!r}") from None
    return x, y


def _set(config: GridConfig, name: str, value: Any) -> None:
    object.__setattr__(config, name, value)

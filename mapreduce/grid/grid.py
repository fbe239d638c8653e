"""Grid: the cells over a box, in a table with named columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

import numpy as np

from ..display import draw_boxes
from ..exposure.box import Box
from ..exposure.exposure import Exposure

__all__ = ["CELL", "Cell", "Grid", "cells_of", "table_of"]


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

    index: int  # type: ignore[assignment]  # in place of tuple.index, which no cell needs
    core: Box
    expanded: Box


_BOX = [(name, np.int64) for name in Box._fields]

CELL = np.dtype([("index", np.int64), ("core", _BOX), ("expanded", _BOX)])
"""A row of a table of cells, with the names of `Cell` and `Box`."""


class Grid(Sequence[Cell]):
    """Cells over a box: an immutable sequence of `Cell`, in order of their index.

    Parameters
    ----------
    box : Box
        What the grid was made for.
    cells : iterable of Cell, or (n,) array of `CELL`
        The x index of a regular grid runs slowest, y fastest.

    Examples
    --------
    >>> from mapreduce import GridConfig
    >>> grid = GridConfig(cell_size=50, border=4).build(Box(0, 0, 100, 100))
    >>> len(grid), grid[1]
    (4, Cell(index=1, core=Box(x0=0, y0=50, width=50, height=50), \
expanded=Box(x0=0, y0=46, width=54, height=54)))
    >>> grid.table["core"]["y0"]
    array([ 0, 50,  0, 50])
    """

    def __init__(self, box: Box, cells: Iterable[Cell] | np.ndarray) -> None:
        self._box = box
        self._table = table_of(cells)
        self._table.flags.writeable = False

    @property
    def box(self) -> Box:
        """What the grid was made for."""
        return self._box

    @property
    def table(self) -> np.ndarray:
        """The cells as an (n,) array of `CELL`, read-only.

        Grids may have a hundred thousand cells, so this is what is kept, planned with and sent
        around.
        """
        return self._table

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells."""
        return tuple(cells_of(self.table))

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Cell, ...]: ...
    def __getitem__(self, index: int | slice) -> Cell | tuple[Cell, ...]:
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

    def __reduce__(self) -> tuple[type[Grid], tuple[Box, np.ndarray]]:
        return Grid, (self.box, self.table)

    def __repr__(self) -> str:
        return f"<Grid of {len(self)} cells over {self.box}>"

    def plot(
        self, ax: Any = None, skip: int = 3, image: Exposure | np.ndarray | None = None
    ) -> Any:
        """Draw the core and expanded boxes, over an image where one is given.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; default a new figure.
        skip : int, optional
            Draw every ``skip``-th cell along each axis; 1 draws all.
        image : Exposure or (ny, nx) array, optional
            What is drawn below the boxes; an array is over ``box``.

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
        core = self.table["core"]
        _, columns = np.unique(core["x0"], return_inverse=True)
        _, rows = np.unique(core["y0"], return_inverse=True)
        shown = list(cells_of(self.table[(columns % skip == 0) & (rows % skip == 0)]))
        return draw_boxes(
            [cell.core for cell in shown],
            [cell.expanded for cell in shown],
            ax=ax,
            image=image,
            box=self.box,
        )


def table_of(cells: Iterable[Cell] | np.ndarray) -> np.ndarray:
    """Return cells as a new (n,) array of `CELL`."""
    return np.array(cells if isinstance(cells, np.ndarray) else list(cells), CELL)


def cells_of(table: np.ndarray) -> Iterator[Cell]:
    """Yield the cells of an (n,) array of `CELL`."""
    new = tuple.__new__  # the numbers need no checks, and there are many
    for index, core, expanded in table.tolist():
        yield new(Cell, (index, new(Box, core), new(Box, expanded)))

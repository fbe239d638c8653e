import pickle

import numpy as np
import pytest
from dask.base import tokenize

from mapreduce import Box, Cell, Grid, GridConfig
from mapreduce.grid.grid import cells_of, table_of

BOX = Box(100, -50, 40, 30)


def test_a_grid_is_a_sequence_of_cells():
    grid = GridConfig(20, border=5).build(BOX)
    assert len(grid) == 4
    assert grid[1] == Cell(1, Box(100, -35, 20, 15), Box(100, -40, 25, 20))
    assert list(grid) == list(grid.cells)
    assert grid[1] in grid
    assert grid.box == BOX
    assert repr(grid) == f"<Grid of 4 cells over {BOX}>"
    assert grid == GridConfig(20, border=5).build(BOX) == Grid(BOX, list(grid))


def test_the_table_has_named_columns():
    grid = GridConfig(20, border=5).build(BOX)
    table = grid.table
    assert table["index"].tolist() == [0, 1, 2, 3]
    assert table["core"]["x0"].tolist() == [100, 100, 120, 120]
    assert table["expanded"]["height"].tolist() == [20, 20, 20, 20]
    assert list(cells_of(table[1:3])) == [grid[1], grid[2]]
    assert table_of(grid).tolist() == table.tolist()
    assert len(table_of([])) == 0


def test_a_grid_does_not_change():
    grid = GridConfig(20, border=5).build(BOX)
    for name in ("box", "table"):
        with pytest.raises(AttributeError):
            setattr(grid, name, None)
    with pytest.raises(ValueError, match="read-only"):
        grid.table["index"] = 7
    table = grid.table.copy()
    again = Grid(BOX, table)
    table["index"] = 7
    assert again == grid


def test_grids_travel():
    grid = GridConfig(20, border=5).build(BOX)
    again = pickle.loads(pickle.dumps(grid))
    assert again == grid
    assert hash(again) == hash(grid)
    assert tokenize(again.table) == tokenize(grid.table)
    assert list(again) == list(grid)


@pytest.fixture
def pyplot():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def test_plot(pyplot):
    grid = GridConfig(5, border=2).build(BOX)
    _, given = pyplot.subplots()
    assert grid.plot(given, image=np.zeros(BOX.shape)) is given
    few, all_ = (len(ax.patches) + len(ax.collections) for ax in (grid.plot(), grid.plot(skip=1)))
    assert 0 < few <= all_


@pytest.mark.parametrize("skip", [0, -1])
def test_plot_skipping_nothing(skip):
    with pytest.raises(ValueError, match=f"skip must be 1 or more, got {skip}"):
        GridConfig(5, border=2).build(BOX).plot(skip=skip)

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mapreduce import Box, Grid, GridConfig
from mapreduce.grid.grid import cells_of
from mapreduce.run.plan import make_plan

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
BOX = Box(-3, 7, 40, 30)


def by_index(plan):
    return {tile.index: tile for tile in plan.tiles}


# Examples


def test_two_tiles():
    plan = make_plan(GridConfig(20, border=3).build(Box(0, 0, 40, 20)), tile=20)
    left, right = plan.tiles
    assert (left.index, right.index) == ((0, 0), (0, 1))
    assert (left.box, right.box) == (Box(0, 0, 20, 20), Box(20, 0, 20, 20))
    assert [tile.table["index"].tolist() for tile in plan.tiles] == [[0], [1]]
    assert (left.reads, right.reads) == (Box(0, 0, 23, 20), Box(17, 0, 23, 20))
    assert (left.interior, right.interior) == (Box(0, 0, 17, 20), Box(23, 0, 17, 20))
    assert left.strips == [Box(17, 0, 3, 20)]
    assert (left.sends, right.sends) == ({(0, 1): right.box}, {(0, 0): left.box})
    assert (left.receives, right.receives) == (((0, 1),), ((0, 0),))
    assert plan.chunks == ((20,), (20, 20))


def test_one_tile_for_everything():
    grid = GridConfig(7, border=3).build(BOX)
    (tile,) = make_plan(grid, tile=1000).tiles
    assert tile.box == tile.reads == tile.interior == BOX
    assert (tile.strips, tile.sends, tile.receives) == ([], {}, ())
    assert list(cells_of(tile.table)) == list(grid)


def test_tiles_without_border_do_not_exchange():
    plan = make_plan(GridConfig(10, border=0).build(BOX), tile=10)
    assert len(plan.tiles) == 12
    for tile in plan.tiles:
        assert tile.box == tile.reads == tile.interior
        assert not tile.sends
        assert not tile.receives


def test_tiles_without_cells_read_nothing():
    grid = GridConfig(2, border=0, centroids=[(0, 10)]).build(BOX)
    plan = make_plan(grid, tile=10)
    empty = [tile for tile in plan.tiles if not len(tile.table)]
    assert len(empty) == 11
    assert not any(tile.reads.area for tile in empty)


def test_tile_sizes_for_each_axis():
    plan = make_plan(GridConfig(10).build(BOX), tile=(16, 30))
    assert plan.chunks == ((30,), (16, 16, 8))
    assert plan.x_edges.tolist() == [-3, 13, 29, 37]


def test_default_tiles_end_at_cells():
    plan = make_plan(GridConfig(100, border=5).build(Box(50, 0, 5000, 2100)))
    starts = {cell.core.x0 for cell in plan.grid}
    assert set(plan.x_edges[:-1].tolist()) <= starts
    widths = np.diff(plan.x_edges)
    assert widths[:-1].min() >= 1024
    assert widths.max() < 2 * 1024


def test_default_tiles_where_cells_are_far_apart():
    grid = GridConfig(10, border=0, centroids=[(5, 5), (9000, 5)]).build(Box(0, 0, 10_000, 10))
    assert np.diff(make_plan(grid).x_edges).max() <= 2 * 1024


def test_reach_widens_what_a_cell_can_touch():
    grid = GridConfig(20, border=3).build(Box(0, 0, 40, 20))
    left, right = make_plan(grid, tile=20, reach=4).tiles
    assert left.interior == Box(0, 0, 13, 20)
    assert left.reads == Box(0, 0, 23, 20)
    far = make_plan(grid, tile=5, reach=100)
    owners = {tile.index for tile in far.tiles if len(tile.table)}
    assert all(set(tile.receives) == owners - {tile.index} for tile in far.tiles)


def test_no_cells():
    plan = make_plan(Grid(BOX, ()), tile=16)
    assert sum(tile.box.area for tile in plan.tiles) == BOX.area
    assert not any(len(tile.table) for tile in plan.tiles)


@pytest.mark.parametrize("tile", [0, -5, (5, 0)])
def test_sizes_not_above_zero(tile):
    with pytest.raises(ValueError, match="tile must be above zero, got"):
        make_plan(GridConfig(10).build(BOX), tile)


@pytest.mark.parametrize("tile", [1.5, "10", (1, 2, 3), [10, 1.5], (10, None), np.nan, True])
def test_sizes_of_a_wrong_type(tile):
    with pytest.raises(TypeError, match="tile must be a whole number or an"):
        make_plan(GridConfig(10).build(BOX), tile)


def test_numpy_sizes():
    grid = GridConfig(10).build(BOX)
    assert make_plan(grid, np.int64(16)).chunks == make_plan(grid, 16).chunks


# Properties

sizes = st.integers(1, 25)
configs = st.one_of(
    st.builds(
        GridConfig,
        cell_size=st.tuples(sizes, sizes),
        border=st.tuples(st.integers(0, 12), st.integers(0, 12)),
        adjust=st.sampled_from(["partition", "spacing", "none"]),
    ),
    st.builds(
        GridConfig,
        cell_size=sizes,
        step=st.integers(4, 12),
        border=st.integers(0, 12),
        adjust=st.just("none"),
    ),
    st.builds(
        GridConfig,
        cell_size=sizes,
        border=st.integers(0, 50),
        centroids=st.lists(
            st.tuples(st.integers(-9, 45), st.integers(0, 45)), min_size=1, max_size=9
        ),
    ),
)
tiles = st.one_of(st.none(), st.integers(3, 45), st.tuples(st.integers(3, 45), st.integers(3, 45)))
reaches = st.sampled_from([0, 0, 1, 7, 50])


def planned(config, tile, reach):
    try:
        grid = config.build(BOX)
    except ValueError:  # no centroid near the box
        assume(False)
    return make_plan(grid, tile, reach)


def pixels(boxes):
    """Return how many of the boxes cover each pixel."""
    count = np.zeros(BOX.shape, int)
    for box in boxes:
        count[box.slices(BOX)] += 1
    return count


@pytest.mark.slow
@PROPERTY
@given(configs, tiles, reaches)
def test_every_pixel_and_every_cell_has_one_owner(config, tile, reach):
    plan = planned(config, tile, reach)
    assert (pixels(t.box for t in plan.tiles) == 1).all()
    owned = [cell for t in plan.tiles for cell in cells_of(t.table)]
    assert sorted(owned) == list(plan.grid)
    for t in plan.tiles:
        cells = list(cells_of(t.table))
        assert cells == sorted(cells)
        for cell in cells:
            x, y = cell.core.x0 + cell.core.width // 2, cell.core.y0 + cell.core.height // 2
            assert t.box.covers(x=x, y=y)
            assert t.reads.contains(cell.expanded)
        assert t.reads == Box.union(cell.expanded for cell in cells)


@pytest.mark.slow
@PROPERTY
@given(configs, tiles, reaches)
def test_strips_and_interior_are_the_tile(config, tile, reach):
    plan = planned(config, tile, reach)
    parts = [box for t in plan.tiles for box in [t.interior, *t.strips] if box.area]
    assert (pixels(parts) == 1).all()
    assert all(t.box.contains(t.interior) for t in plan.tiles)


@pytest.mark.slow
@PROPERTY
@given(configs, tiles, reaches)
def test_no_foreign_cell_reaches_an_interior(config, tile, reach):
    plan = planned(config, tile, reach)
    for t in plan.tiles:
        own = set(cells_of(t.table))
        for cell in plan.grid:
            if cell not in own:
                assert not t.interior.overlaps(cell.expanded.grow(reach))


@pytest.mark.slow
@PROPERTY
@given(configs, tiles, reaches)
def test_who_can_reach_a_tile_sends_to_it(config, tile, reach):
    plan = planned(config, tile, reach)
    tiles = by_index(plan)
    for index, t in tiles.items():
        for other, box in t.sends.items():
            assert other != index
            assert box == tiles[other].box
            assert index in tiles[other].receives
        assert all(index in tiles[other].sends for other in t.receives)
        for other, target in tiles.items():
            reached = any(c.expanded.grow(reach).overlaps(target.box) for c in cells_of(t.table))
            if other != index:
                assert reached == (other in t.sends)
        assert len(set(t.receives)) == len(t.receives)


@pytest.mark.slow
@PROPERTY
@given(configs, tiles)
def test_chunks_add_up(config, tile):
    plan = planned(config, tile, 0)
    heights, widths = plan.chunks
    assert (sum(heights), sum(widths)) == BOX.shape
    assert min(*heights, *widths) > 0
    assert [t.index for t in plan.tiles] == list(np.ndindex(len(heights), len(widths)))
    assert all(t.box.shape == (heights[t.index[0]], widths[t.index[1]]) for t in plan.tiles)

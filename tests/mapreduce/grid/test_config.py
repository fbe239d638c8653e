from dataclasses import replace

import dask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import Box, Exposure, GaussianPsf, GridConfig

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
BOX = Box(100, -50, 40, 30)
FWHM = GaussianPsf(2.0).fwhm()


def coverage(grid, name="core"):
    """Return how many cells cover each pixel."""
    count = np.zeros(grid.box.shape, int)
    for cell in grid:
        count[getattr(cell, name).slices(grid.box)] += 1
    return count


def spans(grid, axis):
    """Return the (start, length) pairs of the cores along an axis, from the edge of the box."""
    return sorted({(cell.core[axis] - grid.box[axis], cell.core[axis + 2]) for cell in grid})


# Regular grids


def test_y_runs_fastest():
    grid = GridConfig(20, border=5).build(BOX)
    corners = [(cell.core.x0, cell.core.y0) for cell in grid]
    assert corners == [(100, -50), (100, -35), (120, -50), (120, -35)]
    assert [cell.index for cell in grid] == [0, 1, 2, 3]


def test_partition_has_equal_cells():
    assert spans(GridConfig((15, 31)).build(BOX), 0) == [(0, 13), (13, 13), (26, 14)]
    assert spans(GridConfig((15, 31)).build(BOX), 1) == [(0, 30)]


def test_spacing_goes_from_edge_to_edge():
    grid = GridConfig(20, border=0, adjust="spacing").build(BOX)
    assert spans(grid, 0) == [(0, 20), (10, 20), (20, 20)]
    assert spans(grid, 1) == [(0, 20), (10, 20)]


def test_size_overlaps_by_a_pixel():
    grid = GridConfig(99, step=20, border=0, adjust="size").build(BOX)
    assert spans(grid, 0) == [(0, 21), (20, 20)]


def test_none_clips_the_last_cell():
    grid = GridConfig(10, step=16, border=0, adjust="none").build(BOX)
    assert spans(grid, 0) == [(0, 10), (16, 10), (32, 8)]


def test_sizes_for_each_axis():
    grid = GridConfig((20, 10), border=(1, 2)).build(BOX)
    assert grid[0].core.shape == (10, 20)
    assert grid[0].expanded.shape == (12, 21)


def test_sizes_round_half_to_even():
    assert spans(GridConfig(10.5, step=11.5, border=0, adjust="none").build(BOX), 0) == [
        (0, 10), (12, 10), (24, 10), (36, 4),
    ]  # fmt: skip


def test_borders_are_clipped():
    for border in (1000, (30, 40)):
        grid = GridConfig(10, border=border).build(BOX)
        assert grid[0].expanded == BOX.clip(grid[0].core.grow(30, 40))


def test_a_border_of_zero():
    assert all(cell.core == cell.expanded for cell in GridConfig(7, border=0).build(BOX))


@pytest.mark.parametrize("adjust", ["partition", "spacing", "size", "none"])
@pytest.mark.parametrize("box", [Box(3, 4, 1, 1), Box(0, 0, 1, 9), Box(-5, 0, 9, 2)])
def test_tiny_boxes(box, adjust):
    grid = GridConfig(1, border=3, adjust=adjust).build(box)
    assert coverage(grid).min() >= 1


def test_every_pixel_as_a_cell():
    grid = GridConfig(1, border=1).build(BOX)
    assert len(grid) == BOX.area


# Centroids


def test_centroids_are_parent_coordinates():
    grid = GridConfig((4, 3), border=1, centroids=[(110, -40), (100, -50), (110, -40)]).build(BOX)
    assert [cell.core for cell in grid] == [
        Box(108, -41, 4, 3), Box(100, -50, 2, 2), Box(108, -41, 4, 3)
    ]  # fmt: skip
    assert grid[0].expanded == Box(107, -42, 6, 5)


def test_centroids_lie_on_the_nearest_pixel():
    grid = GridConfig(1, border=0, centroids=[(110.4, -40.5), (110.5, -40.6)]).build(BOX)
    assert [cell.core[:2] for cell in grid] == [(110, -40), (111, -41)]


def test_centroids_off_the_box_are_dropped():
    grid = GridConfig(4, border=2, centroids=[(0, 0), (120, -40)]).build(BOX)
    assert [cell.index for cell in grid] == [0]
    assert grid[0].core.covers(x=120, y=-40)


def test_centroids_may_be_an_array():
    config = GridConfig(4, centroids=np.array([[120.0, -40.0]]))
    assert config == GridConfig(4, centroids=[(120, -40)])
    assert hash(config) == hash(GridConfig(4, centroids=[(120, -40)]))


def test_no_centroids_are_not_a_regular_grid():
    with pytest.raises(ValueError, match="centroid"):
        GridConfig(4, centroids=[]).build(BOX)


# Sizes in units of the PSF


def test_sizes_in_fwhm():
    exposure = Exposure(np.zeros((200, 300)), psf=GaussianPsf(2.0))
    config = GridConfig(10, border=2, scale_by_fwhm=True)
    expected = GridConfig(round(10 * FWHM), border=round(2 * FWHM)).build(exposure)
    assert config.build(exposure) == expected
    assert config.build(exposure.bbox, fwhm=FWHM) == expected
    assert config.build(exposure, fwhm=3) == GridConfig(30, border=6).build(exposure)


def test_no_psf_is_needed_unless_it_is_used():
    exposure = Exposure(np.zeros((30, 30)))
    assert len(GridConfig(10, border=2).build(exposure)) == 9
    with pytest.raises(ValueError, match="scale_by_fwhm needs a PSF: give the exposure one"):
        GridConfig(10, scale_by_fwhm=True).build(exposure)


@pytest.mark.parametrize("fwhm", [0, -1.0, np.nan, np.inf])
def test_impossible_fwhm(fwhm):
    with pytest.raises(ValueError, match="FWHM must be a finite number above zero"):
        GridConfig(10, scale_by_fwhm=True).build(BOX, fwhm=fwhm)


def test_the_psf_of_a_lazy_result():
    lazy = Exposure(np.zeros((30, 30)), psf=dask.delayed(GaussianPsf)(2.0))
    with pytest.raises((TypeError, ValueError), match="PSF"):
        GridConfig(10, scale_by_fwhm=True).build(lazy)


# Even sizes


def test_even_sizes():
    grid = GridConfig(7, border=2, even_sized=True).build(Box(0, 0, 30, 31))
    for cell in grid:
        for box in (cell.core, cell.expanded):
            assert box.width % 2 == box.height % 2 == 0
            assert grid.box.contains(box)
        assert cell.expanded.contains(cell.core)


def test_even_sizes_grow_on_the_high_side_first():
    grid = GridConfig(3, border=0, even_sized=True).build(Box(0, 0, 6, 6))
    assert spans(grid, 0) == [(0, 4), (2, 4)]


def test_impossible_even_sizes():
    match = r"Box\(.*\) cannot be even-sized: .* axis of 15 pixels; use a smaller cell or border"
    with pytest.raises(RuntimeError, match=match):
        GridConfig(8, border=20, even_sized=True).build(Box(0, 0, 15, 16))


# Bad input


@pytest.mark.parametrize("name", ["cell_size", "step", "border"])
@pytest.mark.parametrize("value", [-1, np.nan, np.inf, -np.inf, (3, -1), (np.nan, 3)])
def test_sizes_that_are_none(name, value):
    with pytest.raises(ValueError, match=f"{name} must be finite and"):
        GridConfig(**{name: value, "adjust": "none"})


@pytest.mark.parametrize("name", ["cell_size", "step"])
def test_zero_is_a_border_only(name):
    with pytest.raises(ValueError, match=f"{name} must be finite and above zero, got 0"):
        GridConfig(**{name: 0, "adjust": "none"})


@pytest.mark.parametrize("value", ["big", (1, 2, 3), (1,), [[1, 2]], {}, 1j])
def test_sizes_of_a_wrong_type(value):
    for name in ("cell_size", "step", "border"):
        with pytest.raises(TypeError, match=rf"{name} must be a number or an \(x, y\) pair"):
            GridConfig(**{name: value, "adjust": "none"})


@pytest.mark.parametrize("value", ["64", ("64", "64"), "12"])
def test_sizes_as_text(value):
    with pytest.raises(TypeError, match="cell_size must be a number"):
        GridConfig(value)


@pytest.mark.parametrize("name", ["cell_size", "step"])
def test_sizes_that_round_to_zero(name):
    with pytest.raises(ValueError, match=rf"{name} \(0.4, 0.4\) .*rounds to zero pixels"):
        GridConfig(**{name: 0.4, "adjust": "none"}).build(BOX)


def test_unknown_adjust():
    with pytest.raises(ValueError, match="adjust is 'fit'; choose from partition, spacing, size"):
        GridConfig(adjust="fit")


@pytest.mark.parametrize("point", [(np.nan, 1), (1, np.inf)])
def test_centroids_that_are_nowhere(point):
    with pytest.raises(ValueError, match=r"centroid \(.*\) is not a finite position"):
        GridConfig(centroids=[point])


@pytest.mark.parametrize("centroids", [[1, 2], [(1, 2, 3)], ["ab"], [(1, None)]])
def test_centroids_of_a_wrong_type(centroids):
    with pytest.raises(TypeError, match=r"a centroid is an \(x, y\) pair of numbers"):
        GridConfig(centroids=centroids)


@pytest.mark.parametrize("over", [None, (0, 0, 10, 10), np.zeros((10, 10))])
def test_built_over_something_else(over):
    with pytest.raises(TypeError, match="a grid is built over an Exposure or a Box, not"):
        GridConfig().build(over)


@pytest.mark.parametrize("box", [Box(0, 0, 0, 0), Box(0, 0, 0, 5), Box(0, 0, 5, 0)])
@pytest.mark.parametrize("adjust", ["partition", "spacing", "size", "none"])
def test_built_over_an_empty_box(box, adjust):
    with pytest.raises(ValueError, match="empty"):
        GridConfig(3, border=1, adjust=adjust).build(box)


def test_an_empty_grid():
    with pytest.raises(ValueError, match=r"no cell of GridConfig\(.*\) lies on Box"):
        GridConfig(4, centroids=[(0, 0)]).build(BOX)


@pytest.mark.parametrize("adjust", ["partition", "spacing"])
def test_a_step_that_is_not_used(adjust):
    with pytest.warns(UserWarning, match=f"adjust='{adjust}' does not use step"):
        GridConfig(20, step=10, adjust=adjust)


def test_the_step_follows_the_cell_size():
    config = replace(GridConfig(20, adjust="none"), cell_size=10)
    assert config == GridConfig(10, adjust="none")
    assert replace(GridConfig(20), cell_size=10) == GridConfig(10)


# Properties

box_sizes = st.tuples(st.integers(1, 30), st.integers(1, 30))
regular = st.builds(
    GridConfig,
    cell_size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    border=st.tuples(st.integers(0, 9), st.integers(0, 9)),
)


@PROPERTY
@given(box_sizes, regular)
def test_partition_covers_every_pixel_once(size, config):
    grid = config.build(Box(-3, 7, *size))
    assert (coverage(grid) == 1).all()
    for axis in (0, 1):
        lengths = {length for _, length in spans(grid, axis)}
        assert max(lengths) - min(lengths) <= 1
        assert max(lengths) <= config.cell_size[axis]
        assert len(spans(grid, axis)) == -(-size[axis] // config.cell_size[axis])


@PROPERTY
@given(
    box_sizes,
    st.sampled_from(["partition", "spacing", "size", "none"]),
    st.integers(1, 12),
    st.integers(0, 9),
)
def test_every_grid(size, adjust, cell_size, border):
    box = Box(-3, 7, *size)
    grid = GridConfig(cell_size, border=border, adjust=adjust).build(box)
    assert [cell.index for cell in grid] == list(range(len(grid)))
    for cell in grid:
        assert cell.core.area
        assert box.contains(cell.core)
        if adjust == "partition":
            assert cell.expanded == cell.core.grow(border).clip(box)
        assert cell.expanded.contains(cell.core)
        assert box.contains(cell.expanded)
    assert coverage(grid).min() >= 1

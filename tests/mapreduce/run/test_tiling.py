"""Results side by side, written where the output is: the same bits as one by one."""

import dataclasses

import numpy as np
import pytest

import mapreduce as mr
from mapreduce import Average, Box, Copy, Exposure, GridConfig, Median, Sum, WeightedAverage
from mapreduce.reducers.base import Patch
from mapreduce.run.fold import Tiling, cut_out
from mapreduce.run.plan import make_plan
from tests.mapreduce.run.test_fold import make_spec

GRID = GridConfig((5, 4), border=2)
BOX = Box(3, -2, 23, 17)


def make_exposure():
    rng = np.random.default_rng(4)
    shape = BOX.shape
    mask = rng.integers(0, 4, shape, dtype="i4")
    image = rng.normal(0, 9, shape).astype("f4")
    image[rng.random(shape) < 0.1] = -0.0
    return Exposure(
        image,
        rng.uniform(1, 2, shape).astype("f4"),
        mask,
        origin=BOX[:2],
        mask_planes={"A": 0, "BAD": 1},
    )


# Mappers; each does something else than the others do to some of the cells


def plain(sub, expanded, full_bbox, cell):
    return sub.replace(image=-sub.image)


def unchanged(sub, expanded, full_bbox, cell):
    return sub


def negative_zero(sub, expanded, full_bbox, cell):
    return sub.replace(image=np.full(sub.shape, -0.0, "f4"))


def nan(sub, expanded, full_bbox, cell):
    image = sub.image.copy()
    image[0, 0] = np.nan if cell.index == 7 else 3
    return sub.replace(image=image)


def infinite(sub, expanded, full_bbox, cell):
    variance = np.where(sub.image > 5, np.inf, sub.variance).astype("f4")
    return sub.replace(variance=variance)


def wider(sub, expanded, full_bbox, cell):
    return expanded * 2 if cell.index % 5 == 3 else sub * 2


def double(sub, expanded, full_bbox, cell):
    return sub.replace(image=sub.image.astype("f8") / 3)


def mixed(sub, expanded, full_bbox, cell):
    return sub.replace(image=sub.image.astype("f8" if cell.index == 4 else "f4"))


def variance_at_times(sub, expanded, full_bbox, cell):
    return sub.replace(variance=sub.variance * 2) if cell.index == 6 else sub


def variance_mostly(sub, expanded, full_bbox, cell):
    return sub.replace(variance=sub.variance * 2) if cell.index != 6 else sub


def bits(sub, expanded, full_bbox, cell):
    return sub.replace(mask=sub.mask ^ 1)


def bits_at_times(sub, expanded, full_bbox, cell):
    return sub.replace(mask=sub.mask ^ 1) if cell.index > 9 else sub


def failing(sub, expanded, full_bbox, cell):
    if cell.index in (0, 8):
        raise ValueError("no luck")
    return sub * 2


MAPPERS = (
    *(plain, unchanged, negative_zero, nan, infinite, wider, double, mixed, variance_at_times),
    *(variance_mostly, bits, bits_at_times, failing),
)
REDUCERS = [
    kind(mask=mask)
    for kind in (Copy, Sum, Average, WeightedAverage, Median)
    for mask in ("or", "valid", "replace")
] + [Average(variance_rule="correlated"), Average(variance_rule="independent")]


def one_by_one(reducer):
    """The same reducer, as a class of one's own, which gets every result."""
    alone = type("Alone", (type(reducer),), {})
    return alone(
        **{f.name: getattr(reducer, f.name) for f in dataclasses.fields(reducer) if f.init}
    )


@pytest.mark.parametrize(
    "tile", [1000, *(pytest.param(t, marks=pytest.mark.slow) for t in ((10, 8), 7))]
)
@pytest.mark.parametrize("mapper", MAPPERS)
def test_the_same_bits(mapper, tile):
    exposure = make_exposure()
    options = {"grid": GRID, "tile": tile, "on_error": "mask"}
    for reducer in REDUCERS:
        result, expected = (
            mr.map_reduce(exposure, mapper, reducer=r, **options).compute(scheduler="synchronous")
            for r in (reducer, one_by_one(reducer))
        )
        for name, plane in expected.planes.items():
            assert plane.tobytes() == result.planes[name].tobytes(), (reducer, name)
        assert result.report.failures == expected.report.failures
        assert not np.may_share_memory(result.image, exposure.image)


@pytest.mark.parametrize("reducer", ["copy", "average", "median"])
@pytest.mark.parametrize("part", ["image", "variance", "mask"])
def test_a_mapper_may_set_parts_of_what_it_was_given(part, reducer):
    def set_part(sub, expanded, full_bbox):
        setattr(sub, part, getattr(sub, part) + 1)
        return sub

    def other(sub, expanded, full_bbox):
        return sub.replace(**{part: getattr(sub, part) + 1})

    done, expected = (
        mr.map_reduce(make_exposure(), mapper, grid=GRID, reducer=reducer).compute()
        for mapper in (set_part, other)
    )
    for name, plane in expected.planes.items():
        np.testing.assert_array_equal(done.planes[name], plane)


class Doubled(Copy):
    """A reducer of one's own that is derived from another."""

    def fold(self, state, where, patch):
        super().fold(state, where, patch._replace(image=2 * patch.image))


def test_a_reducer_that_folds_otherwise_is_asked():
    exposure = make_exposure()
    result = mr.map_reduce(exposure, unchanged, grid=GRID, reducer=Doubled()).compute()
    np.testing.assert_array_equal(result.image, 2 * exposure.image)


def tiling_of(cells, reducer="average"):
    """The tiling of one tile, and its output."""
    spec = dataclasses.replace(make_spec(reducer), box=BOX)
    (tile,) = make_plan(cells, tile=1000).tiles
    output = {name: np.zeros(BOX.shape, dtype) for name, dtype in spec.dtypes.items()}
    return Tiling(spec, tile, INPUT, output), output


INPUT = make_exposure()


def take(tiling, cell, patch):
    sub = INPUT.cutout(cell.core)
    return tiling.take(patch, cell.core, (sub.image, sub.variance))


def patch_of(cell, value=5.0, dtype="f4"):
    planes = (np.full(cell.core.shape, value, dtype) for _ in range(2))
    return Patch(cell.core, cell.core, *planes, cell=cell.index)


def test_results_that_fit_are_the_output():
    cells = GRID.build(BOX)
    tiling, output = tiling_of(cells)
    assert all(take(tiling, cell, patch_of(cell, cell.index)) for cell in cells)
    assert tiling.close()
    for cell, patch in zip(cells, cut_out(cells.table, BOX, output), strict=True):
        assert (patch.cell, patch.box) == (cell.index, cell.core)
        assert np.shares_memory(patch.image, output["image"])
        assert (patch.image == cell.index).all()


def test_what_the_mapper_left_is_copied_at_the_end():
    cells = GRID.build(BOX)
    tiling, output = tiling_of(cells)
    for cell in cells:
        sub = INPUT.cutout(cell.core)
        patch = patch_of(cell)._replace(variance=sub.variance)
        assert tiling.take(patch, cell.core, (sub.image, sub.variance))
    assert not output["variance"].any()
    assert tiling.close()
    np.testing.assert_array_equal(output["variance"], INPUT.variance)


@pytest.mark.parametrize(
    "odd",
    [
        lambda cell: patch_of(cell, dtype="f8"),
        lambda cell: None,
        lambda cell: patch_of(cell)._replace(mask=np.zeros(cell.core.shape, "i4")),
        lambda cell: patch_of(cell)._replace(box=cell.core.grow(1)),
    ],
)
def test_what_does_not_fit_leaves_those_before_whole(odd):
    cells = GRID.build(BOX)
    tiling, output = tiling_of(cells)
    taken = [
        take(tiling, cell, odd(cell) if cell.index == 6 else patch_of(cell, cell.index))
        for cell in cells
    ]
    assert taken == [cell.index < 6 for cell in cells]
    assert not tiling.close()
    patches = tiling.patches()
    output["image"][...] = 0  # as folding may do
    assert [patch.cell for patch in patches] == list(range(6))
    for patch in patches:
        assert (patch.image == patch.cell).all()


def test_a_value_that_is_missing_is_found_at_the_end():
    cells = GRID.build(BOX)
    tiling, _ = tiling_of(cells)
    for cell in cells:
        assert take(tiling, cell, patch_of(cell, np.nan if cell.index == 3 else 1.0))
    assert not tiling.close()
    assert len(tiling.patches()) == len(cells)


@pytest.mark.parametrize("reducer", ["median", "weighted_average", "feather"])
def test_reducers_that_change_single_values_fold_all(reducer):
    cells = GRID.build(BOX)
    tiling, _ = tiling_of(cells, reducer)
    assert not any(take(tiling, cell, patch_of(cell)) for cell in cells)


@pytest.mark.parametrize(
    "boxes",
    [
        [(3, -2, 4, 4), (3, 3, 4, 4)],  # a gap of a row
        [(3, -2, 4, 4), (3, 1, 4, 4)],  # overlap
        [(3, -2, 4, 4), (4, 2, 4, 4)],  # to the side
        [(3, -2, 4, 4), (3, 2, 5, 4)],  # wider
        [(3, -2, 4, 4), (3, -2, 4, 4)],  # the same again
        [(3, -2, 2, 2), (5, -2, 2, 2), (3, 0, 2, 2), (5, -2, 2, 2)],  # overlap and a hole
        [],
    ],
)
def test_cells_that_are_no_tiling(boxes):
    cells = mr.Grid(BOX, [mr.Cell(n, Box(*box), Box(*box)) for n, box in enumerate(boxes)])
    tiling, _ = tiling_of(cells)
    assert not any(take(tiling, cell, patch_of(cell)) for cell in cells)
    assert not tiling.close()
    assert tiling.patches() == []

import dataclasses

import numpy as np
import pytest

from mapreduce import (
    Average,
    Box,
    Copy,
    Exposure,
    Feather,
    GridConfig,
    Median,
    Patch,
    Sum,
    WeightedAverage,
    map_reduce,
)
from tests.support import all_nan, identity, two_cells

NAN, INF = np.nan, np.inf
PIXEL_REDUCERS = [Copy, Sum, Average, WeightedAverage, Median, Feather]
FLAGS = 1 << 11 | 1 << 8 | 1 << 0


@np.errstate(invalid="ignore")
def fold(reducer, images, variances=None, dtype="f4"):
    """Fold rows of pixels that lie on each other; return image and variance."""
    images = np.array(images, dtype)[:, None]
    shape, box = images[0].shape, Box(0, 0, images.shape[-1], 1)
    image, variance = np.full(shape, 77, dtype), None
    if variances is not None:
        variances, variance = np.array(variances, "f4")[:, None], np.full(shape, 77, "f4")
    state = reducer.begin(image, variance)
    for n, pixels in enumerate(images):
        spread = None if variances is None else variances[n]
        valid = ~np.isnan(pixels if spread is None else pixels * spread)
        patch = Patch(box, box, pixels, spread, None if valid.all() else valid)
        reducer.fold(state, box.slices(box), patch)
    reducer.finish(state)
    return image[0].tolist(), None if variance is None else variance[0].tolist()


# What they compute: the values 1, 2, 6 with the variances 1, 4, 9

VALUES, VARIANCES = [[1], [2], [6]], [[1], [4], [9]]
WEIGHT = 1 + 1 / 4 + 1 / 9


@pytest.mark.parametrize(
    ("reducer", "image", "variance"),
    [
        (Copy(), 6, 9),
        (Sum(), 9, 14),
        (Average(), 3, 14 / 3),
        (Average(variance_rule="correlated"), 3, 4),
        (Average(variance_rule="independent"), 3, 14 / 9),
        (WeightedAverage(variance_rule="mean"), 78 / 49, 3 / WEIGHT),
        (WeightedAverage(), 78 / 49, (66 / 49) ** 2),
        (WeightedAverage(variance_rule="independent"), 78 / 49, 1 / WEIGHT),
        (Median(variance_rule="mean"), 2, 14 / 3),
        (Median(), 2, 4),
        (Median(variance_rule="independent"), 2, np.pi / 2 * 14 / 9),
        (Feather(variance_rule="mean"), 3, 14 / 3),
        (Feather(), 3, 4),
        (Feather(variance_rule="independent"), 3, 14 / 9),
    ],
    ids=lambda value: (
        f"{value.name}-{value.variance_rule}" if dataclasses.is_dataclass(value) else ""
    ),
)
def test_three_values(reducer, image, variance):
    assert fold(reducer, VALUES, VARIANCES) == (
        pytest.approx([image], rel=1e-6),
        pytest.approx([variance], rel=1e-6),
    )


@pytest.mark.parametrize("kind", [Copy, Sum, Average, Median, Feather])
def test_without_variance(kind):
    image, variance = fold(kind(), VALUES)
    assert image == [{Copy: 6, Sum: 9, Median: 2}.get(kind, 3)]
    assert variance is None


@pytest.mark.parametrize("kind", PIXEL_REDUCERS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_single_value_stays_as_it_is(kind, dtype):
    reducer = kind() if kind in (Copy, Sum) else kind(variance_rule="mean")
    values, variances = [[0.1, -3e7, 1e-30]], [[0.25, 4.0, 1.0]]
    image, variance = fold(reducer, values, variances, dtype)
    assert image == np.array(values[0], dtype).tolist()
    assert variance == pytest.approx(variances[0], rel=1e-6)


@pytest.mark.parametrize("kind", PIXEL_REDUCERS)
def test_values_that_are_missing(kind):
    values = [[1, NAN, 1, NAN], [3, 5, 3, NAN], [5, NAN, 3, 1]]
    variances = [[1, 1, NAN, 1], [1, 4, NAN, 1], [1, 1, NAN, NAN]]
    image, variance = fold(kind(), values, variances)
    one = {Copy: 5, Sum: 9}.get(kind, 3)
    expected = [one, 5, 0, 0] if kind is Sum else [one, 5, NAN, NAN]
    np.testing.assert_allclose(image, expected, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(variance), np.isnan(expected))
    assert variance[1] == pytest.approx(4)


@pytest.mark.parametrize("kind", PIXEL_REDUCERS)
def test_nothing_at_all(kind):
    reducer = kind()
    image, variance = np.full((2, 2, 3), 77, "f4")
    reducer.finish(reducer.begin(image, variance))
    expected = 0 if kind is Sum else NAN
    np.testing.assert_array_equal(image, np.full((2, 3), expected))
    np.testing.assert_array_equal(variance, np.full((2, 3), expected))


def test_average_adds_in_the_dtype_of_the_output():
    small = [[1e8], *[[1]] * 3]
    assert fold(Average(), small)[0] == [25_000_000]
    assert fold(Average(), small, dtype="f8")[0] == [25_000_000.75]


@pytest.mark.parametrize("variance", [0, -1, INF, NAN])
def test_weighted_average_leaves_out_what_has_no_weight(variance):
    image, spread = fold(WeightedAverage(), [[100], [4]], [[variance], [2]])
    assert (image, spread) == ([4], pytest.approx([2]))


def test_median_of_an_even_number_is_the_mean_of_the_middle():
    image, variance = fold(
        Median(variance_rule="independent"), [[1], [10], [4], [2]], [[1], [1], [1], [1]]
    )
    assert image == [3]
    assert variance == pytest.approx([np.pi / 2 / 4])
    assert fold(Median(variance_rule="independent"), VALUES[:2], VARIANCES[:2]) == ([1.5], [1.25])


def test_median_of_many_with_gaps():
    rng = np.random.default_rng(1)
    stack = rng.normal(size=(9, 50)).astype("f4")
    stack[rng.random(stack.shape) < 0.4] = NAN
    stack[0] = 0
    image, _ = fold(Median(), stack)
    np.testing.assert_allclose(image, np.nanmedian(stack.astype("f8"), axis=0), rtol=1e-6)


def test_feather_fades_from_one_result_to_the_next():
    reducer = Feather(variance_rule="mean")
    image, variance = np.zeros((2, 1, 12), "f4")
    state = reducer.begin(image, variance)
    for value, start in ((0, 0), (1, 4)):
        box = Box(start, 0, 8, 1)
        pixels = np.full((1, 8), value, "f4")
        where = slice(None), slice(start, start + 8)
        reducer.fold(state, where, Patch(box, box, pixels, pixels + 1, None))
    reducer.finish(state)
    np.testing.assert_allclose(image[0], [0] * 4 + [0.125, 0.375, 0.625, 0.875] + [1] * 4)
    np.testing.assert_allclose(variance, image + 1)


# Masks and flags, in a run of two overlapping cells


@pytest.mark.parametrize("kind", PIXEL_REDUCERS)
@pytest.mark.parametrize(
    ("rule", "bits"),
    [
        ("or", [16 | 2, 16 | 2 | 4, 16 | 2 | 4, 16 | 4]),
        ("valid", [16 | 2, 16 | 2 | 4, 16 | 4, 16 | 4]),
        ("replace", [2, 2 | 4, 2 | 4, 4]),
    ],
)
def test_mask_rules(kind, rule, bits):
    assert two_cells(kind(mask=rule)).mask.tolist() == [bits]


def test_the_mask_of_pixels_without_cells_is_kept():
    grid = GridConfig(1, border=0, centroids=[(1, 0)])
    exposure = Exposure(np.ones((1, 3)), mask=np.full((1, 3), 16))
    for rule in ("or", "valid", "replace"):
        result = map_reduce(exposure, clear, grid=grid, reducer=Copy(mask=rule)).compute()
        middle = 0 if rule == "replace" else 16
        assert result.mask.tolist() == [[16 | FLAGS, middle, 16 | FLAGS]]


def clear(sub, expanded, full_bbox):
    return sub.replace(mask=np.zeros(sub.shape, "i4"))


@pytest.mark.parametrize("kind", PIXEL_REDUCERS)
def test_missing_values_are_flagged(kind):
    result = two_cells(kind(), all_nan)
    flags = [0] * 4 if kind is Sum else [FLAGS] * 4
    assert (result.mask & FLAGS).tolist() == [flags]


def test_planes_for_missing_values_can_be_chosen():
    reducer = Copy(bad=("SAT", "MINE"))
    result = two_cells(reducer, all_nan)
    assert result.mask_planes["MINE"] == 11
    assert "INVALID_MAPREDUCE" not in result.mask_planes
    assert result.mask.tolist() == [[16 | 2 | 1 << 11] * 4]


def test_infinity_times_zero_is_no_value():
    exposure = Exposure(np.array([[INF, INF, 1]]), np.array([[0.0, 1, 0]]))
    result = map_reduce(exposure, identity, grid=GridConfig(3, border=0)).compute()
    np.testing.assert_array_equal(result.image, [[NAN, INF, 1]])
    assert result.mask.tolist() == [[FLAGS, 0, 0]]

import dataclasses

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from mapreduce import (
    Average,
    Box,
    Cell,
    CellPsf,
    CellResult,
    Collector,
    Concatenate,
    Copy,
    Exposure,
    Feather,
    GaussianPsf,
    GridConfig,
    Median,
    Patch,
    PixelReducer,
    Sum,
    WeightedAverage,
    map_reduce,
)
from mapreduce.reducers.base import get_reducer
from tests.support import make_exposure

NAN, INF = np.nan, np.inf
PIXEL_REDUCERS = [Copy, Sum, Average, WeightedAverage, Median, Feather]
MEANS = [Average, WeightedAverage, Median, Feather]
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

ROW = Box(0, 0, 4, 1)
GRID = GridConfig((3, 1), border=0, centroids=[(1, 0), (2, 0)])  # pixels 0 to 2 and 1 to 3


def run(reducer, mapper=None, *, image=(1, 2, 3, 4), mask=(16, 16, 16, 16), **options):
    exposure = Exposure(
        np.array([image], "f4"), np.ones((1, 4), "f4"), np.array([mask], "i4"), psf=GaussianPsf(1.0)
    )
    return map_reduce(exposure, mapper or set_bits, grid=GRID, reducer=reducer, **options).compute()


def set_bits(sub, expanded, full_bbox, cell):
    """Give both cells other bits, and the first no value in its last pixel."""
    image = sub.image.copy()
    if cell.index == 0:
        image[0, 2] = NAN
    return sub.replace(image=image, mask=np.full(sub.shape, 2 << cell.index, "i4"))


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
    assert run(kind(mask=rule)).mask.tolist() == [bits]


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
    result = run(kind(), all_nan)
    flags = [0] * 4 if kind is Sum else [FLAGS] * 4
    assert (result.mask & FLAGS).tolist() == [flags]


def all_nan(sub, expanded, full_bbox):
    return sub.replace(image=np.full(sub.shape, NAN, "f4"))


def test_planes_for_missing_values_can_be_chosen():
    reducer = Copy(bad=("SAT", "MINE"))
    result = run(reducer, all_nan)
    assert result.mask_planes["MINE"] == 11
    assert "INVALID_MAPREDUCE" not in result.mask_planes
    assert result.mask.tolist() == [[16 | 2 | 1 << 11] * 4]


def test_a_single_plane_for_missing_values():
    assert Copy(bad="NO_DATA").bad == ("NO_DATA",)


def test_infinity_times_zero_is_no_value():
    exposure = Exposure(np.array([[INF, INF, 1]]), np.array([[0.0, 1, 0]]))
    result = map_reduce(exposure, clear_nothing, grid=GridConfig(3, border=0)).compute()
    np.testing.assert_array_equal(result.image, [[NAN, INF, 1]])
    assert result.mask.tolist() == [[FLAGS, 0, 0]]


def clear_nothing(sub, expanded, full_bbox):
    return sub


# By name


@pytest.mark.parametrize(
    "name",
    "none copy sum average coadd_psf weighted_average median feather concatenate".split(),
)
def test_by_name(name):
    reducer = get_reducer(name)
    assert reducer.name == name
    assert get_reducer(reducer) is reducer
    assert isinstance(reducer, PixelReducer | Collector)


def test_unknown_names():
    with pytest.raises(ValueError, match="no reducer 'mode'; choose from none, copy, sum, average"):
        get_reducer("mode")


@pytest.mark.parametrize("reducer", [None, 5, np.mean, Average])
def test_no_reducer(reducer):
    with pytest.raises(TypeError, match="reducer must be a name, a PixelReducer or a Collector"):
        get_reducer(reducer)


@pytest.mark.parametrize("kind", PIXEL_REDUCERS)
def test_unknown_rules(kind):
    with pytest.raises(ValueError, match="mask is 'and'; choose from or, valid, replace"):
        kind(mask="and")
    if kind in MEANS:
        with pytest.raises(ValueError, match="variance_rule is 'best'; choose from mean"):
            kind(variance_rule="best")


@pytest.mark.parametrize("kind", MEANS)
@pytest.mark.parametrize("rule", ["none", "sum"])
def test_rules_that_a_mean_does_not_have(kind, rule):
    with pytest.raises(ValueError, match="variance_rule is"):
        kind(variance_rule=rule)


@pytest.mark.parametrize("kind", [Copy, Average, WeightedAverage, Median, Feather])
def test_integers_cannot_hold_nan(kind):
    exposure = make_exposure(dtype="i4")
    with pytest.raises(ValueError, match=r"image of int32 cannot hold.*exposure.astype"):
        map_reduce(exposure, clear_nothing, reducer=kind(), grid=GridConfig(9, border=1))


def test_weights_need_a_variance():
    exposure = make_exposure(variance=False)
    with pytest.raises(ValueError, match="'weighted_average' needs an exposure with a variance"):
        map_reduce(exposure, clear_nothing, reducer="weighted_average")


# One's own


@dataclasses.dataclass(frozen=True)
class Maximum(PixelReducer):
    name = "maximum"
    variance_rule = "none"

    def begin(self, image, variance):
        image[...] = -INF
        variance[...] = NAN
        return image, variance

    def fold(self, state, where, patch):
        higher = patch.image > state[0][where]
        for plane, values in zip(state, patch[2:4], strict=True):
            np.copyto(plane[where], values, where=higher)

    def finish(self, state):
        state[0][np.isinf(state[0])] = NAN


def test_a_reducer_of_ones_own():
    result = run(Maximum(), raise_second)
    assert result.image.tolist() == [[1, 12, 13, 14]]
    assert result.meta["MRREDUCE"] == "maximum"
    assert result.meta["MRVARRUL"] == "none"
    assert run(Maximum(bad=("SAT",)), all_nan).mask.tolist() == [[18] * 4]


def raise_second(sub, expanded, full_bbox, cell):
    return sub + 10 * cell.index


class Count(Collector):
    name = "count"

    def collect(self, results):
        return len(results), [result.cell.index for result in results]


def test_a_collector_of_ones_own():
    assert run(Count()) == (2, [0, 1])


def test_bases_do_nothing():
    with pytest.raises(NotImplementedError, match="Nothing must define begin, fold and finish"):
        type("Nothing", (PixelReducer,), {})().begin(None, None)
    with pytest.raises(NotImplementedError, match="Nothing must define collect"):
        type("Nothing", (Collector,), {})().collect([])


# Collecting


def test_none_returns_what_the_mapper_returned():
    assert run("none", lambda sub, expanded, full: sub.bbox) == [Box(0, 0, 3, 1), Box(1, 0, 3, 1)]


def test_none_with_the_inputs():
    first, second = run("none", lambda sub, expanded, full: 5, return_sub_exposures=True)
    assert (first.value, second.value) == (5, 5)
    assert first.sub.bbox == first.cell.core == Box(0, 0, 3, 1)
    assert second.expanded.bbox == second.cell.expanded
    assert second.sub.image.tolist() == [[2, 3, 4]]


def concatenated(values, **options):
    """Concatenate what the two cells return."""
    return run(Concatenate(**options), lambda sub, expanded, full, cell: values[cell.index])


def test_concatenate_tables():
    result = concatenated([Table({"x": [1, 2]}, meta={"A": 1}), Table({"x": [3]}, meta={"A": 2})])
    assert isinstance(result, Table)
    assert result["x"].tolist() == [1, 2, 3]
    assert result["cell"].tolist() == [0, 0, 1]


def test_concatenate_mappings():
    result = concatenated([{"x": np.array([1, 2]), "y": [5, 6]}, {"x": 3, "y": 7}])
    assert {name: column.tolist() for name, column in result.items()} == {
        "x": [1, 2, 3], "y": [5, 6, 7], "cell": [0, 0, 1],
    }  # fmt: skip


def test_concatenate_arrays_and_lists():
    one, two = np.array([(1, 2.0)], "i4,f8"), np.array([(3, 4.0)], "i4,f8")
    assert concatenated([one, two]).tolist() == [(1, 2.0), (3, 4.0)]
    assert concatenated([["a"], ["b", "c"]]) == ["a", "b", "c"]


def test_concatenate_data_frames():
    pd = pytest.importorskip("pandas")
    result = concatenated([pd.DataFrame({"x": [1, 2]}), pd.DataFrame({"x": [3]})])
    assert result.to_dict("list") == {"x": [1, 2, 3], "cell": [0, 0, 1]}


def test_concatenate_the_input_is_not_changed():
    tables = [Table({"x": [1]}), Table({"x": [2]})]
    concatenated(tables)
    assert tables[0].colnames == ["x"]


def test_concatenate_with_another_cell_column():
    assert list(concatenated([{"x": [1]}, {"x": [2]}], cell_column="n")) == ["x", "n"]
    assert list(concatenated([{"x": [1]}, {"x": [2]}], cell_column=None)) == ["x"]


def test_concatenate_none_is_empty():
    assert concatenated([None, [5]]) == [5]
    assert concatenated([None, {"x": [5]}])["cell"].tolist() == [1]
    assert concatenated([None, None]) == []


def test_concatenate_empty_tables():
    assert len(concatenated([Table({"x": []}), Table({"x": []})])) == 0
    assert concatenated([{"x": []}, {"x": [1]}])["cell"].tolist() == [1]


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ([[1], {"x": [1]}], TypeError, r"different types: \['dict', 'list'\]"),
        ([5.0, 6.0], TypeError, "cannot concatenate float; the mapper must return tables"),
        ([{"x": [1]}, {"y": [1]}], ValueError, r"cell 1 has columns \['y'\], the first \['x'\]"),
    ],
)
def test_concatenate_what_does_not_fit(values, error, match):
    with pytest.raises(error, match=match):
        concatenated(values)


def test_concatenate_mappings_without_columns():
    result = concatenated([{}, {}])
    assert all(len(column) == 0 for column in result.values())


def test_coadd_psf():
    for mapper in (clear_nothing, lambda sub, expanded, full: (sub.psf, sub.bbox)):
        psf = run("coadd_psf", mapper)
        assert isinstance(psf, CellPsf)
        assert [(c.index, c.box, c.weight) for c in psf.components] == [
            (0, Box(0, 0, 3, 1), 1.0), (1, Box(1, 0, 3, 1), 1.0),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("mapper", "error", "match"),
    [
        (lambda sub, expanded, full: sub.psf, TypeError, r"takes an Exposure or a \(psf, box\)"),
        (lambda sub, expanded, full: sub.replace(psf=None), ValueError, "needs a PSF"),
        (lambda sub, expanded, full: sub.replace(wcs=WCS(naxis=2)), ValueError, "another WCS"),
    ],
)
def test_coadd_psf_of_what_has_none(mapper, error, match):
    with pytest.raises(error, match=match) as caught:
        run("coadd_psf", mapper)
    assert "in cell 0" in caught.value.__notes__[0]


def test_concatenate_keeps_a_column_of_the_mapper_s_own():
    results = [CellResult(Cell(0, Box(0, 0, 1, 1), Box(0, 0, 1, 1)), {"cell": [77], "x": [1]})]
    with pytest.raises(ValueError, match="own column 'cell' is in the way"):
        Concatenate().collect(results)
    assert list(Concatenate(cell_column=None).collect(results)) == ["cell", "x"]

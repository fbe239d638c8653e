"""The clipped median finds the bulk of the values, and errors are as large as they say."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.reference.clipping import clipped_median, mad_scatter, median_error


@pytest.mark.parametrize("outliers", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("sigma", [0.005, 0.05])
def test_outliers_on_one_side_are_clipped(outliers, sigma):
    rng = np.random.default_rng(1)
    values = 0.3 + sigma * rng.standard_normal(2000)
    wrong = rng.random(2000) < outliers
    values[wrong] += rng.uniform(0.7, 1.5, wrong.sum())
    found = clipped_median(values)
    assert abs(found.value - 0.3) < 4 * sigma / np.sqrt(2000)
    assert found.scatter == pytest.approx(sigma, rel=0.1)
    assert not found.kept[wrong].any()
    assert found.kept[~wrong].mean() > 0.985


def test_the_mode_wins_where_most_values_are_wrong():
    rng = np.random.default_rng(1)
    values = np.concatenate([0.01 * rng.standard_normal(400), rng.uniform(0.2, 3, 600)])
    assert abs(clipped_median(values).value) < 2e-3


def test_what_is_kept_does_not_change_any_more():
    values = np.random.default_rng(3).standard_t(2, 500) / 100
    found = clipped_median(values)
    kept = values[found.kept]
    assert found.value == np.median(kept)
    low, high = np.percentile(kept, (25, 75))
    assert found.scatter == pytest.approx((high - low) / 1.349, rel=1e-3)
    np.testing.assert_array_equal(found.kept, np.abs(values - found.value) <= 3 * found.scatter)


def test_never_is_more_kept_than_three_times_a_quarter_of_a_magnitude():
    values = np.random.default_rng(3).uniform(-3, 3, 1000)
    found = clipped_median(values)
    assert np.abs(values[found.kept] - found.value).max() <= 0.75


@pytest.mark.parametrize(
    "values",
    [
        [0.2],
        [0.2, 0.2],
        [0.2] * 30,
        [0.1, 0.3],
        [0.1, 0.2, 0.3],
        [0.2] * 5 + [9.0],
        [0.2] * 5 + [-1e6],
    ],
)
def test_few_or_equal_values_have_a_median(values):
    found = clipped_median(np.array(values))
    assert found.value == pytest.approx(0.2)
    assert found.kept.any()


def test_of_none_there_is_no_median():
    found = clipped_median(np.zeros(0))
    assert np.isnan([found.value, found.scatter]).all()
    assert len(found.kept) == 0
    assert np.isnan([median_error(np.zeros(0)), mad_scatter(np.zeros(0))]).all()


@pytest.mark.parametrize("count", [1, 3, 5, 31])
def test_the_error_of_a_median_is_that_of_many_of_them(count):
    values = np.random.default_rng(1).standard_normal((40_000, count))
    error = np.median(values, axis=1).std()
    assert median_error(np.ones(count)) == pytest.approx(error, rel=0.03)


def test_the_error_of_a_median_of_unequal_errors():
    errors = np.tile([1.0, 4.0], 100)
    values = errors * np.random.default_rng(1).standard_normal((20_000, 200))
    assert median_error(errors) == pytest.approx(np.median(values, axis=1).std(), rel=0.04)
    assert median_error(np.zeros(5)) == 0

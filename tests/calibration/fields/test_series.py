"""Chebyshev series at many positions: against numpy's, and the same bits in any company."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial.chebyshev import chebval2d

from calibration.fields import series
from calibration.fields.series import basis, evaluate, evaluate_mixed, unit

BOXES = np.array([[0, 0, 100, 50], [-10, 4, 20, 30], [5, 5, 64, 64]])


def make_mixed(n=300, order=(3, 5), fields=3):
    rng = np.random.default_rng(n)
    which = rng.integers(0, fields, n)
    x, y = rng.uniform(-10, 100, (2, n))
    return rng.normal(size=(fields, *order)), which, x, y


@pytest.mark.parametrize("order", [(1, 1), (1, 4), (5, 2), (6, 6), (9, 12)])
def test_values_are_those_of_numpy(order):
    coefficients, which, x, y = make_mixed(order=order)
    found = evaluate_mixed(BOXES, coefficients, which, x, y)
    for i, box in enumerate(BOXES):
        here = which == i
        at = unit(y[here], box[1], box[3]), unit(x[here], box[0], box[2])
        expected = chebval2d(*at, coefficients[i])
        np.testing.assert_allclose(found[here], expected, rtol=1e-9, atol=1e-9)
        single = evaluate(coefficients[i], at[1], at[0])
        np.testing.assert_array_equal(found[here], single)
        stacked = evaluate(np.broadcast_to(coefficients[i], (len(at[0]), *order)), at[1], at[0])
        np.testing.assert_array_equal(found[here], stacked)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_the_same_bits_in_any_company(block, monkeypatch):
    coefficients, which, x, y = make_mixed(order=(6, 9))
    expected = evaluate_mixed(BOXES, coefficients, which, x, y)
    single = [evaluate_mixed(BOXES, coefficients, *row) for row in zip(which, x, y, strict=True)]
    np.testing.assert_array_equal(single, expected)
    order = np.random.default_rng(1).permutation(len(x))
    monkeypatch.setattr(series, "BLOCK", block)
    shuffled = evaluate_mixed(BOXES, coefficients, which[order], x[order], y[order])
    np.testing.assert_array_equal(shuffled, expected[order])
    more = np.pad(coefficients, [(0, 0), (0, 2), (0, 1)])  # as in a stack with higher orders
    np.testing.assert_array_equal(evaluate_mixed(BOXES, more, which, x, y), expected)


def test_arguments_are_broadcast():
    coefficients, *_ = make_mixed()
    table = evaluate_mixed(BOXES, coefficients, [[0], [2]], [1.0, 2.0, 3.0], 5)
    assert table.shape == (2, 3)
    assert table[1, 2] == evaluate_mixed(BOXES, coefficients, 2, 3, 5)
    assert evaluate_mixed(BOXES, coefficients, 2, 3, 5).shape == ()
    assert evaluate_mixed(BOXES, coefficients, np.array([], int), [], []).shape == (0,)
    stack = evaluate(coefficients, np.zeros((4, 1)), 0.0)
    assert stack.shape == (4, 3)
    np.testing.assert_array_equal(stack[0], [evaluate(c, 0.0, 0.0) for c in coefficients])


def test_nan_and_single_precision():
    coefficients, *_ = make_mixed()
    found = evaluate_mixed(BOXES, coefficients, 1, [np.nan, 1.0, 2.0], [1.0, np.nan, 2.0])
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])
    x, y = np.float32([0.1]), np.float32([0.7])
    expected = evaluate_mixed(BOXES, coefficients, 1, x.astype("f8"), y.astype("f8"))
    np.testing.assert_array_equal(evaluate_mixed(BOXES, coefficients, 1, x, y), expected)
    with pytest.raises(ValueError, match=r"must have the shape \(..., ny, nx\), got \(3, 0, 2\)"):
        evaluate(np.ones((3, 0, 2)), 0, 0)


def test_a_basis_goes_where_it_is_told():
    t = np.linspace(-1, 1, 5)
    out = np.empty((4, 5))
    assert basis(4, t, out) is out
    np.testing.assert_allclose(out[3], np.cos(3 * np.arccos(t)), atol=1e-15)

"""Bounded fields against numpy's Chebyshev polynomials, and their algebra."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from dask.base import tokenize
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial.chebyshev import chebgrid2d, chebval2d

from calibration.fields.chebyshev import ChebyshevField, product
from calibration.fields.series import evaluate, unit
from mapreduce import Box

BOX = Box(100, -20, 40, 30)


def make_field(ny=3, nx=4, box=BOX, seed=0):
    return ChebyshevField(box, np.random.default_rng(seed).normal(size=(ny, nx)))


def positions(n=50, box=BOX, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.uniform(box.x0 - 0.5, box.x1 - 0.5, n)
    return x, rng.uniform(box.y0 - 0.5, box.y1 - 0.5, n)


def test_the_outer_edges_of_the_pixels_are_mapped_to_one():
    np.testing.assert_array_equal(unit([99.5, 139.5], BOX.x0, BOX.width), [-1, 1])
    field = ChebyshevField(BOX, [[0, 1], [10, 0]])
    assert field(99.5, -20.5) == -11
    assert field(139.5, 9.5) == 11
    assert field(*BOX.center) == field.center == 0


def test_values_are_those_of_numpy():
    field = make_field()
    x, y = positions()
    expected = chebval2d(
        unit(y, BOX.y0, BOX.height), unit(x, BOX.x0, BOX.width), field.coefficients
    )
    np.testing.assert_allclose(field(x, y), expected, rtol=1e-13, atol=1e-14)
    assert field.order == (3, 4)


def test_positions_are_broadcast_and_nan_stays_alone():
    field = make_field()
    x, y = positions(5)
    table = field(x, y[:, None])
    assert table.shape == (5, 5)
    np.testing.assert_allclose(np.diag(table), field(x, y), rtol=1e-14)
    assert field(x[0], y[0]).shape == ()
    np.testing.assert_array_equal(np.isnan(field([x[0], np.nan], y[0])), [False, True])
    assert field([], []).shape == (0,)


@pytest.mark.parametrize("order", [(1, 1), (1, 5), (4, 2)])
@pytest.mark.parametrize("box", [None, Box(110, -20, 7, 5), Box(139, 9, 1, 1)])
def test_an_image_has_the_values_at_the_pixels(order, box):
    field = make_field(*order)
    image = field.over(box)
    box = box or BOX
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    np.testing.assert_allclose(image, field(x, y), rtol=1e-13, atol=1e-14)
    rows = unit(y[:, 0], BOX.y0, BOX.height)
    columns = unit(x[0], BOX.x0, BOX.width)
    expected = chebgrid2d(rows, columns, field.coefficients)
    np.testing.assert_allclose(image, expected, rtol=1e-13, atol=1e-14)
    assert image.dtype == np.float64
    assert field.over(box, np.float32).dtype == np.float32


def test_products_are_exact():
    a, b = make_field(3, 2, seed=2), make_field(2, 5, seed=3)
    x, y = positions()
    assert (a * b).order == (4, 6)
    np.testing.assert_allclose((a * b)(x, y), a(x, y) * b(x, y), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose((b * a).coefficients, (a * b).coefficients, rtol=1e-13)
    for twice in (a * 2, 2 * a, np.float64(2) * a, a * np.int64(2)):
        np.testing.assert_array_equal(twice.coefficients, 2 * a.coefficients)


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99)
)
def test_products_of_any_orders(ny, nx, my, mx, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(ny, nx)), rng.normal(size=(my, mx))
    x, y = rng.uniform(-1, 1, (2, 10))
    values = evaluate(a, x, y) * evaluate(b, x, y)
    np.testing.assert_allclose(evaluate(product(a, b), x, y), values, rtol=1e-11, atol=1e-12)


def test_products_and_values_of_stacks_are_those_of_their_members():
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(6, 3, 3)), rng.normal(size=(6, 2, 4))
    x, y = rng.uniform(-1, 1, (2, 6))
    both = product(a, b)
    for i in range(6):
        np.testing.assert_allclose(both[i], product(a[i], b[i]), rtol=1e-14)
    each = [evaluate(c, *at) for c, *at in zip(both, x, y, strict=True)]
    np.testing.assert_allclose(evaluate(both, x, y), each, rtol=1e-13)
    table = evaluate(both[:, None], x, y)  # every field at every position
    np.testing.assert_allclose(np.diag(table), each, rtol=1e-13)
    np.testing.assert_allclose(product(a, b[0])[2], product(a[2], b[0]), rtol=1e-14)


@pytest.mark.parametrize("box", [Box(90, -40, 100, 77), Box(110, -10, 3, 3), BOX])
def test_rebased_is_the_same_polynomial(box):
    field = make_field(4, 5)
    x, y = positions(box=box)
    moved = field.rebased(box)
    assert moved.box == box
    np.testing.assert_allclose(moved(x, y), field(x, y), rtol=1e-11)
    back = moved.rebased(BOX)
    np.testing.assert_allclose(back.coefficients, field.coefficients, rtol=1e-9)


def test_fit_finds_the_field_that_made_the_values():
    field = make_field(2, 3)
    x, y = positions(200)
    fitted = ChebyshevField.fit(BOX, x, y, field(x, y), order=(2, 3))
    np.testing.assert_allclose(fitted.coefficients, field.coefficients, rtol=1e-12)
    assert ChebyshevField.fit(BOX, x, y, 1).order == (3, 3)


def test_fit_refuses_what_it_cannot_determine():
    x, y = positions(50)
    with pytest.raises(ValueError, match="50 positions determine 3 of 3 x 3 coefficients"):
        ChebyshevField.fit(BOX, x, np.zeros(50), x)
    with pytest.raises(ValueError, match="must be finite"):
        ChebyshevField.fit(BOX, x, y, np.where(x > x[3], np.nan, x))


def test_it_is_a_value():
    field = make_field()
    again = pickle.loads(pickle.dumps(field))
    assert again == field
    assert hash(again) == hash(field)
    assert not again.coefficients.flags.writeable
    assert tokenize(again) == tokenize(field)
    assert field != make_field(seed=9)
    assert field != field.rebased(Box(0, 0, 40, 30))
    coefficients = np.ones((2, 2))
    field = ChebyshevField(BOX, coefficients)
    coefficients[:] = 5
    assert field.center == 1  # its own copy: not 5
    with pytest.raises(AttributeError):
        field.box = Box(0, 0, 1, 1)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"shape \(ny, nx\), got \(9,\); reshape"):
        ChebyshevField(BOX, np.ones(9))
    with pytest.raises(ValueError, match=r"got \(0, 3\)"):
        ChebyshevField(BOX, np.ones((0, 3)))
    with pytest.raises(ValueError, match="must be finite, got .*nan"):
        ChebyshevField(BOX, [[1, np.nan]])
    with pytest.raises(TypeError, match="mapreduce.Box, got tuple"):
        ChebyshevField((0, 0, 4, 4), [[1]])
    with pytest.raises(ValueError, match="has none"):
        ChebyshevField(Box(0, 0, 0, 4), [[1]])
    with pytest.raises(ValueError, match="reaches outside of the field's box"):
        make_field().over(Box(99, 0, 3, 3))
    with pytest.raises(ValueError, match=r"bring one to the other's box with rebased\(\)"):
        make_field() * make_field(box=Box(0, 0, 40, 30))
    with pytest.raises(TypeError, match="unsupported operand"):
        make_field() * None
    with pytest.raises(ValueError, match="a Box with pixels"):
        make_field().rebased(Box(0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"\(\.\.\., ny, nx\), got \(3,\)"):
        product(np.ones(3), np.ones((3, 3)))

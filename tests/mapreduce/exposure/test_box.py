import pickle

import numpy as np
import pytest
from dask.base import tokenize
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce.exposure.box import Box, size_pair

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
coordinates = st.integers(-9, 9)
sizes = st.integers(0, 9)
boxes = st.builds(Box, coordinates, coordinates, sizes, sizes)


def pixels(box):
    return {(x, y) for x in range(box.x0, box.x1) for y in range(box.y0, box.y1)}


def test_facts():
    box = Box(10, -20, 4, 3)
    assert (box.x0, box.y0, box.width, box.height) == (10, -20, 4, 3)
    assert (box.x1, box.y1) == (14, -17)
    assert box.area == 12
    assert box.shape == (3, 4)
    assert box.center == (11.5, -19.0)


def test_center_of_odd_sizes_is_a_pixel():
    assert Box(0, 0, 1, 1).center == (0, 0)
    assert Box(5, 5, 3, 5).center == (6, 7)


def test_numpy_integers_are_integers():
    box = Box(*np.array([1, 2, 3, 4]))
    assert box == Box(1, 2, 3, 4)
    assert all(type(value) is int for value in box)


@pytest.mark.parametrize(
    "values", [(0.0, 0, 1, 1), (0, "0", 1, 1), (0, 0, None, 1), (0, 0, 1, 2.5)][:4]
)
def test_not_integers(values):
    with pytest.raises(TypeError, match=r"four integers \(x0, y0, width, height\), got"):
        Box(*values)


@pytest.mark.parametrize(("width", "height"), [(-1, 5), (5, -1)])
def test_negative_sizes(width, height):
    with pytest.raises(ValueError, match=f"cannot be {width} x {height} pixels"):
        Box(0, 0, width, height)


def test_from_edges_that_cross():
    assert Box.from_edges(3, 4, 1, 9) == Box(3, 4, 0, 5)


def test_grow():
    assert Box(10, 20, 4, 3).grow(1) == Box(9, 19, 6, 5)
    assert Box(10, 20, 4, 3).grow(2, 0) == Box(8, 20, 8, 3)
    assert Box(10, 20, 4, 3).grow(-1) == Box(11, 21, 2, 1)
    assert not Box(10, 20, 4, 3).grow(-2).area


@pytest.mark.parametrize("amount", [0.5, "1"])
def test_grow_by_a_fraction(amount):
    with pytest.raises(TypeError):
        Box(0, 0, 5, 5).grow(amount)


def test_covers_is_half_open_at_pixel_edges():
    box = Box(10, 20, 4, 3)
    assert box.covers(x=9.5, y=19.5)
    assert box.covers(x=13.49, y=22.49)
    assert not box.covers(x=13.5, y=20)
    assert not box.covers(x=10, y=22.5)
    assert not box.covers(x=9.49, y=20)
    assert not box.covers(x=np.nan, y=20)


def test_slices():
    array = np.arange(12).reshape(3, 4)  # over the parent
    parent = Box(10, 20, 4, 3)
    assert array[Box(11, 22, 2, 1).slices(parent)].tolist() == [[9, 10]]
    assert array[parent.slices(parent)].shape == (3, 4)


@pytest.mark.parametrize(
    "box", [Box(9, 20, 1, 1), Box(10, 19, 1, 1), Box(13, 20, 2, 1), Box(10, 22, 1, 2)]
)
def test_slices_of_a_box_outside(box):
    with pytest.raises(ValueError, match="reaches outside of Box"):
        box.slices(Box(10, 20, 4, 3))


def test_union():
    assert Box.union([Box(0, 0, 2, 2), Box(50, 50, 0, 3), Box(5, -1, 1, 2)]) == Box(0, -1, 6, 3)
    assert not Box.union([]).area
    assert not Box.union([Box(5, 5, 0, 0)]).area


def test_is_a_value():
    box = Box(1, 2, 3, 4)
    assert hash(box) == hash(Box(1, 2, 3, 4))
    assert pickle.loads(pickle.dumps(box)) == box
    assert type(pickle.loads(pickle.dumps(box))) is Box
    assert tokenize(box) == tokenize(Box(1, 2, 3, 4)) != tokenize(Box(2, 1, 3, 4))
    assert repr(box) == "Box(x0=1, y0=2, width=3, height=4)"
    with pytest.raises(AttributeError):
        box.x0 = 5
    with pytest.raises(AttributeError):
        box.color = "red"


@PROPERTY
@given(boxes, boxes)
def test_two_boxes_are_sets_of_pixels(one, other):
    both = pixels(one) & pixels(other)
    assert pixels(one.clip(other)) == both
    assert one.overlaps(other) == other.overlaps(one) == bool(both)
    assert one.contains(other) == (pixels(other) <= pixels(one))
    union = Box.union([one, other])
    assert pixels(one) | pixels(other) <= pixels(union)
    assert union.contains(one)


@PROPERTY
@given(boxes, st.integers(0, 3), st.integers(0, 3))
def test_growing_and_shrinking_again(box, dx, dy):
    grown = box.grow(dx, dy)
    assert grown.contains(box)
    assert grown.grow(-dx, -dy) == box
    assert grown.area == (box.width + 2 * dx) * (box.height + 2 * dy)


@PROPERTY
@given(boxes, boxes)
def test_slices_cut_out_the_pixels(box, parent):
    inside = box.clip(parent)
    if inside.area:
        ys, xs = np.mgrid[parent.y0 : parent.y1, parent.x0 : parent.x1]
        where = inside.slices(parent)
        assert {*zip(xs[where].ravel().tolist(), ys[where].ravel().tolist(), strict=True)} == (
            pixels(inside)
        )


@PROPERTY
@given(boxes, coordinates, coordinates)
def test_covers_the_pixels(box, x, y):
    assert box.covers(x=x, y=y) == ((x, y) in pixels(box))


# Sizes


def test_sizes_are_numbers_or_pairs():
    assert size_pair("tile", np.int32(5)) == (5, 5)
    assert size_pair("tile", [5, 6]) == (5, 6)
    assert size_pair("border", (0, 1.5), whole=False, zero=True) == (0.0, 1.5)
    assert all(type(n) is float for n in size_pair("border", 3, whole=False))


@pytest.mark.parametrize("size", [1.5, (1, 2.0), True, (1, 2, 3), "12", None])
def test_sizes_of_a_wrong_kind(size):
    match = r"tile must be a whole number or an \(x, y\) pair of whole numbers, got"
    with pytest.raises(TypeError, match=match):
        size_pair("tile", size)


@pytest.mark.parametrize("size", [0, (3, -1)])
def test_sizes_that_are_too_small(size):
    with pytest.raises(ValueError, match=r"tile must be above zero, got"):
        size_pair("tile", size)


@pytest.mark.parametrize("size", [-1, np.nan, (3, np.inf)])
def test_sizes_that_are_not_finite(size):
    with pytest.raises(ValueError, match="border must be finite and zero or more, got"):
        size_pair("border", size, whole=False, zero=True)

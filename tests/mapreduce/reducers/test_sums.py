import numpy as np

from mapreduce.reducers.sums import Totals

ALL = slice(0, 1), slice(0, 3)
FIRST, OTHERS = (slice(0, 1), slice(0, 1)), (slice(0, 1), slice(1, 3))


def test_places_side_by_side_need_no_counting():
    image = np.full((1, 3), 77.0)
    totals = Totals(image, None)
    assert totals.cover(FIRST, None) is None
    assert totals.cover(OTHERS, None) is None
    assert totals.is_single
    totals.fill(np.nan)
    assert totals.is_single
    assert image.tolist() == [[77] * 3]


def test_counts_where_one_lies_over_another():
    image = np.ones((1, 3))
    totals = Totals(image, None)
    totals.cover(OTHERS, None)
    assert totals.cover(ALL, np.array([[False, True, True]])).tolist() == [[0, 1, 1]]
    assert not totals.is_single
    assert totals.count.tolist() == [[0, 2, 2]]
    totals.fill(7)
    assert image.tolist() == [[7, 1, 1]]


def test_counts_beyond_255():
    totals = Totals(np.ones((1, 3)), None)
    for _ in range(300):
        totals.cover(ALL, None)
    assert totals.count.tolist() == [[300] * 3]


def test_the_first_value_is_taken_as_it_is():
    image = np.full((1, 3), 77.0)
    totals = Totals(image, None)
    totals.add(OTHERS, [np.array([[-0.0, 2]])], None)
    totals.add(ALL, [np.array([[1.0, -0.0, 3]])], np.array([[True, False, True]]))
    assert image.tolist() == [[1, 0, 5]]
    assert np.signbit(image[0, 1])

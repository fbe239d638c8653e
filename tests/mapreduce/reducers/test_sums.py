import numpy as np

from mapreduce.reducers.sums import Cover, Totals

ALL = slice(0, 1), slice(0, 3)
FIRST, OTHERS = (slice(0, 1), slice(0, 1)), (slice(0, 1), slice(1, 3))


def test_places_side_by_side_need_no_counting():
    cover = Cover((1, 3))
    assert cover.add(FIRST, None) is None
    assert cover.add(OTHERS, None) is None
    assert cover.is_single
    assert cover.fill([], np.nan)


def test_counts_where_one_lies_over_another():
    cover = Cover((1, 3))
    cover.add(OTHERS, None)
    assert cover.add(ALL, np.array([[False, True, True]])).tolist() == [[0, 1, 1]]
    assert not cover.is_single
    assert cover.count.tolist() == [[0, 2, 2]]
    plane = np.ones((1, 3))
    assert not cover.fill([plane], 7)
    assert plane.tolist() == [[7, 1, 1]]


def test_counts_beyond_255():
    cover = Cover((1, 3))
    for _ in range(300):
        cover.add(ALL, None)
    assert cover.count.tolist() == [[300] * 3]


def test_the_first_value_is_taken_as_it_is():
    image = np.full((1, 3), 77.0)
    totals = Totals(image, None)
    totals.add(OTHERS, [np.array([[-0.0, 2]])], None)
    totals.add(ALL, [np.array([[1.0, -0.0, 3]])], np.array([[True, False, True]]))
    assert image.tolist() == [[1, 0, 5]]
    assert np.signbit(image[0, 1])

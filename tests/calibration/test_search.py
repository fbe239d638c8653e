"""Searches among values that ascend: each equals a loop."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.search import contains, find


@pytest.mark.parametrize("kind", ["i1", "i4", "i8", "u2", "u8"])
@pytest.mark.parametrize("ascend", [True, False])
@pytest.mark.parametrize("ids", [[7, 3, 120, 7], [3, -100], [5], [2**40, 3], []])
def test_places_of_ids(ids, kind, ascend):
    ids = np.array(ids, np.int64)
    order = None if ascend else np.argsort(ids, kind="stable")
    if ascend:
        ids = np.sort(ids)
    bounds = np.iinfo(kind)
    values = [
        v for v in [3, 120, 7, 8, -100, 2, 121, bounds.min, bounds.max] if v in bounds_of(kind)
    ]
    wanted = np.resize(np.array(values, kind), 1000)
    for some in (wanted, wanted[:4]):  # by a table, and by a search
        places, found = find(ids, some, order)
        expected = [[*ids].index(v) if v in ids else -1 for v in some.tolist()]
        np.testing.assert_array_equal(np.where(found, places, -1), expected)
        assert (places[~found] == 0).all()


def bounds_of(kind):
    return range(np.iinfo(kind).min, np.iinfo(kind).max + 1)


def test_contains_is_what_a_list_does():
    ids = [-4, 3, 8]
    assert [contains(np.array(ids), value) for value in range(-6, 10)] == [
        value in ids for value in range(-6, 10)
    ]
    assert not contains(np.array([], int), 0)

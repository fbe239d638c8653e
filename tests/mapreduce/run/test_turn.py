"""Small cells are run by one thread at a time, but nobody waits for ever."""

import threading

import numpy as np
import pytest

from mapreduce import Exposure, GridConfig, map_reduce


@pytest.mark.parametrize(("size", "alone"), [(16, True), (127, True), (128, False), (300, False)])
def test_another_run_waits_while_small_cells_are_run(size, alone):
    exposure = Exposure(np.zeros((size, size), "f4"))
    begun, seen = threading.Event(), []

    def other(sub, expanded, full_bbox):
        begun.set()
        return sub

    def run(mapper):
        return map_reduce(exposure, mapper, grid=GridConfig(size)).compute(scheduler="sync")

    def first(sub, expanded, full_bbox):
        thread = threading.Thread(target=run, args=(other,))
        thread.start()
        seen.append(not begun.wait(0.02 if alone else 60))
        begun.wait(60)  # it comes, although this goes on
        thread.join()
        return sub

    run(first)
    assert begun.is_set()
    assert seen == [alone]


def double(sub, expanded, full_bbox):
    return sub * 2


def nested(sub, expanded, full_bbox):
    inner = map_reduce(sub, double, grid=GridConfig(8, border=0), tile=16)
    return sub.replace(image=inner.compute(scheduler="threads").image)


def test_a_mapper_that_waits_for_other_tiles_does_not_wait_for_ever():
    exposure = Exposure(np.ones((64, 64), "f4"))
    result = map_reduce(exposure, nested, grid=GridConfig(32, border=0), tile=32)
    assert (result.compute(scheduler="threads").image == 2).all()

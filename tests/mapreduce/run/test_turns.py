"""Threads that take turns where the mapper is quick."""

import threading

import numpy as np
import pytest

import mapreduce as mr
from mapreduce.grid.grid import table_of
from mapreduce.run.turns import Turns


def three_cells(size):
    box = mr.Box(0, 0, size, size)
    return table_of([mr.Cell(n, box, box) for n in range(3)])


def is_taken():
    """Whether another thread could not map now."""
    found = []

    def look():
        turns = Turns()
        with turns.take(three_cells(64), []) as turn:
            found.append(turn)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return not found[0]


@pytest.mark.parametrize(("size", "taken"), [(16, True), (127, True), (128, False), (500, False)])
def test_small_cells_take_turns(size, taken):
    with Turns().take(three_cells(size), []):
        assert is_taken() == taken
    assert not is_taken()


@pytest.mark.parametrize(
    ("seconds", "taken"), [([2e-5] * 3, True), ([1e-3, 1e-3], False), ([], True)]
)
def test_it_learns_how_quick_the_mapper_is(seconds, taken):
    turns = Turns()
    with turns.take(three_cells(64), seconds):
        pass
    with turns.take(three_cells(64), []):
        assert is_taken() == taken


def test_one_slow_tile_among_quick_ones_changes_nothing():
    turns = Turns()
    for mean in (1e-2, 1e-5, 1e-2):
        with turns.take(three_cells(64), [mean]):
            pass
    with turns.take(three_cells(64), []):
        assert is_taken()


def test_a_turn_ends_with_an_error():
    with pytest.raises(OSError, match="gone"), Turns().take(three_cells(64), []):
        raise OSError("gone")
    assert not is_taken()


def nested(sub, expanded, full_bbox):
    inner = mr.map_reduce(sub, double, grid=mr.GridConfig(8, border=0), tile=16)
    return sub.replace(image=inner.compute(scheduler="threads").image)


def double(sub, expanded, full_bbox):
    return sub * 2


def test_a_mapper_that_waits_for_other_tiles_does_not_wait_for_ever():
    exposure = mr.Exposure(np.ones((64, 64), "f4"))
    result = mr.map_reduce(exposure, nested, grid=mr.GridConfig(32, border=0), tile=32)
    assert (result.compute(scheduler="threads").image == 2).all()

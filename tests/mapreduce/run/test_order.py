"""What is written comes in order; what is computed is the same as without."""

import dask
import numpy as np
import pytest

from mapreduce import Box, GridConfig, map_reduce
from mapreduce.run.order import in_order
from tests.support import count_calls, identity, log_call, make_exposure

GRID = GridConfig(10, border=3)


def logged(sub, expanded, full_bbox, folder):
    log_call(folder)
    return expanded * 2


def run_on(exposure, folder, mapper=logged):
    kwargs = {"folder": folder} if mapper is logged else {}
    return map_reduce(exposure, mapper, grid=GRID, tile=10, mapper_kwargs=kwargs)


def independent(folder):
    first, second = (run_on(make_exposure(), folder) for _ in range(2))
    return [first.image, second.mask]


def chained(folder):
    first = run_on(make_exposure(), folder)
    second = run_on(first, folder, identity)
    return [second.image, first.image, second.report]


# Collections, and how many cells they need of the 12 of a run.
CASES = {
    "nothing": (lambda folder: [], 0),
    "no run": (lambda folder: [make_exposure().chunk(10).image + 1], 0),
    "a run": (lambda folder: [run_on(make_exposure(), folder).image], 12),
    "planes and facts": (
        lambda folder: [(r := run_on(make_exposure(), folder)).mask, r.psf, r.report], 12
    ),
    "a part": (
        lambda folder: [run_on(make_exposure(), folder).cutout(Box(5, -8, 8, 7)).image], 4
    ),
    "independent runs": (independent, 24),
    "a run on a run": (chained, 12),
    "persisted": (lambda folder: [run_on(make_exposure(), folder).persist().image], 12),
}  # fmt: skip


@pytest.mark.parametrize("ahead", [1, 100])
@pytest.mark.parametrize("case", CASES)
def test_the_same_is_computed(case, ahead, tmp_path):
    make, cells = CASES[case]
    collections = make(tmp_path)
    blocks = in_order(collections, ahead).compute(scheduler="threads")
    assert count_calls(tmp_path) == cells
    assert len(blocks) == len(collections)
    expected = dask.compute(*collections, scheduler="threads")
    for found, value in zip(blocks, expected, strict=True):
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(np.block(found), value)
        else:
            assert found == [value]

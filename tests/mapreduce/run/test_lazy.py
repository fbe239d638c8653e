"""A lazy result is an exposure like any other: what can be set on one can be set on the other."""

import copy
import pickle

import dask
import numpy as np
import pytest
from astropy.wcs import WCS

from mapreduce import Box, GaussianPsf, GridConfig, Report, map_reduce, read_exposure
from tests.support import assert_same, count_calls, log_call, make_exposure

GRID = GridConfig(10, border=3)
PIXELS = np.full(make_exposure().shape, 3, "f4")

# What is set, and the same of an exposure in memory.
PARTS = {
    "image": PIXELS,
    "variance": PIXELS,
    "mask": PIXELS.astype("i4"),
    "psf": GaussianPsf(1.25),
    "wcs": WCS(naxis=2),
    "meta": {"A": 1},
    "report": None,
    "mask_planes": {"A": 0, "B": 1},
}
DERIVED = {
    "cutout": lambda e: e.cutout(Box(8, -5, 30, 20)),
    "astype": lambda e: e.astype("f8"),
    "product": lambda e: 2 * e,
    "sum": lambda e: e + np.ones(e.shape),
    "replace": lambda e: e.replace(variance=None),
    "chunk": lambda e: e.chunk(16),
    "copy": lambda e: e.copy(),
}


def logged(sub, expanded, full_bbox, folder):
    log_call(folder)
    return expanded * 2


@pytest.fixture
def calls(tmp_path):
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder


def lazy_result(calls, **options):
    kwargs = {"folder": calls}
    exposure = make_exposure()
    return map_reduce(exposure, logged, grid=GRID, tile=20, mapper_kwargs=kwargs, **options)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_set(part, calls):
    expected = lazy_result(calls).compute()
    result = lazy_result(calls)
    for exposure in (expected, result):
        setattr(exposure, part, PARTS[part])
    count_calls(calls)
    computed = result.compute()
    assert count_calls(calls) == len(GRID.build(result))
    assert_same(computed, expected)
    assert computed.psf == expected.psf
    assert computed.report == expected.report
    assert (computed.wcs is None) == (expected.wcs is None)
    assert computed.meta.get("A") == expected.meta.get("A")


@pytest.mark.parametrize("plane", ["image", "variance", "mask"])
def test_a_plane_can_be_assigned_into(plane, calls):
    result = lazy_result(calls)
    getattr(result, plane)[2:4, 3:5] = 7
    assert (getattr(result.compute(), plane)[2:4, 3:5] == 7).all()
    expected = lazy_result(calls).compute()
    getattr(expected, plane)[2:4, 3:5] = 7
    assert_same(result.compute(), expected)


def test_a_changed_result_is_still_lazy(calls):
    result = lazy_result(calls)
    result.psf = GaussianPsf(2.0)
    for again in (result, copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert dask.is_dask_collection(again.image)
        kept = again.persist()
        assert kept.psf == GaussianPsf(2.0)
        count_calls(calls)
        assert kept.compute().report.n_cells == len(GRID.build(result))
        assert count_calls(calls) == 0
    same, other = dask.base.tokenize(lazy_result(calls)), dask.base.tokenize(result)
    assert same != other


@pytest.mark.parametrize("how", DERIVED)
def test_what_is_made_of_a_result_has_its_report(how, calls):
    result = lazy_result(calls)
    derived = DERIVED[how](result)
    assert dask.is_dask_collection(derived.report)
    count_calls(calls)
    computed = derived.compute()
    assert 0 < count_calls(calls) <= len(GRID.build(result))
    assert isinstance(computed.report, Report)
    expected = result.compute()
    assert computed.report.n_cells == expected.report.n_cells
    assert_same(computed, DERIVED[how](expected))
    assert DERIVED[how](expected).report is expected.report


def test_what_is_made_of_a_result_is_mapped_without_its_report(calls):
    """The report of a run is of that run alone, and no mapper sees that of an earlier one."""
    first = lazy_result(calls).compute()

    def look(sub, expanded, full_bbox):
        assert sub.report is None
        return sub

    second = map_reduce(first, look, grid=GridConfig(25)).compute()
    assert second.report.n_cells == len(GridConfig(25).build(first)) < first.report.n_cells


@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.zarr"])
def test_failures_are_in_the_header_of_what_is_made_of_a_result(name, tmp_path):
    def fail(sub, expanded, full_bbox, cell):
        if cell.index == 3:
            raise ValueError("no luck")
        return sub

    result = map_reduce(make_exposure(), fail, grid=GRID, on_error="mask") * 2
    assert result.compute().meta["MRFAILED"] == 1
    report = result.write(tmp_path / name)
    assert [failure.index for failure in report.failures] == [3]
    assert read_exposure(tmp_path / name).meta["MRFAILED"] == 1

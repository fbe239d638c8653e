"""Graphs as values: how often the mapper runs, how many tasks there are, what is shared."""

import copy
import io
import pickle
import shutil

import dask
import dask.array as da
import numpy as np
import pytest
from dask.base import is_dask_collection
from dask.callbacks import Callback
from dask.diagnostics import ProgressBar
from distributed import futures_of, wait

from mapreduce import Box, CellPsf, Exposure, GaussianPsf, GridConfig, Report, map_reduce
from tests.support import assert_same, count_calls, log_call, make_exposure, unread, whole

GRID = GridConfig(16, border=4)
CELLS = 16  # of a 64 x 64 exposure
KINDS = {"numpy": lambda e: e, "dask": lambda e: e.chunk(25), "unread": unread}


def logged(sub, expanded, full_bbox, folder):
    log_call(folder)
    return expanded.replace(image=expanded.image + 1)


def forbidden(sub, expanded, full_bbox):
    raise AssertionError("the mapper was called")


def lazy_result(folder, kind="numpy", tile=20, reducer="average"):
    return map_reduce(
        KINDS[kind](make_exposure(64, 64)),
        logged,
        grid=GRID,
        reducer=reducer,
        mapper_kwargs={"folder": str(folder)},
        tile=tile,
    )


# How often the mapper runs


def total(exposure):
    return float(np.nansum(exposure.image))


def persisted_and_more(lazy):
    kept = lazy.persist()
    return dask.compute(kept, kept.image, kept.report, kept.psf, dask.delayed(total)(kept))


MIXES = {  # what a user may ask for in one go
    "exposure": lambda r: r.compute(),
    "exposure twice": lambda r: dask.compute(r, r),
    "report": lambda r: r.report.compute(),
    "psf": lambda r: r.psf.compute(),
    "exposure, report": lambda r: dask.compute(r, r.report),
    "exposure, psf": lambda r: dask.compute(r, r.psf),
    "report, psf": lambda r: dask.compute(r.report, r.psf),
    "image": lambda r: r.image.compute(),
    "two planes": lambda r: dask.compute(r.image, r.mask),
    "three planes": lambda r: dask.compute(r.image, r.variance, r.mask),
    "exposure, image": lambda r: dask.compute(r, r.image),
    "plane, report, psf": lambda r: dask.compute(r.mask, r.report, r.psf),
    "in containers": lambda r: dask.compute([r, {"report": r.report}], r.image),
    "function of it": lambda r: dask.compute(dask.delayed(total)(r)),
    "function of it, exposure": lambda r: dask.compute(dask.delayed(total)(r), r),
    "two functions of it": lambda r: dask.compute(dask.delayed(total)(r), dask.delayed(str)(r)),
    "function of image, others": lambda r: dask.compute(
        dask.delayed(np.sum)(r.image), r, r.mask, r.report
    ),
    "function of both, exposure": lambda r: dask.compute(dask.delayed(list)([r, r.image]), r),
    "derived arrays": lambda r: dask.compute(r.image.sum(), r.image + 1, r.mask.rechunk(30)),
    "derived exposures": lambda r: dask.compute(r * 2, r.cutout(Box(9, 0, 30, 30)), r),
    "variations": lambda r: dask.compute(r.replace(psf=None), r.astype("f8"), r),
    "all": lambda r: dask.compute(
        r.image.sum(), r * 2, dask.delayed(total)(r), r, r.report, r.psf, [r.mask]
    ),
    "persist": lambda r: r.persist(),
    "persist of several": lambda r: dask.persist(r, r.image, r.report),
    "persist, then all": persisted_and_more,
    "persisted plane": lambda r: r.image.persist().compute(),
    "optimize": lambda r: dask.compute(*dask.optimize(r, r.image)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "tile"),
    [("numpy", None), ("numpy", 32), ("numpy", 20), ("dask", 20), ("unread", 20)],
)
@pytest.mark.parametrize("mix", MIXES)
def test_the_mapper_runs_once_per_cell(mix, kind, tile, tmp_path):
    MIXES[mix](lazy_result(tmp_path, kind, tile))
    assert count_calls(tmp_path) == CELLS


@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES)
def test_the_mapper_runs_once_per_cell_on_a_cluster(mix, tmp_path, client):
    wait(futures_of(MIXES[mix](lazy_result(tmp_path, tile=32))))
    assert count_calls(tmp_path) == CELLS


@pytest.mark.parametrize("reducer", ["none", "coadd_psf"])
def test_a_collector_runs_the_mapper_once_per_cell(reducer, tmp_path):
    lazy = lazy_result(tmp_path, reducer=reducer)
    result, text = dask.compute(lazy, dask.delayed(str)(lazy))
    assert (len(result), text) == (CELLS, str(result))
    assert count_calls(tmp_path) == CELLS


def test_an_unchanged_result_is_computed_again_each_time(tmp_path):
    lazy = lazy_result(tmp_path)
    lazy.compute()
    lazy.compute()
    assert count_calls(tmp_path) == 2 * CELLS


def test_each_run_of_a_chain_runs_once_per_cell(tmp_path):
    first = lazy_result(tmp_path)
    second = map_reduce(first, logged, grid=GRID, mapper_kwargs={"folder": str(tmp_path)}, tile=32)
    dask.compute(first, second, second.image, second.psf, first.report)
    assert count_calls(tmp_path) == 2 * CELLS


# How many tasks there are


@pytest.mark.slow
@pytest.mark.parametrize("tile", [(63, 63), 64, None])
def test_number_of_tasks(tile):
    """However many cells: three tasks a tile, and one more for each plane asked for alone."""
    pixels = np.broadcast_to(np.float32(1), (4096, 4096))
    exposure = Exposure(pixels, pixels, pixels.astype("i4"), psf=GaussianPsf(2.0))
    sizes = {"cellSizeX": 64, "cellSizeY": 64, "borderSizeX": 8, "borderSizeY": 8}
    grid = GridConfig.lsst(**sizes, scaleByFwhm=False).build(exposure)
    assert len(grid) == 65 * 65
    lazy = map_reduce(exposure, forbidden, grid=grid, tile=tile)
    rows, columns = lazy.image.numblocks
    tiles = rows * columns
    assert tiles >= {None: 9}.get(tile, 4096)
    assert len(lazy.__dask_graph__()) <= 3 * tiles + 2
    planes = set().union(*(plane.__dask_graph__() for plane in lazy.planes.values()))
    assert len(planes) <= 6 * tiles + 2
    assert len(lazy.report.__dask_graph__()) <= 4 * tiles + 3


@pytest.mark.parametrize(
    ("wanted", "per_tile"),
    [
        (lambda lazy: [lazy], 3),
        (lambda lazy: [lazy.image], 4),
        (lambda lazy: lazy.planes.values(), 6),
        (lambda lazy: [lazy, lazy.report, lazy.psf], 4),
    ],
    ids=["exposure", "image", "planes", "exposure, report, psf"],
)
def test_number_of_tasks_that_run(wanted, per_tile):
    lazy = map_reduce(make_exposure(64, 64), whole, grid=GridConfig(8, border=2), tile=16)
    ran = []
    with Callback(posttask=lambda key, *_: ran.append(key)):
        dask.compute(*wanted(lazy), scheduler="synchronous")
    assert len(ran) <= per_tile * 16 + 6


def test_number_of_tasks_of_a_collector():
    exposure = make_exposure(64, 64)
    lazy = map_reduce(exposure, forbidden, grid=GRID, reducer="none", tile=16)
    assert len(lazy.__dask_graph__()) <= CELLS + 4  # what is collected, and the report


def test_pixels_are_not_in_the_graph_of_unread_planes():
    exposure = Exposure(da.zeros((4000, 4000), chunks=1000, dtype="f4"))
    lazy = map_reduce(exposure, whole, grid=GridConfig(500, border=20))
    assert len(pickle.dumps(dict(lazy.__dask_graph__()))) < 100_000


# What is known before the run


@pytest.mark.parametrize("kind", ["dask", "unread"])
def test_nothing_is_computed_when_building(kind):
    exposure = make_exposure(64, 64)
    if kind == "unread":
        exposure = unread(exposure, broken=(40, 40))
    else:
        exposure = exposure.replace(image=exposure.chunk(25).image.map_blocks(fail, dtype="f4"))
    lazy = map_reduce(exposure, forbidden, grid=GRID)
    again = map_reduce(lazy, forbidden, grid=GRID, reducer="none")
    parts = (lazy.image, lazy.variance, lazy.mask, lazy.psf, lazy.report, lazy * 2, again)
    assert all(map(is_dask_collection, parts))
    assert "lazy" in repr(lazy)
    assert "lazy" in lazy._repr_html_()
    with pytest.raises(OSError, match="cannot read"):
        lazy.compute()


def fail(block):
    raise OSError("cannot read")


def test_dtype_and_chunks_are_known():
    lazy = map_reduce(make_exposure(64, 48, dtype="f8"), forbidden, grid=GRID, tile=(32, 20))
    assert (lazy.image.dtype, lazy.variance.dtype, lazy.mask.dtype) == ("f8", "f4", "i4")
    assert lazy.image.chunks == ((20, 20, 8), (32, 32))
    assert lazy.predicted_bytes > 32 * 20 * 16
    assert lazy.bbox == make_exposure(64, 48).bbox


@pytest.mark.parametrize("kind", ["dask", "unread"])
def test_same_input_same_names(kind, tmp_path):
    exposure = KINDS[kind](make_exposure(64, 64))
    one, other = (map_reduce(exposure, forbidden, grid=GRID) for _ in range(2))
    assert one.__dask_keys__() == other.__dask_keys__()
    assert one.image.name == other.image.name
    assert one.psf.key == other.psf.key
    assert set(one.__dask_graph__()) == set(other.__dask_graph__())


@pytest.mark.parametrize(
    "other",
    [
        {"mapper": whole},
        {"grid": GridConfig(16, border=5)},
        {"reducer": "copy"},
        {"tile": 32},
        {"mapper_kwargs": {"by": 2}},
        {"on_error": "mask"},
        {"seed": 1},
        {"reach": 1},
        {"exposure": make_exposure(64, 64).chunk(25) * 2},
        {"exposure": make_exposure(64, 64, origin=(0, 0)).chunk(25)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_input_other_names(other):
    arguments = {"exposure": make_exposure(64, 64).chunk(25), "mapper": shifted, "grid": GRID}
    one, two = (map_reduce(**given) for given in (arguments, {**arguments, **other}))
    assert one.__dask_keys__() != two.__dask_keys__()


def shifted(sub, expanded, full_bbox, by=1):
    return sub + by


def test_planes_in_memory_are_new_input_each_time():
    """Their owner may have changed them."""
    exposure = make_exposure(64, 64)
    lazy = map_reduce(exposure, shifted, grid=GRID)
    before = lazy.image.sum().compute()
    exposure.image += 1
    again = map_reduce(exposure, shifted, grid=GRID)
    assert again.__dask_keys__() != lazy.__dask_keys__()
    assert again.image.sum().compute() > before


# What comes out


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("tile", [None, 20])
def test_results_are_whole_writeable_arrays(tile, scheduler, tmp_path):
    with dask.config.set(scheduler=scheduler):
        result = lazy_result(tmp_path, tile=tile).compute()
    for plane in result.planes.values():
        assert plane.shape == result.shape
        assert plane.base is None or plane.base.size == plane.size
        assert plane.flags.c_contiguous
        assert plane.flags.writeable
    assert isinstance(result.report, Report)
    assert isinstance(result.psf, CellPsf)


def test_tiles_are_written_straight_into_the_result(tmp_path, monkeypatch):
    def never(blocks):
        raise AssertionError("blocks were copied")

    monkeypatch.setattr(np, "block", never)
    assert lazy_result(tmp_path, tile=20).compute().shape == (64, 64)


@pytest.mark.slow
def test_results_from_a_cluster_are_whole_arrays(tmp_path, client):
    result = lazy_result(tmp_path).compute()
    assert all(plane.shape == result.shape for plane in result.planes.values())
    result.image += 1
    assert_same(lazy_result(tmp_path).compute() + 1, result)


def test_computing_again_gives_other_arrays(tmp_path):
    lazy = lazy_result(tmp_path)
    one = lazy.compute()
    expected = one.image.copy()
    one.image[...] = 0
    np.testing.assert_array_equal(lazy.compute().image, expected)
    np.testing.assert_array_equal(lazy.image.compute(), expected)


@pytest.mark.parametrize("tile", [None, 20])
def test_computing_a_persisted_result_again_gives_other_arrays(tile, tmp_path):
    kept = lazy_result(tmp_path, tile=tile).persist()
    one = kept.compute()
    expected = one.image.copy()
    one.image[...] = 0
    np.testing.assert_array_equal(kept.compute().image, expected)


def test_the_input_is_not_changed(tmp_path):
    exposure = make_exposure(64, 64)
    before = exposure.copy()
    exposure.meta["KEY"] = "value"
    result = map_reduce(exposure, whole, grid=GRID, reducer="sum").compute()
    result.image[...] = 0
    result.meta["KEY"] = "other"
    assert_same(exposure, before)
    assert exposure.meta == {"KEY": "value"}


def test_planes_and_exposure_agree(tmp_path):
    lazy = lazy_result(tmp_path)
    planes = {name: plane.compute() for name, plane in lazy.planes.items()}
    computed = lazy.compute()
    for name, plane in planes.items():
        np.testing.assert_array_equal(plane, computed.planes[name], strict=True)
    assert lazy.psf.compute() == computed.psf
    assert lazy.report.compute() == computed.report


# Persist, optimize and the rest of the protocol


def check_persisted(kept, expected):
    assert is_dask_collection(kept)
    assert_same(kept.compute(), expected)
    np.testing.assert_array_equal(kept.image.compute(), expected.image)
    np.testing.assert_array_equal((kept * 2).compute().image, expected.image * 2)
    assert kept.psf.compute() == expected.psf
    assert kept.report.compute() == expected.report
    assert kept.wcs is expected.wcs
    assert kept.meta["MRREDUCE"] == "average"


@pytest.mark.parametrize("tile", [None, 20])
def test_persist(tile, tmp_path):
    expected = lazy_result(tmp_path, tile=tile).compute()
    kept = lazy_result(tmp_path, tile=tile).persist()
    count_calls(tmp_path)
    check_persisted(kept, expected)
    check_persisted(kept.persist(), expected)
    assert count_calls(tmp_path) == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["client.persist", "exposure.persist", "dask.persist"])
def test_persist_on_a_cluster(how, tmp_path, client):
    expected = lazy_result(tmp_path).compute(scheduler="threads")
    persist = {
        "client.persist": client.persist,
        "exposure.persist": lambda lazy: lazy.persist(),
        "dask.persist": lambda lazy: dask.persist(lazy)[0],
    }[how]
    kept = persist(lazy_result(tmp_path))
    futures = futures_of(kept)
    assert len(futures) == kept.image.npartitions
    wait(futures)
    count_calls(tmp_path)
    check_persisted(kept, expected)
    assert count_calls(tmp_path) == 0


@pytest.mark.slow
def test_client_compute(tmp_path, client):
    lazy = lazy_result(tmp_path)
    result, report = client.gather(client.compute([lazy, lazy.report]))
    assert_same(result, lazy.compute(scheduler="threads"))
    assert result.report == report
    assert count_calls(tmp_path) == 2 * CELLS


def test_optimize(tmp_path):
    lazy = lazy_result(tmp_path)
    (optimized,) = dask.optimize(lazy)
    assert count_calls(tmp_path) == 0
    assert_same(optimized.compute(), lazy.compute())


@pytest.mark.parametrize("copied", [copy.copy, lambda lazy: pickle.loads(pickle.dumps(lazy))])
def test_a_lazy_result_can_be_copied_and_pickled(copied, tmp_path):
    lazy = lazy_result(tmp_path, "dask")
    assert_same(copied(lazy).compute(), lazy.compute())


@pytest.mark.slow
def test_a_lazy_result_as_argument_of_a_task(tmp_path, client):
    lazy = lazy_result(tmp_path)
    assert client.submit(total, lazy.compute()).result() == total(lazy.compute())
    assert dask.delayed(total)(lazy).compute() == total(lazy.compute())


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["synchronous", "sync", "threads", "threading"])
def test_schedulers_by_name(scheduler, tmp_path):
    with dask.config.set(scheduler=scheduler):
        result = lazy_result(tmp_path).compute()
    assert_same(result, lazy_result(tmp_path).compute(scheduler=scheduler))


@pytest.mark.slow
def test_scheduler_of_processes():
    lazy = map_reduce(make_exposure(64, 64), whole, grid=GRID, tile=20)
    assert_same(lazy.compute(scheduler="processes", num_workers=2), lazy.compute())


def test_progress_bar(tmp_path):
    out = io.StringIO()
    with ProgressBar(out=out):
        lazy_result(tmp_path).compute()
    assert "Completed" in out.getvalue()


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz is not installed")
def test_visualize(tmp_path):
    lazy_result(tmp_path).visualize(filename=None)

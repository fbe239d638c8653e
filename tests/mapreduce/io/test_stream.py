"""Writing block by block: the same files from any scheduler, complete or not there at all."""

import os
import threading

import dask
import dask.array as da
import numpy as np
import pytest
from astropy.io import fits
from dask.callbacks import Callback

from mapreduce import Box, Exposure, GaussianPsf, GridConfig, Psf, map_reduce, read_exposure
from mapreduce.io.stream import aligned, check_free, complete_first, is_store
from mapreduce.run.tile import TileResult
from tests.support import (
    ArrayPlane,
    assert_read_back,
    assert_same,
    count_calls,
    everything,
    fails_at,
    identity,
    log_call,
    make_exposure,
    make_full,
    unread,
    with_planes,
)

pytest.importorskip("zarr")

GRID = GridConfig((12, 9), border=4)
NAMES = ("a.fits", "a.zarr")
SCHEDULERS = ("threads", "synchronous", pytest.param("processes", marks=pytest.mark.slow))


def files(folder):
    """Return the content of all files below a folder, but for what says when they were made."""
    return {
        os.path.relpath(os.path.join(place, name), folder): open_bytes(os.path.join(place, name))
        for place, _, names in os.walk(folder)
        for name in names
    }


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def lazy_result(exposure=None, mapper=everything, **options):
    exposure = make_exposure(60, 50) if exposure is None else exposure
    options = {"grid": GRID, "tile": (17, 13)} | options
    return map_reduce(exposure, mapper, **options)


def counted(sub, expanded, full_bbox, folder):
    log_call(folder)
    return sub


def interrupted(sub, expanded, full_bbox):
    if sub.bbox.contains(Box(40, 30, 1, 1)):
        raise KeyboardInterrupt
    return sub


# The same content


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", NAMES)
def test_streamed_files_are_those_written_from_memory(tmp_path, name, scheduler):
    result = lazy_result()
    for folder in ("streamed", "memory"):
        (tmp_path / folder).mkdir()
    with dask.config.set(scheduler=scheduler):
        report = result.write(tmp_path / "streamed" / name)
    done = result.compute()
    assert done.write(tmp_path / "memory" / name) is None
    assert files(tmp_path / "streamed") == files(tmp_path / "memory")
    assert report == done.report
    found = read_exposure(tmp_path / "streamed" / name)
    assert_same(found.compute(), done)
    assert found.meta["MRFAILED"] == 0
    assert found.psf == done.psf


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_cluster_writes_the_same(tmp_path, name, client):
    result = lazy_result()
    report = result.write(tmp_path / name)
    assert report.n_cells == result.compute().report.n_cells
    assert_read_back(read_exposure(tmp_path / name), result.compute(scheduler="synchronous"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chunks", "unread", "mixed", "delayed psf", "file"])
@pytest.mark.parametrize("name", NAMES)
def test_any_lazy_exposure_is_written(tmp_path, name, kind):
    exposure = make_full()
    lazy = {
        "chunks": exposure.chunk((13, 29)),
        "unread": with_planes(exposure, ArrayPlane),
        "mixed": exposure.replace(image=exposure.chunk(20).image, mask=ArrayPlane(exposure.mask)),
        "delayed psf": exposure.replace(psf=dask.delayed(exposure.psf)),
        "file": exposure,
    }[kind]
    if kind == "file":
        exposure.write(tmp_path / "in.fits")
        lazy = read_exposure(tmp_path / "in.fits")
    assert lazy.write(tmp_path / name) is None
    assert_read_back(read_exposure(tmp_path / name), exposure)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_result_that_was_changed_is_written_with_its_psf(tmp_path, name):
    result = lazy_result()
    report = (result * 2).write(tmp_path / name)
    assert report == result.compute().report
    assert_same(read_exposure(tmp_path / name).compute(), result.compute() * 2)
    assert read_exposure(tmp_path / name).psf == result.compute().psf


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_persisted_result_is_written(tmp_path, name):
    result = lazy_result()
    report = result.persist().write(tmp_path / name)
    assert_same(read_exposure(tmp_path / name).compute(), result.compute())
    assert report == result.compute().report


@pytest.mark.slow
def test_a_result_persisted_on_a_cluster_is_written(tmp_path, client):
    result = lazy_result()
    result.persist().write(tmp_path / "a.fits")
    assert_same(read_exposure(tmp_path / "a.fits").compute(), result.compute())


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(7, 4), 16, 1000, None])
@pytest.mark.parametrize("tile", [(5, 8), (17, 13), 1000])
def test_chunks_may_lie_across_tiles(tmp_path, tile, chunks):
    result = lazy_result(tile=tile)
    result.to_zarr(tmp_path / "a.zarr", chunks=chunks)
    assert_same(read_exposure(tmp_path / "a.zarr").compute(), result.compute())


@pytest.mark.parametrize("sizes", [(1000,) * 3, (1,) * 50, (3, 90, 4, 60, 1), (128, 22), (7,)])
def test_blocks_end_where_chunks_end(sizes):
    plane = da.zeros((sum(sizes), 1), chunks=(sizes, 1))
    edges = np.cumsum(aligned(plane, (64, 1)).chunks[0])
    assert edges[-1] == sum(sizes)
    assert (edges[:-1] % 64 == 0).all()
    assert (np.diff(edges) > 0).all()


def test_blocks_that_fit_are_left_alone():
    plane = da.zeros((40, 60), chunks=(20, 30))
    assert aligned(plane, (10, 15)) is plane
    assert aligned(plane, (1, 1)) is plane
    assert aligned(plane, (16, 30)).chunks == ((16, 24), (30, 30))


@pytest.mark.slow
def test_no_two_tasks_write_to_one_chunk(tmp_path, monkeypatch):
    from mapreduce.io.zarr import ZarrTarget

    writing, lock, clashes = [], threading.Lock(), []
    write = ZarrTarget.write

    def watched(self, slices, block):
        ours = {
            (self.path, y // self.chunks[0], x // self.chunks[1])
            for y in range(slices[0].start, slices[0].stop)
            for x in range(slices[1].start, slices[1].stop)
        }
        with lock:
            clashes.extend(chunks & ours for chunks in writing if chunks & ours)
            writing.append(ours)
        return write(self, slices, block)

    monkeypatch.setattr(ZarrTarget, "write", watched)
    lazy_result().to_zarr(tmp_path / "a.zarr", chunks=8)
    assert len(writing) > 3 * 9
    assert clashes == []


# How it runs


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("name", ["a.fits", "a.fits.fz", "a.zarr"])
def test_the_mapper_runs_once_per_cell(tmp_path, name, scheduler):
    calls = tmp_path / "calls"
    calls.mkdir()
    result = lazy_result(mapper=counted, mapper_kwargs={"folder": calls})
    with dask.config.set(scheduler=scheduler):
        report = result.write(tmp_path / name)
    assert count_calls(calls) == report.n_cells > 20


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_mapper_runs_once_per_cell_on_a_cluster(tmp_path, name, client):
    calls = tmp_path / "calls"
    calls.mkdir()
    result = lazy_result(mapper=counted, mapper_kwargs={"folder": calls})
    report = result.write(tmp_path / name, **({"chunks": 10} if name == "a.zarr" else {}))
    assert count_calls(calls) == report.n_cells > 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "change"),
    [((40, 400), 1), ((400, 40), 1), ((160, 160), 1), ((160, 160), 2)],  # not the result itself
)
@pytest.mark.parametrize("name", NAMES)
def test_few_tiles_are_held_at_once(tmp_path, name, shape, change):
    held = []

    class Watch(Callback):
        def _posttask(self, key, result, dsk, state, worker):
            tiles = (value for value in state["cache"].values() if isinstance(value, TileResult))
            held.append(sum(bool(tile.planes) for tile in tiles))

    opened = unread(make_exposure(*shape))
    result = map_reduce(opened, identity, grid=GridConfig(10, border=3), tile=10)
    result = result if change == 1 else result * change
    with Watch(), dask.config.set(scheduler="threads", num_workers=2):
        report = result.write(tmp_path / name, **({"chunks": 16} if name == "a.zarr" else {}))
    lines = min(shape) // 10
    assert report.n_tiles == shape[0] * shape[1] // 100
    # One line that waits for the next, the neighbors of two, what is ahead, and blocks to be cut.
    assert lines < max(held) <= 3 * lines + 12 < report.n_tiles


# What is left behind


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
@pytest.mark.parametrize("name", [*NAMES, "a.fits.fz"])
def test_a_failing_cell_leaves_nothing_behind(tmp_path, name, scheduler):
    at = {"at": [(40, 30)]}
    result = lazy_result(mapper=fails_at, mapper_kwargs=at)
    with dask.config.set(scheduler=scheduler):
        with pytest.raises(OSError, match="no luck at 40, 30"):
            result.write(tmp_path / name)
        with pytest.raises(KeyboardInterrupt):
            lazy_result(mapper=interrupted).write(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_failing_cell_on_a_cluster_leaves_nothing_behind(tmp_path, name, client):
    result = lazy_result(mapper=fails_at, mapper_kwargs={"at": [(40, 30)]})
    with pytest.raises(OSError, match="no luck at 40, 30"):
        result.write(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "a.fits.fz"])
def test_failed_cells_are_counted_in_the_header(tmp_path, name):
    at = {"at": [(40, 30), (10, 10)]}
    result = lazy_result(mapper=fails_at, mapper_kwargs=at, on_error="mask")
    report = result.write(tmp_path / name)
    found = read_exposure(tmp_path / name)
    assert found.meta["MRFAILED"] == len(report.failures) == 2
    assert_same(found.compute(), result.compute())


@pytest.mark.parametrize("name", NAMES)
def test_an_unreadable_source_leaves_the_old_file(tmp_path, name):
    make_full().write(tmp_path / name)
    broken = unread(make_exposure(60, 50), broken=(40, 30))
    with pytest.raises(OSError, match="cannot read pixel"):
        broken.write(tmp_path / name, overwrite=True)
    assert_read_back(read_exposure(tmp_path / name), make_full())
    assert os.listdir(tmp_path) == [name]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_file_that_is_read_can_be_replaced(tmp_path, name):
    path = tmp_path / name
    make_exposure(60, 50).write(path)
    opened = read_exposure(path)
    result = lazy_result(opened)
    expected = result.compute()
    result.write(path, overwrite=True)
    assert_same(read_exposure(path).compute(), expected)
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(OSError, match="changed since it was opened"):
        opened.compute()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_run_for_a_target_that_exists(tmp_path, name):
    calls = tmp_path / "calls"
    calls.mkdir()
    make_full().write(tmp_path / name)
    result = lazy_result(mapper=counted, mapper_kwargs={"folder": calls})
    with pytest.raises(FileExistsError, match=r"exists; overwrite=True .* replaces it"):
        result.write(tmp_path / name)
    assert count_calls(calls) == 0
    assert_read_back(read_exposure(tmp_path / name), make_full())


@pytest.mark.parametrize("name", NAMES)
def test_a_psf_that_cannot_be_stored_is_refused(tmp_path, name):
    class Mine(GaussianPsf):
        pass

    assert isinstance(Mine(2.0), Psf)
    exposure = make_full(psf=Mine(2.0))
    for unwritable in (exposure, exposure.chunk(10), lazy_result(exposure, identity)):
        with pytest.raises(TypeError, match="cannot store a Mine"):
            unwritable.write(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_another_shape_than_was_said_are_refused(tmp_path, name):
    image = da.ones((30, 40), chunks=10).map_blocks(lambda block: block[:5], dtype=float)
    with pytest.raises(ValueError, match=r"block .* has shape .*, it said"):
        Exposure(image).write(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_what_is_of_another_kind_is_never_replaced(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.touch()
    for path, kind in ((folder, None), (folder, is_store), (file, is_store)):
        with pytest.raises(FileExistsError, match="exists and is not"):
            check_free(path, overwrite=True, folder=kind)
    check_free(file, overwrite=True)


def test_the_old_store_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    make_full().write(path)
    rename = type(path).rename

    def failing(self, target):
        if target == path and self.suffix == ".tmp":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", failing)
    with pytest.raises(OSError, match="no"):
        make_exposure().write(path, overwrite=True)
    assert_read_back(read_exposure(path), make_full())
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_what_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.txt"

    def write():
        with complete_first(path, overwrite=False) as temporary:
            temporary.write_text("new")
            path.write_text("another's")

    with pytest.raises(FileExistsError):
        write()
    assert path.read_text() == "another's"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda file, piece, offset: piece.nbytes - 1)
    with pytest.raises(OSError, match="the disk is full"):
        make_full().write(tmp_path / "a.fits")
    assert os.listdir(tmp_path) == []


def test_a_streamed_file_is_valid_fits(tmp_path):
    lazy_result(make_full(), identity).write(tmp_path / "a.fits")
    with fits.open(tmp_path / "a.fits") as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus][:4] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE"]
        assert hdus[-1].name == "PSF"
    assert (tmp_path / "a.fits").stat().st_size % 2880 == 0

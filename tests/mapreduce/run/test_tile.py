"""What one task does, without dask."""

import copy

import numpy as np
import pytest

from mapreduce import Box, Copy, GridConfig, Sum
from mapreduce.exposure.plane import cut
from mapreduce.grid.grid import cells_of
from mapreduce.reducers.names import get_reducer
from mapreduce.report import CellFailure
from mapreduce.run.input import TileInput
from mapreduce.run.plan import make_plan
from mapreduce.run.spec import MAIN, RunSpec
from mapreduce.run.tile import collect_tile, map_tile, reduce_tile, replay_cell
from tests.support import (
    ArrayPlane,
    assert_same,
    everything,
    fails_at,
    identity,
    make_exposure,
    serial,
    whole,
)

GRID = GridConfig((10, 9), border=3)


def make_spec(exposure, mapper, reducer="copy", extras=(), on_error="raise", **kwargs):
    planes = exposure.mask_planes.add("INVALID_MAPREDUCE", "BAD", "NO_DATA")
    shell = exposure.cutout(exposure.bbox)
    shell.mask_planes, shell.wcs = planes, None
    return RunSpec(
        mapper=mapper,
        extras=frozenset(extras),
        kwargs=kwargs,
        reducer=get_reducer(reducer),
        on_error=on_error,
        seed=0,
        reach=0,
        box=exposure.bbox,
        dtypes={name: plane.dtype for name, plane in exposure.planes.items()},
        mask_planes=planes,
        shells={MAIN: shell},
    )


def inputs_of(exposure, tile, mask=True, broken=None):
    """Return what a task of a tile reads."""
    boxes = dict.fromkeys(exposure.planes, tile.reads)
    if mask:
        boxes["mask"] = Box.union((tile.reads, tile.box))
    boxes = {name: box for name, box in boxes.items() if box.area}
    planes = {name: exposure.planes[name] for name in boxes}
    if broken is not None:
        planes = {n: p if n == "mask" else ArrayPlane(p, broken) for n, p in planes.items()}
    blocks = [cut(planes[name], box.slices(exposure.bbox)) for name, box in boxes.items()]
    return TileInput([(MAIN, *part) for part in boxes.items()], blocks)


def map_one(spec, tile, exposure, broken=None):
    """Run the map task of a tile."""
    planes = {name: np.full(tile.box.shape, 77, dtype) for name, dtype in spec.dtypes.items()}
    return map_tile(spec, tile, inputs_of(exposure, tile, broken=broken), planes)


def received(maps, tile):
    """Return what came for a tile."""
    return [maps[i].spill[tile.index] for i in tile.receives if tile.index in maps[i].spill]


def run(spec, plan, exposure):
    """Run all tasks, one after the other."""
    result = exposure.copy().replace(mask_planes=spec.mask_planes)
    maps = {tile.index: map_one(spec, tile, exposure) for tile in plan.tiles}
    for tile in plan.tiles:
        finished = reduce_tile(spec, tile, maps[tile.index], received(maps, tile))
        for name, plane in finished.planes.items():
            result.planes[name][tile.box.slices(exposure.bbox)] = plane
    return result


def test_a_tile_with_all_cells_is_done_at_once():
    exposure = make_exposure()
    plan = make_plan(GRID.build(exposure), tile=1000)
    spec = make_spec(exposure, identity)
    mapped = map_one(spec, plan.tiles[0], exposure)
    assert (mapped.patches, mapped.spill) == ([], {})
    np.testing.assert_array_equal(mapped.planes["image"], exposure.image)
    assert mapped.records.index.tolist() == list(range(len(plan.grid)))
    assert mapped.peak_bytes > 1e6


def test_only_what_leaves_a_tile_is_sent():
    exposure = make_exposure(40, 9, origin=(0, 0))
    left, right = make_plan(GRID.build(exposure), tile=20).tiles
    mapped = map_one(make_spec(exposure, whole), left, exposure)
    ((patches, failed),) = mapped.spill.values()
    assert failed == []
    assert list(mapped.spill) == [right.index]
    assert [(patch.cell, patch.box, patch.part) for patch in patches] == [
        (1, Box(7, 0, 16, 9), Box(20, 0, 3, 9))
    ]
    np.testing.assert_array_equal(patches[0].image, exposure.image[:, 20:23])


@pytest.mark.parametrize("operation", ["copy", "sum", "average"])
@pytest.mark.parametrize("tile", [1000, 13, (7, 5)])
def test_all_tasks_together(operation, tile):
    exposure = make_exposure()
    plan = make_plan(GRID.build(exposure), tile)
    spec = make_spec(exposure, everything, operation, extras=["rng"])
    expected = serial(exposure, everything, plan.grid, operation)
    assert_same(run(spec, plan, exposure), expected)


@pytest.mark.parametrize("mask", ["or", "valid", "replace"])
def test_a_reduce_task_can_run_again(mask):
    """A scheduler may run it again on the same input, which it has already overwritten."""
    exposure = make_exposure()
    plan = make_plan(GRID.build(exposure), tile=13)
    spec = make_spec(exposure, everything, Sum(mask=mask), extras=["rng"])
    maps = {tile.index: map_one(spec, tile, exposure) for tile in plan.tiles}
    for tile in plan.tiles:
        came = received(maps, tile)
        once = copy.deepcopy(reduce_tile(spec, tile, maps[tile.index], came).planes)
        again = reduce_tile(spec, tile, maps[tile.index], came).planes
        for name, plane in once.items():
            np.testing.assert_array_equal(plane, again[name])


def test_a_reduce_task_with_planes_that_cannot_be_written():
    exposure = make_exposure(40, 9, origin=(0, 0))
    left, _ = make_plan(GRID.build(exposure), tile=20).tiles
    spec = make_spec(exposure, identity)
    mapped = map_one(spec, left, exposure)
    for plane in mapped.planes.values():
        plane.flags.writeable = False
    finished = reduce_tile(spec, left, mapped, [])
    assert finished.planes["image"].flags.writeable
    np.testing.assert_array_equal(finished.planes["image"], exposure.image[:, :20])


@pytest.mark.parametrize("tile", [1000, (10, 9), (7, 5)])
def test_cells_are_read_only_and_lie_in_memory_alike(tile):
    """NumPy sums contiguous arrays in another order."""
    seen = []

    def look(sub, expanded, full_bbox):
        for exposure in (sub, expanded):
            seen.extend(exposure.planes.values())
        return sub

    exposure = make_exposure()
    run(make_spec(exposure, look), make_plan(GRID.build(exposure), tile), exposure)
    assert not any(plane.flags.writeable for plane in seen)
    assert not any(plane.flags.contiguous for plane in seen if min(plane.shape) > 1)
    assert all(plane.strides[0] > plane.strides[1] > 0 for plane in seen)
    assert len(seen) == 6 * len(GRID.build(exposure))


def test_a_failed_cell_is_flagged_in_every_tile_that_it_touches():
    exposure = make_exposure(40, 9, origin=(0, 0))
    grid = GridConfig((10, 9), border=3, centroids=[(20, 4)]).build(exposure)
    plan = make_plan(grid, tile=20)
    spec = make_spec(exposure, fails_at, Copy(), on_error="mask", at=[(20, 4)])
    result = run(spec, plan, exposure)
    core = grid[0].core.slices(exposure.bbox)
    assert np.isnan(result.image[core]).all()
    bits = spec.mask_planes.bitmask(*spec.reducer.bad)
    assert (result.mask[core] & bits == bits).all()


def test_a_block_that_cannot_be_read():
    exposure = make_exposure()
    tile = make_plan(GRID.build(exposure), tile=1000).tiles[0]
    with pytest.raises(OSError, match="cannot read pixel") as caught:
        map_one(make_spec(exposure, identity), tile, exposure, broken=(3, 4))
    assert caught.value.__notes__ == [f"while reading {tile.reads} for tile (0, 0)"]
    spec = make_spec(exposure, identity, on_error="mask")
    records = map_one(spec, tile, exposure, broken=(3, 4)).records
    damaged = Box(exposure.bbox.x0 + 4, exposure.bbox.y0 + 3, 1, 1)
    failed = [failure.index for failure in records.failures]
    assert failed == [c.index for c in cells_of(tile.table) if c.expanded.contains(damaged)] == [0]
    assert "cannot read pixel" in records.failures[0].error


def test_collecting():
    exposure = make_exposure()
    tile = make_plan(GRID.build(exposure), tile=1000).tiles[0]
    spec = make_spec(exposure, fails_at, "none", on_error="mask", at=[(5, -8)])
    results, records, _ = collect_tile(spec, tile, inputs_of(exposure, tile, mask=False))
    assert [result.cell for result in results] == list(cells_of(tile.table))
    assert isinstance(results[0].value, CellFailure)
    assert results[1].value.bbox == results[1].cell.core
    assert [failure.index for failure in records.failures] == [0]


def test_replay():
    exposure = make_exposure()
    cell = GRID.build(exposure)[5]
    planes = {MAIN: exposure.cutout(cell.expanded).planes}
    value = replay_cell(make_spec(exposure, whole, on_error="mask"), cell, planes)
    assert_same(value, exposure.cutout(cell.expanded).replace(mask_planes=value.mask_planes))
    spec = make_spec(exposure, fails_at, on_error="mask", at=[cell.core[:2]])
    with pytest.raises(OSError, match="no luck"):
        replay_cell(spec, cell, planes)

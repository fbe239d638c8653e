"""One answer: the same bits from every scheduler, tile size and kind of input."""

import dask
import numpy as np
import pytest

from mapreduce import (
    Average,
    Copy,
    Exposure,
    Feather,
    GridConfig,
    Median,
    Sum,
    WeightedAverage,
    map_reduce,
    split,
)
from tests.support import (
    MAPPERS,
    PSF,
    assert_same,
    everything,
    identity,
    make_exposure,
    minus_mean,
    noisy,
    serial,
    unread,
    whole,
    with_planes,
)

pytestmark = pytest.mark.slow

RULES = ("mean", "correlated", "independent")
MASKS = ("or", "valid", "replace")
REDUCERS = [
    *(kind(mask=mask) for kind in (Copy, Sum) for mask in MASKS),
    *(
        kind(variance_rule=rule, mask=mask)
        for kind in (Average, WeightedAverage, Median, Feather)
        for rule in RULES
        for mask in MASKS
    ),
]
WHOLE, CELL = (40, 27), (12, 9)
TILES = [None, (7, 5), 32, CELL, WHOLE]
GRIDS = {
    "partition": GridConfig(CELL, border=4),
    "spacing": GridConfig(CELL, border=3, adjust="spacing"),
    "size": GridConfig(CELL, step=(11, 8), border=(2, 6), adjust="size"),
    "gaps": GridConfig((6, 7), step=(10, 9), border=1, adjust="none"),
    "many overlaps": GridConfig((14, 10), step=(4, 5), border=5, adjust="none"),
    "centroids": GridConfig(
        (9, 11), border=40, centroids=[(7, -6), (30, 10), (30, 10), (33.6, 12.4), (44, 18), (8, 2)]
    ),
}
KINDS = {
    "numpy": lambda exposure: exposure,
    "dask": lambda exposure: exposure.chunk((13, 11)),
    "unread": unread,
}


def run(exposure, mapper, **options):
    options.setdefault("grid", GRIDS["spacing"])
    return map_reduce(exposure, mapper, **options)


def everywhere(lazy_of_tile, tiles=TILES):
    """Compute for every tile size, and on threads for those of which there are many."""
    for tile in tiles:
        yield lazy_of_tile(tile).compute(scheduler="synchronous")
        if tile in ((7, 5), CELL):
            yield lazy_of_tile(tile).compute(scheduler="threads")


def name(reducer):
    return f"{reducer.name}-{reducer.variance_rule}-{reducer.mask}"


# Local schedulers


@pytest.mark.slow
@pytest.mark.parametrize("reducer", REDUCERS, ids=name)
def test_reducers_with_every_rule(reducer):
    exposure = make_exposure()
    first, *others = everywhere(lambda tile: run(exposure, everything, reducer=reducer, tile=tile))
    assert 0 < np.isfinite(first.image).sum() < first.image.size
    for other in others:
        assert_same(other, first)
        assert other.psf == first.psf


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.__name__)
@pytest.mark.parametrize("operation", ["copy", "sum", "average"])
def test_mappers_and_kinds_of_planes(operation, mapper, kind):
    exposure = make_exposure()
    expected = serial(exposure, mapper, GRIDS["spacing"].build(exposure), operation)
    given = KINDS[kind](exposure)
    for result in everywhere(
        lambda tile: run(given, mapper, reducer=operation, tile=tile), [None, (7, 5)]
    ):
        assert_same(result, expected)


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("operation", ["copy", "sum", "average"])
def test_grids(operation, grid):
    exposure = make_exposure()
    expected = serial(exposure, everything, GRIDS[grid].build(exposure), operation)
    for result in everywhere(
        lambda tile: run(exposure, everything, grid=GRIDS[grid], reducer=operation, tile=tile)
    ):
        assert_same(result, expected)


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("reducer", ["weighted_average", "median", "feather"])
def test_grids_with_the_other_reducers(reducer, grid):
    exposure = make_exposure()
    first, *others = everywhere(
        lambda tile: run(exposure, everything, grid=GRIDS[grid], reducer=reducer, tile=tile),
        [WHOLE, (7, 5), CELL],
    )
    for other in others:
        assert_same(other, first)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("planes", [{"variance": False}, {"mask": False}], ids=str)
def test_missing_planes(planes, dtype):
    exposure = make_exposure(**planes, dtype=dtype)
    mapper = whole if "variance" in planes else noisy
    for reducer in ("copy", "average", "median", "feather"):
        first, *others = everywhere(lambda tile, r=reducer: run(exposure, mapper, reducer=r))
        for other in others:
            assert_same(other, first)


def test_sum_of_integers():
    exposure = make_exposure(dtype="i4", variance=False)
    first, *others = everywhere(lambda tile: run(exposure, whole, reducer="sum", tile=tile))
    assert first.image.dtype == "i4"
    for other in others:
        assert_same(other, first)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_collectors(kind):
    exposure = KINDS[kind](make_exposure())
    for reducer, mapper in (("none", summary), ("concatenate", table), ("coadd_psf", identity)):
        first, *others = everywhere(
            lambda tile, r=reducer, m=mapper: run(exposure, m, reducer=r, tile=tile)
        )
        for other in others:
            assert_equal(other, first)


def summary(sub, expanded, full_bbox, cell, rng):
    return cell.index, float(np.mean(expanded.image)), rng.integers(1 << 60)


def table(sub, expanded, full_bbox, rng):
    rows, columns = np.nonzero(expanded.image > 300)
    return {"x": columns + expanded.bbox.x0, "y": rows, "noise": rng.normal(size=len(rows))}


def assert_equal(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert len(one["cell"]) > 10
    else:
        assert one == other


def test_tables_are_in_the_order_of_the_cells():
    exposure = make_exposure()
    catalog = run(exposure, table, reducer="concatenate", tile=(7, 5)).compute()
    assert (np.diff(catalog["cell"]) >= 0).all()
    assert len(set(catalog["cell"])) > 5


@pytest.mark.slow
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_aligned_exposures(tile):
    exposure, template = make_exposure(), make_exposure(80, 60, origin=(-9, -20))
    expected = exposure.image - template.cutout(exposure.bbox).image
    for given in (template, template.chunk(17), unread(template)):
        result = run(exposure, difference, aligned={"template": given}, tile=tile).compute()
        np.testing.assert_allclose(result.image, expected, rtol=1e-5)


def difference(sub, expanded, full_bbox, template):
    assert template.bbox == expanded.bbox
    return expanded.replace(image=expanded.image - template.image)


# Memory layout of the input


def fortran(plane):
    return np.asfortranarray(plane)


def upside_down(plane):
    return plane[::-1].copy()[::-1]


def every_second(plane):
    return np.repeat(plane, 2, axis=1)[:, ::2]


def big_endian(plane):
    return plane.astype(plane.dtype.newbyteorder(">"))


def equal_rows(plane):
    return np.broadcast_to(plane[:1], plane.shape)


LAYOUTS = [np.array, fortran, upside_down, every_second, big_endian, equal_rows]


LARGE = GridConfig((100, 130), border=10)  # numpy adds 8192 pixels in one order however they lie


def large_exposure(layout):
    """Return an exposure in this layout, and what is expected of it."""
    exposure = make_exposure(300, 130)
    rng = np.random.default_rng(1)
    exposure.image = rng.normal(100, 5, exposure.shape).astype("f4")
    exposure = with_planes(exposure, layout)
    plain = with_planes(exposure, np.ascontiguousarray)
    return exposure, serial(plain, minus_mean, LARGE.build(plain), "average")


def large_runs(exposure):
    """Run on the whole image, on single cells, and on quarters of it."""
    return [
        map_reduce(exposure, minus_mean, grid=LARGE, tile=tile)
        for tile in ((300, 130), (100, 130), (150, 65))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_memory_layout(layout, kind):
    """The order in which numpy adds must not depend on how the input lies in memory."""
    exposure, expected = large_exposure(layout)
    if kind == "dask":  # which does not keep the layout when it cuts an array into chunks
        given = exposure.chunk((110, 70))
        if layout is not equal_rows:
            given = with_planes(given, lambda plane: plane.map_blocks(layout))
    else:
        given = KINDS[kind](exposure)
    for result in dask.compute(*large_runs(given)):
        assert_same(result, expected)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_on_a_cluster(layout, client):
    exposure, expected = large_exposure(layout)
    for result in dask.compute(*large_runs(exposure)):
        assert_same(result, expected)


# A cluster of two processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Copy, Sum, Average, WeightedAverage, Median, Feather])
def test_reducers_on_a_cluster(kind, client):
    exposure = make_exposure()
    reducers = [reducer for reducer in REDUCERS if type(reducer) is kind]
    lazy = [run(exposure, everything, reducer=reducer, tile=20) for reducer in reducers]
    expected = [run(exposure, everything, reducer=reducer) for reducer in reducers]
    local = dask.compute(*expected, scheduler="synchronous")
    for ours, theirs in zip(dask.compute(*lazy), local, strict=True):
        assert_same(ours, theirs)
        assert ours.psf == theirs.psf


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mappers_on_a_cluster(kind, client):
    exposure = make_exposure()
    grid = GRIDS["spacing"].build(exposure)
    lazy = [run(KINDS[kind](exposure), mapper, tile=(20, 9)) for mapper in MAPPERS]
    for mapper, result in zip(MAPPERS, dask.compute(*lazy), strict=True):
        assert_same(result, serial(exposure, mapper, grid, "average"))


@pytest.mark.slow
@pytest.mark.parametrize("tile", TILES, ids=str)
def test_tiles_and_grids_on_a_cluster(tile, client):
    exposure = make_exposure()
    names = [name for name in GRIDS if tile != (7, 5) or name in ("spacing", "centroids")]
    lazy = [
        run(exposure, everything, grid=GRIDS[name], reducer="copy", tile=tile) for name in names
    ]
    for name, result in zip(names, dask.compute(*lazy), strict=True):
        expected = serial(exposure, everything, GRIDS[name].build(exposure), "copy")
        assert_same(result, expected)


def test_collectors_on_a_cluster(client):
    exposure = make_exposure()
    runs = {"none": summary, "concatenate": table, "coadd_psf": identity}
    lazy, expected = (
        [run(exposure, mapper, reducer=name, tile=tile) for name, mapper in runs.items()]
        for tile in (20, WHOLE)
    )
    local = dask.compute(*expected, scheduler="synchronous")
    for ours, theirs in zip(dask.compute(*lazy), local, strict=True):
        assert_equal(ours, theirs)


@pytest.mark.slow
def test_aligned_exposures_on_a_cluster(client):
    exposure, template = make_exposure(), make_exposure(80, 60, origin=(-9, -20))
    expected = run(exposure, difference, aligned={"template": template}).compute(
        scheduler="synchronous"
    )
    for given in (template, template.chunk(17), unread(template)):
        result = run(exposure, difference, aligned={"template": given}, tile=20).compute()
        assert_same(result, expected)


# Facts that every mapper may rely on


def test_a_border_makes_the_cell_size_irrelevant():
    exposure = make_exposure()
    results = [
        run(exposure, smooth, grid=GridConfig(size, border=1), reducer="copy").compute()
        for size in (5, 12, 100)
    ]
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def smooth(sub, expanded, full_bbox):
    """Take the maximum of three neighboring rows."""
    padded = np.pad(expanded.image, ((1, 1), (0, 0)), mode="edge")
    image = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return sub.replace(image=image[sub.bbox.slices(expanded.bbox)])


def test_split_gives_what_a_mapper_sees():
    exposure = make_exposure()
    chunks = split(exposure.chunk(11), GRIDS["spacing"])
    for index, seen in run(exposure, seen_pixels, reducer="none").compute():
        assert_same(chunks[index].compute(), Exposure(**seen, origin=chunks[index].origin, psf=PSF))


def seen_pixels(sub, expanded, full_bbox, cell):
    return cell.index, {name: plane.copy() for name, plane in expanded.planes.items()}

"""map_reduce from the front door: input, results, errors."""

import copy
import gc
import importlib
import pickle
import threading

import dask
import dask.array as da
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from dask.delayed import Delayed
from hypothesis import given, settings
from hypothesis import strategies as st

from mapreduce import (
    Average,
    Box,
    CellFailure,
    CellPsf,
    Copy,
    Exposure,
    GaussianPsf,
    Grid,
    GridConfig,
    MaskPlanes,
    Sum,
    map_reduce,
    split,
)
from tests.support import (
    PSF,
    ArrayPlane,
    assert_same,
    fails_at,
    identity,
    make_exposure,
    unread,
    whole,
    with_planes,
)

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
GRID = GridConfig(10, border=3)
BAD = ("INVALID_MAPREDUCE", "BAD", "NO_DATA")


@pytest.fixture
def exposure():
    exposure = make_exposure(40, 30)
    exposure.wcs = WCS(naxis=2)
    return exposure


def run(exposure, mapper=identity, **options):
    return map_reduce(exposure, mapper, **{"grid": GRID, **options})


# What comes in


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"exposure": np.ones((9, 9))}, TypeError, "works on an Exposure, got ndarray"),
        ({"exposure": None}, TypeError, "works on an Exposure, got NoneType"),
        ({"mapper": "median"}, TypeError, "a mapper is a callable"),
        ({"mapper": None}, TypeError, "a mapper is a callable"),
        ({"mapper": lambda sub, expanded, box, by: sub}, TypeError, "missing .* argument: 'by'"),
        ({"mapper": lambda sub: sub}, TypeError, "cannot be called"),
        ({"mapper_kwargs": {"by": 1}}, TypeError, "unexpected keyword argument 'by'"),
        ({"mapper_kwargs": {"sub": 1}}, TypeError, "sub"),
        ({"grid": "partition"}, TypeError, "grid must be a GridConfig or a Grid, got str"),
        ({"grid": 64}, TypeError, "grid must be a GridConfig or a Grid, got int"),
        ({"grid": GRID.build(Box(0, 0, 40, 30))}, ValueError, "built over Box.* exposure covers"),
        ({"reducer": "mode"}, ValueError, "no reducer 'mode'; choose from"),
        ({"reducer": np.mean}, TypeError, "reducer must be a name"),
        ({"tile": 0}, ValueError, "tile must be above zero"),
        ({"tile": 1.5}, TypeError, "tile must be a whole number"),
        ({"tile": (8, 8, 8)}, TypeError, "tile must be a whole number"),
        ({"on_error": "skip"}, ValueError, "on_error is 'skip'; choose 'raise' or 'mask'"),
        ({"on_error": None}, ValueError, "on_error is None"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number, got 1.5"),
        ({"seed": True}, TypeError, "seed must be a whole number"),
        ({"seed": -1}, ValueError, "seed must not be negative"),
        ({"reach": "5"}, TypeError, "reach must be a whole number"),
        ({"reach": -1}, ValueError, "reach must not be negative, got -1"),
        ({"return_sub_exposures": True}, ValueError, "goes with reducer='none'"),
    ],
)
def test_bad_arguments(arguments, error, match, exposure):
    with pytest.raises(error, match=match):
        map_reduce(**{"exposure": exposure, "mapper": identity, "grid": GRID, **arguments})


@pytest.mark.parametrize("name", ["mapper_kwargs", "aligned"])
@pytest.mark.parametrize("value", [5, [1], "ab"])
def test_arguments_that_are_not_mappings(name, value, exposure):
    with pytest.raises(TypeError, match=name):
        run(exposure, takes_all, **{name: value})


def takes_all(sub, expanded, full_bbox, **kwargs):
    return sub


@pytest.mark.parametrize(
    "value", [da.ones(3), dask.delayed(5), make_exposure().chunk(9)], ids=lambda value: type(value)
)
def test_lazy_arguments_of_the_mapper(value, exposure):
    with pytest.raises(TypeError, match=r"mapper_kwargs\['by'\] is lazy .*; compute it first"):
        run(exposure, takes_all, mapper_kwargs={"by": value})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"mapper_kwargs": {"cell": 1}}, r"itself gives the mapper \['cell'\]"),
        ({"mapper_kwargs": {"rng": 1}}, r"itself gives the mapper \['rng'\]"),
        ({"aligned": {"rng": make_exposure(40, 30)}}, r"itself gives the mapper \['rng'\]"),
        (
            {"mapper_kwargs": {"a": 1}, "aligned": {"a": make_exposure(40, 30)}},
            r"\['a'\] are named in both mapper_kwargs and aligned",
        ),
        ({"aligned": {"not a name": make_exposure(40, 30)}}, "cannot be an argument of the mapper"),
        ({"aligned": {5: make_exposure(40, 30)}}, "5 cannot be an argument of the mapper"),
        ({"aligned": {"a": make_exposure(40, 29)}}, r"covers Box.*, not all of the exposure's Box"),
        ({"aligned": {"a": make_exposure(40, 30, origin=(6, -8))}}, "not all of the exposure's"),
    ],
)
def test_arguments_that_clash(arguments, match, exposure):
    with pytest.raises(ValueError, match=match):
        run(exposure, takes_all, **arguments)


def test_aligned_with_what_is_no_exposure(exposure):
    with pytest.raises(TypeError, match=r"aligned\['a'\] is a ndarray, not an Exposure"):
        run(exposure, takes_all, aligned={"a": exposure.image})
    lazy = run(exposure, whole)
    with pytest.raises(TypeError, match=r"aligned\['a'\] has a lazy PSF"):
        run(exposure, takes_all, aligned={"a": lazy})


def test_bad_input_is_found_before_anything_runs(exposure):
    def never(sub, expanded, full_bbox):
        raise AssertionError("the mapper was called")

    with pytest.raises(ValueError, match="cannot hold"):
        run(exposure.astype("i4"), never)
    with pytest.raises(ValueError, match="scale_by_fwhm needs a PSF"):
        run(exposure.replace(psf=None), never, grid=GridConfig(5, scale_by_fwhm=True))
    with pytest.raises(ValueError, match="scale_by_fwhm needs the PSF now"):
        run(run(exposure, whole), never, grid=GridConfig(5, scale_by_fwhm=True))


def test_a_psf_that_is_none(exposure):
    """Found before the run, not after all the work."""
    with pytest.raises(TypeError, match="(?i)psf"):
        run(exposure.replace(psf=3.0))


def test_defaults():
    exposure = make_exposure(300, 280)
    result = map_reduce(exposure, whole).compute()
    assert result.report.n_cells == 4
    assert (result.meta["MRREDUCE"], result.meta["MRVARRUL"]) == ("average", "mean")
    np.testing.assert_array_equal(result.image, exposure.image)


# What the mapper gets


def test_the_mapper_gets_exposures_in_parent_coordinates(exposure):
    seen = run(exposure, look, reducer="none", tile=16).compute()
    for cell, (sub, expanded, full_bbox) in zip(GRID.build(exposure), seen, strict=True):
        assert full_bbox == exposure.bbox
        for part, box in ((sub, cell.core), (expanded, cell.expanded)):
            assert_same(part, exposure.cutout(box))
            assert part.psf == PSF
            assert part.wcs.wcs.compare(exposure.wcs.wcs)


def look(sub, expanded, full_bbox):
    return sub.copy(), expanded.copy(), full_bbox


def test_the_mapper_may_ask_for_the_cell(exposure):
    grid = GRID.build(exposure)
    assert run(exposure, the_cell, reducer="none", tile=16).compute() == list(grid)


def the_cell(sub, expanded, full_bbox, cell):
    return cell


def test_random_numbers_belong_to_the_cell(exposure):
    one = run(exposure, draw, reducer="none").compute()
    assert run(exposure, draw, reducer="none", tile=7).compute(scheduler="synchronous") == one
    assert len(set(one)) == len(one)
    assert one[3] == np.random.default_rng((0, 3)).integers(1 << 60)
    other = run(exposure, draw, reducer="none", seed=1).compute()
    assert not set(one) & set(other)


def draw(sub, expanded, full_bbox, *, rng):
    return rng.integers(1 << 60)


@pytest.mark.slow
def test_random_numbers_on_a_cluster(exposure, client):
    lazy = run(exposure, draw, reducer="none", tile=15)
    assert lazy.compute() == lazy.compute(scheduler="synchronous")


def test_arguments_for_the_mapper(exposure):
    result = run(exposure, scaled, mapper_kwargs={"factor": 3.0, "by": 1}).compute()
    np.testing.assert_array_equal(result.image, exposure.image * np.float32(3) + 1)


def scaled(sub, expanded, full_bbox, factor, by=0):
    return sub.replace(image=sub.image * np.float32(factor) + by)


class Adder:
    """A mapper that is an object."""

    def __init__(self, by):
        self.by = by

    def __call__(self, sub, expanded, full_bbox):
        return sub + self.by


def test_mappers_of_all_kinds(exposure):
    def closure(sub, expanded, full_bbox):
        return sub + 2

    for mapper in (Adder(2), closure, lambda sub, expanded, box: sub + 2, Adder(2).__call__):
        result = run(exposure, mapper).compute()
        np.testing.assert_array_equal(result.image, exposure.image + 2)


def test_mappers_of_all_kinds_on_a_cluster(exposure, client):
    by = 2
    for mapper in (Adder(2), lambda sub, expanded, box: sub + by):
        result = run(exposure, mapper, tile=20).compute()
        np.testing.assert_array_equal(result.image, exposure.image + 2)


@pytest.mark.parametrize("reducer", ["average", "none"])
def test_a_mapper_that_a_worker_cannot_import(reducer, exposure, client, tmp_path, monkeypatch):
    """An error, not a run that waits for ever."""
    (tmp_path / "only_here.py").write_text(
        "def mapper(sub, expanded, full_bbox):\n    return sub\n"
    )
    with monkeypatch.context() as context:
        context.syspath_prepend(tmp_path)
        mapper = importlib.import_module("only_here").mapper
    with pytest.raises(ModuleNotFoundError, match="only_here") as caught:
        run(exposure, mapper, reducer=reducer, tile=20).compute()
    assert "while loading the mapper" in caught.value.__notes__[0]


def test_a_mapper_that_cannot_be_pickled(exposure, client):
    mapper = Adder(threading.Lock())
    with pytest.raises(TypeError, match="serialize|pickle"):
        run(exposure, mapper).compute()


def test_aligned_exposures_are_cut_to_the_expanded_box(exposure):
    reference = make_exposure(60, 60, origin=(-5, -20))
    reference.wcs = WCS(naxis=2)
    reference.psf = GaussianPsf(4.0)
    reference.mask_planes = MaskPlanes({"GHOST": 0})
    for other in (reference, reference.chunk(13), unread(reference)):
        seen = run(exposure, the_template, aligned={"template": other}, reducer="none").compute()
        for cell, template in zip(GRID.build(exposure), seen, strict=True):
            assert_same(template, reference.cutout(cell.expanded))
            assert template.psf == GaussianPsf(4.0)
            assert template.wcs.wcs.compare(reference.wcs.wcs)


def the_template(sub, expanded, full_bbox, template):
    assert not template.image.flags.writeable
    return template.copy()


# The mapper must not write into what it gets


def write(sub, expanded, full_bbox, which, plane):
    exposure = {"sub": sub, "expanded": expanded}[which]
    getattr(exposure, plane)[...] = 0
    return sub


def as_dask(dtype=None):
    def convert(plane):
        swapped = plane.astype(plane.dtype.newbyteorder(dtype)) if dtype else plane
        return da.from_array(swapped, chunks=16)

    return convert


INPUTS = {
    "numpy": lambda plane: plane,
    "dask": as_dask(),
    "big-endian dask": as_dask(">"),
    "unread": ArrayPlane,
    "narrow unread": lambda plane: ArrayPlane(plane.astype("u1" if plane.dtype == "i4" else "f4")),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("which", ["sub", "expanded"])
@pytest.mark.parametrize("plane", ["image", "variance", "mask"])
def test_the_input_cannot_be_written(kind, which, plane, exposure):
    given = with_planes(exposure, INPUTS[kind])
    with pytest.raises(ValueError, match="read-only"):
        run(given, write, mapper_kwargs={"which": which, "plane": plane}).compute()


def test_the_input_cannot_be_written_on_a_cluster(exposure, client):
    kwargs = {"which": "sub", "plane": "image"}
    with pytest.raises(ValueError, match="read-only"):
        run(exposure, write, mapper_kwargs=kwargs, tile=20).compute()


@pytest.mark.parametrize("tile", [None, 10])
def test_what_a_mapper_does_to_a_copy_does_not_reach_other_cells(tile, exposure):
    result = run(exposure, moves_the_wcs, tile=tile).compute()
    assert result.image.max() == 1
    assert exposure.wcs.wcs.crval[0] == 0


def moves_the_wcs(sub, expanded, full_bbox):
    out = sub.copy()
    out.wcs.wcs.crval = out.wcs.wcs.crval + 1
    image = np.full(sub.shape, out.wcs.wcs.crval[0], "f4")
    return out.replace(image=image, wcs=None)


@pytest.mark.parametrize("tile", [None, 10])
def test_what_a_mapper_writes_into_the_header_does_not_reach_other_cells(tile, exposure):
    result = run(exposure, count_in_header, tile=tile).compute()
    assert result.image.max() == 1
    assert exposure.meta == {}


def count_in_header(sub, expanded, full_bbox):
    sub.meta["N"] = sub.meta.get("N", 0) + 1
    return sub.replace(image=np.full(sub.shape, sub.meta["N"], "f4"))


# What the mapper may return


def number(sub, expanded, full_bbox):
    return 1.0


def off_the_image(sub, expanded, full_bbox):
    return Exposure(sub.image, sub.variance, origin=(full_bbox.x1 - 1, full_bbox.y0))


def off_the_cell(sub, expanded, full_bbox):
    box = sub.bbox.grow(5).clip(full_bbox)
    return Exposure(*np.ones((2, *box.shape), "f4"), origin=(box.x0, box.y0))


def other_wcs(sub, expanded, full_bbox):
    wcs = sub.wcs.deepcopy()
    wcs.wcs.crpix = 5, 5
    return sub.replace(wcs=wcs)


def no_variance(sub, expanded, full_bbox):
    return sub.replace(variance=None)


def complex_image(sub, expanded, full_bbox):
    return sub.replace(image=sub.image.astype("c8"))


def own_plane(sub, expanded, full_bbox):
    planes = sub.mask_planes.add("GHOST")
    return sub.replace(mask=sub.mask | planes.bitmask("GHOST"), mask_planes=planes)


def lazy_image(sub, expanded, full_bbox):
    return sub.replace(image=da.from_array(np.array(sub.image)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mapper", "error", "match"),
    [
        (number, TypeError, "'average' needs an Exposure from the mapper, which returned float"),
        (off_the_image, ValueError, r"returned Box\(.*\), which reaches off the image Box"),
        (off_the_cell, ValueError, "reaches beyond the expanded box .* in pixels as reach="),
        (other_wcs, ValueError, "an exposure with another WCS than its input"),
        (no_variance, ValueError, "returned no variance plane, the input has one"),
        (complex_image, TypeError, "image is complex64"),
        (own_plane, ValueError, r"set mask plane 'GHOST'.*mask_planes.add\('GHOST'\)"),
        (lazy_image, TypeError, "returned a lazy image plane; compute it first"),
    ],
)
def test_results_that_do_not_fit(mapper, error, match, exposure):
    with pytest.raises(error, match=match) as caught:
        run(exposure, mapper, tile=16).compute()
    assert "in cell " in caught.value.__notes__[0]
    result = run(exposure, mapper, tile=16, on_error="mask").compute()
    assert 0 in {failure.index for failure in result.report.failures}
    assert np.isnan(result.image[0, 0])


def test_replay_of_a_result_that_does_not_fit(exposure):
    report = run(exposure, number, on_error="mask").compute().report
    with pytest.raises(TypeError, match="needs an Exposure from the mapper"):
        report.replay(0)


def test_a_variance_that_the_input_does_not_have():
    exposure = make_exposure(40, 30, variance=False)
    with pytest.raises(ValueError, match="returned a variance plane, the input has none"):
        run(exposure, lambda sub, e, b: sub.replace(variance=np.ones(sub.shape))).compute()


def test_a_result_of_floats_for_an_image_of_integers(exposure):
    given = exposure.astype("i4").replace(variance=None)
    with pytest.raises(TypeError, match="returned image as float64.*does not fit .* int32"):
        run(given, halved, reducer="sum").compute()


def halved(sub, expanded, full_bbox):
    return sub.replace(image=sub.image / 2)


def test_a_psf_that_the_mapper_made_up(exposure):
    with pytest.raises(TypeError, match="(?i)psf") as caught:
        run(exposure, lambda sub, e, b: sub.replace(psf=5.0)).compute()
    assert "in cell 0" in caught.value.__notes__[0]


def test_reach(exposure):
    result = run(exposure, off_the_cell, reach=2, reducer="sum", tile=7).compute()
    counts = np.zeros(exposure.shape)
    for cell in GRID.build(exposure):
        counts[cell.core.grow(5).clip(exposure.bbox).slices(exposure.bbox)] += 1
    np.testing.assert_array_equal(result.image, counts)
    with pytest.raises(ValueError, match="reaches beyond"):
        run(exposure, off_the_cell, reach=1).compute()


def test_another_dtype_is_cast(exposure):
    result = run(exposure, lambda sub, e, b: sub.astype("f8")).compute()
    assert_same(result, run(exposure).compute())


def test_a_result_without_wcs_is_accepted(exposure):
    result = run(exposure, lambda sub, e, b: sub.replace(wcs=None)).compute()
    assert result.wcs is exposure.wcs


def test_a_result_without_mask_keeps_the_input_mask(exposure):
    result = run(exposure, lambda sub, e, b: sub.replace(mask=None)).compute()
    np.testing.assert_array_equal(result.mask, exposure.mask)


def test_mask_planes_are_translated_by_name(exposure):
    exposure.mask_planes = {"SAT": 0, "CR": 5, "BAD": 2}
    exposure.mask[...] = 0
    result = run(exposure, with_lsst_bits).compute()
    assert dict(result.mask_planes) == {
        "SAT": 0, "CR": 5, "BAD": 2, "INVALID_MAPREDUCE": 1, "NO_DATA": 3,
    }  # fmt: skip
    assert np.unique(result.mask).tolist() == [result.mask_planes.bitmask("SAT", "CR")]


def with_lsst_bits(sub, expanded, full_bbox):
    planes = MaskPlanes.lsst()
    mask = np.full(sub.shape, planes.bitmask("SAT", "CR"))
    return sub.replace(mask=mask, mask_planes=planes)


def test_mask_planes_that_exchange_their_bits(exposure):
    exposure.mask_planes = {"SAT": 0, "BAD": 1}
    exposure.mask[...] = 0
    result = run(exposure, exchanged).compute()
    assert np.unique(result.mask).tolist() == [2]


def exchanged(sub, expanded, full_bbox):
    return sub.replace(mask=np.ones(sub.shape, "i4"), mask_planes={"BAD": 0, "SAT": 1})


def test_mask_planes_of_the_input_are_not_changed(exposure):
    before = exposure.mask_planes
    result = run(exposure).compute()
    assert exposure.mask_planes is before
    assert "INVALID_MAPREDUCE" not in before
    assert result.mask_planes["INVALID_MAPREDUCE"] == 11


# What comes out


def test_parts_of_the_result(exposure):
    exposure.meta = fits.Header({"OBJECT": "M 31"})
    lazy = run(exposure, reducer=Average(variance_rule="independent", mask="valid"))
    result = lazy.compute()
    for one in (lazy, result):
        assert one.bbox == exposure.bbox
        assert one.wcs is exposure.wcs
        assert one.meta["OBJECT"] == "M 31"
        assert one.meta["MRMAPPER"] == "identity"
        assert one.meta["MRREDUCE"] == "average"
        assert one.meta["MRVARRUL"] == "independent"
        assert one.meta["MRMSKRUL"] == "valid"
    assert isinstance(lazy.psf, Delayed)
    assert isinstance(lazy.report, Delayed)
    assert result.meta["MRFAILED"] == 0
    assert list(exposure.meta) == ["OBJECT"]


@pytest.mark.parametrize(
    ("reducer", "rule"), [("sum", "sum"), ("copy", "none"), ("feather", "correlated")]
)
def test_header_of_the_result(reducer, rule, exposure):
    meta = run(exposure, reducer=reducer).meta
    assert (meta["MRREDUCE"], meta["MRVARRUL"]) == (reducer, rule)


def test_report_of_the_result(exposure):
    report = run(exposure, tile=16).compute().report
    assert (report.n_cells, report.n_tiles, report.failures) == (12, 6, ())
    assert report.seconds.shape == (12,)
    assert (report.seconds > 0).all()
    assert report.predicted_bytes == run(exposure, tile=16).predicted_bytes > 16 * 16 * 12
    assert report.peak_bytes > 1e6


def test_psf_of_the_result(exposure):
    for reducer in ("sum", "average", "median", "weighted_average", "feather"):
        psf = run(exposure, whole, reducer=reducer).compute().psf
        assert isinstance(psf, CellPsf)
        assert [(c.index, c.box) for c in psf.components] == [
            (cell.index, cell.expanded) for cell in GRID.build(exposure)
        ]
        assert psf.sigma(x=10, y=0) == pytest.approx(PSF.sigma())


def test_copy_keeps_the_psf(exposure):
    assert run(exposure, reducer="copy").compute().psf is exposure.psf


@pytest.mark.parametrize("reducer", ["copy", "average"])
def test_psf_that_the_mapper_changed(reducer, exposure):
    psf = run(exposure, another_psf, reducer=reducer, tile=16).compute().psf
    assert isinstance(psf, CellPsf)
    sigmas = [component.psf.sigma() for component in psf.components]
    assert sigmas == [1 + 0.1 * n for n in range(12)]
    assert psf.sigma(x=10, y=0) == pytest.approx(1)


def another_psf(sub, expanded, full_bbox, cell):
    return sub.replace(psf=GaussianPsf(1 + 0.1 * cell.index))


def test_copy_with_some_psf_changed(exposure):
    psf = run(exposure, some_psf, reducer="copy").compute().psf
    assert [component.psf for component in psf.components] == [GaussianPsf(9.0)] + [PSF] * 11


def some_psf(sub, expanded, full_bbox, cell):
    return sub.replace(psf=GaussianPsf(9.0)) if cell.index == 0 else sub


def test_no_psf(exposure):
    for reducer in ("copy", "average"):
        assert run(exposure.replace(psf=None), reducer=reducer).compute().psf is None
    result = run(exposure, lambda sub, e, b: sub.replace(psf=None)).compute()
    assert result.psf is None


@pytest.mark.slow
def test_psf_on_a_cluster(exposure, client):
    for mapper in (identity, another_psf):
        for reducer in ("copy", "average"):
            lazy = run(exposure, mapper, reducer=reducer, tile=20)
            assert lazy.compute().psf == lazy.compute(scheduler="synchronous").psf
            assert lazy.psf.compute() == lazy.compute().psf


# Grids of all kinds


def test_gaps_are_nan_and_flagged(exposure):
    grid = GridConfig(4, step=10, border=2, adjust="none").build(exposure)
    covered = np.zeros(exposure.shape, bool)
    for cell in grid:
        covered[cell.core.slices(exposure.bbox)] = True
    for reducer in ("copy", "average", "weighted_average", "median", "feather"):
        result = run(exposure, grid=grid, reducer=reducer).compute()
        np.testing.assert_array_equal(np.isnan(result.image), ~covered)
        np.testing.assert_array_equal(np.isnan(result.variance), ~covered)
        bits = result.mask_planes.bitmask(*BAD)
        np.testing.assert_array_equal((result.mask & bits) == bits, ~covered)
        np.testing.assert_array_equal(result.mask & ~bits, exposure.mask)
    result = run(exposure, grid=grid, reducer="sum").compute()
    np.testing.assert_array_equal(result.image != 0, covered)
    np.testing.assert_array_equal(result.mask, exposure.mask)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2)])
@pytest.mark.parametrize("reducer", ["copy", "sum", "average", "median", "feather"])
def test_tiny_images(size, reducer):
    exposure = make_exposure(*size)
    for grid in (GridConfig(1, border=5), GridConfig(1, border=0), GridConfig(100, border=100)):
        result = run(exposure, whole if grid.border[0] == 0 else identity, grid=grid)
        np.testing.assert_array_equal(result.compute().image, exposure.image)


def test_a_border_larger_than_the_image(exposure):
    result = run(exposure, minus_median, grid=GridConfig(7, border=1000), tile=9).compute()
    np.testing.assert_array_equal(result.image, exposure.image - np.median(exposure.image))


def minus_median(sub, expanded, full_bbox):
    assert expanded.bbox == full_bbox
    return sub.replace(image=sub.image - np.median(expanded.image))


def test_a_single_cell(exposure):
    result = run(exposure, grid=GridConfig(1000, border=5)).compute()
    np.testing.assert_array_equal(result.image, exposure.image)
    assert result.report.n_cells == 1


def test_an_empty_grid(exposure):
    grid = GridConfig.lsst(cellSizeX=0.4, cellSizeY=0.4, scaleByFwhm=False)
    for reducer, value in (("copy", np.nan), ("average", np.nan), ("sum", 0)):
        with pytest.warns(UserWarning, match="no cell of"):
            lazy = run(exposure, grid=grid, reducer=reducer, tile=16)
        result = lazy.compute()
        np.testing.assert_array_equal(result.image, np.full(exposure.shape, value))
        assert result.report.n_cells == 0
    with pytest.warns(UserWarning, match="no cell of"):
        assert run(exposure, grid=grid, reducer="none").compute() == []
    with pytest.raises(ValueError, match="no cell of"):
        run(exposure, grid=GridConfig(5, centroids=[(1000, 1000)]))


def test_a_grid_without_cells_by_hand(exposure):
    assert np.isnan(run(exposure, grid=Grid(exposure.bbox, ())).compute().image).all()


@pytest.mark.parametrize("tile", [None, 7])
def test_cells_count_by_index_not_by_place(tile, exposure):
    grid = GRID.build(exposure)
    expected = run(exposure, the_index, reducer="copy").compute()
    turned = Grid(grid.box, grid.cells[::-1])
    assert_same(
        run(exposure, the_index, grid=turned, reducer="copy", tile=tile).compute(), expected
    )


def the_index(sub, expanded, full_bbox, cell):
    return expanded.replace(image=np.full(expanded.shape, cell.index, "f4"))


# Planes of all kinds


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", ">f8", "f2"])
def test_floats(dtype):
    exposure = Exposure(np.arange(12, dtype=dtype).reshape(3, 4))
    result = run(exposure, whole, grid=GridConfig(2, border=1)).compute()
    assert result.image.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(result.image, exposure.image)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "i8"])
def test_integers_can_be_summed(dtype):
    exposure = Exposure(np.arange(12, dtype=dtype).reshape(3, 4))
    result = run(exposure, grid=GridConfig(2, border=1), reducer="sum").compute()
    assert result.image.dtype == dtype
    np.testing.assert_array_equal(result.image, exposure.image)
    with pytest.raises(ValueError, match="cannot hold; convert it with exposure.astype"):
        run(exposure, reducer="average")


def test_without_variance_and_mask():
    exposure = make_exposure(variance=False, mask=False)
    for reducer in ("copy", "sum", "average", "median", "feather"):
        result = run(exposure, reducer=reducer, tile=13).compute()
        assert result.variance is None
        assert (result.mask.dtype, result.mask.any()) == ("i4", False)
        np.testing.assert_array_equal(result.image, exposure.image)
    failed = run(exposure, fails_at, mapper_kwargs={"at": [(5, -8)]}, on_error="mask").compute()
    assert failed.mask[0, 0] == failed.mask_planes.bitmask(*BAD)


def test_sub_exposures(exposure):
    for result in run(exposure, reducer="none", return_sub_exposures=True).compute():
        assert_same(result.sub, exposure.cutout(result.cell.core))
        assert_same(result.expanded, exposure.cutout(result.cell.expanded))


@pytest.mark.parametrize("lazy", [False, True])
def test_split(lazy, exposure):
    chunks = split(exposure.chunk(7) if lazy else exposure, GRID)
    assert list(chunks) == list(range(12))
    for cell in GRID.build(exposure):
        assert_same(chunks[cell.index].compute(), exposure.cutout(cell.expanded))
    assert len(split(exposure)) == 1


def test_split_of_something_else():
    with pytest.raises(TypeError, match="Exposure"):
        split(Box(0, 0, 40, 30), GRID)


# A result as input


def test_a_chain_of_runs(exposure):
    first = run(exposure, scaled, mapper_kwargs={"factor": 2}, tile=16)
    second = run(first, whole, grid=GridConfig(9, border=2), tile=(11, 20))
    alone = run(first.compute(), whole, grid=GridConfig(9, border=2))
    for scheduler in ("synchronous", "threads"):
        result = second.compute(scheduler=scheduler)
        assert_same(result, alone.compute())
        assert result.psf == alone.compute().psf
    assert second.psf.compute() == alone.compute().psf
    assert isinstance(first.compute().psf, CellPsf)


def test_a_chain_hands_on_the_psf(exposure):
    first = run(exposure, another_psf)
    kept, seen = dask.compute(
        run(first, reducer="copy"), run(first, the_psf, reducer="none", tile=16)
    )
    assert kept.psf == first.compute().psf
    assert seen == [first.compute().psf] * 12


def the_psf(sub, expanded, full_bbox):
    return sub.psf


@pytest.mark.slow
def test_a_chain_on_a_cluster(exposure, client):
    first = run(exposure, another_psf, tile=16)
    second = run(first * 2, whole, grid=GridConfig(9, border=2), tile=20)
    result, expected = second.compute(), second.compute(scheduler="synchronous")
    assert_same(result, expected)
    assert result.psf == expected.psf


def test_a_persisted_result_as_input(exposure):
    first = run(exposure, whole).persist()
    assert_same(run(first, tile=16).compute(), run(first.compute()).compute())


# Cells that fail


def test_an_error_names_its_cell(exposure):
    lazy = run(exposure, fails_at, mapper_kwargs={"at": [(20, 5)], "error": KeyError}, tile=16)
    for scheduler in ("synchronous", "threads"):
        with pytest.raises(KeyError, match="no luck at 20, 5") as caught:
            lazy.compute(scheduler=scheduler)
        (note,) = caught.value.__notes__
        assert note.startswith("in cell 4: core Box(x0=15, y0=2, width=10, height=10), expanded")


class Unlucky(RuntimeError):
    """An exception with an attribute of its own."""

    def __init__(self, message):
        super().__init__(message)
        self.luck = 0


def test_an_error_on_a_cluster_names_its_cell(exposure, client):
    kwargs = {"at": [(20, 5)], "error": Unlucky}
    with pytest.raises(Unlucky, match="no luck at 20, 5") as caught:
        run(exposure, fails_at, mapper_kwargs=kwargs, tile=16).compute()
    assert caught.value.luck == 0
    assert "in cell 4: core Box" in caught.value.__notes__[0]


FAILING = [(20, 5), (44, 21), (5, -8)]
FAILED = [0, 4, 11]


def check_masked(result, exposure, expected):
    cells = GRID.build(exposure)
    failed = np.zeros(exposure.shape, bool)
    for index in FAILED:
        failed[cells[index].core.slices(exposure.bbox)] = True
    bits = result.mask_planes.bitmask(*BAD)
    assert np.isnan(result.image[failed]).all()
    assert np.isnan(result.variance[failed]).all()
    assert ((result.mask[failed] & bits) == bits).all()
    for name, plane in expected.planes.items():
        np.testing.assert_array_equal(result.planes[name][~failed], plane[~failed])
    np.testing.assert_array_equal(result.mask & ~bits, exposure.mask & ~bits)
    report = result.report
    assert [failure.index for failure in report.failures] == FAILED
    for failure in report.failures:
        assert (failure.core, failure.expanded) == cells[failure.index][1:]
        assert failure.error.startswith("OSError: no luck at")
        assert "fails_at" in failure.traceback
        assert f"cell {failure.index}" in str(report)
    assert result.meta["MRFAILED"] == 3
    with pytest.raises(OSError, match="no luck at 44, 21"):
        report.replay(11)
    assert_same(
        report.replay(3).replace(mask_planes=exposure.mask_planes), exposure.cutout(cells[3].core)
    )
    for index in (-1, 12):
        with pytest.raises(IndexError, match=f"no cell {index}; the run had 12"):
            report.replay(index)


@pytest.mark.slow
@pytest.mark.parametrize("reducer", ["copy", "sum", "average", "median", "feather"])
@pytest.mark.parametrize("tile", [None, 7])
def test_failed_cells_are_masked(reducer, tile, exposure):
    expected = run(exposure, reducer=reducer).compute()
    lazy = run(
        exposure, fails_at, mapper_kwargs={"at": FAILING}, on_error="mask", reducer=reducer,
        tile=tile,
    )  # fmt: skip
    for scheduler in ("synchronous", "threads"):
        check_masked(lazy.compute(scheduler=scheduler), exposure, expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [lambda e: e, lambda e: e.chunk(16), unread])
def test_failed_cells_are_masked_on_a_cluster(kind, exposure, client):
    lazy = run(kind(exposure), fails_at, mapper_kwargs={"at": FAILING}, on_error="mask", tile=16)
    check_masked(lazy.compute(), exposure, run(exposure).compute())
    report = lazy.report.compute()
    assert [failure.index for failure in report.failures] == FAILED
    with pytest.raises(OSError, match="no luck at 5, -8"):
        report.replay(0)


def masked(exposure, **options):
    return run(exposure, fails_at, mapper_kwargs={"at": FAILING}, on_error="mask", **options)


@pytest.mark.slow
def test_replay_when_only_the_result_is_left(exposure):
    result = masked(exposure).compute()
    gc.collect()
    with pytest.raises(OSError, match="no luck"):
        result.report.replay(0)


def test_replay_after_persist(exposure):
    result = masked(exposure).persist().compute()
    with pytest.raises(OSError, match="no luck"):
        result.report.replay(0)


def test_replay_after_persist_on_a_cluster(exposure, client):
    result = client.persist(masked(exposure, tile=20)).compute()
    with pytest.raises(OSError, match="no luck"):
        result.report.replay(0)


@pytest.mark.parametrize(
    "made",
    [
        copy.copy,
        lambda result: result * 2,
        lambda result: result.cutout(result.bbox),
        lambda result: result.persist() * 2,
    ],
)
def test_replay_where_only_what_was_made_of_the_result_is_left(made, exposure):
    report = made(masked(exposure)).compute().report
    gc.collect()
    with pytest.raises(OSError, match="no luck"):
        report.replay(0)


@pytest.mark.slow
def test_replay_when_an_equal_run_is_gone(exposure):
    """Runs on the same lazy input have the same name."""
    chunked = exposure.chunk(16)
    lazy, again = (masked(chunked) for _ in range(2))
    assert lazy.__dask_keys__() == again.__dask_keys__()
    del again
    gc.collect()
    with pytest.raises(OSError, match="no luck"):
        lazy.compute().report.replay(0)


def test_replay_of_some_cells_of_a_grid(exposure):
    grid = GRID.build(exposure)
    report = masked(exposure, grid=Grid(grid.box, grid.cells[3:6])).compute().report
    assert [failure.index for failure in report.failures] == [4]
    with pytest.raises(OSError, match="no luck at 20, 5"):
        report.replay(4)


def test_replay_of_a_run_without_failures(exposure):
    with pytest.raises(RuntimeError, match="where some cell failed"):
        run(exposure, on_error="mask").compute().report.replay(0)


def test_replay_gives_the_mapper_the_same_input(exposure):
    """With random numbers, aligned exposures, and a PSF that was not known before the run."""
    template = make_exposure(60, 60, origin=(-5, -20))
    first = run(exposure, another_psf)
    lazy = run(first, tells, aligned={"template": template}, on_error="mask", tile=16, seed=5)
    report = lazy.compute().report
    assert len(report.failures) == 12
    for failure in report.failures[:3]:
        with pytest.raises(Unlucky) as caught:
            report.replay(failure.index)
        assert str(caught.value) in failure.error


def tells(sub, expanded, full_bbox, cell, rng, template):
    facts = sub.psf, sub.bbox, expanded.image.sum(), template.image.sum(), rng.random(), cell.index
    raise Unlucky(repr(facts))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_all_cells_fail(scheduler, exposure):
    lazy = run(exposure, always_fails, on_error="mask", tile=16)
    result = lazy.compute(scheduler=scheduler)
    assert np.isnan(result.image).all()
    assert len(result.report.failures) == 12
    assert result.psf is None


def always_fails(sub, expanded, full_bbox):
    raise ArithmeticError("never")


@pytest.mark.parametrize("reducer", ["none", "concatenate", "coadd_psf"])
def test_failed_cells_of_collectors(reducer, exposure):
    mapper = {"concatenate": rows_or_fail}.get(reducer, fails_at)
    kwargs = {"at": FAILING}
    options = {"mapper_kwargs": kwargs, "reducer": reducer, "tile": 16}
    lazy = run(exposure, mapper, on_error="mask", **options)
    assert isinstance(lazy.report, Delayed)
    with pytest.warns(UserWarning, match="3 of 12 cells failed .*: OSError: no luck") as caught:
        result = lazy.compute()
    assert len(caught) == 1
    assert [failure.index for failure in lazy.report.failures] == FAILED
    with pytest.raises(OSError, match="no luck"):
        lazy.report.replay(FAILED[0])
    if reducer == "none":
        assert [i for i, value in enumerate(result) if isinstance(value, CellFailure)] == FAILED
        assert len(result) == 12
    elif reducer == "concatenate":
        assert result["cell"].tolist() == [n for n in range(12) if n not in FAILED]
    else:
        assert [c.index for c in result.components] == [n for n in range(12) if n not in FAILED]
    with pytest.raises(OSError, match="no luck"):
        run(exposure, mapper, **options).compute()


def table_or_fail(sub, expanded, full_bbox, at):
    return Table(rows_or_fail(sub, expanded, full_bbox, at))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "cluster"])
def test_reports_of_collected_results(scheduler, exposure, request, tmp_path):
    if scheduler == "cluster":
        request.getfixturevalue("client")
    with dask.config.set(scheduler=None if scheduler == "cluster" else scheduler):
        options = {"mapper_kwargs": {"at": FAILING}, "on_error": "mask", "tile": 16}
        lazy = run(exposure, table_or_fail, reducer="concatenate", **options)
        with pytest.warns(UserWarning, match="3 of 12 cells failed"):
            table = lazy.compute()
        assert table.meta["MRFAILED"] == 3
        assert table.meta["MRREPORT"] == lazy.report
        assert (lazy.report.n_cells, len(lazy.report.seconds)) == (12, 12)
        table.write(tmp_path / "a.ecsv")
        assert "failed: cell 0, core" in Table.read(tmp_path / "a.ecsv").meta["MRREPORT"]
        kept = lazy.persist()
        with pytest.warns(UserWarning, match="3 of 12 cells failed"):
            assert len(kept.compute()) == 9
        assert kept.report == lazy.report
        assert lazy["cell"].compute().tolist() == table["cell"].tolist()
        assert dask.delayed(len)(lazy).compute() == 9
        sound = run(exposure, rows_or_fail, reducer="none", mapper_kwargs={"at": []})
        assert len(pickle.loads(pickle.dumps(sound)).compute()) == 12
        assert isinstance(sound.report, Delayed)
        sound.compute()
        assert sound.report.failures == ()


def rows_or_fail(sub, expanded, full_bbox, at):
    return {"x": [fails_at(sub, expanded, full_bbox, at).bbox.x0]}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_are_not_swallowed(error, exposure):
    kwargs = {"at": [(20, 5)], "error": error}
    lazy = run(exposure, fails_at, mapper_kwargs=kwargs, on_error="mask")
    for scheduler in ("synchronous", "threads"):
        with pytest.raises(error):
            lazy.compute(scheduler=scheduler)


# Planes that cannot be read


def test_a_block_that_cannot_be_read(exposure):
    with pytest.raises(OSError, match="cannot read pixel") as caught:
        run(unread(exposure, broken=(0, 0)), tile=16).compute()
    assert "while reading Box" in caught.value.__notes__[0]


@pytest.mark.parametrize("tile", [(10, 10), None])
def test_a_block_that_cannot_be_read_is_masked(tile, exposure):
    """Only the cells that need it, whatever the tile size."""
    result = run(unread(exposure, broken=(15, 15)), on_error="mask", tile=tile).compute()
    needed = Box(exposure.bbox.x0 + 15, exposure.bbox.y0 + 15, 1, 1)
    cells = [cell for cell in GRID.build(exposure) if cell.expanded.contains(needed)]
    assert [failure.index for failure in result.report.failures] == [cell.index for cell in cells]
    failed = np.zeros(exposure.shape, bool)
    for cell in cells:
        failed[cell.core.slices(exposure.bbox)] = True
    np.testing.assert_array_equal(np.isnan(result.image), failed)
    np.testing.assert_array_equal(result.image[~failed], exposure.image[~failed])
    with pytest.raises(OSError, match="cannot read pixel"):
        result.report.replay(cells[0].index)


@pytest.mark.slow
def test_a_block_that_cannot_be_read_on_a_cluster(exposure, client):
    lazy = run(unread(exposure, broken=(15, 15)), on_error="mask", tile=10)
    result = lazy.compute()
    assert result.report.failures
    assert_same(result, lazy.compute(scheduler="synchronous"))


def test_a_dask_array_that_cannot_be_computed_ends_the_run(exposure):
    """That is an error of another computation, before any cell."""
    image = exposure.chunk(10).image.map_blocks(cannot_compute, dtype="f4")
    with pytest.raises(OSError, match="cannot compute"):
        run(exposure.replace(image=image), on_error="mask", tile=10).compute()


def cannot_compute(block):
    raise OSError("cannot compute")


# Properties


@pytest.mark.slow
@PROPERTY
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.builds(
        GridConfig,
        cell_size=st.integers(1, 9),
        border=st.integers(0, 5),
        adjust=st.sampled_from(["partition", "spacing", "size", "none"]),
    ),
    st.one_of(st.none(), st.integers(3, 20)),
    st.sampled_from(["copy", "average", "median", "feather"]),
    st.sampled_from([identity, whole]),
)
def test_the_identity_gives_the_input(size, grid, tile, reducer, mapper):
    exposure = make_exposure(*size, dtype="f8")
    result = run(exposure, mapper, grid=grid, tile=tile, reducer=reducer).compute()
    np.testing.assert_allclose(result.image, exposure.image, rtol=1e-13)
    np.testing.assert_allclose(result.variance, exposure.variance, rtol=1e-6)
    np.testing.assert_array_equal(result.mask, exposure.mask)


@pytest.mark.slow
@PROPERTY
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(3, 20),
)
def test_sums_count_the_cells(centroids, size, tile):
    exposure = Exposure(np.ones((20, 20)))
    grid = GridConfig(size, border=2, centroids=[(10, 10), *centroids]).build(exposure)
    count = np.zeros(exposure.shape)
    for cell in grid:
        count[cell.core.slices(grid.box)] += 1
    total, mean, last = dask.compute(
        *(run(exposure, grid=grid, tile=tile, reducer=r) for r in (Sum(), Average(), Copy()))
    )
    np.testing.assert_array_equal(total.image, count)
    np.testing.assert_array_equal(mean.image, np.where(count > 0, 1, np.nan))
    np.testing.assert_array_equal(last.image, mean.image)

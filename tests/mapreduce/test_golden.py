"""What LSST's ImageMapReduceTask does, to the last bit: recorded grids and reductions.

A few of the records are in tests/data, all of them in the folder of the fixture ``shared``.
"""

import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest

from mapreduce import Box, CellPsf, Exposure, GaussianPsf, GridConfig, map_reduce
from tests.conftest import DATA

SMALL = DATA / "golden_small"
FWHM = 2 * np.sqrt(2 * np.log(2))  # in units of sigma
TILES = ["default", 64, "cell"]


@pytest.fixture(scope="module", params=["small", "shared"])
def golden(request):
    """Return the recorded cases: grids, reductions and the arrays of the latter."""
    if request.param == "small":
        cases = json.loads(SMALL.with_suffix(".json").read_text())
        return SimpleNamespace(**cases, arrays=load(SMALL.with_suffix(".npz")))
    folder = request.getfixturevalue("shared") / "data" / "golden"
    names = {"grids": "grids.json", "reductions": "reductions.json"}
    cases = {kind: json.loads((folder / name).read_text())["cases"] for kind, name in names.items()}
    assert len(cases["grids"]) == 246
    return SimpleNamespace(**cases, arrays=load(folder / "reductions.npz"))


def load(path):
    with np.load(path) as file:
        return dict(file)


def check_error(case, error):
    """Check that an error is what the original raised, or of a built-in class it was derived from.

    FieldValidationError, which is the original's own, means ValueError.
    """
    allowed = {case["error"]["class"], *case["error"]["bases"]} - {"Exception"}
    assert type(error).__name__ in allowed, (case["id"], error)


# Grids


def build(case, over):
    """Return the recorded and our own core and expanded boxes."""
    config = GridConfig.lsst(**case["config"], forceEvenSized=case["forceEvenSized"])
    sigma = case["psf_sigma"]
    fwhm = sigma * FWHM if isinstance(over, Box) and sigma is not None else None
    grid = config.build(over, fwhm)
    assert grid.box == (over if isinstance(over, Box) else over.bbox)
    assert [cell.index for cell in grid] == list(range(len(grid)))
    return [[list(getattr(cell, name)) for cell in grid] for name in ("core", "expanded")]


def check_grid(case, over):
    """Check one grid: its boxes, or the error; a grid without cells must come with a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            core, expanded = build(case, over)
        except Exception as error:
            assert "error" in case, case["id"]
            check_error(case, error)
            return
    assert "error" not in case, case["id"]
    assert (case["id"], core, expanded) == (case["id"], case["core"], case["expanded"])
    assert ["no cell" in str(w.message) for w in caught] == ([True] if not core else [])


def test_grids_over_a_box(golden):
    for case in golden.grids:
        if case["psf_sigma"] is not None:
            image = case["image"]
            check_grid(case, Box(image["x0"], image["y0"], image["width"], image["height"]))


def test_grids_over_an_exposure(golden):
    for case in golden.grids:
        image, sigma = case["image"], case["psf_sigma"]
        pixels = np.broadcast_to(np.float32(0), (image["height"], image["width"]))
        psf = None if sigma is None else GaussianPsf(sigma)
        check_grid(case, Exposure(pixels, origin=(image["x0"], image["y0"]), psf=psf))


def test_a_regular_grid_needs_a_psf(golden):
    cases = [case for case in golden.grids if case["psf_sigma"] is None]
    for case in cases:
        with pytest.raises(AttributeError, match="needs an exposure with PSF"):
            build(case, Exposure(np.zeros((case["image"]["height"], case["image"]["width"]))))
    assert cases


# Reductions


def recorded_mapper(sub, expanded, full_bbox, steps, start, returns):
    """Do the recorded steps; where they are explained: mapper_doc in the reference data."""
    if returns == "float":
        return 1.0
    x0, y0 = sub.bbox.x0, sub.bbox.y0
    out = (expanded if start == "expanded" else sub).copy()
    for step in steps:
        modulus, rest = step.get("when", (1, 0))
        if (x0 + y0) % modulus == rest:
            out = STEPS[step["op"]](out, step, x0, y0, expanded)
    return out


def _image(change):
    """Make a step that changes the image by a number of the image's type."""

    def step(out, step, x0, y0, expanded):
        change(out.image, out.image.dtype.type(number(step, x0, y0, expanded)))
        return out

    return step


def number(step, x0, y0, expanded):
    if step["op"] == "add_pos":
        return step["cx"] * x0 + step["cy"] * y0
    if step["op"] == "sub_expanded_mean":
        return np.nanmean(expanded.image.astype(float))
    return step["value"]


def _pixels(out, step, x0, y0, expanded):
    """Set a plane, a row or a pixel of it, or bits of the mask."""
    plane = out.mask if "mask" in step["op"] else getattr(out, step["plane"])
    where = step.get("row", ...)
    if "at" in step:
        x, y = where = step["at"]
        if not (-plane.shape[1] <= x < plane.shape[1] and -plane.shape[0] <= y < plane.shape[0]):
            return out
        where = y, x
    elif "row" in step and not -plane.shape[0] <= where < plane.shape[0]:
        return out
    if "bit" in step:
        plane[where] |= 1 << step["bit"]
    else:
        plane[where] = float(step.get("value", 0))
    return out


def _mul_var(out, step, x0, y0, expanded):
    out.variance *= np.float32(step["value"])
    return out


def _trim(out, step, x0, y0, expanded):
    box = out.bbox.grow(-step["n"])
    return out.cutout(box) if box.area else out


STEPS = {
    "add": _image(np.ndarray.__iadd__),
    "mul": _image(np.ndarray.__imul__),
    "add_pos": _image(np.ndarray.__iadd__),
    "sub_expanded_mean": _image(np.ndarray.__isub__),
    "mul_var": _mul_var,
    "trim": _trim,
    **dict.fromkeys(["set", "set_all", "set_row", "or_mask", "or_mask_all", "clear_mask"], _pixels),
}


def exposure_of(case, arrays):
    image = case["image"]
    kind = {"F": "float32", "D": "float64", "I": "int32"}[image["kind"]]
    planes = {name: arrays[f"{case['id']}_in_{name}"] for name in ("image", "variance", "mask")}
    assert planes["image"].dtype == kind
    psf = GaussianPsf(image["psf_sigma"])
    return Exposure(**planes, origin=(image["x0"], image["y0"]), psf=psf)


def reduce(case, exposure, tile):
    """Return the lazy result of a case."""
    config = GridConfig.lsst(**case["config"], **case["run_kwargs"])
    mapper = case["mapper"]
    kwargs = {
        "steps": mapper["steps"],
        "start": mapper.get("input", "core"),
        "returns": mapper.get("returns"),
    }
    size = {"default": None, "cell": tuple((case.get("core") or [[0, 0, 8, 8]])[0][2:])}
    return map_reduce(
        exposure,
        recorded_mapper,
        grid=config,
        reducer=case["reduceOperation"],
        mapper_kwargs=kwargs,
        tile=size.get(tile, tile),
    )


def check_reduction(case, arrays, tile):
    exposure = exposure_of(case, arrays)
    if "error" in case:
        with pytest.raises(Exception, match="reducer") as caught:
            reduce(case, exposure, tile).compute()
        check_error(case, caught.value)
        return
    if case["name"] == "copy_no_cells":
        with pytest.warns(UserWarning, match="no cell"):
            lazy = reduce(case, exposure, tile)
    else:
        lazy = reduce(case, exposure, tile)
    out = lazy.compute()
    for name, plane in out.planes.items():
        expected = arrays[f"{case['id']}_out_{name}"]
        assert plane.dtype == expected.dtype
        np.testing.assert_array_equal(plane, expected, err_msg=f"{case['id']} {name}", strict=True)
    assert len(out.planes) == 3
    assert dict(out.mask_planes) == case["mask_planes_after"]
    if "psf" in case:
        check_psf(case["psf"], out.psf, exposure.psf)


def check_psf(recorded, psf, given):
    if recorded["kind"] != "coadd":
        assert psf == given
        return
    assert isinstance(psf, CellPsf)
    ours = [(c.index, list(c.box), c.weight) for c in psf.components]
    assert ours == [(c["id"], c["bbox"], c["weight"]) for c in recorded["components"]]
    assert {component.psf for component in psf.components} == {given}


def run_all(golden, tile):
    cases = [case for case in golden.reductions if not case["mapper"].get("in_place")]
    for case in cases:
        check_reduction(case, golden.arrays, tile)
    assert cases


@pytest.mark.parametrize("tile", [*TILES, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_reductions(golden, tile, scheduler):
    with dask.config.set(scheduler=scheduler):
        run_all(golden, tile)


@pytest.mark.slow
@pytest.mark.parametrize("tile", TILES)
def test_reductions_on_a_cluster(golden, tile, client):
    run_all(golden, tile)


@pytest.mark.parametrize("plane", ["image", "variance", "mask"])
def test_a_mapper_that_edits_in_place_is_refused(plane):
    """The original let it change the input, and so what later cells saw."""

    def in_place(sub, expanded, full_bbox):
        getattr(sub, plane)[...] = 0
        return sub

    pixels = np.ones((20, 20), "f4")
    exposure = Exposure(pixels, pixels.copy(), np.ones((20, 20), "i4"), psf=GaussianPsf(2.0))
    config = GridConfig.lsst(scaleByFwhm=False)
    with pytest.raises(ValueError, match="read-only"):
        map_reduce(exposure, in_place, grid=config, reducer="copy").compute()
    assert (getattr(exposure, plane) == 1).all()


# The records in tests/data


def write_small(shared: Path) -> None:
    """Write tests/data/golden_small.*: of each group of grids one or two, and 4 reductions."""
    folder = shared / "data" / "golden"
    grids = json.loads((folder / "grids.json").read_text())["cases"]
    kept = []
    for group in {case["group"]: None for case in grids}:
        cases = [case for case in grids if case["group"] == group]
        if group != "large":
            cases.sort(key=lambda case: len(str(case)))
            small = [case for case in cases[1:] if len(str(case)) < 600]
            kept += [cases[len(cases) // 4], *small[-1:]]
    kept += [case for case in grids if case["psf_sigma"] is None]
    kept = list({case["id"]: case for case in kept}.values())
    reductions = json.loads((folder / "reductions.json").read_text())["cases"]
    unused = ("expanded", "mask_planes_before", "bad_bits", "seed", "input")
    reductions = [
        {key: value for key, value in case.items() if key not in unused}
        for case in reductions
        if case["id"] in ("r03", "r06", "r15", "r16")
    ]
    for case in reductions:
        case["core"] = case["core"][:1]
        if len(str(case)) > 10_000:  # hundreds of components; other cases have a few
            del case["psf"]
    names = {case["id"] for case in reductions}
    arrays = load(folder / "reductions.npz")
    np.savez_compressed(SMALL, **{k: v for k, v in arrays.items() if k.split("_")[0] in names})
    blocks = [
        f'"{kind}": [\n' + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]"
        for kind, cases in {"grids": kept, "reductions": reductions}.items()
    ]
    SMALL.with_suffix(".json").write_text("{" + ",\n".join(blocks) + "}\n")


if __name__ == "__main__":  # python tests/test_golden.py folder
    write_small(Path(sys.argv[1]))

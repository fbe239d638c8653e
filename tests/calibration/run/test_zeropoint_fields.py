"""Zeropoints as fgcm writes them: with fields or, by default, without; sizes of boxes."""

import re

import numpy as np
import pytest

from calibration import FgcmRun, ProductsConfig, RunWarning, build_products
from calibration.photocalib.flux import AB_FLUX
from calibration.run.zeropoint_fields import FIELDS
from tests.calibration.fgcm_cases import RUN, fgcm_zeropoints, tables, write_alone

VISIT = 60600004
CONFIG = ProductsConfig(atmosphere_output=False, tract_stars=False, compose_wcs_jacobian=False)


@pytest.fixture(scope="module")
def parts():
    return tables()


def opened(folder, parts, fields):
    """Open a stand-alone run, which says what it lacks."""
    message = "no column scaling" if fields else r"there are no fields .* each detector has one"
    with pytest.warns(RunWarning) as caught:
        run = FgcmRun.open(write_alone(folder, parts, fields))
    assert any(re.search(message, str(w.message)) for w in caught)
    return run


def test_a_fit_with_default_settings_has_a_calibration_of_each_detector(parts, tmp_path):
    run = opened(tmp_path, parts, fields=False)
    assert run.check() == ()
    rows = run.zeropoint_rows(VISIT)
    products = build_products(run, CONFIG)
    visit = products.photo_calibs[VISIT].compute(scheduler="sync")
    used = rows["fgcmFlag"] & 16 == 0
    assert 0 < used.sum() == len(visit)
    for detector, zeropoint, chrom in zip(
        *(rows[name][used] for name in ("detector", "fgcmZpt", "fgcmDeltaChrom")), strict=True
    ):
        photo_calib, box = visit[int(detector)], run.camera[int(detector)].box
        expected = AB_FLUX * 10 ** (-0.4 * (zeropoint + chrom))
        assert photo_calib.mean == pytest.approx(expected, rel=1e-12)
        for x, y in ((-0.5, -0.5), (box.width - 0.5, box.height - 0.5), (77, 700)):
            assert photo_calib.calibration(x, y) == pytest.approx(expected, rel=1e-12)


def test_it_is_that_of_the_center_where_there_are_fields(parts, tmp_path):
    (tmp_path / "flat").mkdir()
    (tmp_path / "fields").mkdir()
    runs = [opened(tmp_path / n, parts, fields=n == "fields") for n in ("flat", "fields")]
    flat, varying = (build_products(r, CONFIG).photo_calibs[VISIT].compute() for r in runs)
    assert list(flat) == list(varying)
    for detector in flat:
        assert flat[detector].mean == pytest.approx(varying[detector].mean, rel=0.02)
        assert flat[detector].err / flat[detector].mean == pytest.approx(
            varying[detector].err / varying[detector].mean
        )


def test_sizes_and_last_pixels_are_told_apart_by_the_camera(parts):
    zeropoints = parts["zeropoints"]
    expected = FgcmRun.open(RUN).zeropoint_rows(VISIT)
    for table in (zeropoints, fgcm_zeropoints(zeropoints, fields=True)):
        found = FgcmRun.open(RUN, zeropoints=table).zeropoint_rows(VISIT, ["detector", *FIELDS])
        for name in FIELDS:
            np.testing.assert_array_equal(found[name], expected[name])
    assert list(FgcmRun.open(RUN, zeropoints=table).zeropoint_rows(VISIT, [FIELDS[0]])) == [
        FIELDS[0]
    ]


def test_without_a_camera_the_name_of_the_column_says_what_it_is(parts):
    zeropoints = parts["zeropoints"]
    expected = FgcmRun.open(RUN, camera=None).zeropoint_rows(VISIT)[FIELDS[0]]
    with pytest.warns(RunWarning, match="taken to be the size of a detector, as a stand-alone"):
        run = FgcmRun.open(RUN, zeropoints=fgcm_zeropoints(zeropoints, fields=True), camera=None)
    np.testing.assert_array_equal(run.zeropoint_rows(VISIT)[FIELDS[0]], expected)


@pytest.mark.parametrize("missing", [FIELDS[:1], FIELDS[1:], FIELDS[::2]])
def test_some_of_a_fields_columns_are_no_field(parts, missing):
    zeropoints = parts["zeropoints"].copy()
    zeropoints.remove_columns([*missing])
    with pytest.raises(ValueError, match=f"there is no column {', '.join(missing)}; fields take"):
        FgcmRun.open(RUN, zeropoints=zeropoints)

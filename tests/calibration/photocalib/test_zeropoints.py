"""Calibrations of a visit: golden numbers, and what becomes of bad zeropoints."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits

from calibration import CalibrationWarning, NoZeropointError, visit_photo_calib
from calibration.fields.chebyshev import ChebyshevField
from calibration.photocalib.flux import AB_FLUX
from calibration.photocalib.zeropoints import calibrate_visit, usable_zeropoints
from mapreduce import Box
from tests.conftest import DATA

GOLDEN = DATA / "golden_photocalib.npz"
BANDS = {"SIM-G": "G", "SIM-R": "R", "SIM-I": "I", "SIM-I2": "I", "SIM-Z": "Z"}
OPTIONS = {
    "value": {},
    "value_off": {"offset": None},
    "value_nochrom": {"apply_mean_chromatic_correction": False},
}


def make_rows(n=4, **columns):
    """Return plausible zeropoints of detectors 10, 11, ... of visit 7."""
    rng = np.random.default_rng(n)
    superstar = rng.normal(0, 0.01, (n, 9))
    superstar[:, 0] = 1
    zeropoint = rng.normal(0, 1e-15, (n, 4))
    zeropoint[:, 0] = rng.uniform(4e-13, 6e-13, n)
    rows = {
        "visit": np.full(n, 7),
        "detector": np.arange(10, 10 + n),
        "fgcmFlag": np.array([1, 2, 4, 36, *[1] * n])[:n],
        "fgcmZpt": np.full(n, 30.7),
        "fgcmZptVar": rng.uniform(1e-7, 1e-6, n),
        "fgcmfZptChebXyMax": np.tile([99.0, 49.0], (n, 1)),
        "fgcmfZptCheb": zeropoint,
        "fgcmfZptSstarCheb": superstar,
        "fgcmDeltaChrom": rng.normal(0, 0.003, n),
    }
    return rows | columns


def changed(name, where, value, n=4):
    rows = make_rows(n)
    rows[name] = rows[name].copy()
    rows[name][where] = value
    return rows


def ones(ids=range(10, 20)):
    return dict.fromkeys(ids, 1.0)


# Numbers


def assert_golden(golden, rows_of, scaling_of, offset_of, rtol=1e-9):
    """Check every golden record of the visits."""
    for visit in np.unique(golden["visit"]):
        part = {name: column[golden["visit"] == visit] for name, column in golden.items()}
        at = part["detector"], part["x"], part["y"]
        for name, options in OPTIONS.items():
            options = {k: offset_of(visit) if v is None else v for k, v in options.items()}
            found = visit_photo_calib(visit, rows_of(visit), scaling_of(visit), **options)
            np.testing.assert_allclose(found.calibration(*at), part[name], rtol=rtol)
            if name == "value":
                places = np.searchsorted(found.detectors, part["detector"])
                np.testing.assert_allclose(found.mean[places], part["mean"], rtol=rtol)
                np.testing.assert_allclose(found.err[places], part["err"], rtol=rtol)


def small():
    """Return the golden records of three visits, and how to look up their input."""
    with np.load(GOLDEN) as file:
        data = dict(file)
    golden = {k.removeprefix("golden_"): v for k, v in data.items() if k.startswith("golden_")}
    rows = {k.removeprefix("rows_"): v for k, v in data.items() if k.startswith("rows_")}
    places = {visit: i for i, visit in enumerate(data["visits"].tolist())}
    return (
        golden,
        lambda visit: {name: column[rows["visit"] == visit] for name, column in rows.items()},
        lambda visit: (np.arange(8), data["scaling"][places[visit]]),
        lambda visit: data["offsets"][places[visit]],
    )


def test_golden_values_of_three_visits():
    assert_golden(*small())


@pytest.mark.parametrize("factor", ["superstar", "chromatic", "zeropoint", "scaling", "variance"])
def test_golden_values_show_an_error_in_any_factor(factor):
    golden, rows_of, scaling_of, offset_of = small()
    names = {
        "superstar": "fgcmfZptSstarCheb",
        "chromatic": "fgcmDeltaChrom",
        "zeropoint": "fgcmfZptCheb",
        "variance": "fgcmZptVar",
    }

    def wrong_rows(visit):
        rows = rows_of(visit)
        if factor in names:
            rows[names[factor]] = rows[names[factor]] * (1 + 1e-5)
        return rows

    def wrong_scaling(visit):
        ids, values = scaling_of(visit)
        return (ids, values[::-1]) if factor == "scaling" else (ids, values)

    with pytest.raises(AssertionError):
        assert_golden(golden, wrong_rows, wrong_scaling, offset_of)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'mbar' did not parse")
def test_golden_values_of_all_visits(shared):
    run = shared / "data" / "fgcm_run"
    rows = fits.getdata(run / "fgcmZeropoints.fits", 1)
    visits = fits.getdata(run / "fgcmVisitCatalog.fits", 1)
    golden, header = fits.getdata(run / "golden_photocalib.fits", 1, header=True)
    columns = {name: rows[name] for name in make_rows()}
    filters = dict(zip(visits["visit"], visits["physicalFilter"], strict=True))
    scaling = dict(zip(visits["visit"], visits["scaling"], strict=True))
    assert len(golden) == 6408
    assert_golden(
        {name: golden[name] for name in golden.names},
        lambda visit: {n: column[columns["visit"] == visit] for n, column in columns.items()},
        lambda visit: (np.arange(8), scaling[visit]),
        lambda visit: header[f"OFF_{BANDS[filters[visit]]}"],
    )


def test_the_pixel_area_and_every_factor_are_in_the_product():
    rows = make_rows(3)
    rng = np.random.default_rng(1)
    area = rng.normal(0, 0.01, (3, 3, 3))
    area[:, 0, 0] = 1
    boxes = np.tile([0, 0, 100, 50], (3, 1))
    found = visit_photo_calib(
        7, rows, {10: 1.1, 11: 0.9, 12: 1.2}, offset=0.05, area=([12, 10, 11], boxes, area)
    )
    x, y = rng.uniform(0, 99, 20), rng.uniform(0, 49, 20)
    for i, (detector, scale) in enumerate({10: 1.1, 11: 0.9, 12: 1.2}.items()):
        box = Box(0, 0, 100, 50)
        values = ChebyshevField(box, rows["fgcmfZptSstarCheb"][i].reshape(3, 3))(x, y)
        values *= ChebyshevField(box, rows["fgcmfZptCheb"][i].reshape(2, 2))(x, y) * AB_FLUX
        values *= ChebyshevField(box, area[[1, 2, 0][i]])(x, y) * scale
        values *= 10 ** (-0.4 * (0.05 + rows["fgcmDeltaChrom"][i]))
        np.testing.assert_allclose(found[detector].calibration(x, y), values, rtol=1e-12)
    assert len(found) == 3


def test_mean_is_at_the_center_and_its_error_that_of_the_zeropoint():
    rows = make_rows()
    found = visit_photo_calib(7, rows, ones())
    for detector, photo_calib in found.items():
        np.testing.assert_allclose(photo_calib.mean, photo_calib.calibration(49.5, 24.5))
        expected = np.log(10) / 2.5 * photo_calib.mean * rows["fgcmZptVar"][detector - 10] ** 0.5
        np.testing.assert_allclose(photo_calib.err, expected)
        assert photo_calib.box == Box(0, 0, 100, 50)


# Selection and order


def test_rows_without_a_zeropoint_are_not_used_and_say_nothing():
    n = 6
    rows = make_rows(n)
    rows["fgcmFlag"][0] = 16 + 32
    rows["fgcmZptVar"][1] = 0
    rows["fgcmZpt"][2] = -9999
    rows["fgcmfZptCheb"][3, 0] = 0
    rows["fgcmfZptSstarCheb"][3] = np.nan  # of a row that is not used
    assert list(visit_photo_calib(7, rows, ones())) == [14, 15]


def test_the_order_of_rows_does_not_matter():
    rows = make_rows()
    order = [2, 0, 3, 1]
    shuffled = {name: column[order] for name, column in rows.items()}
    found = visit_photo_calib(7, shuffled, ones())
    assert found == visit_photo_calib(7, rows, ones())
    assert list(found) == [10, 11, 12, 13]


def test_scaling_is_a_mapping_or_two_arrays():
    scaling = {13: 1.3, 12: 1.2, 10: 1.0, 11: 1.1}
    found = visit_photo_calib(7, make_rows(), scaling)
    assert found == visit_photo_calib(7, make_rows(), (list(scaling), list(scaling.values())))
    plain = visit_photo_calib(7, make_rows(), ones())
    np.testing.assert_allclose(found.mean / plain.mean, [1, 1.1, 1.2, 1.3])


def test_a_visit_without_a_usable_row():
    with pytest.raises(NoZeropointError, match="visit 7: none of its 4 zeropoints can be used"):
        visit_photo_calib(7, make_rows(fgcmFlag=np.full(4, 16)), ones())
    with pytest.raises(NoZeropointError, match="visit 7 has no zeropoints"):
        visit_photo_calib(7, {name: c[:0] for name, c in make_rows().items()}, ones())
    with pytest.raises(NoZeropointError, match=r"visit 7: none .* detectors 10, 11, 12, 13 \(no"):
        visit_photo_calib(7, make_rows(), {})
    error = pickle.loads(pickle.dumps(NoZeropointError("visit 7")))
    assert isinstance(error, ValueError)
    assert str(error) == "visit 7"


# Bad rows: the others are unharmed


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (changed("fgcmZptVar", 1, np.nan), "fgcmZptVar is not finite"),
        (changed("fgcmZpt", 1, np.nan), "fgcmZpt is not finite"),
        (changed("fgcmfZptCheb", (1, 0), np.nan), "fgcmfZptCheb is not finite"),
        (changed("fgcmfZptCheb", (1, 3), np.inf), "fgcmfZptCheb is not finite"),
        (changed("fgcmfZptSstarCheb", (1, 8), np.nan), "fgcmfZptSstarCheb is not finite"),
        (changed("fgcmDeltaChrom", 1, np.nan), "fgcmDeltaChrom is not finite"),
        (changed("fgcmDeltaChrom", 1, -9999), "fgcmDeltaChrom is -9999"),
        (changed("fgcmfZptChebXyMax", (1, 0), np.nan), "fgcmfZptChebXyMax is not finite"),
        (changed("fgcmfZptChebXyMax", (1, 1), 49.5), "fgcmfZptChebXyMax is not the index"),
        (changed("fgcmfZptChebXyMax", 1, -9999), "fgcmfZptChebXyMax is not the index"),
        (changed("fgcmfZptSstarCheb", (1, 0), -1), "a calibration that is not positive"),
    ],
)
def test_a_bad_row_is_left_out_by_name(rows, reason):
    with pytest.warns(CalibrationWarning) as warned:
        found = visit_photo_calib(7, rows, ones())
    assert len(warned) == 1
    assert f"visit 7: no calibration of detector 11 ({reason}" in str(warned[0].message)
    good = visit_photo_calib(7, make_rows(), ones())
    assert dict(found) == {detector: good[detector] for detector in (10, 12, 13)}


@pytest.mark.parametrize("missing", ["masked", "NaN"])
def test_a_flag_or_detector_that_is_missing_costs_its_row(missing):
    rows = make_rows()
    flag = rows["fgcmFlag"].astype(float) if missing == "NaN" else np.ma.array(rows["fgcmFlag"])
    flag[1] = np.nan if missing == "NaN" else np.ma.masked
    with pytest.warns(CalibrationWarning, match=r"detector 11 \(fgcmFlag is missing\)"):
        found = visit_photo_calib(7, rows | {"fgcmFlag": flag}, ones())
    assert list(found) == [10, 12, 13]
    detectors = np.ma.array(rows["detector"], mask=np.arange(len(rows["detector"])) == 1)
    detectors.data[1] = 10  # under the mask may be whatever
    assert dict(visit_photo_calib(7, rows | {"detector": detectors}, ones())) == dict(found)


def test_an_unused_chromatic_correction_may_be_anything():
    rows = changed("fgcmDeltaChrom", 1, np.nan)
    assert len(visit_photo_calib(7, rows, ones(), apply_mean_chromatic_correction=False)) == 4
    del rows["fgcmDeltaChrom"]
    assert len(visit_photo_calib(7, rows, ones(), apply_mean_chromatic_correction=False)) == 4


def test_detectors_without_scaling_or_area_are_left_out_by_name():
    area = [10, 12, 13], np.tile([0, 0, 100, 50], (3, 1)), np.ones((3, 1, 1))
    scaling = {10: 1.0, 11: 1.0, 12: np.nan}
    found, remark = calibrate_visit(7, make_rows(), scaling, area=area)
    assert list(found) == [10]
    assert remark == (
        "visit 7: no calibration of detector 13 (no scaling); "
        "detector 12 (a scaling that is not positive); detector 11 (no pixel area)"
    )
    with pytest.warns(CalibrationWarning, match="detector 13"):
        visit_photo_calib(7, make_rows(), scaling, area=area)


# Input that is wrong as a whole


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (make_rows(detector=[10, 11, 11, 10]), "several zeropoints of detectors 10, 11"),
        (make_rows(detector=[10.0, 11, 12, 13]), "column detector must hold whole numbers"),
        (make_rows(visit=[7, 7, 8, 7]), "zeropoints of visit 7 are rows of visit 8"),
        (
            make_rows(fgcmfZptCheb=np.ones((4, 3))),
            r"fgcmfZptCheb has the shape \(4, 3\); .* n\*\*2",
        ),
        (make_rows(fgcmfZptCheb=np.ones((4, 0))), r"fgcmfZptCheb has the shape \(4, 0\)"),
        (make_rows(fgcmfZptSstarCheb=[[1], [1] * 4, [1], [1]]), "fgcmfZptSstarCheb is not numbers"),
        (make_rows(fgcmZptVar=np.ones(3)), r"fgcmZptVar has the shape \(3,\), and not \(4,\)"),
        (make_rows(fgcmfZptChebXyMax=np.ones(4)), r"XyMax has the shape \(4,\), and not \(4, 2\)"),
        ({k: v for k, v in make_rows().items() if k != "fgcmZpt"}, "have no column fgcmZpt"),
    ],
)
def test_wrong_columns_are_named(rows, message):
    with pytest.raises(ValueError, match=message):
        visit_photo_calib(7, rows, ones())


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="visit 7: the reference offset is nan"):
        visit_photo_calib(7, make_rows(), ones(), offset=np.nan)
    with pytest.raises(ValueError, match=r"visit 7: scaling is \(3,\) numbers for \(4,\)"):
        visit_photo_calib(7, make_rows(), ([10, 11, 12, 13], [1, 1, 1]))
    boxes = np.tile([0, 0, 100, 50], (4, 1))
    boxes[2, 2] = 101
    area = np.arange(10, 14), boxes, np.ones((4, 1, 1))
    with pytest.raises(ValueError, match=r"visit 7: the pixel area of detector 12 .*width=101"):
        visit_photo_calib(7, make_rows(), ones(), area=area)
    with pytest.raises(ValueError, match="4 detectors, 3 boxes and 4 stacks"):
        visit_photo_calib(7, make_rows(), ones(), area=(area[0], boxes[:3], area[2]))


def test_masked_values_are_missing():
    rows = make_rows()
    rows["fgcmDeltaChrom"] = np.ma.array(rows["fgcmDeltaChrom"], mask=[0, 1, 0, 0])
    zeropoints = usable_zeropoints(7, rows)
    np.testing.assert_array_equal(
        zeropoints.problems["fgcmDeltaChrom is not finite"], [False, True, False, False]
    )

"""PhotoCalib and VisitPhotoCalib: fluxes, magnitudes, tables."""

from __future__ import annotations

import pickle

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable, Table
from dask.base import tokenize

from calibration import ChebyshevField, PhotoCalib, VisitPhotoCalib
from calibration.photocalib.flux import AB_FLUX, AB_MAGNITUDE
from mapreduce import Box

BOX = Box(0, 0, 100, 50)


def make_photo_calib(seed=0, order=(3, 4), box=BOX, err=0.02):
    coefficients = np.random.default_rng(seed).normal(0, 0.01, order)
    coefficients[0, 0] = 2 + seed
    return PhotoCalib(ChebyshevField(box, coefficients), err=err)


def make_visit():
    boxes = {7: BOX, 3: Box(0, 0, 80, 60), 5: Box(-10, 4, 20, 30)}
    members = {i: make_photo_calib(i, box=box, err=0.01 * i) for i, box in boxes.items()}
    return VisitPhotoCalib.from_photo_calibs(42, members), members


def test_the_zero_point_of_magnitudes():
    np.testing.assert_allclose(AB_FLUX, u.Quantity(1, u.AB).to_value(u.nJy), rtol=1e-14)
    np.testing.assert_allclose(AB_MAGNITUDE, 2.5 * np.log10(AB_FLUX), rtol=1e-15)


def test_fluxes_and_magnitudes():
    photo_calib = make_photo_calib()
    rng = np.random.default_rng(1)
    inst, err, x, y = rng.uniform([[100], [1], [0], [0]], [[200], [9], [99], [49]], (4, 30))
    factor = photo_calib.field(x, y)
    np.testing.assert_array_equal(photo_calib.calibration(x, y), factor)
    flux, flux_err = photo_calib.to_nanojansky(inst, err, x=x, y=y)
    mag, mag_err = photo_calib.to_magnitude(inst, err, x=x, y=y)
    relative = np.hypot(err / inst, photo_calib.err / photo_calib.mean)
    np.testing.assert_allclose(flux, inst * factor, rtol=1e-14)
    np.testing.assert_allclose(flux_err, flux * relative, rtol=1e-13)
    expected = u.Quantity(flux, u.nJy).to_value(u.ABmag)
    np.testing.assert_allclose(mag, expected, rtol=1e-14)
    np.testing.assert_allclose(mag_err, 2.5 / np.log(10) * relative, rtol=1e-13)
    np.testing.assert_array_equal(photo_calib.to_nanojansky(inst, x=x, y=y), flux)
    np.testing.assert_array_equal(photo_calib.to_magnitude(inst, x=x, y=y), mag)


def test_fluxes_that_are_not_positive():
    photo_calib = make_photo_calib()
    flux, err = photo_calib.to_nanojansky([-5.0, 0.0, np.nan], [1.0, 1.0, 1.0], x=49.5, y=24.5)
    mag, mag_err = photo_calib.to_magnitude([-5.0, 0.0, np.nan], [1.0, 1.0, 1.0], x=49.5, y=24.5)
    np.testing.assert_allclose(flux / photo_calib.mean, [-5, 0, np.nan])
    np.testing.assert_allclose(err[1], photo_calib.mean)
    np.testing.assert_array_equal(mag, [np.nan, np.inf, np.nan])
    assert mag_err[1] == np.inf


def test_single_precision_catalogs_are_calibrated_in_double():
    photo_calib = make_photo_calib()
    inst = np.float32([123.456])
    flux = photo_calib.to_nanojansky(inst, x=np.float32(3.25), y=4)
    assert flux.dtype == np.float64
    np.testing.assert_array_equal(flux, inst.astype("f8") * photo_calib.field(3.25, 4))


def test_the_mean_is_by_default_that_at_the_center():
    photo_calib = make_photo_calib()
    assert photo_calib.mean == photo_calib.field.center
    assert photo_calib.box == BOX
    assert PhotoCalib(photo_calib.field, mean=3, err=1).mean == 3
    assert pickle.loads(pickle.dumps(photo_calib)) == photo_calib
    assert tokenize(make_photo_calib()) == tokenize(photo_calib)
    assert make_photo_calib(1) != photo_calib


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_a_mean_that_cannot_be(value):
    field = make_photo_calib().field
    with pytest.raises(ValueError, match="the mean of a calibration must be positive"):
        PhotoCalib(field, mean=value)
    with pytest.raises(ValueError, match="the mean of a calibration must be positive"):
        PhotoCalib(field * -1)
    if value != 0:
        with pytest.raises(ValueError, match="the error of a calibration cannot be"):
            PhotoCalib(field, err=value)
    with pytest.raises(TypeError, match="must be a ChebyshevField, got float"):
        PhotoCalib(2.0)


# A visit


def test_a_visit_is_a_mapping_sorted_by_detector():
    visit, members = make_visit()
    assert list(visit) == [3, 5, 7]
    assert len(visit) == 3
    assert dict(visit) == members
    assert 5 in visit
    assert 4 not in visit
    assert repr(visit) == "<VisitPhotoCalib of visit 42: 3 detectors, coefficients (3, 4)>"
    with pytest.raises(KeyError, match="visit 42 has no calibration of detector 4"):
        visit[4]
    assert pickle.loads(pickle.dumps(visit)) == visit
    other = VisitPhotoCalib.from_photo_calibs(43, members)
    assert other != visit


def test_members_may_differ_in_order():
    members = {1: make_photo_calib(order=(1, 1)), 2: make_photo_calib(order=(2, 5))}
    visit = VisitPhotoCalib.from_photo_calibs(42, members)
    assert visit.coefficients.shape == (2, 2, 5)
    x, y = np.random.default_rng(1).uniform(0, 49, (2, 9))
    for detector, member in members.items():
        np.testing.assert_allclose(
            visit[detector].calibration(x, y), member.calibration(x, y), rtol=1e-14
        )


@pytest.mark.parametrize("n", [1, 50, 20000])
def test_mixed_detectors_are_as_one_after_the_other(n):
    visit, members = make_visit()
    rng = np.random.default_rng(2)
    detector = rng.choice([3, 5, 7], n)
    inst, err, x, y = rng.uniform(1, 50, (4, n))
    factor = visit.calibration(detector, x, y)
    flux, flux_err = visit.to_nanojansky(inst, err, detector=detector, x=x, y=y)
    mag, mag_err = visit.to_magnitude(inst, err, detector=detector, x=x, y=y)
    for i, member in members.items():
        own = detector == i
        at = {"x": x[own], "y": y[own]}
        np.testing.assert_allclose(factor[own], member.calibration(**at), rtol=1e-13)
        one, one_err = member.to_nanojansky(inst[own], err[own], **at)
        np.testing.assert_allclose(flux[own], one, rtol=1e-13)
        np.testing.assert_allclose(flux_err[own], one_err, rtol=1e-13)
        one, one_err = member.to_magnitude(inst[own], err[own], **at)
        np.testing.assert_allclose(mag[own], one, rtol=1e-13)
        np.testing.assert_allclose(mag_err[own], one_err, rtol=1e-13)


def test_detectors_and_positions_are_broadcast():
    visit, members = make_visit()
    table = visit.calibration([[3], [7]], [1.0, 2.0, 3.0], 5)
    assert table.shape == (2, 3)
    np.testing.assert_allclose(table[1], members[7].calibration([1, 2, 3], 5), rtol=1e-14)
    assert visit.calibration(3, 1.0, 2.0).shape == ()
    assert visit.calibration(np.array([], int), [], []).shape == (0,)
    with pytest.raises(KeyError, match="visit 42 has no calibration of detectors 1, 9"):
        visit.calibration([3, 9, 1, 9], 0, 0)


def test_wrong_stacks_are_named():
    good = {
        "detectors": [1, 2],
        "boxes": [BOX, BOX],
        "coefficients": np.ones((2, 1, 1)),
        "mean": [1, 1],
        "err": [0, 0],
    }
    VisitPhotoCalib(42, **good)
    wrong = {
        "mean are of 1 and detectors 2": {"mean": [1]},
        r"got \(2, 4\), \(2, 1\) and \(2,\)": {"coefficients": np.ones((2, 1))},
        "detector 1 with more than one calibration": {"detectors": [1, 1]},
        "detector 2 with an empty box": {"boxes": [BOX, Box(0, 0, 0, 4)]},
        "detector 1 with coefficients that are not": {"coefficients": [[[np.nan]], [[1]]]},
        "detectors 1, 2 with a mean that is not positive": {"mean": [np.nan, 0]},
        "detector 2 with an error that cannot be": {"err": [0, -1]},
    }
    for message, parts in wrong.items():
        with pytest.raises(ValueError, match=f"visit 42: .*{message}"):
            VisitPhotoCalib(42, **good | parts)


# Tables


@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
@pytest.mark.parametrize("kind", [Table, QTable])
def test_tables_come_back(tmp_path, suffix, kind):
    visit, _ = make_visit()
    table = visit.to_table()
    assert table["detector"].tolist() == [3, 5, 7]
    assert table["x_min", "y_min", "x_max", "y_max"][1].as_void().tolist() == (-10, 4, 9, 33)
    assert [str(table[name].unit) for name in ("mean", "err", "coefficients", "zpt")] == [
        "nJy", "nJy", "nJy", "mag"
    ]  # fmt: skip
    np.testing.assert_allclose(
        table["zpt"], visit.to_magnitude(1.0, detector=[3, 5, 7], **centers())
    )
    assert VisitPhotoCalib.from_table(table) == visit
    table.write(tmp_path / f"a.{suffix}")
    assert VisitPhotoCalib.from_table(kind.read(tmp_path / f"a.{suffix}")) == visit


def centers():
    _, members = make_visit()
    x, y = np.transpose([members[i].box.center for i in (3, 5, 7)])
    return {"x": x, "y": y}


def test_tables_in_other_units_are_converted():
    visit, _ = make_visit()
    table = visit.to_table()
    table["mean"] = table["mean"] / 1000
    table["mean"].unit = "uJy"
    np.testing.assert_allclose(VisitPhotoCalib.from_table(table).mean, visit.mean)
    table["mean"].unit = "mag"
    with pytest.raises(ValueError, match="mean of visit 42 is in mag, which is no nJy, "):
        VisitPhotoCalib.from_table(table)


def test_wrong_tables_are_named():
    table = make_visit()[0].to_table()
    table["visit"][1] = 43
    with pytest.raises(ValueError, match=r"has rows of \[42, 43\]"):
        VisitPhotoCalib.from_table(table)
    table = make_visit()[0].to_table()
    table.remove_columns(["err", "x_max"])
    with pytest.raises(ValueError, match=r"lacks the columns \['err', 'x_max'\]"):
        VisitPhotoCalib.from_table(table)
    table = Table(make_visit()[0].to_table(), masked=True)
    table["mean"].mask[1] = True
    with pytest.raises(ValueError, match="column mean of the table has masked values"):
        VisitPhotoCalib.from_table(table)


def test_off_the_detector_there_is_no_calibration():
    field = ChebyshevField(Box(0, 0, 100, 50), [[2.0, 0.5]])
    single = PhotoCalib(field, err=0.02)
    visit = VisitPhotoCalib.from_photo_calibs(42, {7: single})
    at = {"x": [50.0, 104.4, 104.6, -5.6, 50.0, np.nan], "y": [20.0, 20.0, 20.0, 20.0, 1e4, 20.0]}
    for calib, own in ((single, {}), (visit, {"detector": 7})):
        inside = np.isfinite(calib.calibration(**own, **at))
        assert inside.tolist() == [True, True, False, False, False, False]
        for method in (calib.to_nanojansky, calib.to_magnitude):
            for values in method(100.0, 3.0, **own, **at):
                np.testing.assert_array_equal(np.isfinite(values) | ~inside, True)
            assert np.isnan(method(100.0, **own, **at)[~inside]).all()
        strict = np.isfinite(calib.calibration(**own, **at, margin=0))
        assert strict.tolist() == [True, *[False] * 5]
        everywhere = calib.calibration(**own, **at, margin=np.inf)
        np.testing.assert_allclose(everywhere, field(**at), rtol=1e-14)
        for margin in (-1, np.nan):
            with pytest.raises(ValueError, match="margin is a number of pixels, at least 0"):
                calib.calibration(**own, **at, margin=margin)


def test_fluxes_and_errors_are_in_one_unit():
    single = PhotoCalib(ChebyshevField(Box(0, 0, 100, 50), [[2.0]]))
    at = {"x": 50, "y": 20}
    assert single.to_nanojansky(3 * u.electron, 40 * u.electron, **at)[1] == 80
    assert single.to_nanojansky(3 * u.ct / u.s, **at) == 6
    with pytest.raises(
        u.UnitConversionError, match="inst_flux_err is in adu, which is no electron"
    ):
        single.to_nanojansky(3 * u.electron, 40 * u.adu, **at)
    with pytest.raises(
        u.UnitConversionError, match="inst_flux is in uJy: it is calibrated already"
    ):
        single.to_magnitude(3 * u.uJy, **at)

"""Calibrating exposures, through the engine."""

from __future__ import annotations

import pickle

import dask
import numpy as np
import pytest
from astropy.io import fits
from dask.base import tokenize

from calibration import ChebyshevField, PhotoCalib
from calibration.photocalib.flux import Calibrate
from mapreduce import Box, Exposure
from tests.support import make_exposure, unread

BOX = Box(0, -20, 60, 50)


def make_photo_calib(box=BOX, err=0.1):
    coefficients = np.random.default_rng(3).normal(0, 0.1, (4, 3))
    coefficients[0, 0] = 3
    return PhotoCalib(ChebyshevField(box, coefficients), err=err)


def expected(exposure, photo_calib, include_error=False):
    """Return image and variance in double precision."""
    box = exposure.bbox
    y, x = np.mgrid[box.y0 : box.y1, box.x0 : box.x1]
    factor = photo_calib.calibration(x, y)
    image = exposure.image.astype("f8") * factor
    variance = exposure.variance.astype("f8") * factor**2
    if include_error:
        variance += image**2 * (photo_calib.err / photo_calib.mean) ** 2
    return image, variance


@pytest.mark.parametrize("tile", [None, 16, (7, 30)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("include_error", [False, True])
def test_planes_are_scaled(dtype, include_error, tile):
    exposure = make_exposure(dtype=dtype)
    photo_calib = make_photo_calib()
    lazy = photo_calib.calibrate(exposure, include_error=include_error, tile=tile)
    assert dask.is_dask_collection(lazy)
    result = lazy.compute()
    image, variance = expected(exposure, photo_calib, include_error)
    rtol = 3e-7 if dtype == "f4" else 1e-14
    np.testing.assert_allclose(result.image, image, rtol=rtol)
    np.testing.assert_allclose(result.variance, variance, rtol=4e-7)
    np.testing.assert_array_equal(result.mask, exposure.mask)
    assert (result.image.dtype, result.variance.dtype) == (exposure.image.dtype, np.float32)
    assert (result.bbox, result.mask_planes) == (exposure.bbox, exposure.mask_planes)
    assert result.psf == exposure.psf


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_files_chunks_and_schedulers_make_no_difference(dtype):
    exposure = make_exposure(300, 200, origin=(0, 0), dtype=dtype)
    photo_calib = make_photo_calib(Box(0, 0, 300, 200))
    lazy = photo_calib.calibrate(exposure, tile=64)
    one = lazy.compute(scheduler="synchronous")
    for other in (
        lazy.compute(scheduler="threads", num_workers=4),
        photo_calib.calibrate(unread(exposure), tile=64).compute(),
        photo_calib.calibrate(exposure.chunk(50), tile=64).compute(),
    ):
        np.testing.assert_array_equal(other.image, one.image)
        np.testing.assert_array_equal(other.variance, one.variance)


@pytest.mark.slow
def test_it_runs_on_a_cluster(client):
    exposure, photo_calib = make_exposure(), make_photo_calib()
    result = photo_calib.calibrate(exposure, tile=16).compute()
    np.testing.assert_allclose(result.image, expected(exposure, photo_calib)[0], rtol=3e-7)


def test_missing_values_stay_what_they_are():
    image = np.array([[1, np.nan, 1, 0, np.inf, 1]], "f4")
    variance = np.array([[1, 1, np.nan, np.inf, 1, 1]], "f4")
    exposure = Exposure(image, variance, np.arange(6, dtype="i4")[None], meta={"BUNIT": "adu"})
    result = make_photo_calib().calibrate(exposure).compute()
    np.testing.assert_array_equal(np.isfinite(result.image), np.isfinite(image))
    np.testing.assert_array_equal(np.isnan(result.variance), np.isnan(variance))
    np.testing.assert_array_equal(result.mask, exposure.mask)
    assert result.mask_planes == exposure.mask_planes


def test_planes_that_are_not_there():
    photo_calib = make_photo_calib()
    exposure = Exposure(np.full((3, 4), 7, "u2"))
    result = photo_calib.calibrate(exposure).compute()
    assert result.variance is None
    assert result.image.dtype == np.float32
    y, x = np.mgrid[:3, :4]
    np.testing.assert_allclose(result.image, 7 * photo_calib.calibration(x, y), rtol=3e-7)
    with pytest.raises(ValueError, match="include_error adds to the variance"):
        photo_calib.calibrate(exposure, include_error=True)


@pytest.mark.parametrize("kind", [dict, fits.Header])
def test_the_header_says_the_unit(kind):
    exposure = make_exposure().replace(meta=kind({"BUNIT": "adu", "OBJECT": "M 1"}))
    lazy = make_photo_calib().calibrate(exposure)
    for result in (lazy, lazy.compute()):
        assert result.meta["BUNIT"] == "nJy"
        assert result.meta["OBJECT"] == "M 1"
    assert exposure.meta["BUNIT"] == "adu"
    with pytest.raises(ValueError, match="in nJy already"):
        make_photo_calib().calibrate(lazy)


@pytest.mark.parametrize("unit", ["", "adu", "ADU", "electron/s", "counts", "e-", "DN"])
def test_images_in_instrumental_flux_are_calibrated(unit):
    exposure = make_exposure().replace(meta={"BUNIT": unit})
    assert make_photo_calib().calibrate(exposure).meta["BUNIT"] == "nJy"


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("nanoJansky", "in nanoJansky already"),
        ("10**-9 Jy", "already"),
        ("njy", "already"),
        ("Jy", "already"),
        ("MJy/sr", "no instrumental flux; .*BUNIT"),
        ("kct", "no instrumental flux; .*BUNIT"),
        ("10 adu", "no instrumental flux; .*BUNIT"),
        ("mag", "no instrumental flux"),
        ("furlong", 'not known; .* exposure.meta\\["BUNIT"\\] = "adu"'),
    ],
)
def test_images_in_any_other_unit_are_refused(unit, message):
    exposure = make_exposure().replace(meta={"BUNIT": unit})
    with pytest.raises(ValueError, match=message):
        make_photo_calib().calibrate(exposure)


def test_exposures_beyond_the_calibration_are_refused():
    photo_calib = make_photo_calib()
    photo_calib.calibrate(Exposure(np.ones(BOX.shape), origin=(BOX.x0, BOX.y0)))
    with pytest.raises(ValueError, match=r"covers Box\(x0=1, .* the calibration Box\(x0=0"):
        photo_calib.calibrate(Exposure(np.ones(BOX.shape), origin=(1, BOX.y0)))
    with pytest.raises(TypeError, match="only an Exposure can be calibrated, got ndarray"):
        photo_calib.calibrate(np.ones((3, 3)))


def test_the_mapper_travels():
    mapper = Calibrate(field=make_photo_calib().field, relative_err=0.1)
    again = pickle.loads(pickle.dumps(mapper))
    assert again == mapper
    assert tokenize(again) == tokenize(mapper)
    exposure = make_exposure().chunk(16)
    names = {make_photo_calib().calibrate(exposure).__dask_layers__() for _ in range(2)}
    assert len(names) == 1

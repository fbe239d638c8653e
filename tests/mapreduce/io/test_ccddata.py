"""Exposures as CCDData and back."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.wcs import WCS

from mapreduce import Exposure, GaussianPsf, MaskPlanes, read_exposure
from mapreduce.exposure.wcs import same_wcs
from mapreduce.io.ccddata import from_ccddata, to_ccddata

IMAGE = np.arange(6.0).reshape(2, 3)
PLANES = MaskPlanes({"BAD": 4, "DETECTED": 0, "MINE": 9})
MASK = np.array([[0, 1, 16], [512, 513, 0]], np.int32)


def make(**parts):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (10, 20), (3, 4), (1e-4, 1e-4)
    wcs.wcs.set()
    meta = fits.Header({"BUNIT": "ADU", "EXPTIME": 30.0})
    parts = {"mask": MASK, "mask_planes": PLANES, "wcs": wcs, "meta": meta} | parts
    return Exposure(IMAGE, IMAGE + 1, origin=(100, -20), **parts)


def test_to_ccddata():
    exposure = make()
    ccd = to_ccddata(exposure)
    assert ccd.unit == u.adu
    assert isinstance(ccd.uncertainty, VarianceUncertainty)
    np.testing.assert_array_equal(ccd.data, IMAGE)
    np.testing.assert_array_equal(ccd.uncertainty.array, IMAGE + 1)
    np.testing.assert_array_equal(ccd.flags, MASK)
    np.testing.assert_array_equal(ccd.mask, [[False, False, True], [True, True, False]])
    np.testing.assert_allclose(
        ccd.wcs.all_pix2world([[0, 0]], 0), exposure.wcs.all_pix2world([[100, -20]], 0)
    )
    assert ccd.meta["EXPTIME"] == 30


@pytest.mark.parametrize("bad", [None, ["DETECTED"], []])
def test_round_trip(bad):
    exposure = make()
    found = from_ccddata(to_ccddata(exposure, bad=bad))
    for name in ("image", "variance", "mask"):
        one, other = getattr(found, name), getattr(exposure, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert found.bbox == exposure.bbox
    assert found.mask_planes == exposure.mask_planes
    assert same_wcs(found.wcs, exposure.wcs)
    assert dict(found.meta) == dict(exposure.meta)


def test_bad_planes():
    mask = to_ccddata(make(), bad=["DETECTED"]).mask
    np.testing.assert_array_equal(mask, [[False, True, False], [False, True, False]])
    with pytest.raises(KeyError, match="no mask plane 'SPIKE'"):
        to_ccddata(make(), bad=["SPIKE"])


def test_lazy_and_bare_exposures():
    exposure = make()
    assert isinstance(to_ccddata(exposure.chunk(2)).data, np.ndarray)
    ccd = to_ccddata(Exposure(IMAGE), unit="nJy")
    assert (ccd.mask, ccd.flags, ccd.uncertainty, ccd.wcs, ccd.psf) == (None,) * 5
    found = from_ccddata(ccd)
    assert (found.mask, found.variance, found.wcs, found.psf) == (None,) * 4
    assert found.meta["BUNIT"] == "nJy"


def test_units():
    with pytest.raises(ValueError, match="no BUNIT; give the unit"):
        to_ccddata(Exposure(IMAGE))
    with pytest.raises(ValueError, match="unit 'furlongs' cannot be understood"):
        to_ccddata(Exposure(IMAGE, meta={"BUNIT": "furlongs"}))
    ccd = to_ccddata(Exposure(IMAGE, meta={"BUNIT": "furlongs"}), unit=u.electron)
    assert ccd.unit == u.electron
    assert from_ccddata(ccd).meta["BUNIT"] == "electron"
    assert to_ccddata(Exposure(IMAGE, meta={"BUNIT": "MJy/sr"})).unit == u.MJy / u.sr


@pytest.mark.parametrize(
    ("uncertainty", "variance"),
    [
        (VarianceUncertainty([[2.0, 0.0, np.nan]]), [[2, 0, np.nan]]),
        (StdDevUncertainty([[2.0, 0.0, np.nan]]), [[4, np.inf, np.inf]]),
        (InverseVariance([[2.0, 0.0, np.nan]]), [[0.5, np.inf, np.inf]]),
        (StdDevUncertainty([[2.0, 3.0, 4.0]], unit="kadu"), [[4e6, 9e6, 16e6]]),
    ],
)
def test_uncertainties(uncertainty, variance):
    exposure = from_ccddata(CCDData(np.ones((1, 3)), unit="adu", uncertainty=uncertainty))
    np.testing.assert_allclose(exposure.variance, variance)
    if isinstance(uncertainty, VarianceUncertainty) or not np.isinf(variance).any():
        assert exposure.mask is None
    else:
        bad = exposure.mask_planes.bitmask("BAD")
        np.testing.assert_array_equal(exposure.mask, [[0, bad, bad]])


def test_masks_of_others():
    mask = np.array([[True, False, False]])
    ccd = CCDData(np.ones((1, 3)), unit="adu", mask=mask, flags=np.array([[7, 7, 7]]))
    exposure = from_ccddata(ccd)
    np.testing.assert_array_equal(exposure.mask, mask * exposure.mask_planes.bitmask("BAD"))


@pytest.mark.parametrize("bad", [None, ["MINE", "DETECTED"]])
def test_what_was_masked_later_is_bad(bad):
    ccd = to_ccddata(make(), bad=bad)
    ccd.mask[0, 0] = True
    found = from_ccddata(ccd).mask
    assert found[0, 0] == PLANES.bitmask("BAD")
    np.testing.assert_array_equal(found.ravel()[1:], MASK.ravel()[1:])


def test_the_header_is_a_copy():
    exposure = make()
    ccd = to_ccddata(exposure)
    ccd.meta["EXPTIME"] = 1.0
    assert exposure.meta["EXPTIME"] == 30
    from_ccddata(ccd).meta["EXPTIME"] = 2.0
    assert ccd.meta["EXPTIME"] == 1


def test_psf_is_its_image_at_the_center():
    psf = GaussianPsf(1.5)
    ccd = to_ccddata(make(psf=psf))
    np.testing.assert_array_equal(ccd.psf, psf.compute_kernel_image())
    np.testing.assert_allclose(from_ccddata(ccd).psf.compute_kernel_image(), ccd.psf)


def test_what_is_not_understood():
    with pytest.raises(TypeError, match="takes a CCDData, got ndarray"):
        from_ccddata(IMAGE)
    ccd = CCDData(IMAGE, unit="adu", uncertainty=UnknownUncertainty(IMAGE))
    with pytest.raises(TypeError, match="uncertainty is UnknownUncertainty; it must be of Var"):
        from_ccddata(ccd)
    with pytest.raises(ValueError, match="cannot hold the header card 'A'"):
        from_ccddata(CCDData(IMAGE, unit="adu", meta={"A": [1]}))


def test_through_the_file_format_of_ccddata(tmp_path):
    exposure = make()
    to_ccddata(exposure).write(tmp_path / "a.fits")
    ccd = CCDData.read(tmp_path / "a.fits", unit="adu")
    found = from_ccddata(ccd)
    assert found.bbox == exposure.bbox
    np.testing.assert_array_equal(found.variance, exposure.variance)
    found = read_exposure(tmp_path / "a.fits").compute()
    np.testing.assert_array_equal(found.image, IMAGE)
    np.testing.assert_array_equal(found.variance, IMAGE + 1)


def test_the_methods_of_exposure():
    ccd = make().to_ccddata(bad=["BAD"])
    np.testing.assert_array_equal(Exposure.from_ccddata(ccd).mask, MASK)

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, Sip

from mapreduce import Box, Exposure
from mapreduce.exposure.wcs import same_wcs, shift_wcs


def make_wcs(sip=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"] if sip else ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = 150.0, 2.0
    wcs.wcs.crpix = 50.0, 60.0
    wcs.wcs.cdelt = -5e-5, 5e-5
    if sip:
        a, b = np.zeros((2, 3, 3))
        a[2, 0] = b[0, 2] = sip
        wcs.sip = Sip(a, b, None, None, (50.0, 60.0))
    wcs.wcs.set()
    return wcs


@pytest.mark.parametrize("sip", [0, 1e-4])
def test_shift_moves_pixels_not_the_sky(sip):
    wcs = make_wcs(sip)
    moved = shift_wcs(wcs, 100, -7)
    x, y = np.array([[10.0, 80.0], [3.0, 55.5]])
    np.testing.assert_allclose(
        moved.all_pix2world(x + 100, y - 7, 0), wcs.all_pix2world(x, y, 0), rtol=1e-13
    )
    assert wcs.wcs.crpix.tolist() == [50, 60]
    assert same_wcs(shift_wcs(moved, -100, 7), wcs)


def test_same_wcs():
    wcs = make_wcs()
    assert same_wcs(wcs, wcs)
    assert same_wcs(wcs, wcs.deepcopy())
    assert same_wcs(None, None)
    assert not same_wcs(wcs, None)
    assert not same_wcs(None, wcs)
    assert not same_wcs(wcs, shift_wcs(wcs, 1, 0))


def test_same_wcs_looks_at_the_distortion():
    wcs = make_wcs(sip=1e-4)
    assert same_wcs(wcs, make_wcs(sip=1e-4))
    assert not same_wcs(wcs, make_wcs(sip=2e-4))
    assert not same_wcs(wcs, shift_wcs(wcs, 1, 0))


def test_positions_on_the_sky_of_parent_and_of_array_pixels():
    header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.2}
    wcs = WCS(fits.Header(header | {"CDELT1": -2e-4, "CDELT2": 2e-4, "CRPIX1": 5.0}))
    exposure = Exposure(np.zeros((40, 30)), origin=(100, 200), wcs=wcs)
    cell = exposure.cutout(Box(110, 220, 5, 6))
    x, y = np.array([0.0, 2.5]), np.array([1.0, 4.0])
    right = wcs.pixel_to_world(110 + x, 220 + y)
    for found in (cell.sky(110 + x, 220 + y), cell.array_wcs.pixel_to_world(x, y)):
        assert found.separation(right).arcsec.max() < 1e-8
    assert cell.sky(110.0, 221.0).isscalar
    assert wcs.wcs.crpix[0] == 5
    spectrum = WCS(fits.Header({"CTYPE1": "WAVE", "CTYPE2": "LINEAR"}))
    for other, message in ((None, "has no WCS"), (spectrum, "has a WCS of WAVE, LINEAR")):
        with pytest.raises(ValueError, match=f"{message}, and no place on the sky"):
            exposure.replace(wcs=other).sky(1, 2)
    assert exposure.replace(wcs=None).array_wcs is None


def test_positions_in_another_unit_are_refused():
    wcs = WCS(fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0}))
    exposure = Exposure(np.zeros((4, 3)), wcs=wcs)
    assert exposure.sky(1 * u.pix, 2.0).separation(exposure.sky(1, 2)).deg == 0
    for x, y in ((1 * u.deg, 2), (1, [2.0] * u.m)):
        with pytest.raises(u.UnitConversionError, match="which is no pix"):
            exposure.sky(x, y)

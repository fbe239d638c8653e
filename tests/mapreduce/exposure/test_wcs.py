import numpy as np
import pytest
from astropy.wcs import WCS, Sip

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

"""Pixel -> focal plane -> field angle -> sky, against astropy's WCS and the formulas by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, Sip
from dask.base import tokenize

from calibration.camera.detector import Detector, WcsDetector
from calibration.camera.focal_plane import Boresight, RadialTransform
from mapreduce import Box

BORESIGHT = Boresight(150.0, -30.0, 37.0)
RADIAL = RadialTransform(1e-4, (0.0, 1.0, 0.0, -8e-9, 0.0, -1.4e-13))


def make_detector(**changes):
    parts = {
        "id": 5,
        "name": "S5",
        "type": "SCIENCE",
        "box": Box(0, 0, 2000, 1000),
        "refpos": (999.5, 499.5),
        "offset": (-120.0, 200.0),
        "yaw": 30.0,
        "pixel_size": (0.01, 0.01),
        "transform": RADIAL,
    }
    return Detector(**parts | changes)


def exact_wcs(detector, boresight):
    """Build the TAN-SIP WCS that is a detector with c1 = 1, c3 and c5: its SIP is finite.

    Its reference pixel is the one on the optical axis, so that distortion is isotropic.
    """
    pixel, yaw = detector.pixel_size[0], np.radians(detector.yaw)
    rotation = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
    center = detector.refpos - rotation.T @ detector.offset / pixel + 1
    turn = np.radians(boresight.rotation)
    to_sky = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    coeffs = dict(enumerate(detector.transform.coeffs))
    third, fifth = coeffs.get(3, 0) * pixel**2, coeffs.get(5, 0) * pixel**4
    along_x = np.zeros((6, 6))
    along_x[3, 0] = along_x[1, 2] = third
    along_x[5, 0] = along_x[1, 4] = fifth
    along_x[3, 2] = 2 * fifth
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN-SIP", "DEC--TAN-SIP"
    wcs.wcs.crval = boresight.ra, boresight.dec
    wcs.wcs.crpix = center
    wcs.wcs.cd = np.degrees(detector.transform.plate_scale) * pixel * to_sky @ rotation
    wcs.sip = Sip(along_x, along_x.T.copy(), None, None, center)
    wcs.wcs.set()
    return wcs


def area_on_sky(wcs, x, y, step=4.0):
    """Differentiate an astropy WCS numerically; area of a pixel about its center, in sr."""
    lon_e, lat_e = np.radians(wcs.all_pix2world(x + step, y, 0))
    lon_w, lat_w = np.radians(wcs.all_pix2world(x - step, y, 0))
    lon_n, lat_n = np.radians(wcs.all_pix2world(x, y + step, 0))
    lon_s, lat_s = np.radians(wcs.all_pix2world(x, y - step, 0))
    along_x = (lon_e - lon_w + np.pi) % (2 * np.pi) - np.pi, lat_e - lat_w
    along_y = (lon_n - lon_s + np.pi) % (2 * np.pi) - np.pi, lat_n - lat_s
    lat = np.radians(wcs.all_pix2world(x, y, 0)[1])
    return np.cos(lat) * abs(along_x[0] * along_y[1] - along_x[1] * along_y[0]) / (2 * step) ** 2


def pixels(box, n=15):
    """Positions over all of a box, to its corner pixels."""
    x, y = np.linspace(box.x0, box.x1 - 1, n), np.linspace(box.y0, box.y1 - 1, n)
    return (a.ravel() for a in np.meshgrid(x, y))


def test_focal_plane_by_hand():
    detector = make_detector(yaw=90.0, pixel_size=(0.01, 0.02))
    x, y = detector.to_focal_plane(
        np.array([999.5, 1099.5, 999.5]), np.array([499.5, 499.5, 599.5])
    )
    np.testing.assert_allclose(x, [-120, -120, -122], rtol=1e-14)
    np.testing.assert_allclose(y, [200, 201, 200], rtol=1e-14)
    x, y = detector.from_focal_plane(x, y)
    np.testing.assert_allclose(x, [999.5, 1099.5, 999.5])
    np.testing.assert_allclose(y, [499.5, 499.5, 599.5])


def test_field_angle_by_hand():
    transform = RadialTransform(2e-4, (0.0, 1.5, 1e-3, 1e-5))
    tx, ty = transform.to_field_angle(30.0, -40.0)
    angle = 2e-4 * (1.5 * 50 + 1e-3 * 50**2 + 1e-5 * 50**3)
    np.testing.assert_allclose([tx, ty], [0.6 * angle, -0.8 * angle], rtol=1e-14)


@pytest.mark.parametrize(
    "coeffs", [(0, 1), (0, 1.3), RADIAL.coeffs, (0, 1, 0, 6.5e-7), (0, 1, 1e-4, -1e-6)]
)
def test_the_inverse_of_the_radial_transform(coeffs):
    transform = RadialTransform(1e-4, coeffs)
    x, y = np.random.default_rng(0).uniform(-350, 350, (2, 1000))
    x[0] = y[0] = 0
    back = transform.from_field_angle(*transform.to_field_angle(x, y))
    inside = np.hypot(x, y) < 0.999 * transform.max_radius
    assert inside.sum() > 500
    np.testing.assert_allclose(np.array(back)[:, inside], [x[inside], y[inside]], 1e-11)


def test_no_inverse_where_the_field_angle_turns_back():
    transform = RadialTransform(1e-4, (0, 1, 0, -1e-6))
    assert transform.max_radius == pytest.approx(np.sqrt(1e6 / 3))
    edge, _ = transform.to_field_angle(transform.max_radius, 0.0)
    x, y = transform.from_field_angle(np.array([0.99 * edge, 1.01 * edge, 0.0, np.nan]), 0.0)
    assert np.isnan(x).tolist() == [False, True, False, True]
    assert np.isnan(y).tolist() == [False, True, False, True]
    assert 0 < x[0] < transform.max_radius
    assert RADIAL.max_radius < np.inf
    assert RadialTransform(1e-4, (0, 1, 0, 1e-6)).max_radius == np.inf


@pytest.mark.parametrize("yaw", [0.0, 90.0, 180.0, 33.0, -120.0])
@pytest.mark.parametrize("boresight", [BORESIGHT, Boresight(0.1, 85.0, 200.0)])
def test_sky_is_that_of_astropy(yaw, boresight):
    detector = make_detector(yaw=yaw)
    wcs = exact_wcs(detector, boresight)
    x, y = pixels(detector.box)
    found = SkyCoord(*detector.to_sky(x, y, boresight), unit="deg")
    expected = SkyCoord(*wcs.all_pix2world(x, y, 0), unit="deg")
    assert found.separation(expected).arcsec.max() < 1e-9
    back = detector.from_sky(expected.ra.deg, expected.dec.deg, boresight)
    np.testing.assert_allclose(back, [x, y], rtol=0, atol=1e-8)


def test_pixel_area_is_that_of_astropy():
    detector = make_detector()
    wcs = exact_wcs(detector, BORESIGHT)
    x, y = pixels(detector.box)
    # Forward differences are taken half a pixel further on, each in its own direction.
    expected = area_on_sky(wcs, x + 0.5, y + 0.5)
    np.testing.assert_allclose(detector.pixel_area(x, y), expected, rtol=1e-7)
    assert np.ptp(expected) > 1e-4 * expected.max()


def test_pixel_area_broadcasts():
    detector = make_detector()
    x, y = np.arange(4.0), np.arange(3.0)[:, None]
    area = detector.pixel_area(x, y)
    assert area.shape == (3, 4)
    assert area[1, 2] == detector.pixel_area(2.0, 1.0)
    np.testing.assert_array_equal(detector.pixel_area(x, 1.0), area[1])
    np.testing.assert_array_equal(detector.pixel_area(2.0, y), area[:, 2:3])


def test_boresight():
    step = np.radians(1e-3)
    ra, dec = Boresight(0.0, 0.0).to_sky([step, 0.0, 0.0], [0.0, step, 0.0])
    np.testing.assert_allclose(ra, [359.999, 0, 0], rtol=1e-9)
    np.testing.assert_allclose(dec, [0, 1e-3, 0], rtol=1e-9, atol=1e-15)
    # The position angle is from north through east.
    ra, dec = Boresight(10.0, 0.0, 90.0).to_sky(0.0, step)
    np.testing.assert_allclose([ra, dec], [10.001, 0], atol=1e-12)
    assert np.isnan(Boresight(0.0, 0.0).from_sky(180.0, 0.0)).all()
    assert (Boresight(0.0, 0.0).to_sky(1e-30, 0.0)[0]) == 0


def test_many_boresights_at_once():
    boresights = Boresight(np.array([10.0, 350.0]), np.array([-80.0, 80.0]), np.array([0.0, 77.0]))
    ra, dec = boresights.to_sky(0.01, -0.02)
    for k in range(2):
        one = Boresight(boresights.ra[k], boresights.dec[k], boresights.rotation[k])
        np.testing.assert_allclose(one.to_sky(0.01, -0.02), [ra[k], dec[k]])
    back = boresights.from_sky(ra, dec)
    np.testing.assert_allclose(back, [[0.01, 0.01], [-0.02, -0.02]], rtol=1e-12)


def test_corners_are_the_outer_edges_in_turn():
    detector = make_detector(box=Box(10, 20, 100, 50), transform=RadialTransform(1.0, (0, 1)))
    x, y = detector.from_field_angle(*detector.corners().T)
    np.testing.assert_allclose(x, [9.5, 109.5, 109.5, 9.5])
    np.testing.assert_allclose(y, [19.5, 19.5, 69.5, 69.5])


def make_wcs_detector(**changes):
    wcs = exact_wcs(make_detector(), BORESIGHT)
    parts = {"id": 3, "name": "", "type": "", "box": Box(0, 0, 2000, 1000), "wcs": wcs}
    return WcsDetector(**parts | {"boresight": Boresight(150.0, -29.0)} | changes)


def test_a_wcs_detector_sees_the_sky_of_its_wcs():
    detector = make_wcs_detector()
    x, y = pixels(detector.box)
    sky = detector.wcs.all_pix2world(x, y, 0)
    found = detector.to_sky(x, y, detector.boresight)
    np.testing.assert_allclose(found, sky, rtol=1e-13)
    np.testing.assert_allclose(detector.from_sky(*sky, detector.boresight), [x, y], atol=1e-6)
    elsewhere = Boresight(20.0, 50.0, 10.0)
    back = detector.from_sky(*detector.to_sky(x, y, elsewhere), elsewhere)
    np.testing.assert_allclose(back, [x, y], atol=1e-6)
    np.testing.assert_allclose(detector.pixel_area(x, y), make_detector().pixel_area(x, y), 2e-9)


def test_a_wcs_may_have_declination_first():
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ("DEC--TAN", "RA---TAN"), (20, 10), (1e-4, 1e-4)
    detector = make_wcs_detector(wcs=wcs, boresight=Boresight(10.0, 20.0))
    x, y = np.array([0.0, 30.0]), np.array([5.0, -2.0])
    dec, ra = wcs.all_pix2world(x, y, 0)
    np.testing.assert_allclose(detector.to_sky(x, y, detector.boresight), [ra, dec], rtol=1e-13)
    np.testing.assert_allclose(detector.from_sky(ra, dec, detector.boresight), [x, y], atol=1e-6)


def test_nan_where_the_wcs_has_no_inverse():
    detector = make_wcs_detector()
    assert np.isnan(detector.from_sky(150.0, 60.0, detector.boresight)).all()
    x, y = detector.from_sky([150.0, np.nan], [-30.0, -30.0], detector.boresight)
    assert np.isnan(x).tolist() == np.isnan(y).tolist() == [False, True]


@pytest.mark.parametrize("make", [make_detector, make_wcs_detector])
def test_detectors_travel(make):
    detector = make()
    copy = pickle.loads(pickle.dumps(detector))
    # Astropy writes a WCS with fewer digits than it has.
    assert copy.pixel_area(7, 8) == pytest.approx(detector.pixel_area(7, 8), rel=1e-8)
    assert tokenize(make()) == tokenize(detector)
    assert tokenize(make(box=Box(0, 0, 9, 9))) != tokenize(detector)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"id": 1.5}, TypeError, "id of a detector is an integer, got 1.5"),
        ({"box": (0, 0, 3, 3)}, TypeError, "box must be a mapreduce.Box, got tuple"),
        ({"box": Box(0, 0, 3, 0)}, ValueError, "detector 5 has no pixels"),
        ({"yaw": np.nan}, ValueError, "detector 5 needs finite numbers .* yaw=nan"),
        ({"offset": (0.0, np.inf)}, ValueError, r"offset=\(0.0, inf\)"),
        ({"pixel_size": (0.01, 0.0)}, ValueError, "pixels of positive size"),
        ({"transform": 1e-4}, TypeError, "must be a RadialTransform, got 0.0001"),
    ],
)
def test_wrong_detectors(changes, error, message):
    with pytest.raises(error, match=message):
        make_detector(**changes)


def test_wrong_optics():
    with pytest.raises(ValueError, match="plate scale must be positive, got -1"):
        RadialTransform(-1, (0, 1))
    for coeffs in [(), (0,), (1e-3, 1), (0, -1), (0, 1, np.nan)]:
        with pytest.raises(ValueError, match="radial coefficients must be finite numbers"):
            RadialTransform(1e-4, coeffs)
    with pytest.raises(ValueError, match="degrees from -90 to 90, got 91"):
        Boresight(0.0, 91.0)


def test_a_wrong_wcs():
    with pytest.raises(TypeError, match="detector 3 needs a WCS or a FITS header, got str"):
        make_wcs_detector(wcs="TAN")
    with pytest.raises(ValueError, match="detector 3 must have two celestial axes"):
        make_wcs_detector(wcs=WCS(naxis=2))

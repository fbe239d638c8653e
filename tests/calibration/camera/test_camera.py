"""Cameras: real geometries, real headers, and the areas of their pixels."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table
from astropy.wcs import WCS
from dask.base import tokenize

from calibration.camera.camera import Camera
from calibration.camera.detector import Detector
from calibration.camera.focal_plane import Boresight
from calibration.fields.chebyshev import ChebyshevField
from mapreduce import Box
from tests.calibration.camera.test_detector import area_on_sky, exact_wcs, pixels
from tests.conftest import DATA

SIMCAM = DATA / "simcam.ecsv"  # the camera of a simulated survey
LSSTCAM = DATA / "lsstcam_part.ecsv"  # some detectors of LSSTCam, from corner to corner
REFERENCE = Boresight(180.0, 0.0)


@pytest.fixture(scope="module")
def simcam():
    return Camera.open(SIMCAM)


def change(**columns):
    """Return the table of the simulated survey's camera with columns changed; None removes one."""
    table = Table.read(SIMCAM, format="ascii.ecsv")
    for name, values in columns.items():
        if values is None:
            table.remove_column(name)
        else:
            table[name] = values
    return table


def distortion(**changes):
    """Return the same table with another transform."""
    table = change()
    table.meta["transforms"]["FieldAngle"] |= changes
    return table


def worst_area(camera, *, detectors=None):
    """Compare all pixel-area fields with astropy: the largest relative difference.

    Astropy gets each detector as a TAN-SIP WCS and is differentiated numerically.
    """
    wcs = {detector.id: exact_wcs(detector, REFERENCE) for detector in camera.values()}
    centers = [area_on_sky(wcs[d.id], *np.array(d.box.center)) for d in camera.values()]
    unit = np.median(np.sqrt(centers)) ** 2
    worst = 0.0
    for detector in camera.values():
        x, y = pixels(detector.box)
        ratio = camera.pixel_area_field(detector.id)(x, y) * unit
        worst = max(worst, abs(ratio / area_on_sky(wcs[detector.id], x, y) - 1).max())
    return worst


# Geometry


def test_open(simcam):
    assert list(simcam) == simcam.ids.tolist() == list(range(8))
    assert simcam.ids.dtype == np.int64
    detector = simcam[np.int64(5)]
    assert (detector.id, detector.name, detector.type) == (5, "S11", "SCIENCE")
    assert detector.box == Box(0, 0, 2048, 4096)
    assert detector.refpos == (1023.5, 2047.5)
    assert detector.yaw == 180
    assert detector.pixel_size == (0.015, 0.015)
    assert simcam.pixel_scale == pytest.approx(0.25, rel=5e-3)
    assert repr(simcam) == "Camera('SimCam8', 8 detectors, ids from 0 to 7)"
    assert simcam.boresight is None


def test_camera_order_is_that_of_the_rows():
    table = change()[[3, 1, 6]]
    camera = Camera.from_table(table)
    assert list(camera) == [3, 1, 6]
    fields = [camera.pixel_area_field(n).coefficients for n in (3, 1, 6)]
    np.testing.assert_array_equal(camera.area_coefficients(), fields)


def test_units_are_converted(simcam):
    table = QTable(change())
    for name in ("offset_x", "offset_y", "pixel_x", "pixel_y"):
        table[name] = table[name].to(u.um)
    table["yaw"] = table["yaw"].to(u.rad)
    np.testing.assert_allclose(Camera.from_table(table).corners(), simcam.corners(), rtol=1e-12)
    bare = change()
    for column in bare.columns.values():
        column.unit = None
    assert Camera.from_table(bare) == simcam


def test_write_and_open(simcam, tmp_path):
    path = tmp_path / "camera.ecsv"
    simcam.write(path)
    again = Camera.open(path)
    assert again.name == "SimCam8"
    assert list(again) == list(simcam)
    assert [d.name for d in again.values()] == [d.name for d in simcam.values()]
    np.testing.assert_allclose(again.corners(), simcam.corners(), rtol=1e-14)
    with pytest.raises(FileExistsError, match="camera.ecsv exists"):
        simcam.write(path)
    part = simcam.select([7, 2])
    part.write(path, overwrite=True)
    assert Camera.open(path).pixel_scale == part.pixel_scale
    assert [file.name for file in tmp_path.iterdir()] == ["camera.ecsv"]


def test_select_keeps_order_and_scale(simcam):
    part = simcam.select([7, 2])
    assert list(part) == [2, 7]
    assert part.pixel_area_field(7) == simcam.pixel_area_field(7)
    assert list(simcam.select(lambda detector: detector.yaw == 0)) == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="there is no detector 9"):
        simcam.select([9])


def test_a_whole_camera_at_once(simcam):
    detector = np.array([[7, 0], [3, 7]])
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 20.0])
    tx, ty = simcam.to_field_angle(detector, x, y)
    ra, dec = simcam.to_sky(detector, x, y, REFERENCE)
    for i, j in np.ndindex(2, 2):
        one = simcam[detector[i, j]]
        np.testing.assert_allclose(one.to_field_angle(x[i, j], y[j]), (tx[i, j], ty[i, j]), 1e-14)
        np.testing.assert_allclose(one.to_sky(x[i, j], y[j], REFERENCE), (ra[i, j], dec[i, j]))
    with pytest.raises(KeyError, match="no detector 8 in Camera.*ids from 0 to 7"):
        simcam.to_field_angle([0, 8], 1, 1)


def test_locate(simcam):
    rng = np.random.default_rng(0)
    detector, x, y = (
        rng.integers(0, 8, 500),
        rng.uniform(-0.4, 2047, 500),
        rng.uniform(0, 4095, 500),
    )
    angles = simcam.to_field_angle(detector, x, y)
    found, found_x, found_y = simcam.locate(*angles)
    np.testing.assert_array_equal(found, detector)
    np.testing.assert_allclose([found_x, found_y], [x, y], atol=1e-7)
    # Between the detectors, just beyond an edge, and not at all.
    beyond = [simcam[0].to_field_angle(x, y) for x, y in [(2050, 5), (-0.51, 5), (9, 4095.51)]]
    tx, ty = np.array([*beyond, (np.nan, 0.0)]).T
    found, found_x, found_y = simcam.locate(tx, ty)
    assert found.tolist() == [-1] * 4
    assert np.isnan(found_x).all()
    assert np.isnan(found_y).all()


def test_corners(simcam):
    corners = np.degrees(simcam.corners()) * 3600
    assert corners.shape == (8, 4, 2)
    width = np.hypot(*(corners[:, 1] - corners[:, 0]).T)
    np.testing.assert_allclose(width, 0.25 * 2048, rtol=0.01)
    # Detectors of the upper row are upside down.
    assert (corners[:4, 1, 0] > corners[:4, 0, 0]).all()
    assert (corners[4:, 1, 0] < corners[4:, 0, 0]).all()


def test_cameras_travel(simcam):
    camera = Camera.open(SIMCAM)
    token = tokenize(camera)
    camera.area_coefficients()
    copy = pickle.loads(pickle.dumps(camera))
    assert token == tokenize(camera) == tokenize(copy)
    assert copy == camera == simcam
    np.testing.assert_array_equal(copy.area_coefficients(), simcam.area_coefficients())
    assert tokenize(simcam.select([1])) != token


# Pixel areas


# Forward differences are those of half a pixel further on: 3e-7 for LSSTCam, 5e-6 for the other,
# whose distortion is strong.
@pytest.mark.parametrize(("path", "limit"), [(SIMCAM, 1e-5), (LSSTCAM, 5e-7)])
def test_pixel_area_is_that_of_astropy(path, limit):
    camera = Camera.open(path)
    assert worst_area(camera) < limit
    assert np.ptp(camera.area_coefficients()[:, 0, 0]) > 3e-3


def test_pixel_area_of_all_of_lsstcam(shared):
    camera = Camera.open(shared / "data/cameras/lsstcam.ecsv")
    assert len(camera) == 189
    assert worst_area(camera) < 5e-7


def test_pixel_area_of_turned_detectors():
    table = change(yaw=np.linspace(-170, 200, 8) * u.deg)
    assert worst_area(Camera.from_table(table)) < 1e-5


def test_pixel_area_is_the_fit_on_the_grid(simcam):
    detector = simcam[3]
    x, y = np.linspace(0, 2047, 100), np.linspace(0, 4095, 100)[:, None]
    area = detector.pixel_area(x, y) / np.radians(simcam.pixel_scale / 3600) ** 2
    expected = ChebyshevField.fit(detector.box, x, y, area, order=(3, 3))
    found = simcam.pixel_area_field(3)
    assert found.box == detector.box
    np.testing.assert_allclose(found.coefficients, expected.coefficients, rtol=0, atol=1e-12)


def test_pixel_areas_are_relative_to_the_median_scale(simcam):
    scales = [np.sqrt(d.pixel_area(*d.box.center)) for d in simcam.values()]
    assert simcam.pixel_scale == pytest.approx(np.degrees(np.median(scales)) * 3600, rel=1e-12)
    twice = Camera(simcam.values(), pixel_scale=2 * simcam.pixel_scale)
    np.testing.assert_allclose(twice.area_coefficients() * 4, simcam.area_coefficients())


def test_pixel_areas_are_computed_once_and_read_only(simcam):
    assert simcam.pixel_area_field(0) is simcam.pixel_area_field(0)
    assert simcam.area_coefficients() is simcam.area_coefficients()
    with pytest.raises(ValueError, match="read-only"):
        simcam.area_coefficients()[0] = 1


# Observations of a simulated survey, which another program made


def offsets(camera, table):
    """Return by how much the camera misses the observed positions, in arcsec (east, north)."""
    ra, dec, x, y = (table[name].data for name in ("ra", "dec", "x", "y"))
    pointing = Boresight(*(table[name].data for name in ("telra", "teldec", "telrot")))
    found_ra, found_dec = camera.to_sky(table["detector"].data, x, y, pointing)
    east = (found_ra - ra + 180) % 360 - 180
    return 3600 * np.array([east * np.cos(np.radians(dec)), found_dec - dec])


def area_ratios(camera, table):
    """Return the pixel area over that of the observations, times what the latter leave out.

    Theirs is the area in the tangent plane, which on the sky is smaller by cos^3 of the distance
    to the boresight.
    """
    ratios = np.empty((2, len(table)))
    for number, detector in camera.items():
        here = table["detector"] == number
        x, y, theirs = (table[name].data[here] for name in ("x", "y", "jacobian"))
        tx, ty = detector.to_field_angle(x, y)
        plane = detector.pixel_area(x - 0.5, y - 0.5) * (1 + tx**2 + ty**2) ** 1.5
        ratios[0, here] = camera.pixel_area_field(number)(x, y) / theirs
        ratios[1, here] = plane / theirs / np.radians(camera.pixel_scale / 3600) ** 2
    return ratios


def check_observations(camera, table):
    missed = offsets(camera, table)
    # Positions have errors of 5 mas and pixels are rounded to 1/16 (4.5 mas).
    expected = np.hypot(0.005, 0.25 / 16 / np.sqrt(12))
    np.testing.assert_allclose(missed.std(axis=1), expected, rtol=0.02 + 2 / np.sqrt(len(table)))
    assert abs(missed).max() < 6 * expected
    assert abs(missed.mean(axis=1)).max() < 4 * expected / np.sqrt(len(table))
    fitted, exact = area_ratios(camera, table)
    assert abs(fitted - 1).max() < 7e-5
    assert np.ptp(exact) < 3e-6
    assert abs(exact - 1).max() < 4e-5


def test_observations(simcam):
    table = Table.read(DATA / "simcam_observations.ecsv", format="ascii.ecsv")
    check_observations(simcam, table)


def test_all_observations(simcam, shared):
    parquet = pytest.importorskip("pyarrow.parquet")
    run = shared / "data/fgcm_run"
    names = ["visit", "detector", "x", "y", "ra", "dec", "jacobian"]
    rows = parquet.read_table(run / "fgcmStarObservations.parquet", columns=names)
    table = Table({name: rows[name].to_numpy() for name in names})
    visits = fits.getdata(run / "fgcmVisitCatalog.fits", 1)
    where = np.searchsorted(visits["visit"], table["visit"])
    for name in ("telra", "teldec", "telrot"):
        table[name] = visits[name].astype(float)[where]
    check_observations(simcam, table)


# Headers


def read_headers(*names):
    cards = json.loads((DATA / "wcs_headers.json").read_text())
    return {number: fits.Header(cards[name]) for number, name in enumerate(names, start=20)}


@pytest.mark.filterwarnings("ignore::astropy.wcs.FITSFixedWarning")
@pytest.mark.parametrize(
    # 90Prime's distortion is too steep for 3 x 3 terms over all of a detector.
    ("names", "size", "limit"),
    [(("S4", "S9"), (2046, 4094), 2e-5), (("ccd2", "ccd3"), (4032, 4096), 1e-4)],
)
def test_from_wcs_of_real_headers(names, size, limit):
    headers = read_headers(*names)
    boxes = {number: Box(-50, 30, *size) for number in headers}
    camera = Camera.from_wcs(headers, boxes, name="real")
    assert [(d.id, d.name) for d in camera.values()] == list(zip((20, 21), names, strict=True))
    scales = []
    for number, header in headers.items():
        wcs = WCS(header)
        x, y = pixels(boxes[number])
        expected = area_on_sky(wcs, x, y)
        scales.append(np.sqrt(area_on_sky(wcs, *np.array(boxes[number].center))))
        found = camera.pixel_area_field(number)(x, y) * np.radians(camera.pixel_scale / 3600) ** 2
        np.testing.assert_allclose(found, expected, rtol=limit)
        exact = camera[number].pixel_area(x - 0.5, y - 0.5)
        np.testing.assert_allclose(exact, expected, rtol=limit / 10)
        ra, dec = camera[number].to_sky(x, y, camera.boresight)
        np.testing.assert_allclose([ra, dec], wcs.all_pix2world(x, y, 0), rtol=1e-12)
    assert np.radians(camera.pixel_scale / 3600) == pytest.approx(np.median(scales), rel=limit / 10)


def test_from_wcs_is_the_camera_of_a_table(simcam):
    """One camera, known by its geometry or by its WCS in an exposure."""
    pointing = Boresight(33.0, -12.0, 71.0)
    headers = {d.id: exact_wcs(d, pointing) for d in simcam.values()}
    camera = Camera.from_wcs(headers, {d.id: d.box for d in simcam.values()})
    assert camera.pixel_scale == pytest.approx(simcam.pixel_scale, rel=1e-8)
    areas = camera.area_coefficients(), simcam.area_coefficients()
    np.testing.assert_allclose(*areas, rtol=0, atol=1e-8)
    detector = np.arange(8)
    x, y = np.linspace(0, 2000, 8), np.linspace(4000, 0, 8)
    sky = camera.to_sky(detector, x, y, camera.boresight)
    np.testing.assert_allclose(sky, simcam.to_sky(detector, x, y, pointing), rtol=1e-12)
    found, found_x, found_y = camera.locate(*camera.to_field_angle(detector, x, y))
    np.testing.assert_array_equal(found, detector)
    np.testing.assert_allclose([found_x, found_y], [x, y], atol=1e-6)
    with pytest.raises(ValueError, match="one radial transform"):
        camera.to_table()
    assert tokenize(pickle.loads(pickle.dumps(simcam))) == tokenize(simcam)


def test_the_size_of_a_detector_is_that_of_its_header():
    camera = Camera.from_wcs(read_headers("S4", "S9"))
    assert [d.box for d in camera.values()] == [Box(0, 0, 100, 100), Box(0, 0, 101, 101)]


# Errors


def test_an_unknown_detector(simcam):
    with pytest.raises(KeyError, match=r"no detector 'S00' in Camera\('SimCam8', .* from 0 to 7"):
        simcam["S00"]
    with pytest.raises(KeyError, match="no detector 8"):
        simcam.pixel_area_field(8)
    assert 8 not in simcam
    assert simcam.get(8) is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (change(yaw=None, width=None), "column width is missing; column yaw is missing"),
        (change(id=[0, 1, 2, 3, 4, 5, 1, 0]), r"unique, found more than once: \[0, 1\]"),
        (change(id=np.arange(8) + 0.5), "column id must be a whole number, row 0 has 0.5"),
        (change(name=None, offset_x=np.nan * u.mm), "name is missing; column offset_x must be fin"),
        (change(width=[9, 9, -1, 0, 9, 9, 9, 9]), "width must be a whole .* row 2 has -1"),
        (change(pixel_y=0.0 * u.mm), "pixel_y must be finite and positive, row 0 has 0"),
        (change(yaw=np.ones(8) * u.mm), "column yaw is in mm, which is no deg"),
        (change(offset_y=["a"] * 8), "offset_y must hold one number per row"),
        (distortion(transformType="affine"), "must be radial and from FocalPlane, is affine"),
        (distortion(coeffs=[0.1, 1.0]), r"coeffs\[0\] = 0"),
        (distortion(coeffs=[0.0, 1.0, 0.0, -1e-4]), "detector 0 reaches .* turns back at 57.7"),
        (distortion(coeffs=None), "radial coefficients|not iterable"),
        (change()[:0], "at least one detector"),
    ],
)
def test_wrong_tables(table, message):
    with pytest.raises(ValueError, match=message):
        Camera.from_table(table)


def test_masked_geometry_is_an_error():
    table = Table(change(), masked=True)
    table["offset_x"].mask[3] = True
    with pytest.raises(ValueError, match="offset_x must be finite, row 3 has nan"):
        Camera.from_table(table)


def test_a_name_that_is_missing_is_empty(simcam):
    table = Table(simcam.to_table(), masked=True)
    for name in ("name", "type"):
        table[name].mask[1] = True
    camera = Camera.from_table(table)
    first, second = [*camera.values()][:2]
    assert (second.name, second.type) == ("", "")
    assert first.name == [*simcam.values()][0].name


def test_missing_metadata(tmp_path):
    table = change(yaw=None)
    table.meta = {"transforms": "radial"}
    message = "column yaw is missing; metadata plate_scale_arcsec_per_mm is missing"
    with pytest.raises(ValueError, match=message):
        Camera.from_table(table)
    table.write(tmp_path / "bad.ecsv", format="ascii.ecsv")
    with pytest.raises(ValueError, match=f"bad.ecsv: {message}"):
        Camera.open(tmp_path / "bad.ecsv")
    with pytest.raises(FileNotFoundError):
        Camera.open(tmp_path / "none.ecsv")


def test_wrong_pixel_scale(simcam):
    with pytest.raises(ValueError, match="pixel scale must be a positive number, got -1"):
        Camera(simcam.values(), pixel_scale=-1)


def test_a_table_cannot_hold_every_camera(simcam):
    first = simcam[0]
    parts = {name: getattr(first, name) for name in first.__dataclass_fields__}
    shifted = Camera([Detector(**parts | {"box": Box(5, 0, 9, 9)})])
    with pytest.raises(ValueError, match=r"detector 0 does not start at \(0, 0\)"):
        shifted.to_table()


def test_wrong_headers():
    headers = read_headers("S4", "S9")
    with pytest.raises(ValueError, match="at least one detector"):
        Camera.from_wcs({})
    with pytest.raises(KeyError, match="boxes has no detector 21"):
        Camera.from_wcs(headers, {20: Box(0, 0, 9, 9)})
    with pytest.raises(TypeError, match="detector 20 needs a WCS or a FITS header, got str"):
        Camera.from_wcs({20: "header"})
    with pytest.raises(ValueError, match="detector 1 looks .* deg away .* one exposure"):
        Camera.from_wcs({**headers, 1: read_headers("ccd2")[20]})
    del headers[21]["NAXIS1"]
    with pytest.raises(ValueError, match="detector 21 states no size; give boxes"):
        Camera.from_wcs(headers)
    del headers[20]["CTYPE1"]
    with pytest.raises(ValueError, match="WCS of detector 20 cannot be read: .*Unmatched"):
        Camera.from_wcs(headers)
    del headers[20]["CTYPE2"]
    with pytest.raises(ValueError, match="detector 20 must have two celestial axes"):
        Camera.from_wcs(headers)

"""Calibrations in files of afw: made here as afw makes them, and real ones."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from calibration import ChebyshevField, PhotoCalib, VisitPhotoCalib
from mapreduce import Box

CHEBYSHEV = {
    "order_x": 2,
    "bbox_min_x": 10,
    "bbox_min_y": -5,
    "bbox_max_x": 109,
    "bbox_max_y": 44,
    "coefficients": [2.0, 0.1, 0.01, 0.2, 0.02, 0.002],
}
FIELD = ChebyshevField(Box(10, -5, 100, 50), [[2.0, 0.1, 0.01], [0.2, 0.02, 0.002]])
NOWHERE = CHEBYSHEV | {"bbox_max_x": 9, "coefficients": [0.0] * 6}


def photo_calib(field, *, constant=False, mean=2.0):
    return {
        "flags": [constant],
        "calibrationMean": mean,
        "calibrationErr": 0.01,
        "field": field,
        "version": 1,
    }


def write(path, objects, *, head=(), primary=()):
    """Write objects, given as {number: (class, rows)}, to an archive."""
    index, tables = [], []
    for number, (name, rows) in objects.items():
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        table = fits.table_to_hdu(Table({k: v for k, v in columns.items() if k != "flags"}))
        if "flags" in columns:
            flags = fits.Column("flags", "1X", array=np.array(columns["flags"]))
            table = fits.BinTableHDU.from_columns([flags, *table.columns])
            table.header["TFLAG1"] = "isConstant"
        table.header["EXTTYPE"] = "ARCHIVE_DATA"
        tables.append(table)
        index.append((number, len(tables), 0, 0, len(rows), name, ""))
    names = ("id", "cat.archive", "cat.persistable", "row0", "nrows", "name", "module")
    dtype = ("i4", "i4", "i4", "i4", "i4", "S64", "S64")
    index = fits.table_to_hdu(Table(rows=index, names=names, dtype=dtype))
    index.header["EXTTYPE"] = "ARCHIVE_INDEX"
    hdus = [fits.PrimaryHDU(header=fits.Header(primary)), *head, index, *tables]
    fits.HDUList(hdus).writeto(path)
    return path


def test_a_field_and_a_product_of_fields(tmp_path):
    cheb = "ChebyshevBoundedField", [CHEBYSHEV]
    path = write(tmp_path / "a.fits", {2: cheb, 1: ("PhotoCalib", [photo_calib(2)])})
    assert PhotoCalib.open(path) == PhotoCalib(FIELD, 2.0, 0.01)
    product = "ProductBoundedField", [{"id": 2}, {"id": 2}]
    objects = {2: cheb, 3: product, 1: ("PhotoCalib", [photo_calib(3)])}
    assert PhotoCalib.open(write(tmp_path / "b.fits", objects)).field == FIELD * FIELD


def test_a_constant_with_and_without_a_box(tmp_path):
    calib = "PhotoCalib", [photo_calib(2, constant=True, mean=5.0)]
    path = write(tmp_path / "a.fits", {1: calib, 2: ("ChebyshevBoundedField", [CHEBYSHEV])})
    found = PhotoCalib.open(path)
    assert (found.box, found.mean) == (FIELD.box, 5)
    assert found.calibration(50, 0) == 5
    path = write(tmp_path / "b.fits", {1: calib, 2: ("ChebyshevBoundedField", [NOWHERE])})
    assert PhotoCalib.open(path).box.contains(Box(-10000, -10000, 20000, 20000))


def test_the_calibration_of_an_exposure_is_named_in_its_header(tmp_path):
    primary = {"HIERARCH ARCHIVE_ID_PHOTOCALIB": 9, "AR_HDU": 3}
    objects = {1: ("SkyWcs", [{"x": 1}]), 9: ("PhotoCalib", [photo_calib(4)])}
    objects[4] = "ChebyshevBoundedField", [CHEBYSHEV]
    image = fits.ImageHDU(np.zeros((2, 2)))
    path = write(tmp_path / "a.fits", objects, head=[image], primary=primary)
    assert PhotoCalib.open(path).field == FIELD


def test_a_catalog_of_exposures(tmp_path):
    edges = {"bbox_min_x": 0, "bbox_min_y": 0, "bbox_max_x": 99, "bbox_max_y": 49}
    rows = [{"id": i, "visit": 42, "photoCalib": n} | edges for i, n in ((7, 1), (3, 2), (5, 0))]
    objects = {
        1: ("PhotoCalib", [photo_calib(4)]),
        2: ("PhotoCalib", [photo_calib(5, constant=True)]),
        4: ("ChebyshevBoundedField", [CHEBYSHEV]),
        5: ("ChebyshevBoundedField", [NOWHERE]),
    }
    head = [fits.table_to_hdu(Table(rows))]
    visit = VisitPhotoCalib.open(write(tmp_path / "a.fits", objects, head=head))
    assert (visit.visit, list(visit)) == (42, [3, 7])
    assert visit[7] == PhotoCalib(FIELD, 2.0, 0.01)
    assert visit[3].box == Box(0, 0, 100, 50)
    rows[1] |= {"bbox_max_x": -1}
    head = [fits.table_to_hdu(Table(rows))]
    visit = VisitPhotoCalib.open(write(tmp_path / "d.fits", objects, head=head))
    assert visit[3].box.contains(Box(-10000, -10000, 20000, 20000))
    with pytest.raises(ValueError, match="holds a SkyWcs, not a PhotoCalib"):
        PhotoCalib.open(write(tmp_path / "b.fits", {1: ("SkyWcs", [{"x": 1}])}))
    rows[0]["visit"] = 43
    head = [fits.table_to_hdu(Table(rows))]
    with pytest.raises(ValueError, match="rows of 2 visits"):
        VisitPhotoCalib.open(write(tmp_path / "c.fits", objects, head=head))


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ({2: ("PhotoCalib", [photo_calib(0)])}, "the archive has no object 1"),
        ({1: ("PhotoCalib", [photo_calib(2)])}, "the archive has no object 2"),
        (
            {1: ("PhotoCalib", [photo_calib(2)]), 2: ("PixelAreaBoundedField", [{"x": 1}])},
            "the photoCalib is a PixelAreaBoundedField; only ChebyshevBoundedField",
        ),
        (
            {1: ("PhotoCalib", [photo_calib(2)]), 2: ("ChebyshevBoundedField", [NOWHERE])},
            "the box of the photoCalib's field is empty",
        ),
        (
            {1: ("PhotoCalib", [{"calibrationMean": 1.0, "calibrationErr": 0.0, "field": 0}])},
            "of version 0 is in maggies",
        ),
        (
            {1: ("PhotoCalib", [photo_calib(2) | {"version": 0}])},
            "of version 0 is in maggies",
        ),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, objects, message):
    path = write(tmp_path / "a.fits", objects)
    with pytest.raises(ValueError, match=f"a.fits.*{message}"):
        PhotoCalib.open(path)


def test_files_without_an_archive(tmp_path):
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "a.fits")
    with pytest.raises(ValueError, match=r"a\.fits has no archive of LSST objects"):
        PhotoCalib.open(tmp_path / "a.fits")
    with pytest.raises(FileNotFoundError, match=r"b\.fits"):
        PhotoCalib.open(tmp_path / "b.fits")
    path = write(tmp_path / "c.fits", {1: ("PhotoCalib", [photo_calib(0, constant=True)])})
    with pytest.raises(ValueError, match="is not a catalog of exposures with photoCalibs"):
        VisitPhotoCalib.open(path)


def test_real_files(shared):
    folder = shared / "data" / "exposures"
    single = PhotoCalib.open(folder / "hsc" / "photoCalib-version1.fits")
    assert (single.mean, single.err, single.calibration(3, 4)) == (123, 45, 123)
    stored = PhotoCalib.open(folder / "hsc" / "exposure-version-2.fits")
    assert (stored.mean, stored.err) == (1e6, 2e4)
    calexp = PhotoCalib.open(folder / "megacam_calexp" / "calexp-849375-12.fits.fz")
    visit = VisitPhotoCalib.open(folder / "megacam_calexp" / "visitSummary-849375.fits")
    assert (visit.visit, list(visit)) == (849375, [12])
    assert visit[12].box == Box(0, 0, 2048, 4612)
    for found in (calexp, visit[12]):
        np.testing.assert_allclose([found.mean, found.err], [0.5432242, 1.3884294e-4], rtol=1e-6)

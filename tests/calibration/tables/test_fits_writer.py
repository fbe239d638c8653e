"""FITS tables, written block by block."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from calibration.tables.fields import Field
from calibration.tables.fits_writer import FitsWriter

COLUMNS = {
    "visit": Field(np.dtype("i8"), (), "", "visit number"),
    "flag": Field(np.dtype(bool), (), "", "a flag"),
    "name": Field(np.dtype("S5"), (), "", "a name"),
    "cheb": Field(np.dtype("f8"), (4,), "mag", "coefficients"),
    "pwv": Field(np.dtype("f4"), (), "mm", "water"),
    "few": Field(np.dtype("i4"), (), "", "32 bits"),
}


def rows(n, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "visit": rng.integers(0, 2**50, n),
        "flag": rng.random(n) < 0.5,
        "name": np.array(["SIM-G", "SIM-R"], "S")[rng.integers(0, 2, n)],
        "cheb": rng.random((n, 4)),
        "pwv": rng.random(n).astype("f4"),
        "few": rng.integers(-5, 5, n, dtype="i4"),
    }


def test_blocks_make_up_one_table_that_astropy_reads(tmp_path):
    blocks = [rows(n, seed=n) for n in (3, 0, 40)]
    with FitsWriter(tmp_path / "a.fits", COLUMNS, {"BANDS": "g,r", "YES": True}, "TEST") as writer:
        for block in blocks:
            writer.write(block)
    with fits.open(tmp_path / "a.fits") as hdus:
        hdus.verify("exception")
        assert hdus[1].name == "TEST"
        assert hdus[1].header["TCOMM4"] == "coefficients"
        assert hdus[1].header["YES"] is True
    table = Table.read(tmp_path / "a.fits")
    assert table.colnames == [*COLUMNS]
    assert (str(table["cheb"].unit), str(table["pwv"].unit)) == ("mag", "mm")
    for name in COLUMNS:
        expected = np.concatenate([block[name] for block in blocks])
        found = np.asarray(table[name])
        assert found.dtype.kind == expected.dtype.kind
        np.testing.assert_array_equal(found, expected)


def test_file_is_what_astropy_would_write(tmp_path):
    data = rows(5)
    columns = {name: Field(field.dtype, field.shape) for name, field in COLUMNS.items()}
    with FitsWriter(tmp_path / "ours.fits", columns, name="TEST") as file:
        file.write(data)
    fits.BinTableHDU(Table(data).as_array(), name="TEST").writeto(
        tmp_path / "theirs.fits", checksum=True
    )
    with (
        fits.open(tmp_path / "ours.fits", checksum=True) as ours,
        fits.open(tmp_path / "theirs.fits") as theirs,
    ):
        sums = ["CHECKSUM", "DATASUM"]
        difference = fits.FITSDiff(ours, theirs, ignore_keywords=sums)
        assert difference.identical, difference.report()
        assert [hdu.verify_checksum() for hdu in ours] == [1, 1]
        assert [hdu.verify_datasum() for hdu in ours] == [1, 1]


def test_wrong_rows(tmp_path):
    with FitsWriter(tmp_path / "a.fits", COLUMNS) as writer:
        with pytest.raises(KeyError, match="pwv"):
            writer.write({name: values for name, values in rows(2).items() if name != "pwv"})
        writer.write(rows(2))
        with pytest.raises(ValueError, match="column pwv has 3 rows, others 2"):
            writer.write(rows(2) | {"pwv": np.ones(3)})
        with pytest.raises(ValueError, match=r"cheb has rows of shape \(9,\); its field says"):
            writer.write(rows(2) | {"cheb": np.ones((2, 9))})
    assert len(Table.read(tmp_path / "a.fits")) == 2

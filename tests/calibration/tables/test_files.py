"""Tables of products as files: what other packages read of them, and that damage is seen."""

from __future__ import annotations

import errno

import astropy.units as u
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table

from calibration.tables import files as table_files
from calibration.tables.files import SUFFIXES, check_table, read_table, write_table
from calibration.tables.fits_checksum import summed, word_sum
from tests.calibration.products_cases import assert_same_table, files


def make_table(rows=3):
    table = Table(meta={"VISIT": 60600004, "airmass": 1.25, "NOTE": "a 'note'"})
    table["id"] = np.arange(rows)
    table["flag"] = np.arange(rows, dtype="i4") - 2
    table["name"] = [f"S{i:02}" for i in range(rows)] if rows else np.empty(0, "U3")
    table["field"] = np.random.default_rng(0).normal(size=(rows, 2, 3)) * u.nJy
    table["x"] = np.linspace(-1 / 3, np.pi, rows, dtype="f4")
    table["wavelength"] = np.append(np.full(rows, np.nan)[1:], 4e3)[:rows] * u.AA
    table["field"].description = "coefficients"
    return table


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_table(path, make_table(), {"PROVENAN": "abc"})
    table = read_table(path)
    assert_same_table(table, make_table())
    meta = {key.upper(): str(value) for key, value in table.meta.items()}
    assert meta["VISIT"] == "60600004"
    assert float(meta["AIRMASS"]) == 1.25
    assert meta["NOTE"] == "a 'note'"
    assert meta["PROVENAN"] == check_table(path)["PROVENAN"] == "abc"
    first = path.read_bytes()
    write_table(path, make_table(), {"PROVENAN": "abc"})
    assert path.read_bytes() == first
    assert list(files(tmp_path)) == [f"a{suffix}"]


def test_fits_files_are_those_of_the_standard(tmp_path):
    path = tmp_path / "a.fits"
    write_table(path, make_table())
    with fits.open(path, checksum=True) as hdus:  # astropy warns of a wrong sum
        hdus.verify("exception")
        assert [hdu.verify_checksum() for hdu in hdus] == [1, 1]
        assert [hdu.verify_datasum() for hdu in hdus] == [1, 1]
        assert hdus[1].name == "PRODUCT"
        assert hdus[1].columns["field"].unit == "nJy"
        assert hdus[1].columns["wavelength"].unit == "Angstrom"
        assert hdus[1].header["TCOMM4"] == "coefficients"
        np.testing.assert_array_equal(hdus[1].data["field"], make_table()["field"])
        assert hdus[1].data["name"].tolist() == ["S00", "S01", "S02"]


@pytest.mark.parametrize("seed", range(30))
def test_checksums_of_headers(seed, tmp_path):
    hdu = fits.PrimaryHDU(np.frombuffer(np.random.default_rng(seed).bytes(2880), "u1"))
    data = hdu.data.tobytes()
    path = tmp_path / "a.fits"
    path.write_bytes(summed(hdu.header, word_sum(data)) + data)
    with fits.open(path, checksum=True) as hdus:
        assert hdus[0].verify_checksum() == hdus[0].verify_datasum() == 1
        assert hdus[0].header["CHECKSUM"].isalnum()


def test_parquet_files_need_nothing_of_ours(tmp_path):
    path = tmp_path / "a.parquet"
    write_table(path, make_table())
    table = pq.read_table(path)
    assert table.column_names == ["id", "flag", "name", "field", "x", "wavelength"]
    assert table["name"].to_pylist() == ["S00", "S01", "S02"]
    np.testing.assert_array_equal(
        np.array(table["field"].to_pylist()).reshape(3, 2, 3), make_table()["field"]
    )
    assert table.schema.field("field").metadata[b"unit"] == b"nJy"
    assert table.schema.metadata[b"VISIT"] == b"60600004"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rows", [0, 1])
def test_short_tables(suffix, rows, tmp_path):
    path = tmp_path / f"a{suffix}"
    table = make_table(rows)
    write_table(path, table)
    assert_same_table(read_table(path), table)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_flipped_bit_that_matters_is_seen(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_table(path, make_table(), {"PROVENAN": "abc"})
    good, table = path.read_bytes(), read_table(path)
    rng = np.random.default_rng(5)
    seen = 0
    for place in rng.choice(len(good), 150, replace=False).tolist():
        bad = bytearray(good)
        bad[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bad)
        try:
            said = check_table(path)
        except ValueError as error:
            assert f"{path} is damaged: " in str(error)  # noqa: PT017 - may not be raised
            seen += 1
            continue
        assert suffix == ".parquet"  # which has bytes that nobody reads
        assert (said["VISIT"], said["PROVENAN"]) == (60600004, "abc")
        assert_same_table(read_table(path), table)
    assert seen == 150 if suffix == ".fits" else seen > 80


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("length", [0, 1, 4, 100, 2880, 5760, -2880, -1])
def test_every_truncation_is_seen(suffix, length, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_table(path, make_table(300))
    data = path.read_bytes()
    path.write_bytes(data[:length])
    with pytest.raises(ValueError, match=f"a{suffix} is damaged: "):
        read_table(path)
    path.write_bytes(data + bytes(2880))
    with pytest.raises(ValueError, match=f"a{suffix} is damaged: "):
        check_table(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_zeros_at_the_end_count(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    write_table(path, Table({"x": np.zeros(5000)}))
    data = path.read_bytes()
    path.write_bytes(data[:-2880])
    with pytest.raises(ValueError, match="is damaged: "):
        check_table(path)


def test_files_with_a_checksum_of_the_data_alone(tmp_path):
    path = tmp_path / "a.fits"
    hdu = fits.BinTableHDU(Table({"x": [1, 2, 3]}))
    hdu.add_datasum()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    assert read_table(path)["x"].tolist() == [1, 2, 3]
    data = bytearray(path.read_bytes())
    data[-2880 + 7] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="the data are not those that were written"):
        check_table(path)
    fits.BinTableHDU(Table({"x": [1, 2, 3]})).writeto(path, overwrite=True)
    with pytest.raises(ValueError, match=r"a.fits is damaged: .*DATASUM"):
        check_table(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_files(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(FileNotFoundError):
        check_table(path)
    for data in (b"hello", b"SIMPLE  = " * 288, bytes(5760)):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"a{suffix} is damaged: "):
            check_table(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"a{suffix} is damaged: "):
        check_table(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("values", [[1j], np.array(["2026"], "M8[Y]")])
def test_columns_that_cannot_be_kept(suffix, values, tmp_path):
    with pytest.raises(TypeError, match=r"column x is .*; numbers, truth values and texts are"):
        write_table(tmp_path / f"a{suffix}", Table({"x": values}))
    assert files(tmp_path) == {}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truth_values_come_back(suffix, tmp_path):
    write_table(tmp_path / f"a{suffix}", Table({"x": [True, False, True]}))
    (values,) = read_table(tmp_path / f"a{suffix}").itercols()
    assert values.dtype == bool
    assert values.tolist() == [True, False, True]


def test_names_end_in_the_format(tmp_path):
    with pytest.raises(ValueError, match=r"a.csv: a table ends in .fits or .parquet"):
        write_table(tmp_path / "a.csv", make_table())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_what_was_there(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"a{suffix}"
    write_table(path, make_table())
    before = files(tmp_path)

    def full(writer, rows):
        raise OSError(errno.ENOSPC, "No space left on device")

    for kind in (table_files.FitsWriter, table_files.ParquetWriter):
        monkeypatch.setattr(kind, "write", full)
    with pytest.raises(OSError, match=rf"No space left on device: '.*a{suffix}'") as caught:
        write_table(path, make_table(5))
    assert caught.value.errno == errno.ENOSPC
    assert files(tmp_path) == before

"""Tables written block by block: what other tools read is what was written."""

from __future__ import annotations

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.table.meta import get_header_from_yaml

from calibration.tables.fields import Field, as_table, row_dtype
from calibration.tables.files import check_table, table_writer
from calibration.tables.parquet_reader import ParquetTable

FIELDS = {
    "id": Field(np.dtype("i8"), (), "", "a number"),
    "mag": Field(np.dtype("f8"), (), "mag", "AB magnitude"),
    "n": Field(np.dtype("i4"), (), "", "observations"),
}
META = {"TRACT": 7, "BANDS": "g,r", "PROVENAN": "123456", "OFFSETS": "-0.123456," * 12}


def write_rows(path, blocks, overwrite=False):
    with table_writer(path, FIELDS, META, overwrite=overwrite) as file:
        for block in blocks:
            file.write(block)


def some_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.empty(count, row_dtype(FIELDS))
    rows["id"] = rng.integers(-(2**60), 2**60, count)
    rows["mag"] = np.where(rng.random(count) < 0.3, np.nan, rng.uniform(15, 25, count))
    rows["n"] = rng.integers(-5, 50, count)
    return rows


@pytest.mark.parametrize("sizes", [[], [0], [1], [3, 0, 5], [1000, 2, 700]])
def test_fits_is_as_astropy_has_it(tmp_path, sizes):
    path = tmp_path / "a.fits"
    blocks = [some_rows(size, seed) for seed, size in enumerate(sizes)]
    write_rows(path, blocks)
    expected = np.concatenate([some_rows(0), *blocks])
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
        assert hdus[1].verify_datasum() == 1
    table = Table.read(path)
    for name in expected.dtype.names:
        np.testing.assert_array_equal(table[name], expected[name])
        assert table[name].dtype.str.lstrip("<>") == expected.dtype[name].str.lstrip("<>")
    assert {key: table.meta[key] for key in META} == META
    assert [table[name].unit for name in FIELDS] == [None, "mag", None]
    assert fits.getheader(path, 1)["TCOMM2"] == "AB magnitude"
    assert os.path.getsize(path) % 2880 == 0


def test_blocks_do_not_show_in_fits(tmp_path):
    rows = some_rows(500)
    write_rows(tmp_path / "a.fits", [rows])
    write_rows(tmp_path / "b.fits", np.array_split(rows, 9))
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_parquet_has_a_row_group_of_each_block(tmp_path):
    path = tmp_path / "a.parquet"
    rows = some_rows(500)
    write_rows(path, [rows[:300], rows[300:]])
    table = pq.read_table(path)
    for name in rows.dtype.names:
        np.testing.assert_array_equal(table[name].to_numpy(), rows[name])
        assert table[name].null_count == 0
    groups = pq.read_metadata(path)
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [300, 200]
    assert table.schema.field("mag").metadata == {b"unit": b"mag", b"description": b"AB magnitude"}
    assert table.schema.metadata[b"TRACT"] == b"7"
    assert ParquetTable(path).meta["TRACT"] == 7
    assert ParquetTable(path).columns["mag"].unit == "mag"
    header = get_header_from_yaml(table.schema.metadata[b"table_meta_yaml"].decode().splitlines())
    assert dict(header["meta"]) == META
    assert str(header["datatype"][1]["unit"]) == "mag"


def test_blocks_do_not_show_in_the_checksum_of_parquet(tmp_path):
    rows = some_rows(500)
    write_rows(tmp_path / "a.parquet", [rows])
    write_rows(tmp_path / "b.parquet", np.array_split(rows, 9))
    sums = [pq.ParquetFile(tmp_path / f"{n}.parquet").metadata.metadata for n in "ab"]
    assert sums[0][b"CHECKSUM"] == sums[1][b"CHECKSUM"]
    assert check_table(tmp_path / "a.parquet") == check_table(tmp_path / "b.parquet") == META


def test_damage_of_parquet_is_seen(tmp_path):
    path = tmp_path / "a.parquet"
    rows = some_rows(2000)
    write_rows(path, [rows])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="(?i)crc|checksum"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


@pytest.mark.parametrize("name", ["a.fits", "a.parquet"])
def test_all_or_nothing(tmp_path, name):
    def blocks():
        yield some_rows(5)
        raise RuntimeError("no more")

    path = tmp_path / name
    with pytest.raises(RuntimeError, match="no more"):
        write_rows(path, blocks())
    assert list(tmp_path.iterdir()) == []
    write_rows(path, [some_rows(5)])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="no more"):
        write_rows(path, blocks(), overwrite=True)
    with pytest.raises(FileExistsError, match=name):
        write_rows(path, [some_rows(6)])
    assert path.read_bytes() == before
    write_rows(path, [some_rows(6)], overwrite=True)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]


def test_tables_have_units_and_descriptions():
    table = as_table(some_rows(3), FIELDS, META)
    assert table["mag"].unit == "mag"
    assert table["id"].unit is None
    assert table["n"].description == "observations"
    assert table.meta == META
    assert table["mag"].flags.c_contiguous
